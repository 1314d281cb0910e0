"""What samples say of a spectrum: a measure for each starting vector, by quadratures or by Chebyshev moments.

Both kinds answer the same questions, a row for each sample: `smoothed`, `below`, `moments`. Fractions are of the
space that the operator acts on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_TINY = float(np.finfo(float).tiny)

# No more raw moments than these are reported: mean, spread, skewness and kurtosis follow from them.
MOMENTS = 5

# In a measure of m nodes none counts for more than this many of them where the width is chosen: a large atom
# says nothing of the spread of the rest.
_HEAVIEST = 4.0

# So many times the error of a node it is still at a point.
_AT = 1e3


# The width of a kernel where all eigenvalues are zero, and no size tells what is narrow.
NARROW = 1e-3


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
    steps
        That each run was allowed.
    noise
        Error of the nodes relative to the largest: a node as near as this to a point is at the point.
    """

    nodes: list[np.ndarray]
    weights: list[np.ndarray]
    residuals: list[np.ndarray]
    steps: int
    noise: float

    @property
    def range(self) -> tuple[float, float]:
        """Least and greatest node."""
        return min(float(nodes[0]) for nodes in self.nodes), max(float(nodes[-1]) for nodes in self.nodes)

    def width(self) -> float:
        """Return a kernel width that the samples resolve: the spacing of nodes where most eigenvalues are."""
        spacings, shares = [], []
        for nodes, weights in zip(self.nodes, self.weights, strict=True):
            if len(nodes) > 1:
                gaps = np.diff(nodes)
                spacings.append(0.5 * (np.append(gaps, gaps[-1]) + np.insert(gaps, 0, gaps[0])))
                shares.append(np.minimum(weights, _HEAVIEST / len(nodes)))
        low, high = self.range
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
        return max(least, min(typical, 0.5 * np.pi * (high - low) / self.steps))

    def smoothed(self, edges: np.ndarray, width: float) -> np.ndarray:
        """Return (samples, len(edges) - 1) means over cells of the measures, convolved with a Gaussian.

        Means, not values: what is narrower than a cell is not missed, and nothing is counted twice.
        """
        from scipy.special import ndtr  # 60 ms on every rank, and seldom needed

        return np.array(
            [
                np.diff(ndtr((edges[:, None] - nodes) / width) @ weights) / np.diff(edges)
                for nodes, weights in zip(self.nodes, self.weights, strict=True)
            ]
        )

    def below(self, points: np.ndarray, *, inclusive: bool = True) -> np.ndarray:
        """Return (samples, m) fractions of eigenvalues up to each point.

        The staircase of the quadrature where its nodes are eigenvalues. The weight of any other node belongs to
        eigenvalues on both sides of it (the inequalities of Chebyshev, Markov and Stieltjes), and is spread evenly
        up to halfway to its neighbours, or as far as its residual where that is less.
        """
        size = max(map(abs, self.range))
        shifted = np.asarray(points) + (1 if inclusive else -1) * min(_AT * self.noise, 1e-6) * size
        rows = []
        for nodes, weights, residuals in zip(self.nodes, self.weights, self.residuals, strict=True):
            halves = 0.5 * np.diff(nodes)
            left = nodes - np.minimum(residuals, np.append(np.inf, halves))
            right = nodes + np.minimum(residuals, np.append(halves, np.inf))
            # Beyond the outermost nodes there is less to come than within.
            left[0], right[-1] = max(left[0], 2 * nodes[0] - right[0]), min(right[-1], 2 * nodes[-1] - left[-1])
            total = np.concatenate([[0.0], np.cumsum(weights)])
            rows.append(np.interp(shifted, np.stack([left, right], 1).ravel(), np.repeat(total, 2)[1:-1]))
        return np.array(rows)

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
    """

    coefficients: np.ndarray
    center: float
    half: float

    @property
    def range(self) -> tuple[float, float]:
        """The interval, which holds the spectrum."""
        return self.center - self.half, self.center + self.half

    def width(self) -> float:
        """Return the width of Jackson's kernel in the middle of the interval (equation 56)."""
        return np.pi * self.half / self.coefficients.shape[1]

    def smoothed(self, edges: np.ndarray, width: float) -> np.ndarray:
        """Return (samples, len(edges) - 1) means over cells of the damped series."""
        return np.diff(self.below(edges), axis=1) / np.diff(edges)

    def below(self, points: np.ndarray, *, inclusive: bool = True) -> np.ndarray:
        """Return (samples, m) fractions of eigenvalues up to each point: the damped series, integrated.

        Di Napoli, Polizzi, Saad 2016, "Efficient estimation of eigenvalue counts in an interval", equation 11.
        """
        angles = np.arccos(np.clip((np.asarray(points) - self.center) / self.half, -1.0, 1.0))
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
