"""The formats of matrix files, read by one rank; a file that claims what it does not hold is refused first."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import scipy.sparse

from sparsehess.errors import InputError, StackError, no_such_file
from sparsehess.runtime import PETSc, another_build, complex_scalars
from sparsehess.storage import matrix_market
from sparsehess.storage.decimal_digits import FULL, Rounding, find_rounding, rounding_of_type
from sparsehess.storage.hdf5 import open_hdf5
from sparsehess.storage.matrix_market import MOST_SHRUNK, check_sizes

# What PETSc's binary files of matrices and of vectors begin with.
_PETSC_MATRIX, _PETSC_VECTOR = 1211216, 1211214

# Suffixes of formats whose numbers are text.
_TEXT = (".mtx", ".mtx.gz")

# What is told of a matrix that is not square.
_JACOBIAN = ": of a Jacobian J give JᵀJ"

# What is said of a complex file that is read as real.
REAL_AFTER_ALL = "its numbers are complex, all without an imaginary part: read as real"


@dataclass(frozen=True, eq=False)
class Loaded:
    """The matrix of a file, on the rank that has read it.

    Attributes
    ----------
    matrix
        Of PETSc's scalars, without duplicates.
    said
        What is to be said of how it was read, a sentence each.
    rounding
        By how much its entries may have been rounded when they were written.
    """

    matrix: scipy.sparse.csr_matrix
    said: tuple[str, ...] = ()
    rounding: Rounding = FULL


def load_matrix(path: Path, suffix: str) -> Loaded:
    """Return the matrix of a file of one rank, sizes checked before memory is taken.

    Not collective.

    Raises
    ------
    InputError
        No such file, or it holds no matrix of this kind.
    """
    if not path.is_file():
        raise no_such_file(path)
    said: tuple[str, ...] = ()
    try:
        if suffix in _TEXT:
            matrix, said = matrix_market.load_matrix_market(path)
        else:
            matrix = {".npz": _load_npz, ".npy": _load_npy, ".h5": _load_h5}[suffix](path)
    except (InputError, StackError):
        raise
    except MemoryError as error:
        raise InputError(
            f"{path}: too large for the memory of this machine: of a .petsc file each rank reads its own rows"
        ) from error
    except Exception as error:  # whatever a damaged file makes a reader do
        raise InputError(
            f"{path}: damaged or not of its format: {' '.join(str(error).split())[:200]}; write it anew"
        ) from error
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise InputError(
            f"{path}: a Hessian is square; this matrix is {' x '.join(map(str, matrix.shape))}{_JACOBIAN}"
        )
    if matrix.dtype.kind not in "fiubc":
        raise InputError(f"{path}: a Hessian is numbers; this matrix is {matrix.dtype}")
    if matrix.dtype.kind == "c" and not complex_scalars():
        if has_imaginary_part(matrix):
            raise InputError(
                f"{path}: a Hessian is real here, this matrix is complex: it takes {another_build(True)}"
            )
        matrix, said = matrix.real, (*said, REAL_AFTER_ALL)
    stored = matrix.data if scipy.sparse.issparse(matrix) else matrix
    rounding = find_rounding(stored) if suffix in _TEXT else rounding_of_type(stored)
    matrix = scipy.sparse.csr_matrix(matrix, dtype=PETSc.ScalarType)
    matrix.data = np.ascontiguousarray(matrix.data)  # parts of it are sent
    matrix.sum_duplicates()
    if matrix.shape[0] == 0:
        raise InputError(f"{path}: the matrix has no rows: write one that has")
    return Loaded(matrix, said, rounding)


def has_imaginary_part(matrix: Any) -> bool:
    """Return whether a complex array or sparse matrix has an entry that is not real. Not collective."""
    return bool(np.count_nonzero((matrix.data if scipy.sparse.issparse(matrix) else matrix).imag))


def read_claimed_bytes(path: str | os.PathLike[str]) -> int:
    """Return the bytes of the arrays that a file holds, or claims to hold, from its head alone.

    Not collective.

    Raises
    ------
    InputError
        It is missing, or its head is damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise no_such_file(path)
    name = path.name.lower()
    try:
        if name.endswith((".mtx", ".mtx.gz")):
            head = matrix_market.read_head(path)
            each = 24 if head.kind == "complex" else 16
            return 8 * head.rows + 2 * each * head.entries  # as triples, both halves of a symmetric one
        if name.endswith(".npz"):
            read_member_shapes(path)
            with zipfile.ZipFile(path) as archive:
                return sum(info.file_size for info in archive.infolist())
        if name.endswith(".h5"):
            total = 0

            def add(_: str, item: Any) -> None:
                nonlocal total
                total += int(getattr(item, "size", 0) or 0) * getattr(getattr(item, "dtype", None), "itemsize", 0)

            with open_hdf5(path) as file:
                file.visititems(add)
            return total
        return path.stat().st_size
    except (InputError, StackError):
        raise
    except Exception as error:  # whatever a damaged file makes a reader do
        raise InputError(f"{path}: damaged or not of its format: {' '.join(str(error).split())[:200]}") from error


