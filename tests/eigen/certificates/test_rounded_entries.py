"""What few digits of entries leave of eigenvalues: a bound that holds, and not by far too much."""

import numpy as np
import pytest
import scipy.sparse as sp

import cantilever
import sparsehess as sh
from sparsehess.eigen.certificates.rounded_entries import bound_by_digits
from sparsehess.storage.decimal_digits import FULL, Rounding
from support.cases import lapack

pytestmark = pytest.mark.parallel([1, 2, 3])


def rounded(matrix, relative, seed):
    """Return a symmetric matrix whose entries are off by up to a part of them."""
    upper = sp.triu(matrix).tocsr()
    upper.data *= 1 + relative * np.random.default_rng(seed).uniform(-1, 1, upper.nnz)
    return (upper + sp.triu(upper, 1).T).tocsr()


@pytest.mark.parametrize("relative", [5e-5, 5e-8])
def test_no_rounding_moves_an_eigenvalue_by_more(relative, comm):
    K, M = cantilever.matrices(cells=4)
    exact = lapack(K, M)[:6]
    digits = Rounding(5, relative)
    with sh.EigenProblem.of(K, mass=M, comm=comm) as problem, sh.eigs(K, 6, mass=M, comm=comm) as found:
        bound = bound_by_digits(problem, found.eigenvalues, found.vectors, digits, digits)
        only_k = bound_by_digits(problem, found.eigenvalues, found.vectors, digits, FULL)
    worst = np.zeros(6)
    for seed in range(20):
        moved = lapack(rounded(K, relative, seed), rounded(M, relative, 100 + seed))[:6]
        worst = np.maximum(worst, np.abs(moved - exact))
    assert (worst <= bound * (1 + 10 * bound / exact)).all()
    assert (bound <= 3e3 * worst).all() and (only_k < bound).all()


def test_equal_eigenvalues_are_taken_together(comm):
    """Entries of 1 beside entries of the rounding: the pair at 2 splits by it, whichever vectors were found."""
    H = sp.block_diag([sp.csr_matrix(np.full((4, 4), 0.1) + 1.9 * np.eye(4)), sp.identity(3) * 7]).tocsr()
    absolute = Rounding(3, absolute=5e-4)
    with sh.EigenProblem.of(H, comm=comm) as problem, sh.eigs(H, 3, comm=comm) as found:
        bound = bound_by_digits(problem, found.eigenvalues, found.vectors, absolute, FULL)
        assert bound_by_digits(problem, np.empty(0), [], absolute, FULL).shape == (0,)
    rng, worst = np.random.default_rng(0), 0.0
    for _ in range(50):
        noise = rng.uniform(-5e-4, 5e-4, (4, 4))
        moved = np.linalg.eigvalsh(H[:4, :4].toarray() + np.tril(noise) + np.tril(noise, -1).T)[:3]
        worst = max(worst, np.abs(moved - 1.9).max())
    assert (bound >= worst).all() and (bound <= 4 * 5e-4 * 3).all()
