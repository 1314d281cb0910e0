"""What is known of a spectrum: a measure for each starting vector, from Lanczos or Chebyshev moments, or all.

Each kind answers the same questions, a row for each sample: `smoothed`, `below`, `moments`. Fractions are of the
space that the operator acts on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

_EPS, _TINY = float(np.finfo(float).eps), float(np.finfo(float).tiny)

# No more raw moments than these are reported: mean, spread, skewness and kurtosis follow from them.
MOMENTS = 5

# In a measure of m nodes none counts for more than this many of them where the width is chosen: a large atom
# says nothing of the spread of the rest.
_HEAVIEST = 4.0

# Places at most that a distribution is looked at between.
_PLACES = 1000

# Of a spectrum that is known whole: steps that would resolve a smooth one as well.
_SMOOTH = 100

# Widths of Jackson's kernel from a point at which bounds are looked for.
_WIDTHS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)

# So many times the error of a node it is still at a point.
_AT = 1e3


# The width of a kernel where all eigenvalues are zero, and no size tells what is narrow.
NARROW = 1e-3


# Rules with a node at a given point that are made at once: of more points, the bounds between them are those of
# the nearest nodes.
_RULES = 8

# A node of a rule is not put farther away than this many times the width of a spectrum.
_FAR = 1e3

# So many times the error of products an eigenvalue may be off.
_SAFE = 10.0


class Below(NamedTuple):
    """Fractions of eigenvalues up to points, (samples, m) each: an estimate, and what bounds it."""

    value: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


class Measures(Protocol):
    """What is known of a spectrum.

    Attributes
    ----------
    samples
        Rows of the answers: random starts, or one, where nothing is random.
    """

    @property
    def samples(self) -> int:
        """Number of rows."""
        ...

    @property
    def range(self) -> tuple[float, float]:
        """Least and greatest eigenvalue seen, or bounds of them."""
        ...

    def width(self) -> float:
        """Return the width of a kernel that is resolved. Not collective."""
        ...

    def smoothed(self, edges: np.ndarray, width: float) -> np.ndarray:
        """Return (samples, len(edges) - 1) means over cells of the measures, smoothed. Not collective."""
        ...

    def below(self, points: np.ndarray, *, inclusive: bool = True) -> Below:
        """Return the fractions of eigenvalues up to each point. Not collective."""
        ...

    def places(self) -> np.ndarray:
        """Return (m,) places in ascending order between which the measures change little. Not collective."""
        ...

    def moments(self) -> np.ndarray:
        """Return (samples, MOMENTS) means of powers of the eigenvalues. Not collective."""
        ...


@dataclass(frozen=True, eq=False)
class Whole:
    """All eigenvalues, from a dense matrix.

    Not collective to use.

    Attributes
    ----------
    eigenvalues
        (m,) ascending.
    noise
        Error of the matrix, relative to its norm.
    """

    eigenvalues: np.ndarray
    noise: float
    samples = 1

    @property
    def range(self) -> tuple[float, float]:
        """Least and greatest eigenvalue."""
        return float(self.eigenvalues[0]), float(self.eigenvalues[-1])

    def width(self) -> float:
        """Return a kernel width: typical distances of eigenvalues, or what many more would be smooth at."""
        return kernel_width([self.eigenvalues], [self._weights()], self.range, _SMOOTH)

    def _weights(self) -> np.ndarray:
        return np.full(len(self.eigenvalues), 1 / len(self.eigenvalues))

    def smoothed(self, edges: np.ndarray, width: float) -> np.ndarray:
        """Return (1, len(edges) - 1) means over cells of the spectrum, convolved with a Gaussian."""
        return smoothed_by_kernel([self.eigenvalues], [self._weights()], edges, width)

    def below(self, points: np.ndarray, *, inclusive: bool = True) -> Below:
        """Return (1, m) fractions of eigenvalues up to each point; bounds differ where the error leaves doubts."""
        size, n = _size(self.range), len(self.eigenvalues)
        shifted = _shifted(points, self.noise, size, inclusive)
        doubt = _SAFE * self.noise * size
        value, lower, upper = (
            np.searchsorted(self.eigenvalues, shifted + move, side="right")[None] / n
            for move in (0.0, -doubt, doubt)
        )
        return Below(value, lower, upper)

    def places(self) -> np.ndarray:
        """Return the eigenvalues."""
        return self.eigenvalues

    def moments(self) -> np.ndarray:
        """Return (1, MOMENTS) means of powers of the eigenvalues."""
        return (self.eigenvalues[:, None] ** np.arange(MOMENTS)).mean(axis=0)[None]


@dataclass(frozen=True, eq=False)
class Quadratures:
    """Gauss quadratures, a sample each.

    Not collective to use. Lin, Saad, Yang 2016, "Approximating spectral densities of large matrices", section
    3.2.2.

    Attributes
    ----------
    nodes, weights
        Of each sample, ascending; weights sum to one.
    residuals
        How far from each node an eigenvalue may be: 0 for nodes that are eigenvalues.
    recurrences
        Of each sample the diagonal (m,) of Lanczos's tridiagonal matrix, and (m,) what is beside it, the last of
        which leads out of the space: 0 where that is invariant.
    steps
        That each run was allowed.
    noise
        Error of the nodes relative to the largest: a node as near as this to a point is at the point.
    """

    nodes: list[np.ndarray]
    weights: list[np.ndarray]
    residuals: list[np.ndarray]
    recurrences: list[tuple[np.ndarray, np.ndarray]]
    steps: int
    noise: float

    @property
    def samples(self) -> int:
        """Number of random starts."""
        return len(self.nodes)

    @property
    def range(self) -> tuple[float, float]:
        """Least and greatest node."""
        return min(float(nodes[0]) for nodes in self.nodes), max(float(nodes[-1]) for nodes in self.nodes)

    def width(self) -> float:
        """Return a kernel width that the samples resolve: the spacing of nodes where most eigenvalues are."""
        return kernel_width(self.nodes, self.weights, self.range, self.steps)

    def smoothed(self, edges: np.ndarray, width: float) -> np.ndarray:
        """Return (samples, len(edges) - 1) means over cells of the measures, convolved with a Gaussian."""
        return smoothed_by_kernel(self.nodes, self.weights, edges, width)

    def below(self, points: np.ndarray, *, inclusive: bool = True) -> Below:
        """Return (samples, m) fractions of eigenvalues up to each point: between bounds of them.

        The inequalities of Chebyshev, Markov and Stieltjes: what a measure has up to a node x of a quadrature of m
        nodes, with positive weights and exact to the degree 2 m - 2, is no less than the sum of weights left of
        x, and no more than that sum and the weight at x (Szegő 1939, "Orthogonal polynomials", section 3.41). For
        any x there is such a quadrature: Radau's, of Lanczos's matrix with one more row, whose diagonal entry is
        chosen (Golub 1973, "Some modified matrix eigenvalue problems", section 7).
        """
        size = _size(self.range)
        shifted = _shifted(points, self.noise, size, inclusive)
        value, lower, upper = np.array(
            [
                bound_measure(*sample, shifted)
                for sample in zip(self.nodes, self.residuals, self.recurrences, strict=True)
            ]
        ).transpose(1, 0, 2)
        return Below(value, lower, upper)

    def places(self) -> np.ndarray:
        """Return the nodes of all samples in order, not more than so many."""
        places = np.sort(np.concatenate(self.nodes))
        return places[np.unique(np.linspace(0, len(places) - 1, _PLACES).astype(np.int64))]

    def moments(self) -> np.ndarray:
        """Return (samples, MOMENTS) means of powers of the eigenvalues."""
        powers = np.arange(MOMENTS)
        return np.array([w @ t[:, None] ** powers for t, w in zip(self.nodes, self.weights, strict=True)])


@dataclass(frozen=True, eq=False)
class Polynomials:
    """Chebyshev moments with Jackson's damping.

    Not collective to use. Weiße, Wellein, Alvermann, Fehske 2006, "The kernel polynomial method", sections II.B
    and II.C.

    Attributes
    ----------
    coefficients
        (samples, terms) moments of the spectrum scaled to [-1, 1], the first of them one.
    center, half
        The interval that was scaled: its middle and half its width.
    ritz
        Places within the spectrum, near its ends.
    """

    coefficients: np.ndarray
    center: float
    half: float
    ritz: tuple[float, float]

    @property
    def samples(self) -> int:
        """Number of random starts."""
        return len(self.coefficients)

    @property
    def range(self) -> tuple[float, float]:
        """The interval, which holds the spectrum."""
        return self.center - self.half, self.center + self.half

    def width(self) -> float:
        """Return the width of Jackson's kernel in the middle of the interval (equation 56)."""
        return np.pi * self.half / self.coefficients.shape[1]

    def smoothed(self, edges: np.ndarray, width: float) -> np.ndarray:
        """Return (samples, len(edges) - 1) means over cells of the damped series."""
        return np.diff(self._series(self._angles(edges)), axis=1) / np.diff(edges)

    def below(self, points: np.ndarray, *, inclusive: bool = True) -> Below:
        """Return (samples, m) fractions of eigenvalues up to each point: the damped series, integrated.

        Di Napoli, Polizzi, Saad 2016, "Efficient estimation of eigenvalue counts in an interval", equation 11. The
        damped series is the measure convolved with a positive kernel, in the angle arccos λ: what it has up to
        some widths before a point, or past it, less or with what the kernel has beyond these widths, bounds what
        the measure has up to the point. Of several widths the best is taken.
        """
        angles, terms = self._angles(points), self.coefficients.shape[1]
        order, damping = np.arange(1, terms), jackson(terms)[1:]
        value = self._series(angles)
        lower, upper = np.zeros_like(value), np.ones_like(value)
        for away in np.pi / terms * np.array(_WIDTHS):
            tail = max(0.0, 0.5 - 0.5 / np.pi * (away + 2 * float(damping / order @ np.sin(away * order))))
            before = self._series(np.minimum(angles + away, np.pi))
            past = self._series(np.maximum(angles - away, 0.0))
            lower = np.maximum(lower, (before - tail) / (1 - tail))
            upper = np.minimum(upper, past / (1 - tail))
        upper = np.maximum(upper, lower)  # but for rounding
        return Below(np.clip(value, lower, upper), lower, upper)

    def places(self) -> np.ndarray:
        """Return places half a width of the kernel apart."""
        return np.linspace(*self.ritz, min(_PLACES, 2 * self.coefficients.shape[1]))

    def _angles(self, points: np.ndarray) -> np.ndarray:
        return np.arccos(np.clip((np.asarray(points) - self.center) / self.half, -1.0, 1.0))

    def _series(self, angles: np.ndarray) -> np.ndarray:
        """Return (samples, m) the damped series, integrated from the lower end to these angles."""
        order = np.arange(1, self.coefficients.shape[1])
        damped = self.coefficients[:, 1:] * jackson(self.coefficients.shape[1])[1:] / order
        result = np.empty((len(self.coefficients), len(angles)))
        for begin in range(0, len(angles), 256):  # bounds the table of sines
            part = slice(begin, begin + 256)
            result[:, part] = 1 - angles[part] / np.pi - 2 / np.pi * damped @ np.sin(np.outer(order, angles[part]))
        return result

    def moments(self) -> np.ndarray:
        """Return (samples, MOMENTS) means of powers of the eigenvalues."""
        line = np.polynomial.Polynomial([self.center, self.half])
        result = np.empty((len(self.coefficients), MOMENTS))
        for power in range(MOMENTS):
            series = np.polynomial.chebyshev.poly2cheb((line**power).coef)
            result[:, power] = self.coefficients[:, : len(series)] @ series
        return result


