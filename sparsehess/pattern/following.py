"""Patterns that move with x: atoms that pass each other, contacts that open and close."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from mpi4py import MPI

import numpy as np

from sparsehess.errors import InputError
from sparsehess.pattern.sparsity_pattern import Pattern
from sparsehess.runtime.short_repr import ShortRepr, number_of

if TYPE_CHECKING:
    from petsc4py import PETSc

# As long as no more than this part of the entries is out of reach, they are kept: dropping them costs a new
# colouring, keeping them a few colours.
_OBSOLETE = 0.25


class Following(ShortRepr):
    """A pattern with a margin that is made anew only when some point has moved through the margin.

    Not collective to make. It is a neighbour list with a skin [1]_: what is coupled within its reach plus
    `skin` stays a superset of what is coupled until two points have come closer by `skin`, that is until one
    has moved by half of it. Entries that a new list lacks are dropped only when they have become many.

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

    Raises
    ------
    InputError
        The skin or the number of dimensions is not positive.

    References
    ----------
    .. [1] L. Verlet, Computer "experiments" on classical fluids I, Physical Review 159 (1967), 98-103.

    Examples
    --------
    Points on a line, coupled up to a distance of 1.5; a move of 0.1 stays within the skin.

    >>> import numpy as np
    >>> import sparsehess as sh
    >>> def pairs_within(x, margin):
    ...     first, second = np.nonzero(np.abs(x[:, None] - x) < 1.5 + margin)
    ...     return sh.Pattern.from_pairs(first, second, len(x))
    >>> following = sh.Following(pairs_within, skin=0.4, dimensions=1)
    >>> x = np.arange(5.0)
    >>> following.at(x).nnz, following.at(x + 0.1).nnz, following.built
    (13, 13, 1)
    >>> following.at(0.5 * x).nnz, following.built
    (23, 2)
    """

    def __init__(self, build: Callable[..., Pattern], skin: float, dimensions: int = 3):
        if not skin > 0 or dimensions < 1:
            raise InputError(f"skin={skin}, dimensions={dimensions}: both must be positive")
        self.build, self.skin, self.dimensions = build, float(skin), int(dimensions)
        self.built = 0
        self._last: tuple[Pattern, np.ndarray] | None = (
            None  # a pattern, and where the points were when it was made
        )

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        yield f"skin {self.skin:.6g}"
        yield f"points of {number_of(self.dimensions, 'coordinate')}"
        yield f"built {number_of(self.built, 'time')}"

    def at(self, x: np.ndarray | PETSc.Vec) -> Pattern:
        """Return a pattern that holds at x: the one returned last, if it still does.

        Collective.

        Parameters
        ----------
        x
            (n,) ndarray that every rank holds, or a PETSc Vec; its points lie on one rank each.

        Raises
        ------
        InputError
            `build` returned a pattern of other rows on a rank than before.
        """
        here = np.array(x if isinstance(x, np.ndarray) else x.getArray(readonly=True))
        if self._last is not None:
            last, there = self._last
            moved = (here - there).reshape(-1, self.dimensions)
            farthest = float(np.sqrt((moved**2).sum(axis=1)).max(initial=0.0))
            if 2 * last.comm.allreduce(farthest, op=MPI.MAX) <= self.skin:
                return last
        pattern = self.build(x, self.skin)
        self.built += 1
        if self._last is not None:
            pattern = _merged(self._last[0], pattern)
        self._last = pattern, here
        return pattern


def _merged(old: Pattern, new: Pattern) -> Pattern:
    """Return the old pattern where it holds all of the new one, their union, or the new one. Collective."""
    if not new.layout.same(old.layout):
        raise InputError("a pattern that follows x must keep its variables and their layout")
    before, after = _keys(old), _keys(new)
    counts = np.array([len(np.setdiff1d(before, after)), len(np.setdiff1d(after, before)), len(after)], np.int64)
    old.comm.Allreduce(MPI.IN_PLACE, counts)
    gone, added, many = counts.tolist()
    if gone > _OBSOLETE * many:
        return new
    if added:
        return _union(old, new)
    new.free()
    return old


def _keys(pattern: Pattern) -> np.ndarray:
    rows = np.repeat(np.arange(pattern.layout.start, pattern.layout.stop), np.diff(pattern.indptr))
    return rows * pattern.n + pattern.indices


def _union(old: Pattern, new: Pattern) -> Pattern:
    """Return the entries of both, in the groups that both declare. Collective."""
    first, second = old, new
    if old.quotient is not None and new.quotient is not None:
        first, second = old.quotient, new.quotient
    keys = np.union1d(_keys(first), _keys(second))
    rows, columns = keys // first.n, keys % first.n
    return Pattern.from_pairs(rows, columns, first.n, layout=first.layout, source=new.source).with_dofs(
        new.n // first.n
    )
