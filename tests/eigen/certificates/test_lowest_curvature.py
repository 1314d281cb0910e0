"""The sign of the lowest curvature, its direction, and the condition number."""

from petsc4py import PETSc

import numpy as np
import pytest
import scipy.sparse as sp

import sparsehess as sh
from sparsehess.eigen.certificates.lowest_curvature import condition_number
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.errors import InputError
from support.cases import free_chain, laplacian, prescribed

pytestmark = pytest.mark.parallel([1, 2])


class Counted:
    def __init__(self, matrix):
        self.matrix, self.products = matrix, 0

    def mult(self, mat, x, y):
        self.products += 1
        self.matrix.mult(x, y)


SPECTRA = {
    "minimum": (np.geomspace(1e-2, 5, 120), 1),
    "saddle": (np.concatenate([[-0.5], np.linspace(0.1, 5, 119)]), -1),
    "barely": (np.concatenate([[-1e-5], np.linspace(1e-3, 5, 119)]), -1),
}


@pytest.mark.parametrize("name", SPECTRA)
def test_signs_of_matrices_and_shells(name, comm):
    exact, sign = SPECTRA[name]
    K = prescribed(np.sort(exact), 5)
    with sh.EigenProblem.of(K, comm=comm) as problem:
        found = sh.curvature(problem)
        assert (found.sign, found.certified) == (sign, True) and found.value == pytest.approx(
            exact.min(), abs=1e-12
        )
        assert problem.n == 120 and condition_number(problem) == pytest.approx(
            np.abs(exact).max() / np.abs(exact).min()
        )
        found.direction.destroy()
        mat = PETSc.Mat().createPython(problem.A.getSizes(), Counted(problem.A), comm=comm)
        mat.setUp()
        found = sh.curvature(mat)
        assert (found.sign, found.certified) == (sign, True)  # so few rows are made whole, and counted
        image = found.direction.duplicate()
        problem.A.mult(found.direction, image)
        assert found.direction.dot(image) == pytest.approx(
            found.value
        ) and found.direction.norm() == pytest.approx(1)
        found.direction.destroy()
        image.destroy()
        with sh.EigenProblem.of(mat) as shell:
            assert condition_number(shell) == pytest.approx(np.abs(exact).max() / np.abs(exact).min(), rel=1e-6)
        mat.destroy()


def test_a_clear_sign_takes_fewer_products(comm, monkeypatch):
    """In large shells; here none counts as small."""
    for module in ("certificates.lowest_curvature", "solvers.method_choice"):
        monkeypatch.setattr(f"sparsehess.eigen.{module}.is_cheaper_whole", lambda *_: False)
    spent = []
    for lowest in (-4.0, -1e-5):
        K = prescribed(np.concatenate([[lowest], np.geomspace(1e-3, 5, 299)]), 5)
        with sh.EigenProblem.of(K, comm=comm) as problem:
            context = Counted(problem.A)
            mat = PETSc.Mat().createPython(problem.A.getSizes(), context, comm=comm)
            mat.setUp()
            found = sh.curvature(mat)
            assert found.sign == -1
            spent.append(context.products)
            found.direction.destroy()
            if lowest == -4.0:
                with sh.EigenProblem.of(mat) as shell, pytest.raises(InputError, match="indefinite"):
                    condition_number(shell)
            mat.destroy()
    assert spent[0] < 0.5 * spent[1]


def test_null_vectors_are_left_out_and_masses_are_minded(comm):
    K, exact = free_chain(50)
    found = sh.curvature(K, nullspace=np.ones((1, 50)), comm=comm)
    assert found.sign == 1 and found.value == pytest.approx(exact[1])
    found.direction.destroy()
    found = sh.curvature(K, comm=comm)
    assert found.sign == 0
    found.direction.destroy()
    K, exact = laplacian(6, 7)
    found = sh.curvature(K, mass=2.0 * sp.identity(42, format="csr"), comm=comm)
    assert found.value == pytest.approx(exact[0] / 2)
    found.direction.destroy()


def test_nothing_but_zeros_has_an_infinite_condition_number(comm):
    with EigenProblem.of(sp.csr_matrix(0 * sp.identity(9)), comm=comm) as problem:
        assert condition_number(problem) == np.inf
