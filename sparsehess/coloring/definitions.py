"""The definitions of the colouring kinds, checked on the colouring alone, on all ranks."""

from __future__ import annotations

from mpi4py import MPI

import numpy as np

from sparsehess.coloring import graph_kernels
from sparsehess.coloring.coloring import Coloring
from sparsehess.coloring.kinds import KINDS
from sparsehess.coloring.substitution import unreachable
from sparsehess.errors import InputError
from sparsehess.pattern import Pattern


def directly_readable(pattern: Pattern, coloring: Coloring) -> tuple[np.ndarray, np.ndarray]:
    """Return two (nnz_local,) uint8: is entry (i, j) alone of its colour in row i; is (j, i) in row j.

    Collective. Structural zeros are in nobody's way, and are not alone themselves.
    """
    own = graph_kernels.alone_in_row(
        pattern.indptr, pattern.columns, coloring.with_ghosts, coloring.count, pattern.hollow_rows
    )
    return own, pattern.transposed(own)


def verify_coloring(pattern: Pattern, coloring: Coloring) -> tuple[int, int] | None:
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
        on four vertices with two colours; for `cpr` and `distance2` a column that shares its colour
        with another in this row; for `acyclic` an edge whose ends share a colour, or an edge of a
        two-coloured cycle or between two of them; for `powell-toint` an entry of a row that no order
        of the rows makes triangular. The entry of lowest row on the lowest rank.

    Raises
    ------
    InputError
        The colouring has other rows on each rank than the pattern.

    Notes
    -----
    Star ([1]_, section 3): an edge (v, w) is in the middle of a two-coloured path exactly if c(w) stands
    twice around v and c(v) twice around w. This costs O(nnz) and two exchanges with the neighbours.
    Acyclic and triangular: leaf after leaf, or row after row, is taken, and nothing may be left.

    References
    ----------
    .. [1] T. F. Coleman, J. J. Moré, Estimation of sparse Hessian matrices and graph coloring problems,
       Mathematical Programming 28 (1984), 243-270.

    Examples
    --------
    >>> from dataclasses import replace
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> chain = sh.Pattern.from_pairs([0, 1, 2], [1, 2, 3], 4)
    >>> coloring = sh.color(chain)
    >>> sh.verify_coloring(chain, coloring) is None
    True
    >>> two_colors = np.array([0, 1, 0, 1], np.int32)  # a path of four vertices
    >>> sh.verify_coloring(chain, replace(coloring, colors=two_colors))
    (1, 2)
    """
    if not pattern.layout.same(coloring.layout):
        raise InputError("the colouring was made for another layout than the pattern's")
    color = coloring.with_ghosts
    kind = KINDS[coloring.kind]
    lowest = 0 if kind.elimination is not None else -1  # only direct recovery has neutral variables
    outside = len(color) > 0 and (color.min() < lowest or color.max() >= coloring.count)
    if pattern.comm.allreduce(outside, op=MPI.LOR):
        return lowest_entry(pattern, np.zeros(min(pattern.nnz_local, 1) if outside else 0, np.int64))
    if kind.elimination is not None:
        clash = lowest_entry(pattern, np.flatnonzero(_within_a_class(pattern, color)))
        if clash is not None:
            return clash
        return lowest_entry(pattern, unreachable(pattern, coloring, kind.elimination))
    own, other = directly_readable(pattern, coloring)
    if coloring.kind == "star":
        # An edge within one class leaves the diagonal of its row not alone, if there is a diagonal.
        diagonal = pattern.columns == np.repeat(np.arange(pattern.layout.n_local), np.diff(pattern.indptr))
        broken = (diagonal & (own == 0)) | ((own == 0) & (other == 0)) | _within_a_class(pattern, color)
    else:  # neutral columns are read from their mirrors
        broken = (own == 0) & ((color[pattern.columns] >= 0) | (other == 0))
    broken = np.flatnonzero(broken)
    return lowest_entry(pattern, broken[~pattern.structural_zeros(broken)])


def _within_a_class(pattern: Pattern, color: np.ndarray) -> np.ndarray:
    """Return (nnz_local,) bool: an edge whose ends have one colour."""
    rows = np.repeat(np.arange(pattern.layout.n_local, dtype=np.int32), np.diff(pattern.indptr))
    return (color[rows] == color[pattern.columns]) & (rows != pattern.columns) & (color[rows] >= 0)


def lowest_entry(pattern: Pattern, broken: np.ndarray) -> tuple[int, int] | None:
    """Return (row, column) of the first of these local entries, of the lowest rank that has some, or None.

    Collective.
    """
    comm = pattern.comm
    first = comm.allreduce(comm.rank if len(broken) else comm.size, op=MPI.MIN)
    if first == comm.size:
        return None
    return comm.bcast(pattern.entry(int(broken[0])) if comm.rank == first else None, root=first)
