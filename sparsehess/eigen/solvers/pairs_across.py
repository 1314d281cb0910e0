"""How much of the pairs found may belong to eigenvalues beyond an end of a count: what their error bars come to.

A count and as many pairs say nothing while a pair that seems to lie inside may be one that lies outside.
"""

from __future__ import annotations

import numpy as np

from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.problem.rayleigh_ritz import RitzPairs
from sparsehess.runtime import PETSc, destroy, held_errors, readable_errors

# Less of the pairs than this, as the sine of an angle, may lie beyond the ends.
MOST = 0.5

# Part of a pair that its residual may leave beyond an end for no solve to be asked: of a mass that is diagonal,
# and of one that is not, which is definite to more than this squared.
_SETTLED, _SETTLED_BY_FAR = 0.01, 1e-6

# Solves with random combinations, all of which see less than a part of the norm with a probability of 3e-7.
_SOLVES, _PART = 4, 0.03

_SEED = 15485863


def bars(problem: EigenProblem, pairs: RitzPairs) -> np.ndarray:
    """Return (m,) about how far from each value an eigenvalue may lie, by its residual. Not collective."""
    norm_a, mass = problem.norms[0], problem.masses[0]
    return pairs.residuals * (norm_a / (mass or 1.0) + np.abs(pairs.values))


def share_across(
    problem: EigenProblem,
    pairs: RitzPairs,
    inside: np.ndarray,
    shift: float,
    ksp: PETSc.KSP | None,
    at: float | None = None,
) -> float:
    """Return a bound of the part of pairs that lies in eigenvectors beyond a shift, the sine of an angle.

    Collective. Of θ, x and r = (A - θM)x, the component along an eigenvector of λ is that of M⁻¹r over λ - θ, and
    that of y = (A - σM)⁻¹r times (λ - σ) / (λ - θ). Where σ lies between λ and θ, |λ - θ| is more than |θ - σ|
    and than |λ - σ|. So |P x| is no more than |M⁻¹r| / |θ - σ|, nor than |y|, in the norm of M, P the projection
    on all eigenvectors beyond σ; and |P X| ≤ |Y| of a block. Factors at another place τ serve as well: there the
    component of x is that of y = (A - τM)⁻¹r times (λ - τ) / (λ - θ), of which none is more than the larger of
    one and |σ - τ| / |σ - θ|: so many times each residual is taken. Where the bound is below one at the ends of an
    interval, together, and X has as many vectors as the interval has eigenvalues, no eigenvector inside is
    orthogonal to X: none is missing (Davis and Kahan 1970, "The rotation of eigenvectors by a perturbation III").
    The first bound is taken where it is small, with |D⁻¹r| for |M⁻¹r|, D² the sums of the rows of |M|; the second
    for the pairs that are left, all at once, by a few solves with random combinations of residuals.

    Parameters
    ----------
    inside
        (m,) which pairs lie inside.
    shift
        σ.
    ksp
        With factors of A - σM, or of A - τM; None where there are none.
    at
        τ; None for σ.
    """
    numbers = np.flatnonzero(inside)
    weights = problem.scales.rows_m
    settled = _SETTLED if _is_diagonal(problem) else _SETTLED_BY_FAR if not problem.massless else 0.0
    x, r, image, *sums = (problem.A.createVecRight() for _ in range(3 + _SOLVES))
    draw, small, left = np.random.default_rng(_SEED), 0.0, 0
    try:
        for number in numbers:
            _residual(problem, pairs, number, r, image)
            here = np.abs(r.getArray(readonly=True))
            massless = bool((here[weights == 0] > 0).any())
            parts = np.divide(here**2, weights, out=np.zeros(len(here)), where=weights > 0)
            square, infinite = problem.comm.allreduce(np.array([parts.sum(), massless], float))
            apart = abs(float(pairs.values[number]) - shift)
            part = np.inf if infinite or not apart > 0 else square**0.5 / apart
            if square == 0 and not infinite:
                continue
            if part < settled / len(numbers) ** 0.5:
                small += part**2
                continue
            weight = (
                1.0 if at is None or at == shift else max(1.0, abs(shift - at) / apart) if apart > 0 else np.inf
            )
            if weight == np.inf:
                return np.inf
            for one in sums:
                one.axpy(weight * float(draw.standard_normal()), r)
            left += 1
        if not left:
            return small**0.5
        if ksp is None:
            return np.inf
        sizes = [_size_of_solution(problem, one, x, image, ksp) for one in sums]
        return float(np.hypot(small**0.5, max(sizes) / _PART)) if np.isfinite(sizes).all() else np.inf
    finally:
        destroy(x, r, image, *sums)


def _is_diagonal(problem: EigenProblem) -> bool:
    """Return whether the sums of rows of the mass are the mass itself. Collective."""
    if problem.M is None:
        return True
    diagonal, sums = problem.M.getDiagonal(), problem.scales.rows_m
    alone = bool((sums <= (1 + 1e-12) * np.abs(diagonal.getArray(readonly=True))).all())
    destroy(diagonal)
    return all(problem.comm.allgather(alone))


def _residual(problem: EigenProblem, pairs: RitzPairs, number: int, r: PETSc.Vec, image: PETSc.Vec) -> None:
    """Write A x - θ M x of a pair to r. Collective."""
    x = pairs.vectors[number]
    problem.A.mult(x, r)
    _mass_times(problem, x, image)
    r.axpy(-float(pairs.values[number]), image)
    problem.null_space.project_image(r)


def _size_of_solution(
    problem: EigenProblem, right: PETSc.Vec, x: PETSc.Vec, image: PETSc.Vec, ksp: PETSc.KSP
) -> float:
    """Return |(A - σM)⁻¹ r| in the norm of the mass. Collective."""
    with readable_errors("measuring error bars of pairs"), held_errors():
        ksp.solve(right, x)
    problem.null_space.project(x)
    _mass_times(problem, x, image)
    return float(abs(image.dot(x))) ** 0.5


def _mass_times(problem: EigenProblem, x: PETSc.Vec, image: PETSc.Vec) -> None:
    """Write M x to a vector. Collective."""
    if problem.M is None:
        x.copy(image)
    else:
        problem.M.mult(x, image)
