"""Blocks of vectors as SLEPc BVs: their images, Gram matrices and residuals."""

from __future__ import annotations

import numpy as np

from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.errors import EvaluationError
from sparsehess.runtime import PETSc, SLEPc


def block(problem: EigenProblem, vectors: list[PETSc.Vec]) -> SLEPc.BV:
    """Return a BV with copies of these vectors. The caller destroys it.

    Collective.
    """
    bv = SLEPc.BV().create(problem.A.comm)
    template = problem.A.createVecRight()
    bv.setSizesFromVec(template, len(vectors))
    template.destroy()
    bv.setType("svec")
    bv.insertVecs(0, vectors, orth=False)
    return bv


def gram(left: SLEPc.BV, right: SLEPc.BV) -> np.ndarray:
    """Return rightᵀ left, of complex vectors rightᴴ left, as a dense array, the same on every rank.

    Collective.
    """
    dense = left.dot(right)
    array = dense.getDenseArray().copy()
    dense.destroy()
    return array


def images(problem: EigenProblem, vectors: SLEPc.BV) -> tuple[SLEPc.BV, SLEPc.BV]:
    """Return (A X, M X); M X is X itself for a standard problem.

    Collective.
    """
    return vectors.matMult(problem.A), vectors if problem.M is None else vectors.matMult(problem.M)


def residuals(
    problem: EigenProblem, eigenvalues: np.ndarray, X: SLEPc.BV, AX: SLEPc.BV, MX: SLEPc.BV
) -> np.ndarray:
    """Return backward errors ‖Ax − λMx‖ / ((‖A‖ + |λ|‖M‖) ‖x‖) (k,), Frobenius norms.

    Collective. Higham and Higham 1998, "Structured backward error and condition of generalized
    eigenvalue problems", eq. 2.2, with norms no smaller than the 2-norm.
    """
    norm_a, norm_m = problem.norms
    errors = np.empty(len(eigenvalues))
    for i, value in enumerate(eigenvalues):
        x, ax = X.getColumn(i), AX.getColumn(i)
        difference = ax.duplicate()
        ax.copy(difference)
        if problem.M is None:
            difference.axpy(-value, x)
        else:
            mx = MX.getColumn(i)
            difference.axpy(-value, mx)
            MX.restoreColumn(i, mx)
        size = (norm_a + abs(value) * norm_m) * x.norm()
        errors[i] = difference.norm() / size if size > 0 else 0.0
        difference.destroy()
        X.restoreColumn(i, x)
        AX.restoreColumn(i, ax)
    return errors


def require_finite(gram: np.ndarray) -> None:
    """Raise EvaluationError where dot products are not numbers: LAPACK would not end. Not collective."""
    if not np.isfinite(gram).all():
        raise EvaluationError(
            "a product with H, with the mass or with the preconditioner is not finite: look at what it returns, "
            "and for infinities and NaN in the matrices"
        )
