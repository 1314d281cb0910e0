"""Messages, bytes and memory of a rank, stage by stage, on 1 to 16 ranks, and a model carried to many more.

    python benchmarks/traffic_by_ranks.py [--ranks 1 2 4 8 16] [--sides 12 32] [--cells 5 14] [--facts FILE]

Counts, not times: ranks may share cores, and other programs may run. Two problems, each once with as many
variables for every number of ranks and once with as many a rank: `--sides` and `--cells` are the smallest and the
largest size.

- assembly: anharmonic springs on a 27-point grid, side³ variables, numbered plane by plane; a gradient that every
  rank evaluates whole, and one that is spread over the ranks. They are coloured in chunks of 512, so that all
  ranks have some (16,384 are usual, and one rank for up to 131,072 variables);
- eigenpairs: a clamped elastic cube of trilinear bricks, 3 cells (cells + 1)² variables.

A library that stands between the process and MPI counts (`contenders/traffic.c`, compiled by `mpicc` into a
temporary folder). Told for each stage, of the rank with most:

- messages: from rank to rank, sent or received; parts of an all-to-all that are not empty are messages;
- collectives: calls of others, such as reductions;
- bytes: sent or received in messages and given to or got from collectives, not what MPI makes of these;
- memory: the peak in the stage, less what was resident before the first.

The model is a sum of terms with coefficients ≥ 0, fitted to 2 to 8 ranks; what it says of the largest number is
compared with what was counted there. Then it is carried to `--far` ranks and variables: extrapolated, not
measured. The name in brackets is that of the largest term.
With `--facts` counts are kept in a file, and taken from there.
"""

import argparse
import ctypes
import json
import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]
from contenders.process_memory import forget_peak, memory
from contenders.traffic_model import QUANTITIES, report_counts, report_model

# Of traffic.c.
KINDS = ("reduce", "broadcast", "gather", "allgather", "all-to-all", "barrier", "communicator")
STAGES, RANKS = 32, 1024
PAIRS, PRODUCTS, CHUNK = 10, 10, 512


class Stages:
    """The stage that is counted, and the peaks of memory in each."""

    def __init__(self):
        self.library = ctypes.CDLL(os.environ["LD_PRELOAD"])
        self.names, self.inner, self.now = ["nothing"], {}, 0
        self.heap, self.peaks = ctypes.CDLL(None), [0] * STAGES
        self.heap.malloc_trim(0)
        self.base = memory("VmRSS")

    def _turn_to(self, number):
        self.peaks[self.now] = max(self.peaks[self.now], memory())
        self.heap.malloc_trim(0)  # what a stage has given back is not the next one's
        forget_peak()
        self.library.MPI_Pcontrol(number)
        self.now = number

    @contextmanager
    def count(self, name, **inner):
        """Count what is done here as this stage; functions named in `inner`, where hooked, as others."""
        if name not in self.names:
            self.names.append(name)
        before, known = self.now, self.inner
        self._turn_to(self.names.index(name))
        self.inner = inner
        yield
        self.inner = known
        self._turn_to(before)

    def hook(self, owner, name):
        """Let calls of owner.name be a stage of their own where `count` has a name for them."""
        function = getattr(owner, name)

        def hooked(*arguments, **options):
            if name not in self.inner:
                return function(*arguments, **options)
            with self.count(self.inner[name], **self.inner):
                return function(*arguments, **options)

        setattr(owner, name, hooked)

    def facts(self, comm):
        """Return facts of each stage, of the rank with most. Collective."""
        sent = self._table("traffic_sent", (STAGES, RANKS, 2))[:, : comm.size]
        calls = self._table("traffic_collective", (STAGES, len(KINDS), 3))
        got = np.stack(comm.alltoall([sent[:, rank] for rank in range(comm.size)])).sum(axis=0)
        facts = {}
        for number, name in enumerate(self.names[1:], 1):
            (messages, out), (others, into) = sent[number].sum(axis=0), got[number]
            kinds = calls[number]
            given, taken = kinds[:, 1:].sum(axis=0)
            own = (
                max(messages, others),
                kinds[:, 0].sum(),
                max(out + given, into + taken),
                self.peaks[number] - self.base,
                *kinds[:, 0],
            )
            most = np.max(comm.allgather(own), axis=0).tolist()
            facts[name] = dict(zip((*QUANTITIES, *KINDS), most, strict=True))
        return facts

    def _table(self, name, shape):
        kind = ctypes.c_int64 * int(np.prod(shape))
        return np.array(kind.in_dll(self.library, name)).reshape(shape)


