"""The command line as outsiders use it: exit statuses, one line on failure, JSON, files; 1 to 4 ranks."""

import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from cases import DATA, grid, lapack, laplacian

import sparsehess

ROOT = Path(__file__).parents[2]

PROBLEMS = '''
import numpy as np
import sparsehess as sh
from petsc4py import PETSc

N = 30

def chain(comm, gradient, n=N, reach=1):
    edges = [[i, i + k] for k in range(1, reach + 1) for i in range(n - k)]
    pattern = sh.Pattern.from_edges(edges, n, comm=comm)
    return sh.Objective(x=np.ones(n), gradient=gradient, pattern=pattern, comm=comm)

def springs(x):
    g = 2 * x
    g[1:] -= x[:-1]
    g[:-1] -= x[1:]
    return g

def good(comm, n=N):
    return chain(comm, springs, n)

def last_rank_raises(comm):
    def gradient(x):
        if comm.rank == comm.size - 1:
            raise ValueError("bad luck")
        return x
    return chain(comm, gradient, reach=3)  # colours enough for four ranks

def nan(comm):
    return chain(comm, lambda x: np.where(np.arange(N) == 7, np.nan, x))

def short(comm):
    return chain(comm, lambda x: x[:-1])

def no_gradient(comm):
    return chain(comm, lambda x: x + np.r_[0.5 * x[1], np.zeros(N - 1)])

def missing(comm):
    return chain(comm, lambda x: x + np.r_[0.5 * x[9], np.zeros(8), 0.5 * x[0], np.zeros(N - 10)])

def empty_pattern(comm):
    pattern = sh.Pattern.from_pairs([], [], N, comm=comm)
    return sh.Objective(x=np.ones(N), gradient=springs, pattern=pattern, comm=comm)

def summed(comm):
    bonds = np.array([[i, i + 1] for i in range(comm.rank, N - 1, comm.size)])
    return sh.Objective.from_elements(np.ones(N), sh.Elements(bonds, lambda X: X), comm=comm)

def raising(comm):
    raise RuntimeError("cannot be made")

def last_rank_cannot(comm):
    if comm.rank == comm.size - 1:
        raise RuntimeError("cannot be made")
    return good(comm)

def no_objective(comm):
    return 3

number = 3

def collective(comm):
    """Distributed, and the last rank raises where the others go on to a collective call."""
    x = PETSc.Vec().createMPI(N, comm=comm)
    def gradient(x, g):
        if comm.rank == comm.size - 1:
            raise ValueError("bad luck")
        comm.Barrier()
        x.copy(g)
    pattern = sh.Pattern.from_edges([[i, i + 1] for i in range(N - 1)], N, comm=comm)
    return sh.Objective(x=x, gradient=gradient, pattern=pattern)
'''


def free_truss(side):
    """A plane of nodes, each held by bars to those around it: its matrix, free, and their positions."""
    nodes = np.stack(np.meshgrid(np.arange(side), 1.3 * np.arange(side), indexing="ij"), axis=-1).reshape(-1, 2)
    matrix = np.zeros((2 * len(nodes),) * 2)
    for i, j in itertools.combinations(range(len(nodes)), 2):
        bar = nodes[i] - nodes[j]
        if np.linalg.norm(bar) < 1.7:
            push = np.zeros(2 * len(nodes))
            push[2 * i : 2 * i + 2], push[2 * j : 2 * j + 2] = bar, -bar
            matrix += np.outer(push, push) / np.linalg.norm(bar) ** 3
    return sp.csr_matrix(matrix), nodes


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    (folder / "problems.py").write_text(PROBLEMS)
    good = laplacian(7, 8)[0]
    sp.save_npz(folder / "good.npz", good)
    truss, nodes = free_truss(5)
    sp.save_npz(folder / "truss.npz", truss)
    np.save(folder / "nodes.npy", nodes)
    exact = laplacian(7, 8)[1]
    sp.save_npz(folder / "negative.npz", good - (exact[3] + exact[4]) / 2 * sp.identity(56, format="csr"))
    sp.save_npz(folder / "mass.npz", sp.identity(56, format="csr") * 2.0)
    sp.save_npz(folder / "rectangular.npz", sp.csr_matrix(np.ones((5, 4))))
    sp.save_npz(folder / "unsymmetric.npz", sp.csr_matrix(np.triu(np.ones((5, 5)))))
    sp.save_npz(folder / "empty.npz", sp.csr_matrix((5, 5)))
    nan = good.copy()
    nan.data[5] = np.nan
    sp.save_npz(folder / "nan.npz", nan)
    (folder / "truncated.npz").write_bytes((folder / "good.npz").read_bytes()[:500])
    (folder / "lying.mtx").write_text(
        "%%MatrixMarket matrix coordinate real symmetric\n9 9 99999999999\n1 1 2.0\n"
    )
    return folder


