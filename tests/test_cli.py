"""The command line as outsiders use it: exit statuses, one line on failure, JSON, files; 1 to 4 ranks."""

import itertools
import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
import scipy.sparse as sp

import sparsehess
from support import DATA
from support.cases import grid, lapack, laplacian

SLOW = pytest.mark.slow

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
    ("color good.npz --lattice good.npz", 2, "no .npy array"),
    ("color good.npz -- -eps_ncv 3", 2, "solves no eigenproblem"),
    ("fly good.npz", 2, "invalid choice: 'fly'"),
]
# Flags that nothing would heed beside others.
IDLE = [
    ("eigs good.npz --target 1 --which largest", 2, "--which: --target says"),
    ("eigs good.npz --interval 0 1 --which magnitude", 2, "--which: --interval says"),
    ("eigs good.npz --explain -o x.npz", 2, "--out: --explain solves nothing"),
    ("eigs good.npz --blocks 0", 2, "--blocks: good.npz is a matrix file"),
    ("eigs good.npz --checkpoint-interval 0", 2, "give the folder with --checkpoint"),
    ("eigs good.npz --method krylovschur --coordinates nodes.npy", 2, "--coordinates: for --nullspace rigid"),
    ("eigs good.npz --interval 0 1 --preconditioner good.npz", 2, "a preconditioner is for the smallest"),
    ("eigs problems.py:good --shell --interval 0 1 --groups 1", 2, "a matrix-free Hessian has none"),
    ("eigs problems.py:good --shell --drop 1", 2, "nothing can be dropped"),
    ("eigs good.npz --json /nowhere/x.json", 2, "there is no folder /nowhere"),
    ("check good.npz good.npz --coordinates nodes.npy", 2, "--coordinates: only --nullspace rigid"),
    ("density good.npz --coordinates nodes.npy", 2, "--coordinates: only --nullspace rigid"),
    ("trace good.npz --method exact --samples 9", 2, "--samples: --method exact"),
    ("trace good.npz --steps 9", 2, "--steps: the trace itself"),
    ("rank good.npz --method inertia --samples 9", 2, "--samples: --method inertia"),
    ("color good.npz --order natural --budget 1", 2, "--budget: only --order best searches"),
    ("serve spool --json x.json", 2, "--json: each job has"),
    ("serve spool --launcher srun", 2, "--launcher: it is for --ranks"),
    ("serve spool --cache much", 2, "--cache much: write a size"),
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


def batch(place, commands, ranks):
    """Return (statuses, standard output, standard error, seconds) of commands run in one start of MPI."""
    words = ["mpiexec", "-n", str(ranks), sys.executable, "-c", RUNNER, *commands]
    done = subprocess.run(
        words, cwd=place, capture_output=True, text=True, timeout=300, env=dict(os.environ), check=True
    )
    return json.loads(done.stdout)


def several(place, commands, ranks):
    """Return the facts that commands tell, which are run in one start of MPI and must be done."""
    told = batch(place, [f"{command} --json -" for command in commands], ranks)
    assert all(codes == [0] for codes, *_ in told), [err for _, _, err, _ in told]
    return [json.loads(out) for _, out, _, _ in told]


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=SLOW), pytest.param(3, marks=SLOW), 4])
def test_failures_end_all_ranks_with_one_line(place, ranks):
    failures = [*FAILURES, *(IDLE if ranks == 1 else [])]
    every = batch(place, [command for command, _, _ in failures], ranks)
    for told, (command, status, says) in zip(every, failures, strict=True):
        print(command)  # shown where it fails
        assert_clean_failure(*told, status, says, ranks)


@pytest.mark.parametrize(("number", "case"), list(enumerate(FAILURES[::8])))
def test_failures_of_whole_processes(place, number, case):
    command, status, says = case
    ranks = 1 + number % 4
    code, *told = run(place, command, ranks)
    assert_clean_failure([code], *told, status, says, ranks)


@pytest.mark.parametrize("ranks", [2, *(pytest.param(many, marks=SLOW) for many in (1, 3, 4))])
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