# --- the problems ---


def forward(layout, side):
    """Return (rows, columns) of the pairs of neighbours of which the first is on this rank, each pair once."""
    own = np.arange(layout.start, layout.stop)
    place = np.stack(np.unravel_index(own, (side,) * 3), axis=1)
    pairs = []
    for number in range(14, 27):
        there = place + np.array(np.unravel_index(number, (3, 3, 3))) - 1
        inside = ((there >= 0) & (there < side)).all(axis=1)
        pairs.append((own[inside], np.ravel_multi_index(there[inside].T, (side,) * 3)))
    return tuple(np.concatenate(part) for part in zip(*pairs, strict=True))


def whole_gradient(side):
    """Return the gradient of springs d²/2 + d⁴/4 between neighbours, and x²/2, of all of x."""

    def gradient(x):
        u, g = x.reshape((side,) * 3), x.copy()
        g3 = g.reshape(u.shape)
        for number in range(14, 27):
            step = np.array(np.unravel_index(number, (3, 3, 3))) - 1
            here = tuple(slice(max(0, -s), side - max(0, s)) for s in step)
            there = tuple(slice(max(0, s), side - max(0, -s)) for s in step)
            d = u[here] - u[there]
            force = d + d**3
            g3[here] += force
            g3[there] -= force
        return g

    return gradient


def spread_gradient(pattern):
    """Return the same gradient, of rows on ranks: it exchanges with neighbours what its own rows see."""
    rows = np.repeat(np.arange(pattern.layout.n_local), np.diff(pattern.indptr))

    def gradient(x, g):
        known = pattern.exchange.halo(x.getArray(readonly=True))
        d = known[rows] - known[pattern.columns]
        g.setArray(known[: len(g.getArray())] + np.bincount(rows, d + d**3, pattern.layout.n_local))

    return gradient