def run(place, command, ranks=1, within=60):
    """Return (status, standard output, standard error, seconds)."""
    words = [sys.executable, "-m", "sparsehess", *command.split()]
    if ranks > 1:
        words = ["mpiexec", "-n", str(ranks), *words]
    began = time.monotonic()
    # Python's copy of the environment: this process's MPI has written its own marks into the other one.
    done = subprocess.run(
        words, cwd=place, capture_output=True, text=True, timeout=within, env=dict(os.environ), check=False
    )
    return done.returncode, done.stdout, done.stderr, time.monotonic() - began


FAILURES = [
    ("eigs nowhere.npz", 2, "nowhere.npz: no such file"),
    ("eigs rectangular.npz", 2, "5 x 4"),
    ("eigs unsymmetric.npz", 2, r"entry (0, 1) is 1, entry (1, 0) is 0"),
    ("eigs nan.npz", 2, "is nan"),
    ("eigs truncated.npz", 2, "damaged"),
    ("eigs lying.mtx", 2, "claims 99999999999 entries"),
    ("eigs empty.npz", 2, "empty"),
    ("eigs good.npz -k 57", 2, "k=57"),
    ("eigs good.npz -k many", 2, "invalid int value"),
    ("eigs good.npz --unknown", 2, "unrecognized arguments: --unknown"),
    ("eigs good.npz -- -eps_nonsense 3", 2, "-eps_nonsense"),
    ("eigs good.npz --mass truncated.npz", 2, "damaged"),
    ("eigs good.npz --mass rectangular.npz", 2, "5 x 4"),
    ("eigs good.npz --nullspace mass.npz", 2, "expected one two-dimensional array"),
    ("eigs good.npz -o /nowhere/result.h5", 2, "there is no folder"),
    ("eigs good.npz -o result.txt", 2, ".h5, .npz"),
    ("eigs good.npz --derivative central", 2, "--derivative: good.npz is a matrix file"),
    ("eigs good.npz --order natural", 2, "--order: good.npz is a matrix file"),
    ("inertia good.npz --coloring star", 2, "--coloring: good.npz is a matrix file"),
    ("eigs good.npz --set a=3", 2, "--set: good.npz is a matrix file"),
    ("eigs problems.py:nothing", 2, "has nothing called 'nothing'"),
    ("eigs problems.py:number", 2, "neither an Objective nor a callable"),
    ("eigs problems.py:no_objective", 2, "must return an Objective"),
    ("eigs problems.py:good --set zeal=3", 2, "it takes n"),
    ("eigs nowhere.py:good", 2, "no such file"),
    ("eigs problems.py:good --derivative ad", 2, "needs a Hessian-vector product"),
    ("eigs problems.py:good --pattern good.npz", 2, "56 variables"),
    ("eigs problems.py:raising", 2, "RuntimeError: cannot be made"),
    ("eigs problems.py:short", 2, "must return (30,) real numbers"),
    ("eigs problems.py:nan", 4, "variable 7 "),
    ("eigs problems.py:no_gradient", 4, "are not symmetric: entries (0, 1) and (1, 0)"),
    ("eigs problems.py:good --points 2", 2, "only --pattern detect probes points"),
    ("eigs good.npz --interval 2 1", 2, "must not be above the second"),
    ("eigs good.npz --interval 1 2 -k 3", 2, "leave out k and target"),
    ("eigs good.npz --method slicing", 2, "is for an interval"),
    ("eigs good.npz --shell", 2, "--shell is for problems"),
    ("eigs good.npz --interval 1 2 --count no", 2, "leave out count='no'"),
    ("eigs problems.py:good --shell --coloring star", 2, "--coloring: --shell assembles nothing"),
    ("eigs problems.py:good --shell --budget 1", 2, "--budget: --shell assembles nothing"),
    ("eigs good.npz --precision single", 2, "is for the products of --shell"),
    ("eigs problems.py:good --shell --precision single", 2, "single precision is for products"),
    ("eigs problems.py:good --shell --which negative", 2, "cannot be told"),
    ("eigs problems.py:good --pattern detect --blocks 2", 2, "--blocks: a pattern that is detected"),
    ("eigs problems.py:summed --order natural", 2, "--order: the Hessians of the elements"),
    ("eigs good.npz --backend cuda", 2, "built without cuda"),
    ("eigs good.npz --nullspace rigid", 2, "with --coordinates"),
    ("eigs good.npz --coordinates nodes.npy", 2, "as many of the 56 dofs"),
    ("eigs good.npz --guess nodes.npy", 2, "do not fit 56 variables"),
    ("eigs good.npz --method feast --interval 0 1 --groups 9", 2, "groups=9"),
    ("eigs good.npz --interval 0 1 --groups 9", 2, "groups=9"),
    ("eigs good.npz -- -eps_type feast", 2, "SLEPc's FEAST passes only the real parts"),
    ("density good.npz --samples 1", 2, "samples=1: at least 2"),
    ("density good.npz -- -eps_ncv 30", 2, "solves no eigenproblem"),
    ("density good.npz --shell", 2, "--shell is for problems"),
    ("trace good.npz --function heat", 2, "time is for function 'heat'"),
    ("trace negative.npz --function logdet", 2, "positive definite"),
    ("rank good.npz --threshold big", 2, "neither a number nor gap"),
    ("rank good.npz --threshold 1e-3 --absolute 1", 2, "leave one out"),
    ("check good.npz good.npz", 2, "no result of sparsehess eigs"),
    ("inertia good.npz --zero -1", 2, "must be positive"),
    ("eigs good.npz --points 2", 2, "--points: good.npz is a matrix file"),
    ("eigs problems.py:missing --no-repair", 4, "is coupled with"),
    ("eigs problems.py:empty_pattern --no-repair", 4, "is coupled with"),
    ("assemble good.npz -o h.npz", 2, "assemble needs a problem"),
    ("assemble problems.py:good", 2, "required: -o/--out"),
    ("color empty.npz", 2, "empty"),
    ("color good.npz --coloring plaid", 2, "kind 'plaid' is none of star"),
    ("color good.npz --order chaotic", 2, "order 'chaotic' is none of best"),
    ("color good.npz --rule golden", 2, "rule 'golden' is none of 2007"),
    ("color good.npz --blocks 7", 2, "blocks of 7"),
    ("color good.npz --coloring good.npz", 2, "is no stored colouring"),
    ("color good.npz --lattice good.npz", 2, "coordinates must be"),
    ("color good.npz -- -eps_ncv 3", 2, "solves no eigenproblem"),
    ("fly good.npz", 2, "invalid choice: 'fly'"),
]
ON_ONE_RANK = [
    ("eigs problems.py:last_rank_raises", 2, "ValueError on rank {last}: bad luck"),
    ("eigs problems.py:last_rank_cannot", 2, "cannot be made"),
    ("eigs problems.py:collective", 2, "ValueError on rank {last}: bad luck"),
]


