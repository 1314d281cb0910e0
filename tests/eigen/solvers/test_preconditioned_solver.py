"""LOBPCG and Davidson against closed forms and dense LAPACK, on any number of ranks."""

from petsc4py import PETSc

import numpy as np
import pytest
import scipy.sparse as sp

import sparsehess as sh
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.problem.rayleigh_ritz import rayleigh_ritz
from sparsehess.eigen.problem.rigid_body_modes import rigid_body_modes
from sparsehess.eigen.solvers.lobpcg import Lobpcg
from sparsehess.errors import EvaluationError, InputError
from sparsehess.runtime import destroy
from support.cases import free_chain, lapack, laplacian, reference, stored
from support.elastic_block import brick
from support.preconditioned import METHODS, TOL, Shell, given, near, solved

pytestmark = pytest.mark.parallel([1, 2, 3])


@pytest.mark.thorough
@pytest.mark.parametrize("which", ["smallest", "largest"])
@pytest.mark.parametrize("shell", [False, True], ids=["assembled", "shell"])
@pytest.mark.parametrize("mass", [False, True], ids=["standard", "mass"])
@pytest.mark.parametrize("method", METHODS)
def test_laplacian(method, mass, shell, which, comm):
    K, exact = laplacian(7, 8, 9)
    M = None
    if mass:
        M = sp.diags(1 + 0.5 * np.sin(np.arange(K.shape[0])))
        exact = lapack(K, M)
    with given(K, M, comm=comm, shell=shell) as problem:
        values, _ = solved(problem, method, which, 6)
    near(values, exact[:6] if which == "smallest" else exact[-6:])


@pytest.mark.parametrize("method", METHODS)
def test_multiplicities_of_a_cube(method, comm):
    K, exact = laplacian(9, 9, 9)  # threefold at 2, 5, 8
    with given(K, comm=comm) as problem:
        values, _ = solved(problem, method, "smallest", 10)
    near(values, exact[:10])


@pytest.mark.thorough
def test_more_pairs_than_the_block_has_vectors(comm):
    K, exact = laplacian(40, 11)
    with given(K, comm=comm) as problem:
        values, _ = solved(problem, "lobpcg", "smallest", 20, options={"eps_lobpcg_blocksize": 12})
    near(values, exact[:20])


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["ccx_beam8f", "hb_lund", "nafems_fv52_p2"])
def test_real_matrices(name, comm):
    K, M = stored(name)
    exact = reference(name)
    with given(K, M, comm=comm) as problem:
        values, _ = solved(problem, "lobpcg", "smallest", 5)
    near(values, exact[:5])


@pytest.mark.thorough
@pytest.mark.parametrize("method", METHODS)
def test_a_shell_without_a_diagonal(method, comm):
    K, exact = laplacian(11, 12)
    with given(K, comm=comm, shell=True, diagonal=False) as problem:
        solver = METHODS[method](problem, method, {}, tol=TOL)
        near(solved(problem, method, "smallest", 3)[0], exact[:3])
        solver.close()


@pytest.mark.thorough
@pytest.mark.parametrize("shell", [False, True], ids=["assembled", "shell"])
@pytest.mark.parametrize("method", METHODS)
def test_the_null_vector_of_a_chain_is_deflated(method, shell, comm):
    K, exact = free_chain(150)
    with given(K, comm=comm, null=np.ones((1, 150)), shell=shell) as problem:
        values, _ = solved(problem, method, "smallest", 4)
    near(values, exact[1:5])


@pytest.mark.parametrize("method", METHODS)
def test_a_free_body(method, comm):
    K, M, x = brick((3, 3, 4), clamped=False)
    modes, names = rigid_body_modes(x)
    assert len(names) == 6 and np.abs(K @ modes.T).max() < 1e-12
    exact = lapack(K, M)
    with given(K, M, comm=comm, null=modes) as problem:
        values, _ = solved(problem, method, "smallest", 6)
    near(values, exact[6:12])


@pytest.mark.thorough
def test_a_null_space_that_nobody_told(comm):
    K, M, _ = brick((3, 3, 4), clamped=False)
    exact = lapack(K, M)
    with given(K, M, comm=comm) as problem:
        values, _ = solved(problem, "lobpcg", "smallest", 8)
    near(values, exact[:8])


