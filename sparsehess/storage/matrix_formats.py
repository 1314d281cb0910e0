"""The formats of matrix files, read by one rank; a file that claims what it does not hold is refused first."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import scipy.sparse

from sparsehess.errors import InputError, StackError, no_such_file
from sparsehess.runtime import PETSc, another_build, complex_scalars, memory
from sparsehess.storage import code_formats, matrix_market
from sparsehess.storage.array_archives import MOST_SHRUNK, ArrayArchive, map_array
from sparsehess.storage.compressed_rows import Entries, Slices, rows_of_dense, rows_of_parts
from sparsehess.storage.decimal_digits import FULL, Rounding, find_rounding, rounding_of_type
from sparsehess.storage.dof_labels import Labels, on_rows_of
from sparsehess.storage.found_matrix import Found
from sparsehess.storage.hdf5 import claimed_bytes, open_hdf5, require_chunks, small_array
from sparsehess.storage.matrix_address import OF_CODES, split_name, suffix_of
from sparsehess.storage.matrix_market import check_sizes
from sparsehess.storage.memory_claims import PER_ENTRY, PER_ROW, PER_TRIPLE, bytes_of, require_memory

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
        Of PETSc's scalars or, of a Hermitian one, of complex numbers; without duplicates.
    said
        What is to be said of how it was read, a sentence each.
    rounding
        By how much its entries may have been rounded when they were written.
    labels
        Of its rows, None where the file has none.
    completed
        Whether one triangle is stored, and was taken for one of a symmetric matrix.
    """

    matrix: scipy.sparse.csr_matrix
    said: tuple[str, ...] = ()
    rounding: Rounding = FULL
    labels: Labels | None = None
    completed: bool = False


@dataclass(frozen=True, eq=False)
class FirstRows:
    """The rows of the matrix that another one stands beside, on the rank that reads that.

    Attributes
    ----------
    n
        How many there are.
    labels
        Of these, None where they have none.
    """

    n: int
    labels: Labels | None = None


def load_matrix(path: Path, suffix: str, first: FirstRows | None = None, *, hermitian: bool = False) -> Loaded:
    """Return the matrix of a file of one rank, sizes checked before memory is taken.

    Not collective.

    Parameters
    ----------
    first
        The rows that it should have, where its file leaves that open.
    hermitian
        Whether it may be complex where PETSc's scalars are real.

    Raises
    ------
    InputError
        No such file, or it holds no matrix of this kind.
    """
    found = _any_matrix(path, suffix)
    matrix, said = found.matrix, found.told()
    if matrix.shape[0] != matrix.shape[1]:
        raise InputError(
            f"{path}: a Hessian is square; this matrix is {' x '.join(map(str, matrix.shape))}{_JACOBIAN}"
        )
    is_complex = matrix.dtype.kind == "c" and not complex_scalars()
    if is_complex and not has_imaginary_part(matrix):
        matrix, said, is_complex = matrix.real, (*said, REAL_AFTER_ALL), False
    if is_complex and not hermitian:
        raise complex_where_real(path)
    stored = matrix.data if scipy.sparse.issparse(matrix) else matrix
    rounding = find_rounding(stored) if found.text else rounding_of_type(stored)
    matrix = scipy.sparse.csr_matrix(matrix, dtype=np.complex128 if is_complex else PETSc.ScalarType)
    matrix, labels, more = _beside(path, matrix, found, first)
    matrix.data = np.ascontiguousarray(matrix.data)  # parts of it are sent
    matrix.sum_duplicates()
    if matrix.shape[0] == 0:
        raise InputError(f"{path}: the matrix has no rows: write one that has")
    return Loaded(matrix, (*said, *more), rounding, labels, found.completed)


def _beside(
    path: Path, matrix: scipy.sparse.csr_matrix, found: Found, first: FirstRows | None
) -> tuple[scipy.sparse.csr_matrix, Labels | None, tuple[str, ...]]:
    """Return a matrix with the rows of the first one, as far as the file leaves them open, labels, and words."""
    labels = found.labels
    if first is None:
        return matrix, labels, ()
    if labels is not None and first.labels is not None:
        if np.array_equal(labels.keys, first.labels.keys):
            return matrix, labels, ()
        matrix, sentence = on_rows_of(path, matrix, labels, first.labels)
        return matrix, first.labels, (sentence,)
    if not found.sized and matrix.shape[0] < first.n:
        sentence = f"its last {first.n - matrix.shape[0]} rows have no entry"
        matrix.resize((first.n, first.n))
        return matrix, labels, (sentence,)
    return matrix, labels, ()


