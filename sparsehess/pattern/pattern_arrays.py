"""Arrays of a pattern: what a caller gives, checked; rows that are compressed; mirrors of entries."""

from __future__ import annotations

from typing import Any

from mpi4py import MPI

import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike

from sparsehess.errors import InputError
from sparsehess.pattern import pattern_kernels
from sparsehess.runtime.row_layout import Layout, send_to_owners

# Pairs that a rank sends at once.
_PIECE = 2**17


def as_sparse(matrix: Any) -> scipy.sparse.spmatrix:
    """Return a sparse matrix of what may be a dense one. Not collective."""
    if not scipy.sparse.issparse(matrix):
        if hasattr(matrix, "adjacency"):
            raise InputError("this is a graph: Pattern.from_networkx takes it")
        try:
            dense = np.asarray(matrix)
        except Exception as error:  # other libraries may raise anything
            raise InputError(f"a pattern must be a matrix: {' '.join(str(error).split())}") from error
        if dense.ndim != 2 or dense.dtype.kind not in "biufc":
            raise InputError(
                f"from_scipy takes a SciPy sparse matrix, or a dense one, not {type(matrix).__name__} "
                f"({dense.dtype} of shape {dense.shape})"
            )
        return scipy.sparse.csr_matrix(dense != 0)
    if len(matrix.shape) != 2:
        raise InputError(f"a Hessian is a square matrix; this sparse array has the shape {matrix.shape}")
    return matrix


def as_integers(values: ArrayLike, name: str) -> np.ndarray:
    """Return whole numbers as an array, of the type they have. Not collective."""
    try:
        array = np.asarray(values)
    except Exception as error:  # other libraries may raise anything
        raise InputError(f"{name} must be whole numbers: {' '.join(str(error).split())}") from error
    if array.size == 0:
        return array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise InputError(f"{name} must be whole numbers, not {array.dtype}")
    return array


def as_whole_numbers(values: ArrayLike, name: str) -> np.ndarray:
    """Return whole numbers as an array of 64 bits. Not collective."""
    return as_integers(values, name).astype(np.int64, copy=False)


def as_indices(values: ArrayLike, name: str) -> np.ndarray:
    """Return whole numbers as a contiguous array of signed ones, 32 or 64 bits, a copy only if it must be.

    Not collective.
    """
    array = as_integers(values, name)
    return np.ascontiguousarray(array, array.dtype if array.dtype in (np.int32, np.int64) else np.int64)


def check_diagonal(diagonal: str) -> None:
    """Refuse what is no choice of a diagonal. Not collective."""
    if diagonal not in ("full", "given"):
        raise InputError(f"diagonal must be full or given, not {diagonal!r}")


def index_type(n: int, nnz: int) -> type[np.int32] | type[np.int64]:
    """Return the type of indices: 32 bits where they are enough. Not collective."""
    return np.int32 if max(n, nnz) < 2**31 else np.int64


def symmetric_rows(
    layout: Layout, rows: np.ndarray, cols: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (indptr, indices, given) of the local rows of these entries, their mirrors and the diagonal.

    Collective. Memory beside the arrays that come and go is a byte an entry, and what is on its way between ranks.

    Parameters
    ----------
    rows, cols
        (m,) global numbers of any entries, each any number of times, 32 or 64 bits.

    Returns
    -------
    given
        (n_local,) uint8: 1 where a diagonal entry was among the entries.
    """
    counts, given = np.ones(layout.n_local, np.int64), np.zeros(layout.n_local, np.uint8)  # the diagonal
    pieces = _pairs_of_own_rows(layout, rows, cols)
    for row, col in pieces:
        pattern_kernels.count_pairs(counts, given, row, col, layout.start)
    ends = np.cumsum(counts)
    index = index_type(layout.n, int(ends[-1]) if len(ends) else 0)
    indices, cursor = np.empty(ends[-1] if len(ends) else 0, index), ends - counts
    indices[cursor] = np.arange(layout.start, layout.stop)
    cursor += 1
    while pieces:
        pattern_kernels.place_pairs(indices, cursor, *pieces.pop(), layout.start)
    indptr = np.concatenate([[0], ends]).astype(index, copy=False)
    shape = (layout.n_local, layout.n)
    matrix = scipy.sparse.csr_matrix((np.ones(len(indices), np.int8), indices, indptr), shape, copy=False)
    del indices
    matrix.sum_duplicates()
    index = index_type(layout.n, matrix.nnz)
    return matrix.indptr.astype(index, copy=False), matrix.indices.astype(index, copy=False), given


def _pairs_of_own_rows(layout: Layout, rows: np.ndarray, cols: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return pieces (rows, cols) of all pairs, of any rank, of which one number is a local row. Collective."""
    comm = layout.comm
    if comm.size == 1:
        return [(rows, cols)]
    index = index_type(layout.n, 0)
    pieces = []
    for first in range(0, comm.allreduce(len(rows), op=MPI.MAX), _PIECE):
        row, col = (numbers[first : first + _PIECE].astype(index, copy=False) for numbers in (rows, cols))
        apart = layout.owner(row) != layout.owner(col)
        home = np.concatenate([row, col[apart]])
        _, row, col = send_to_owners(
            layout, home, np.concatenate([row, row[apart]]), np.concatenate([col, col[apart]])
        )
        pieces.append((row, col))
    return pieces


def check_csr(indptr: np.ndarray, indices: np.ndarray, layout: Layout, n: int | None) -> None:
    """Refuse compressed rows that do not belong together. Not collective."""
    if indptr[0] != 0 or indptr[-1] != len(indices) or (np.diff(indptr) < 0).any():
        raise InputError(f"indptr must rise from 0 to {len(indices)}, the number of indices")
    if n is not None and layout.n != n:
        raise InputError(f"the rows of all ranks are {layout.n}, but n is {n}")


def on_all(comm: MPI.Comm, flag: bool) -> bool:
    """Return whether something holds on every rank. Collective."""
    return bool(comm.allreduce(flag, op=MPI.LAND))


def has_mirrors_inside(indptr: np.ndarray, indices: np.ndarray, layout: Layout) -> bool:
    """Say whether every entry between local rows has its mirror."""
    ones = np.ones(len(indices), np.uint8)
    if layout.comm.size == 1:
        return bool(pattern_kernels.mirror_values(indptr, indices, ones, 0).all())
    inside = (indices >= layout.start) & (indices < layout.stop)
    columns = np.where(inside, indices - layout.start, layout.n_local).astype(indptr.dtype)
    return bool(pattern_kernels.mirror_values(indptr, columns, ones, 0)[inside].all())


def has_mirrors_across(indptr: np.ndarray, indices: np.ndarray, layout: Layout) -> bool:
    """Say whether every entry between ranks has its mirror. Collective."""
    if layout.comm.size == 1:
        return True
    outside = np.flatnonzero((indices < layout.start) | (indices >= layout.stop))
    rows = np.searchsorted(indptr, outside, side="right") - 1 + layout.start
    mirror_rows, mirror_cols = send_to_owners(layout, indices[outside].astype(np.int64), rows.astype(np.int64))
    there = pattern_kernels.contains_pairs(indptr, indices, mirror_rows - layout.start, mirror_cols)
    return on_all(layout.comm, bool(there.all()))
