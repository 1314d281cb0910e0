"""Passes that take a colouring and return one with no more colours."""

from __future__ import annotations

from mpi4py import MPI

import numpy as np

from sparsehess.coloring import ejection_kernels
from sparsehess.coloring.distributed_greedy import Greedy, color_greedily, color_vertices
from sparsehess.coloring.greedy_kernels import Rule
from sparsehess.coloring.local_graph import Region
from sparsehess.coloring.vertex_orders import Order
from sparsehess.pattern import Pattern


def class_sizes(region: Region, colors: np.ndarray, count: int) -> np.ndarray:
    """Return (count,) vertices of each colour over all ranks.

    Collective.
    """
    sizes = np.bincount(colors, minlength=count).astype(np.int64)
    total = np.empty_like(sizes)
    region.comm.Allreduce(sizes, total)
    return total


def reverse_classes(region: Region, rule: type[Rule], found: Greedy, seed: int) -> Greedy:
    """Return a greedy colouring that takes the classes in reverse order.

    Collective. For a distance-2 colouring (an ordinary one of the square of the graph) it has no more
    colours than the one before (Culberson 1992); for star and acyclic ones it may have more.
    """
    level = (found.count - 1 - found.colors).astype(np.int64)
    return color_greedily(region, rule, Order(level, found.count, seed=seed))


def dissolve_class(region: Region, state: ejection_kernels.Distance2, count: int) -> Greedy:
    """Return a colouring whose smallest class found other colours; `left` is not 0 if that failed.

    Collective. On success the state holds the colouring returned and can lose the next class.
    """
    sizes = class_sizes(region, state.color[: region.own], count)
    state.release(int(np.argmin(sizes)), count - 1)
    return resume_ejection(region, state, count)


def resume_ejection(region: Region, state: ejection_kernels.Distance2, count: int) -> Greedy:
    """Return what goes on from where `dissolve_class` or this function failed.

    Collective. Vertices keep the weights they have got.
    """
    return color_vertices(region, state, Order(None, 1), wanted=state.color[: region.own] < 0, limit=count - 1)


def neutral_classes(
    pattern: Pattern, colors: np.ndarray, own: np.ndarray, other: np.ndarray, count: int
) -> np.ndarray:
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
