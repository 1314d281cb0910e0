"""Ritz pairs of one Krylov space: eigenvalues and bounds of residuals from four products, however many pairs."""

from __future__ import annotations

import numpy as np

from sparsehess.eigen.problem import slepc_blocks
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.problem.rayleigh_ritz import RitzPairs
from sparsehess.eigen.problem.solver_errors import Leftovers
from sparsehess.runtime import PETSc, SLEPc, destroy

# How many products it takes.
PRODUCTS = 4

# Of two random combinations of columns the larger is below this part of their norm with a probability of 6.4e-7.
_PART = 1e-3

# Part of the tolerance that may be left over where residuals lie along one vector; it is added to each.
_LEFT = 0.1

# So far vectors may be from orthonormal.
_ORTHOGONAL = 1e-12

_EPS = float(np.finfo(float).eps)


def pays(problem: EigenProblem, number: int, tol: float) -> bool:
    """Return whether pairs are worth four products, instead of one for each.

    Not collective. Where products are no more exact than they would be judged, nothing could be told.
    """
    plain = not problem.assembled and problem.M is None and not problem.null
    return plain and number > PRODUCTS and problem.relative_error <= 0.1 * _LEFT * _PART * tol


def krylov_pairs(problem: EigenProblem, vectors: list[PETSc.Vec], tol: float, seed: int) -> RitzPairs | None:
    """Return Ritz pairs of a Krylov space; None where vectors turn out to be no such, and are left as they are.

    Collective. Of Ritz pairs of a Krylov space A X = X Λ + v bᵀ, v orthogonal to X (Parlett 1998, section 12.3).
    A product with the sum of the vectors tells Λ and v, one with v tells b = XᵀAv, as A is symmetric. What is
    left, F = A X - X Λ - v bᵀ, two random combinations of its columns bound: ‖F g‖ of a normal vector g is less
    than t ‖F‖ with a probability of at most 0.8 t. Residuals are |bᵢ| and this bound, which ‖F‖ exceeds with a
    probability of 6.4e-7 over the seed.

    Parameters
    ----------
    vectors
        Orthonormal; those returned are the same, in order of their eigenvalues.
    tol
        Backward error to which pairs are held.
    seed
        Of the random combinations.
    """
    k = len(vectors)
    X = slepc_blocks.block(problem, vectors)
    y, v = problem.A.createVecLeft(), problem.A.createVecLeft()
    try:
        orthogonality = float(np.abs(slepc_blocks.gram(X, X) - np.eye(k)).max())
        if not orthogonality <= _ORTHOGONAL:
            return None
        _image_of_sum(problem, X, np.ones(k), v)
        values = np.asarray(X.dotVec(v)).real
        X.multVec(-1.0, 1.0, v, values)
        X.multVec(-1.0, 1.0, v, X.dotVec(v))  # once more: a small rest is orthogonal too
        length = v.norm()
        if length > 0:
            v.scale(1 / length)
        problem.A.mult(v, y)
        along = np.asarray(X.dotVec(y)).real
        left, draw = 0.0, np.random.default_rng(seed)
        for _ in range(2):
            g = draw.standard_normal(k)
            _image_of_sum(problem, X, g, y)
            X.multVec(-1.0, 1.0, y, values * g)
            y.axpy(-float(along @ g), v)
            left = max(left, y.norm() / _PART)
        norm_a = problem.norms[0]
        if not left <= _LEFT * tol * norm_a:
            return None
        of_a, of_m = slepc_blocks.row_moments(problem, X)
    finally:
        destroy(X, y, v)
    order = np.argsort(values, kind="stable")
    size = norm_a + np.abs(values)
    norms = np.abs(along) + left
    residuals = np.divide(norms, size, out=np.zeros(k), where=size > 0)
    resolutions = _EPS * (of_a + np.abs(values) * of_m)
    return RitzPairs(
        values[order],
        [vectors[i] for i in order],
        residuals[order],
        orthogonality,
        resolutions[order],
        Leftovers(norms[order], np.full(k, np.inf), np.full(k, left), np.zeros(k)),
    )


def _image_of_sum(problem: EigenProblem, X: SLEPc.BV, weights: np.ndarray, out: PETSc.Vec) -> None:
    """Write A X w to a vector. Collective."""
    combined = problem.A.createVecRight()
    X.multVec(1.0, 0.0, combined, weights)
    problem.A.mult(combined, out)
    destroy(combined)
