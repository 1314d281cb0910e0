"""Whether an eigenvalue lies beyond the pairs found: Lanczos steps beside them, with a stated probability."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sparsehess.eigen.problem.null_space import NullSpace
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.errors import CheckError
from sparsehess.runtime import PETSc, destroy
from sparsehess.runtime.random_numbers import draw_normal

# Probability of having missed an eigenvalue that is small enough.
_SURE = 1e-6

# Steps between two looks.
_LOOK = 3


class Look(NamedTuple):
    """What some Lanczos steps show.

    Attributes
    ----------
    beyond
        Whether an eigenvalue lies beyond.
    products
        How many steps.
    probability
        Of having missed one, at most; see `look_beyond`.
    """

    beyond: bool
    products: int
    probability: float


def look_beyond(
    problem: EigenProblem, found: Sequence[PETSc.Vec], ends: Sequence[tuple[int, float]], most: int, seed: int
) -> Look:
    """Look for eigenvalues beyond some ends on the complement of found eigenvectors, of a problem without a mass.

    Collective. A Ritz value beyond an end shows one. Where there is one, and none is seen, the largest Ritz value
    ξ is farther than ε (λ₁ - λₙ) below λ₁ with ε = (τ - ξ) / (τ - λₙ), τ being the end; the probability of that is
    at most 1.648 √n exp(-√ε (2m - 1)) after m steps from a random start (Kuczyński and Woźniakowski 1992,
    "Estimating the largest eigenvalue by the power and Lanczos algorithms with a random start", theorem 4.2). λₙ
    is taken from the least Ritz value and the last off-diagonal entry.

    Parameters
    ----------
    found
        Orthonormal.
    ends
        (side, τ): eigenvalues λ with side · λ > τ lie beyond.
    most
        Steps at most.
    """
    space = NullSpace([*problem.null, *found], None)
    v, w, before = (problem.A.createVecRight() for _ in range(3))
    alpha: list[float] = []
    beta: list[float] = []
    probability = 1.0
    try:
        v.setArray(draw_normal(problem.layout, seed))
        space.project(v)
        v.normalize()
        before.set(0.0)
        left = problem.n - len(space)
        for step in range(1, min(most, left) + 1):
            problem.A.mult(v, w)
            space.project(w)
            if beta:
                w.axpy(-beta[-1], before)
            alpha.append(w.dot(v).real)
            w.axpy(-alpha[-1], v)
            space.project(w)
            beta.append(w.norm())
            if not np.isfinite(alpha[-1] + beta[-1]):
                raise CheckError("products with the Hessian are not finite: is the function defined around x?")
            ritz = np.linalg.eigvalsh(np.diag(alpha) + np.diag(beta[:-1], 1) + np.diag(beta[:-1], -1))
            if any(max(side * ritz[0], side * ritz[-1]) > end for side, end in ends):
                return Look(True, step, 1.0)
            if beta[-1] <= 1e-14 * max(map(abs, alpha)) or step == left:
                return Look(False, step, 0.0)  # a random vector has a part along every eigenvalue
            if step % _LOOK == 0 or step == most:
                probability = sum(_missed(side * ritz, end, beta[-1], step, left) for side, end in ends)
                if probability <= _SURE:
                    return Look(False, step, probability)
            v, w, before = w, before, v
            v.scale(1 / beta[-1])
        return Look(False, len(alpha), min(1.0, probability))
    finally:
        space.close()
        destroy(v, w, before)


def _missed(ritz: np.ndarray, end: float, beta: float, steps: int, n: int) -> float:
    """Return the bound of `look_beyond` for one end, from Ritz values in its direction. Not collective."""
    share = (end - ritz.max()) / (end - ritz.min() + beta)
    return float(min(1.0, 1.648 * n**0.5 * np.exp(-(max(share, 0.0) ** 0.5) * (2 * steps - 1))))
