"""Blocks of vectors as SLEPc BVs: their images, Gram matrices and residuals."""

from __future__ import annotations

from mpi4py import MPI

import numpy as np

from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.errors import EvaluationError
from sparsehess.runtime import PETSc, SLEPc, destroy


def block(problem: EigenProblem, vectors: list[PETSc.Vec]) -> SLEPc.BV:
    """Return a BV with copies of these vectors. The caller destroys it.

    Collective.
    """
    bv = SLEPc.BV().create(problem.A.comm)
    template = problem.A.createVecRight()
    bv.setSizesFromVec(template, len(vectors))
    destroy(template)
    bv.setType("svec")
    bv.insertVecs(0, vectors, orth=False)
    return bv


def gram(left: SLEPc.BV, right: SLEPc.BV) -> np.ndarray:
    """Return rightᵀ left, of complex vectors rightᴴ left, as a dense array, the same on every rank.

    Collective.
    """
    dense = left.dot(right)
    array = dense.getDenseArray().copy()
    destroy(dense)
    return array


def images(problem: EigenProblem, vectors: SLEPc.BV) -> tuple[SLEPc.BV, SLEPc.BV]:
    """Return (A X, M X), A X without its part in the known null vectors; M X is X itself for a standard problem.

    Collective.
    """
    image = vectors.matMult(problem.A)
    problem.null_space.project_block_image(image)
    return image, vectors if problem.M is None else vectors.matMult(problem.M)


def residuals(
    problem: EigenProblem, eigenvalues: np.ndarray, X: SLEPc.BV, AX: SLEPc.BV, MX: SLEPc.BV
) -> np.ndarray:
    """Return backward errors (k,): what part of A, or of λM, must change for a pair to be exact.

    Collective. See `residual_norms`.
    """
    return residual_norms(problem, eigenvalues, X, AX, MX)[0]


def residual_norms(
    problem: EigenProblem, eigenvalues: np.ndarray, X: SLEPc.BV, AX: SLEPc.BV, MX: SLEPc.BV
) -> tuple[np.ndarray, np.ndarray]:
    """Return backward errors (k,), and the norms (2, k) of the residuals by which eigenvalues may be off.

    Collective. Of the backward errors the lesser of ‖r‖ / (‖A‖ ‖x‖ + min(|λ| ‖Mx‖, ‖Ax‖)), with ‖A‖ the Frobenius
    norm, and ‖D⁻¹r‖ / (|λ| ‖Dx‖), with D² the sums of rows of |M|: changes of M row by row, to which eigenvalues
    far larger than most are due. Neither is smaller than that of Higham and Higham 1998, "Structured backward
    error and condition of generalized eigenvalue problems", eq. 2.2; and a vector with hardly a mass has a large
    one, whatever its λ. The norms are those of r in M⁻¹ and in A⁻¹, or more: by diagonals that M and A are no less
    than; infinite where r reaches rows of which none is known.
    """
    floors = problem.floors
    norm_a, rows = problem.norms[0], problem.scales.rows_m
    root = np.sqrt(np.where(rows > 0, rows, 1.0))
    errors, norms = np.empty(len(eigenvalues)), np.empty((2, len(eigenvalues)))
    for i, value in enumerate(eigenvalues):
        x, ax = X.getColumn(i), AX.getColumn(i)
        mx = x if MX is X else MX.getColumn(i)
        difference = ax.duplicate()
        ax.copy(difference)
        difference.axpy(-value, mx)
        size = norm_a * x.norm() + min(abs(value) * mx.norm(), ax.norm())
        apart = difference.norm()
        errors[i] = apart / size if size > 0 else apart
        r = np.abs(difference.getArray(readonly=True))
        terms = np.array([
            np.sum((r / root) ** 2, where=rows > 0),
            np.sum((root * np.abs(x.getArray(readonly=True))) ** 2, where=rows > 0),
            np.sum(r**2, where=rows == 0),
            *(
                np.sum(np.divide(r, np.sqrt(floor), out=np.where(r > 0, np.inf, 0.0), where=floor > 0) ** 2)
                for floor in floors
            ),
        ])  # fmt: skip
        problem.comm.Allreduce(MPI.IN_PLACE, terms)
        if terms[1] * abs(value) > 0 and terms[2] == 0:
            errors[i] = min(errors[i], np.sqrt(terms[0] / terms[1]) / abs(value))
        norms[:, i] = np.sqrt(terms[3:])
        destroy(difference)
        AX.restoreColumn(i, ax)
        if MX is not X:
            MX.restoreColumn(i, mx)
        X.restoreColumn(i, x)
    return errors, norms


def row_moments(problem: EigenProblem, X: SLEPc.BV) -> tuple[np.ndarray, np.ndarray]:
    """Return Σ aᵢ |xᵢ|² and Σ mᵢ |xᵢ|² (k,), with aᵢ and mᵢ the sums of the rows of |A| and of |M|.

    Collective. They bound |x|ᵀ |A| |x| and |x|ᵀ |M| |x|, whatever the signs of entries.
    """
    scales, (first, last) = problem.scales, X.getActiveColumns()
    sums = np.empty((2, last - first))
    for i in range(first, last):
        x = X.getColumn(i)
        squares = np.abs(x.getArray(readonly=True)) ** 2
        sums[:, i - first] = scales.rows_a @ squares, scales.rows_m @ squares
        X.restoreColumn(i, x)
    problem.comm.Allreduce(MPI.IN_PLACE, sums)
    return sums[0], sums[1]


def norms(X: SLEPc.BV) -> np.ndarray:
    """Return the norms of the vectors (k,). Collective."""
    first, last = X.getActiveColumns()
    sizes = []
    for i in range(first, last):
        x = X.getColumn(i)
        sizes.append(x.norm())
        X.restoreColumn(i, x)
    return np.array(sizes)


def require_finite(gram: np.ndarray) -> None:
    """Raise EvaluationError where dot products are not numbers: LAPACK would not end. Not collective."""
    if not np.isfinite(gram).all():
        raise EvaluationError(
            "a product with H, with the mass or with the preconditioner is not finite: look at what it returns, "
            "and for infinities and NaN in the matrices"
        )
