"""Problems for the preconditioned solvers."""

import contextlib

from petsc4py import PETSc

import numpy as np

from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.problem.rayleigh_ritz import rayleigh_ritz
from sparsehess.eigen.solvers.davidson import Davidson
from sparsehess.eigen.solvers.lobpcg import Lobpcg
from sparsehess.runtime import destroy

METHODS = {"lobpcg": Lobpcg, "gd": Davidson, "jd": Davidson}
TOL = 1e-8


class Shell:
    """Products with an assembled matrix, and its diagonal if that is to be had."""

    def __init__(self, inner, diagonal=True):
        self.inner = inner
        if diagonal:
            self.getDiagonal = lambda mat, d: inner.getDiagonal(d)

    def mult(self, mat, x, y):
        self.inner.mult(x, y)

    def norm(self, mat, kind):
        return self.inner.norm(kind)


@contextlib.contextmanager
def given(K, M=None, *, comm, shell=False, diagonal=True, null=None):
    with EigenProblem.of(K, mass=M, comm=comm, nullspace=null) as assembled:
        if not shell:
            yield assembled
            return
        mat = PETSc.Mat().createPython(assembled.A.getSizes(), Shell(assembled.A, diagonal), comm=comm)
        mat.setUp()
        with EigenProblem.of(mat, mass=assembled.M, nullspace=assembled.null) as problem:
            yield problem
        mat.destroy()


def solved(problem, method, which, k, *, options=None, **more):
    """Return eigenvalues and iterations, after checks of what came."""
    solver = METHODS[method](problem, method, options or {}, tol=TOL)
    try:
        vectors = solver.solve(which, k, **more)
        assert len(vectors) >= k
        values, vectors, errors, orthogonality, *_ = rayleigh_ritz(problem, vectors)
        destroy(*vectors)
        assert errors.max() <= TOL and orthogonality < 1e-10
        assert solver.seconds["solve"] > 0
        return values[:k] if which == "smallest" else values[-k:], solver.iterations
    finally:
        solver.close()


def near(values, exact, within=1e-7):
    assert len(values) == len(exact)
    assert np.abs(values - exact).max() <= within * np.abs(exact).max(), (values, exact)