# Runs the commands of its arguments one after another in one start of MPI, and prints what became of each.
RUNNER = """
import contextlib, io, json, sys, time
from mpi4py import MPI
from sparsehess.cli import main

told = []
for command in sys.argv[1:]:
    out, err, began = io.StringIO(), io.StringIO(), time.monotonic()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(command.split())
        except SystemExit as end:
            code = end.code
    every = MPI.COMM_WORLD.gather((code, out.getvalue(), err.getvalue()))
    if every:
        codes, outs, errs = zip(*every)
        told.append([sorted(set(codes)), "".join(outs), "".join(errs), time.monotonic() - began])
if told:
    json.dump(told, sys.stdout)
"""


def assert_clean_failure(codes, out, err, seconds, status, says, ranks):
    lines = [line for line in err.splitlines() if line.startswith("sparsehess:")]
    assert codes == [status], err
    assert len(lines) == 1 and says.format(last=ranks - 1) in lines[0], err
    assert "Traceback" not in err and out == ""
    assert seconds < 10


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_failures_end_all_ranks_with_one_line(place, ranks):
    words = ["mpiexec", "-n", str(ranks), sys.executable, "-c", RUNNER, *(command for command, _, _ in FAILURES)]
    done = subprocess.run(
        words, cwd=place, capture_output=True, text=True, timeout=300, env=dict(os.environ), check=True
    )
    for told, (command, status, says) in zip(json.loads(done.stdout), FAILURES, strict=True):
        print(command)  # shown where it fails
        assert_clean_failure(*told, status, says, ranks)