@pytest.mark.thorough
@pytest.mark.parametrize("method", METHODS)
def test_deflated_pairs_stay_away(method, comm):
    K, exact = laplacian(8, 9, 10)
    with given(K, comm=comm) as problem:
        solver = METHODS[method](problem, method, {}, tol=TOL)
        first = solver.solve("smallest", 4)
        values, first, *_ = rayleigh_ritz(problem, first)
        more, _ = solved(problem, method, "smallest", 3, deflate=first)
        near(more, exact[len(values) : len(values) + 3])
        destroy(*first)
        solver.close()


@pytest.mark.thorough
@pytest.mark.parametrize("below", [1, 5, 40])
def test_negative_eigenvalues(below, comm):
    K, exact = laplacian(9, 10, 11)
    shift = (exact[below - 1] + exact[below]) / 2
    with given(K - shift * sp.identity(K.shape[0]), comm=comm) as problem:
        values, _ = solved(problem, "lobpcg", "smallest", 5)
    near(values, exact[:5] - shift)


@pytest.mark.thorough
@pytest.mark.parametrize("method", METHODS)
def test_a_warm_start_takes_fewer_iterations(method, comm):
    K, M, _ = brick((4, 4, 5))
    with given(K, M, comm=comm) as problem, given(K + 1e-4 * M, M, comm=comm) as changed:
        solver = METHODS[method](problem, method, {}, tol=TOL)
        guess = solver.solve("smallest", 5)
        solver.close()
        cold, many = solved(changed, method, "smallest", 5)
        warm, few = solved(changed, method, "smallest", 5, guess=guess)
        destroy(*guess)
    near(warm, cold)
    assert few < 0.8 * many


class Breaks(Shell):
    """Gives what is no number on the last rank, after some that are right."""

    calls = 0

    def mult(self, mat, x, y):
        super().mult(mat, x, y)
        self.calls += 1
        if self.calls > 40 and mat.comm.rank == mat.comm.size - 1:
            y.setArray(np.full(y.getLocalSize(), np.nan))


def test_products_that_are_no_numbers_end_all_ranks(comm):
    K, _ = laplacian(7, 8)
    with given(K, comm=comm) as assembled:
        mat = PETSc.Mat().createPython(assembled.A.getSizes(), Breaks(assembled.A), comm=comm)
        mat.setUp()
        with EigenProblem.of(mat) as problem:
            solver = Lobpcg(problem, "lobpcg", {}, tol=TOL)
            with pytest.raises(EvaluationError, match="not finite"):
                solver.solve("smallest", 3)
            solver.close()
        mat.destroy()


@pytest.mark.thorough
@pytest.mark.parametrize("method", METHODS)
def test_refusals(method, comm):
    K, _ = laplacian(7, 8)
    massless = np.ones(56)
    massless[3] = 0
    with given(K, massless, comm=comm) as problem, pytest.raises(InputError, match="krylovschur"):
        METHODS[method](problem, method, {}, tol=TOL)
    with given(K, comm=comm) as problem:
        solver = METHODS[method](problem, method, {"eps_no_such": 1}, tol=TOL)
        with pytest.raises(InputError, match="-eps_no_such"):
            solver.solve("smallest", 2)
        with pytest.raises(InputError, match="nearest"):
            solver.solve("nearest", 2)
        solver.close()


def test_options_of_the_caller_are_used(comm):
    K, exact = laplacian(9, 10)
    with given(K, comm=comm) as problem:
        options = {"st_pc_type": "jacobi", "eps_lobpcg_blocksize": 9}
        values, _ = solved(problem, "lobpcg", "smallest", 4, options=options)
        solver = Lobpcg(problem, "lobpcg", options, tol=TOL)
        assert solver.used_defaults()["st_pc_type"] == "jacobi"
        solver.close()
    near(values, exact[:4])


@pytest.mark.parametrize("method", METHODS)
def test_guesses_that_fill_a_block_leave_no_random_vectors(method, comm):
    """Multigrid then begins with nothing, on coarse levels that some ranks have no rows of too."""
    matrix, exact = laplacian(19, 23)
    guess = np.linalg.eigh(matrix.toarray())[1][:, :40].T + 1e-3
    with sh.eigs(matrix, 8, method=method, guess=guess, comm=comm) as spectrum:
        assert spectrum.eigenvalues == pytest.approx(exact[:8], rel=1e-10)
        assert spectrum.count.certified
