"""How far eigenvalues may be from those of the true matrix, where the error of the matrix is known."""

from __future__ import annotations

from typing import NamedTuple

from mpi4py import MPI

import numpy as np

from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.runtime import PETSc, destroy

# Rounding, and errors of a matrix, that an eigenvalue must exceed not to be zero.
_ROUNDINGS, _ERRORS = 8.0, 10.0

# An eigenvalue is lost that the last digits of entries move by this part of itself, and of a middle one.
_LOST, _LOST_OF_MIDDLE = 1e-2, 1e-8

_EPS = float(np.finfo(float).eps)

# Error of an eigenvector.
_OF_VECTORS = 1e3 * _EPS


class ErrorBars(NamedTuple):
    """Error bars of eigenvalues.

    Attributes
    ----------
    errors
        (k,) how far the error of the matrix may move each eigenvalue, to first order; None where none is known.
    bound
        Weyl's: no eigenvalue moves farther, as far as the norm of the error is known; None where it is not, or the
        mass is not diagonal.
    zero
        (k,) whether an eigenvalue is zero to the accuracy of the matrix.
    roundings
        (k,) how far the last digits of the entries may move each eigenvalue, to first order.
    lost
        (k,) whether they leave nothing of it, as where a penalty of 1e20 ties two parts; zero it is not.
    """

    errors: np.ndarray | None
    bound: float | None
    zero: np.ndarray
    roundings: np.ndarray
    lost: np.ndarray


def error_bars(problem: EigenProblem, values: np.ndarray, vectors: list[PETSc.Vec]) -> ErrorBars:
    """Return the error bars of eigenpairs, M-orthonormal and ascending.

    Collective. |xᵀEx| moves an eigenvalue to first order (Parlett 1998, section 4.6). Where the errors of the
    entries are known it is two of its standard deviations; else no more than the relative error times the sums of
    the rows of |A| over the mode. Eigenvalues within each other's bars move as those of a random matrix of their
    number, which spread by the root of it.
    """
    rows = _row_sums(problem, vectors)
    roundings = _EPS * rows
    large = roundings > _LOST_OF_MIDDLE * problem.scale
    lost = large & (roundings > _LOST * np.abs(values))
    # To first order; to second by an error of the vector, where nothing resists it.
    rounding = _ROUNDINGS * _EPS * rows + _OF_VECTORS**2 * problem.scale
    known, relative = problem.entry_errors, problem.relative_error
    if known is None and not relative > 0:
        return ErrorBars(None, None, (np.abs(values) <= rounding) & ~lost, roundings, lost)
    if known is None:
        errors, norm = relative * rows, None
    else:
        errors = np.array([known.of_quotient(np.abs(one.getArray(readonly=True))) for one in vectors])
        norm = known.norm
        errors = errors * _crowding(values, errors)
    bound = None if norm is None else _weyl(problem, norm)
    errors = errors if bound is None else np.minimum(errors, bound)
    zero = np.abs(values) <= np.maximum(rounding, errors if known is not None else _ERRORS * errors)
    return ErrorBars(errors, bound, zero & ~lost, roundings, lost)


def _row_sums(problem: EigenProblem, vectors: list[PETSc.Vec]) -> np.ndarray:
    """Return (k,) Σ aᵢ |xᵢ|², aᵢ the sums of the rows of |A|; the units of variables do not matter. Collective."""
    scales = problem.scales
    sums = np.array([scales.rows_a @ (np.abs(one.getArray(readonly=True)) / scales.d) ** 2 for one in vectors])
    problem.comm.Allreduce(MPI.IN_PLACE, sums)
    return np.ldexp(sums, scales.power)


def _crowding(values: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Return (k,) by what factor bars are longer where so many eigenvalues are within each other's.

    The largest eigenvalue of a random symmetric m × m matrix is about √(2m) standard deviations of its diagonal,
    that of one entry within two in 95 % of all cases: √m is never less than their ratio.
    """
    if not len(values):
        return np.ones(0)
    apart = np.diff(values) > errors[1:] + errors[:-1]
    group = np.concatenate([[0], np.cumsum(apart)])
    return np.sqrt(np.bincount(group)[group])


def _weyl(problem: EigenProblem, norm: float) -> float | None:
    """Return the bound of Weyl for an error of this norm. Collective."""
    if problem.M is None:
        return norm
    diagonal, least = problem.M.getDiagonal(), problem.masses[1]
    entries, whole = diagonal.norm(), problem.M.norm(PETSc.NormType.FROBENIUS)
    destroy(diagonal)
    return norm / least if least > 0 and entries >= (1 - 1e-12) * whole else None
