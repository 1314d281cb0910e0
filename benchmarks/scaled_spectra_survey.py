"""Wrong eigenvalues of badly scaled pencils: sparsehess beside slepc4py and SciPy, against dense LAPACK.

The real matrices of ../shared/data under random symmetric scalings, penalties, ties, multipliers, huge masses and
masses of low rank (`tests/support/scaled_pencils.py`), each asked for the lowest, the largest, those nearest to a
target, those of an interval, and for its inertia. An answer is right; refused (any error of sparsehess's own);
wrong but not certified; or WRONG AND CERTIFIED, which must not be. *Digits*: certified although a rounding of the
stored entries decides the answer. Beside it what users write by themselves: slepc4py with shift-and-invert by
MUMPS, and `scipy.sparse.linalg.eigsh` with `sigma`, both at 0 below a positive spectrum, else a little below 0, or
at the target; an answer of theirs is wrong *without a word* if it comes with no error and all pairs converged.

Every run has a name SEED.QUESTION that it can be repeated by, and a limit of seconds, after which it counts as
without an end. With $REFERENCES the answers of LAPACK are kept for other numbers of ranks.

    python benchmarks/scaled_spectra_survey.py [--runs 1000] [--first 0] [--ranks 1 2 3] [--limit 60] [--no-peers]
    python benchmarks/scaled_spectra_survey.py --large --first 1 --runs 20 --ranks 1
    python benchmarks/scaled_spectra_survey.py --only 17.2 --ranks 2
"""

import argparse
import json
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from pathlib import Path

import numpy as np
import scipy.sparse.linalg

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

SHIFTS = {  # about the lowest eigenvalue that is not zero
    "hb_bcsst01": 27.0, "hb_lund": 208.0, "ccx_acou3": 3021.0, "nafems_fv52_p2": 7.8e4, "anm_3mht": 0.17,
    "ccx_beam8f": 7.5e9,
}  # fmt: skip
FREE = ("nafems_fv52_p2", "anm_3mht")
BASES = ("hb_bcsst01", "hb_lund", "ccx_acou3", "nafems_fv52_p2", "anm_3mht", "ccx_beam8f")
KINDS = {
    "scaled": 0.22, "held": 0.24, "tied": 0.16, "single multipliers": 0.13, "double multipliers": 0.1,
    "large masses": 0.07, "low-rank mass": 0.08,
}  # fmt: skip
QUESTIONS = ("smallest", "largest", "target", "interval", "inertia")
VERDICTS = ("right", "refused", "uncertified", "WRONG", "digits", "broken", "no end")
BAD = ("WRONG", "broken", "no end")


# --- what is asked ----------------------------------------------------------------------


def base(name, rng):
    """Return a real pencil, sometimes less a multiple of its mass, and another order of what is chosen."""
    from support.cases import stored
    from support.scaled_pencils import moved, plain

    K, M = stored(name)
    pencil = plain(K, M, SHIFTS[name], name)
    if rng.random() < 0.25:
        few = pencil.values[: min(25, len(pencil.values) - 2)]
        i = int(rng.integers(1, len(few) - 1))
        pencil = moved(pencil, float(few[i] + rng.uniform(0.3, 0.7) * (few[i + 1] - few[i])))
    return pencil


def large(seed):
    """Return a large real pencil under a scaling; its spectrum is that of `support.cases`."""
    from support.cases import LARGE, reference, stored
    from support.scaled_pencils import EPS, Pencil, congruent

    rng = np.random.default_rng([seed, 77])
    name = rng.choice(LARGE)
    (K, M), values = stored(name), reference(name)
    pencil = Pencil(str(name), K, M, values, np.full(len(values), EPS * values[-1]), 0, 1.0, 1.0, 0, values[-6:])
    return "scaled", congruent(pencil, rng, int(rng.choice([2, 5, 10, 15])), bool(rng.random() < 0.5))


