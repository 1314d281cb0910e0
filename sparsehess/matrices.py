"""Matrix files: read, checked and dealt to the ranks by rows; nothing is ever unpickled.

Rank 0 reads, except PETSc's own binary format, which every rank reads for itself once rank 0 has
seen that the file is sound. A file that claims what it does not hold is refused before memory is
taken for it.
"""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from mpi4py import MPI

import numpy as np
import scipy.sparse

from sparsehess import matrixmarket
from sparsehess.errors import InputError, StackError
from sparsehess.hdf5 import opened
from sparsehess.matrixmarket import MOST_SHRUNK, believable
from sparsehess.pattern import Layout, Pattern
from sparsehess.pattern.kernels import mirrored
from sparsehess.runtime import PETSc, agreement, aij, another_build, complex_scalars, on_root

SUFFIXES = (".mtx", ".mtx.gz", ".npz", ".petsc", ".h5")

# A file may differ from its transpose by this part of its largest entry; its symmetric part is taken.
ASYMMETRY = 1e-6


def suffix_of(path) -> str | None:
    """Return the suffix of a matrix file, or None if it is none of `SUFFIXES`.

    Not collective.
    """
    name = Path(path).name.lower()
    return next((suffix for suffix in sorted(SUFFIXES, key=len, reverse=True) if name.endswith(suffix)), None)


@dataclass(frozen=True, eq=False)
class StoredMatrix:
    """A symmetric matrix from a file; a Hermitian one, where PETSc's scalars are complex.

    Attributes
    ----------
    pattern
        Its structure, diagonal included.
    values
        (nnz_local,) of the pattern, of PETSc's scalars, symmetric to the last bit.
    asymmetry
        Largest |a_ij - a_ji| of the file, of Hermitian matrices |a_ij - ā_ji|, over its largest entry.
    path
        Where it came from.
    """

    pattern: Pattern
    values: np.ndarray
    asymmetry: float
    path: str

    def to_mat(self) -> PETSc.Mat:
        """Return the matrix as PETSc AIJ. The caller destroys it.

        Collective.
        """
        return aij(self.pattern.layout, self.pattern.indptr, self.pattern.indices, self.values)


def read_pattern(path, comm, *, block: int = 1, diagonal: str = "full") -> Pattern:
    """Return the sparsity pattern of a matrix file; values and symmetry do not matter.

    Collective.

    Parameters
    ----------
    block
        Variables come in consecutive groups of this size, see `Pattern.in_blocks`.
    diagonal
        `full` or `given`, see `Pattern.from_pairs`.

    Raises
    ------
    InputError
        The file is missing, damaged, not square, or empty.
    """
    rows, layout = _read_rows(Path(path), comm, block)
    pattern = Pattern.from_csr(rows.indptr, rows.indices, comm=layout.comm, diagonal=diagonal, source=str(path))
    return pattern.in_blocks(block)


def read_coordinates(path, layout: Layout) -> np.ndarray:
    """Return (n_local, d) rows of a .npy array of one row for every row of the layout.

    Collective. Rank 0 reads and sends each rank its own.

    Raises
    ------
    InputError
        The file is missing or no such array.
    """
    return _dealt_out(layout.comm, _load_coordinates, (path, layout.n), [slice(a, b) for a, b in _ranges(layout)])


def _load_coordinates(path, n: int) -> np.ndarray:
    whole = _opened(path)
    if whole.ndim != 2 or whole.shape[0] != n or whole.dtype.kind not in "iuf":
        raise InputError(f"{path}: coordinates must be ({n}, directions) numbers, not {whole.shape}")
    return whole


def _opened(path) -> np.ndarray:
    try:
        whole = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: no .npy array: {error}") from error
    if not isinstance(whole, np.ndarray):
        raise InputError(f"{path}: no .npy array")
    return whole


def _ranges(layout: Layout) -> list[tuple[int, int]]:
    return list(pairwise(layout.starts.tolist()))


