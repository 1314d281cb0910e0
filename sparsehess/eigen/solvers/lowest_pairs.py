"""`lowest_pairs`: the lowest eigenpairs of a Hessian itself, of which only what is near and far is known."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from sparsehess.eigen.problem.count import Count
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.problem.spectrum import Spectrum
from sparsehess.eigen.solvers.eigs import eigs, shortfall
from sparsehess.eigen.solvers.true_products_davidson import Refined, refine
from sparsehess.errors import InputError
from sparsehess.long_range.near_far_hessian import NearFar
from sparsehess.runtime import PETSc, destroy
from sparsehess.runtime.validation import positive_number, whole_number

# Pairs of Ĥ beyond those that are wanted, which the search begins with.
_GUARD = 4

# Backward error of the pairs of Ĥ that the search begins with.
_START = 1e-6

# The norm of H − Ĥ exceeds so many times its estimate from four normal products with a probability of 1e-6: the
# squares of four normal numbers then sum to less than 4 / 38².
_SURE = 38.0


def lowest_pairs(
    hessian: NearFar, k: int = 6, *, gradients: int = 100, tol: float = 1e-5, seed: int = 0, strict: bool = True
) -> Spectrum:
    """Compute the lowest eigenpairs of a Hessian in which everything couples, by products with it itself.

    Collective. Begun with those of Ĥ, and bettered by a block Davidson method [1]_ whose products are true, and
    whose corrections are solves with Ĥ [2]_: what Ĥ lacks costs products, and not digits. A pair is done when
    its residual is at the tolerance, or at the noise of the products, below which there is nothing to be had.

    Parameters
    ----------
    hessian
        From `near_far`. Mass, which must be diagonal, and null vectors are those of its objective.
    k
        How many.
    gradients
        Budget of gradients, or products of the objective.
    tol
        Backward error that is asked for.
    seed
        Of starting vectors.
    strict
        Raise where fewer pairs reach it; else say so in the result.

    Returns
    -------
    Spectrum
        Residuals are those of true products, and errors bounds from these and the noise: an eigenvalue is that
        near. It is counted where Ĥ is, and where its gap above the last pair is wider than how far H − Ĥ can move
        eigenvalues on both sides, 38 times the estimated norm (exceeded with a probability of 1e-6); else
        `uncounted` says why not. The caller closes it.

    Raises
    ------
    InputError
        The mass is not diagonal, or the gradients do not suffice to begin with.
    NotConverged
        Fewer pairs reached the tolerance (`strict`).

    References
    ----------
    .. [1] E. R. Davidson, The iterative calculation of a few of the lowest eigenvalues and corresponding
       eigenvectors of large real-symmetric matrices, Journal of Computational Physics 17 (1975), 87-94.
    .. [2] G. L. G. Sleijpen, H. A. van der Vorst, A Jacobi-Davidson iteration method for linear eigenvalue
       problems, SIAM Journal on Matrix Analysis and Applications 17 (1996), 401-425.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> points = np.stack(np.meshgrid(np.arange(8.0), np.arange(8.0)), axis=-1).reshape(-1, 2)
    >>> points += 0.05 * np.sin(np.arange(points.size)).reshape(points.shape)
    >>> def gradient(x):  # of the sum of 1 / r over all pairs of points in a plane
    ...     apart = x.reshape(-1, 1, 2) - x.reshape(1, -1, 2)
    ...     r = np.sqrt((apart**2).sum(axis=2) + np.eye(64))
    ...     return -(apart / r[..., None] ** 3).sum(axis=1).ravel()
    >>> objective = sh.Objective(x=points.ravel(), gradient=gradient)
    >>> with sh.near_far(objective, points=points, gradients=60) as H, sh.lowest_pairs(H, 3) as found:
    ...     print(found.eigenvalues.round(3), found.count.certified)
    [-2.148 -2.086 -2.023] True
    """
    k, gradients = whole_number(k, "k", 1), whole_number(gradients, "gradients", 1)
    tol = positive_number(tol, "tol")
    began = time.perf_counter()
    with EigenProblem.of(hessian) as problem:
        if k + len(problem.null) > problem.n:
            raise InputError(f"k={k} pairs of {problem.n} variables, {len(problem.null)} of them null vectors")
        require_gradients(k, hessian.true_products.calls_each, gradients)
        roots = _mass_roots(problem)
        number = min(k + _GUARD, problem.n - len(problem.null))
        with eigs(hessian, number, tol=_START, seed=seed, strict=False) as start:
            if start.converged < k:
                raise shortfall(start) or InputError("the matrix of near and far has too few pairs to begin with")
            basis = np.stack([one.getArray() for one in start.vectors], axis=1) * roots[:, None]
            known = _Known(start.eigenvalues, start.count, start.uncounted)
        null = np.zeros((len(roots), 0))
        if problem.null:
            null = np.stack([one.getArray() for one in problem.null], axis=1) * roots[:, None]
        refined = refine(hessian, roots, null, basis, k, gradients, tol, problem.norms)
        hessian.evaluations["refinement"] = hessian.evaluations.get("refinement", 0) + refined.spent
        spectrum = _spectrum(problem, hessian, refined, known, roots, k, time.perf_counter() - began)
    error = shortfall(spectrum) if strict else None
    if error is not None:
        spectrum.close()
        raise error
    return spectrum


def require_gradients(k: int, calls_each: int, gradients: int) -> None:
    """Raise InputError where a search for k pairs cannot begin. Not collective.

    Parameters
    ----------
    calls_each
        Gradients, or products of the objective, that a product takes.
    """
    if gradients < k * calls_each:
        raise InputError(
            f"{k} pairs begin with {k * calls_each} gradients or products, and {gradients} are allowed: allow "
            "more, or ask for fewer pairs"
        )


@dataclass(frozen=True)
class _Known:
    """What is known of Ĥ: its lowest eigenvalues, and whether they are counted."""

    values: np.ndarray
    count: Count | None
    uncounted: str


def _mass_roots(problem: EigenProblem) -> np.ndarray:
    """Return (n_local,) the roots of a diagonal mass. Collective."""
    if problem.M is None:
        return np.ones(problem.layout.n_local)
    diagonal = problem.M.getDiagonal()
    entries, whole = diagonal.norm(), problem.M.norm(PETSc.NormType.FROBENIUS)
    masses = diagonal.getArray().copy()
    destroy(diagonal)
    if not (entries >= (1 - 1e-12) * whole and problem.masses[1] > 0):
        raise InputError("lowest_pairs takes a diagonal mass without zeros: solve with the matrix of near and far")
    return np.sqrt(masses)


def _spectrum(
    problem: EigenProblem,
    hessian: NearFar,
    refined: Refined,
    known: _Known,
    roots: np.ndarray,
    k: int,
    seconds: float,
) -> Spectrum:
    """Return what was found, as a spectrum. Collective."""
    done = np.flatnonzero(np.logical_and.accumulate(refined.done))  # what is beyond one that is open is not lowest
    vectors = []
    for column in done:
        vectors.append(problem.A.createVecRight())
        vectors[-1].setArray(refined.vectors[:, column] / roots)
    values, errors = refined.values[done], refined.errors[done]
    count, why = None, "fewer pairs than were asked for reached the tolerance"
    if len(done) == k:
        count, why = _counted(problem, hessian, known, values, errors)
    missing = k - len(done)
    return Spectrum(
        eigenvalues=values,
        vectors=vectors,
        residuals=refined.residuals[done],
        orthogonality=refined.orthogonality,
        count=count,
        uncounted=why,
        zeros=int((np.abs(values) <= errors).sum()),
        asked=k,
        advice=f"{missing} more need more gradients than {refined.spent}, or a larger tol" if missing else "",
        iterations=refined.rounds,
        method="davidson",
        reason="products with the Hessian itself, solves with what is near and far",
        timings={"factorization": 0.0, "solve": seconds, "certificate": 0.0},
        options={},
        held_to=refined.held_to,
        errors=errors,
        solver_errors=np.zeros(len(done)),  # the residuals are in the bars
        zero=np.abs(values) <= errors,
        roundings=np.zeros(len(done)),
        lost=np.zeros(len(done), bool),
    )


def _counted(
    problem: EigenProblem, hessian: NearFar, known: _Known, values: np.ndarray, errors: np.ndarray
) -> tuple[Count | None, str]:
    """Return the count of the eigenvalues up to the last pair, or why there is none. Not collective.

    By Weyl's inequality no eigenvalue is farther from that of Ĥ than ‖H − Ĥ‖₂ over the least mass: where a gap of
    Ĥ is wider than twice that, H has as many eigenvalues below its middle as Ĥ has.
    """
    k, null = len(values), len(problem.null)
    if known.count is None or not known.count.certified:
        return None, f"the matrix of near and far is not counted: {known.uncounted or 'its count does not agree'}"
    if len(known.values) <= k:
        return None, "there is nothing beyond the last pair"
    bound = _SURE * hessian.error_norm / problem.masses[1]
    low, high = float(known.values[k - 1]), float(known.values[k])
    middle = (low + high) / 2
    if not high - low > 2 * bound:
        return None, (
            f"the gap of {high - low:.2g} above the last pair is no wider than twice what H − Ĥ may move "
            f"eigenvalues by, {bound:.2g}"
        )
    reach = float(values[-1] + errors[-1])
    if not reach < middle - bound:
        return None, f"the last pair, up to {reach:.6g}, is not below the gap of Ĥ around {middle:.6g}"
    across = float(np.linalg.norm(errors) / (middle - bound - values[-1]))
    return Count(
        interval=(-np.inf, middle),
        inertia=k + null,
        found=k + null,
        certified=across < 0.5,
        margin=(high - low) / (2 * bound) if bound > 0 else None,
        across=across,
    ), ""