def read_member_shapes(path: Path) -> dict[str, tuple]:
    """Return {name: shape} of a .npz, each array's claim checked against its bytes.

    Not collective.

    Raises
    ------
    InputError
        An array claims more than the file can hold, or holds Python objects.
    """
    shapes = {}
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.file_size > os.path.getsize(path) * MOST_SHRUNK:
                raise InputError(f"{path}: {info.filename} claims more bytes than the file can hold")
            with archive.open(info) as stream:
                version = np.lib.format.read_magic(stream)
                read = (
                    np.lib.format.read_array_header_1_0
                    if version == (1, 0)
                    else np.lib.format.read_array_header_2_0
                )
                shape, _, dtype = read(stream)
                if dtype.hasobject:
                    raise InputError(f"{path}: {info.filename} holds Python objects, which are never loaded")
                claimed = int(np.prod([int(length) for length in shape], dtype=object)) * dtype.itemsize
                if claimed > info.file_size:
                    raise InputError(
                        f"{path}: {info.filename} claims {claimed} bytes and has {info.file_size}: damaged"
                    )
            shapes[info.filename.removesuffix(".npy")] = shape
    return shapes


def _eigenpairs(path: Path) -> InputError:
    """Return the error of a result that stands where a matrix should."""
    return InputError(
        f"{path}: eigenpairs, as eigs -o writes them, and no matrix: sparsehess check takes them first, the "
        "matrix second"
    )


def _load_npz(path: Path) -> Any:
    shapes = read_member_shapes(path)
    if "format" not in shapes:
        if len(shapes) == 1 and len(next(iter(shapes.values()))) == 2:
            with np.load(path, allow_pickle=False) as archive:
                return archive[next(iter(shapes))]
        if "eigenvalues" in shapes:
            raise _eigenpairs(path)
        raise InputError(
            f"{path}: neither a SciPy sparse matrix nor one square array; it holds {', '.join(shapes)}"
        )
    with np.load(path, allow_pickle=False) as archive:
        rows, columns = (int(length) for length in archive["shape"])
    entries = int(np.prod(shapes.get("data", (0,)), dtype=object))
    check_sizes(path, rows, columns, entries, entries)
    matrix = scipy.sparse.load_npz(path)
    return _whole(path, matrix) if matrix.format in ("csr", "csc", "bsr") else matrix


def _load_npy(path: Path) -> Any:
    """Return a matrix, or of an array (n,) the diagonal one that it is in Python as well."""
    whole = np.load(path, mmap_mode="r", allow_pickle=False)  # its claim is checked before memory is taken
    if whole.ndim == 1:
        return scipy.sparse.diags(np.array(whole)).tocsr()
    if whole.ndim != 2:
        raise InputError(f"{path}: an array of shape {whole.shape}: a matrix has two dimensions, a diagonal one")
    return np.array(whole)


def _whole(path: Path, matrix: Any) -> Any:
    """Return a compressed matrix whose parts belong together: what SciPy compiles trusts them."""
    # SciPy's check subtracts, and overlooks where a last one is below zero or so far below that this overflows.
    if (matrix.indptr[1:] < matrix.indptr[:-1]).any():
        raise InputError(f"{path}: damaged: rows of fewer than no entries")
    matrix.check_format(full_check=True)
    return matrix


