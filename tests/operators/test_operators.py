"""Structured Hessians against dense matrices: every identity to rounding, on any number of ranks."""

from itertools import chain

from petsc4py import PETSc
from slepc4py import SLEPc

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sp

import sparsehess as sh
from sparsehess.errors import CheckError, InputError, NotConverged
from sparsehess.operators.block_diagonal import BlockDiagonal
from sparsehess.operators.combinations import congruence, weighted_sum
from sparsehess.operators.connected_components import deal_few
from sparsehess.operators.direct_sum import DirectSum
from sparsehess.operators.eigen_corrected import EigenCorrected
from sparsehess.operators.kronecker import Kronecker, first_products
from sparsehess.operators.low_rank import LowRankDiagonal
from sparsehess.operators.matrix_functions import funm, inverse_root, power_residual
from sparsehess.operators.matrix_vectors import Grid
from sparsehess.operators.nearest_kronecker import nearest_kronecker
from sparsehess.operators.quasi_newton import lbfgs, sr1
from sparsehess.operators.tall_skinny_qr import tall_qr
from sparsehess.operators.transforms import lora, projection, scaling, selection, sharing
from support.cases import laplacian

pytestmark = pytest.mark.parallel([1, 2, 3])


def symmetric(n, seed=0):
    A = np.random.default_rng(seed).normal(size=(n, n))
    return A + A.T


def positive(n, seed=0, least=0.1):
    A = np.random.default_rng(seed).normal(size=(n, n))
    return A @ A.T / n + least * np.eye(n)


def own(layout, array):
    """Return this rank's rows."""
    return array[layout.start : layout.stop]


def whole(layout, array):
    """Return all ranks' rows."""
    return np.concatenate(layout.comm.allgather(array))


def dense(operator):
    """Return the matrix that products with `mat` are those of."""
    x, y = operator.mat.createVecRight(), operator.mat.createVecLeft()
    columns = []
    for j in range(operator.n):
        x.setArray(np.arange(operator.layout.start, operator.layout.stop) == j)
        operator.mat.mult(x, y)
        columns.append(y.getArray().copy())
    x.destroy()
    y.destroy()
    return whole(operator.layout, np.stack(columns, axis=1))


def ends(values, k, which):
    key = {"smallest": values, "largest": -values, "magnitude": -np.abs(values), "negative": values}[which]
    chosen = np.sort(values[np.argsort(key, kind="stable")[:k]])
    return chosen[chosen < 0] if which == "negative" else chosen


def agrees(operator, H, shift=0.37, solves=1e-12, exact=True):
    """Compare all that an operator answers with what LAPACK says of the dense matrix."""
    layout, n = operator.layout, len(H)
    size, values = np.linalg.norm(H, 2), np.linalg.eigvalsh(H)
    shifted = H + shift * np.eye(n)
    assert operator.n == n and np.abs(dense(operator) - H).max() <= 1e-13 * size
    assert np.abs(whole(layout, operator.diagonal()) - np.diag(H)).max() <= 1e-13 * size
    assert abs(operator.trace() - np.trace(H)) <= 1e-13 * size * n
    diagonal = operator.mat.getDiagonal()
    assert np.abs(whole(layout, diagonal.getArray()) - np.diag(H)).max() <= 1e-13 * size
    x, y = operator.mat.createVecRight(), operator.mat.createVecLeft()
    x.setArray(own(layout, np.arange(n) % 7 - 3.0))
    operator.mat.multTranspose(x, y)
    assert np.abs(whole(layout, y.getArray()) - H @ (np.arange(n) % 7 - 3.0)).max() <= 1e-12 * size * n
    for which in ("smallest", "largest", "magnitude", "negative") if exact else ("smallest", "magnitude"):
        expected = ends(values, 4, which)
        if operator.knows_counts:
            found = operator.spectrum(4, which)
        else:
            with sh.eigs(operator, 4, which=which) as spectrum:
                found = spectrum.eigenvalues
        assert np.abs(found[: len(expected)] - expected).max(initial=0.0) <= (1e-13 * n if exact else 1e-9) * size
    b = np.random.default_rng(1).normal(size=(n, 2))
    found = whole(layout, operator.solve(own(layout, b), shift))
    assert np.linalg.norm(shifted @ found - b) <= solves * (size + shift) * np.linalg.norm(found)
    x.setArray(own(layout, b[:, 0]))
    answer = operator.solve(x, shift)
    assert np.abs(whole(layout, answer.getArray()) - found[:, 0]).max() <= 1e-12 * np.abs(found).max()
    if exact:
        assert abs(operator.logdet(shift) - np.linalg.slogdet(shifted)[1]) <= 1e-11 * n
        signs = sh.inertia(operator)
        at = signs.threshold
        assert signs.certified and (signs.negative, signs.positive) == ((values < -at).sum(), (values > at).sum())
    for which in ("smallest", "largest"):
        with sh.eigs(operator, 3, which=which) as spectrum:
            assert np.abs(spectrum.eigenvalues - ends(values, 3, which)).max() <= 1e-9 * size
            counted = operator.knows_counts or "aij" in operator.mat.getType()
            assert (spectrum.count is not None) == counted and (not counted or spectrum.count.certified)
    if operator.knows_eigenvalues:
        assert sh.trace(operator, np.square).trace == pytest.approx(np.sum(values**2))
        assert operator.inertia() == signs
        gap = np.argmax(np.diff(values))
        assert operator.count(0.5 * (values[gap] + values[gap + 1])) == gap + 1
    for vector in (x, y, answer, diagonal):
        vector.destroy()