def jackson(terms: int) -> np.ndarray:
    """Return Jackson's damping factors (Weiße et al. 2006, equation 71).

    Not collective.
    """
    k, angle = np.arange(terms), np.pi / (terms + 1)
    return ((terms - k + 1) * np.cos(angle * k) + np.sin(angle * k) / np.tan(angle)) / (terms + 1)


def _size(ends: tuple[float, float]) -> float:
    """Return the size of the largest eigenvalue, to which errors are relative; 1 where all are zero."""
    return max(map(abs, ends)) or 1.0


def _shifted(points: np.ndarray, noise: float, size: float, inclusive: bool) -> np.ndarray:
    """Return points moved past what is at them, to the error of eigenvalues; or before it."""
    return np.asarray(points, np.float64) + (1 if inclusive else -1) * min(_AT * noise, 1e-6) * size


def bound_measure(
    nodes: np.ndarray, residuals: np.ndarray, recurrence: tuple[np.ndarray, np.ndarray], points: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what a measure has up to each point, and lower and upper bounds of it; see `Quadratures.below`.

    Not collective. At nodes of rules the middle of the bounds, and a line between them.

    Parameters
    ----------
    nodes, residuals, recurrence
        Of one sample, as in `Quadratures`.
    points
        (m,) places, in any order.
    """
    alpha, beta = recurrence
    size = float(np.abs(nodes).max() + beta[-1]) or 1.0
    rounding = 64 * _EPS * size
    asked = np.unique(points[np.isfinite(points)])
    asked = asked if len(asked) else nodes[:1]
    if len(asked) > _RULES:
        within = asked[(asked > nodes[0]) & (asked < nodes[-1])]
        asked = within if len(within) >= _RULES else asked
        asked = asked[np.unique(np.linspace(0, len(asked) - 1, _RULES).astype(np.int64))]
    at, corners = _corners(nodes, residuals, asked, size)
    matrices = np.zeros((len(at), len(alpha) + 1, len(alpha) + 1))
    inner = np.arange(len(alpha))
    matrices[:, inner, inner] = alpha
    matrices[:, inner, inner + 1] = matrices[:, inner + 1, inner] = beta
    matrices[:, -1, -1] = corners
    found, rotations = np.linalg.eigh(matrices)
    weights = rotations[:, 0] ** 2
    sums = np.cumsum(weights, axis=1)
    places, before, upto = found.ravel(), (sums - weights).ravel(), np.minimum(sums, 1.0).ravel()
    order = np.argsort(places, kind="stable")
    places = places[order]
    # What bounds the measure at a place bounds it at all places beyond.
    lower = np.concatenate([[0.0], np.maximum.accumulate(before[order])])
    upper = np.concatenate([np.minimum.accumulate(upto[order][::-1])[::-1], [1.0]])
    lower_at = lower[np.searchsorted(places, points + rounding, side="right")]
    upper_at = upper[np.searchsorted(places, points - rounding, side="left")]
    lower_at[points == np.inf] = 1.0
    upper_at[points == -np.inf] = 0.0
    lower_at = np.minimum(lower_at, upper_at)
    middle = 0.5 * (before + upto)[order]
    rising = 0.5 * (np.maximum.accumulate(middle) + np.minimum.accumulate(middle[::-1])[::-1])
    return np.clip(np.interp(points, places, rising), lower_at, upper_at), lower_at, upper_at


def _corners(
    nodes: np.ndarray, residuals: np.ndarray, asked: np.ndarray, size: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return nodes that rules are to have, and the last diagonal entry of Lanczos's matrix that gives each.

    A point as near to a node as makes the entry huge is taken between two that are somewhat farther away.
    """
    span = max(float(nodes[-1] - nodes[0]), _EPS * size)
    reach = _FAR * span
    asked = np.clip(asked, nodes[0] - 10 * span, nodes[-1] + 10 * span)
    apart = asked[:, None] - nodes
    nearest = np.abs(apart).argmin(axis=1)
    least = np.maximum(residuals[nearest] ** 2 / reach, 4 * _EPS * size)
    distance = apart[np.arange(len(asked)), nearest]
    near = np.abs(distance) < least
    around = nodes[nearest[near]]
    at = np.concatenate([asked[~near], around - least[near], around + least[near]])
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = residuals**2 / (nodes - at[:, None])
    return at, at + np.where(np.isfinite(shares), shares, 0.0).sum(axis=1)


def kernel_width(
    nodes: list[np.ndarray], weights: list[np.ndarray], ends: tuple[float, float], steps: int
) -> float:
    """Return a kernel width: the spacing of nodes where most of the weight is. Not collective."""
    spacings, shares = [], []
    for places, parts in zip(nodes, weights, strict=True):
        if len(places) > 1:
            gaps = np.diff(places)
            spacings.append(0.5 * (np.append(gaps, gaps[-1]) + np.insert(gaps, 0, gaps[0])))
            shares.append(np.minimum(parts, _HEAVIEST / len(places)))
    low, high = ends
    if low == high == 0.0:
        return NARROW
    least = max(1e-6 * (high - low), 1e-9 * max(abs(low), abs(high)), _TINY)
    if not spacings:
        return max(least, 1e-3 * max(abs(low), abs(high)))
    spacing, share = np.concatenate(spacings), np.concatenate(shares)
    order = np.argsort(spacing)
    middle = np.searchsorted(np.cumsum(share[order]), 0.5 * share.sum())
    typical = float(spacing[order][min(middle, len(order) - 1)])
    # Where eigenvalues are few their distances mean no width: then what the steps resolve of a smooth one.
    return max(least, min(typical, 0.5 * np.pi * (high - low) / steps))


def smoothed_by_kernel(
    nodes: list[np.ndarray], weights: list[np.ndarray], edges: np.ndarray, width: float
) -> np.ndarray:
    """Return (samples, len(edges) - 1) means over cells of measures, convolved with a Gaussian.

    Not collective. Means, not values: what is narrower than a cell is not missed, and nothing is counted twice.
    """
    from scipy.special import ndtr  # 60 ms on every rank, and seldom needed

    return np.array(
        [
            np.diff(ndtr((edges[:, None] - places) / width) @ parts) / np.diff(edges)
            for places, parts in zip(nodes, weights, strict=True)
        ]
    )