@pytest.mark.parametrize("command", ["eigs --help", "submit --help", "eigs good.npz -k 2"])
def test_a_locale_without_our_letters_has_its_answer(place, command):
    """As sys.stdout is under LC_ALL=de_DE.ISO-8859-1, which a machine need not have."""
    told = {**os.environ, "PYTHONIOENCODING": "ascii:strict"}
    words = [sys.executable, "-m", "sparsehess", *command.split()]
    done = subprocess.run(words, cwd=place, capture_output=True, env=told, check=False)
    assert done.returncode == 0 and not done.stderr, done.stderr.decode()
    assert len(done.stdout.decode("ascii").splitlines()) > 3


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
    commands = ["--interval -1e-3 1.5", "--interval -inf 0.5", "--which negative"]
    found, open_, negative = several(place, [f"eigs good.npz {asked}" for asked in commands], 2)
    assert found["eigenvalues"] == pytest.approx(exact[exact < 1.5], abs=1e-12)
    assert found["method"] == "slicing" and found["which"] == "interval" and found["interval"] == [-1e-3, 1.5]
    assert found["count"]["certified"] and found["k"] == found["converged"]
    assert open_["interval"] == [None, 0.5] and negative["converged"] == 0


def test_inertia_of_a_matrix_and_of_a_problem(place):
    for ranks in (1, 3):
        found = facts(place, "inertia good.npz --mass mass.npz", ranks)
        assert (found["negative"], found["zero"], found["positive"]) == (0, 0, 56)
        assert found["definite"] == "positive definite" and found["certified"] is True
    found = facts(place, "inertia problems.py:good --set n=50", 2)
    code, out, err, _ = run(place, "inertia good.npz --zero 0.3", 2)  # the lowest are 0.27 and more
    assert code == 4 and "certified    no: " in out and "the counts are not certain" in err
    assert found["positive"] == 50 and found["evaluations"]["gradient"] == 6 and found["coloring"]["colors"] == 3


@pytest.mark.parametrize("ranks", [2, pytest.param(1, marks=SLOW), pytest.param(3, marks=SLOW)])
def test_density_trace_and_rank(place, ranks):
    exact = laplacian(7, 8)[1]
    density, mass, inverse, gap, blind, signs = several(
        place,
        [
            "density good.npz --outliers 2 -o d.npz --plot d.png",
            "trace good.npz --mass mass.npz",
            "trace good.npz --function inverse --samples 40",
            "rank truss.npz --threshold gap",
            "rank problems.py:good --set n=50 --shell",
            "inertia problems.py:good --set n=50 --shell",
        ],
        ranks,
    )
    assert density["moments"][1] == pytest.approx(exact.mean(), abs=5 * density["moments_stderr"][1] + 1e-12)
    below = np.interp(4.0, density["grid"], density["cumulative"])
    assert below == pytest.approx(np.mean(exact <= 4.0), abs=0.1)
    assert [atom[0] for atom in density["atoms"]] == pytest.approx(exact[-2:])
    assert (place / "d.png").read_bytes()[:4] == b"\x89PNG" and len(np.load(place / "d.npz")["density"]) == 512
    assert mass["trace"] == pytest.approx(exact.sum() / 2) and mass["stderr"] == 0
    assert abs(inverse["trace"] - (1 / exact).sum()) < 5 * inverse["stderr"] and inverse["samples"] == 40
    assert (gap["rank"], gap["degeneracy"], gap["certified"]) == (47, 3, True)
    assert blind["method"] == "density" and not blind["certified"] and blind["rank"] == 50
    assert signs["positive"] == 50 and not signs["certified"] and signs["evaluations"]["gradient"] > 100


def test_what_an_estimate_falls_short_of_is_said(place):
    code, out, err, _ = run(place, "trace negative.npz --method xtrace --tol 1e-9 --samples 12", 1)
    assert code == 3 and "± " in out and "is more than --tol" in err


def test_lowest_curvature_and_condition(place):
    exact = laplacian(7, 8)[1]
    shift = (exact[3] + exact[4]) / 2
    (found,) = several(place, ["inertia negative.npz --condition --direction low.npz"], 2)
    far = np.abs(exact - shift)
    assert found["condition"] == pytest.approx(far.max() / far.min()) and found["negative"] == 4
    assert found["lowest"]["value"] == pytest.approx(exact[0] - shift) and found["lowest"]["certified"]
    v = np.load(place / "low.npz")["vectors"][0]
    assert v @ (laplacian(7, 8)[0] @ v) - shift == pytest.approx(exact[0] - shift)


def without(place, source, target, kept):
    """Write a stored result again with some of its pairs alone."""
    with np.load(place / source) as archive:
        arrays = {name: archive[name] for name in archive.files}
    arrays["eigenvalues"], arrays["vectors"] = arrays["eigenvalues"][kept], arrays["vectors"][kept]
    if not len(arrays["eigenvalues"]):
        arrays["vectors"] = np.empty((0, 0))
    np.savez(place / target, **arrays)


