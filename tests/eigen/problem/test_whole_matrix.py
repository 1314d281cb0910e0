"""Matrices of products alone, made whole: against the matrix itself, and errors of products that stay known."""

import numpy as np
import pytest
import scipy.sparse as sp

import sparsehess as sh
from sparsehess.eigen.problem.whole_matrix import LARGEST, is_cheaper_whole, whole_problem
from sparsehess.errors import CheckError
from support.cases import free_chain, lapack, prescribed
from support.spectra import shell

pytestmark = pytest.mark.parallel([1, 2, 3])


def test_a_shell_is_made_whole_where_products_cost_more():
    assert is_cheaper_whole(300, 300) and not is_cheaper_whole(300, 299)
    assert is_cheaper_whole(LARGEST, np.inf) and not is_cheaper_whole(20_000, np.inf)


@pytest.mark.parametrize("n", [1, 2, 90])
def test_the_whole_matrix_is_that_of_the_shell(n, comm):
    K = prescribed(np.linspace(-1.0, 2.0, n), 3) if n > 1 else sp.csr_matrix([[4.0]])
    mat, context = shell(K, comm)
    with sh.EigenProblem.of(mat) as problem:
        context.products = 0
        with whole_problem(problem) as whole:
            assert whole.assembled and whole.n == n and whole.relative_error < 1e-14
            rows = slice(whole.layout.start, whole.layout.stop)
            _, _, values = whole.A.getValuesCSR()
            assert np.abs(values - K.toarray()[rows][K.toarray()[rows] != 0]).max(initial=0.0) < 1e-14
        assert not problem.assembled  # what was given stays
    mat.destroy()


def test_masses_and_null_vectors_go_along(comm):
    K, exact = free_chain(40)
    mass = np.linspace(1, 2, 40)
    mat, _ = shell(K, comm)
    exact = lapack(K, sp.diags(mass))
    with sh.eigs(mat, 3, mass=mass, nullspace=np.ones((1, 40))) as found:
        assert found.eigenvalues == pytest.approx(exact[1:4], rel=1e-9)
        assert found.count.certified and found.method == "dense"
    for named, expected in (
        ({"target": 1.0, "k": 2}, exact[np.sort(np.argsort(np.abs(exact - 1.0))[:2])]),
        ({"interval": (0.5, 1.5)}, exact[(exact >= 0.5) & (exact <= 1.5)]),
        ({"which": "largest", "k": 2}, exact[-2:]),
    ):
        with sh.eigs(mat, mass=mass, **named) as found:
            assert found.eigenvalues == pytest.approx(expected, rel=1e-9) and found.count.certified
    mat.destroy()


@pytest.mark.parametrize("n", [1, 8])
def test_what_steps_make_of_a_zero_hessian_is_no_sign(n, comm):
    """The Hessian of a quartic is zero at zero; differences give step², which depends on the direction."""
    objective = sh.Objective(x=np.zeros(n), gradient=lambda x: 4 * x**3, comm=comm)
    with sh.MatrixFree(objective) as free:
        assert sh.inertia(free).zero == n
        assert sh.curvature(free).sign == 0


def test_no_sign_is_told_below_the_error_of_the_products(comm):
    K = prescribed(np.r_[-1e-9, 1e-9, np.linspace(1, 2, 58)], 5).astype(np.float32)
    objective = sh.Objective(x=np.zeros(60), hvp=lambda x, v: K @ v, comm=comm)
    with sh.MatrixFree(objective, precision="single") as free:
        found = sh.inertia(free)
        assert (found.negative, found.zero, found.positive) == (0, 2, 58) and found.certified
        asked = sh.inertia(free, zero=1e-12)
        assert not asked.certified and "error of the products" in asked.doubt


def test_negative_eigenvalues_of_a_shell(comm):
    exact = np.r_[-np.geomspace(1e-6, 1.0, 20), np.geomspace(1e-6, 3.0, 100)]
    mat, _ = shell(prescribed(np.sort(exact)), comm)
    found = sh.inertia(mat)
    assert (found.negative, found.zero, found.positive, found.certified) == (20, 0, 100, True)
    with sh.eigs(mat, which="negative") as spectrum:
        assert spectrum.eigenvalues == pytest.approx(np.sort(exact)[:20], abs=1e-13)
        assert spectrum.count.certified
    mat.destroy()


def test_products_that_are_not_finite_are_refused(comm):
    objective = sh.Objective(
        x=np.zeros(30), hvp=lambda x, v: np.where(np.count_nonzero(v) == 1, np.nan, v), comm=comm
    )
    with sh.MatrixFree(objective) as free, pytest.raises(CheckError, match="not finite"):
        sh.inertia(free)