def made(seed):
    """Return (kind, Pencil) of a seed."""
    from support import scaled_pencils as make

    for attempt in range(20):
        rng = np.random.default_rng([seed, attempt])
        kind = rng.choice(list(KINDS), p=list(KINDS.values()))
        positive = kind == "low-rank mass"
        names = [name for name in BASES if not (positive and (name in FREE or name == "hb_bcsst01"))]
        name = rng.choice(names)
        try:
            pencil = base(name, rng)
            share = 10 ** rng.uniform(-2, -1)
            few = max(1, round(share * pencil.n))
            if kind == "held":
                pencil = make.held(pencil, rng, share, 10 ** rng.uniform(3, 24))
            elif kind == "tied":
                few, most = min(few, pencil.n // 8), int(rng.choice([2, 4]))
                pencil = make.tied(
                    pencil, rng, few, 10 ** rng.choice([rng.uniform(1, 9), rng.uniform(9, 22)]), most
                )
            elif kind == "large masses":
                pencil = make.weighted(pencil, rng, share, 10 ** rng.uniform(4, 12))
            elif kind == "low-rank mass":
                pencil = make.low_rank_mass(pencil, rng, rng.uniform(0.1, 0.9))
            elif kind != "scaled":
                if rng.random() < 0.25:
                    pencil = make.held(pencil, rng, 0.02, 10 ** rng.uniform(3, 20))
                size = 10 ** rng.choice([0.0, rng.uniform(-8, 8)])
                pencil = make.constrained(pencil, rng, min(few, pencil.n // 8), size, kind.startswith("double"))
            if kind == "scaled" or (kind != "tied" and rng.random() < 0.25):
                decades = int(rng.choice([2, 5, 10, 15]))
                pencil = make.congruent(pencil, rng, decades, bool(rng.random() < 0.5))
            return kind, pencil
        except (ValueError, np.linalg.LinAlgError):
            continue  # more than LAPACK can judge: another of this seed
    raise RuntimeError(f"nothing that LAPACK can judge with seed {seed}")


def asked(seed, pencil):
    """Return the questions of a seed: what to ask, arguments, and the numbers of the right eigenvalues."""
    from support.scaled_pencils import gaps, nearest

    rng = np.random.default_rng([abs(seed), 99])
    there = len(pencil.values)
    found = []
    k = int(min(rng.choice([1, 2, 3, 5, 6, 10, 17, 30]), there))
    found.append(("smallest", {"k": k}, np.arange(k)))
    k = int(min(rng.choice([1, 3, 6]), there))
    known = pencil.top is not None and len(pencil.top) >= k
    if known and (pencil.above or (pencil.within[-k:] <= 1e-3 * np.abs(pencil.top[-k:])).all()):
        found.append(("largest", {"k": k, "which": "largest"}, None))
    k = int(min(rng.choice([1, 2, 4, 8]), there))
    i = int(rng.integers(0, min(40, there - 1)))
    target = float(pencil.values[i] + rng.uniform(0, 1) * (pencil.values[i + 1] - pencil.values[i]))
    chosen, sure = nearest(pencil, target, k)
    if sure:
        found.append(("target", {"k": k, "target": target}, chosen))
    between = gaps(pencil, min(45, there - 2))
    if len(between):
        i, j = np.sort(rng.choice(between, 2))
        ends = [float(pencil.values[m : m + 2].mean()) for m in (i, j)]
        if i == j:
            ends[0] = float(pencil.values[0] - 10 * (pencil.scale + pencil.within[0]))
            i = -1
        found.append(("interval", {"interval": tuple(ends)}, np.arange(i + 1, j + 1)))
    found.append(("inertia", {}, None))
    return found


def case(seed):
    """Return (kind, pencil, questions) of a seed, from $REFERENCES where it has been made before."""
    folder = os.environ.get("REFERENCES")
    kept = Path(folder) / "scaled_spectra" / f"{seed}.pickle" if folder else None
    if kept is not None and kept.exists():
        return pickle.loads(kept.read_bytes())
    kind, pencil = large(-seed) if seed < 0 else made(seed)
    whole = kind, pencil, asked(seed, pencil)
    if kept is not None:
        kept.parent.mkdir(exist_ok=True)
        kept.with_suffix(f".{os.getpid()}").write_bytes(pickle.dumps(whole))
        kept.with_suffix(f".{os.getpid()}").rename(kept)
    return whole


# --- who answers, each on all ranks of a worker -----------------------------------------


def short(values, most=6):
    values = list(values)
    return "[" + ", ".join(f"{v:.8g}" for v in values[:most]) + (", …]" if len(values) > most else "]")


def ours(comm, pencil, what, arguments, chosen):
    """Return (verdict, what was said)."""
    import sparsehess as sh
    from sparsehess.errors import SparseHessError
    from support.scaled_pencils import agrees, has_top

    try:
        if what == "inertia":
            found = sh.inertia(pencil.K, mass=pencil.M, comm=comm)
            got = (found.negative, found.zero, found.positive, found.infinite)
            said = f"{got}{' certified' if found.certified else ' doubted: ' + found.doubt}"
            right, settled = pencil.has_signs(*got)
            if right and found.certified and not settled:
                return "digits", said
            return ("right" if right else "WRONG" if found.certified else "uncertified"), said
        with sh.eigs(pencil.K, mass=pencil.M, comm=comm, **arguments) as spectrum:
            count = spectrum.count
            certified = count is not None and count.certified
            said = f"{short(spectrum.eigenvalues)} {'certified' if certified else spectrum.uncounted or 'doubted'}"
            if what == "largest":
                right, lost = spectrum.converged == arguments["k"] and has_top(spectrum.eigenvalues, pencil), False
            else:
                right, lost = agrees(spectrum.eigenvalues, pencil, chosen), pencil.lost(chosen)
            if right:
                return ("digits" if certified and lost else "right"), said
            return ("WRONG" if certified else "uncertified"), said
    except SparseHessError as error:
        broken = error.status == 1 or "stopped while" in str(error)  # that PETSc gave up is no answer
        return "broken" if broken else "refused", f"{type(error).__name__}: {error}"
    except Exception:
        return "broken", traceback.format_exc(limit=-1)[-400:]


def user_shift(pencil, arguments):
    """Return where a user would put the shift: at the target, at 0, or a little below 0 for a free body."""
    if "target" in arguments:
        return arguments["target"]
    return 0.0 if pencil.values[0] > 1e-3 * pencil.scale else -0.1 * pencil.scale


def slepc(comm, pencil, what, arguments, chosen):
    """Return the verdict on slepc4py as its examples use it, or None where it has no such question."""
    from sparsehess.runtime import PETSc, SLEPc
    from support.scaled_pencils import agrees

    if what in ("inertia", "largest"):
        return None

    def mat(X):
        A = PETSc.Mat().create(comm)
        A.setSizes(X.shape)
        A.setType("aij")
        A.setUp()
        first, last = A.getOwnershipRange()
        A.destroy()
        own = X.tocsr()[first:last]
        return PETSc.Mat().createAIJ(
            ((last - first, X.shape[0]), (last - first, X.shape[1])),
            csr=(own.indptr, own.indices, own.data),
            comm=comm,
        )

    A, B = mat(pencil.K), None if pencil.M is None else mat(pencil.M)
    eps = SLEPc.EPS().create(A.comm)
    eps.setOperators(A, B)
    eps.setProblemType(SLEPc.EPS.ProblemType.HEP if B is None else SLEPc.EPS.ProblemType.GHEP)
    st = eps.getST()
    st.setType("sinvert")
    ksp = st.getKSP()
    ksp.setType("preonly")
    ksp.getPC().setType("cholesky")
    ksp.getPC().setFactorSolverType("mumps")
    try:
        if what == "interval":
            eps.setWhichEigenpairs(SLEPc.EPS.Which.ALL)
            eps.setInterval(*arguments["interval"])
            PETSc.Options()["st_mat_mumps_icntl_13"] = 1  # the root in one piece: the inertia is wanted
            st.setFromOptions()
        else:
            eps.setDimensions(arguments["k"])
            eps.setTarget(user_shift(pencil, arguments))
            eps.setWhichEigenpairs(SLEPc.EPS.Which.TARGET_MAGNITUDE)
        eps.solve()
        got, whole = eps.getConverged(), len(chosen)
        many = got if what == "interval" else min(got, whole)
        values = [complex(eps.getEigenvalue(i)).real for i in range(many)]
    except PETSc.Error:
        return "refused"
    finally:
        eps.destroy()
    if agrees(values, pencil, chosen):
        return "right"
    return "refused" if what != "interval" and got < whole else "silent"


def scipy_eigsh(pencil, what, arguments, chosen):
    """Return the verdict on SciPy's shift-and-invert, or None where it has no such question."""
    from support.scaled_pencils import agrees

    if what not in ("smallest", "target") or not 0 < arguments["k"] < pencil.n:
        return None
    try:
        values = scipy.sparse.linalg.eigsh(
            pencil.K.tocsc(), arguments["k"], None if pencil.M is None else pencil.M.tocsc(),
            sigma=user_shift(pencil, arguments), return_eigenvectors=False,
        )  # fmt: skip
    except (RuntimeError, ValueError, ArithmeticError, scipy.sparse.linalg.ArpackError):
        return "refused"
    return "right" if agrees(values, pencil, chosen) else "silent"


def work(names, peers):
    """Answer the runs SEED.QUESTION, all ranks together, and print a line of JSON for each."""
    from mpi4py import MPI

    from sparsehess.runtime import communicator
    from support.cases import LARGE, reference

    comm = communicator(MPI.COMM_WORLD)
    last, whole = None, None

    def tell(**fields):
        if comm.rank == 0:
            print("@" + json.dumps(fields), flush=True)

    for name in names:
        seed, question = map(int, name.split("."))
        if seed != last:
            tell(begun="reference")
            if seed < 0:
                for large_one in LARGE:
                    reference(large_one)  # collective, and kept on every rank
            whole, last = comm.bcast(case(seed) if comm.rank == 0 else None), seed
        kind, pencil, questions = whole
        if question >= len(questions):
            tell(name=name, skipped=True)
            continue
        what, arguments, chosen = questions[question]
        if what == "inertia":
            truth = f"{pencil.signs} + {pencil.infinite} infinite"
        else:
            truth = short(pencil.top[-arguments["k"] :] if chosen is None else pencil.values[chosen])
        facts = {
            "kind": str(kind),
            "words": pencil.words,
            "what": what,
            "arguments": str(arguments),
            "truth": truth,
        }
        tell(begun=name, facts=facts)
        began = time.perf_counter()
        verdict, said = ours(comm, pencil, what, arguments, chosen)
        seconds = time.perf_counter() - began
        facts |= {"name": name, "verdict": verdict, "said": said, "seconds": seconds}
        tell(**facts)
        if peers:
            tell(begun=name, peer="slepc4py")
            theirs = slepc(comm, pencil, what, arguments, chosen)
            tell(name=name, what=what, peer="slepc4py", verdict=theirs)
            if comm.size == 1:
                tell(begun=name, peer="SciPy")
                tell(name=name, what=what, peer="SciPy", verdict=scipy_eigsh(pencil, what, arguments, chosen))


# --- who judges, in a process of its own without MPI ------------------------------------


class Worker:
    """A run of this file on some ranks that answers one name after another, and may end or hang at any."""

    def __init__(self, names, ranks, peers):
        words = [sys.executable, __file__, f"--work={','.join(names)}"] + ([] if peers else ["--no-peers"])
        if ranks > 1:
            words = ["mpiexec", "--oversubscribe", "-n", str(ranks), *words]
        environment = {"OMP_NUM_THREADS": "1", "OMPI_MCA_mpi_yield_when_idle": "1",
                       "OMPI_MCA_hwloc_base_binding_policy": "none", "OMPI_ALLOW_RUN_AS_ROOT": "1",
                       "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}  # fmt: skip
        self.process = subprocess.Popen(
            words, env={**environment, **os.environ}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True, start_new_session=True,
        )  # fmt: skip
        self.lines = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            if line.startswith("@"):
                self.lines.put(json.loads(line[1:]))
        self.lines.put(None)

    def next(self, seconds):
        """Return the next message, None at the end; raises queue.Empty where none comes."""
        return self.lines.get(timeout=seconds)

    def end(self):
        for sign in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, sign)
                self.process.wait(5)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue


def unanswered(name, verdict, said, seconds, facts=None):
    """Return the facts of a run that told nothing itself."""
    unknown = dict.fromkeys(("kind", "words", "what", "arguments", "truth"), "?")
    return {**unknown, **(facts or {}), "name": name, "verdict": verdict, "said": said, "seconds": seconds}


def surveyed(names, ranks, limit, peers):
    """Yield the facts of every run, those of peers too; a worker that ends or hangs is followed by another."""
    left = list(names)
    while left:
        worker, at, peer, facts = Worker(left, ranks, peers), "reference", "", None
        try:
            while True:
                try:
                    message = worker.next(limit if at != "reference" else 600)
                except queue.Empty:
                    message = "late"
                if message == "late" or message is None:
                    break
                if "begun" in message:
                    at, peer, facts = message["begun"], message.get("peer", ""), message.get("facts")
                    continue
                if "peer" not in message:
                    left.remove(message["name"])
                yield message
        finally:
            worker.end()
        if peer and left:
            yield {"name": at, "peer": peer, "verdict": "died"}
        elif left and at in (left[0], "reference"):
            how = "no end" if message == "late" else "broken"
            yield unanswered(left.pop(0), how, f"status {worker.process.returncode}", limit, facts)


def table(runs):
    """Print how many runs of each kind, and of each question, had which verdict."""
    print(f"\n{'':20s} {'runs':>5s} " + " ".join(f"{verdict:>11s}" for verdict in VERDICTS))
    for key in ("kind", "what"):
        groups = {}
        for run in runs:
            groups.setdefault(run[key], Counter())[run["verdict"]] += 1
        for name in sorted(groups):
            row = groups[name]
            print(f"{name:20s} {row.total():5d} " + " ".join(f"{row[verdict]:11d}" for verdict in VERDICTS))
        print()


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--runs", type=int, default=1000, help="on each number of ranks")
    arguments.add_argument("--first", type=int, default=0, help="seed of the first pencil")
    arguments.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 3])
    arguments.add_argument("--limit", type=float, default=60.0, help="seconds of a run")
    arguments.add_argument("--only", nargs="+", metavar="SEED.QUESTION")
    arguments.add_argument("--no-peers", action="store_true")
    arguments.add_argument(
        "--large", action="store_true", help="the large matrices instead, scaled; seeds are negative"
    )
    arguments.add_argument("--all", action="store_true", help="print every run")
    arguments.add_argument("--work", help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.work:
        work(given.work.split(","), not given.no_peers)
        return 0
    each = len(QUESTIONS)
    sign = "-" if given.large else ""
    names = given.only or [f"{sign}{given.first + i // each}.{i % each}" for i in range(2 * given.runs)]
    if "-0.0" in names:
        arguments.error("seeds of large matrices begin with 1: --first 1")
    bad = 0
    for ranks in given.ranks:
        runs, peers = [], {}
        began = time.monotonic()
        for run in surveyed(names, ranks, given.limit, not given.no_peers):
            if run.get("skipped"):
                continue
            if len(runs) == given.runs and not given.only and "peer" not in run:
                break
            if "peer" in run:
                if run["verdict"] is not None:
                    peers.setdefault(run["peer"], Counter())[run["verdict"]] += 1
                continue
            runs.append(run)
            if given.all or given.only or run["verdict"] not in ("right", "refused"):
                print(
                    f"{run['name']} on {ranks}: {run['verdict']}: {run['words']}: {run['what']} "
                    f"{run['arguments']}: {run['said']}; truth {run['truth']} ({run['seconds']:.1f} s)",
                    flush=True,
                )
        table(runs)
        for peer, row in sorted(peers.items()):
            print(
                f"{peer}: of {row.total()} such runs {row['right']} right, {row['refused']} refused, "
                f"{row['silent']} wrong without a word ({row['silent'] / row.total():.0%}), "
                f"{row['died']} crashed or without an end"
            )
        total = Counter(run["verdict"] for run in runs)
        bad += sum(total[verdict] for verdict in BAD)
        print(
            f"{ranks} rank(s): {len(runs)} runs in {time.monotonic() - began:.0f} s, {total['right']} right, "
            f"wrong and certified {total['WRONG']}",
            flush=True,
        )
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