# --- diagonal and low rank -------------------------------------------------------------

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


# --- quasi-Newton ----------------------------------------------------------------------


def test_sr1_on_a_quadratic_is_the_hessian_after_n_steps(comm):
    n = 24
    layout, H = sh.Layout.from_size(n, comm), symmetric(n, 9)
    S = np.random.default_rng(9).normal(size=(n, n))
    S = np.concatenate([S, S[:, :3] + S[:, 3:6]], axis=1)  # steps that tell nothing new are left out
    with sr1(own(layout, S), own(layout, H @ S), 0.5, comm=comm) as operator:
        assert operator.C.shape == (n, n)
        assert np.abs(dense(operator) - H).max() < 1e-10 * np.linalg.norm(H, 2)
        operator.compress()
        assert np.abs(dense(operator) - H).max() < 1e-10 * np.linalg.norm(H, 2)


def test_sr1_is_its_updates_one_after_the_other(comm):
    n, m = 30, 6
    layout, rng = sh.Layout.from_size(n, comm), np.random.default_rng(10)
    d = np.linspace(1, 2, n)
    S, Y = rng.normal(size=(n, m)), rng.normal(size=(n, m))
    Y[:, 2] = d * S[:, 2]  # no update: it fits already or is not defined
    for memory in (None, 4):
        B = np.diag(d)
        for s, y in list(zip(S.T, Y.T, strict=True))[-(memory or m) :]:
            v = y - B @ s
            if abs(v @ s) > 1e-8 * np.linalg.norm(v) * np.linalg.norm(s) and np.linalg.norm(v) > 1e-12:
                B = B + np.outer(v, v) / (v @ s)
        with sr1(own(layout, S), own(layout, Y), own(layout, d), memory=memory, comm=comm) as operator:
            assert np.abs(dense(operator) - B).max() < 1e-9 * np.linalg.norm(B, 2)


def test_lbfgs_is_its_updates_one_after_the_other(comm):
    n, m = 30, 5
    layout, rng = sh.Layout.from_size(n, comm), np.random.default_rng(11)
    S = rng.normal(size=(n, m))
    Y = positive(n, 12) @ S + 0.01 * rng.normal(size=(n, m))
    Y[:, 1] = -S[:, 1]  # negative curvature is left out
    for start in (None, np.linspace(1, 3, n)):
        B = np.eye(n) * (Y[:, -1] @ Y[:, -1]) / (S[:, -1] @ Y[:, -1]) if start is None else np.diag(start)
        for j in (0, 2, 3, 4):
            s, y = S[:, j], Y[:, j]
            B = B - np.outer(B @ s, B @ s) / (s @ B @ s) + np.outer(y, y) / (y @ s)
        D = None if start is None else own(layout, start)
        with lbfgs(own(layout, S), own(layout, Y), D, comm=comm) as operator:
            agrees(operator, B)
            assert operator.inertia().definite == "positive definite"
            last = operator.product(own(layout, S[:, -1]))
            assert np.abs(whole(layout, last) - Y[:, -1]).max() < 1e-12 * np.abs(Y).max()  # the secant equation


def test_pairs_may_be_vectors(comm):
    layout = sh.Layout.from_size(12, comm)
    S, H = np.random.default_rng(1).normal(size=(12, 12)), symmetric(12, 2)

    def vecs(columns):
        out = []
        for column in columns.T:
            out.append(PETSc.Vec().createMPI((layout.n_local, 12), comm=comm))
            out[-1].setArray(own(layout, column))
        return out

    with sr1(vecs(S), vecs(H @ S)) as operator:
        assert np.abs(dense(operator) - H).max() < 1e-10 * np.linalg.norm(H, 2)


# --- Kronecker -------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(7, 5), (3, 8), pytest.param((1, 6), marks=pytest.mark.thorough), (9, 1)])
def test_kronecker(sizes, comm):
    p, q = sizes
    A, B = symmetric(p, 1), symmetric(q, 2)
    with Kronecker((A, sp.csr_matrix(B)), comm=comm) as operator:
        agrees(operator, np.kron(A, B))
        expected = np.sort(np.outer(np.linalg.eigvalsh(A), np.linalg.eigvalsh(B)).ravel())
        assert np.abs(operator.eigenvalues().whole() - expected).max() < 1e-13 * np.abs(expected).max()
        assert abs(operator.logdet() - np.linalg.slogdet(np.kron(A, B))[1]) < 1e-10


def test_first_products_of_factors_of_any_sign():
    rng = np.random.default_rng(3)
    for trial in range(20):
        a, b = np.round(rng.normal(size=(6,)), 1), np.round(rng.normal(size=(9,)) + trial % 3 - 1, 1)
        every = np.outer(a, b).ravel()
        for which in ("smallest", "largest", "magnitude"):
            for k in (1, 10, 54):
                found = np.sort(first_products(a, b, k, which))
                expected = ends(every, k, which)
                if which == "magnitude":  # of two of one size either is right
                    found, expected = np.sort(np.abs(found)), np.sort(np.abs(expected))
                assert np.abs(found - expected).max() < 1e-15


