"""Advice: what a few products say beside dense answers, what a run then takes, and which way is taken when."""

from dataclasses import replace

from mpi4py import MPI

import numpy as np
import pytest
import scipy.sparse as sp

import sparsehess as sh
from sparsehess.cli import command_line
from sparsehess.commands import spectrum_probe
from sparsehess.commands.cost_model import Memory
from sparsehess.commands.method_advice import Costs, SolveRequest, advise
from sparsehess.commands.planned_calls import Calls
from sparsehess.commands.planned_products import Products
from sparsehess.commands.spectrum_probe import SpectrumProbe
from sparsehess.eigen.solvers.method_choice import Choice
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
    mat = on_ranks(matrix, comm)
    found = spectrum_probe.probe_spectrum(mat, 24, columns=True)
    mat.destroy()
    values = np.linalg.eigvalsh(matrix.toarray())
    assert found.trace == pytest.approx(values.sum(), rel=0.25) and found.trace_error > 0
    assert found.frobenius == pytest.approx(np.linalg.norm(values), rel=0.2)
    assert values[0] - 1e-9 <= found.low <= values[0] + 0.2 * np.ptp(values)
    assert values[-1] - 0.2 * np.ptp(values) <= found.high <= values[-1] + 1e-9
    low, high = found.effective_rank_bars
    assert low <= found.effective_rank <= high
    assert found.effective_rank == pytest.approx((values**2).sum() ** 2 / (values**4).sum(), rel=0.4)
    assert 0.4 < found.row / (matrix.nnz / 300) < 2.5 and found.products == 24
    assert found.noise < 1e-12 and found.tolerance == 1e-8 and found.calls == 0
    again = np.array(comm.allgather([found.trace, found.low, found.high, found.row, low, high]))
    assert (again == again[0]).all()


def on_ranks(matrix, comm):
    pattern = sh.Pattern.from_scipy(matrix, comm=comm)
    layout = pattern.layout
    rows = sp.csr_matrix(matrix)[layout.start : layout.stop]
    rows.sort_indices()
    return aij(layout, rows.indptr, rows.indices, rows.data)


SPECTRA = {
    "projector": np.repeat([1.0, 0.0], [12, 108]),
    "identity": np.ones(120),
    "indefinite": np.linspace(-1, 1, 120),
    "decay": 0.9 ** np.arange(120),
    "spikes": np.concatenate([[50.0, -30.0, 20.0], np.full(117, 0.01)]),
}


@pytest.mark.parametrize("name", SPECTRA)
def test_bars_of_the_effective_rank_hold_as_often_as_they_say(name):
    values = SPECTRA[name]
    exact = (values**2).sum() ** 2 / (values**4).sum()
    Q = np.linalg.qr(np.random.default_rng(5).standard_normal((120, 120)))[0]
    mat = on_ranks(sp.csr_matrix((Q * values) @ Q.T), MPI.COMM_SELF)
    seeds, rank = 60, np.count_nonzero(np.abs(values) > 1e-12)
    held = 0
    for seed in range(seeds):
        found = spectrum_probe.probe_spectrum(mat, 9, seed=seed)
        low, high = found.effective_rank_bars
        assert 1 <= low <= found.effective_rank <= high <= 120
        held += low * (1 - 1e-6) <= exact <= high * (1 + 1e-6)
    mat.destroy()
    assert exact <= rank * (1 + 1e-12)
    # 90 %, but for four standard deviations of so many trials.
    assert held >= seeds * 0.9 - 4 * np.sqrt(seeds * 0.9 * 0.1)
    if name == "identity":
        assert found.effective_rank == pytest.approx(120) and held == seeds


def test_a_matrix_of_zeros_has_no_effective_rank():
    mat = on_ranks(sp.csr_matrix(([0.0] * 9, (range(9), range(9))), (9, 9)), MPI.COMM_SELF)
    found = spectrum_probe.probe_spectrum(mat, 9)
    mat.destroy()
    assert found.effective_rank == 0 and found.effective_rank_bars == (0.0, 0.0)


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
    # So few variables are made whole by their products: as many calls are told, or fewer where Lanczos ends early.
    shell = sum(here(place, "eigs problems.py:membrane --shell -k 6 --tol 1e-8")["evaluations"].values())
    whole = ways["matrix-free, made whole (LAPACK)"]
    assert whole["likely"] == whole["calls"][1] == shell and whole["calls"][0] >= shell - 2 * 11
    unknown = here(place, "plan problems.py:membrane --set pattern=False --shell")
    assert unknown["look"]["row"] == pytest.approx(5, abs=1) and unknown["advice"]["method"]
    assert here(place, "plan h.npz --products 0").get("advice") is None
    assert here(place, "plan h.npz -k 100")["advice"]["method"] == "assembled, dense (LAPACK)"
    with pytest.raises(InputError, match="8 at least"):
        here(place, "plan h.npz --products 3")