@pytest.mark.parametrize("ranks", [2, pytest.param(1, marks=SLOW), pytest.param(3, marks=SLOW)])
def test_stored_results_are_checked(place, ranks):
    """What is true passes on any number of ranks; a changed number, a missing pair or another matrix does not."""
    import h5py

    asked = [
        ("s.h5", "good.npz", "-k 4 --mass mass.npz", 4),
        ("t.npz", "good.npz", "--interval 0 1.5", None),
        ("k.npz", "good.npz", "-k 4 --mass mass.npz", 4),
        ("n.npz", "negative.npz", "--which negative", 4),
        ("m.npz", "negative.npz", "--which negative -k 2", 2),
        ("none.npz", "good.npz", "--which negative", 0),
    ]
    made = several(place, [f"eigs {source} {flags} -o {name}" for name, source, flags, _ in asked], ranks)
    mass = ["--mass mass.npz" if "mass" in flags else "" for _, _, flags, _ in asked]
    checks = [f"check {name} {source} {more}" for (name, source, _, _), more in zip(asked, mass, strict=True)]
    for found, one, (_, _, _, k) in zip(several(place, checks, ranks), made, asked, strict=True):
        assert found["passed"] and found["count"]["certified"] and found["residual"] < 1e-8
        assert one["converged"] == found["k"] == found["wanted"] and k in (None, found["k"])
    with h5py.File(place / "s.h5", "r+") as file:
        file["eigenvalues"][1] += 1e-3
    wrong = ["check s.h5 good.npz", "check s.h5 good.npz --mass mass.npz", "check none.npz negative.npz"]
    without(place, "t.npz", "u.npz", [0, 1, 3])
    wrong.append("check u.npz good.npz")
    for number, ((name, source, _, _), more) in enumerate(zip(asked[2:5], mass[2:5], strict=True)):
        without(place, name, f"last{number}.npz", slice(0, -1))
        without(place, name, f"all{number}.npz", slice(0, 0))
        wrong += [f"check last{number}.npz {source} {more}", f"check all{number}.npz {source} {more}"]
    for command, (codes, out, _, _) in zip(wrong, batch(place, wrong, ranks), strict=True):
        assert codes == [4] and "DOES NOT HOLD" in out, command


def test_methods_and_shells(place):
    exact = laplacian(7, 8)[1]
    commands = [
        "eigs good.npz -k 3 --method lobpcg",
        "eigs good.npz --interval 0 1 --method feast",
        "eigs problems.py:good --set n=50 -k 2 --which largest --shell",
    ]
    lobpcg, feast, found = several(place, commands, 2)
    assert lobpcg["eigenvalues"] == pytest.approx(exact[:3])
    assert feast["method"] == "feast" and feast["eigenvalues"] == pytest.approx(exact[exact < 1])
    code, out, _, _ = run(place, "eigs good.npz -k 40 --explain", 1)
    assert code == 0 and "dense" in out and "40 of 56" in out
    assert found["nnz"] is None and found["count"] is None and found["evaluations"]["gradient"] > 0
    assert found["eigenvalues"] == pytest.approx(4 * np.cos(np.pi * np.arange(2, 0, -1) / 102) ** 2, abs=1e-7)


@pytest.mark.parametrize("ranks", [pytest.param(1, marks=SLOW), 2])
def test_null_spaces_guesses_and_preconditioners(place, ranks):
    exact = np.linalg.eigvalsh(free_truss(5)[0].toarray())
    rigid = "--coordinates nodes.npy --nullspace rigid"
    found, cold, warm, checked, near = several(
        place,
        [
            f"eigs truss.npz -k 4 {rigid} -o truss.h5",
            f"eigs truss.npz -k 4 {rigid} --method lobpcg",
            f"eigs truss.npz -k 4 {rigid} --method lobpcg --guess truss.h5",
            f"check truss.h5 truss.npz {rigid}",
            "eigs good.npz -k 3 --preconditioner negative.npz",
        ],
        ranks,
    )
    assert found["eigenvalues"] == pytest.approx(exact[3:7]) and found["deflated"] == 3 and checked["passed"]
    assert warm["eigenvalues"] == pytest.approx(cold["eigenvalues"]) and warm["iterations"] < cold["iterations"]
    assert near["method"] == "gd" and near["eigenvalues"] == pytest.approx(laplacian(7, 8)[1][:3])
    told = batch(place, [f"eigs truss.npz -k 3 {rigid}", "check truss.h5 truss.npz"], ranks)
    assert told[0][0] == [0] and "3 null vectors: translation x, translation y, rotation z" in told[0][1]
    assert told[1][0] == [4]  # the three are not among those stored