def test_few_of_very_many_products(comm):
    """10¹⁰ eigenvalues, of which five are found; no vector of that length exists."""
    a = np.linspace(-1, 2, 100_000)
    assert np.abs(np.sort(first_products(a, a, 3, "largest"))[-1] - 4.0) < 1e-15
    assert np.abs(first_products(a, a, 5, "smallest")[0] + 2.0) < 1e-15


def test_kronecker_sums(comm):
    A, B, C, D = symmetric(5, 1), symmetric(6, 2), symmetric(5, 3), symmetric(6, 4)
    with Kronecker([(A, np.eye(6)), (sp.identity(5), B)], comm=comm) as operator:  # commute
        agrees(operator, np.kron(A, np.eye(6)) + np.kron(np.eye(5), B))
        assert operator.diagonalizable
    with Kronecker([(A, B), (C, D)], comm=comm) as operator:  # do not
        agrees(operator, np.kron(A, B) + np.kron(C, D), solves=1e-10, exact=False)
        assert not operator.diagonalizable
        with pytest.raises(InputError, match="no eigenbasis in common"):
            operator.inertia()
    first, second = laplacian(7)[0], laplacian(4)[0]
    with Kronecker([(first, sp.identity(4)), (sp.identity(7), second)], comm=comm) as operator:
        expected = laplacian(7, 4)[1]
        assert np.abs(operator.eigenvalues().whole() - expected).max() < 1e-14 * 8


def test_grids_turn_and_turn_back(comm):
    for p, q in ((5, 7), (2, 3), (1, 9)):
        grid = Grid(p, q, comm)
        X = np.arange(p * q, dtype=float).reshape(p, q)
        columns = grid.to_columns(X[grid.own_rows])
        assert np.array_equal(columns, X[:, grid.own_columns])
        assert np.array_equal(grid.to_rows(columns), X[grid.own_rows])


def test_nearest_kronecker_errs_by_the_tail(comm):
    p, q = 4, 5
    H = symmetric(p * q, 5)
    sigma = np.linalg.svd(H.reshape(p, q, p, q).transpose(0, 2, 1, 3).reshape(p * p, -1), compute_uv=False)
    for terms in (1, 3, 10):
        tail = np.sqrt(np.sum(sigma[terms:] ** 2))
        with nearest_kronecker(H, p, q, terms, comm=comm) as nearest:
            assert np.abs(nearest.singular_values - sigma[:terms]).max() < 1e-12 * sigma[0]
            assert abs(nearest.error - tail) < 1e-12 * sigma[0]
            found = dense(nearest.operator)
            assert abs(np.linalg.norm(found - H) - tail) < 1e-12 * sigma[0]
            assert np.abs(found - found.T).max() < 1e-11 * sigma[0]


@pytest.mark.parametrize("p, q, rank", [(2, 2, 2), (4, 4, 2), (6, 1, 1), (1, 6, 1)])
def test_nearest_kronecker_where_there_are_fewer_terms(p, q, rank, comm):
    H = np.diag(np.arange(1.0, p * q + 1))
    sigma = np.linalg.svd(H.reshape(p, q, p, q).transpose(0, 2, 1, 3).reshape(p * p, -1), compute_uv=False)
    with nearest_kronecker(sp.csr_matrix(H), p, q, 4, comm=comm) as nearest:
        np.testing.assert_allclose(nearest.singular_values, sigma[:rank], rtol=1e-12)
        np.testing.assert_allclose(dense(nearest.operator), H, atol=1e-12 * sigma[0])


def test_nearest_kronecker_of_a_sum_is_the_sum(comm):
    terms = [(positive(4, 1), positive(6, 2)), (positive(4, 3), positive(6, 4))]
    with Kronecker(terms, comm=comm) as operator:
        H = dense(operator)
    layout = sh.Layout.from_size(24, comm)  # other rows than those of whole blocks
    local = sp.csr_matrix(own(layout, H))
    csr = (local.indptr.astype(PETSc.IntType), local.indices.astype(PETSc.IntType), local.data)
    mat = PETSc.Mat().createAIJ(((layout.n_local, 24),) * 2, csr=csr, comm=comm)
    with nearest_kronecker(mat, 4, 6, 5) as nearest:
        assert len(nearest.singular_values) == 2
        assert np.abs(dense(nearest.operator) - H).max() < 1e-13 * np.linalg.norm(H)
    with nearest_kronecker(mat, 4, 6) as nearest:  # positive factors for a positive matrix
        assert all(np.linalg.eigvalsh(factor)[0] > 0 for factor in nearest.operator.terms[0])
    mat.destroy()


