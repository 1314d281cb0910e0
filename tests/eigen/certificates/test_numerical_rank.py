"""Numerical ranks against closed forms of deep linear networks."""

import numpy as np
import pytest
import scipy.sparse as sp

from sparsehess.eigen.certificates.numerical_rank import rank
from sparsehess.errors import InputError
from support.cases import (
    free_chain,
    prescribed,
)
from support.spectra import shell, thorough, tight_mass

pytestmark = pytest.mark.parallel([1, 2])


def deep_linear(d, hidden, K, r, seed):
    """Return the Hessian of the squared loss of a deep linear network at random weights.

    By the imaginary step on the gradient: Wₗ gets (W_L…W_{l+1})ᵀ (W Σ − C) (W_{l−1}…W₁)ᵀ.
    """
    rng = np.random.default_rng(seed)
    widths = [d, *hidden, K]
    shapes = list(zip(widths[1:], widths[:-1], strict=True))
    ends = np.cumsum([0] + [a * b for a, b in shapes])
    X = rng.normal(size=(d, r)) @ rng.normal(size=(r, 3 * d)) / np.sqrt(r)
    Y = rng.normal(size=(K, 3 * d))
    S, C = X @ X.T / (3 * d), Y @ X.T / (3 * d)

    def gradient(w):
        W = [w[a:b].reshape(shape) for a, b, shape in zip(ends, ends[1:], shapes, strict=False)]
        first = [np.eye(d)]
        for one in W:
            first.append(one @ first[-1])
        rest, parts = first[-1] @ S - C, []
        for one, before in zip(W[::-1], first[-2::-1], strict=True):
            parts.append((rest @ before.T).ravel())
            rest = one.T @ rest
        return np.concatenate(parts[::-1])

    w = np.concatenate([rng.normal(size=a * b) / np.sqrt(b) for a, b in shapes])
    H = np.array([gradient(w + 1e-30j * step).imag / 1e-30 for step in np.eye(len(w))])
    return (H + H.T) / 2


def rank_of_deep_linear(d, hidden, K, r):
    """Singh, Bachmann, Hofmann 2021, "Analytic insights into structure and rank of neural network Hessians"."""
    q = min(r, K, *hidden)
    return 2 * q * sum(hidden) - (len(hidden) + 1) * q**2 + q * (r + K)


SHAPES = [
    (10, (7,), 3, 10),
    (8, (6, 6, 6, 6), 4, 5),
    (16, (8, 8), 10, 12),
    (4, (4,), 4, 4),
    (5, (3,), 4, 5),
    (5, (3,), 4, 2),
    (6, (4, 4), 3, 6),
    (6, (4, 5), 2, 4),
    (7, (5, 3), 6, 7),
    (3, (8,), 2, 3),
    (3, (9, 9), 3, 3),
    (9, (2,), 5, 9),
    (9, (6,), 1, 9),
    (8, (3, 4, 5), 3, 8),
    (8, (5, 4, 3), 4, 6),
    (6, (6, 6), 6, 6),
    (12, (3, 3), 2, 7),
    (5, (5, 5, 5), 5, 3),
    (10, (4,), 4, 1),
    (4, (7, 2), 3, 4),
    (7, (7,), 7, 5),
    (6, (3, 6, 3), 2, 6),
]


@pytest.mark.parametrize("part", [0, *thorough(1)])
def test_ranks_of_deep_linear_networks(part, comm):
    for number, shape in list(enumerate(SHAPES))[part::2]:
        H = deep_linear(*shape, seed=100 + number)
        for threshold in ("gap", 1e-11):
            found = rank(H, threshold, comm=comm)
            assert found.rank == rank_of_deep_linear(*shape), (shape, threshold, found)
            assert found.certified and found.n == len(H) and found.degeneracy == len(H) - found.rank


def test_ranks_and_thresholds(comm):
    values = np.r_[1e-9 * np.linspace(1, 2, 100), np.geomspace(1e-3, 5, 150), -0.5, -1]
    K = prescribed(values)
    found = rank(K, comm=comm)
    assert (found.above, found.below, found.between) == (150, 2, 100) and found.certified
    assert found.threshold == pytest.approx(5e-6, rel=0.02) and found.relative == pytest.approx(1e-6, rel=0.02)
    assert found.share == pytest.approx(100 / 252) and found.stderr == 0 and found.method == "inertia"
    gap = rank(K, "gap", comm=comm)
    assert gap.rank == 152 and gap.certified and 2e-9 < gap.gap[0] < gap.threshold < gap.gap[1] < 1e-3
    none = rank(prescribed(np.linspace(1, 10, 80)), "gap", comm=comm)
    assert none.rank == 80 and none.gap is None and "no gap" in none.why
    half = rank(K, absolute=0.05, comm=comm)
    assert half.rank == int((np.abs(values) > 0.05).sum()) and half.threshold == 0.05 and half.certified
    at = rank(sp.diags(np.r_[np.zeros(9), np.full(9, 1.001e-6), np.ones(20)]).tocsr(), absolute=1e-6, comm=comm)
    assert at.between == 9 and not at.certified and "but" in at.doubt
    for threshold in (None, "gap"):
        guessed = rank(K, threshold, method="density", samples=16, steps=100, comm=comm)
        assert abs(guessed.rank - 152) <= max(4 * guessed.stderr, 1) and not guessed.certified
        assert guessed.above + guessed.below == guessed.rank and guessed.method == "density"
    mat, _ = shell(K, comm)
    assert rank(mat, samples=4, steps=10).method == "density"
    assert rank(mat, method="inertia").rank == rank(K, comm=comm).rank
    mat.destroy()
    large, _ = shell(sp.identity(2500, format="csr"), comm)
    with pytest.raises(InputError, match="factorization"):
        rank(large, method="inertia")
    large.destroy()
    zero = rank(sp.csr_matrix((30, 30)), comm=comm)
    assert zero.rank == 0 and zero.degeneracy == 30


def test_ranks_of_pencils(comm):
    K, _ = free_chain(60)
    light = sp.diags(np.linspace(1, 4, 60)).tocsr()
    assert rank(K, mass=light, comm=comm).degeneracy == 1
    assert rank(K, "gap", mass=tight_mass(60), comm=comm).degeneracy == 1
    assert rank(K, mass=light, nullspace=np.ones((1, 60)), comm=comm).degeneracy == 1
    massless = np.r_[np.ones(50), np.zeros(10)]
    found = rank(K, mass=massless, comm=comm)
    assert (found.rank, found.degeneracy, found.n) == (49, 1, 60) and found.certified
