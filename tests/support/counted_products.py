"""Diagonal shells that count their products, and spectra like those of networks, with copies and clusters."""

from petsc4py import PETSc

import numpy as np


class Counted:
    """A diagonal matrix by its products, which it counts."""

    def __init__(self, values):
        self.values, self.products = values, 0

    def mult(self, mat, x, y):
        self.products += 1
        first, last = x.getOwnershipRange()
        y.setArray(self.values[first:last] * x.getArray(readonly=True))


def diagonal(values, comm):
    context = Counted(np.asarray(values, float))
    mat = PETSc.Mat().createPython((len(values), len(values)), context, comm=comm)
    mat.setUp()
    return mat, context


def bulk(draw, n):
    """Return eigenvalues that crowd at zero, of either sign."""
    return 0.2 * draw.standard_normal(n) * draw.uniform(0, 1, n) ** 4


def far_out(kind, draw):
    """Return a dozen eigenvalues far out, some of them again: twice or thrice, nearly, of either sign."""
    far = np.sort(draw.uniform(1.0, 10.0, 12))[::-1]
    if kind == "twice":
        return np.concatenate([far, far[draw.choice(7, 2, replace=False)]])
    if kind == "thrice":
        return np.concatenate([far, np.repeat(far[draw.integers(0, 7)], 2)])
    if kind == "cluster":
        return np.concatenate([far, far[draw.integers(0, 6)] * (1 + 1e-6 * draw.standard_normal(3))])
    if kind == "signs":
        return np.concatenate([far * draw.choice([-1, 1], 12), -far[:2]])
    return np.concatenate([8 * 2.0 ** -np.arange(14.0), 8 * 2.0 ** -draw.choice(5, 2, replace=False)])


KINDS = ("twice", "thrice", "cluster", "signs", "decay")


def like_a_network(kind, seed, n=2500):
    """Return eigenvalues in random order."""
    draw = np.random.default_rng(seed)
    far = far_out(kind, draw)
    return draw.permutation(np.concatenate([far, bulk(draw, n - len(far))]))


def outermost(values, k, which):
    """Return the k outermost eigenvalues, ascending."""
    keys = {"magnitude": -np.abs(values), "largest": -values, "smallest": values}
    return np.sort(values[np.argsort(keys[which], kind="stable")[:k]])
