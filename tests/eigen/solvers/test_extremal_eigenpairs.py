"""Pairs that a solver misses are found again, or said to be missing."""

import pytest

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