def test_ekfac_has_the_trace_of_the_block_diagonal(comm):
    sizes, layers, total = [(3, 4), (5, 2)], [], 0.0
    for number, (p, q) in enumerate(sizes):
        grid = Grid(p, q, comm)
        block = positive(p * q, number)
        local = sp.csr_matrix(own(grid.layout, block))
        csr = (local.indptr.astype(PETSc.IntType), local.indices.astype(PETSc.IntType), local.data)
        mat = PETSc.Mat().createAIJ(((grid.layout.n_local, p * q),) * 2, csr=csr, comm=comm)
        A, B = positive(p, 10 + number), positive(q, 20 + number)
        layer = EigenCorrected.of(mat, A, B)
        mat.destroy()
        Q = np.kron(np.linalg.eigh(A)[1], np.linalg.eigh(B)[1])
        agrees(layer, (Q * np.diag(Q.T @ block @ Q)) @ Q.T)
        layers.append(layer)
        total += np.trace(block)
    with DirectSum(layers, owned=True) as network:
        assert abs(network.trace() - total) < 1e-13 * total
        assert abs(network.eigenvalues().total(lambda values: values) - total) < 1e-13 * total


def test_ekfac_from_samples(comm):
    rng = np.random.default_rng(6)
    left, right = rng.normal(size=(13, 4)), rng.normal(size=(13, 3))
    A, B = left.T @ left / 13, right.T @ right / 13
    mine = slice(comm.rank, None, comm.size)
    with EigenCorrected.from_samples(A, B, left[mine], right[mine], comm=comm) as operator:
        gradients = np.array([np.kron(a, b) for a, b in zip(left, right, strict=True)])
        fisher = gradients.T @ gradients / 13
        assert abs(operator.trace() - np.trace(fisher)) < 1e-13 * np.trace(fisher)
        Q = np.kron(np.linalg.eigh(A)[1], np.linalg.eigh(B)[1])
        corrected = (Q * np.diag(Q.T @ fisher @ Q)) @ Q.T
        agrees(operator, corrected)
        # No Kronecker product of these eigenvectors is nearer.
        assert np.linalg.norm(corrected - fisher) < np.linalg.norm(np.kron(A, B) - fisher)


# --- blocks ----------------------------------------------------------------------------


def sizes_of(operator):
    """Return the sizes of all blocks, ascending."""
    return sorted(chain.from_iterable(operator.comm.allgather([len(block) for block in operator.blocks])))


BLOCKS = [symmetric(m, m) for m in (3, 1, 12, 5, 7, 1, 2)]


def test_blocks(comm):
    mixed = [sp.csr_matrix(block) if number % 2 else block for number, block in enumerate(BLOCKS)]
    with BlockDiagonal(mixed, comm=comm) as operator:
        agrees(operator, scipy.linalg.block_diag(*BLOCKS))
        union = np.sort(np.concatenate([np.linalg.eigvalsh(block) for block in BLOCKS]))
        assert np.abs(operator.eigenvalues().whole() - union).max() < 1e-13 * 12
        assert sum(comm.allgather(len(operator.blocks))) == len(BLOCKS)


def test_blocks_that_are_components(comm):
    H = scipy.linalg.block_diag(*BLOCKS)
    order = np.random.default_rng(7).permutation(len(H))
    H = H[np.ix_(order, order)]
    layout = sh.Layout.from_size(len(H), comm)
    rows, cols = np.nonzero(own(layout, H))
    every = (
        np.concatenate([rows, np.arange(layout.n_local)]),
        np.concatenate([cols, np.zeros(layout.n_local, int)]),
    )
    data = np.concatenate([own(layout, H)[rows, cols], np.zeros(layout.n_local)])
    local = sp.csr_matrix((data, every), (layout.n_local, len(H)))  # stored zeros connect nothing
    csr = (local.indptr.astype(PETSc.IntType), local.indices.astype(PETSc.IntType), local.data)
    mat = PETSc.Mat().createAIJ(((layout.n_local, len(H)),) * 2, csr=csr, comm=comm)
    with BlockDiagonal.from_components(mat) as operator:
        sizes = sizes_of(operator)
        assert sizes == sorted(map(len, BLOCKS))
        agrees(operator, H)
        with operator.function(np.square) as squared:
            assert np.abs(dense(squared) - H @ H).max() < 1e-12 * np.linalg.norm(H @ H)
    mat.destroy()


def test_a_chain_through_all_ranks_and_many_singles(comm):
    n = 300
    links = np.ones(n - 1)
    links[:100], links[200] = 0, 0
    H = sp.diags([links, np.arange(n) % 5, links], [-1, 0, 1]).tocsr()
    order = np.random.default_rng(8).permutation(n)
    H = H[order][:, order]
    with weighted_sum([(1.0, H)], comm=comm) as stored, BlockDiagonal.from_components(stored) as operator:
        sizes = sizes_of(operator)
        assert sizes == [1] * 100 + [99, 101]
        assert np.abs(operator.eigenvalues().whole() - np.linalg.eigvalsh(H.toarray())).max() < 1e-13
    with weighted_sum([(1.0, sp.identity(n))], comm=comm) as stored, BlockDiagonal.from_components(stored) as many:
        counts = comm.allgather(len(many.blocks))
        assert max(counts) - min(counts) <= 1  # dealt evenly though no rank has the list


def test_blocks_are_dealt_by_their_cost():
    target, load = deal_few(np.array([8.0, 1.0, 7.0, 1.0, 1.0, 6.0]), 3)
    assert load.tolist() == [8.0, 8.0, 8.0] and len(set(target[[0, 2, 5]])) == 3


# --- combinations ----------------------------------------------------------------------