@pytest.mark.parametrize(("number", "case"), list(enumerate(FAILURES[::8])))
def test_failures_of_whole_processes(place, number, case):
    command, status, says = case
    ranks = 1 + number % 4
    code, *told = run(place, command, ranks)
    assert_clean_failure([code], *told, status, says, ranks)


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
@pytest.mark.parametrize(("command", "status", "says"), ON_ONE_RANK)
def test_failures_of_one_rank(place, command, status, says, ranks):
    code, *told = run(place, command, ranks)
    assert_clean_failure([code], *told, status, says, ranks)


def facts(place, command, ranks=1):
    code, out, err, _ = run(place, f"{command} --json -", ranks)
    assert code == 0, err
    return json.loads(out)


EIGS_FIELDS = {
    *("schema", "task", "n", "nnz", "k", "which", "interval", "target", "method", "converged", "eigenvalues"),
    *("residuals", "orthogonality", "count", "iterations", "coloring", "evaluations", "verification"),
    *("timings", "memory", "mpi", "backend", "versions"),
}


def test_eigs_of_a_matrix_gives_the_same_on_all_ranks(place):
    exact = laplacian(7, 8)[1]
    seen = [facts(place, "eigs good.npz -k 5", ranks) for ranks in (1, 2, 3, 4)]
    for ranks, found in enumerate(seen, 1):
        assert set(found) >= EIGS_FIELDS
        assert found["eigenvalues"] == pytest.approx(exact[:5], abs=1e-13)
        assert found["schema"] == 1 and found["task"] == "eigs" and found["n"] == 56
        assert found["converged"] == 5 and max(found["residuals"]) < 1e-8
        assert found["count"]["certified"] and found["count"]["inertia"] == found["count"]["found"]
        assert found["coloring"] is None and found["verification"] is None
        assert found["mpi"]["size"] == ranks
        assert {"pattern", "coloring", "derivatives", "assembly", "factorization", "solve", "total"} <= set(
            found["timings"]
        )


def test_eigs_of_a_problem(place):
    found = facts(place, "eigs problems.py:good --set n=50 -k 4 --derivative forward --coloring cpr", 2)
    assert found["eigenvalues"] == pytest.approx(4 * np.sin(np.pi * np.arange(1, 5) / 102) ** 2, abs=1e-7)
    assert found["coloring"] == {
        "kind": "cpr",
        "order": "best",
        "rule": "template",
        "colors": 3,
        "lower_bound": 3,
        "optimal": True,
        "valid": True,
        "amplification": 1.0,
    }
    assert found["evaluations"] == {
        "gradient": 4,
        "hvp": 0,
        "energy": 0,
        "noise": 7,
        "pattern": 0,
        "verification": 2,
    }
    assert found["verification"]["passed"]


def test_an_interval_and_all_negative_ones(place):
    exact = laplacian(7, 8)[1]
    found = facts(place, "eigs good.npz --interval -1e-3 1.5", 2)
    assert found["eigenvalues"] == pytest.approx(exact[exact < 1.5], abs=1e-12)
    assert found["method"] == "slicing" and found["which"] == "interval" and found["interval"] == [-1e-3, 1.5]
    assert found["count"]["certified"] and found["k"] == found["converged"]
    assert facts(place, "eigs good.npz --interval -inf 0.5", 1)["interval"] == [None, 0.5]
    assert facts(place, "eigs good.npz --which negative", 1)["converged"] == 0


