"""Pairs that a solver misses are found again, or said to be missing."""

import contextlib

import numpy as np
import pytest
import scipy.sparse as sp

import sparsehess as sh
from sparsehess.eigen.solvers.krylov_schur import KrylovSchur
from sparsehess.errors import CheckError
from support.cases import agree, laplacian

pytestmark = [pytest.mark.parallel([1, 2, 4]), pytest.mark.essential]


def forgetful(monkeypatch, times):
    """Make the solver lose its second vector, as often as told."""
    honest, left = KrylovSchur.solve, [times]

    def solve(self, *arguments, **keywords):
        vectors = honest(self, *arguments, **keywords)
        if left[0] > 0 and len(vectors) > 1:
            left[0] -= 1
            vectors.pop(1).destroy()
        return vectors

    monkeypatch.setattr(KrylovSchur, "solve", solve)


def test_a_miss_is_repaired(monkeypatch, comm):
    matrix, exact = laplacian(9, 10, 11)
    forgetful(monkeypatch, 1)
    with sh.eigs(matrix, 8, comm=comm) as spectrum:
        agree(spectrum, exact[:8], exact.max(), comm)
        assert spectrum.count.repairs >= 1


@pytest.mark.parametrize("which", ["largest", "magnitude"])
def test_a_miss_at_the_other_end_is_made_good(which, monkeypatch, comm):
    matrix, exact = laplacian(9, 10)
    forgetful(monkeypatch, 3)  # by products, and from outside of each end
    with sh.eigs(matrix, 6, which=which, comm=comm) as spectrum:
        agree(spectrum, exact[-6:], exact.max(), comm)


def test_a_miss_that_stays_is_said(monkeypatch, comm):
    def solve(self, *arguments, **keywords):
        vectors = honest(self, *arguments, **keywords)
        for vector in vectors[1:2] if not keywords.get("deflate") else vectors:
            vectors.remove(vector)
        return vectors

    honest = KrylovSchur.solve
    monkeypatch.setattr(KrylovSchur, "solve", solve)
    with pytest.raises(CheckError, match="eigenvalues missed: the inertia counts"):
        sh.eigs(laplacian(9, 10)[0], 6, comm=comm)


def test_no_count_says_why(comm):
    with sh.eigs(laplacian(9, 10)[0], 6, count="no", comm=comm) as spectrum:
        assert spectrum.count is None and "asked" in spectrum.uncounted


@pytest.mark.parametrize("kind", ["assembled", "structured", "products"])
def test_a_matrix_of_zeros(kind, comm):
    """Any two vectors are eigenvectors of any end; none of its eigenvalues is negative."""
    A = np.zeros((6, 6))
    made = {
        "assembled": lambda: contextlib.nullcontext(A),
        "structured": lambda: sh.Kronecker((np.zeros((3, 3)), np.eye(2)), comm=comm),
        "products": lambda: sh.from_matvec(lambda v: 0 * v, 6, comm=comm),
    }
    with made[kind]() as H:
        both = {"which": "magnitude"}
        for asked in ({}, {"which": "largest"}, both, {**both, "count": "yes"}, {"target": 0.0}):
            with sh.eigs(H, 2, **asked, comm=comm) as found:
                assert found.eigenvalues.tolist() == [0.0, 0.0] and found.count.certified
        for k in (None, 2):
            if kind == "products":
                continue  # nothing but products tells that there is nothing
            with sh.eigs(H, k, which="negative", comm=comm) as found:
                assert not len(found.eigenvalues) and found.count.certified and not found.advice


def test_a_target_in_a_large_matrix_of_zeros(comm):
    with sh.eigs(sp.csr_matrix((1500, 1500)), 2, target=0.0, comm=comm) as found:
        assert found.eigenvalues.tolist() == [0.0, 0.0] and found.count.certified


def test_a_target_that_is_a_multiple_eigenvalue(comm):
    """Of copies nearer than any other it is enough that none is missing before them."""
    d = np.repeat([1.0, 2.0, 3.0], 30)
    for target in (2.0, 2.0 + 1e-12, 1.5):
        with sh.eigs(sp.diags(d).tocsr(), 3, target=target, comm=comm) as found:
            assert found.count.certified and np.allclose(np.abs(found.eigenvalues - target), abs(2.0 - target))