def aij(H, comm):
    return weighted_sum([(1.0, sp.csr_matrix(H))], comm=comm)


def low_rank(n, comm, seed=3):
    layout, rng = sh.Layout.from_size(n, comm), np.random.default_rng(seed)
    d, U = rng.uniform(1, 2, n), rng.normal(size=(n, 2))
    return LowRankDiagonal(own(layout, d), own(layout, U), comm=comm), np.diag(d) + U @ U.T


def test_sharing_and_sub_blocks(comm):
    n = 26
    H = symmetric(n, 13)
    shell, of_shell = low_rank(n, comm)
    labels = np.random.default_rng(0).integers(-1, 6, n)
    T = (labels[:, None] == np.arange(6)).astype(float)
    chosen = np.array([3, 17, 22, 5, 9, 24])[comm.rank :: comm.size]
    with aij(H, comm) as stored:
        for operator, exact in ((stored, H), (shell, of_shell)):
            layout = operator.layout
            shared = sharing(own(layout, labels), layout, 6)
            with congruence(operator, shared) as tied:
                agrees(tied, T.T @ exact @ T, solves=1e-10, exact=operator is stored)
            shared.destroy()
            sub, order = selection(chosen, layout), np.concatenate(comm.allgather(chosen))
            with congruence(operator, sub) as block:
                agrees(block, exact[np.ix_(order, order)], solves=1e-10, exact=operator is stored)
                assert block.diagonal_is_exact
            sub.destroy()
        with congruence(stored, sp.csr_matrix(T)) as tied:  # a SciPy matrix does as well
            assert np.abs(dense(tied) - T.T @ H @ T).max() < 1e-13 * np.linalg.norm(H)
            stored.mat.scale(2.0)
            tied.update()
            assert np.abs(dense(tied) - 2 * T.T @ H @ T).max() < 1e-13 * np.linalg.norm(H)
    shell.close()


def test_mass_weighting_and_projection(comm):
    n = 21
    operator, H = low_rank(n, comm)
    mass = np.linspace(1, 4, n)
    modes = np.random.default_rng(1).normal(size=(4, n))
    modes[3] = modes[0] - 2 * modes[1]
    Q = np.linalg.qr(modes[:3].T)[0]
    P = np.eye(n) - Q @ Q.T
    weighting = scaling(own(operator.layout, mass) ** -0.5, operator.layout)
    with congruence(operator, weighting) as weighted:
        agrees(weighted, H / np.sqrt(np.outer(mass, mass)), solves=1e-10, exact=False)
    weighting.destroy()
    with projection(modes, operator.layout) as projector, congruence(operator, projector) as projected:
        agrees(projected, P @ H @ P, solves=1e-10, exact=False)
    operator.close()


def test_adapters(comm):
    out, into, rank = 6, 5, 2
    rng = np.random.default_rng(14)
    A, B = rng.normal(size=(rank, into)), rng.normal(size=(out, rank))
    J = np.hstack([np.kron(np.eye(out), A.T), np.kron(B, np.eye(into))])
    H = Kronecker((positive(out, 1), positive(into, 2)), comm=comm)
    with H, lora(A, B, comm=comm) as T, congruence(H, T) as adapted:
        # Four eigenvalues are zero at the least: a change of basis between the factors changes nothing.
        agrees(adapted, J.T @ dense(H) @ J, solves=1e-10, exact=False)


def test_the_diagonal_of_a_large_congruence_is_an_estimate(comm):
    n = 90
    operator, H = low_rank(n, comm)
    with projection(np.ones((1, n)), operator.layout) as P, congruence(operator, P) as projected:
        centred = np.eye(n) - np.ones((n, n)) / n
        exact = np.diag(centred @ H @ centred)
        assert not projected.diagonal_is_exact
        error = whole(operator.layout, projected.diagonal()) - exact
        assert 0 < np.linalg.norm(error) < 3 * np.linalg.norm(H) / np.sqrt(64)
    operator.close()


def test_sums(comm):
    n = 28
    S, d = laplacian(4, 7)[0], np.linspace(1, 2, n)
    shell, H = low_rank(n, comm)
    with weighted_sum([(2.0, S), (-0.5, sp.diags(d))], shift=0.3, comm=comm) as stored:
        expected = 2 * S.toarray() - 0.5 * np.diag(d) + 0.3 * np.eye(n)
        agrees(stored, expected, shift=3.0)
        stored.update()
        assert np.abs(dense(stored) - expected).max() < 1e-14
        with weighted_sum([(1.0, stored), (0.5, shell)], shift=0.1) as mixed:
            agrees(mixed, expected + 0.5 * H + 0.1 * np.eye(n), shift=3.0, solves=1e-10, exact=False)
    shell.close()


def test_sums_of_one_kind_stay_of_that_kind(comm):
    first, H = low_rank(28, comm)
    second, G = low_rank(28, comm, seed=5)
    K = Kronecker((positive(4, 1), positive(7, 2)), comm=comm)
    blocks = BlockDiagonal(BLOCKS, comm=comm)
    corrected = K.function(np.sqrt)
    cases = [
        ([(0.5, first), (0.5, second)], LowRankDiagonal, 0.5 * (H + G)),
        ([(3.0, K)], Kronecker, 3 * dense(K)),
        ([(3.0, blocks)], BlockDiagonal, 3 * dense(blocks)),
        ([(3.0, corrected), (1.0, corrected)], EigenCorrected, 4 * dense(corrected)),
    ]
    for items, kind, expected in cases:
        with weighted_sum(items, shift=0.2) as combined:
            assert type(combined) is kind
            agrees(combined, expected + 0.2 * np.eye(len(expected)))
    for operator in (first, second, K, blocks, corrected):
        operator.close()


