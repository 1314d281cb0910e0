"""LAPACK on one rank, for problems of any number of ranks."""

import pytest
import scipy.sparse as sp

from sparsehess.eigen.problem.rayleigh_ritz import rayleigh_ritz
from sparsehess.eigen.solvers.lapack import LapackSolver
from sparsehess.errors import InputError
from sparsehess.runtime import destroy
from support.cases import laplacian, reference, stored
from support.preconditioned import given, near

pytestmark = pytest.mark.parallel([1, 2, 3])


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["hb_bcsst01", "hb_lund"])
@pytest.mark.parametrize("which", ["smallest", "largest"])
def test_dense(name, which, comm):
    K, M = stored(name)
    exact = reference(name)
    with given(K, M, comm=comm) as problem:
        solver = LapackSolver(problem)
        values, vectors, errors, *_ = rayleigh_ritz(problem, solver.solve(which, 8))
        destroy(*vectors)
        solver.close()
    near(values, exact[:8] if which == "smallest" else exact[-8:], 1e-9)
    assert errors.max() < 1e-12


def test_dense_deflates_within_a_cluster(comm):
    K, exact = laplacian(5, 5, 5)
    with given(K, comm=comm, shell=True) as problem:
        solver = LapackSolver(problem, target=6.0)
        first = solver.solve("smallest", 3)  # cuts a threefold eigenvalue
        values, rest, *_ = rayleigh_ritz(problem, solver.solve("smallest", 6, deflate=first))
        near(values, exact[3:9], 1e-10)
        destroy(*first, *rest)
        nearest = solver.solve("nearest", 3)
        assert len(nearest) == 3
        destroy(*nearest)


@pytest.mark.thorough
def test_dense_refuses_what_is_large(comm):
    with given(sp.identity(20_000, format="csr"), comm=comm) as problem, pytest.raises(InputError, match="dense"):
        LapackSolver(problem)
