"""Patterns that move with x: never wrong, and seldom made anew."""

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.spatial import cKDTree

import sparsehess as sh
from sparsehess.errors import InputError
from support.cases import frobenius_error

pytestmark = pytest.mark.parallel([1, 2])

REACH = 1.5


class Soft:
    """Points that repel each other smoothly within a reach: E = Σ (1 - r²/R²)⁴ over pairs."""

    def __init__(self, comm, dofs):
        self.comm, self.dofs = comm, dofs

    def pairs(self, x, margin):
        return cKDTree(x.reshape(-1, 3)).query_pairs(REACH + margin, output_type="ndarray")

    def pattern(self, x, margin):
        pairs = self.pairs(x, margin)
        if self.dofs == 3:
            return sh.Pattern.from_edges(pairs, len(x) // 3, dofs=3, comm=self.comm)
        lists = [np.concatenate([3 * pairs[:, :1] + np.arange(3), 3 * pairs[:, 1:] + np.arange(3)], axis=1)]
        alone = 3 * np.arange(len(x) // 3)[:, None] + np.arange(3)
        lists.append(np.concatenate([alone, alone], axis=1))
        return sh.Pattern.from_elements(np.concatenate(lists), len(x), comm=self.comm)

    def gradient(self, x):
        i, j = self.pairs(x.real, 0.0).T
        points = x.reshape(-1, 3)
        bond = points[i] - points[j]
        push = (-8 / REACH**2 * (1 - (bond**2).sum(axis=1) / REACH**2) ** 3)[:, None] * bond
        total = np.zeros_like(points)
        np.add.at(total, i, push)
        np.subtract.at(total, j, push)
        return total.ravel()

    def exact(self, x):
        h = 1e-30
        return sp.csr_matrix(np.array([self.gradient(x + 1j * h * e).imag / h for e in np.eye(len(x))]))


@pytest.mark.parametrize("dofs", [1, 3])
def test_a_hessian_follows_moving_points(dofs, comm):
    rng = np.random.default_rng(0)
    x = (np.indices((4, 4, 3)).reshape(3, -1).T + 0.2 * rng.normal(size=(48, 3))).ravel()
    velocity = 0.03 * rng.normal(size=len(x))
    soft = Soft(comm, dofs)
    following = sh.Following(soft.pattern, skin=0.5)
    objective = sh.Objective(x=x, gradient=soft.gradient, pattern=following, typical_x=1.0, comm=comm)
    steps = 12
    with sh.assemble(objective, order="smallest-last") as hessian:
        handles = {hessian.mat.handle}
        for step in range(1, steps + 1):
            at = x + step * velocity
            hessian.update(at)
            handles.add(hessian.mat.handle)
            assert frobenius_error(hessian.mat, soft.exact(at), comm) < 1e-7
            assert hessian.verification.passed
        assert hessian.repaired == 0
        assert 1 < following.built < steps
        assert 1 <= hessian.rebuilds < following.built + 1
        for _ in range(3):  # back and forth within the skin nothing is made anew
            before = following.built, hessian.rebuilds
            hessian.update(at + 0.05 * np.sign(velocity))
            hessian.update(at)
            assert (following.built, hessian.rebuilds) == before


def test_few_obsolete_entries_are_kept(comm):
    def build(x, margin):
        reach = int(x[0])
        rows = np.repeat(np.arange(40), reach)
        return sh.Pattern.from_pairs(rows, (rows + np.tile(np.arange(1, reach + 1), 40)) % 40, 40, comm=comm)

    following = sh.Following(build, skin=0.1, dimensions=1)
    wide = following.at(np.full(40, 6.0))
    assert following.at(np.full(40, 5.0)) is wide  # a sixth is obsolete
    assert following.at(np.full(40, 2.0)).nnz == 40 * 5
    assert following.built == 3
    with pytest.raises(InputError, match="must be positive"):
        sh.Following(build, skin=0.0)