def test_inertia_of_a_matrix_and_of_a_problem(place):
    for ranks in (1, 3):
        found = facts(place, "inertia good.npz --mass mass.npz", ranks)
        assert (found["negative"], found["zero"], found["positive"]) == (0, 0, 56)
        assert found["definite"] == "positive definite" and found["certified"] is True
    found = facts(place, "inertia problems.py:good --set n=50", 2)
    code, out, err, _ = run(place, "inertia good.npz --zero 0.3", 2)  # the lowest are 0.27 and more
    assert code == 4 and "certified    no: " in out and "the counts are not certain" in err
    assert found["positive"] == 50 and found["evaluations"]["gradient"] == 6 and found["coloring"]["colors"] == 3


def test_density_trace_and_rank(place):
    exact = laplacian(7, 8)[1]
    for ranks in (1, 3):
        found = facts(place, "density good.npz --outliers 2 -o d.npz --plot d.png", ranks)
        assert found["moments"][1] == pytest.approx(exact.mean(), abs=5 * found["moments_stderr"][1] + 1e-12)
        below = np.interp(4.0, found["grid"], found["cumulative"])
        assert below == pytest.approx(np.mean(exact <= 4.0), abs=0.1)
        assert [atom[0] for atom in found["atoms"]] == pytest.approx(exact[-2:])
        assert (place / "d.png").read_bytes()[:4] == b"\x89PNG" and len(np.load(place / "d.npz")["density"]) == 512
    found = facts(place, "trace good.npz --mass mass.npz", 2)
    assert found["trace"] == pytest.approx(exact.sum() / 2) and found["stderr"] == 0
    found = facts(place, "trace good.npz --function inverse --samples 40", 2)
    assert abs(found["trace"] - (1 / exact).sum()) < 5 * found["stderr"] and found["samples"] == 40
    code, out, err, _ = run(place, "trace negative.npz --method xtrace --tol 1e-9 --samples 12", 1)
    assert code == 3 and "± " in out and "is more than --tol" in err
    found = facts(place, "rank truss.npz --threshold gap", 2)
    assert (found["rank"], found["degeneracy"], found["certified"]) == (47, 3, True)
    found = facts(place, "rank problems.py:good --set n=50 --shell", 1)
    assert found["method"] == "density" and not found["certified"] and found["rank"] == 50
    found = facts(place, "inertia problems.py:good --set n=50 --shell", 2)
    assert found["positive"] == 50 and not found["certified"] and found["evaluations"]["gradient"] > 100


def test_stored_results_are_checked(place):
    """What is true passes on any number of ranks; a changed number, a missing pair or another matrix does not."""
    import h5py

    assert run(place, "eigs good.npz --mass mass.npz -k 4 -o s.h5 -q", 2)[0] == 0
    assert run(place, "eigs good.npz --interval 0 1.5 -o t.npz -q", 1)[0] == 0
    for ranks in (1, 3):
        found = facts(place, "check s.h5 good.npz --mass mass.npz", ranks)
        assert found["passed"] and found["count"]["certified"] and found["residual"] < 1e-8
    assert facts(place, "check t.npz good.npz", 2)["count"]["certified"]
    code, out, _, _ = run(place, "check s.h5 good.npz", 1)
    assert code == 4 and "DOES NOT HOLD" in out
    with h5py.File(place / "s.h5", "r+") as file:
        file["eigenvalues"][1] += 1e-3
    assert run(place, "check s.h5 good.npz --mass mass.npz", 2)[0] == 4
    with np.load(place / "t.npz") as archive:
        kept = {name: archive[name] for name in archive.files}
    kept["eigenvalues"], kept["vectors"] = np.delete(kept["eigenvalues"], 2), np.delete(kept["vectors"], 2, axis=0)
    np.savez(place / "u.npz", **kept)
    code, out, _, _ = run(place, "check u.npz good.npz", 2)
    assert code == 4 and "DO NOT AGREE" in out
    for asked, ranks in (("-k 4 --mass mass.npz", 1), ("--which negative", 2), ("--which negative -k 2", 1)):
        source = "good.npz" if "mass" in asked else "negative.npz"
        assert run(place, f"eigs {source} {asked} -o v.npz -q", 1)[0] == 0
        mass = " --mass mass.npz" if "mass" in asked else ""
        assert run(place, f"check v.npz {source}{mass} -q", ranks)[0] == 0
        with np.load(place / "v.npz") as archive:
            kept = {name: archive[name] for name in archive.files}
        assert len(kept["eigenvalues"]) == (2 if "-k 2" in asked else 4)
        kept["eigenvalues"], kept["vectors"] = kept["eigenvalues"][:-1], kept["vectors"][:-1]  # the last is gone
        np.savez(place / "w.npz", **kept)
        assert run(place, f"check w.npz {source}{mass} -q", ranks)[0] == 4
        kept["eigenvalues"], kept["vectors"] = kept["eigenvalues"][:0], np.empty((0, 0))
        np.savez(place / "w.npz", **kept)
        assert run(place, f"check w.npz {source}{mass} -q", ranks)[0] == 4
    assert run(place, "eigs good.npz --which negative -o v.npz -q", 1)[0] == 0
    assert facts(place, "check v.npz good.npz", 1)["count"]["inertia"] == 0
    assert run(place, "check v.npz negative.npz -q", 1)[0] == 4


