"""Diagonal plus low rank against dense matrices, on any number of ranks."""

import numpy as np
import pytest

import sparsehess as sh
from sparsehess.errors import InputError
from sparsehess.operators.low_rank import LowRankDiagonal
from sparsehess.operators.tall_skinny_qr import tall_qr
from support.dense_answers import agrees, dense, own, symmetric, whole

pytestmark = pytest.mark.parallel([1, 2, 3])


N = 47


DIAGONALS = {
    "multiple": np.full(N, 0.7),
    "positive": np.linspace(0.5, 2, N),
    "indefinite": np.linspace(-1, 1.3, N),
    "some zero": np.where(np.arange(N) < 4, 0.0, np.linspace(1, 2, N)),
    "two values": np.where(np.arange(N) < 19, 1.0, 2.0),
    "nearly singular": np.where(np.arange(N) < 3, 1e-13, 1.0 + np.arange(N) / N),
}


ALIKE = ("positive", "some zero", "nearly singular")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.thorough if name in ALIKE else ()) for name in DIAGONALS]
)
def test_low_rank_and_diagonal(name, comm):
    d, rng = DIAGONALS[name], np.random.default_rng(2)
    U, C = rng.normal(size=(N, 4)) / 3, symmetric(4, 3)
    layout = sh.Layout.from_size(N, comm)
    with LowRankDiagonal(own(layout, d), own(layout, U), C, comm=comm) as operator:
        H = np.diag(d) + U @ C @ U.T
        agrees(operator, H)
        values = np.linalg.eigvalsh(H)
        for below in (*0.5 * (values[:-1] + values[1:])[np.diff(values) > 1e-6], -9.0, 9.0):
            assert operator.count(below) == (values < below).sum()


@pytest.mark.parametrize("spread", [1e-14, 1e-11, 1e-8])
def test_clusters_in_the_diagonal_cost_no_digits(spread, comm):
    """Counts next to many entries that nearly agree, with columns that those do not have."""
    rng = np.random.default_rng(5)
    d, U = 1 + spread * rng.normal(size=N), rng.normal(size=(N, 3))
    d[:3], U[:, 2], U[3:, 1] = 2.0, 0.0, 0.0
    H = np.diag(d) + (U * [1.0, -1.0 + spread, 1.0]) @ U.T
    layout = sh.Layout.from_size(N, comm)
    C = np.diag([1.0, -1.0 + spread, 1.0])
    with LowRankDiagonal(own(layout, d), own(layout, U), C, comm=comm) as operator:
        values = np.linalg.eigvalsh(H)
        assert np.abs(operator.spectrum(N) - values).max() < 1e-14 * np.abs(values).max()


def test_ranks_of_nothing_and_of_all(comm):
    layout = sh.Layout.from_size(9, comm)
    U = np.random.default_rng(6).normal(size=(9, 9))
    with LowRankDiagonal(0.0, own(layout, U), comm=comm) as operator:
        agrees(operator, U @ U.T)
        assert operator.inertia().definite == "positive definite"
    with LowRankDiagonal(own(layout, np.arange(9.0) - 3.3), own(layout, 0 * U), comm=comm) as operator:
        agrees(operator, np.diag(np.arange(9.0) - 3.3))


def test_all_eigenvalues_come_from_the_small_problem(comm):
    layout = sh.Layout.from_size(N, comm)
    U = np.random.default_rng(4).normal(size=(N, 3))
    with LowRankDiagonal(1.0, own(layout, U), comm=comm) as operator:
        every = operator.eigenvalues()
        small = np.linalg.eigvalsh(U.T @ U)
        expected = np.concatenate([np.ones(N - 3), 1.0 + small])
        assert np.abs(every.whole() - np.sort(expected)).max() < 1e-12
        assert every.number(lambda values: values > 1 + 1e-9) == 3
    other = LowRankDiagonal(own(layout, np.arange(N)), own(layout, U), comm=comm)
    with other, pytest.raises(InputError, match="multiple of the identity"):
        other.eigenvalues()


