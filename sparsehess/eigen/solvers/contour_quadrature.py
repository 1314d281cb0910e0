"""Rational filters of an interval: quadratures of the spectral projector."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from sparsehess.errors import InputError, none_of

# Height of the ellipses over their width, as in FEAST 4 for Hermitian problems: flat ones fall off faster
# beside the interval.
ASPECT = 0.3

# Zolotarev's function is best on 1 <= |x| <= R, with an error of 4 exp(-this) on p points where
# log 4R = p π² / this; eigenvalues nearer to an end than 2 / √R half widths lie in the slope.
_ZOLOTAREV_DECAY = 7.5
_ZOLOTAREV_RANGE = (4.0, 9e4)


@dataclass(frozen=True, eq=False)
class Filter:
    """ρ(λ) = Re Σ w_j / (z_j − λ): about 1 in an interval, 1/2 at its ends, about 0 outside.

    Attributes
    ----------
    points
        (p,) complex, in the upper half plane; their conjugates are meant too.
    weights
        (p,) complex.
    """

    points: np.ndarray
    weights: np.ndarray

    def __call__(self, values: ArrayLike) -> np.ndarray:
        """Return ρ at real values.

        Not collective.
        """
        values = np.asarray(values, np.float64)
        return (self.weights / (self.points - values[..., None])).sum(axis=-1).real


def contour(quadrature: str, points: int, low: float, high: float) -> Filter:
    """Return the filter of [low, high].

    Not collective.

    Parameters
    ----------
    quadrature
        `gauss` (Polizzi 2009, "Density-matrix-based algorithm for solving eigenvalue problems"),
        `trapezoidal` or `zolotarev` (Güttel, Polizzi, Tang, Viaud 2015, "Zolotarev quadrature rules
        and load balancing for the FEAST eigensolver").
    points
        In the upper half plane.

    Raises
    ------
    InputError
        No such quadrature, or no points.
    """
    if quadrature not in QUADRATURES:
        raise none_of(f"quadrature={quadrature!r}", quadrature, QUADRATURES)
    if points < 1:
        raise InputError(f"a contour needs at least one point, not {points}")
    nodes, weights = QUADRATURES[quadrature](points)
    centre, radius = low + (high - low) / 2, (high - low) / 2
    return Filter(centre + radius * nodes, radius * weights)


def _gauss(points: int) -> tuple[np.ndarray, np.ndarray]:
    position, weight = np.polynomial.legendre.leggauss(points)
    return _ellipse(np.pi / 2 * (1 - position), np.pi / 2 * weight, ASPECT)


def _trapezoidal(points: int) -> tuple[np.ndarray, np.ndarray]:
    angles = np.pi * (np.arange(points) + 0.5) / points
    return _ellipse(angles, np.full(points, np.pi / points), ASPECT)


def _ellipse(angles: np.ndarray, weights: np.ndarray, aspect: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the quadrature of (1 / 2πi) ∮ dz / (z − λ) from weights of an integral over (0, π)."""
    nodes = np.cos(angles) + 1j * aspect * np.sin(angles)
    return nodes, weights / np.pi * (aspect * np.cos(angles) + 1j * np.sin(angles))


def _zolotarev(points: int) -> tuple[np.ndarray, np.ndarray]:
    """Return poles and residues of the best rational approximation of a step, on [-1, 1].

    Zolotarev's approximation s(x) = D x Π (x² + c_2i) / Π (x² + c_2i-1) of the sign of x, with the
    map x = √R (1 + t) / (1 − t) that takes -1, 0, 1 to 0, √R, infinity. Its small value at infinity,
    a multiple of the identity, is left out: it would keep infinite eigenvalues in the subspace.
    """
    import scipy.special  # 60 ms on every rank, and seldom needed

    R = float(np.clip(np.exp(points * np.pi**2 / _ZOLOTAREV_DECAY) / 4, *_ZOLOTAREV_RANGE))
    sn, cn, _, _ = scipy.special.ellipj(
        np.arange(1, 2 * points) * scipy.special.ellipkm1(1 / R**2) / (2 * points), 1 - 1 / R**2
    )
    squares = (sn / cn) ** 2
    poles, zeros = squares[::2], squares[1::2]

    def raw(x: np.ndarray) -> np.ndarray:
        return x * np.prod(x[:, None] ** 2 + zeros, axis=1) / np.prod(x[:, None] ** 2 + poles, axis=1)

    sampled = raw(np.geomspace(1, R, 200 * points + 1))
    factor = 2 / (sampled.min() + sampled.max())
    residues = np.array(
        [factor * np.prod(zeros - pole) / np.prod(np.delete(poles, i) - pole) / 2 for i, pole in enumerate(poles)]
    )
    x, root = 1j * np.sqrt(poles), np.sqrt(R)
    nodes = (x - root) / (x + root)
    return nodes, -residues * (1 - nodes) ** 2 / (2 * root)


QUADRATURES: dict[str, Callable[[int], tuple[np.ndarray, np.ndarray]]] = {
    "gauss": _gauss,
    "trapezoidal": _trapezoidal,
    "zolotarev": _zolotarev,
}
