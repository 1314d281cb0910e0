"""SR1 and L-BFGS against their updates one after the other, on any number of ranks."""

from petsc4py import PETSc

import numpy as np
import pytest

import sparsehess as sh
from sparsehess.operators.quasi_newton import lbfgs, sr1
from support.dense_answers import agrees, dense, own, positive, symmetric, whole

pytestmark = pytest.mark.parallel([1, 2, 3])


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