def count_assembly(stages, side, comm, folder):
    """Count an assembly, its update, and products. Collective."""
    from petsc4py import PETSc

    import sparsehess as sh
    from sparsehess.coloring import local_graph
    from sparsehess.hessian import assembly_strategies, hessian
    from sparsehess.storage.checkpoint import Checkpoint

    for owner, name in (
        (hessian, "estimate_noise"),
        (assembly_strategies, "compress"),
        (hessian, "verify"),
        (Checkpoint, "save"),
    ):
        stages.hook(owner, name)
    local_graph.WHOLE, local_graph.CHUNK = 0, CHUNK  # so that every rank has some to colour
    parts = {"estimate_noise": "noise", "verify": "check"}
    layout = sh.Layout.from_size(side**3, comm)
    with stages.count("pattern from pairs"):
        pattern = sh.Pattern.from_pairs(*forward(layout, side), side**3, layout=layout)
        pattern.exchange  # noqa: B018 - planned here
    with stages.count("colouring"):
        coloring = sh.color(pattern, order="natural")
    x = np.random.default_rng(0).normal(size=side**3)
    whole = sh.Objective(x=x, gradient=whole_gradient(side), pattern=pattern, comm=comm)
    with stages.count("recovery, matrix", **parts, compress="gradients, replicated"):
        made = sh.assemble(whole, coloring=coloring)
    with stages.count("update, replicated"):
        made.update(x + 0.01)
    made.close()
    vector = PETSc.Vec().createMPI((layout.n_local, layout.n), comm=comm)
    vector.setArray(x[layout.start : layout.stop])
    del x, whole
    spread = sh.Objective(x=vector, gradient=spread_gradient(pattern), pattern=pattern, comm=comm)
    known = {"estimate_noise": "noise", "verify": "check"}
    known = {name: f"{stage}, distributed" for name, stage in known.items()}
    with stages.count("recovery, distributed", **known, compress="gradients, distributed"):
        made = sh.assemble(spread, coloring=coloring)
    with stages.count("update, distributed"):
        made.update()
    other = vector.duplicate()
    with stages.count(f"{PRODUCTS} products, matrix"):
        for _ in range(PRODUCTS):
            made.mat.mult(vector, other)
    made.close()
    with sh.MatrixFree(spread) as free, stages.count(f"{PRODUCTS} products, no matrix"):
        for _ in range(PRODUCTS):
            free.mat.mult(vector, other)
    with stages.count("nothing", save="checkpoint"):
        sh.assemble(spread, coloring=coloring, checkpoint=Checkpoint(folder, comm)).close()
    few = max(6, side // 4)
    small = sh.Layout.from_size(few**3, comm)
    cut = sh.Objective(x=np.linspace(0, 1, small.n) ** 2, gradient=whole_gradient(few), comm=comm)
    with stages.count("pattern by probing (n/64)"):
        from sparsehess.hessian.pattern_detection import detect_pattern

        detect_pattern(cut).free()
    return {"n": layout.n, "colors": coloring.count}


def count_eigenpairs(stages, cells, comm, folder):
    """Count factorization, solves, count, LOBPCG and what is written. Collective."""
    from petsc4py import PETSc

    from lobpcg_by_size import node_rows, rigid_modes

    import sparsehess as sh
    from sparsehess.eigen.problem.factorization import FACTORIZATION
    from sparsehess.eigen.solvers import search_strategies
    from sparsehess.runtime import aij

    for name in ("count_past", "compare_with_count"):
        stages.hook(search_strategies, name)
    nodes = cells * (cells + 1) ** 2
    ends = np.arange(comm.size + 1) * nodes // comm.size
    layout = sh.Layout.from_local(3 * int(ends[comm.rank + 1] - ends[comm.rank]), comm)
    indptr, indices, stiff, mass = node_rows(cells, ends[comm.rank], ends[comm.rank + 1])
    K, M = aij(layout, indptr, indices, stiff), aij(layout, indptr, indices, mass)
    near = []
    for column in rigid_modes(layout, cells).T:
        near.append(K.createVecRight())
        near[-1].setArray(column)
    solver, b, x = PETSc.KSP().create(comm), K.createVecRight(), K.createVecRight()
    options = PETSc.Options("traffic_")
    for name, value in FACTORIZATION.options.items():
        options[name] = value
    K.setOption(PETSc.Mat.Option.SYMMETRIC, True)
    solver.setOptionsPrefix("traffic_")
    solver.setOperators(K)
    solver.setType("preonly")
    solver.setFromOptions()
    b.setArray(np.ones(layout.n_local))
    with stages.count("factorization"):
        solver.setUp()
    with stages.count(f"{PRODUCTS} solves, factors"):
        for _ in range(PRODUCTS):
            solver.solve(b, x)
    solver.destroy()
    counted = {"count_past": "count", "compare_with_count": "count"}
    with stages.count("Krylov-Schur", **counted):
        found = sh.eigs(K, PAIRS, mass=M, method="krylovschur")
    with stages.count("results written"):
        found.save(Path(folder) / "found.h5")
    found.close()
    with stages.count("inertia"):
        sh.inertia(K, mass=M)
    with stages.count("LOBPCG, multigrid"):
        found = sh.eigs(K, PAIRS, mass=M, near_null=near, method="lobpcg", count="no")
    iterations = found.iterations
    found.close()
    return {"n": layout.n, "iterations": iterations}


COUNTED = {"assembly": count_assembly, "eigenpairs": count_eigenpairs}


def work(problem, size, folder):
    """Count one problem on the ranks of this run, and print the facts."""
    from mpi4py import MPI

    import sparsehess as sh

    comm = MPI.COMM_WORLD
    pattern = sh.Pattern.from_edges([[k, k + 1] for k in range(99)], 100, comm=comm)
    tiny = sh.Objective(x=np.ones(100), gradient=lambda x: x**3, pattern=pattern, comm=comm)
    with sh.assemble(tiny) as made, sh.eigs(made, 2) as found:  # what is imported late
        found.save(Path(folder) / "tiny.h5")
    stages = Stages()
    told = COUNTED[problem](stages, size, comm, folder)
    told |= {"problem": problem, "size": size, "ranks": comm.size, "stages": stages.facts(comm)}
    if comm.rank == 0:
        print(json.dumps(told))


# --- runs ---


def count(problem, size, ranks, library):
    """Return the facts of one run."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["mpiexec", "--oversubscribe", "-n", str(ranks), "env", f"LD_PRELOAD={library}", sys.executable]
        words += [__file__, "--worker", problem, str(size), folder]
        env = os.environ | {"OMP_NUM_THREADS": "1", "OMPI_MCA_mpi_yield_when_idle": "1"}
        done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, env=env)
    return json.loads(done.stdout.splitlines()[-1])


def sizes(problem, first, last, ranks):
    """Return {ranks: size} of a weak series, from about the first size to the last, as many variables a rank."""
    n = {size: size**3 if problem == "assembly" else size * (size + 1) ** 2 for size in range(first, last + 1)}
    return {P: min(n, key=lambda size: abs(np.log(n[size] / n[last] * ranks[-1] / P))) for P in ranks}


def collect(problem, first, last, ranks, path):
    """Return the facts of all runs of a problem: strong series of two sizes, and a weak one."""
    weak = sizes(problem, first, last, ranks)
    runs = (
        {(weak[P], P) for P in ranks}
        | {(last, P) for P in ranks}
        | {(weak[ranks[len(ranks) // 2]], P) for P in ranks}
    )
    known = json.loads(path.read_text()) if path and path.exists() else []
    done = {(one["size"], one["ranks"]): one for one in known if one["problem"] == problem}
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "libtraffic.so"
        source = HERE / "contenders" / "traffic.c"
        subprocess.run(["mpicc", "-shared", "-fPIC", "-O2", source, "-o", library, "-lmpi_mpifh"], check=True)
        for size, P in sorted(runs - set(done), key=lambda run: run[0] ** 3 * run[1]):
            done[size, P] = count(problem, size, P, library)
            known.append(done[size, P])
            if path:
                path.write_text(json.dumps(known))
    return [done[run] for run in sorted(runs)], weak


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", nargs="+", type=int, default=[1, 2, 4, 8, 16])
    parser.add_argument("--sides", nargs=2, type=int, default=[12, 32], help="of the grid")
    parser.add_argument("--cells", nargs=2, type=int, default=[5, 14], help="of the cube")
    parser.add_argument(
        "--far", nargs=2, type=float, default=[1e4, 1e8], help="ranks and variables to carry it to"
    )
    parser.add_argument("--facts", type=Path, help="JSON of what was counted")
    parser.add_argument("--worker", nargs=3, metavar=("PROBLEM", "SIZE", "FOLDER"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        problem, size, folder = given.worker
        work(problem, int(size), folder)
        return
    for problem, (first, last) in (("assembly", given.sides), ("eigenpairs", given.cells)):
        runs, weak = collect(problem, first, last, given.ranks, given.facts)
        report_counts(problem, runs, weak, given.ranks)
        if len(given.ranks) > 2:
            report_model(runs, given.ranks, given.far)


if __name__ == "__main__":
    main()
