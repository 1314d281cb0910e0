"""Kronecker sums, nearest ones and corrected eigenvalues against dense matrices, on any number of ranks."""

from petsc4py import PETSc

import numpy as np
import pytest
import scipy.sparse as sp

import sparsehess as sh
from sparsehess.errors import InputError
from sparsehess.operators.direct_sum import DirectSum
from sparsehess.operators.eigen_corrected import EigenCorrected
from sparsehess.operators.kronecker import Kronecker, first_products
from sparsehess.operators.matrix_vectors import Grid
from sparsehess.operators.nearest_kronecker_sum import nearest_kronecker
from support.cases import laplacian
from support.dense_answers import agrees, dense, ends, own, positive, symmetric

pytestmark = pytest.mark.parallel([1, 2, 3])


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
