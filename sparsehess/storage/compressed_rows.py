"""A matrix by rows, made piece by piece: memory is taken for what is there, not for what a file claims."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import scipy.sparse

from sparsehess.errors import InputError
from sparsehess.storage.memory_claims import PER_ENTRY, PER_ROW, require_memory

# Entries of a piece.
_PIECE = 2**20


class Entries(Protocol):
    """Gives entries of an array from first to last."""

    def read(self, number: int) -> np.ndarray:
        """Return the next entries."""


class CompressedRows:
    """A matrix to which rows are added; entries that stand in for one place are summed.

    Not collective.

    Parameters
    ----------
    path
        Of the file, for messages.
    shape
        Of the matrix.
    most
        Entries that it has at most.
    dtype
        Of its entries.
    """

    def __init__(self, path: Path, shape: tuple[int, int], most: int, dtype: np.dtype):
        self._path, self._shape = path, shape
        wide = max(most, *shape) > np.iinfo(np.int32).max
        index = np.dtype(np.int64 if wide else np.int32)
        dtype = dtype.newbyteorder("=")  # MPI knows no other order
        # The system gives pages when they are written to: what stays empty takes none.
        require_memory(path, "its entries", most * (index.itemsize + dtype.itemsize) + shape[0] * index.itemsize)
        self._indices, self._data = np.empty(most, index), np.empty(most, dtype)
        self._indptr = np.zeros(shape[0] + 1, index)
        self._row = self._count = 0

    def add(self, part: scipy.sparse.csr_matrix) -> None:
        """Add the next rows."""
        part.sum_duplicates()
        begin, end = self._count, self._count + part.nnz
        require_memory(self._path, "its matrix", part.nnz * (self._indices.itemsize + self._data.itemsize))
        self._indices[begin:end], self._data[begin:end] = part.indices, part.data
        self._indptr[self._row + 1 : self._row + part.shape[0] + 1] = part.indptr[1:] + begin
        self._row, self._count = self._row + part.shape[0], end

    def finish(self) -> scipy.sparse.csr_matrix:
        """Return the matrix, after a look at the memory that it takes from here on."""
        n = self._count
        needed = n * PER_ENTRY + self._shape[0] * PER_ROW
        require_memory(self._path, "its matrix", needed - n * (self._indices.itemsize + self._data.itemsize))
        made = scipy.sparse.csr_matrix((self._data[:n], self._indices[:n], self._indptr), self._shape)
        made.has_canonical_format = True
        return made


def rows_of_parts(
    path: Path, shape: tuple[int, int], indptr: np.ndarray, indices: Entries, data: Entries, count: int, dtype: Any
) -> scipy.sparse.csr_matrix:
    """Return the matrix of three arrays, of which columns and entries are read piece by piece.

    Not collective.

    Parameters
    ----------
    indptr
        Where each row's entries begin, and the end of the last.
    indices, data
        Columns and entries.
    count, dtype
        How many entries there are, and of which type.

    Raises
    ------
    InputError
        The parts do not belong together.
    """
    if indptr.dtype.kind not in "iu" or len(indptr) != shape[0] + 1 or indptr[0] != 0:
        raise InputError(f"{path}: damaged: indptr has not one number a row and one more, from 0 on")
    indptr = indptr.astype(np.int64)
    # By comparison: a difference of damaged numbers overflows.
    if (indptr[1:] < indptr[:-1]).any():
        raise InputError(f"{path}: damaged: rows of fewer than no entries")
    if int(indptr[-1]) != count:
        raise InputError(f"{path}: damaged: its rows have {indptr[-1]} entries, {count} are there")
    if (indptr[1:] - indptr[:-1]).max(initial=0) > shape[1]:
        raise InputError(f"{path}: damaged: a row of more entries than the matrix has columns")
    made = CompressedRows(path, shape, int(indptr[-1]), dtype)
    for first, last in _portions(indptr):
        number = int(indptr[last] - indptr[first])
        columns, values = indices.read(number), data.read(number)
        if columns.dtype.kind not in "iu":
            raise InputError(f"{path}: damaged: columns that are no whole numbers")
        if number and (columns.min() < 0 or columns.max() >= shape[1]):
            raise InputError(f"{path}: damaged: a column is outside 0..{shape[1] - 1}")
        local = indptr[first : last + 1] - indptr[first]
        made.add(scipy.sparse.csr_matrix((values, columns, local), (last - first, shape[1])))
    return made.finish()


def _portions(indptr: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield ranges of rows, of about so many entries as a piece has, and of no more rows."""
    first, rows = 0, len(indptr) - 1
    while first < rows:
        last = int(np.searchsorted(indptr, indptr[first] + _PIECE, side="right")) - 1
        last = min(max(last, first + 1), first + _PIECE, rows)
        yield first, last
        first = last


def rows_of_dense(
    path: Path, shape: tuple[int, int], entries: Entries, dtype: np.dtype
) -> scipy.sparse.csr_matrix:
    """Return the matrix of the entries of a dense one, row after row; zeros are left out. Not collective."""
    made = CompressedRows(path, shape, shape[0] * shape[1], dtype)
    together = max(1, _PIECE // max(1, shape[1]))
    for first in range(0, shape[0], together):
        rows = min(together, shape[0] - first)
        made.add(scipy.sparse.csr_matrix(entries.read(rows * shape[1]).reshape(rows, shape[1])))
    return made.finish()


class Slices:
    """Entries of an array, or of a dataset of HDF5, that is read by slices."""

    def __init__(self, array: Any):
        self._array, self._place = array, 0

    def read(self, number: int) -> np.ndarray:
        """Return the next entries. Not collective."""
        self._place += number
        return np.asarray(self._array[self._place - number : self._place])