def test_methods_and_shells(place):
    exact = laplacian(7, 8)[1]
    assert facts(place, "eigs good.npz -k 3 --method lobpcg", 2)["eigenvalues"] == pytest.approx(exact[:3])
    found = facts(place, "eigs good.npz --interval 0 1 --method feast", 2)
    assert found["method"] == "feast" and found["eigenvalues"] == pytest.approx(exact[exact < 1])
    code, out, _, _ = run(place, "eigs good.npz -k 40 --explain", 1)
    assert code == 0 and "dense" in out and "40 of 56" in out
    found = facts(place, "eigs problems.py:good --set n=50 -k 2 --which largest --shell", 3)
    assert found["nnz"] is None and found["count"] is None and found["evaluations"]["gradient"] > 0
    assert found["eigenvalues"] == pytest.approx(4 * np.cos(np.pi * np.arange(2, 0, -1) / 102) ** 2, abs=1e-7)


def test_null_spaces_guesses_and_preconditioners(place):
    exact = np.linalg.eigvalsh(free_truss(5)[0].toarray())
    for method in ("krylovschur", "lobpcg"):
        code, out, _, _ = run(
            place, f"eigs truss.npz -k 3 --method {method} --coordinates nodes.npy --nullspace rigid", 2
        )
        assert code == 0 and "3 null vectors: translation x, translation y, rotation z" in out
    found = facts(place, "eigs truss.npz -k 4 --coordinates nodes.npy --nullspace rigid -o truss.h5", 1)
    assert found["eigenvalues"] == pytest.approx(exact[3:7]) and found["deflated"] == 3
    assert facts(place, "check truss.h5 truss.npz --coordinates nodes.npy --nullspace rigid", 2)["passed"]
    assert run(place, "check truss.h5 truss.npz -q", 1)[0] == 4  # the three are not among those stored
    cold, warm = (
        facts(place, f"eigs truss.npz -k 4 --coordinates nodes.npy --nullspace rigid --method lobpcg{guess}", 1)
        for guess in ("", " --guess truss.h5")
    )
    assert warm["eigenvalues"] == pytest.approx(cold["eigenvalues"]) and warm["iterations"] < cold["iterations"]
    found = facts(place, "eigs good.npz -k 3 --preconditioner negative.npz", 2)
    assert found["method"] == "gd" and found["eigenvalues"] == pytest.approx(laplacian(7, 8)[1][:3])


def test_mass_target_and_results(place):
    for suffix in ("h5", "npz"):
        command = f"eigs good.npz --mass mass.npz --target 1.0 -k 3 -o r.{suffix} --plot r.png -q"
        code, out, err, _ = run(place, command, 2)
        assert (code, out) == (0, ""), err
    assert (place / "r.png").read_bytes()[:4] == b"\x89PNG"
    exact = laplacian(7, 8)[1] / 2
    wanted = np.sort(exact[np.argsort(np.abs(exact - 1.0))[:3]])
    import h5py

    with h5py.File(place / "r.h5") as file:
        values, vectors, text = file["eigenvalues"][()], file["vectors"][()], file.attrs["json"]
    assert values == pytest.approx(wanted, abs=1e-12)
    assert json.loads(text)["eigenvalues"] == pytest.approx(values.tolist())
    matrix = laplacian(7, 8)[0]
    assert np.abs(matrix @ vectors.T - 2 * vectors.T * values).max() < 1e-10
    with np.load(place / "r.npz") as archive:
        assert archive["vectors"].shape == (3, 56)


