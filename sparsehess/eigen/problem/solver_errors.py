"""What a solver has left of eigenvalues: bounds from the residuals of the pairs, and from their count."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sparsehess.eigen.problem.count import Count

# Rounding of the quotients of two vectors, which the bars of rounding hold.
_ROUNDINGS = 8.0

# Vectors that are farther from A-orthogonal are not taken for such.
_SKEW = 0.1


class Leftovers(NamedTuple):
    """What is left of Ritz pairs, M-orthonormal.

    Attributes
    ----------
    norms, energies
        (m,) ‖A x − λ M x‖ in the norm of M⁻¹ and in that of A⁻¹, or more; infinite where no lower bound of the
        matrix is known.
    mixed, turned
        (m,) norms of the columns of XᵀAX beside the diagonal, but for rounding: as it is, and scaled to a diagonal
        of ones; infinite where that is not positive.
    """

    norms: np.ndarray
    energies: np.ndarray
    mixed: np.ndarray
    turned: np.ndarray

    @classmethod
    def none(cls) -> Leftovers:
        """Return those of no pairs. Not collective."""
        return cls(*np.empty((4, 0)))

    @classmethod
    def of(cls, norms: np.ndarray, reduced: np.ndarray, resolutions: np.ndarray, power: int = 0) -> Leftovers:
        """Return them from norms (2, m), see `residual_norms`, and XᵀAX (m, m). Not collective.

        Parameters
        ----------
        resolutions
            (m,) how far the last digits of the entries move each eigenvalue.
        power
            Norms are of a problem whose eigenvalues are smaller by two to this power.
        """
        diagonal, root = np.diag(reduced).real, np.sqrt(resolutions)
        beside = np.abs(reduced - np.diag(np.diag(reduced)))
        beside[beside <= _ROUNDINGS * np.outer(root, root)] = 0.0
        mixed = np.sqrt(np.sum(beside**2, axis=0))
        turned = np.full(len(mixed), np.inf)
        if (diagonal > 0).all():
            turned = np.sqrt(np.sum(beside**2 / diagonal[:, None], axis=0) / diagonal)
        return cls(np.ldexp(norms[0], power), norms[1] * 2.0 ** (power / 2), mixed, turned)

    def select(self, chosen: np.ndarray) -> Leftovers:
        """Return those of a mask (m,). Not collective."""
        return Leftovers(*(one[chosen] for one in self))


def solver_errors(values: np.ndarray, left: Leftovers, count: Count | None, known: int) -> np.ndarray:
    """Return (m,) how far from each value an eigenvalue of the matrix may be, for what the solver has left.

    Not collective. nan where nothing bounds it. To the rounding of the quotients, which `roundings` of a spectrum
    tell. M-orthonormal vectors whose residuals have the norms ρ, in the norm of M⁻¹, have as many eigenvalues
    within the root of the sum of their squares (Kahan 1967, "Inclusion theorems for clusters of eigenvalues of
    Hermitian matrices"; Parlett 1998, theorem 11.5.1; Cao, Xie and Li 1996, "A conjecture of Kahan"): of each
    group of values whose bars overlap. Where a certified count proves that (a, b) holds as many as were found, the
    rest of the spectrum is beyond it, and λ is between about θ − 2ρ²/(b − θ) and θ + 2ρ²/(θ − a), as Kato 1949,
    "On the upper and lower bounds of eigenvalues", has it for one pair: see `_by_gap`. Where A is known to be
    positive definite the same is said of the pencil M x = μ A x, μ = 1/λ, and the lesser is taken: of graded
    matrices small eigenvalues are far better known by that.

    Parameters
    ----------
    values
        (m,) ascending: all pairs that were found, whether they are returned or not.
    count
        Of the same problem, or None.
    known
        How many null vectors were deflated: zeros that the count holds, and the pairs do not.
    """
    if not len(values):
        return np.empty(0)
    ends = None
    if count is not None and count.certified and not count.group and count.interval[0] < count.interval[1]:
        inside = count.holds(values)
        if inside.any() and np.count_nonzero(inside) + known * count.holds_zero == count.inertia:
            ends = count.interval
    sine = 1.0 if count is None or count.across is None else count.across
    errors = _bounds(values, left.norms, left.mixed, ends, sine)
    if (values > 0).all():
        errors = np.fmin(errors, _by_inverses(values, left, ends))
    return np.where(np.isfinite(errors), errors, np.nan)


def _by_inverses(values: np.ndarray, left: Leftovers, ends: tuple[float, float] | None) -> np.ndarray:
    """Return (m,) the bounds from M y = μ A y, A positive definite: y = x/√λ, μ = 1/λ.

    Its residual is r/λ^{3/2}. Where YᵀAY is not I but I + K, vectors that are differ by κ/(1 − κ), κ = ‖K‖, and so
    do, as parts of themselves, their μ (Ostrowski 1959).
    """
    skew = float(np.linalg.norm(left.turned))
    if not (skew < _SKEW and np.isfinite(left.energies).all()):
        return np.full(len(values), np.inf)
    skew /= 1 - skew
    norms = left.energies / values**1.5
    norms = ((1 + skew) * norms + skew * np.linalg.norm(norms))[::-1]
    within = None if ends is None else (1 / ends[1], 1 / ends[0] if ends[0] > 0 else np.inf)
    bounds = _bounds(1 / values[::-1], norms, np.zeros(len(values)), within, 1.0)[::-1]
    part = values * bounds + skew
    return np.where(part < 1, values * part / np.where(part < 1, 1 - part, 1.0), np.inf)


def _bounds(
    values: np.ndarray, norms: np.ndarray, mixed: np.ndarray, ends: tuple[float, float] | None, sine: float
) -> np.ndarray:
    """Return (m,) the bounds from residuals, and from what lies between `ends`, if they are known."""
    if not np.isfinite(norms).all():
        return np.full(len(values), np.inf)
    errors = _together(values, norms)
    if ends is None:
        return errors
    inside = (values > ends[0]) & (values < ends[1])
    bounds = _by_gap(values[inside], norms[inside], ends, sine) + float(np.linalg.norm(mixed[inside]))
    errors[inside] = np.fmin(errors[inside], bounds)
    return errors


def _together(values: np.ndarray, norms: np.ndarray) -> np.ndarray:
    """Return (m,) the root of the sum of the squared norms of each group of values whose bars overlap."""
    reach, groups = norms.copy(), 0
    while True:
        low = np.minimum.accumulate((values - reach)[::-1])[::-1]
        high = np.maximum.accumulate(values + reach)
        group = np.concatenate([[0], np.cumsum(low[1:] > high[:-1])])
        if group[-1] + 1 == groups:
            return reach
        groups = int(group[-1]) + 1
        reach = np.sqrt(np.bincount(group, norms**2))[group]


def _by_gap(values: np.ndarray, norms: np.ndarray, ends: tuple[float, float], sine: float) -> np.ndarray:
    """Return (m,) the bounds of second order of all eigenvalues in an interval (a, b) that holds no others.

    With Y orthonormal beside the X of the pairs, A is [[Θ, Eᵀ], [E, C]], and the columns of E are no longer than
    the ρ of the pairs. (a, b) holds as many eigenvalues of A as Θ has, so the Schur complements of Θ − a and Θ − b
    have inertias (Haynsworth 1968) by which C has no eigenvalue between a' = a + Σ ρᵢ²/(θᵢ − a) and
    b' = b − Σ ρᵢ²/(b − θᵢ). Nor has it one below b − s² (b − λ₁) where a is −∞ and s is the sine of the angle
    between X and the eigenvectors below b, nor above the like where b is ∞. By the Schur complements of C − λ for
    λ in between, the eigenvalues of A there are beyond those of Θ − EᵀE/(b' − λ) and short of those of
    Θ + EᵀE/(λ − a'). EᵀE is no more than a diagonal, for each i that of 2ρᵢ² and 2ρⱼ Σρ of the others.
    """
    (low, high), squares = ends, norms**2
    after, before = float(np.sum(squares / (values - low))), float(np.sum(squares / (high - values)))
    if low == -np.inf:
        before = min(before, sine**2 * (high - float((values - norms).min())))
    if high == np.inf:
        after = min(after, sine**2 * (float((values + norms).max()) - low))
    low_edge, high_edge = low + after, high - before
    errors = np.full(len(values), np.inf)
    for i, value in enumerate(values):
        if not low_edge < value < high_edge:
            continue
        weights = 2 * norms * (norms.sum() - norms[i])
        weights[i] = 2 * squares[i]
        down = np.max(weights[i:] / (high_edge - value) - (values[i:] - value))
        up = np.max(weights[: i + 1] / (value - low_edge) - (value - values[: i + 1]))
        if low_edge < value - down and value + up < high_edge:
            errors[i] = max(down, up)
    return errors