def _dealt_out(comm, load, arguments: tuple, parts: list) -> np.ndarray:
    """Return the part of this rank, of the array that rank 0 loads. Collective."""
    whole = None
    with agreement(comm):
        if comm.rank == 0:
            whole = load(*arguments)
    part = None
    with agreement(comm):
        if comm.rank == 0:
            part = np.array(whole[parts[0]])
    for rank in range(1, comm.size):
        with agreement(comm):  # a piece that rank 0 has no memory for, or that the disk does not give
            if comm.rank == 0:
                piece = np.array(whole[parts[rank]])
        if comm.rank == 0:
            comm.send(piece, dest=rank)
        elif comm.rank == rank:
            part = comm.recv(source=0)
    return part


def read_nodes(path, layout: Layout) -> tuple[np.ndarray, int]:
    """Return positions (nodes, 2 or 3) of a .npy file of those nodes that have dofs here, and dofs per node.

    Collective. Nodes number the dofs, one node's after another's.

    Raises
    ------
    InputError
        The file is missing, no such array, or its nodes do not have 2 or 3 dofs each.
    """
    n = layout.n
    nodes = on_root(layout.comm, lambda: len(_load_nodes(path, n)))
    dims = n // nodes
    parts = [slice(a // dims, max(-(-b // dims), a // dims)) for a, b in _ranges(layout)]
    return _dealt_out(layout.comm, _load_nodes, (path, n), parts).astype(np.float64), dims


def _load_nodes(path, n: int) -> np.ndarray:
    nodes = _opened(path)
    shape = nodes.shape
    good = len(shape) == 2 and shape[0] > 0 and shape[1] in (2, 3) and nodes.dtype.kind in "iuf"
    if not good or n not in (2 * shape[0], shape[1] * shape[0]):
        raise InputError(
            f"{path}: positions must be (nodes, 2 or 3) numbers of nodes that have as many of the {n} dofs each, "
            f"not {shape}"
        )
    if not np.isfinite(nodes).all():
        raise InputError(f"{path}: positions must be finite")
    return nodes


def read_matrix(path, comm) -> StoredMatrix:
    """Return the symmetric matrix of a file, or the Hermitian one where PETSc's scalars are complex.

    Collective.

    Raises
    ------
    InputError
        The file is missing, damaged, not square, empty, has an entry that is not finite, is not symmetric (the
        message says which entry), or is complex where scalars are real.
    """
    path = Path(path)
    rows, layout = _read_rows(path, comm)
    with agreement(layout.comm):
        bad = np.flatnonzero(~np.isfinite(rows.data))
        if len(bad):
            row = int(np.searchsorted(rows.indptr, bad[0], side="right")) - 1 + layout.start
            raise InputError(f"{path}: entry ({row}, {rows.indices[bad[0]]}) is {rows.data[bad[0]]}")
    pattern = Pattern.from_csr(rows.indptr, rows.indices, comm=layout.comm, source=str(path))
    values = _on_pattern(rows, pattern)
    other = _transposed(pattern, values)
    difference = np.abs(values - other)
    comm = layout.comm
    largest = comm.allreduce(float(np.abs(values).max(initial=0.0)), op=MPI.MAX)
    worst, rank = comm.allreduce((float(difference.max(initial=0.0)), comm.rank), op=MPI.MAXLOC)
    asymmetry = worst / largest if largest > 0 else 0.0
    if asymmetry > ASYMMETRY:
        at = int(difference.argmax()) if comm.rank == rank else 0
        told = (*pattern.entry(at), values[at].item(), other[at].conj().item()) if comm.rank == rank else None
        i, j, forth, back = comm.bcast(told, root=rank)
        kind = "Hermitian" if complex_scalars() else "symmetric"
        raise InputError(
            f"{path}: not {kind}: entry ({i}, {j}) is {forth:.6g}, entry ({j}, {i}) is {back:.6g}; "
            f"a Hessian is {kind}"
        )
    return StoredMatrix(pattern, 0.5 * (values + other), asymmetry, str(path))


def _transposed(pattern: Pattern, values: np.ndarray) -> np.ndarray:
    """Return the values of the conjugate transpose in the order of these. Collective."""
    if values.dtype.kind == "c":
        real, imaginary = (np.ascontiguousarray(part) for part in (values.real, values.imag))
        return _transposed(pattern, real) - 1j * _transposed(pattern, imaginary)
    other = mirrored(pattern.indptr, pattern.columns.astype(pattern.indptr.dtype, copy=False), values, 0.0)
    remote = pattern.exchange.remote
    other[remote] = pattern.exchange.mirror(np.ascontiguousarray(values[remote]))
    return other


def read_vectors(path, layout: Layout) -> np.ndarray:
    """Return (m, n_local) dense vectors of a .npz, .npy or .h5 file: null vectors, guesses.

    Collective. The file holds one array, (m, n) or (n, m), or one that is called `vectors`. Rank 0 reads and
    sends each rank its own.
    """
    parts = [(slice(None), slice(a, b)) for a, b in _ranges(layout)]
    return _dealt_out(layout.comm, _load_vectors, (Path(path), layout.n), parts)


# --- rows over ranks -------------------------------------------------------------------


def _read_rows(path: Path, comm, block: int = 1) -> tuple[scipy.sparse.csr_matrix, Layout]:
    """Return (local rows with global columns, layout)."""
    suffix = suffix_of(path)
    if suffix is None:
        raise InputError(f"{path}: not a matrix file; its name must end with one of {', '.join(SUFFIXES)}")
    if suffix == ".petsc":
        return _load_petsc(path, comm)
    whole = None
    with agreement(comm):
        if comm.rank == 0:
            whole = _load(path, suffix)
    return _deal(whole, comm, block)


def _deal(whole: scipy.sparse.csr_matrix | None, comm, block: int) -> tuple[scipy.sparse.csr_matrix, Layout]:
    """Send each rank its rows of the matrix that rank 0 has."""
    n = comm.bcast(whole.shape[0] if comm.rank == 0 else None)
    if block < 1 or n % block:
        raise InputError(f"blocks of {block}: {n} variables are not a whole number of them")
    layout = Layout.from_size(n, comm, block)
    if comm.size == 1:
        return whole, layout
    if comm.rank == 0:
        for rank in range(1, comm.size):
            part = whole[layout.starts[rank] : layout.starts[rank + 1]]
            comm.send((part.indptr, len(part.indices)), dest=rank)
            comm.Send(part.indices.astype(np.int64), dest=rank)
            comm.Send(part.data, dest=rank)
        return whole[: layout.starts[1]], layout
    indptr, length = comm.recv(source=0)
    indices, data = np.empty(length, np.int64), np.empty(length, PETSc.ScalarType)
    comm.Recv(indices, source=0)
    comm.Recv(data, source=0)
    return scipy.sparse.csr_matrix((data, indices, indptr), (layout.n_local, n)), layout


def _on_pattern(rows: scipy.sparse.csr_matrix, pattern: Pattern) -> np.ndarray:
    """Return the values (nnz_local,) of rows on a pattern that contains them."""
    if len(rows.indices) == pattern.nnz_local:
        return np.ascontiguousarray(rows.data, PETSc.ScalarType)
    n, local = pattern.n, np.arange(pattern.layout.n_local, dtype=np.int64)
    places = np.repeat(local, np.diff(pattern.indptr)) * n + pattern.indices
    wanted = np.repeat(local, np.diff(rows.indptr)) * n + rows.indices
    values = np.zeros(pattern.nnz_local, PETSc.ScalarType)
    values[np.searchsorted(places, wanted)] = rows.data
    return values


# --- the formats, on rank 0 ------------------------------------------------------------


def _load(path: Path, suffix: str) -> scipy.sparse.csr_matrix:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    reader = {".mtx": matrixmarket.load, ".mtx.gz": matrixmarket.load, ".npz": _load_npz, ".h5": _load_h5}[suffix]
    try:
        matrix = reader(path)
    except (InputError, StackError):
        raise
    except MemoryError as error:
        raise InputError(f"{path}: too large for the memory of this machine") from error
    except Exception as error:  # whatever a damaged file makes a reader do
        raise InputError(f"{path}: damaged or not of its format: {' '.join(str(error).split())[:200]}") from error
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise InputError(f"{path}: a Hessian is square; this matrix is {' x '.join(map(str, matrix.shape))}")
    if matrix.dtype.kind == "c" and not complex_scalars():
        raise InputError(f"{path}: a Hessian is real here, this matrix is complex: it takes {another_build(True)}")
    if matrix.dtype.kind not in "fiubc":
        raise InputError(f"{path}: a Hessian is numbers; this matrix is {matrix.dtype}")
    matrix = scipy.sparse.csr_matrix(matrix, dtype=PETSc.ScalarType)
    matrix.sum_duplicates()
    if matrix.shape[0] == 0 or matrix.nnz == 0:
        raise InputError(f"{path}: the matrix is empty ({matrix.shape[0]} rows, {matrix.nnz} entries)")
    return matrix


def held(path) -> int:
    """Return the bytes of the arrays that a file holds, or claims to hold, from its head alone.

    Not collective.

    Raises
    ------
    InputError
        It is missing, or its head is damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    name = path.name.lower()
    try:
        if name.endswith((".mtx", ".mtx.gz")):
            head = matrixmarket.head(path)
            each = 24 if head.kind == "complex" else 16
            return 8 * head.rows + 2 * each * head.entries  # as triples, both halves of a symmetric one
        if name.endswith(".npz"):
            member_sizes(path)
            with zipfile.ZipFile(path) as archive:
                return sum(info.file_size for info in archive.infolist())
        if name.endswith(".h5"):
            total = 0

            def add(_, item) -> None:
                nonlocal total
                total += int(getattr(item, "size", 0) or 0) * getattr(getattr(item, "dtype", None), "itemsize", 0)

            with opened(path) as file:
                file.visititems(add)
            return total
        return path.stat().st_size
    except (InputError, StackError):
        raise
    except Exception as error:  # whatever a damaged file makes a reader do
        raise InputError(f"{path}: damaged or not of its format: {' '.join(str(error).split())[:200]}") from error


def member_sizes(path: Path) -> dict[str, tuple]:
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


def _load_npz(path: Path):
    shapes = member_sizes(path)
    if "format" not in shapes:
        if len(shapes) == 1 and len(next(iter(shapes.values()))) == 2:
            with np.load(path, allow_pickle=False) as archive:
                return archive[next(iter(shapes))]
        raise InputError(
            f"{path}: neither a SciPy sparse matrix nor one square array; it holds {', '.join(shapes)}"
        )
    with np.load(path, allow_pickle=False) as archive:
        rows, columns = (int(length) for length in archive["shape"])
    entries = int(np.prod(shapes.get("data", (0,)), dtype=object))
    believable(path, rows, columns, entries, entries)
    matrix = scipy.sparse.load_npz(path)
    return _whole(path, matrix) if matrix.format in ("csr", "csc", "bsr") else matrix


def _whole(path: Path, matrix):
    """Return a compressed matrix whose parts belong together: what SciPy compiles trusts them."""
    # SciPy's check subtracts, and overlooks where a last one is below zero or so far below that this overflows.
    if (matrix.indptr[1:] < matrix.indptr[:-1]).any():
        raise InputError(f"{path}: damaged: rows of fewer than no entries")
    matrix.check_format(full_check=True)
    return matrix


def _load_h5(path: Path):
    with opened(path) as file:
        names = ("indptr", "indices", "data", "shape")
        missing = [name for name in names if name not in file]
        if missing:
            raise InputError(f"{path}: not a matrix: it has no dataset {', '.join(missing)}")
        rows, columns = (int(length) for length in file["shape"][:2])
        entries = file["data"].shape[0]
        # Chunks that were never written take no bytes, so a small file can claim any size.
        stored = file["data"].id.get_storage_size() * MOST_SHRUNK
        believable(path, rows, columns, entries, stored // file["data"].dtype.itemsize)
        if file["indptr"].shape != (rows + 1,) or file["indices"].shape != (entries,):
            raise InputError(f"{path}: indptr, indices and data do not belong together")
        matrix = scipy.sparse.csr_matrix(
            (file["data"][:], file["indices"][:], file["indptr"][:]), shape=(rows, columns)
        )
    return _whole(path, matrix)


_PETSC_MATRIX = 1211216


def _check_petsc(path: Path) -> None:
    """Read a PETSc binary matrix in pieces and refuse it if anything in it does not fit."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    index = np.dtype(PETSc.IntType).newbyteorder(">")
    size = os.path.getsize(path)
    with open(path, "rb") as stream:
        first = stream.read(4 * index.itemsize)
        head = np.frombuffer(first[: len(first) // index.itemsize * index.itemsize], index)
        if len(head) < 4 or head[0] != _PETSC_MATRIX:
            raise InputError(f"{path}: not a PETSc binary matrix with {8 * index.itemsize}-bit indices")
        rows, columns, entries = (int(number) for number in head[1:])
        if rows != columns:
            raise InputError(f"{path}: a Hessian is square; this matrix is {rows} x {columns}")
        if rows <= 0 or entries <= 0:
            raise InputError(f"{path}: the matrix is empty or dense ({rows} rows, {entries} entries)")
        number = np.dtype(PETSc.ScalarType).itemsize
        beside = index.itemsize * (4 + rows + entries)
        if number == 8 and size == beside + 16 * entries:
            raise InputError(
                f"{path}: its numbers are complex, those of this PETSc are real: it takes {another_build(True)}"
            )
        if number == 16 and size == beside + 8 * entries:
            raise InputError(
                f"{path}: its numbers are real, those of this PETSc are complex: store it as .npz or .mtx, or "
                f"take {another_build(False)}"
            )
        needed = beside + number * entries
        if size < needed:
            raise InputError(f"{path}: claims {needed} bytes and has {size}: truncated")
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


def _pieces(stream, dtype: np.dtype, count: int, piece: int = 2**20):
    for first in range(0, count, piece):
        yield np.frombuffer(stream.read(dtype.itemsize * min(piece, count - first)), dtype)


def _load_petsc(path: Path, comm) -> tuple[scipy.sparse.csr_matrix, Layout]:
    with agreement(comm):
        if comm.rank == 0:
            _check_petsc(path)
    viewer = PETSc.Viewer().createBinary(str(path), "r", comm=comm)
    matrix = PETSc.Mat().create(comm)
    matrix.setType("aij")
    matrix.load(viewer)
    viewer.destroy()
    layout = Layout.from_local(matrix.getLocalSize()[0], comm)
    indptr, indices, data = matrix.getValuesCSR()
    rows = scipy.sparse.csr_matrix((data, indices, indptr), (layout.n_local, layout.n))
    rows.sum_duplicates()
    matrix.destroy()
    return rows, layout


def _load_vectors(path: Path, n: int) -> np.ndarray:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        if path.suffix == ".h5":
            with opened(path) as file:
                arrays = {name: item[()] for name, item in file.items() if getattr(item, "ndim", 0) == 2}
        elif path.suffix == ".npz":
            member_sizes(path)
            with np.load(path, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive if archive[name].ndim == 2}
        else:
            arrays = {"vectors": np.atleast_2d(np.load(path, allow_pickle=False))}
    except (InputError, StackError):
        raise
    except Exception as error:  # whatever a damaged file makes a reader do
        raise InputError(f"{path}: damaged or not of its format: {' '.join(str(error).split())[:200]}") from error
    if "vectors" not in arrays and len(arrays) != 1:
        raise InputError(
            f"{path}: expected one two-dimensional array, or one called vectors; found {list(arrays)}"
        )
    array = arrays.get("vectors", next(iter(arrays.values()), np.empty((0, 0))))
    if n not in array.shape:
        raise InputError(f"{path}: vectors of shape {array.shape} do not fit {n} variables")
    array = array if array.shape[1] == n else array.T
    if array.dtype.kind == "c" and not complex_scalars():
        raise InputError(f"{path}: vectors must be real here, these are complex: they take {another_build(True)}")
    if array.dtype.kind not in "iufc" or not np.isfinite(array).all():
        raise InputError(f"{path}: vectors must be finite numbers")
    return array.astype(PETSc.ScalarType, copy=False)
