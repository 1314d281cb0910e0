"""What the digits that entries were written with leave of eigenvalues: no solver can know them better."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.problem.slepc_blocks import block, gram
from sparsehess.runtime import PETSc, SLEPc, aij, destroy

if TYPE_CHECKING:
    from sparsehess.storage.decimal_digits import Rounding


def bound_by_digits(
    problem: EigenProblem,
    eigenvalues: np.ndarray,
    vectors: list[PETSc.Vec],
    of_a: Rounding,
    of_m: Rounding,
) -> np.ndarray:
    """Return how far the rounding of entries can move each eigenvalue (k,), to first order.

    Collective. With |E| and |F| the most by which entries of A and of M may be off, the eigenvalue of a vector x
    with xᵀMx = 1 moves by |x|ᵀ(|E| + |λ||F|)|x| at most; among eigenvalues that this does not separate, by the sum
    of the row of |X|ᵀ(|E| + |λ||F|)|X| (Gershgorin).

    Parameters
    ----------
    eigenvalues, vectors
        (k,) of the problem as it was given, and k Vecs, M-orthonormal.
    of_a, of_m
        Of the entries of A and of M.
    """
    if not vectors:
        return np.empty(0)
    copies = [vector.copy() for vector in vectors]
    for copy in copies:
        copy.abs()
    X = block(problem, copies)
    moments = _moments(problem, problem.A, of_a, X)
    if problem.M is not None:
        sizes = np.abs(eigenvalues)
        moments = moments + np.maximum.outer(sizes, sizes) * _moments(problem, problem.M, of_m, X)
    destroy(X, *copies)
    alone = np.diag(moments)
    together = np.abs(np.subtract.outer(eigenvalues, eigenvalues)) <= np.add.outer(alone, alone)
    return np.where(together, moments, 0.0).sum(axis=1)


def _moments(problem: EigenProblem, matrix: PETSc.Mat, rounding: Rounding, X: SLEPc.BV) -> np.ndarray:
    """Return Xᵀ|E|X, with |E| the most by which the entries of a matrix may be off. Collective."""
    indptr, indices, values = matrix.getValuesCSR()
    off = rounding.relative * np.abs(values) + rounding.absolute * (values != 0)
    errors = aij(problem.layout, indptr, indices, off.astype(PETSc.ScalarType))
    images = X.matMult(errors)
    found = gram(images, X).real
    destroy(images, errors)
    return found
