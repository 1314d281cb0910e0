"""Pictures of patterns and colourings: squares that rank 0 counts the entries of."""

from __future__ import annotations

from mpi4py import MPI

import numpy as np

from sparsehess.coloring import Coloring
from sparsehess.pattern import Pattern


def pattern_picture(pattern: Pattern, bins: int = 300) -> np.ndarray | None:
    """Return how many entries fall into each of bins x bins squares, on rank 0; None elsewhere.

    Collective. No rank holds more than its own rows.
    """
    bins = max(1, min(bins, pattern.n))
    rows = np.repeat(np.arange(pattern.layout.start, pattern.layout.stop), np.diff(pattern.indptr))
    square = (rows * bins // pattern.n) * bins + pattern.indices.astype(np.int64) * bins // pattern.n
    own = np.bincount(square, minlength=bins * bins).astype(np.int64)
    total = np.zeros_like(own) if pattern.comm.rank == 0 else None
    pattern.comm.Reduce(own, total)
    return total.reshape(bins, bins) if total is not None else None


def colored_corner(pattern: Pattern, coloring: Coloring, size: int) -> np.ndarray | None:
    """Return the colours of the first rows and columns entry by entry (-1: none), on rank 0; None elsewhere.

    Collective.
    """
    size = min(size, pattern.n)
    rows = np.repeat(np.arange(pattern.layout.start, pattern.layout.stop), np.diff(pattern.indptr))
    inside = (rows < size) & (pattern.indices < size)
    own = np.full((size, size), -1, np.int32)
    own[rows[inside], pattern.indices[inside]] = coloring.with_ghosts[pattern.columns[inside]]
    whole = np.empty_like(own) if pattern.comm.rank == 0 else None
    pattern.comm.Reduce(own, whole, op=MPI.MAX)
    return whole
