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


def check_diagonal(diagonal: str) -> None:
    """Refuse what is no choice of a diagonal. Not collective."""
    if diagonal not in ("full", "given"):
        raise InputError(f"diagonal must be full or given, not {diagonal!r}")


def index_type(n: int, nnz: int) -> type[np.int32] | type[np.int64]:
    """Return the type of indices: 32 bits where they are enough. Not collective."""
    return np.int32 if max(n, nnz) < 2**31 else np.int64


def compress(rows: np.ndarray, cols: np.ndarray, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Return (indptr, indices) of local rows and global columns, each entry once. Not collective."""
    matrix = scipy.sparse.coo_matrix(
        (np.ones(len(rows), np.int8), (rows, cols)), (layout.n_local, layout.n)
    ).tocsr()
    matrix.sum_duplicates()
    index = index_type(layout.n, matrix.nnz)
    return matrix.indptr.astype(index, copy=False), matrix.indices.astype(index, copy=False)


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
