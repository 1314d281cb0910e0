"""Matrices of MATLAB's .mat files, of versions 5 to 7, and through h5py of version 7.3.

MATLAB, "MAT-File Versions". A sparse matrix of version 7.3 is a group of data,
ir and jc, by columns, whose attribute MATLAB_sparse has the number of rows.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse

from sparsehess.errors import InputError
from sparsehess.storage.compressed_rows import Slices, rows_of_dense, rows_of_parts
from sparsehess.storage.found_matrix import Found, choose_matrix
from sparsehess.storage.hdf5 import open_hdf5, require_chunks
from sparsehess.storage.matlab_level5 import Variable, find_variables, read_parts
from sparsehess.storage.memory_claims import bytes_of, require_memory

if TYPE_CHECKING:
    import h5py

# What an HDF5 file begins with, at one of the places that its format allows; MATLAB's is at 512.
_HDF5, _PLACE = b"\x89HDF\r\n\x1a\n", 512

# Classes of variables that are numbers.
_NUMBERS = (
    "double",
    "single",
    "sparse",
    "logical",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
)


def load_matlab(path: Path, name: str | None) -> Found:
    """Return the matrix of this name, or the only one there is.

    Not collective.

    Raises
    ------
    InputError
        There is none of this name, or several and no name.
    """
    with open(path, "rb") as stream:
        first = stream.read(_PLACE + len(_HDF5))
    if _HDF5 in (first[: len(_HDF5)], first[_PLACE:]):
        return _load_hdf5(path, name)
    return _load_level_5(path, name)


def _load_level_5(path: Path, name: str | None) -> Found:
    held = {key: one for key, one in find_variables(path).items() if _is_matrix(one.shape)}
    key, variable = choose_matrix(path, held, name, ": of MATLAB, none with rows and columns")
    parts = read_parts(path, variable)
    if variable.sparse:
        return Found(_sparse_of_parts(path, variable, parts), f"MATLAB, {key}, sparse")
    rows, columns = variable.shape
    real, *imaginary = parts or [np.empty(0)]
    entries = real + 1j * imaginary[0] if variable.complex and imaginary else real
    if len(entries) != rows * columns:
        raise InputError(f"{path}: {key} claims {rows} x {columns} and has {len(entries)} numbers: damaged")
    turned = rows_of_dense(path, (columns, rows), Slices(entries), entries.dtype)  # it is stored by columns
    return Found(turned.T.tocsr(), f"MATLAB, {key}, dense")


def _sparse_of_parts(path: Path, variable: Variable, parts: list[np.ndarray]) -> scipy.sparse.csr_matrix:
    """Return the matrix of ir, jc and numbers, of which there may be more than jc counts."""
    rows, columns = variable.shape
    if len(parts) < 3 or len(parts[1]) != columns + 1 or parts[1].dtype.kind not in "iu":
        raise InputError(
            f"{path}: {variable.name} has not rows, columns and numbers of {columns} columns: damaged"
        )
    inner, starts, real, *imaginary = parts
    entries = real + 1j * imaginary[0] if variable.complex and imaginary else real
    count = int(starts[-1])
    if count < 0 or count > min(len(inner), len(entries)) or max(rows, columns) > max(64 * count, 2**20):
        raise InputError(f"{path}: {variable.name} claims {count} entries of {rows} x {columns}: damaged")
    kept = Slices(inner[:count]), Slices(entries[:count])
    return rows_of_parts(path, (columns, rows), starts, *kept, count, entries.dtype).T.tocsr()


def _is_matrix(shape: tuple[int, ...]) -> bool:
    """Return whether an array is no number, no vector and no stack of matrices."""
    return len(shape) == 2 and min(shape) > 1


def _load_hdf5(path: Path, name: str | None) -> Found:
    with open_hdf5(path) as file:
        held = {key: item for key, item in file.items() if _is_sparse(item) or _is_dense(item)}
        key, item = choose_matrix(path, held, name, ": of MATLAB, none with rows and columns")
        if _is_sparse(item):
            return Found(_sparse(path, item), f"MATLAB 7.3, {key}, sparse")
        columns, rows = item.shape
        _check_numbers(path, key, item.dtype)
        require_chunks(path, item)
        require_memory(path, f"the array {key}", bytes_of(item.shape, item.dtype.itemsize))
        # Its rows are MATLAB's columns.
        turned = rows_of_dense(path, (columns, rows), Slices(item[()].ravel()), item.dtype)
        return Found(turned.T.tocsr(), f"MATLAB 7.3, {key}, dense")


def _is_sparse(item: Any) -> bool:
    return "MATLAB_sparse" in item.attrs and hasattr(item, "keys")


def _is_dense(item: Any) -> bool:
    kind = item.attrs.get("MATLAB_class", b"")
    text = kind.decode("ascii", "replace") if isinstance(kind, bytes) else str(kind)
    return text in _NUMBERS and hasattr(item, "dtype") and _is_matrix(item.shape or ())


def _sparse(path: Path, group: h5py.Group) -> scipy.sparse.csr_matrix:
    """Return the matrix of a group of data, ir and jc."""
    rows, starts = int(group.attrs["MATLAB_sparse"]), group["jc"]
    columns = bytes_of(starts.shape, 1) - 1
    entries = bytes_of(group["data"].shape, 1) if "data" in group else 0
    if rows < 0 or columns < 0 or max(rows, columns) > max(64 * entries, 2**20):
        raise InputError(f"{path}: claims {rows} x {columns} with {entries} entries: damaged")
    for part in ("jc", "ir", "data"):
        if part in group:
            require_chunks(path, group[part])
    if not entries:
        return scipy.sparse.csr_matrix((rows, columns))
    data = group["data"]
    _check_numbers(path, group.name, data.dtype)
    require_memory(path, "its columns", 16 * (columns + 1))
    parts = Slices(group["ir"]), Slices(data)
    return rows_of_parts(path, (columns, rows), starts[()].ravel(), *parts, entries, data.dtype).T.tocsr()


def _check_numbers(path: Path, name: str, dtype: np.dtype) -> None:
    if dtype.kind not in "fiub":
        raise InputError(f"{path}: {name} is complex, or no numbers ({dtype}): of MATLAB 7.3 real ones are read")
