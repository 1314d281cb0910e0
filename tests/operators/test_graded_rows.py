"""Units of variables and penalties make no structure singular: each row is judged beside itself."""

import numpy as np
import pytest
import scipy.sparse as sp

import sparsehess as sh
from sparsehess.errors import InputError
from support.dense_answers import own, positive, symmetric, whole

pytestmark = pytest.mark.parallel([1, 2, 3])

N = 14


def columns(n, r, seed=1):
    return np.random.default_rng(seed).normal(size=(n, r))


def graded(n, low, high, make=positive, seed=1):
    """Return a matrix of about one size in units that go from 10^low to 10^high."""
    units = 10.0 ** np.linspace(low, high, n)
    return units[:, None] * make(n, seed) * units


def scaled(H):
    """Return H with a diagonal of ones in size, and what scales it."""
    units = np.sqrt(np.abs(np.diag(H)))
    return H / units[:, None] / units, units


def inverse(H):
    inside, units = scaled(H)
    return np.linalg.inv(inside) / units[:, None] / units


def low_rank(d, U, comm):
    layout = sh.Layout.from_size(len(d), comm)
    return sh.LowRankDiagonal(own(layout, d), own(layout, U), comm=comm), np.diag(d) + U @ U.T


def penalty(comm):
    d = 1.5 + np.sin(np.arange(N))
    d[3] = 1e30
    return low_rank(d, columns(N, 3), comm)


def units(comm):
    powers = np.linspace(-6, 6, N)
    return low_rank(10.0 ** (2 * powers), columns(N, 3) * 10.0 ** powers[:, None], comm)


def multiple(comm):
    return low_rank(np.full(N, 1e-20), np.eye(N, 2) * [1.0, 1e-9], comm)


def product(comm):
    A, B = graded(3, -7, 7), graded(5, 5, -8, seed=2)
    return sh.Kronecker((A, B), comm=comm), np.kron(A, B)


def indefinite_product(comm):
    A, B = graded(3, -7, 7, symmetric), graded(5, 5, -8, symmetric, 2)
    return sh.Kronecker((A, B), comm=comm), np.kron(A, B)


def blocks(comm):
    parts = [graded(3, -7, 7), positive(6, 1) + np.diag([0, 0, 1e30, 0, 0, 0]), graded(4, 5, -8), [[1e-30]]]
    return sh.BlockDiagonal([np.array(part) for part in parts], comm=comm), sp.block_diag(parts).toarray()


def direct_sum(comm):
    (first, A), (second, B), (third, C) = penalty(comm), product(comm), blocks(comm)
    order = interleaved([part.layout for part in (first, second, third)])
    H = sp.block_diag([A, B, C]).toarray()[np.ix_(order, order)]
    return sh.DirectSum([first, second, third], owned=True), H


def interleaved(layouts):
    begins = np.concatenate([[0], np.cumsum([layout.n for layout in layouts])])
    ranks = range(len(layouts[0].starts) - 1)
    return np.concatenate(
        [
            begin + np.arange(*layout.starts[rank : rank + 2])
            for rank in ranks
            for begin, layout in zip(begins, layouts, strict=False)
        ]
    )


DEFINITE = [penalty, units, multiple, product, blocks, direct_sum]


@pytest.mark.parametrize("make", [*DEFINITE, indefinite_product])
def test_signs_are_those_of_the_scaled_matrix(comm, make):
    H, dense = make(comm)
    inside = np.linalg.eigvalsh(scaled(dense)[0])
    negative = int(np.count_nonzero(inside < 0))
    with H:
        found = sh.inertia(H)
        assert (found.negative, found.zero, found.positive) == (negative, 0, len(dense) - negative)
        assert found.certified
        expected = np.log(np.abs(inside)).sum() + 2 * np.log(scaled(dense)[1]).sum()
        assert abs(H.logdet() - expected) < 1e-6 * max(1.0, abs(expected))