def test_a_function_that_refuses_a_value_of_one_rank_does_so_on_all(comm):
    blocks = [np.eye(2), np.eye(3), np.eye(2), -np.eye(1)]
    with BlockDiagonal(blocks, comm=comm) as operator:
        with pytest.raises(InputError, match="positive definite"):
            sh.trace(operator, "logdet")
        assert sh.trace(operator, "identity").trace == pytest.approx(6.0)


def test_direct_sums(comm):
    low, H = low_rank(20, comm)
    K = Kronecker((positive(3, 1), positive(4, 2)), comm=comm)
    with DirectSum([low, K]) as network:
        # Rows are in the order of the ranks, and within one in that of the parts.
        rows = [np.arange(low.layout.start, low.layout.stop), 20 + np.arange(K.layout.start, K.layout.stop)]
        order = np.concatenate(comm.allgather(np.concatenate(rows)))
        agrees(network, scipy.linalg.block_diag(H, dense(K))[np.ix_(order, order)])
        with pytest.raises(InputError, match="not all eigenvalues are known of LowRankDiagonal"):
            network.eigenvalues()
    for operator in (low, K):
        operator.close()


def test_what_a_structure_does_not_tell_is_refused(comm):
    K = Kronecker((positive(3, 1), positive(4, 2)), comm=comm)
    with K, weighted_sum([(1.0, K), (2.0, sp.identity(12))]) as mixed, DirectSum([K, mixed]) as both:
        assert K.knows_eigenvalues and K.knows_counts
        for operator in (mixed, both):
            assert not operator.knows_eigenvalues and not operator.knows_counts
            for ask, *given in (
                (operator.eigenvalues,),
                (operator.spectrum, 2),
                (operator.inertia,),
                (operator.count, 0.0),
            ):
                with pytest.raises(InputError, match="WeightedSum"):
                    ask(*given)
        for power in (0.5, np.exp):
            with pytest.raises(InputError, match="eigenvectors of a WeightedSum are not known"):
                funm(both, power)
        with sh.eigs(both, 2) as found:
            assert found.eigenvalues[0] == pytest.approx(K.spectrum(1)[0])


# --- functions -------------------------------------------------------------------------


def power(H, exponent):
    values, Q = np.linalg.eigh(H)
    return (Q * values**exponent) @ Q.T


def test_fractional_powers_of_structures(comm):
    layout = sh.Layout.from_size(18, comm)
    U = np.random.default_rng(1).normal(size=(18, 3))
    K = Kronecker((positive(3, 1), positive(5, 2)), comm=comm)
    low = LowRankDiagonal(0.5, own(layout, U), comm=comm)
    blocks = BlockDiagonal([positive(m, m) for m in (4, 9, 1)], comm=comm)
    kinds = [
        (K, EigenCorrected),
        (low, LowRankDiagonal),
        (blocks, BlockDiagonal),
        (DirectSum([K, low]), DirectSum),
    ]
    for operator, kind in kinds:
        H = dense(operator)
        for exponent in (-0.25, -0.5, 0.75, 2, -1):
            with funm(operator, exponent) as result:
                assert type(result) is kind
                expected = power(H, exponent)
                assert np.abs(dense(result) - expected).max() < 1e-12 * np.linalg.norm(expected, 2)
                assert power_residual(operator, result, exponent) < 1e-14
        with funm(operator, np.exp) as result:
            assert np.abs(dense(result) - scipy.linalg.expm(H)).max() < 1e-12 * np.linalg.norm(
                scipy.linalg.expm(H)
            )
    with funm(blocks, -0.25, method="newton") as result, funm(blocks.mat, -0.25) as by_components:
        expected = power(dense(blocks), -0.25)
        for found in (result, by_components):
            assert np.abs(dense(found) - expected).max() < 1e-12 * np.linalg.norm(expected, 2)
    kinds[-1][0].close()
    for operator in (K, low, blocks):
        operator.close()


@pytest.mark.parametrize("condition", [1.0, 1e3, 1e8])
def test_the_newton_iteration_converges(condition, comm):
    Q = np.linalg.qr(np.random.default_rng(2).normal(size=(25, 25)))[0]
    values = 40 * np.geomspace(1 / condition, 1, 25)
    H = (Q * values) @ Q.T
    for p in (1, 2, 3, 4, 8):
        expected = (Q * values ** (-1 / p)) @ Q.T
        found, residual = inverse_root(H, p)
        assert residual < 1e-14
        assert np.abs(found - expected).max() < 1e-14 * condition * np.linalg.norm(expected, 2) + 1e-13
    for exponent in (-0.75, 1.5):
        for method in ("eigen", "newton"):
            found = funm(H, exponent, method=method, comm=comm)
            expected = (Q * values**exponent) @ Q.T
            assert np.abs(found - expected).max() < 1e-14 * condition * np.linalg.norm(expected, 2) + 1e-11


