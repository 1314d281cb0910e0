"""Passes that take a colouring and return one with no more colours."""

from __future__ import annotations

from mpi4py import MPI

import numpy as np

from sparsehess.coloring.orders import Order
from sparsehess.coloring.region import Region
from sparsehess.coloring.schedule import Greedy, greedy
from sparsehess.pattern import Pattern

# Classes tried, the smallest first, before an elimination gives up.
_TRIED = 3


def class_sizes(region: Region, colors: np.ndarray, count: int) -> np.ndarray:
    """Return (count,) vertices of each colour over all ranks.

    Collective.
    """
    sizes = np.bincount(colors, minlength=count).astype(np.int64)
    total = np.empty_like(sizes)
    region.comm.Allreduce(sizes, total)
    return total


def recolored(region: Region, rule, found: Greedy, seed: int) -> Greedy:
    """Return a greedy colouring that takes the classes in reverse order.

    Collective. For a distance-2 colouring (an ordinary one of the square of the graph) it has no more
    colours than the one before (Culberson 1992); for star and acyclic ones it may have more.
    """
    level = (found.count - 1 - found.colors).astype(np.int64)
    return greedy(region, rule, Order(level, found.count, seed=seed))


def without_a_class(region: Region, rule, found: Greedy) -> tuple[Greedy, bool]:
    """Return a colouring in which the vertices of a small class moved to others, and whether all did.

    Collective. Vertices that found no place stay; the colouring is valid either way.
    """
    sizes = class_sizes(region, found.colors, found.count)
    for leaving in np.argsort(sizes, kind="stable")[:_TRIED]:
        last = found.count - 1
        names = np.arange(found.count, dtype=np.int32)
        names[[leaving, last]] = last, leaving
        colors = names[found.colors]
        order = Order(None, 1)
        moved = greedy(region, rule, order, fixed=np.where(colors == last, -1, colors), limit=last)
        colors = np.where(moved.colors < 0, last, moved.colors)
        traffic = found.traffic + moved.traffic
        if moved.left == 0:
            return Greedy(colors, moved.count, 0, traffic), True
        found = Greedy(colors, found.count, 0, traffic)
    return found, False


def neutral(pattern: Pattern, colors: np.ndarray, own: np.ndarray, other: np.ndarray, count: int) -> np.ndarray:
    """Return (count,) bool: classes of a direct colouring that no recovery needs.

    Collective. A class is needed by the diagonals of its vertices, and by entries in its columns that
    cannot be read from their mirrors; of two classes that could read each other's entries one is needed.

    Parameters
    ----------
    colors
        (n_local + ghosts,).
    own, other
        (nnz_local,) whether an entry, and its mirror, stands alone of its column's colour in its row.
    """
    needed = np.zeros((count, count), bool)  # by the entries between two classes; the diagonal by itself
    rows = np.repeat(np.arange(pattern.layout.n_local), np.diff(pattern.indptr))
    diagonal = rows == pattern.columns
    at, of = colors[rows], colors[pattern.columns]
    read = ~(diagonal & pattern.hollow_rows[rows].astype(bool))
    must = read & (diagonal | (other == 0))
    needed[of[must], of[must]] = True
    either = read & ~diagonal
    needed[at[either], of[either]] = True
    comm = pattern.comm
    total = np.empty_like(needed)
    comm.Allreduce(needed, total, op=MPI.LOR)
    total |= total.T
    free = np.zeros(count, bool)
    for c in range(count):
        free[c] = not total[c, c] and not total[c, free].any()
    return free
