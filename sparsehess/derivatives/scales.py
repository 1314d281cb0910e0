"""Scales: over which distance each variable's gradient changes, and how far it may move."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsehess.derivatives.evaluations import Evaluations
from sparsehess.derivatives.user_functions import typical_length
from sparsehess.errors import InputError
from sparsehess.runtime import agreement
from sparsehess.runtime.row_layout import Layout
from sparsehess.runtime.short_repr import ShortRepr


@dataclass(frozen=True, eq=False, repr=False)
class Scales(ShortRepr):
    """Typical lengths and bounds of the variables around a point.

    Attributes
    ----------
    x
        (n_local,) the point.
    length
        (n_local,) typical lengths.
    lower, upper
        (n_local,) bounds, infinite where there is none.
    given
        Whether the user gave the lengths: then no step goes by a longer one.
    """

    x: np.ndarray
    length: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    given: bool

    @classmethod
    def of(cls, evaluations: Evaluations) -> Scales:
        """Return the scales around the point of the evaluations. Collective.

        Raises
        ------
        InputError
            Lengths or bounds of the objective are none.
        """
        objective = evaluations.objective
        with agreement(evaluations.comm):
            typical, (lower, upper) = objective.typical, objective.limits
        length = lengths(evaluations.x, typical, evaluations.layout)
        return cls(evaluations.x, length, lower, upper, typical is not None)

    @property
    def room(self) -> np.ndarray:
        """(n_local,) distance to the nearer bound of each variable."""
        return np.minimum(self.upper - self.x, self.x - self.lower)

    @property
    def inward(self) -> tuple[np.ndarray, np.ndarray]:
        """(signs, room) (n_local,): of variables at a bound the free side, else 0; and how far they may move."""
        up, down = self.upper - self.x, self.x - self.lower
        beside = np.minimum(up, down) <= 0
        side = np.where(up > down, 1.0, -1.0)
        return np.where(beside, side, 0.0), np.where(beside, np.maximum(up, down), self.room)

    def inside(self, steps: np.ndarray) -> np.ndarray:
        """Return steps (n_local,) to both sides that go at most half of the way to a bound. Not collective."""
        return np.clip(steps, -0.5 * self.room, 0.5 * self.room)

    def check_room(self, layout: Layout) -> None:
        """Raise InputError where x is not between its bounds. Not collective."""
        x, lower, upper = self.x, self.lower, self.upper
        bad = np.flatnonzero(~((lower <= x) & (x <= upper) & (lower < upper)))
        if len(bad):
            i = bad[0]
            raise InputError(
                f"variable {layout.start + i} is {x[i]:g}, its bounds are {lower[i]:g} and {upper[i]:g}: x must "
                "lie between them, and a variable without room does not belong to the problem"
            )


def lengths(x: np.ndarray, typical: np.ndarray | None, layout: Layout) -> np.ndarray:
    """Return the typical length (n_local,) of each variable.

    Collective. What is given, else `user_functions.typical_length`.
    """
    if typical is not None:
        return typical
    return np.full(len(x), typical_length(layout.comm.allreduce(float(np.dot(x, x))), layout.n))