@pytest.mark.parametrize("suffix", ["mtx", "npz", "petsc", "h5"])
def test_assemble_writes_what_eigs_reads(place, suffix):
    found = facts(place, f"assemble problems.py:good -o h.{suffix}", 3)
    assert found["task"] == "assemble" and found["coloring"]["valid"]
    values = facts(place, f"eigs h.{suffix} -k 2", 2)["eigenvalues"]
    assert values == pytest.approx(4 * np.sin(np.pi * np.arange(1, 3) / 62) ** 2, abs=1e-9)


def test_color(place):
    sp.save_npz(place / "grid.npz", grid(20, 20))
    seen = [facts(place, "color grid.npz --order natural", ranks) for ranks in (1, 3)]
    for found in seen:
        assert found["valid"] and found["kind"] == "star" and found["n"] == 400 and found["nnz"] == 1920
        assert found["lower_bound"] <= found["colors"] == seen[0]["colors"] <= 7


def test_color_tells_all_and_stores_it(place):
    """Attempts, bound, traffic; the stored colouring is used again, on other ranks and by another command."""
    found = facts(place, "assemble problems.py:good -o h.npz", 1)
    found = facts(place, "color h.npz --coloring acyclic --order smallest-last -o c.npz --plot c.png", 2)
    assert found["colors"] == 2 and found["optimal"] and found["valid"] and found["rule"] == "local"
    assert found["amplification"] >= 2 and found["traffic"]["rounds"] >= 1
    assert [attempt["count"] for attempt in found["attempts"]] == [2]
    assert (place / "c.png").stat().st_size > 1000
    again = facts(place, "color h.npz --coloring c.npz", 3)
    assert (again["kind"], again["colors"], again["order"]) == ("acyclic", 2, "smallest-last")
    used = facts(place, "eigs problems.py:good -k 2 --coloring c.npz", 1)
    assert used["coloring"]["kind"] == "acyclic" and used["evaluations"]["gradient"] == 4
    assert used["eigenvalues"] == pytest.approx(4 * np.sin(np.pi * np.arange(1, 3) / 62) ** 2, abs=1e-7)
    sp.save_npz(place / "other.npz", grid(20, 20))
    code, _, err, _ = run(place, "color other.npz --coloring c.npz", 2)
    assert code == 2 and "of another pattern" in err


def test_color_by_blocks_diagonal_and_lattice(place):
    nodes = sp.csr_matrix(sp.kron(grid(9, 9), np.ones((2, 2))))
    sp.save_npz(place / "blocks.npz", nodes)
    assert facts(place, "color blocks.npz --blocks 2", 2)["colors"] == 10
    at = np.stack(np.meshgrid(np.arange(9), np.arange(9), indexing="ij"), axis=-1).reshape(-1, 2)
    shuffled = np.random.default_rng(0).permutation(81)
    sp.save_npz(place / "shuffled.npz", grid(9, 9).tocsr()[shuffled][:, shuffled])
    np.save(place / "at.npy", at[shuffled] * 1.5)
    assert facts(place, "color shuffled.npz --lattice at.npy --coloring distance2", 3)["colors"] == 5
    saddle = sp.bmat([[sp.identity(6), sp.kron(sp.identity(3), np.ones((2, 1)))], [None, None]]).tocsr()
    saddle.resize(9, 9)
    sp.save_npz(place / "saddle.npz", saddle)
    order = "--coloring cpr --order largest-first"
    full, given = (facts(place, f"color saddle.npz {order} --diagonal {d}")["colors"] for d in ("full", "given"))
    assert given < full


def test_info(place):
    found = facts(place, "info")
    assert found["versions"]["sparsehess"] == sparsehess.__version__
    assert found["packages"]["mumps"] is True
    assert {item["name"] for item in found["missing"]} >= {"cuda"} - {
        n for n, there in found["packages"].items() if there
    }
    code, out, _, _ = run(place, "info", 2)
    assert code == 0 and out.count("petsc4py") == 1  # rank 0 alone


