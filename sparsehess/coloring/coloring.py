"""`Coloring`, and `color()` which makes one."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sparsehess.coloring import bounds, kernels, orders
from sparsehess.errors import InputError
from sparsehess.pattern import Layout, Pattern
from sparsehess.pattern.layout import offsets
from sparsehess.runtime import agreement


@dataclass(frozen=True)
class Kind:
    """A colouring kind: how it is made and what bounds it from below."""

    make: object  # (indptr, indices, order) -> colours
    bound: object  # Pattern -> int
    meaning: str


KINDS = {
    "star": Kind(kernels.star, bounds.star, "star colouring, direct recovery by symmetry"),
    "cpr": Kind(kernels.distance2, bounds.columns, "Curtis-Powell-Reid column partition"),
}
ORDERS = {
    "natural": orders.natural,
    "largest-first": orders.largest_first,
    "smallest-last": orders.smallest_last,
}


@dataclass(frozen=True, eq=False)
class Coloring:
    """A colour for every variable.

    Attributes
    ----------
    layout
        Rows of each rank.
    colors
        (n_local,) int32, from 0.
    ghost_colors
        (ghosts,) int32, of the pattern's ghost columns.
    count
        Number of colours, the same on every rank.
    kind, order
        Keys of `KINDS` and `ORDERS`.
    lower_bound
        No colouring of this kind has fewer colours.
    seconds
        Time of the colouring alone.
    """

    layout: Layout
    colors: np.ndarray
    ghost_colors: np.ndarray
    count: int
    kind: str
    order: str
    lower_bound: int
    seconds: float

    @cached_property
    def with_ghosts(self) -> np.ndarray:
        """(n_local + ghosts,) colours by local column number."""
        return np.concatenate([self.colors, self.ghost_colors]) if len(self.ghost_colors) else self.colors


def color(pattern: Pattern, *, kind: str = "star", order: str = "smallest-last") -> Coloring:
    """Color a pattern.

    Collective. The result does not depend on the number of ranks: the structure is gathered on
    rank 0, coloured there and dealt out, which takes memory for the whole pattern on that rank.

    Parameters
    ----------
    pattern
        What may be coupled.
    kind
        `star`: fewest evaluations, recovery by symmetry (Gebremedhin et al. 2007, algorithm 4.1).
        `cpr`: columns that share no row (Curtis, Powell, Reid 1974).
    order
        `natural`, `largest-first` or `smallest-last`.

    Raises
    ------
    InputError
        Unknown kind or order.
    """
    for name, value, table in (("kind", kind, KINDS), ("order", order, ORDERS)):
        if value not in table:
            raise InputError(f"{name} {value!r} is none of {', '.join(table)}")
    comm, layout = pattern.comm, pattern.layout
    began = time.perf_counter()
    gathered = _gather(pattern)
    colors = None
    with agreement(comm):
        if comm.rank == 0:
            colors = KINDS[kind].make(*gathered, ORDERS[order](*gathered))
    count = comm.bcast(int(colors.max(initial=-1)) + 1 if comm.rank == 0 else None)
    if comm.size > 1:
        own = np.empty(layout.n_local, np.int32)
        comm.Scatterv([colors, (layout.counts, offsets(layout.counts))] if comm.rank == 0 else None, own)
        colors = own
    ghosts = pattern.exchange.halo(colors)[layout.n_local :]
    seconds = time.perf_counter() - began
    return Coloring(layout, colors, ghosts, count, kind, order, KINDS[kind].bound(pattern), seconds)


def _gather(pattern: Pattern) -> tuple[np.ndarray, np.ndarray] | None:
    """Return (indptr, indices) of all rows on rank 0, None elsewhere."""
    comm = pattern.comm
    if comm.size == 1:
        return pattern.indptr, pattern.indices
    lengths = np.diff(pattern.indptr).astype(np.int64)
    indices = pattern.indices.astype(np.int64, copy=False)
    sizes = comm.gather(len(indices))
    if comm.rank != 0:
        comm.Gatherv(lengths, None)
        comm.Gatherv(indices, None)
        return None
    counts, sizes = pattern.layout.counts, np.array(sizes)
    all_lengths = np.empty(pattern.n, np.int64)
    comm.Gatherv(lengths, [all_lengths, (counts, offsets(counts))])
    all_indices = np.empty(sizes.sum(), np.int64)
    comm.Gatherv(indices, [all_indices, (sizes, offsets(sizes))])
    return np.concatenate([[0], np.cumsum(all_lengths)]), all_indices
