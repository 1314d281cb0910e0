"""Ranks and nullities of network Hessians against closed forms."""

import numpy as np
import pytest

import sparsehess as sh
from sparsehess.networks import (
    SoftmaxCrossEntropy,
    SquaredError,
    shard_samples,
    tanh,
)
from spiral_network import spiral
from support.layered_networks import dense, hessian, layers, thorough

pytestmark = pytest.mark.parallel([1, 2, 3])


def rank_of(H):
    values = np.abs(np.linalg.eigvalsh(H))
    return int((values > 1e-10 * values.max()).sum())


@pytest.mark.parametrize(
    ("widths", "r", "ranks"), [((10, 7, 3), 10, (30, 42, 63)), ((8, 6, 6, 6, 6, 4), 5, (20, 144, 148))]
)
def test_parts_of_deep_linear_networks(widths, r, ranks, comm):
    """Ranks of both parts and of the whole: Singh, Bachmann, Hofmann 2021."""
    network = layers(widths, None, SquaredError(), bias=False)
    rng = np.random.default_rng(2)
    data = {
        "x": rng.normal(size=(40, r)) @ rng.normal(size=(r, widths[0])),
        "t": rng.normal(size=(40, widths[-1])),
    }
    x = np.concatenate([rng.normal(size=a * b) / np.sqrt(b) for a, b in zip(widths[1:], widths[:-1], strict=True)])
    parts = "gauss-newton", "functional", "whole"
    assert tuple(rank_of(hessian(network, x, data, comm, part=part)) for part in parts) == ranks


@pytest.mark.parametrize("case", [((7, 4, 3), 4), *thorough(((6, 5, 4, 3), 6))])
def test_nullity_of_tanh_networks(case, comm):
    """(d + 1 - rank [X 1]) m_1 + m_(L-1) + 1, for a softmax with cross-entropy."""
    widths, r = case
    network = layers(widths, tanh(), SoftmaxCrossEntropy())
    rng = np.random.default_rng(3)
    X = rng.normal(size=(400, r)) @ rng.normal(size=(r, widths[0]))
    data = {"x": X, "t": np.eye(widths[-1])[rng.integers(0, widths[-1], 400)]}
    x = rng.normal(size=network.n)
    nullity = (widths[0] - r) * widths[1] + widths[-2] + 1
    assert np.linalg.matrix_rank(np.c_[X, np.ones(400)]) == r + 1
    with network.hessian(x, shard_samples(data, comm), comm=comm) as H:
        assert network.n - rank_of(dense(H.mat)) == nullity
        found = sh.rank(H.mat, "gap")
        assert found.degeneracy == nullity and found.certified


@pytest.mark.parametrize("samples", [7, *thorough(13)])
def test_rank_of_gauss_newton(samples, comm):
    """min(n, N (C - 1)): of parameters that only N samples of C classes hold."""
    network = layers((5, 6, 4), tanh(), SoftmaxCrossEntropy())
    rng = np.random.default_rng(4)
    data = {"x": rng.normal(size=(samples, 5)), "t": np.eye(4)[rng.integers(0, 4, samples)]}
    H = hessian(network, rng.normal(size=network.n), data, comm, part="gauss-newton")
    assert rank_of(H) == min(network.n, samples * 3)
    assert np.linalg.eigvalsh(H)[0] > -1e-13


def test_network_of_the_driver(comm):
    """Softmax leaves one vector for all classes free: width + 1 zeros and no more at a minimum of noisy data."""
    objective = spiral(comm, width=4, samples=200, steps=60)
    with sh.assemble(objective) as H:
        assert sh.inertia(H, zero=1e-10).zero == 5
        assert np.linalg.norm(dense(H.mat)) > 1