def load_rows(path: Path, suffix: str) -> scipy.sparse.csr_matrix:
    """Return the real matrix (m, n) of a file, such as gradients of constraints, checked as any other is.

    Not collective.

    Raises
    ------
    InputError
        No such file, or it holds no matrix of this kind.
    """
    matrix = _any_matrix(path, suffix).matrix
    if matrix.dtype.kind == "c":
        raise InputError(f"{path}: real numbers are wanted, not {matrix.dtype}")
    rows = scipy.sparse.csr_matrix(matrix, dtype=np.float64)
    rows.sum_duplicates()
    if not np.isfinite(rows.data).all():
        raise InputError(f"{path}: entries must be finite")
    return rows


def _any_matrix(path: Path, suffix: str) -> Found:
    """Return the numbers of a file, (m, n) of any shape, and what is to be said of how they were read."""
    file, name = split_name(path)
    if not file.is_file():
        raise no_such_file(file)
    try:
        with memory.at_most(memory.room_of_one()):
            if suffix in _READERS:
                found = Found(_READERS[suffix](file))
            elif suffix in _TEXT and not code_formats.lacks_banner(file):
                matrix, said = matrix_market.load_matrix_market(file)
                found = Found(matrix, said=said, text=True)
            else:
                found = code_formats.load_of_code(file, suffix, name)
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
    matrix = found.matrix
    if matrix.ndim != 2:
        raise InputError(f"{path}: a matrix has rows and columns, and not the shape {matrix.shape}")
    if matrix.dtype.kind not in "fiubc":
        raise InputError(f"{path}: a Hessian is numbers; this matrix is {matrix.dtype}")
    return found


def complex_where_real(path: str | os.PathLike[str]) -> InputError:
    """Return the error of a complex matrix where a real one is needed. Not collective."""
    return InputError(
        f"{path}: a real matrix is needed here, this one is complex: eigs, inertia, trace, density, rank, check "
        f"and plan take Hermitian ones; elsewhere they take {another_build(True)}"
    )


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
    path = split_name(path)[0]
    if not path.is_file():
        raise no_such_file(path)
    name = path.name.lower()
    try:
        if suffix_of(path) in OF_CODES or (name.endswith(_TEXT) and code_formats.lacks_banner(path)):
            return code_formats.claimed_bytes(path)
        if name.endswith((".mtx", ".mtx.gz")):
            head = matrix_market.read_head(path)
            each = 24 if head.kind == "complex" else 16
            return 8 * head.rows + 2 * each * head.entries  # as triples, both halves of a symmetric one
        if name.endswith(".npz"):
            with closing(ArrayArchive(path)) as archive:
                return sum(head.nbytes for head in archive.heads.values())
        if name.endswith(".npy"):
            return map_array(path).nbytes
        if name.endswith(".h5"):
            with open_hdf5(path) as file:
                return claimed_bytes(file)
        return path.stat().st_size
    except (InputError, StackError):
        raise
    except Exception as error:  # whatever a damaged file makes a reader do
        raise InputError(f"{path}: damaged or not of its format: {' '.join(str(error).split())[:200]}") from error


def _eigenpairs(path: Path) -> InputError:
    """Return the error of a result that stands where a matrix should."""
    return InputError(
        f"{path}: eigenpairs, as eigs -o writes them, and no matrix: sparsehess check takes them first, the "
        "matrix second"
    )


def _load_npz(path: Path) -> Any:
    with closing(ArrayArchive(path)) as archive:
        heads = archive.heads
        if "format" in heads:
            return _sparse_of_archive(path, archive)
        if len(heads) == 1 and len(next(iter(heads.values())).shape) == 2:
            name, head = next(iter(heads.items()))
            with archive.entries(name) as entries:
                return _dense_by_rows(path, head.shape, head.fortran, entries, head.dtype)
        if "eigenvalues" in heads:
            raise _eigenpairs(path)
        raise InputError(
            f"{path}: neither a SciPy sparse matrix nor one square array; it holds {', '.join(heads)}"
        )