def test_status_3_writes_what_converged(place):
    if not DATA.exists():
        pytest.skip("no data beside the project")
    data = DATA / "hb_bcsst01"
    code, _, err, _ = run(place, f"eigs {data}_K.npz --mass {data}_M.npz -k 30 --json few.json")
    assert code == 3 and "24 of 24" in err
    found = json.loads((place / "few.json").read_text())
    assert found["converged"] == 24 and found["count"]["certified"]
    exact = lapack(sp.load_npz(f"{data}_K.npz"), sp.load_npz(f"{data}_M.npz"))
    assert found["eigenvalues"] == pytest.approx(exact, abs=1e-9 * exact.max())


def test_a_raw_hessian_of_a_code_and_its_zero_modes(place):
    """Differences of forces as a code gives them: asymmetric in the ninth digit, six zero modes at that level."""
    path = DATA / "ase_cu147_fdhessian_raw.npz"
    if not path.exists():
        pytest.skip("no data beside the project")
    raw = np.load(path)["H"]
    exact = np.linalg.eigvalsh((raw + raw.T) / 2)
    for ranks in (1, 3):
        found = facts(place, f"eigs {path} -k 16", ranks)
        assert found["eigenvalues"] == pytest.approx(exact[:16], abs=1e-9 * exact.max())
        assert found["zeros"] == 6 and found["count"]["certified"]


def test_petsc_options_reach_petsc(place):
    code, out, err, _ = run(place, "eigs good.npz -k 2 -- -eps_monitor -eps_ncv 20 -log_view")
    assert code == 0, err
    assert "nconv" in out and "EPSSolve" in out


def test_petsc_options_that_nothing_uses_are_an_error(place):
    code, _, err, _ = run(place, "eigs good.npz -- -nonsense 3", 2)
    assert code == 2 and "PETSc options that nothing has used: -nonsense" in err


def test_a_reader_that_stops_reading_is_no_bug(place):
    command = f"{sys.executable} -m sparsehess eigs good.npz -k 5 | true"
    done = subprocess.run(
        command, shell=True, cwd=place, capture_output=True, text=True, env=dict(os.environ), check=False
    )
    assert "sparsehess:" not in done.stderr and "Traceback" not in done.stderr


def test_a_numpy_that_petsc4py_was_not_built_for_is_named(place):
    """A petsc4py that fails to load as the distribution's does beside another numpy."""
    broken = place / "broken" / "petsc4py"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text(
        "__version__ = '0'\ndef init(*a):\n    raise ValueError('numpy.dtype size changed')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(broken.parent)}
    done = subprocess.run(
        [sys.executable, "-m", "sparsehess", "info"], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 2 and "pip install 'numpy" in done.stderr and "Traceback" not in done.stderr


def test_help_and_version_come_from_rank_0_alone(place):
    for words, says in (
        ("--help", "usage: sparsehess"),
        ("eigs --help", "usage: sparsehess eigs"),
        ("--version", "sparsehess 0"),
    ):
        code, out, _, _ = run(place, words, 2)
        assert code == 0 and out.count(says) == 1


def test_the_table_names_what_it_shows(place):
    code, out, _, _ = run(place, "eigs problems.py:good -k 3", 2)
    assert code == 0
    for words in (
        "coloring     3 colors",
        "6 gradients",
        "verified     random product",
        "certified",
        "eigenvalue",
    ):
        assert words in out


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs /proc")
def test_a_thousand_solves_leak_nothing():
    code = """
import numpy as np, scipy.sparse as sp, sparsehess as sh
pattern = sh.Pattern.from_edges([[i, i + 1] for i in range(59)], 60)
objective = sh.Objective(x=np.ones(60), gradient=lambda x: 3 * x**3, pattern=pattern)
def pages():
    return int(open('/proc/self/statm').read().split()[1])
def solve():
    with sh.assemble(objective) as hessian, sh.eigs(hessian, 3) as spectrum:
        assert spectrum.converged == 3
for _ in range(600):
    solve()
before = pages()
for _ in range(1000):
    solve()
print((pages() - before) * 4096)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 2 * 2**20
