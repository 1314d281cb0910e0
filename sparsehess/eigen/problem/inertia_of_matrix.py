"""The inertia of one assembled matrix, relative to the size of its rows, by LDLᵀ."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sparsehess.eigen.problem.equilibration import add_to_diagonal
from sparsehess.eigen.problem.factorization import FACTORIZATION, Pivots
from sparsehess.runtime import PETSc, destroy, inserted_options, readable_errors

# A matrix is singular where a change of its rows by this part makes it so.
ROUNDING = 1e3 * float(np.finfo(float).eps)

_PREFIX = "sparsehess_inertia_"


class Signs(NamedTuple):
    """How many eigenvalues of a matrix are negative, zero and positive to the accuracy of its rows."""

    negative: int
    zero: int
    positive: int


def signs_of(matrix: PETSc.Mat, rows: np.ndarray, relative: float = ROUNDING) -> Signs:
    """Return the inertia of a matrix; what a small change of its rows can make singular counts as zero.

    Collective. Two factorizations, of A + t W and A - t W: eigenvalues of (A, W) within ±t are zero. The matrix is
    as it was afterwards.

    Parameters
    ----------
    matrix
        Symmetric, assembled.
    rows
        (n_local,) W: sums of the absolute values of the rows; those that are 0 are taken for 1.
    relative
        t.
    """
    shift = np.where(rows > 0, rows, 1.0) * relative
    shifted = matrix.duplicate(copy=True)
    try:
        add_to_diagonal(shifted, shift)
        upper = pivots_of(shifted)
        add_to_diagonal(shifted, -2.0 * shift)
        lower = pivots_of(shifted)
    finally:
        destroy(shifted)
    return Signs(upper.negative, lower.negative - upper.negative, matrix.getSize()[0] - lower.negative)


def pivots_of(matrix: PETSc.Mat) -> Pivots:
    """Return how many pivots of an assembled symmetric matrix are negative, zero and positive. Collective."""
    ksp = PETSc.KSP().create(matrix.comm)
    try:
        ksp.setOptionsPrefix(_PREFIX)
        ksp.setOperators(matrix)
        ksp.setType("preonly")
        ksp.setErrorIfNotConverged(True)  # else a factorization that failed has pivots all the same
        with inserted_options(_PREFIX, FACTORIZATION.options), readable_errors("counting by a factorization"):
            ksp.setFromOptions()
            ksp.setUp()
        return FACTORIZATION.pivots(ksp.getPC().getFactorMatrix())
    finally:
        destroy(ksp)