def test_mass_target_and_results(place):
    command = "eigs good.npz --mass mass.npz --target 1.0 -k 3 --plot r.png -q -o r."
    for codes, out, err, _ in batch(place, [command + suffix for suffix in ("h5", "npz")], 2):
        assert (codes, out) == ([0], ""), err
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


def test_assemble_writes_what_eigs_reads(place):
    suffixes = ["mtx", "npz", "petsc", "h5"]
    for found in several(place, [f"assemble problems.py:good -o h.{suffix}" for suffix in suffixes], 3):
        assert found["task"] == "assemble" and found["coloring"]["valid"]
    for found in several(place, [f"eigs h.{suffix} -k 2" for suffix in suffixes], 2):
        assert found["eigenvalues"] == pytest.approx(4 * np.sin(np.pi * np.arange(1, 3) / 62) ** 2, abs=1e-9)


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
    at = np.stack(np.meshgrid(np.arange(9), np.arange(9), indexing="ij"), axis=-1).reshape(-1, 2)
    shuffled = np.random.default_rng(0).permutation(81)
    sp.save_npz(place / "shuffled.npz", grid(9, 9).tocsr()[shuffled][:, shuffled])
    np.save(place / "at.npy", at[shuffled] * 1.5)
    saddle = sp.bmat([[sp.identity(6), sp.kron(sp.identity(3), np.ones((2, 1)))], [None, None]]).tocsr()
    saddle.resize(9, 9)
    sp.save_npz(place / "saddle.npz", saddle)
    order = "--coloring cpr --order largest-first"
    commands = [
        "color blocks.npz --blocks 2",
        "color shuffled.npz --lattice at.npy --coloring distance2",
        f"color saddle.npz {order} --diagonal full",
        f"color saddle.npz {order} --diagonal given",
    ]
    blocks, lattice, full, given = (found["colors"] for found in several(place, commands, 3))
    assert (blocks, lattice) == (10, 5) and given < full


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
    words = ["mpiexec", "-n", "2", sys.executable, "-m", "sparsehess", "info"]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 2 and "pip install 'numpy" in done.stderr and "Traceback" not in done.stderr
    assert done.stderr.count("sparsehess:") == 1  # of two that cannot go on the first says so


def test_a_full_disk_is_told_in_one_line_and_leaves_nothing(place):
    sp.save_npz(place / "wide.npz", sp.diags([np.arange(1.0, 500.0)], [0]))
    program = (
        "import resource, sys; from sparsehess import runtime; runtime.initialize()\n"
        "sys.dont_write_bytecode = True  # half of it would stay for others\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1024, resource.RLIM_INFINITY))\n" + RUNNER
    )
    answers = ("full.h5", "full.npz", "full.petsc", "full.mtx")
    commands = [f"eigs wide.npz -k 3 -q -o {name}" for name in answers[:2]]
    commands += ["eigs wide.npz -k 3 -q --json full.json", "color wide.npz -q -o full.h5"]
    commands += [f"assemble problems.py:good --set n=300 -q -o {name}" for name in answers]
    done = subprocess.run(
        [sys.executable, "-c", program, *commands],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    for (codes, out, err, _), command in zip(json.loads(done.stdout), commands, strict=True):
        assert (codes, out, err.count("\n")) == ([2], "", 1), (command, err)
        assert "cannot be written" in err, (command, err)
    assert not list(place.glob("full.*")) + list(place.glob(".*full*"))


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
@pytest.mark.parametrize("times", [200, pytest.param(1000, marks=pytest.mark.slow)])
def test_solves_leak_nothing(times):
    code = f"""
import numpy as np, scipy.sparse as sp, sparsehess as sh
pattern = sh.Pattern.from_edges([[i, i + 1] for i in range(59)], 60)
objective = sh.Objective(x=np.ones(60), gradient=lambda x: 3 * x**3, pattern=pattern)
def pages():
    return int(open('/proc/self/statm').read().split()[1])
def solve():
    with sh.assemble(objective) as hessian, sh.eigs(hessian, 3) as spectrum:
        assert spectrum.converged == 3
for _ in range({3 * times // 5}):
    solve()
before = pages()
for _ in range({times}):
    solve()
print((pages() - before) * 4096)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 2**18 + 2**11 * times