@pytest.mark.parametrize("make", [*DEFINITE, indefinite_product])
@pytest.mark.parametrize("singular", ["refuse", "least-squares"])
def test_solutions_are_found(comm, make, singular):
    H, dense = make(comm)
    inside, units = scaled(dense)
    b = units * np.random.default_rng(3).normal(size=len(dense))
    with H:
        x = whole(H.layout, H.solve(own(H.layout, b), singular=singular))
    np.testing.assert_allclose(units * x, np.linalg.solve(inside, b / units), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("make", [*DEFINITE, indefinite_product])
def test_entries_of_the_inverse_are_within_their_errors_which_are_small(comm, make):
    H, dense = make(comm)
    exact = inverse(dense)
    last = len(dense) - 1
    with H:
        found = sh.selected_inverse(H)
        values, errors = whole(H.layout, found.values), whole(H.layout, found.errors)
        sizes = np.abs(np.diag(exact))
        assert (np.abs(values - np.diag(exact)) <= errors + 1e-9 * sizes).all()
        assert (errors <= 1e-8 * np.abs(inverse_sizes(dense))).all()
        assert found.negative == np.count_nonzero(np.linalg.eigvalsh(scaled(dense)[0]) < 0)
        off = sh.selected_inverse(H, ([0, last], [last, last // 2]))
        allowed = off.errors + 1e-9 * np.sqrt(sizes[[0, last]] * sizes[[last, last // 2]])
        assert (np.abs(off.values - exact[[0, last], [last, last // 2]]) <= allowed).all()


def inverse_sizes(H):
    """Return the largest that the inverse of the scaled matrix has, in the units of each row."""
    inside, units = scaled(H)
    return np.abs(np.linalg.inv(inside)).max() / units**2


@pytest.mark.parametrize("make", DEFINITE)
def test_samples_have_the_covariance(comm, make):
    H, dense = make(comm)
    _, units = scaled(dense)
    with H:
        found = sh.gaussian_samples(H, 3000, seed=4)
        samples = units[:, None] * np.stack([whole(H.layout, column) for column in found.values.T], axis=1)
    exact = np.linalg.inv(scaled(dense)[0])
    roots = np.sqrt(np.diag(exact))
    assert np.abs(samples @ samples.T / 3000 - exact).max() < 0.13 * roots.max() ** 2
    assert found.error < 1e-8


def test_traces_of_inverses_of_graded_blocks_are_exact(comm):
    H, dense = blocks(comm)
    exact = np.diag(inverse(dense))
    with H:
        total, entries = sh.trace(H, "inverse"), sh.diagonal(H, "inverse")
        assert total.stderr == 0 and abs(total.trace - exact.sum()) <= 10 * total.rounding
        assert entries.exact
        np.testing.assert_allclose(whole(H.layout, entries.values), exact, rtol=1e-9)
        assert abs(sh.trace(H, "logdet").trace - H.logdet()) < 1e-9


def test_eigenpairs_of_graded_blocks_are_found_by_a_factorization(comm):
    H, _ = blocks(comm)
    with H, sh.eigs(H, 2, which="negative") as found:
        assert found.method != "structure" and not len(found.eigenvalues)


@pytest.mark.parametrize("make", [
    lambda comm: (sh.Kronecker((0.1 * np.eye(3), 0.3 * np.eye(2)), comm=comm), 0.03),
    lambda comm: (sh.Kronecker((np.array([[2.0]]), np.array([[-3.0]])), comm=comm), -6.0),
    lambda comm: (sh.BlockDiagonal([0.1 * np.eye(2) * 3, 0.1 * np.eye(3) * 3], comm=comm), 0.3),
    lambda comm: (low_rank(np.full(6, 0.1 * 3), np.zeros((6, 1)), comm)[0], 0.3),
    lambda comm: (low_rank(0.3 * (1 + 2e-16 * np.arange(6)), np.zeros((6, 1)), comm)[0], 0.3),
    lambda comm: (sh.weighted_sum([(0.1, sp.identity(6)), (0.2, sp.identity(6))], comm=comm), 0.3),
    lambda comm: (sh.from_matvec(lambda v: 0.1 * 3 * v, 6, comm=comm), 0.3),
])  # fmt: skip
def test_what_a_shift_cancels_is_singular_however_well_conditioned(comm, make):
    H, value = make(comm)
    b = np.ones(H.layout.n_local)
    with H:
        with pytest.raises(Exception, match="condition"):
            H.solve(b, -value)
        np.testing.assert_array_equal(H.solve(b, -value, singular="least-squares"), 0.0)
        if H.solves_directly:
            assert H.condition(-value) > 1e14


@pytest.mark.parametrize("side", [1.0, 1.0 + 4e-16, 1.0 - 4e-16])
def test_an_inverse_within_rounding_of_none_is_not_exact(comm, side):
    u = columns(N, 1)
    layout = sh.Layout.from_size(N, comm)
    for d in (np.ones(N), 1.5 + np.sin(np.arange(N))):
        C = -side * np.eye(1) / float(np.sum(u[:, 0] ** 2 / d))
        with sh.LowRankDiagonal(own(layout, d), own(layout, u), C, comm=comm) as H:
            for function in ("inverse", "logdet"):
                try:
                    assert not np.isfinite(sh.trace(H, function).stderr)
                except InputError as error:
                    assert "definite" in str(error)
            try:
                assert not sh.diagonal(H, "inverse").exact
            except InputError as error:
                assert "definite" in str(error)


def test_a_function_of_all_of_a_matrix_tells_what_rounding_has_left(comm):
    H = positive(N, 1) + np.diag([1e30] + [0.0] * (N - 1))
    found = sh.trace(H, np.tanh, comm=comm)
    assert found.rounding > 1e-2  # eigenvalues of about one are rounding of 1e30
    assert (sh.diagonal(H, np.tanh, comm=comm).rounding > 1e-2).any()
    assert sh.trace(positive(N, 1), np.tanh, comm=comm).rounding < 1e-13


@pytest.mark.parametrize("interval", [(-1.0, 0.0), (0.0, 1.0), (-1.0, 1.0)])
def test_an_interval_that_ends_at_all_eigenvalues_has_them(comm, interval):
    H, _ = low_rank(np.zeros(5), np.zeros((5, 1)), comm)
    with H, sh.eigs(H, interval=interval) as found:
        np.testing.assert_array_equal(found.eigenvalues, np.zeros(5))
        assert found.count.certified


def test_eigenvalues_beside_a_penalty_are_those_without_its_row(comm):
    H, dense = penalty(comm)
    kept = np.delete(np.arange(N), 3)
    values = np.linalg.eigvalsh(dense[np.ix_(kept, kept)])  # a row of 1e30 moves none by more than 1e-29
    with H:
        np.testing.assert_allclose(H.spectrum(5), values[:5], rtol=1e-12)
        assert H.count(values[2] + 1e-6) == 3 and not H.knows_pairs
        with pytest.raises(InputError, match="10¹²"):
            H.eigenvalues()


@pytest.mark.parametrize("make", [penalty, product, blocks])
def test_the_sign_of_the_lowest_curvature_is_that_of_rows(comm, make):
    H, _ = make(comm)
    with H:
        found = sh.curvature(H)
        assert found.sign == 1 and found.certified
        found.direction.destroy()


def test_a_difference_of_equals_is_zero(comm):
    (first, _), (second, _) = low_rank(np.ones(N), columns(N, 3), comm), low_rank(np.ones(N), columns(N, 3), comm)
    with first, second, sh.weighted_sum([(2.0, first), (-2.0, second)]) as H:
        assert sh.trace(H).trace == 0.0 and sh.inertia(H).zero == N
        with sh.eigs(H, 2) as found:
            np.testing.assert_array_equal(found.eigenvalues, 0.0)


def test_a_density_counts_eigenvalues_at_ends(comm):
    H, _ = low_rank(np.zeros(N), np.zeros((N, 1)), comm)
    with H:
        found = sh.density(H)
    for low, high in ((0.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (-1.0, 1.0)):
        value, error = found.count(low, high)
        assert abs(value - N) <= error or value == N
    assert found.count(1.0, 2.0)[0] == 0


@pytest.mark.parametrize("size", [1e-300, 1.0, 1e300])
def test_right_hand_sides_of_any_size(comm, size):
    A, B, C, D = (positive(n, seed) for seed, n in enumerate((4, 5, 4, 5)))
    with sh.Kronecker([(A, B), (C, D)], comm=comm) as H:  # no eigenbasis in common: by iterations
        b = np.linspace(-1, 2, 20)
        x = whole(H.layout, H.solve(own(H.layout, size * b)))
        np.testing.assert_allclose((np.kron(A, B) + np.kron(C, D)) @ (x / size), b, atol=1e-8)
        least = whole(H.layout, H.solve(own(H.layout, size * b), singular="least-squares"))
        np.testing.assert_allclose(least / size, x / size, rtol=1e-5, atol=1e-8)


def test_no_right_hand_side_has_no_solution(comm):
    layout = sh.Layout.from_size(6, comm)
    with sh.Kronecker((positive(2), positive(3)), comm=comm) as first:
        rows = slice(first.layout.start, first.layout.stop)
        second = sh.LowRankDiagonal(np.ones(6)[rows], np.ones((6, 1))[rows], comm=comm)
        with second, sh.weighted_sum([(1.0, first), (1.0, second)]) as H:
            assert H.solve(np.empty((H.layout.n_local, 0))).shape == (H.layout.n_local, 0)
    with sh.LowRankDiagonal(own(layout, np.ones(6)), own(layout, np.ones((6, 1))), comm=comm) as H:
        assert H.solve(np.empty((H.layout.n_local, 0))).shape == (layout.n_local, 0)
