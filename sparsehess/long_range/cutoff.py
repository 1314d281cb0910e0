"""The largest cut-off whose star colouring needs no more colours than there are gradients for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsehess.coloring import Coloring, color
from sparsehess.errors import InputError
from sparsehess.long_range.points import Points
from sparsehess.pattern import Pattern

# A radius grows or shrinks by this factor until it is between two, and is then told to this part of itself, as
# shells of crystals are sharp, or until this part of the colours is used.
_FACTOR, _CLOSE = 1.3, 1e-4
_USED = 0.9

# Nominal seconds for each colouring of the search.
_BUDGET = 0.05

# Times that a radius may grow or shrink.
_TRIES = 60


@dataclass(frozen=True, eq=False)
class NearField:
    """What is near, and its colouring.

    Attributes
    ----------
    radius
        The cut-off.
    pattern
        Of the variables; its quotient is that of the points.
    coloring
        A star colouring of it.
    complete
        Whether all points are near each other.
    """

    radius: float
    pattern: Pattern
    coloring: Coloring
    complete: bool


def largest_near_field(points: Points, bonds: np.ndarray, colors: int, seed: int) -> NearField:
    """Return the near field of the largest cut-off whose star colouring has no more than so many colours.

    Collective. The radius is found by bisection, until nine tenths of the colours are used or it is known to
    four digits.

    Parameters
    ----------
    bonds
        (m, 2) pairs of points that are near at whatever distance, the same on every rank.
    colors
        The most there may be.

    Raises
    ------
    InputError
        Bonds alone need more colours.
    """
    radius, widest = points.extent()
    found = _near_field(points, bonds, radius, widest, seed)
    low, high = (found, None) if found.coloring.count <= colors else (None, radius)
    for _ in range(_TRIES):
        if low is not None and (low.complete or high is not None):
            break
        radius = radius * _FACTOR if low is not None else radius / _FACTOR
        if low is None and _nothing_within(points, radius):
            radius = 0.0
        found = _near_field(points, bonds, radius, widest, seed)
        if found.coloring.count <= colors:
            low = found
        elif radius > 0:
            high = radius
        else:
            raise InputError(
                f"{'bonded pairs' if len(bonds) else 'single points'} alone need {found.coloring.count} colours, "
                f"and there are gradients for {max(colors, 0)} beside those of noise and error: allow "
                f"{found.coloring.count - colors} gradients more, or twice as many by central differences"
            )
    if low is None or low.complete:
        if low is None:
            raise InputError(f"no cut-off has a star colouring of {colors} colours: allow more gradients")
        return low
    while high is not None and high - low.radius > _CLOSE * high and low.coloring.count < _USED * colors:
        radius = np.sqrt(low.radius * high) if low.radius > 0 else high / _FACTOR
        if low.radius == 0 and _nothing_within(points, radius):
            break
        found = _near_field(points, bonds, float(radius), widest, seed)
        if found.coloring.count <= colors:
            low = found
        else:
            high = float(radius)
    return low


def _nothing_within(points: Points, radius: float) -> bool:
    """Return whether no two points are so near. Collective."""
    first, second = points.within(radius)
    return not points.layout.comm.allreduce(int((first != second).sum()))


def _near_field(points: Points, bonds: np.ndarray, radius: float, widest: float, seed: int) -> NearField:
    first, second = points.within(radius)
    rows, columns = np.concatenate([first, bonds[:, 0]]), np.concatenate([second, bonds[:, 1]])
    layout = points.layout
    pattern = Pattern.from_pairs(rows, columns, layout.n, layout=layout, source=f"points within {radius:.4g}")
    complete = radius >= widest or pattern.nnz == layout.n**2
    pattern = pattern.with_dofs(points.dims)
    return NearField(radius, pattern, color(pattern, seed=seed, budget=_BUDGET), complete)
