"""Mass matrices that are not diagonal: their products, solves, and scaled form."""

from __future__ import annotations

from mpi4py import MPI

import numpy as np

from sparsehess.eigen.problem.block_products import BlockProduct
from sparsehess.eigen.problem.pencil import dense_block
from sparsehess.errors import InputError
from sparsehess.pattern import Layout
from sparsehess.runtime import PETSc, destroy, has_package, inserted_options, readable_errors

PREFIX = "sparsehess_mass_"

# From this size on conjugate gradients solve: scaled by their diagonal, mass matrices need some 30 steps.
_LARGE = 50_000

_DIRECT = {"ksp_type": "preonly", "pc_type": "cholesky", "pc_factor_mat_solver_type": "mumps"}
_RTOL = 1e-13
_ITERATIVE = {"ksp_type": "cg", "pc_type": "jacobi", "ksp_rtol": _RTOL, "ksp_max_it": 1000}

_EPS = float(np.finfo(float).eps)


def lone_diagonal(M: PETSc.Mat, comm: MPI.Comm) -> np.ndarray | None:
    """Return the local diagonal of a matrix that has nothing else, else None.

    Collective. Positive where the matrix is positive definite, which is checked.
    """
    indptr, indices, values = M.getValuesCSR()
    row = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr)) + M.getOwnershipRange()[0]
    beside = bool((values[indices != row] != 0).any())
    if any(comm.allgather(beside)):
        return None
    vector = M.getDiagonal()
    diagonal = vector.getArray(readonly=True).copy()
    destroy(vector)
    return diagonal


class MassSolver:
    """Products and solves with blocks for a sparse positive definite M; `close()` destroys what it made.

    Collective to make and to use. By a Cholesky factorization of MUMPS, or, for large matrices and where there is
    no MUMPS, by conjugate gradients with Jacobi's preconditioner. PETSc options under `sparsehess_mass_` override
    this.

    Attributes
    ----------
    noise
        Relative error of a solve.
    """

    def __init__(self, M: PETSc.Mat, layout: Layout):
        self.M, self.layout, self._product = M, layout, BlockProduct(M, layout)
        direct = layout.n < _LARGE and has_package("mumps")
        self.noise = 1e2 * _EPS if direct else _RTOL
        vector = M.getDiagonal()
        self.diagonal = vector.getArray(readonly=True).copy()
        destroy(vector)
        self._ksp = PETSc.KSP().create(layout.comm)
        self._ksp.setOptionsPrefix(PREFIX)
        self._ksp.setOperators(M)
        options = _DIRECT if direct else _ITERATIVE
        given = PETSc.Options(PREFIX)
        options = {key: value for key, value in options.items() if not given.hasName(key)}
        with inserted_options(PREFIX, options), readable_errors("factorizing the mass matrix"):
            self._ksp.setFromOptions()
            self._ksp.setUp()

    def product(self, X: np.ndarray) -> np.ndarray:
        """Return M X.

        Collective.
        """
        return self._product(X).copy(order="F")

    def solve(self, Y: np.ndarray) -> np.ndarray:
        """Return M⁻¹ Y.

        Collective.
        """
        X = np.zeros(Y.shape, order="F")
        if self._ksp.getType() == "preonly" and self._ksp.getPC().getType() in ("cholesky", "lu"):
            if Y.shape[1]:
                right, left = dense_block(self.layout, Y), dense_block(self.layout, X)
                self._ksp.getPC().getFactorMatrix().matSolve(right, left)
                X = left.getDenseArray().copy(order="F")
                destroy(left, right)
            return X
        x, b = self.M.createVecs()
        for column in range(Y.shape[1]):
            b.setArray(Y[:, column])
            self._ksp.solve(b, x)
            X[:, column] = x.getArray(readonly=True)
            reason = self._ksp.getConvergedReason()
            if reason < 0:
                destroy(x, b)
                raise InputError(
                    f"solving with the mass matrix failed after {self._ksp.getIterationNumber()} steps of "
                    f"conjugate gradients (PETSc's reason {reason}): is it positive definite?"
                )
        destroy(x, b)
        return X

    def scaled(self) -> ScaledMass:
        """Return D^(-1/2) M D^(-1/2), D the diagonal of M.

        Not collective.
        """
        return ScaledMass(self)

    def close(self) -> None:
        """Destroy the solver.

        Collective.
        """
        destroy(self._ksp)
        self._product.close()


class ScaledMass:
    """A mass matrix scaled to a diagonal of ones, as an operator of `lanczos`. Collective to use."""

    plain = True

    def __init__(self, solver: MassSolver):
        self.layout, self.comm = solver.layout, solver.layout.comm
        self.total, self.noise = solver.layout.n, _EPS
        self.scale = 1 / np.sqrt(solver.diagonal)
        self._solver = solver

    def apply(self, X: np.ndarray) -> np.ndarray:
        """Return the product with a block.

        Collective.
        """
        image = self._solver.product(np.asfortranarray(X * self.scale[:, None]))
        image *= self.scale[:, None]
        return image

    def dual(self, X: np.ndarray) -> np.ndarray:
        """Return X: the inner product is the ordinary one.

        Not collective.
        """
        return X
