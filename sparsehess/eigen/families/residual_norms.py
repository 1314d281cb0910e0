"""Residuals of eigenpairs in the norm that moves eigenvalues: that of the inverse of the mass."""

from __future__ import annotations

from typing import NamedTuple

from mpi4py import MPI

import numpy as np

from sparsehess.eigen.problem.block_vectors import dots
from sparsehess.eigen.problem.equilibration import AbsoluteRows
from sparsehess.eigen.problem.mass_solver import MassSolver, lone_diagonal
from sparsehess.eigen.problem.panel_products import product
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.runtime import PETSc

_EPS = float(np.finfo(float).eps)

# Two eigenvalues closer than this part of their size may be one that was rounded twice.
_ROUNDED = 8.0


def panel_of(vectors: list[PETSc.Vec]) -> np.ndarray:
    """Return vectors as a panel (m, n_local), a copy. Not collective."""
    return np.array([vector.getArray(readonly=True) for vector in vectors])


def images_of(matrix: PETSc.Mat | None, panel: np.ndarray) -> np.ndarray:
    """Return the images of a panel under a matrix, the panel itself under none. Collective."""
    if matrix is None or not len(panel):
        return panel
    multiply = product(matrix)
    try:
        return np.array(multiply(panel))
    finally:
        multiply.close()


class DualNorm:
    """‖r‖ in the norm of M⁻¹: an eigenvalue is as near to a quotient as that of its residual (Parlett 1998, 15.9).

    Collective to make and to use; `close()` frees the solver. A diagonal M divides, another one solves. Of a
    singular M, or where `quick` is asked for, the sums of the rows of |M| stand for it, and rows without mass are
    left out: an estimate, within a factor of two or three for masses of finite elements (Wathen 1987).
    """

    def __init__(self, problem: EigenProblem, quick: bool = False):
        self._comm, self._solver = problem.comm, None
        self._weights = np.ones(problem.layout.n_local)
        if problem.M is None:
            return
        masses = lone_diagonal(problem.M, problem.comm)
        if masses is None and not quick and not problem.massless:
            self._solver = MassSolver(problem.M, problem.layout)
            return
        if masses is None:
            masses = row_sums(problem, problem.M)
        self._weights = np.divide(1.0, masses, out=np.zeros(len(masses)), where=masses > 0)

    def __call__(self, panel: np.ndarray) -> np.ndarray:
        """Return (m,) the norms of a panel (m, n_local). Collective."""
        if self._solver is not None:
            squares = np.einsum(
                "ij,ji->i", panel.conj(), self._solver.solve(np.asfortranarray(panel.T))
            ).real.copy()
        else:
            squares = (np.abs(panel) ** 2) @ self._weights
        self._comm.Allreduce(MPI.IN_PLACE, squares)
        return np.sqrt(np.maximum(squares, 0.0))

    def close(self) -> None:
        """Free what solves. Collective."""
        if self._solver is not None:
            self._solver.close()
            self._solver = None


def row_sums(problem: EigenProblem, matrix: PETSc.Mat) -> np.ndarray:
    """Return (n_local,) the sums of the rows of |A| of an assembled matrix. Collective."""
    rows = AbsoluteRows(matrix, problem.layout)
    try:
        return rows.sums(np.ones(problem.layout.n_local))
    finally:
        rows.close()


class PairErrors(NamedTuple):
    """How far eigenpairs may be off, each (k,).

    Attributes
    ----------
    residual
        Norms of A x - λ M x: over the distance to eigenvalues that were not found they turn a vector out of the
        span of those that were.
    inside
        What is left of the residuals in that span: over the distance to another one that was found it turns a
        vector towards that.
    matrix
        Norms of what the known errors of the entries make of A x.
    rounding
        How far the last digits of the entries may move each eigenvalue.
    """

    residual: np.ndarray
    inside: np.ndarray
    matrix: np.ndarray
    rounding: np.ndarray

    def unsure(self, distance: np.ndarray) -> np.ndarray:
        """Return (k,) what makes an eigenvalue unsure beside others that were found.

        Not collective. To second order in the residual, over the `distance` (k,) to what was not found; to first
        order where that is not known, 0.
        """
        far = self.residual.max(initial=0.0) <= distance
        second = np.divide(
            self.residual * self.residual.max(initial=0.0), distance, out=self.residual.copy(), where=far
        )
        return self.inside + self.matrix + self.rounding + second


def errors_of_pairs(
    problem: EigenProblem, norm: DualNorm, values: np.ndarray, panel: np.ndarray, images: np.ndarray
) -> PairErrors:
    """Return how far eigenpairs may be off.

    Collective. Residuals are computed from the vectors (Davis and Kahan 1970, section 2; Parlett 1998, sections
    11.7 and 15.9).

    Parameters
    ----------
    panel, images
        (k, n_local) M-orthonormal vectors, and M times them.
    """
    residuals = images_of(problem.A, panel) - values[:, None] * images
    projected = np.abs(dots(problem.comm, panel, residuals))
    np.fill_diagonal(projected, 0.0)
    size = np.abs(panel)
    if problem.assembled:
        rows = row_sums(problem, problem.A)
        squares = size**2 @ rows
        problem.comm.Allreduce(MPI.IN_PLACE, squares)
    else:
        rows = np.full(problem.layout.n_local, problem.norms[0])
        squares = np.full(len(values), problem.norms[0])
    matrix = np.zeros(len(values))
    if problem.entry_errors is not None:
        matrix = norm(np.array([problem.entry_errors.of_product(one) for one in size]).reshape(panel.shape))
    elif problem.relative_error > 0:
        matrix = problem.relative_error * norm(rows * size)
    return PairErrors(norm(residuals), np.linalg.norm(projected, axis=1), matrix, _ROUNDED * _EPS * squares)
