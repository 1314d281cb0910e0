"""Spectra followed along a path: guesses, recycled preconditioners, modes matched by overlap."""

from petsc4py import PETSc

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.optimize import minimize

import lennard_jones
import sparsehess as sh
from sparsehess.errors import InputError
from support.cases import lapack, laplacian, prescribed

pytestmark = pytest.mark.parallel([1, 2])


class Counted:
    """A matrix that counts its products."""

    def __init__(self, matrix):
        self.matrix, self.products = matrix, 0

    def mult(self, mat, x, y):
        self.products += 1
        self.matrix.mult(x, y)

    def getDiagonal(self, mat, d):  # the name is PETSc's
        self.matrix.getDiagonal(d)


def counted(matrix):
    context = Counted(matrix)
    mat = PETSc.Mat().createPython(matrix.getSizes(), context, comm=matrix.comm)
    mat.setUp()
    return mat, context


def relaxation(steps):
    """Positions of a free argon cluster on its way to its minimum."""
    every = lennard_jones.fcc(6, 1.56)
    centre = every[np.linalg.norm(every - every.mean(axis=0), axis=1).argmin()]
    start = every[np.linalg.norm(every - centre, axis=1) <= 3.0]
    pairs = np.stack(np.triu_indices(len(start), 1), axis=1)
    forces = lennard_jones.PairForces(pairs, len(start))
    x = start.ravel() * 1.03 + 0.02 * np.random.default_rng(0).standard_normal(start.size)
    path = []
    minimize(
        forces.energy_and_gradient, x, jac=True, method="L-BFGS-B", callback=lambda x: path.append(x.copy()),
        options={"maxiter": 60, "gtol": 1e-9, "ftol": 0.0},
    )  # fmt: skip
    chosen = np.linspace(0, len(path) - 1, steps).astype(int)
    return [path[i].reshape(-1, 3) for i in chosen], lambda: lennard_jones.PairForces(pairs, len(start))


@pytest.mark.slow
def test_recycling_along_a_relaxation_saves_products(comm):
    """Twenty steps: with the last vectors and the factors of the first Hessian, against cold starts."""
    path, forces = relaxation(20)
    translations = np.tile(np.eye(3), len(path[0]))
    cold = warm = 0
    first = before = None
    for positions in path:
        objective = lennard_jones.objective(positions, forces(), "cluster", translations, (), comm)
        with sh.assemble(objective, verify=False) as hessian:
            if first is None:
                first = hessian.mat.copy()
                warm += hessian.coloring.count  # its cost: two gradients for each colour, as for a product
            mat, context = counted(hessian.mat)
            with sh.eigs(mat, 8, nullspace=translations) as spectrum:
                exact = spectrum.eigenvalues
                cold += context.products
            context.products = 0
            after = sh.eigs(mat, 8, nullspace=translations, guess=before, preconditioner=first)
            assert after.method == "gd" and after.eigenvalues == pytest.approx(exact, abs=1e-7)
            warm += context.products
            if before is not None:
                before.close()
            before = after
            mat.destroy()
            objective.pattern.free()
    before.close()
    first.destroy()
    assert warm < 0.6 * cold


@pytest.mark.parametrize("method", ["krylovschur", "lobpcg", "gd", "jd"])
def test_a_good_guess_saves_products(method, comm):
    K, _ = laplacian(13, 17)
    near = (K + sp.diags(1e-4 * np.sin(np.arange(K.shape[0])))).tocsr()
    exact = lapack(near)
    with sh.EigenProblem.of(near, comm=comm) as problem, sh.eigs(K, 5, comm=comm) as known:
        spent = []
        for guess in (None, known):
            mat, context = counted(problem.A)
            with sh.eigs(mat, 5, method=method, guess=guess, count="no") as spectrum:
                assert spectrum.eigenvalues == pytest.approx(exact[:5], abs=1e-9)
            spent.append(context.products)
            mat.destroy()
    assert spent[1] < spent[0]


def test_feast_starts_from_a_guess(comm):
    K, exact = laplacian(13, 17)
    low, high = 0.5 * (exact[4] + exact[5]), 0.5 * (exact[16] + exact[17])
    with sh.eigs(K, interval=(low, high), comm=comm) as known:
        again = {"interval": (low, high), "method": "feast", "comm": comm}
        with sh.eigs(K, **again) as cold, sh.eigs(K, guess=known, **again) as warm:
            assert warm.eigenvalues == pytest.approx(exact[5:17]) and warm.iterations < cold.iterations


def test_a_matrix_near_the_hessian_preconditions(comm):
    """Indefinite, with a mass, and where only the preconditioner is assembled."""
    exact = np.sort(np.concatenate([-np.geomspace(0.1, 4, 9), np.geomspace(0.2, 9, 120)]))
    K = prescribed(exact, 2)
    M = sp.diags(np.linspace(1, 2, 129)).tocsr()
    near = (K + 0.01 * sp.diags(np.sin(np.arange(129)))).tocsr()
    with sh.EigenProblem.of(K, comm=comm) as problem:
        mat, _ = counted(problem.A)
        for method in ("lobpcg", "gd", "jd"):
            with sh.eigs(mat, 4, mass=M, method=method, preconditioner=near) as spectrum:
                assert spectrum.eigenvalues == pytest.approx(lapack(K, M)[:4], abs=1e-8)
        mat.destroy()


def test_a_preconditioner_may_have_no_diagonal(comm):
    K = sp.diags([np.ones(19)] * 2, [-1, 1]).tocsr()
    with sh.eigs(K, 2, method="gd", preconditioner=K, comm=comm) as spectrum:
        assert spectrum.eigenvalues == pytest.approx(lapack(K)[:2], abs=1e-8)


def test_modes_are_matched_by_overlap(comm):
    """Two levels cross; one of three leaves what is computed."""
    V = np.linalg.qr(np.random.default_rng(1).standard_normal((40, 40)))[0]
    levels = np.arange(1.0, 41.0)
    moved = levels.copy()
    moved[[1, 2]] = 3.2, 1.9  # cross
    moved[3] = 50.0
    with (
        sh.eigs(V @ np.diag(levels) @ V.T, 4, comm=comm) as before,
        sh.eigs(V @ np.diag(moved) @ V.T, 4, comm=comm) as after,
    ):
        found = sh.match_modes(before, after)
        assert found.before.tolist() == [0, 2, 1, -1]
        assert found.overlaps[:3] == pytest.approx(1.0) and found.overlaps[3] < 1e-6
        assert sh.match_modes(before.vectors, before).before.tolist() == [0, 1, 2, 3]
    with (
        sh.eigs(laplacian(5)[0], 2, comm=comm) as other,
        sh.eigs(laplacian(6)[0], 2, comm=comm) as bigger,
        pytest.raises(InputError, match="sizes"),
    ):
        sh.match_modes(other, bigger)


def test_what_takes_no_guess_says_so(comm):
    K = laplacian(6, 6)[0]
    start = np.ones((1, 36))
    for arguments in (
        {"k": 3, "method": "dense"},
        {"interval": (0.0, 1.0)},
        {"interval": (0.0, 1.0), "method": "ciss"},
    ):
        with pytest.raises(InputError, match="a guess is for"):
            sh.eigs(K, guess=start, comm=comm, **arguments)
    with pytest.raises(InputError, match="takes no preconditioner"):
        sh.eigs(K, 3, method="krylovschur", preconditioner=K, comm=comm)
    with pytest.raises(InputError, match="vectors to start from must be"):
        sh.eigs(K, 3, guess=np.ones((1, 35)), comm=comm)
