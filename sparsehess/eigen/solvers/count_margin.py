"""How safe an inertia count is: against the error of its factorization, as measured, and the digits of entries."""

from __future__ import annotations

from typing import NamedTuple

from mpi4py import MPI

import numpy as np

from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.runtime import PETSc, destroy, held_errors, readable_errors
from sparsehess.runtime.random_numbers import draw_normal

# Steps of inverse iteration, and a margin at which two are enough.
_STEPS, _AMPLE = 4, 1e6

_EPS = float(np.finfo(float).eps)


class MeasuredFactors(NamedTuple):
    """What steps of inverse iteration with the factors of A - σM have shown, in the measure of sums of rows.

    Attributes
    ----------
    least
        |μ|, of the eigenvalue of least size: how small a change makes the matrix singular; or more.
    error
        Size of E, the change of the matrix whose exact factors these are.
    """

    least: float
    error: float

    @property
    def margin(self) -> float:
        """How many times E must grow to make the matrix singular; NaN counts as no margin. Not collective."""
        return self.least / self.error if np.isfinite(self.error) else 0.0


def measure_margin(problem: EigenProblem, ksp: PETSc.KSP, shift: float) -> float:
    """Return how safe the count of the last factorization is: above 1 no change that is known of can move it.

    Collective. See `measure_factors`.
    """
    return measure_factors(problem, ksp, shift).margin


def measure_factors(problem: EigenProblem, ksp: PETSc.KSP, shift: float) -> MeasuredFactors:
    """Return how near A - σM is to a singular matrix, and how near to the one whose factors are at hand.

    Collective. With W the diagonal of sums of rows of |A| + |σ||M|, a symmetric change E of A - σM leaves
    its inertia as it is while |xᵀEx| < |μ| xᵀWx for all x, μ the eigenvalue of least size of
    (A - σM) x = μ W x: by Weyl's theorem on W^(-1/2) (A - σM) W^(-1/2). Rounding half of the last digit of
    each entry is an E of ε/2, whatever the units of variables. That of the factorization is measured: steps
    y ← F⁻¹Wx of inverse iteration end in the vectors that are moved most easily, whose residuals
    r = Wx - (A - σM)y = Ey tell |y|ᵀ|r| / yᵀWy, and whose growth tells |μ|, or more where they have not come
    to it; hence `SAFE`.
    """
    rows = problem.scales.rows_a + abs(shift) * problem.scales.rows_m
    rows[rows == 0] = 1.0
    least, error = np.inf, 0.5 * _EPS
    x, y, b, r = (problem.A.createVecRight() for _ in range(4))
    try:
        x.setArray(draw_normal(problem.layout, 104729))
        for step in range(_STEPS):
            problem.null_space.project(x)
            here = x.getArray(readonly=True)
            size = problem.comm.allreduce(float(rows @ np.abs(here) ** 2))
            if not size > 0:
                return MeasuredFactors(np.inf, error)  # null vectors span all
            b.setArray(rows * here / size**0.5)
            problem.null_space.project_image(b)
            with readable_errors("measuring a factorization"), held_errors():
                ksp.solve(b, y)
            problem.A.mult(y, r)
            r.aypx(-1.0, b)  # b - A y
            _add_image(problem.M, y, shift, r)
            problem.null_space.project_image(r)
            here = np.abs(y.getArray(readonly=True))
            terms = np.array([here @ np.abs(r.getArray(readonly=True)), rows @ here**2])
            problem.comm.Allreduce(MPI.IN_PLACE, terms)
            if not (np.isfinite(terms).all() and terms[1] > 0):
                return MeasuredFactors(0.0, np.inf)
            least = min(least, float(terms[1]) ** -0.5)
            error = max(error, float(terms[0] / terms[1]))
            if step > 0 and least > _AMPLE * error:
                break  # the next steps cannot make so much of a difference
            x, y = y, x
    finally:
        destroy(x, y, b, r)
    return MeasuredFactors(least, error)


def _add_image(M: PETSc.Mat | None, x: PETSc.Vec, factor: float, to: PETSc.Vec) -> None:
    """Add factor times M x, of x where M is None, to a vector. Collective."""
    if M is None:
        to.axpy(factor, x)
        return
    image = to.duplicate()
    M.mult(x, image)
    to.axpy(factor, image)
    destroy(image)
