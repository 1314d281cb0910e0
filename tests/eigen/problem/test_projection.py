"""Directions that are projected out whatever a Hessian says of them, against LAPACK; any number of ranks."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.linalg

import sparsehess as sh
from sparsehess.errors import CheckError, EvaluationError, InputError
from sparsehess.runtime import PETSc

pytestmark = pytest.mark.parallel([1, 2, 3])


class Net:
    """Masses on a strip of springs of one length, which is not that of the strip: forces are left."""

    def __init__(self, nodes, comm, length=0.9):
        self.x = np.stack([np.arange(nodes), 0.3 * np.arange(nodes) % 1.0, 0.05 * np.arange(nodes) ** 0.5], axis=1)
        self.bars = np.array([[i, j] for i in range(nodes) for j in (i + 1, i + 2, i + 3) if j < nodes])
        self.length, self.comm, self.masses = length, comm, 1.0 + np.arange(nodes) % 3

    def gradient(self, x):
        x, g = x.reshape(-1, 3), np.zeros((len(self.x), 3))
        ways = x[self.bars[:, 1]] - x[self.bars[:, 0]]
        sizes = np.linalg.norm(ways, axis=1, keepdims=True)
        pull = (sizes - self.length) * ways / sizes
        np.add.at(g, self.bars[:, 1], pull)
        np.add.at(g, self.bars[:, 0], -pull)
        return g.ravel()

    def hessian(self, x):
        x, H = x.reshape(-1, 3), np.zeros((x.size, x.size))
        for i, j in self.bars:
            way = x[j] - x[i]
            size = np.linalg.norm(way)
            along = np.outer(way, way) / size**2
            block = along + (1 - self.length / size) * (np.eye(3) - along)
            for a, b, sign in ((i, i, 1), (j, j, 1), (i, j, -1), (j, i, -1)):
                H[3 * a : 3 * a + 3, 3 * b : 3 * b + 3] += sign * block
        return H

    def rigid(self, x):
        return sh.rigid_body_modes(x.reshape(-1, 3))

    def objective(self, **more):
        pattern = sh.Pattern.from_edges(self.bars, len(self.x), dofs=3, comm=self.comm)
        known = {"projected": self.rigid, "mass": np.repeat(self.masses, 3), **more}
        return sh.Objective(x=self.x.ravel(), gradient=self.gradient, pattern=pattern, comm=self.comm, **known)

    def truth(self, x):
        """Return the eigenvalues on the complement, those on the rigid motions, and all of the Hessian."""
        roots = np.repeat(self.masses, 3) ** 0.5
        H = self.hessian(x) / np.outer(roots, roots)
        N = scipy.linalg.orth(roots[:, None] * self.rigid(x)[0].T)
        Z = scipy.linalg.null_space(N.T)
        return np.linalg.eigvalsh(Z.T @ H @ Z), np.linalg.eigvalsh(N.T @ H @ N), np.linalg.eigvalsh(H)


def test_pairs_counts_and_what_has_changed(comm):
    net = Net(12, comm)
    objective = net.objective()
    exact, rigid, raw = net.truth(objective.x)
    assert abs(rigid).max() > 1e-2  # not at rest
    with sh.assemble(objective) as hessian:
        with sh.eigs(hessian, 30) as found:
            assert found.eigenvalues == pytest.approx(exact, abs=1e-7)
            assert found.count.certified and found.count.inertia == 36
            change = found.projection
            assert change.whole and change.resisted == pytest.approx(rigid, abs=1e-7)
            moved = found.eigenvalues + change.moved
            assert np.abs(moved[:, None] - raw).min(axis=1).max() < 1e-7
            for value, coupled in zip(found.eigenvalues, change.coupled, strict=True):  # Krylov and Weinstein
                assert np.abs(raw - value).min() <= coupled + 1e-7
            assert sh.certify(hessian, found).passed
        signs = sh.inertia(hessian)
        assert signs.certified
        assert (signs.negative, signs.zero, signs.positive) == (np.sum(exact < 0), 6, np.sum(exact > 0))
        assert sh.trace(hessian).trace == pytest.approx(exact.sum(), abs=1e-6)
        with pytest.raises(CheckError, match="projected=…"):
            sh.eigs(hessian, 3, nullspace=net.rigid(objective.x)[0])
        with sh.eigs(hessian, 36, nullspace=[]) as found:
            assert found.eigenvalues == pytest.approx(raw, abs=1e-7) and found.projection is None


def test_a_long_strip_is_counted_by_the_bordered_matrix(comm):
    net = Net(300, comm)
    objective = net.objective()
    exact, rigid, _ = net.truth(objective.x)
    with sh.assemble(objective) as hessian:
        with sh.eigs(hessian, 8, method="krylovschur") as found:
            assert found.eigenvalues == pytest.approx(exact[:8], abs=1e-7)
            assert found.count.certified and not found.projection.whole
            assert found.projection.resisted == pytest.approx(rigid, abs=1e-7)
        middle = exact[100:110]
        ends = (0.5 * (exact[99] + middle[0]), 0.5 * (middle[-1] + exact[110]))
        with sh.eigs(hessian, interval=ends) as found:
            assert found.eigenvalues == pytest.approx(middle, abs=1e-7) and found.count.certified
        signs = sh.inertia(hessian, zero=1e-5)
        below = np.sum(exact < -1e-5)
        assert (signs.negative, signs.zero) == (below, 6 + np.sum(exact < 1e-5) - below)


def test_directions_are_those_of_where_the_hessian_was_taken(comm):
    net = Net(8, comm)
    objective = net.objective()
    there = objective.x + 0.2 * np.sin(np.arange(objective.n))
    exact = net.truth(there)[0]
    with sh.assemble(objective) as hessian:
        hessian.update(there)
        with sh.eigs(hessian, len(exact)) as found:
            assert found.eigenvalues == pytest.approx(exact, abs=1e-7)
    moved = replace(objective, x=there)
    assert np.allclose(moved.null_vectors, net.rigid(there)[0])
    with sh.MatrixFree(objective, there) as shell, sh.eigs(shell, 3) as found:
        assert found.eigenvalues == pytest.approx(exact[:3], abs=1e-5)
        assert found.projection.resisted == pytest.approx(net.truth(there)[1], abs=1e-5)


def test_where_they_span_all_there_is_an_ordinary_empty_answer(comm):
    net = Net(1, comm)
    objective = sh.Objective(
        x=net.x.ravel(),
        gradient=lambda x: 2 * x,
        pattern=sh.Pattern.from_edges(np.zeros((0, 2), int), 1, dofs=3, comm=comm),
        projected=net.rigid,
        comm=comm,
    )
    with sh.assemble(objective) as hessian:
        for more in ({}, {"which": "negative"}, {"interval": (-1.0, 1.0)}, {"target": 0.0}):
            with sh.eigs(hessian, **more) as found:
                assert found.converged == found.asked == 0 and found.count.certified
                assert found.projection.resisted == pytest.approx([2.0, 2.0, 2.0])
    with sh.eigs(np.zeros((2, 2)), nullspace=np.eye(2), comm=comm) as found:
        assert found.converged == 0 and found.count.inertia == 2


def test_what_cannot_be_projected_out_is_refused(comm):
    net = Net(4, comm)
    names = ("one",)
    for projected, kind, says in (
        (lambda x: (np.zeros((1, 12)), names), CheckError, "direction 0 that is to be projected out is zero"),
        (lambda x: (np.full((1, 12), np.nan), names), InputError, "finite"),
    ):
        with sh.assemble(net.objective(projected=projected)) as hessian, pytest.raises(kind, match=says):
            sh.eigs(hessian, 2)
    for projected, kind, says in (
        (
            lambda x: (np.ones((1, 5)), names),
            InputError,
            r"must return \(m, 12\) directions and m names, not \(1, 5\)",
        ),
        (lambda x: (np.ones((2, 12)), names), InputError, r"not \(2, 12\) and 1"),
        (lambda x: np.ones((1, 12)), InputError, "directions and m names"),
        (lambda x: None, InputError, "directions and m names"),
        (lambda x: (x / x[:5], names), EvaluationError, "projected of objective raised ValueError"),
    ):
        with pytest.raises(kind, match=says):
            net.objective(projected=projected)
    assert net.objective(projected=lambda x: ([], [])).null_vectors is None
    with pytest.raises(InputError, match="projected must be a function, not ndarray"):
        net.objective(projected=np.ones((1, 12)))
    x = PETSc.Vec().createMPI(4, comm=comm)
    with pytest.raises(InputError, match="an x that is an array"):
        sh.Objective(x=x, gradient=lambda x, g: g.set(0), projected=net.rigid)
    x.destroy()
