"""Patterns that move with x: atoms that pass each other, contacts that open and close."""

from __future__ import annotations

from collections.abc import Callable

from mpi4py import MPI

import numpy as np

from sparsehess.errors import InputError
from sparsehess.pattern.sparsity_pattern import Pattern

# As long as no more than this part of the entries is out of reach, they are kept: dropping them costs a new
# colouring, keeping them a few colours.
_OBSOLETE = 0.25


class Following:
    """A pattern made with a margin, and made anew only when some point has moved through it.

    As a neighbour list with a skin (Verlet 1967): what is coupled within its reach plus `skin` stays a
    superset of what is coupled until two points have come closer by `skin`, that is until one has moved by
    half of it. Entries that a new list lacks are dropped only when they have become many.

    Parameters
    ----------
    build
        `build(x, margin) -> Pattern`, collective: all that is coupled when every reach is longer by
        `margin`. x is of the kind of the objective's x.
    skin
        The margin, in the units of x.
    dimensions
        Coordinates of a point; variables come point by point.

    Attributes
    ----------
    built
        How often `build` was called.
    """

    def __init__(self, build: Callable, skin: float, dimensions: int = 3):
        if not skin > 0 or dimensions < 1:
            raise InputError(f"skin={skin}, dimensions={dimensions}: both must be positive")
        self.build, self.skin, self.dimensions = build, float(skin), int(dimensions)
        self.built = 0
        self._pattern: Pattern | None = None
        self._there: np.ndarray | None = None  # where the points were when the pattern was made

    def at(self, x) -> Pattern:
        """Return a pattern that holds at x: the one returned last, if it still does.

        Collective.
        """
        here = np.array(x if isinstance(x, np.ndarray) else x.getArray(readonly=True))
        old = self._pattern
        if old is not None:
            moved = (here - self._there).reshape(-1, self.dimensions)
            farthest = float(np.sqrt((moved**2).sum(axis=1)).max(initial=0.0))
            if 2 * old.comm.allreduce(farthest, op=MPI.MAX) <= self.skin:
                return old
        new = self.build(x, self.skin)
        self.built += 1
        self._there = here
        if old is None:
            self._pattern = new
            return new
        if not new.layout.same(old.layout):
            raise InputError("a pattern that follows x must keep its variables and their layout")
        both = _keys(old), _keys(new)
        counts = np.array([len(np.setdiff1d(*both)), len(np.setdiff1d(*both[::-1])), len(both[1])], np.int64)
        old.comm.Allreduce(MPI.IN_PLACE, counts)
        gone, added, many = counts.tolist()
        if gone <= _OBSOLETE * many:
            if not added:
                new.free()
                return old
            new = _union(old, new)
        self._pattern = new
        return new


def _keys(pattern: Pattern) -> np.ndarray:
    rows = np.repeat(np.arange(pattern.layout.start, pattern.layout.stop), np.diff(pattern.indptr))
    return rows * pattern.n + pattern.indices


def _union(old: Pattern, new: Pattern) -> Pattern:
    """Return the entries of both, in the groups that both declare. Collective."""
    grouped = old.quotient is not None and new.quotient is not None
    first, second = (old.quotient, new.quotient) if grouped else (old, new)
    keys = np.union1d(_keys(first), _keys(second))
    union = Pattern.from_pairs(
        keys // first.n, keys % first.n, first.n, layout=first.layout, source=new.source
    )  # fmt: skip
    return union.with_dofs(new.n // first.n)