def test_powers_that_do_not_exist(comm):
    indefinite = symmetric(5, 1)
    for method in ("eigen", "newton"):
        with pytest.raises(InputError, match="add to"):
            funm(indefinite, -0.25, method=method, comm=comm)
    with Kronecker((indefinite, np.eye(2)), comm=comm) as K:
        with pytest.raises(InputError, match="not defined"):
            funm(K, -0.5)
        with pytest.raises(InputError, match="for dense matrices"):
            funm(K, -0.5, method="newton")
        T = lora(np.ones((1, 2)), np.ones((5, 1)), comm=comm)
        with T, congruence(K, T) as shell, pytest.raises(InputError, match="not known"):
            funm(shell, -0.5)


# --- use and misuse --------------------------------------------------------------------


def test_preconditioners(comm):
    """Conjugate gradients and LOBPCG with a structured neighbour of the matrix, in a few steps."""
    K, exact = laplacian(12, 10)
    layout = sh.Layout.from_size(120, comm, block=10)
    local = (K + sp.diags(0.01 * np.cos(np.arange(120)))).tocsr()[layout.start : layout.stop]
    csr = (local.indptr.astype(PETSc.IntType), local.indices.astype(PETSc.IntType), local.data)
    mat = PETSc.Mat().createAIJ(((layout.n_local, 120),) * 2, csr=csr, comm=comm)
    terms = [(laplacian(12)[0], sp.identity(10)), (sp.identity(12), laplacian(10)[0])]
    with Kronecker(terms, comm=comm) as near:
        pc = near.preconditioner(0.001)
        ksp = PETSc.KSP().create(comm)
        ksp.setOperators(mat)
        ksp.setType("cg")
        ksp.setPC(pc)
        ksp.setTolerances(rtol=1e-10)
        b, x = mat.createVecLeft(), mat.createVecRight()
        b.setArray(own(layout, np.ones(120)))
        ksp.solve(b, x)
        assert ksp.getConvergedReason() > 0 and ksp.getIterationNumber() <= 12
        eps = SLEPc.EPS().create(comm)
        eps.setOperators(mat)
        eps.setProblemType(SLEPc.EPS.ProblemType.HEP)
        eps.setType("lobpcg")
        eps.setWhichEigenpairs(SLEPc.EPS.Which.SMALLEST_REAL)
        eps.setDimensions(3)
        eps.setTolerances(1e-8, 100)
        inner = eps.getST()
        inner.setType("precond")
        inner.getKSP().setType("preonly")
        inner.getKSP().setPC(pc)
        eps.solve()
        assert eps.getConverged() >= 3 and eps.getIterationNumber() <= 40
        assert abs(eps.getEigenvalue(0).real - exact[0]) < 0.01
        for item in (eps, ksp, pc, b, x, mat):
            item.destroy()