def _sparse_of_archive(path: Path, archive: ArrayArchive) -> Any:
    """Return the matrix that SciPy has stored in any of its formats."""
    heads, form = archive.heads, archive["format"].item()
    form = form.decode("ascii") if isinstance(form, bytes) else form
    rows, columns = _shape_of(path, archive["shape"])
    entries = heads["data"].count
    check_sizes(path, rows, columns, entries, entries)
    if form in ("csr", "csc"):
        if heads["indices"].shape != (entries,) or heads["data"].shape != (entries,):
            raise InputError(f"{path}: indices and data do not belong together")
        compressed = (rows, columns) if form == "csr" else (columns, rows)
        indptr = _whole_numbers(path, archive, "indptr", compressed[0] + 1)
        with archive.entries("indices") as indices, archive.entries("data") as data:
            made = rows_of_parts(path, compressed, indptr, indices, data, entries, heads["data"].dtype)
        return made if form == "csr" else made.T.tocsr()
    parts = {name: archive[name] for name in _PARTS.get(form, ())}
    if form == "coo":
        require_memory(path, "its matrix", entries * (PER_TRIPLE - 24) + rows * PER_ROW)
        return scipy.sparse.coo_matrix((parts["data"], (parts["row"], parts["col"])), (rows, columns))
    if form == "dia":
        if len(parts["offsets"]) > rows + columns:
            raise InputError(f"{path}: damaged: {len(parts['offsets'])} diagonals of {rows} x {columns}")
        require_memory(path, "its matrix", entries * PER_TRIPLE + rows * PER_ROW)
        return scipy.sparse.dia_matrix((parts["data"], parts["offsets"]), (rows, columns))
    if form == "bsr":
        matrix = scipy.sparse.bsr_matrix((parts["data"], parts["indices"], parts["indptr"]), (rows, columns))
        require_memory(path, "its matrix", entries * PER_ENTRY + rows * PER_ROW)
        return _whole(path, matrix)
    raise InputError(f"{path}: a sparse matrix of format {form!r}; csr, csc, bsr, coo and dia are read")


# What SciPy stores of a matrix beside its shape, by format.
_PARTS = {"coo": ("row", "col", "data"), "dia": ("offsets", "data"), "bsr": ("indptr", "indices", "data")}


def _shape_of(path: Path, stored: np.ndarray) -> tuple[int, int]:
    if stored.shape != (2,) or stored.dtype.kind not in "iu":
        raise InputError(f"{path}: a shape of {stored.shape} {stored.dtype}, not of two whole numbers")
    rows, columns = (int(length) for length in stored)
    return rows, columns


def _whole_numbers(path: Path, archive: ArrayArchive, name: str, count: int) -> np.ndarray:
    """Return so many whole numbers of an archive."""
    head = archive.heads[name]
    if head.shape != (count,) or head.dtype.kind not in "iu":
        raise InputError(f"{path}: {name} has {head.shape} numbers of {head.dtype}, not {count} whole ones")
    return archive[name]


def _dense_by_rows(path: Path, shape: tuple[int, ...], fortran: bool, entries: Entries, dtype: np.dtype) -> Any:
    """Return the sparse matrix of a dense one whose entries are read one after another."""
    rows, columns = shape
    if dtype.kind not in "fiubc":
        raise InputError(f"{path}: a Hessian is numbers; this matrix is {dtype}")
    if not fortran:
        return rows_of_dense(path, (rows, columns), entries, dtype)
    return rows_of_dense(path, (columns, rows), entries, dtype).T.tocsr()


def _load_npy(path: Path) -> Any:
    """Return a matrix, or of an array (n,) the diagonal one that it is in Python as well."""
    whole = map_array(path)
    if whole.ndim == 1:
        require_memory(path, "its diagonal", whole.size * (PER_ENTRY + PER_ROW))
        return scipy.sparse.diags(np.array(whole)).tocsr()
    if whole.ndim != 2:
        raise InputError(f"{path}: an array of shape {whole.shape}: a matrix has two dimensions, a diagonal one")
    fortran = whole.flags.f_contiguous and not whole.flags.c_contiguous
    return _dense_by_rows(path, whole.shape, fortran, Slices(whole.ravel(order="K")), whole.dtype)


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
        rows, columns = _shape_of(path, small_array(path, file["shape"], 2))
        entries = math.prod(file["data"].shape)
        # Chunks that were never written take no bytes, so a small file can claim any size.
        stored = file["data"].id.get_storage_size() * MOST_SHRUNK
        check_sizes(path, rows, columns, entries, stored // file["data"].dtype.itemsize)
        shapes = [file[name].shape for name in names[:3]]
        if shapes != [(rows + 1,), (entries,), (entries,)]:
            raise InputError(f"{path}: indptr, indices and data do not belong together")
        for name in names[:3]:
            require_chunks(path, file[name])
        require_memory(path, "the array indptr", bytes_of((rows + 1,), 8))
        indptr = file["indptr"][:]
        indices, data = Slices(file["indices"]), Slices(file["data"])
        return rows_of_parts(path, (rows, columns), indptr, indices, data, entries, file["data"].dtype)


# Readers of the formats of libraries, by suffix.
_READERS: dict[str, Callable[[Path], Any]] = {".npz": _load_npz, ".npy": _load_npy, ".h5": _load_h5}


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
