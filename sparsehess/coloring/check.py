"""The definitions of the colouring kinds, checked on the colouring alone, on all ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpi4py import MPI

import numpy as np

from sparsehess.coloring import kernels
from sparsehess.errors import InputError
from sparsehess.pattern import Pattern
from sparsehess.pattern.kernels import mirrored

if TYPE_CHECKING:
    from sparsehess.coloring.coloring import Coloring


def alone_both_ways(pattern: Pattern, coloring: Coloring) -> tuple[np.ndarray, np.ndarray]:
    """Return two (nnz_local,) uint8: is entry (i, j) alone of its colour in row i; is (j, i) in row j.

    Collective.
    """
    own = kernels.alone_in_row(pattern.indptr, pattern.columns, coloring.with_ghosts, coloring.count)
    other = mirrored(pattern.indptr, pattern.columns.astype(pattern.indptr.dtype, copy=False), own, 0)
    remote = pattern.exchange.remote
    other[remote] = pattern.exchange.mirror(own[remote])
    return own, other


def verify(pattern: Pattern, coloring: Coloring) -> tuple[int, int] | None:
    """Return an entry that breaks the definition of the colouring's kind, or None if none does.

    Collective; the same answer on every rank.

    Parameters
    ----------
    pattern, coloring
        Of one layout.

    Returns
    -------
    tuple or None
        (row, column): for `star` an edge whose ends share a colour, or the middle edge of a path
        on four vertices with two colours; for `cpr` a column that shares its colour with another
        in this row. The entry of lowest row on the lowest rank.

    Notes
    -----
    Star: Coleman and Moré 1984, section 3. An edge (v, w) is in the middle of a two-coloured path
    exactly if c(w) stands twice around v and c(v) twice around w.
    """
    if not pattern.layout.same(coloring.layout):
        raise InputError("the colouring was made for another layout than the pattern's")
    color = coloring.with_ghosts
    if len(color) and (color.min() < 0 or color.max() >= coloring.count):
        broken = np.zeros(min(pattern.nnz_local, 1), np.int64)
        return _lowest(pattern, broken)
    own, other = alone_both_ways(pattern, coloring)
    if coloring.kind == "cpr":
        broken = np.flatnonzero(own == 0)
    else:
        # An edge within one class leaves the diagonal of its row not alone: the first test sees it.
        own_diagonal = pattern.columns == np.repeat(np.arange(pattern.layout.n_local), np.diff(pattern.indptr))
        broken = np.flatnonzero((own_diagonal & (own == 0)) | ((own == 0) & (other == 0)))
    return _lowest(pattern, broken)


def _lowest(pattern: Pattern, broken: np.ndarray) -> tuple[int, int] | None:
    comm = pattern.comm
    first = comm.allreduce(comm.rank if len(broken) else comm.size, op=MPI.MIN)
    if first == comm.size:
        return None
    return comm.bcast(pattern.entry(int(broken[0])) if comm.rank == first else None, root=first)