def test_singular_matrices_say_so(comm):
    layout, many = sh.Layout.from_size(10, comm), sh.Layout.from_size(80, comm)
    ones = np.ones((layout.n_local, 1))
    singular = [
        LowRankDiagonal(0.0, ones, comm=comm),
        LowRankDiagonal(own(layout, np.minimum(np.arange(10) // 3, 1)), ones, comm=comm),
        LowRankDiagonal(own(many, np.maximum(np.arange(80.0) - 50, 0)), np.ones((many.n_local, 1)), comm=comm),
        Kronecker((np.ones((5, 5)), np.eye(2)), comm=comm),
        BlockDiagonal([np.eye(5), np.ones((5, 5))], comm=comm),
        weighted_sum([(1.0, sp.csr_matrix(np.ones((10, 10))))], comm=comm),
    ]
    for operator in singular:
        with operator:
            right = np.ones(operator.layout.n_local)
            with pytest.raises(InputError, match="singular"):
                operator.solve(right)
            assert operator.logdet() == -np.inf
            damped = operator.solve(right, 0.5)
            assert np.abs(operator.product(damped) + 0.5 * damped - 1.0).max(initial=0.0) < 1e-12


def test_an_estimated_diagonal_is_not_called_exact(comm):
    n = 70
    K, _ = laplacian(n)
    pattern = sh.Pattern.from_scipy(K, comm=comm)
    for known, exact in ((pattern, True), (None, False)):
        objective = sh.Objective(x=np.zeros(n), gradient=lambda x: K @ x, pattern=known, comm=comm)
        layout = sh.Layout.from_size(n, comm)
        T = selection(np.arange(layout.start, layout.stop), layout)
        with sh.MatrixFree(objective) as free, congruence(free, T) as chosen, weighted_sum([(2.0, free)]) as twice:
            assert chosen.diagonal_is_exact is twice.diagonal_is_exact is free.diagonal_is_exact is exact
            near = np.allclose(chosen.diagonal(), own(layout, K.diagonal()), atol=1e-6)
            assert exact == (comm.allreduce(int(near)) == comm.size)
        T.destroy()


def test_misuse_says_what_is_wrong(comm):
    layout = sh.Layout.from_size(6, comm)
    rows = layout.n_local
    wrong = [
        (lambda: LowRankDiagonal(1.0, np.ones(rows), comm=comm), "must be"),
        (lambda: LowRankDiagonal(1.0, np.ones((rows, 2)), np.array([[0, 1], [0, 0]]), comm=comm), "symmetric"),
        (lambda: LowRankDiagonal(1.0, np.full((rows, 2), np.nan), comm=comm), "finite"),
        (lambda: Kronecker([(np.eye(2), np.eye(3)), (np.eye(3), np.eye(2))], comm=comm), "same sizes"),
        (lambda: Kronecker((np.ones((2, 3)), np.eye(2)), comm=comm), "square"),
        (lambda: BlockDiagonal([np.eye(2), np.array([[0, 1], [0, 0]])], comm=comm), "block 1 is not symmetric"),
        (lambda: EigenCorrected(np.ones((2, 2)), np.eye(3), np.ones(rows), comm=comm), "not orthogonal"),
        (lambda: nearest_kronecker(np.eye(6), 2, 4, comm=comm), "2·4"),
        (lambda: weighted_sum([], comm=comm), "at least"),
        (lambda: congruence(sp.identity(6), sp.identity(5), comm=comm), "does not fit"),
        (lambda: sharing(np.full(rows, 9), layout, 3), "from -1 to 2"),
        (lambda: selection([7], layout), "from 0 to 5"),
        (lambda: lbfgs(np.ones((rows, 1)), np.ones((rows, 1)), -1.0, comm=comm), "positive"),
        (lambda: sr1(np.ones((rows, 3)), np.ones((rows, 2)), comm=comm), "must be .n_local, m. both"),
        (lambda: funm(np.eye(3), np.exp, method="newton", comm=comm), "give a number"),
        (lambda: funm(np.eye(3), 0.5, method="schur", comm=comm), "neither"),
        (lambda: funm(np.eye(3), np.nan, comm=comm), "must be finite"),
        (lambda: funm(1j * np.eye(3), 0.5, comm=comm), "the matrix must be real"),
        (lambda: BlockDiagonal([1j * np.eye(2)], comm=comm), "block 0 must be real"),
        (lambda: BlockDiagonal([np.zeros((2, 2))], comm=comm).function(lambda x: 1 / x), "not finite at the"),
        (lambda: BlockDiagonal([np.eye(2)], comm=comm).spectrum(-1), "k=-1"),
        (lambda: BlockDiagonal([np.eye(6)], comm=comm).solve(np.ones(rows), np.nan), "shift nan"),
        (lambda: LowRankDiagonal(1.0, np.ones((rows, 1)), comm=comm).compress(rank=0.5), "rank=0.5"),
        (lambda: Kronecker((sp.identity(2) * 1j, np.eye(3)), comm=comm), "factors must be real"),
        (lambda: Kronecker((np.eye(2), np.eye(3)), comm=comm).function(lambda x: 1.0), "as many"),
        (lambda: LowRankDiagonal(1j, np.ones((rows, 1)), comm=comm), "D must be real"),
        (lambda: weighted_sum([np.eye(2)], comm=comm), "pairs"),
        (lambda: weighted_sum([("heavy", np.eye(2))], comm=comm), "weights must be real"),
        (lambda: sharing(np.zeros(rows, int), layout, 0), "from -1 to -1"),
        (lambda: nearest_kronecker(np.eye(6), 2, 3, 1.5, comm=comm), "terms=1.5"),
    ]
    for make, says in wrong:
        with pytest.raises(InputError, match=says):
            make()
    with Kronecker((np.eye(2), np.eye(3)), comm=comm) as K:
        with pytest.raises(InputError, match="rows of this rank"):
            K.solve(np.ones(rows + 1))
        with pytest.raises(InputError, match="none of"):
            K.spectrum(2, "middle")
        with pytest.raises(InputError, match="must be assembled"):
            BlockDiagonal.from_components(K)


def test_ranks_that_bring_different_numbers_of_steps(comm):
    S = np.ones((2, 1 + comm.rank))
    if comm.size == 1:
        with sr1(S, 3 * S, comm=comm) as found:
            assert found.spectrum(2) == pytest.approx([1, 3])
        return
    for make in (sr1, lbfgs):
        with pytest.raises(InputError, match="as many steps on every rank"):
            make(S, S, comm=comm)


def test_iterations_that_fail_say_so(comm):
    values = np.geomspace(1e-14, 1, 30)
    Q = np.linalg.qr(np.random.default_rng(0).normal(size=(30, 30)))[0]
    stored = aij((Q * values) @ Q.T, comm)
    P = projection(np.ones((1, 30)), stored.layout)
    singular = congruence(stored, P)
    with stored, P, singular, pytest.raises(NotConverged, match="MINRES"):
        singular.solve(np.ones(stored.layout.n_local))  # not in its range


def test_a_power_that_is_wrong_is_found(comm, monkeypatch):
    monkeypatch.setattr(
        "sparsehess.operators.matrix_functions.power_of", lambda values, power: values**power * 1.0001
    )
    with pytest.raises(CheckError, match="multiplied out"):
        funm(positive(6), -0.25, comm=comm)
    with Kronecker((positive(3), positive(2)), comm=comm) as K, pytest.raises(CheckError, match="multiplied out"):
        funm(K, -0.25)