@pytest.mark.parametrize("small", [1e-6, 1e-11])
def test_solves_are_stable_where_the_low_rank_is_heavy(small, comm):
    """The textbook formula loses as many digits as the two parts differ in size; the residual does not show it."""
    layout, rng = sh.Layout.from_size(N, comm), np.random.default_rng(5)
    U, x = rng.normal(size=(N, 3)), rng.normal(size=N)
    for d in (np.full(N, small), small * rng.uniform(1, 2, N)):
        H = np.diag(d) + U @ U.T
        for right in (H @ x, U[:, 0]):
            with LowRankDiagonal(own(layout, d), own(layout, U), comm=comm) as operator:
                found = whole(layout, operator.solve(own(layout, right)))
            size = np.linalg.norm(H, 2) * np.linalg.norm(found) + np.linalg.norm(right)
            assert np.linalg.norm(H @ found - right) <= 1e-14 * size


def test_rank_one_updates_in_a_window(comm):
    layout, rng = sh.Layout.from_size(20, comm), np.random.default_rng(6)
    columns, weights = rng.normal(size=(7, 20)), rng.normal(size=7)
    with LowRankDiagonal(2.0, np.zeros((layout.n_local, 0)), window=4, comm=comm) as operator:
        assert np.abs(operator.spectrum(3) - 2.0).max() == 0
        assert np.abs(dense(operator) - 2 * np.eye(20)).max() == 0
        for count in range(1, 8):
            operator.append(own(layout, columns[count - 1]), weights[count - 1])
            left = slice(max(0, count - 4), count)
            H = 2 * np.eye(20) + (columns[left].T * weights[left]) @ columns[left]
            assert np.abs(dense(operator) - H).max() < 1e-14 * 20
            assert np.abs(operator.spectrum(20) - np.linalg.eigvalsh(H)).max() < 1e-13
            x = whole(layout, operator.solve(own(layout, columns[0])))
            assert np.linalg.norm(H @ x - columns[0]) < 1e-12 * np.linalg.norm(H) * np.linalg.norm(x)


def test_compression_makes_the_error_that_it_says(comm):
    layout, rng = sh.Layout.from_size(30, comm), np.random.default_rng(7)
    Q = np.linalg.qr(rng.normal(size=(30, 8)))[0]
    sizes = np.array([5.0, -3.0, 1.0, 1e-1, -1e-2, 1e-3, 1e-6, 1e-9])
    skewed = rng.normal(size=(8, 8))
    inverse = np.linalg.inv(skewed)
    U, C = Q @ skewed, inverse @ np.diag(sizes) @ inverse.T
    C = (C + C.T) / 2
    low = (Q * sizes) @ Q.T
    for error, norm, rank, kept in (
        (0.0, "spectral", None, 8),
        (2e-2, "spectral", None, 4),
        (2e-3, "frobenius", None, 5),
        (0.0, "frobenius", 2, 2),
    ):
        with LowRankDiagonal(1.0, own(layout, U), C, comm=comm) as operator:
            made = operator.compress(error, rank=rank, norm=norm)
            assert operator.C.shape == (kept, kept)
            assert np.abs(operator.C - np.diag(np.diag(operator.C))).max() == 0
            there = dense(operator) - np.eye(30) - low
            exact = np.linalg.norm(there, 2 if norm == "spectral" else "fro")
            assert abs(exact - made) < 1e-11 and (rank or made <= error)
            assert np.abs(whole(layout, operator.U).T @ whole(layout, operator.U) - np.eye(kept)).max() < 1e-13


def test_dependent_columns_do_no_harm(comm):
    layout, rng = sh.Layout.from_size(25, comm), np.random.default_rng(8)
    U = rng.normal(size=(25, 2)) @ rng.normal(size=(2, 6))
    with LowRankDiagonal(
        own(layout, np.linspace(1, 2, 25)), own(layout, U), symmetric(6, 1), comm=comm
    ) as operator:
        agrees(operator, np.diag(np.linspace(1, 2, 25)) + U @ symmetric(6, 1) @ U.T)
        assert operator.compress() < 1e-12 and operator.C.shape[0] == 2


def test_householder_over_ranks(comm):
    layout = sh.Layout.from_size(11, comm)
    A = np.vander(np.linspace(0, 1, 11), 9)
    for columns in (9, 1):
        Q, R = tall_qr(comm, own(layout, A[:, :columns]))
        Q = whole(layout, Q)
        assert np.abs(Q.T @ Q - np.eye(columns)).max() < 1e-14 and np.abs(Q @ R - A[:, :columns]).max() < 1e-14
