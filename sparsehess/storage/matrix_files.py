"""Matrix files: read, checked and dealt to the ranks by rows; nothing is ever unpickled.

Rank 0 reads, except PETSc's own binary format, which every rank reads for itself once rank 0 has
seen that the file is sound. A file that claims what it does not hold is refused before memory is
taken for it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from mpi4py import MPI

import numpy as np
import scipy.sparse

from sparsehess.errors import InputError
from sparsehess.pattern import Layout, Pattern
from sparsehess.runtime import PETSc, agreement, aij, communicator, complex_scalars
from sparsehess.storage import matrix_formats

SUFFIXES = (".mtx", ".mtx.gz", ".npz", ".petsc", ".h5")

# A file may differ from its transpose by this part of its largest entry; its symmetric part is taken.
ASYMMETRY = 1e-6


def suffix_of(path: str | os.PathLike[str]) -> str | None:
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


def read_pattern(
    path: str | os.PathLike[str], comm: MPI.Comm | None, *, block: int = 1, diagonal: str = "full"
) -> Pattern:
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
    rows, layout = _read_rows(Path(path), communicator(comm), block)
    pattern = Pattern.from_csr(rows.indptr, rows.indices, comm=layout.comm, diagonal=diagonal, source=str(path))
    return pattern.in_blocks(block)


def read_matrix(path: str | os.PathLike[str], comm: MPI.Comm | None) -> StoredMatrix:
    """Return the symmetric matrix of a file, or the Hermitian one where PETSc's scalars are complex.

    Collective.

    Raises
    ------
    InputError
        The file is missing, damaged, not square, empty, has an entry that is not finite, is not symmetric (the
        message says which entry), or is complex where scalars are real.
    """
    path = Path(path)
    rows, layout = _read_rows(path, communicator(comm))
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
    return pattern.transposed(values)


# --- rows over ranks -------------------------------------------------------------------


def _read_rows(path: Path, comm: MPI.Comm, block: int = 1) -> tuple[scipy.sparse.csr_matrix, Layout]:
    """Return (local rows with global columns, layout)."""
    suffix = suffix_of(path)
    if suffix is None:
        raise InputError(f"{path}: not a matrix file; its name must end with one of {', '.join(SUFFIXES)}")
    if suffix == ".petsc":
        return _load_petsc(path, comm)
    whole = scipy.sparse.csr_matrix((0, 0))  # of rank 0
    with agreement(comm):
        if comm.rank == 0:
            whole = matrix_formats.load_matrix(path, suffix)
    return _deal(whole, comm, block)


def _deal(whole: scipy.sparse.csr_matrix, comm: MPI.Comm, block: int) -> tuple[scipy.sparse.csr_matrix, Layout]:
    """Send each rank its rows of the matrix that rank 0 has."""
    n = comm.bcast(whole.shape[0] if comm.rank == 0 else None)
    if block < 1 or n % block:
        raise InputError(f"blocks of {block}: {n} variables are not a whole number of them")
    layout = Layout.from_size(n, comm, block)
    if comm.size == 1:
        return whole, layout
    # Where each rank's entries begin, and the kinds of the arrays. Rank 0 sends views, which takes no memory.
    parts = [whole.indptr, whole.indices, whole.data] if comm.rank == 0 else []
    begin, kinds = comm.bcast((whole.indptr[layout.starts], [part.dtype for part in parts]) if parts else None)
    with agreement(comm):
        entries = int(begin[comm.rank + 1] - begin[comm.rank])
        sizes = (layout.n_local + 1, entries, entries)
        own = [np.empty(size, kind) for size, kind in zip(sizes, kinds, strict=True)]
    for rank in range(1, comm.size):
        rows = slice(layout.starts[rank], layout.starts[rank + 1] + 1)
        held = slice(begin[rank], begin[rank + 1])
        for number, where in enumerate((rows, held, held)):
            if comm.rank == 0:
                comm.Send(parts[number][where], dest=rank)
            elif comm.rank == rank:
                comm.Recv(own[number], source=0)
    if comm.rank == 0:
        own = [parts[0][: layout.n_local + 1], parts[1][:entries], parts[2][:entries]]
    indptr, indices, data = own
    return scipy.sparse.csr_matrix((data, indices, indptr - begin[comm.rank]), (layout.n_local, n)), layout


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


def _load_petsc(path: Path, comm: MPI.Comm) -> tuple[scipy.sparse.csr_matrix, Layout]:
    with agreement(comm):
        if comm.rank == 0:
            matrix_formats.check_petsc_matrix(path)
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
