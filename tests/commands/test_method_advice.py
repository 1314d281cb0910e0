"""Advice: what a few products say beside dense answers, what a run then takes, and which way is taken when."""

from dataclasses import replace

from mpi4py import MPI

import numpy as np
import pytest
import scipy.sparse as sp

import sparsehess as sh
from sparsehess.cli import command_line
from sparsehess.commands import method_advice
from sparsehess.commands.cost_model import Calls, Memory
from sparsehess.commands.method_advice import SolveRequest, SpectrumProbe
from sparsehess.errors import InputError
from sparsehess.runtime import aij
from support import answers
from support.cases import laplacian, random_pattern, random_symmetric

PROBLEM = """
import numpy as np
import sparsehess as sh

def membrane(comm, side=14, pattern=True):
    n = side * side
    def product(v):
        u = v.reshape(side, side)
        out = 4 * u
        out[1:] -= u[:-1]; out[:-1] -= u[1:]
        out[:, 1:] -= u[:, :-1]; out[:, :-1] -= u[:, 1:]
        return out.ravel()
    at = np.arange(n).reshape(side, side)
    pairs = np.concatenate([np.c_[at[1:].ravel(), at[:-1].ravel()], np.c_[at[:, 1:].ravel(), at[:, :-1].ravel()]])
    known = sh.Pattern.from_edges(pairs, n, comm=comm) if pattern else None
    return sh.Objective(x=np.zeros(n), gradient=lambda x: product(x), pattern=known, comm=comm)
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    (tmp_path / "problems.py").write_text(PROBLEM)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def here(place, words):
    line = command_line()
    arguments = line.parse([*words.split(), "-q", "--json", str(place / "facts.json")])
    assert line.run(arguments, {}, MPI.COMM_SELF) == 0
    return answers.parse((place / "facts.json").read_text())


def test_what_products_say(comm):
    matrix = random_symmetric(random_pattern(300, 1200, 2), 2) + 3 * sp.identity(300)
    pattern = sh.Pattern.from_scipy(matrix, comm=comm)
    layout = pattern.layout
    rows = matrix.tocsr()[layout.start : layout.stop]
    mat = aij(layout, rows.indptr, rows.indices, rows.data)
    found = method_advice.probe_spectrum(mat, 24, columns=True)
    mat.destroy()
    values = np.linalg.eigvalsh(matrix.toarray())
    assert found.trace == pytest.approx(values.sum(), rel=0.25) and found.trace_error > 0
    assert found.frobenius == pytest.approx(np.linalg.norm(values), rel=0.2)
    assert values[0] - 1e-9 <= found.low <= values[0] + 0.2 * np.ptp(values)
    assert values[-1] - 0.2 * np.ptp(values) <= found.high <= values[-1] + 1e-9
    assert found.effective_rank == pytest.approx((values**2).sum() / (values**2).max(), rel=0.6)
    assert 0.4 < found.row / (matrix.nnz / 300) < 2.5 and found.products == 24
    again = np.array(comm.allgather([found.trace, found.low, found.high, found.row]))
    assert (again == again[0]).all()


def test_a_plan_says_all_that_is_asked(place):
    sp.save_npz(place / "h.npz", sp.csr_matrix(laplacian(14, 14)[0]))
    stored, problem = here(place, "plan h.npz"), here(place, "plan problems.py:membrane")
    for found in (stored, problem):
        assert found["look"]["products"] == 12 and found["look"]["seconds"] > 0
        assert found["look"]["effective_rank"] > 20
        assert found["advice"]["method"] == "assembled, shift-and-invert"
    assert all(way["calls"] is None for way in stored["advice"]["alternatives"])
    ways = {way["name"]: way for way in problem["advice"]["alternatives"]}
    assert ways["assembled, shift-and-invert"]["calls"] == [problem["evaluations"]["total"]] * 2
    assert len(ways) == 4 and all(way["why"] for way in ways.values())
    # What a run without a matrix takes lies between the two numbers it was told.
    shell = here(place, "eigs problems.py:membrane --shell -k 6 --tol 1e-8")["evaluations"]
    least, most = ways["matrix-free, Krylov-Schur"]["calls"]
    assert least < shell["gradient"] < 2 * most
    unknown = here(place, "plan problems.py:membrane --set pattern=False --shell")
    assert unknown["look"]["row"] == pytest.approx(5, abs=1) and unknown["advice"]["method"]
    assert here(place, "plan h.npz --products 0").get("advice") is None
    assert here(place, "plan h.npz -k 100")["advice"]["method"] == "assembled, dense (LAPACK)"
    with pytest.raises(InputError, match="4 at least"):
        here(place, "plan h.npz --products 3")


def test_a_table_for_people(place, capsys):
    line = command_line()
    arguments = line.parse(["plan", "problems.py:membrane"])
    assert line.run(arguments, {}, MPI.COMM_SELF) == 0
    out = capsys.readouterr().out
    for text in (
        "looks        4.71 entries a row",
        "effective rank",
        "<- take",
        "take         ",
        "precision    double",
    ):
        assert text in out


LOOK = SpectrumProbe(12, 1e-3, 1.0, 0.1, 1.0, 0.0, 1.0, 5.0, 1e-2, None)
SMALL = Memory(matrix=10**6, factor=10**7, analysed=True, vectors=10**6, columns=10**5, process=10**8)
CALLS = Calls(20, "central", 40, 7, 2, 0, False)


@pytest.mark.parametrize(
    "wanted, calls, needed, free, method",
    [
        (SolveRequest(6, "smallest", 1e-8), CALLS, SMALL, 10**10, "assembled, shift-and-invert"),
        (
            SolveRequest(6, "smallest", 1e-8),
            CALLS,
            replace(SMALL, factor=10**12),
            10**10,
            "assembled, preconditioned",
        ),
        (SolveRequest(6, None, 1e-8), CALLS, replace(SMALL, factor=10**12), 10**10, "assembled, shift-and-invert"),
        (SolveRequest(6, "smallest", 1e-8), replace(CALLS, derivatives=10**7), SMALL, 10**10, "matrix-free"),
        (SolveRequest(None, None, 1e-8), replace(CALLS, derivatives=10**7), SMALL, 10**10, "assembled, slices"),
        (SolveRequest(6, "smallest", 1e-8), CALLS, replace(SMALL, matrix=10**12), 10**10, "matrix-free"),
    ],
)
def test_which_way_is_taken(wanted, calls, needed, free, method):
    found = method_advice.advise(LOOK, wanted, 50_000, calls, needed, 1, free, 2)
    assert found.method.startswith(method) and found.precision == "double"
    taken = next(way for way in found.alternatives if way.name == found.method)
    if "take more ranks" in found.reason:
        assert not taken.possible
    else:
        assert taken.possible


def test_single_precision_where_it_is_enough():
    costly = replace(CALLS, scheme="product", derivatives=10**7)
    for tol, precision in ((1e-4, "single"), (1e-8, "double")):
        found = method_advice.advise(LOOK, SolveRequest(6, "smallest", tol), 50_000, costly, SMALL, 1, 10**10, 1)
        assert found.method.startswith("matrix-free") and found.precision == precision
