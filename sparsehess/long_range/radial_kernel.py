"""The far part: for every two points that are not near, f(r) I + g(r) r̂ r̂ᵀ, weighted by what the points are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sparsehess.long_range.points import Points, Share
from sparsehess.pattern import Pattern
from sparsehess.runtime.short_repr import ShortRepr, number_of

# Points of two shares whose pairs are taken together: what they need stays in a cache.
_ROWS, _COLUMNS = 64, 512


@dataclass(frozen=True)
class Shape:
    """Radial functions: Chebyshev polynomials in 1/r, from the cut-off to the widest distance.

    Attributes
    ----------
    least, most
        Distances between which they are orthogonal.
    """

    least: float
    most: float

    def functions(self, r: np.ndarray, many: int) -> np.ndarray:
        """Return (many, ...) their values at distances. Not collective."""
        out = np.empty((many, *r.shape))
        out[0] = 1.0
        if many > 1:
            out[1] = 2 * (1 / r - 1 / self.most) / (1 / self.least - 1 / self.most) - 1
        for k in range(2, many):
            np.multiply(out[1], out[k - 1], out=out[k])
            out[k] *= 2
            out[k] -= out[k - 2]
        return out


class Pairs:
    """The pairs of two lots of points, as far as they are far from each other.

    Not collective.

    Attributes
    ----------
    r
        (m, k) distances; 1 where a pair is near.
    unit
        (d, m, k) directions.
    weights
        (weights, m, k), 0 where a pair is near.
    """

    def __init__(self, points: Points, near: Pattern, left: Share, right: Share):
        apart = points.apart(left.positions, right.positions)
        squares = np.einsum("ijd,ijd->ij", apart, apart)
        rows, columns = _near_pairs(near, left, right)
        squares[rows, columns] = 1.0
        self.r = np.sqrt(squares)
        self.unit = np.ascontiguousarray(np.moveaxis(apart / self.r[..., None], 2, 0))
        self.weights = _weights(points.kinds, left, right)
        self.weights[:, rows, columns] = 0.0


def weights_of(points: Points) -> int:
    """Return how many weights a pair has: one for each two labels, and the product of charges. Not collective."""
    return points.kinds * (points.kinds + 1) // 2 + (points.own.charges is not None)


def _weights(kinds: int, left: Share, right: Share) -> np.ndarray:
    low = np.minimum(left.labels[:, None], right.labels[None])
    high = np.maximum(left.labels[:, None], right.labels[None])
    number = low * kinds - low * (low - 1) // 2 + high - low
    weights = [(number == one).astype(np.float64) for one in range(kinds * (kinds + 1) // 2)]
    if left.charges is not None and right.charges is not None:
        weights.append(np.multiply.outer(left.charges, right.charges))
    return np.stack(weights)


def _near_pairs(near: Pattern, left: Share, right: Share) -> tuple[np.ndarray, np.ndarray]:
    """Return (rows, columns) of the near pairs of two lots, numbered in each; the left ones are this rank's."""
    begin = left.first - near.layout.start
    ends = near.indptr[begin : begin + len(left.positions) + 1]
    columns = near.indices[ends[0] : ends[-1]].astype(np.int64) - right.first
    rows = np.repeat(np.arange(len(left.positions)), np.diff(ends))
    here = (columns >= 0) & (columns < len(right.positions))
    return rows[here], columns[here]


@dataclass(frozen=True, eq=False, repr=False)
class RadialKernel(ShortRepr):
    """A far part of pair terms, applied on the fly.

    Attributes
    ----------
    points
        Between which it acts.
    near
        Pattern of the points that are near: between them it is nothing.
    shape
        The radial functions.
    coefficients
        (functions, weights, 2) those of f and of g.
    misfit
        Relative, of the readings that were held out of the fit.
    """

    points: Points
    near: Pattern
    shape: Shape
    coefficients: np.ndarray
    misfit: float

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        yield number_of(self.coefficients.size, "radial function")
        yield f"misfit {self.misfit:.1e} where held out"

    def products(self, X: np.ndarray) -> np.ndarray:
        """Return its products with X (n_local, k), as (n_local, k).

        Collective. As much work as there are pairs of points, shared by the ranks.
        """
        points, dims = self.points, self.points.dims
        m, k = points.layout.n_local, X.shape[1]
        out = np.zeros((m, dims, k))
        for share, rows in points.shares(np.ascontiguousarray(X)):
            others = rows.reshape(-1, dims, k)
            for begin in range(0, m, _ROWS):
                left = points.own.part(begin, min(begin + _ROWS, m))
                for start in range(0, len(others), _COLUMNS):
                    stop = min(start + _COLUMNS, len(others))
                    self._add(left, share.part(start, stop), others[start:stop], out[begin : begin + _ROWS])
        return out.reshape(m * dims, k)

    def one_block(self) -> int:
        """Do what a product does with one block of this rank's points; return how many pairs that were.

        Not collective.
        """
        left, right = (self.points.own.part(0, many) for many in (_ROWS, _COLUMNS))
        rows, columns, dims = len(left.positions), len(right.positions), self.points.dims
        self._add(left, right, np.ones((columns, dims, 1)), np.zeros((rows, dims, 1)))
        return rows * columns

    def _add(self, left: Share, right: Share, X: np.ndarray, out: np.ndarray) -> None:
        """Add the products of the pairs of two lots with X (points, d, k) to out (points, d, k)."""
        pairs = Pairs(self.points, self.near, left, right)
        many, weights, _ = self.coefficients.shape
        functions = self.shape.functions(pairs.r, many).reshape(many, -1)
        values = self.coefficients.reshape(many, -1).T @ functions
        f, g = (values.reshape(weights, 2, *pairs.r.shape) * pairs.weights[:, None]).sum(axis=0)
        unit, dims = pairs.unit, len(pairs.unit)
        for a in range(dims):
            out[:, a] += f @ X[:, a]
            steep = g * unit[a]
            for b in range(dims):
                out[:, a] += (steep * unit[b]) @ X[:, b]
