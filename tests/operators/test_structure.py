"""What structures tell: operators and questions against LAPACK, and what is degenerate or badly scaled."""

import importlib.util
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import sparsehess as sh
from sparsehess.errors import InputError
from sparsehess.operators.structure import NOTHING
from sparsehess.operators.wanted import Wanted
from support.dense_answers import dense, own, symmetric, whole

_FILE = Path(__file__).parents[2] / "docs" / "_extensions" / "structure_table.py"
_spec = importlib.util.spec_from_file_location("structure_table", _FILE)
table = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(table)

pytestmark = pytest.mark.parallel([1, 2, 3])

FUNCTIONS = {
    "trace": lambda x: x,
    "log-determinant": np.log,
    "trace of the inverse": lambda x: 1 / x,
    "effective dimension": lambda x: x / (x + 0.3),
    "trace of exp(−λt)": lambda x: np.exp(-0.2 * x),
    "trace of any function": lambda x: np.sqrt(np.abs(x)),
}


def whole_answers(H):
    A = dense(H)
    return A, *np.linalg.eigh((A + A.T) / 2)


def holds_traces(H, values):
    for question, f in FUNCTIONS.items():
        if question in ("log-determinant", "trace of the inverse") and values[0] <= 0:
            with pytest.raises(InputError, match="an eigenvalue is at or below"):
                table.QUESTIONS[question](H, samples=100)
            continue
        if question == "effective dimension" and values[0] <= -0.3:
            continue
        found, exact = table.QUESTIONS[question](H, samples=100), f(values)
        assert found.method == "exact" and found.stderr == 0 and found.why
        allowed = 20 * found.rounding + 1e-12 * np.abs(exact).sum()
        assert abs(found.trace - exact.sum()) <= allowed, question


def holds_diagonals(H, A, values, vectors):
    found = table.QUESTIONS["diagonal"](H, samples=100)
    assert found.exact and np.abs(whole(H.layout, found.values) - np.diag(A)).max() <= 1e-13 * np.abs(values).max()
    sums = table.QUESTIONS["traces of blocks"](H, samples=100)
    assert sums.exact
    every = np.bincount(whole(H.layout, table.labels(H)), np.diag(A))
    assert np.abs(sums.traces - every).max() <= 1e-12 * np.abs(values).sum()
    if values[0] > 0:
        found = table.QUESTIONS["diagonal of the inverse"](H, samples=100)
        exact = vectors**2 @ (1 / values)
        rounding = whole(H.layout, np.broadcast_to(found.rounding, len(found.values)))
        assert found.exact and not found.stderr.any()
        assert (np.abs(whole(H.layout, found.values) - exact) <= 20 * rounding + 1e-11 * exact).all()


