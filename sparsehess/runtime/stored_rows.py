"""What an AIJ matrix of PETSc stores, seen as arrays without a copy."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sparsehess.runtime import petsc

if TYPE_CHECKING:
    from petsc4py import PETSc


class StoredRows(NamedTuple):
    """Local rows by CSR, of one block of columns.

    Attributes
    ----------
    indptr, columns, values
        PETSc's own arrays, in its own integers; the columns are counted from the first of the block.
    """

    indptr: np.ndarray
    columns: np.ndarray
    values: np.ndarray


# Of a matrix on one rank.
_NONE = StoredRows(np.zeros(1, np.int64), np.empty(0, np.int64), np.empty(0))


class StoredMatrix(NamedTuple):
    """Part of an AIJ matrix that this rank stores.

    Attributes
    ----------
    own
        Rows in the columns of this rank.
    others
        Rows in the columns of other ranks, each column numbered by its place in `ghosts`.
    ghosts
        (g,) global numbers of those columns, ascending.
    """

    own: StoredRows
    others: StoredRows
    ghosts: np.ndarray


def stores_rows(matrix: PETSc.Mat) -> bool:
    """Return whether `stored_matrix` can show a matrix. Not collective."""
    return matrix.getType() in ("seqaij", "mpiaij")


@contextmanager
def stored_matrix(matrix: PETSc.Mat) -> Iterator[StoredMatrix]:
    """Show what this rank stores of a matrix, for as long as the context lasts. Not collective.

    petsc4py copies all of it instead (`getValuesCSR`).
    """
    with ExitStack() as later:
        if matrix.getType() == "seqaij":
            yield StoredMatrix(
                _rows(ctypes.c_void_p(matrix.handle), later), _NONE, np.empty(0, petsc.PETSc.IntType)
            )
            return
        own, others, ghosts = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
        _call("MatMPIAIJGetSeqAIJ", ctypes.c_void_p(matrix.handle), *map(ctypes.byref, (own, others, ghosts)))
        numbers = _array(ghosts, _columns(others), petsc.PETSc.IntType)
        yield StoredMatrix(_rows(own, later), _rows(others, later), numbers)


def _rows(block: ctypes.c_void_p, later: ExitStack) -> StoredRows:
    """Return the arrays of a sequential block; PETSc gets them back later."""
    index = petsc.PETSc.IntType
    number, done = _integer()(), ctypes.c_int()
    indptr, columns, values = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
    what = (block, _integer()(0), ctypes.c_int(0), ctypes.c_int(0))
    into = [ctypes.byref(one) for one in (number, indptr, columns, done)]
    _call("MatGetRowIJ", *what, *into)
    later.callback(_call, "MatRestoreRowIJ", *what, *into)
    _call("MatSeqAIJGetArrayRead", block, ctypes.byref(values))
    later.callback(_call, "MatSeqAIJRestoreArrayRead", block, ctypes.byref(values))
    rows = number.value
    pointers = _array(indptr, rows + 1, index) if rows else np.zeros(1, index)
    entries = int(pointers[-1])
    return StoredRows(pointers, _array(columns, entries, index), _array(values, entries, petsc.PETSc.ScalarType))


def _columns(block: ctypes.c_void_p) -> int:
    rows, columns = _integer()(), _integer()()
    _call("MatGetSize", block, ctypes.byref(rows), ctypes.byref(columns))
    return columns.value


def _array(place: ctypes.c_void_p, length: int, dtype: Any) -> np.ndarray:
    if not length:
        return np.empty(0, dtype)
    size = length * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_char * size).from_address(place.value or 0), np.dtype(dtype))  # type: ignore[call-overload]


def _integer() -> Any:
    return ctypes.c_int64 if np.dtype(petsc.PETSc.IntType).itemsize == 8 else ctypes.c_int32


@cache
def _library() -> ctypes.CDLL:
    return ctypes.CDLL(petsc.PETSc.__file__)


def _call(name: str, *arguments: Any) -> None:
    code = getattr(_library(), name)(*arguments)
    if code:
        raise petsc.PETSc.Error(code)