def _load_h5(path: Path) -> scipy.sparse.csr_matrix:
    with open_hdf5(path) as file:
        names = ("indptr", "indices", "data", "shape")
        missing = [name for name in names if name not in file]
        if missing:
            if "eigenvalues" in file:
                raise _eigenpairs(path)
            raise InputError(f"{path}: not a matrix: it has no dataset {', '.join(missing)}")
        rows, columns = (int(length) for length in file["shape"][:2])
        entries = file["data"].shape[0]
        # Chunks that were never written take no bytes, so a small file can claim any size.
        stored = file["data"].id.get_storage_size() * MOST_SHRUNK
        check_sizes(path, rows, columns, entries, stored // file["data"].dtype.itemsize)
        if file["indptr"].shape != (rows + 1,) or file["indices"].shape != (entries,):
            raise InputError(f"{path}: indptr, indices and data do not belong together")
        matrix = scipy.sparse.csr_matrix(
            (file["data"][:], file["indices"][:], file["indptr"][:]), shape=(rows, columns)
        )
    return _whole(path, matrix)


@dataclass(frozen=True)
class PetscHead:
    """The head of a PETSc binary matrix, of any PETSc: kinds of indices and numbers, sizes.

    Attributes
    ----------
    index, number
        Big-endian types.
    rows, entries
        Sizes.
    """

    index: np.dtype
    number: np.dtype
    rows: int
    entries: int

    def read(self, path: Path, part: str, first: int, last: int) -> np.ndarray:
        """Return a range of the `lengths` of rows, of the `columns` or of the `numbers` of entries.

        Not collective.

        Raises
        ------
        InputError
            The file has become shorter.
        """
        lengths = 4 * self.index.itemsize
        columns = lengths + self.rows * self.index.itemsize
        begin, kind = {
            "lengths": (lengths, self.index),
            "columns": (columns, self.index),
            "numbers": (columns + self.entries * self.index.itemsize, self.number),
        }[part]
        with open(path, "rb") as stream:
            found = np.fromfile(stream, kind, last - first, offset=begin + first * kind.itemsize)
        if len(found) != last - first:
            raise InputError(f"{path}: truncated while it was read")
        return found.astype(kind.newbyteorder("="))


def check_petsc_matrix(path: Path) -> PetscHead:
    """Read a PETSc binary matrix in pieces, refuse it if anything in it does not fit, and return its head.

    Not collective.
    """
    if not path.is_file():
        raise no_such_file(path)
    size = os.path.getsize(path)
    with open(path, "rb") as stream:
        first = stream.read(32)
        heads = (np.frombuffer(first[: len(first) // n * n], f">i{n}")[:4] for n in (4, 8))
        head = next((head for head in heads if len(head) == 4 and head[0] == _PETSC_MATRIX), None)
        if head is None:
            little = first[:4] == _PETSC_MATRIX.to_bytes(4, "little")
            vector = first[:4] == _PETSC_VECTOR.to_bytes(4, "big")
            told = ": it is little-endian" if little else ": it holds a vector" if vector else ""
            raise InputError(f"{path}: not a PETSc binary matrix{told}; write it with MatView to a binary viewer")
        index = head.dtype
        rows, columns, entries = (int(number) for number in head[1:])
        if rows != columns:
            raise InputError(f"{path}: a Hessian is square; this matrix is {rows} x {columns}{_JACOBIAN}")
        if rows <= 0 or entries < 0:
            raise InputError(f"{path}: the matrix is empty or dense ({rows} rows, {entries} entries)")
        beside = index.itemsize * (4 + rows + entries)
        own = np.dtype(PETSc.ScalarType).newbyteorder(">")
        kinds = (own, *(np.dtype(name) for name in (">c16", ">f8", ">f4")))  # all alike where there are no entries
        number = next((kind for kind in kinds if size == beside + kind.itemsize * entries), own)
        if size < beside + number.itemsize * entries:
            raise InputError(
                f"{path}: claims {beside + number.itemsize * entries} bytes and has {size}: truncated"
            )
        stream.seek(4 * index.itemsize)
        total = 0
        for part in _pieces(stream, index, rows):
            if part.min() < 0:
                raise InputError(f"{path}: a row has {part.min()} entries: damaged")
            total += int(part.sum(dtype=np.int64))
        if total != entries:
            raise InputError(f"{path}: its rows have {total} entries, its head says {entries}: damaged")
        for part in _pieces(stream, index, entries):
            if part.min() < 0 or part.max() >= columns:
                raise InputError(f"{path}: a column is outside 0..{columns - 1}: damaged")
    return PetscHead(index, number, rows, entries)


def _pieces(stream: BinaryIO, dtype: np.dtype, count: int, piece: int = 2**20) -> Iterator[np.ndarray]:
    for first in range(0, count, piece):
        yield np.frombuffer(stream.read(dtype.itemsize * min(piece, count - first)), dtype)