def holds_counts(H, values):
    signs = table.QUESTIONS["inertia"](H, samples=100)
    counted = [np.count_nonzero(side) for side in (values < 0, values > 0)]
    assert signs.certified and signs.stderr is None and [signs.negative, signs.positive] == counted
    found = table.QUESTIONS["rank"](H, samples=100)
    assert found.certified and not found.stderr
    assert found.rank == np.count_nonzero(np.abs(values) > found.threshold)
    spectrum = table.QUESTIONS["density"](H, samples=100)
    middle = 0.5 * (values[len(values) // 3] + values[len(values) // 3 + 1])
    assert spectrum.method in ("structure", "dense")
    many, error = spectrum.count(-np.inf, middle)
    assert abs(many - np.count_nonzero(values <= middle)) <= error + 1e-9
    powers = np.mean(values[:, None] ** np.arange(5), axis=0)
    assert np.allclose(spectrum.moments, powers, rtol=1e-9, atol=1e-12 * np.abs(values).max() ** 4)
    lowest = sh.curvature(H)
    assert lowest.sign == np.sign(values[0]) and lowest.certified
    assert abs(lowest.value - values[0]) <= 1e-10 * np.abs(values).max()
    lowest.direction.destroy()


def holds_pairs(H, A, values):
    size, n = np.abs(values).max(), len(values)
    middle = float(values[n // 2])
    for asked, wanted in (
        ({"k": 4}, Wanted(4)),
        ({"k": 4, "which": "largest"}, Wanted(4, "largest")),
        ({"k": 4, "which": "magnitude"}, Wanted(4, "magnitude")),
        ({"which": "negative"}, Wanted(n, "negative")),
        ({"k": 3, "target": middle}, Wanted(3, "nearest", middle)),
        ({"interval": (middle, float(values[-1]))}, Wanted(n, "interval", low=middle - 1e-9, high=np.inf)),
        ({"k": n, "count": "yes"}, Wanted(n)),
    ):
        exact = values[wanted.first(values, np.arange(n))]
        with sh.eigs(H, **asked) as found:
            assert found.count.certified, asked
            assert np.abs(found.eigenvalues - exact).max(initial=0) <= 1e-10 * size, asked
            if len(exact):
                X = found.to_numpy()[1]
                assert np.linalg.norm(A @ X - X * found.eigenvalues, axis=0).max() <= 1e-7 * size
                assert np.abs(X.T @ X - np.eye(len(exact))).max() <= 1e-8


@pytest.mark.parametrize("name", list(table.Rows(60).all()))
def test_every_operator_answers_every_question(comm, name):
    rows = table.Rows(60, comm)
    with rows.all()[name]() as H:
        A, values, vectors = whole_answers(H)
        holds_traces(H, values)
        holds_diagonals(H, A, values, vectors)
        holds_counts(H, values)
        holds_pairs(H, A, values)
    rows.close()


@pytest.mark.parallel([1])
def test_what_a_structure_knows_is_never_estimated():
    """Of more rows than are made whole; where nothing is known, that is told."""
    lines = [line.split(" | ") for line in table.table().splitlines()]
    answers = {line[0].lstrip("| "): [cell.strip(" |") for cell in line[1:]] for line in lines[2:]}
    heads = [cell.strip(" |") for cell in lines[0][1:]]
    anything = {"trace of exp(−λt)", "trace of any function"}
    for name in (
        "`Kronecker`, one term",
        "`Kronecker`, terms that commute",
        "`EigenCorrected`",
        "`BlockDiagonal`",
    ):
        assert set(answers[name]) == {"exact"}
    for name in ("`LowRankDiagonal`", "`DirectSum` of such", "`weighted_sum` of one kind"):
        assert {head for head, cell in zip(heads, answers[name], strict=True) if cell != "exact"} == anything
    assert set(answers["`from_matvec`"]) == {"estimate", "products", "refused"}


def blocks(comm):
    small, large = symmetric(5, 1) * 1e-9, symmetric(7, 2) * 1e9
    return sh.BlockDiagonal([small, large, np.zeros((3, 3)), np.array([[2e-12]]), large], comm=comm)


def low_rank(comm, d, U, C=None):
    layout = sh.Layout.from_size(len(d), comm)
    return sh.LowRankDiagonal(own(layout, d), own(layout, U), C, comm=comm)


DEGENERATE = {
    "rank 0": lambda comm: low_rank(comm, np.cos(np.arange(40.0)), np.zeros((40, 2))),
    "no columns": lambda comm: low_rank(comm, 1 + np.arange(40.0), np.zeros((40, 0))),
    "C indefinite": lambda comm: low_rank(
        comm, 1 + np.arange(40.0) / 7, symmetric(40, 3)[:, :3], np.diag([2.0, -3, 0])
    ),
    "repeated poles": lambda comm: low_rank(comm, np.repeat([1.0, 2, 5], 20), symmetric(60, 4)[:, :3]),
    "equal entries": lambda comm: low_rank(comm, np.full(30, 2.0), symmetric(30, 5)[:, :2], np.diag([1.0, -1.0])),
    "more columns than rows": lambda comm: low_rank(comm, np.arange(6.0), symmetric(6, 6) @ np.ones((6, 9))),
    "zeros in D": lambda comm: low_rank(comm, np.repeat([0.0, 1.0], 25), symmetric(50, 7)[:, :2]),
    "1 x 1": lambda comm: low_rank(comm, np.array([3.0]), np.array([[2.0]])),
    "Kronecker of zeros": lambda comm: sh.Kronecker((np.zeros((3, 3)), symmetric(4)), comm=comm),
    "Kronecker, 1 x 1": lambda comm: sh.Kronecker((np.array([[2.0]]), np.array([[3.0]])), comm=comm),
    "Kronecker, singular": lambda comm: sh.Kronecker((np.ones((3, 3)), symmetric(5)), comm=comm),
    "blocks of zeros": lambda comm: sh.BlockDiagonal([np.zeros((4, 4)), np.eye(2), symmetric(6)], comm=comm),
    "block of 1 x 1": lambda comm: sh.BlockDiagonal([np.array([[-2.0]])], comm=comm),
    "sum of copies": lambda comm: sh.DirectSum([blocks(comm), blocks(comm)], owned=True),
}


@pytest.mark.parametrize("name", list(DEGENERATE))
def test_degenerate_operators(comm, name):
    """Pairs, traces and counts; signs of what is zero to rounding are LAPACK's to the same."""
    with DEGENERATE[name](comm) as H:
        A, values, _ = whole_answers(H)
        size, n = np.abs(values).max() or 1.0, len(values)
        clear = np.abs(values)[np.abs(values) > 1e-11 * size]
        found = sh.trace(H)
        assert found.method == "exact" and abs(found.trace - np.trace(A)) <= 1e-12 * n * size
        heat = sh.trace(H, "heat", time=0.1 / size)
        assert heat.method == "exact" and abs(heat.trace - np.exp(-0.1 / size * values).sum()) <= 1e-11 * n
        if name != "sum of copies":
            signs = sh.inertia(H)
            negative = np.count_nonzero(values < -1e-11 * size)
            assert (signs.negative, signs.zero) == (negative, n - len(clear))
            assert sh.rank(H).rank == len(clear)
        for asked in ({"k": min(n, 3)}, {"k": 1, "which": "largest"}, {"k": min(n, 2), "target": 0.1 * size}):
            with sh.eigs(H, **asked) as pairs:
                assert pairs.method == "structure" and pairs.count.certified
                which = {"which": "nearest", "target": asked["target"]} if "target" in asked else {}
                wanted = Wanted(**{"which": asked.get("which", "smallest"), **which}, k=asked["k"])
                exact = values[wanted.first(values, np.arange(n))]
                assert np.abs(pairs.eigenvalues - exact).max() <= 1e-12 * size
                X = pairs.to_numpy()[1]
                assert np.linalg.norm(A @ X - X * pairs.eigenvalues, axis=0).max() <= 1e-10 * size
        with sh.eigs(H, interval=(-np.inf, np.inf)) as pairs:
            assert len(pairs.eigenvalues) == n and pairs.count.certified


def test_small_blocks_have_signs_beside_large_ones(comm):
    """A threshold relative to the largest eigenvalue would take all of 1e-9 for zeros beside 1e9."""
    small, large = np.linalg.eigvalsh(symmetric(5, 1)), np.linalg.eigvalsh(symmetric(7, 2))
    negative = np.count_nonzero(small < 0) + 2 * np.count_nonzero(large < 0)
    positive = np.count_nonzero(small > 0) + 2 * np.count_nonzero(large > 0) + 1
    with blocks(comm) as H, sh.DirectSum([H, H]) as both:
        for matrix, times in ((H, 1), (both, 2)):
            found = sh.inertia(matrix)
            assert found.certified
            assert (found.negative, found.zero, found.positive) == (times * negative, times * 3, times * positive)


def test_low_rank_in_units_of_all_sizes(comm):
    """S (I + u uᵀ) S: log-determinant, signs and the diagonal of the inverse in rational numbers."""
    n = 12
    powers = np.linspace(-30, 30, n).round()
    s, u = 2.0**powers, np.arange(1.0, n + 1)
    with low_rank(comm, s**2, (s * u)[:, None]) as H:
        exact = [Fraction(1) - Fraction(int(v) ** 2, 1 + int(u @ u)) for v in u]
        inverse = np.array([float(one) for one in exact]) / s**2
        found = sh.diagonal(H, "inverse")
        assert found.exact and np.abs(whole(H.layout, found.values) / inverse - 1).max() < 1e-12
        logdet = sh.trace(H, "logdet")
        expected = 2 * np.log(2) * powers.sum() + np.log(1 + u @ u)
        assert abs(logdet.trace - expected) < 1e-11 and logdet.rounding < 1e-9
        signs = sh.inertia(H)
        assert signs.certified and (signs.negative, signs.zero, signs.positive) == (0, 0, n)


def test_what_rounding_leaves_nothing_of_is_told(comm):
    """Of 1/λ for a λ that is rounding nothing is known, and the error bar says so."""
    Q = np.linalg.qr(symmetric(8, 9))[0]
    singular = (Q * np.array([0.0, *np.arange(1.0, 8)])) @ Q.T + 1e-15 * np.eye(8)
    with sh.BlockDiagonal([singular, np.eye(3)], comm=comm) as H:
        try:
            found = sh.trace(H, "inverse")
        except InputError as error:
            assert "at or below" in str(error)
        else:
            assert found.rounding > 0.01 * found.trace
            assert (sh.diagonal(H, "inverse").rounding > 0).any()


def test_what_is_beside_a_structure_changes_the_question(comm):
    """A mass or null vectors: then the structure of A tells nothing of the problem, and is not asked."""
    with sh.Kronecker((np.diag([1.0, 2.0, 3.0]), np.diag([1.0, 4.0])), comm=comm) as H:
        exact = np.sort(np.outer([1, 2, 3], [1, 4]).ravel() / np.arange(1, 7))
        with sh.eigs(H, 2, mass=np.arange(1.0, 7)) as found:
            assert found.method != "structure" and np.allclose(found.eigenvalues, exact[:2])
        assert sh.trace(H, mass=np.arange(1.0, 7)).trace == pytest.approx(exact.sum())
        with sh.EigenProblem.of(H) as problem:
            assert problem.told is H
        with sh.EigenProblem.of(H, mass=np.arange(1.0, 7)) as problem:
            assert problem.told is NOTHING
        with pytest.raises(InputError, match="method 'structure'"):
            sh.eigs(H, 2, method="structure", mass=np.arange(1.0, 7))
    with sh.Kronecker((np.diag([0.0, 2.0]), np.eye(2)), comm=comm) as H:
        null = np.eye(4)[:2]
        with sh.eigs(H, 1, nullspace=null) as found:
            assert np.allclose(found.eigenvalues, 2.0) and found.count.certified
        assert sh.trace(H, "logdet", nullspace=null).trace == pytest.approx(2 * np.log(2))


def test_users_functions_and_domains(comm):
    """A function that is not finite, or raises, ends on all ranks; one of one side of its domain has values."""
    with sh.BlockDiagonal([np.diag([0.0, 1.0]), np.eye(2)], comm=comm) as H:
        found = sh.trace(H, np.sqrt)
        assert found.trace == 3.0 and found.method == "exact"
        with pytest.raises(InputError, match="not finite"):
            sh.trace(H, lambda x: 1 / x)
        with pytest.raises(InputError, match="as many values"):
            sh.trace(H, lambda x: x[:0])


def test_what_has_no_structure_says_so():
    for ask in (NOTHING.eigenvalues, lambda: NOTHING.count(0.0), NOTHING.spectrum, NOTHING.inertia):
        with pytest.raises(InputError, match="no structure that tells"):
            ask()
    assert NOTHING.total(None) is None and NOTHING.entries(None) is None and not NOTHING.knows_counts
