"""Errors of differences, known within a factor of ten."""

from mpi4py import MPI

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.spatial import cKDTree

import sparsehess as sh
from sparsehess.errors import EvaluationError, InputError
from support.cases import frobenius_error
from support.objectives import SOME, objective
from support.smooth_functions import FUNCTIONS

pytestmark = pytest.mark.parallel([1, 2])


@pytest.mark.parallel([1])
@pytest.mark.parametrize("scheme", ["forward", "central", "extrapolated"])
@pytest.mark.parametrize("noise", [0.0, 1e-12, 1e-8, 1e-5])
@pytest.mark.parametrize(
    "name", ["chained_wood", "broyden_banded", "engval", "noncvxu", "lennard_jones", "neo_hooke"]
)
def test_the_error_is_known_within_a_factor_of_ten(name, noise, scheme, comm):
    function = FUNCTIONS[name](120)
    size = noise * np.sqrt(np.mean(function.gradient(function.x) ** 2))
    rng = np.random.default_rng(7)

    def gradient(x):
        return function.gradient(x) + size * rng.normal(size=len(x))

    given = objective(function, MPI.COMM_SELF, gradient=gradient)
    with sh.assemble(given, derivative=scheme, order="smallest-last") as hessian:
        error = frobenius_error(hessian.mat, function.hessian(function.x), MPI.COMM_SELF)
        assert error / 10 < hessian.error < 10 * error
        assert hessian.evaluations["noise"] <= 8
        assert hessian.evaluations["verification"] == (4 if scheme == "extrapolated" else 2)
        if noise > 1e-12:
            assert np.median(hessian.noise.level) == pytest.approx(size, rel=0.5)


@pytest.mark.parametrize("coloring", ["star", "acyclic", "cpr", "powell-toint"])
@pytest.mark.parametrize("name", ["broyden_banded", "neo_hooke"])
def test_the_error_is_known_for_every_recovery(name, coloring, comm):
    """Noise that is a function of x, so that it does not depend on who evaluates."""
    function = FUNCTIONS[name](120)

    def gradient(x):
        return function.gradient(x) + 1e-7 * np.sin(1e9 * x.sum() + np.arange(len(x)) ** 2)

    given = objective(function, comm, gradient=gradient)
    with sh.assemble(given, coloring=coloring, order="smallest-last") as hessian:
        error = frobenius_error(hessian.mat, function.hessian(function.x), comm)
        assert error / 10 < hessian.error < 10 * error


@pytest.mark.parametrize(
    "name", [*SOME[:2], *(pytest.param(name, marks=pytest.mark.thorough) for name in SOME[2:])]
)
def test_higher_schemes_err_less(name, comm):
    function = FUNCTIONS[name](100)
    exact, errors, gradients = function.hessian(function.x), {}, {}
    for scheme in ("forward", "central", "extrapolated", "complex"):
        with sh.assemble(objective(function, comm), derivative=scheme, order="smallest-last") as hessian:
            errors[scheme] = frobenius_error(hessian.mat, exact, comm)
            gradients[scheme] = hessian.evaluations["gradient"] / hessian.coloring.count
    assert errors["forward"] > errors["central"] > errors["extrapolated"]
    assert errors["complex"] < 1e-13
    assert gradients["central"] == 2 and gradients["extrapolated"] == 4 and gradients["complex"] == 1


@pytest.mark.parametrize("name", ["chained_wood", "lennard_jones"])
def test_an_energy_alone_is_enough(name, comm):
    function = FUNCTIONS[name](40)
    problem = objective(function, comm, gradient=None, energy=function.energy)
    with sh.assemble(problem, order="smallest-last") as hessian:
        error = frobenius_error(hessian.mat, function.hessian(function.x), comm)
        assert error < 1e-5
        n = len(function.x)
        assert hessian.evaluations["gradient"] == 0
        assert hessian.evaluations["energy"] == 2 * n * 2 * hessian.coloring.count
        assert error / 10 < hessian.error < 10 * error


def test_bounds_are_never_crossed(comm):
    """E = Σ x log x - x is no number below zero."""

    def gradient(x):
        assert (x > 0).all() and (x <= 1).all()
        return np.log(x)

    x = np.array([1e-9, 1e-3, 0.5, 1.0, 1.0, 0.3])
    given = {"pattern": sh.Pattern.from_pairs([], [], 6, comm=comm), "bounds": (1e-12, 1.0), "comm": comm}
    for scheme in ("forward", "central", "extrapolated"):
        problem = sh.Objective(x=x, gradient=gradient, typical_x=x, **given)
        with sh.assemble(problem, derivative=scheme) as hessian:
            error = frobenius_error(hessian.mat, sp.diags(1 / x).tocsr(), comm)
            assert error < {"forward": 1e-6, "central": 1e-6, "extrapolated": 1e-7}[scheme]
    with pytest.raises(InputError, match="variable 3 is 1, its bounds are"):
        sh.assemble(sh.Objective(x=x, gradient=gradient, **{**given, "bounds": (0.0, 0.9)}))


def test_complex_steps_need_complex_gradients(comm):
    function = FUNCTIONS["engval"](30)
    real = objective(function, comm, gradient=lambda x: function.gradient(np.real(x)))
    with pytest.raises(EvaluationError, match="complex numbers for a complex x"):
        sh.assemble(real, derivative="complex")


@pytest.mark.parametrize("alone", [1, 4])
def test_atoms_that_nothing_holds_have_rows_of_zeros(alone, comm):
    """Springs at rest: rows of the others have noise, these have no gradient at all."""
    rng = np.random.default_rng(alone)
    points = np.concatenate([rng.uniform(size=(60, 3)), 5.0 + 5.0 * np.arange(alone)[:, None] * np.ones(3)])
    i, j = pairs = cKDTree(points).query_pairs(0.4, output_type="ndarray").T
    rest = points[i] - points[j]

    def gradient(x):
        bonds = x.reshape(-1, 3)[i] - x.reshape(-1, 3)[j]
        length = np.linalg.norm(bonds, axis=1)
        forces = (1.0 - np.linalg.norm(rest, axis=1) / length)[:, None] * bonds
        total = np.zeros_like(points)
        np.add.at(total, i, forces)
        np.add.at(total, j, -forces)
        return total.ravel()

    stretch = np.zeros((len(rest), len(points), 3))
    stretch[np.arange(len(rest)), i] = rest / np.linalg.norm(rest, axis=1)[:, None]
    stretch[np.arange(len(rest)), j] = -stretch[np.arange(len(rest)), i]
    stretch = stretch.reshape(len(rest), -1)
    pattern = sh.Pattern.from_edges(pairs.T, len(points), dofs=3, comm=comm)
    problem = sh.Objective(x=points.ravel(), gradient=gradient, pattern=pattern, comm=comm)
    with sh.assemble(problem) as hessian:
        assert frobenius_error(hessian.mat, sp.csr_matrix(stretch.T @ stretch), comm) < 1e-8
