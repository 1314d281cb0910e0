"""1 / √λ on an interval as a sum of w / (λ + t), with the error that it has there."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import ellipkm1

from sparsehess.errors import NotConverged

# Terms at most, and places to an oscillation of the error that it is measured at.
_MOST, _PLACES = 120, 40

# What lies between places adds less than a thousandth: (π / 80)² / 2 of an oscillation. Sums round.
_BETWEEN, _ROUNDING = 1.001, 8 * float(np.finfo(float).eps)

# Means that differ by no more than the root of a rounding have as their mean their limit.
_ALIKE = 1e-8


class PartialFractions(NamedTuple):
    """Σ w / (λ + t) near 1 / √λ on [low, high].

    Attributes
    ----------
    weights, poles
        (terms,) w and t, all positive.
    error
        Largest |√λ Σ w / (λ + t) - 1| on the interval.
    """

    weights: np.ndarray
    poles: np.ndarray
    error: float


def inverse_square_root(low: float, high: float, error: float) -> PartialFractions:
    """Return the fewest terms that keep an error on an interval of positive numbers.

    Not collective. The trapezoidal rule after a conformal map by elliptic functions (Hale, Higham, Trefethen 2008,
    "Computing A^α, log(A), and related matrix functions by contour integrals", section 4): the error falls by a
    factor with each term, one that depends on log(high / low) alone. It is measured at 40 places to each of its
    oscillations.

    Raises
    ------
    NotConverged
        Not with 120 terms.
    """
    for terms in range(1, _MOST + 1):
        found = _of_terms(low, high, terms)
        if found.error <= error:
            return found
    raise NotConverged(
        f"the inverse root on an interval from {low:.1e} to {high:.1e} takes more than {_MOST} factorizations for "
        f"an error of {error:.1e}: a larger error, or a shift, would help"
    )


def _of_terms(low: float, high: float, terms: int) -> PartialFractions:
    ratio = low / high
    if ratio > 1 - 1e-3:  # the map degenerates
        low, ratio = high * (1 - 1e-3), 1 - 1e-3
    period = float(ellipkm1(ratio))
    tangent, dn = _tangent_and_dn((np.arange(terms) + 0.5) * period / terms, ratio)
    poles = low * np.square(tangent)
    weights = 2 * period * np.sqrt(low) / (np.pi * terms) * dn * (1 + np.square(tangent))
    places = np.geomspace(low, high, _PLACES * (2 * terms + 1))
    values = np.sum(weights / (places[:, None] + poles), axis=1) * np.sqrt(places)
    worst = float(np.max(np.abs(values - 1))) if np.isfinite(values).all() else np.inf
    return PartialFractions(weights, poles, _BETWEEN * worst + _ROUNDING)


def _tangent_and_dn(u: np.ndarray, complement: float) -> tuple[np.ndarray, np.ndarray]:
    """Return sn/cn and dn of Jacobi at u (m,), of the parameter 1 - complement, which may be ever so near to one.

    By Landen's descending transformation on the means of 1 and √complement, which loses no digits of a small
    complement (Bulirsch 1965, "Numerical calculation of elliptic integrals and elliptic functions").
    """
    means = [(1.0, float(np.sqrt(complement)))]
    while abs(means[-1][0] - means[-1][1]) > _ALIKE * means[-1][0]:
        arithmetic, geometric = means[-1]
        means.append(((arithmetic + geometric) / 2, float(np.sqrt(arithmetic * geometric))))
    limit = sum(means[-1]) / 2
    ratio = np.cos(limit * u) / np.sin(limit * u)  # cn/sn, times the mean of its stage
    c, dn = ratio * limit, np.ones_like(u)
    a = ratio
    for arithmetic, geometric in reversed(means):
        a, c = a * c, c * dn
        dn = (geometric + a) / (arithmetic + a)
        a = c / arithmetic
    return 1 / c, dn