def test_a_table_for_people(place, capsys):
    line = command_line()
    arguments = line.parse(["plan", "problems.py:membrane"])
    assert line.run(arguments, {}, MPI.COMM_SELF) == 0
    out = capsys.readouterr().out
    for text in (
        "looks        4.71 entries a row",
        "effective rank (Σ λ²)² / Σ λ⁴ = ",
        "with 90 %",
        "asked, <- take",
        "take         ",
        "precision    double",
    ):
        assert text in out


LOOK = SpectrumProbe(
    products=12, seconds=1e-3, calls=40, trace=1.0, trace_error=0.1, frobenius=1.0, low=0.0, high=1.0,
    effective_rank=5.0, effective_rank_bars=(4.0, 6.0), gap=1e-2, row=None, noise=0.0, noise_of_whole=0.0,
    tolerance=1e-8,
)  # fmt: skip
SMALL = Memory(matrix=10**6, factor=10**7, analysed=True, vectors=10**6, columns=10**5, process=10**8)
CALLS = Calls(20, "central", 40, 7, 2, 0, False)
SHELL = Calls(None, "central", 900, 7, 0, 0, True, products=450, less=800, more=4000)
PRODUCTS = Products(30, 450, 2450, "Krylov-Schur", "products alone")


def costs(assembly=CALLS, shell=SHELL, needed=SMALL, free=10**10, products=PRODUCTS, **more):
    return Costs(assembly, shell, products, "", 1e-3, needed, 1, free, **more)


BY_FACTORS = Choice("krylovschur", "few solves")


@pytest.mark.parametrize(
    "wanted, given, method",
    [
        (SolveRequest(6, "smallest", 1e-8), costs(), "assembled, shift-and-invert"),
        (SolveRequest(6, "smallest", 1e-8), costs(needed=replace(SMALL, factor=10**12)), "assembled, precond"),
        (SolveRequest(6, None, 1e-8), costs(needed=replace(SMALL, factor=10**12)), "matrix-free"),
        (
            SolveRequest(6, None, 1e-8),
            costs(needed=replace(SMALL, factor=10**12), shell=None, products=None),
            "assembled, shift-and-invert",
        ),
        (SolveRequest(6, "smallest", 1e-8), costs(replace(CALLS, derivatives=10**7)), "matrix-free"),
        (SolveRequest(6, "smallest", 1e-8), costs(needed=replace(SMALL, matrix=10**12)), "matrix-free"),
        (SolveRequest(6, "largest", 1e-8), costs(), "assembled, Krylov-Schur"),
    ],
)
def test_which_way_is_taken(wanted, given, method):
    found = advise(wanted, 50_000, LOOK, given, BY_FACTORS)
    assert found.method.startswith(method) and found.precision == "double"
    taken = next(way for way in found.alternatives if way.name == found.method)
    assert taken.possible == ("take more ranks" not in found.reason)
    assert [way.asked for way in found.alternatives].count(True) == 1


def test_a_method_that_was_asked_for_is_marked_in_the_table():
    wanted = SolveRequest(6, "smallest", 1e-8)
    for choice, name in (("dense", "assembled, dense (LAPACK)"), ("jd", "assembled, jd")):
        found = advise(wanted, 50_000, LOOK, costs(), Choice(choice, "asked for"))
        assert [way.name for way in found.alternatives if way.asked] == [name]
    found = advise(wanted, 50_000, LOOK, costs(shelled=True), BY_FACTORS)
    assert [way.name for way in found.alternatives if way.asked] == ["matrix-free, Krylov-Schur"]


def test_products_alone_are_named_where_the_pattern_is_dense_or_to_be_found():
    wanted = SolveRequest(6, "smallest", 1e-8)
    dense = advise(wanted, 30, LOOK, costs(replace(CALLS, colors=30)), BY_FACTORS)
    assert "the pattern is dense: --shell takes about 907 calls" in dense.reason
    assert "dense" not in advise(wanted, 300, LOOK, costs(), BY_FACTORS).reason
    to_be_found = advise(wanted, 300, LOOK, costs(detects=True), BY_FACTORS)
    flags = {way.name: way.flags for way in to_be_found.alternatives}
    assert flags["assembled, shift-and-invert"] == "--pattern detect --method krylovschur"
    assert flags["matrix-free, Krylov-Schur"] == "--shell"


def test_an_assembly_that_would_refuse_noisy_products_is_not_advised():
    products = replace(CALLS, scheme="product")
    found = advise(SolveRequest(6, "smallest", 1e-8), 300, replace(LOOK, noise=1e-3), costs(products), BY_FACTORS)
    assert found.method.startswith("matrix-free")
    assert not any(way.possible for way in found.alternatives if way.name.startswith("assembled"))


def test_single_precision_where_it_is_enough():
    costly = costs(replace(CALLS, scheme="product", derivatives=10**7), replace(SHELL, scheme="product"))
    for tol, precision in ((1e-4, "single"), (1e-8, "double")):
        found = advise(SolveRequest(6, "smallest", tol), 50_000, LOOK, costly, BY_FACTORS)
        assert found.method.startswith("matrix-free") and found.precision == precision
