"""Matrix files: read, checked and dealt to the ranks by rows; nothing is ever unpickled.

Rank 0 reads, except PETSc's binary format, of which every rank reads its own rows once rank 0 has
seen that the file is sound. A file that claims what it does not hold is refused before memory is
taken for it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from mpi4py import MPI

import numpy as np
import scipy.sparse

from sparsehess.errors import InputError
from sparsehess.pattern import Layout, Pattern
from sparsehess.runtime import PETSc, agreement, aij, communicator, complex_scalars, memory
from sparsehess.storage import matrix_formats, matrix_market
from sparsehess.storage.decimal_digits import FULL, Rounding, rounding_of_type
from sparsehess.storage.dof_labels import Labels, labels_of_keys
from sparsehess.storage.matrix_address import SUFFIXES, suffix_of
from sparsehess.storage.matrix_formats import FirstRows, Loaded, PetscHead
from sparsehess.storage.memory_claims import PER_ENTRY, PER_ROW, require_memory
from sparsehess.storage.real_form import COMPLEX_SYMMETRIC, real_form

# Entries that are looked at together.
_PIECE = 2**15

# Odd numbers of 64 bits that tell rows, columns, real and imaginary parts apart.
_ODD = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93], np.uint64)

# More than the exponents of two of all numbers.
_EXPONENTS = 1100

# A file may differ from its transpose by this part of the entries in its rows; its symmetric part is taken.
ASYMMETRY = matrix_market.MOST_UNEQUAL


@dataclass(frozen=True)
class Origin:
    """The file that a matrix came from, and what was found in it.

    Attributes
    ----------
    path
        Of the file.
    asymmetry
        Largest |a_ij - a_ji|, of Hermitian matrices |a_ij - ā_ji|, over the size of entries in these rows.
    said
        What is to be said of how it was read, a sentence each.
    rounding
        By how much entries may have been rounded when they were written.
    digest
        A number for all entries and their places: another one means another matrix.
    doubled
        Whether the matrix is the real form of that of the file, which is complex.
    completed
        Whether the file has one triangle, which was taken for one of a symmetric matrix.
    """

    path: str
    asymmetry: float = 0.0
    said: tuple[str, ...] = ()
    rounding: Rounding = FULL
    digest: str = ""
    doubled: bool = False
    completed: bool = False


@dataclass(frozen=True, eq=False)
class StoredMatrix:
    """A symmetric matrix from a file, or a complex Hermitian one.

    Attributes
    ----------
    pattern
        Its structure, diagonal included.
    values
        (nnz_local,) of the pattern, symmetric to the last bit: of PETSc's scalars, or complex and Hermitian.
    origin
        The file, and what was found in it.
    labels
        Of the own rows, None where the file has none.
    """

    pattern: Pattern
    values: np.ndarray
    origin: Origin
    labels: Labels | None = None

    @property
    def is_complex(self) -> bool:
        """Whether it is complex where PETSc's scalars are real. Not collective."""
        return self.values.dtype.kind == "c" and not complex_scalars()

    def to_mat(self, *, doubled: bool = False) -> PETSc.Mat:
        """Return the matrix as PETSc AIJ, its real form where it is complex and scalars are real.

        Collective. The caller destroys it.

        Parameters
        ----------
        doubled
            Whether the real form is wanted of a real matrix, too, which stands beside a complex one.
        """
        if self.is_complex or doubled:
            numbers = [self.values.real, self.values.imag] if self.is_complex else [self.values]
            structure = self.pattern.indptr, self.pattern.indices
            return real_form(self.pattern.layout, [(*structure, part) for part in numbers])
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
    rows, layout, *_ = _read_rows(Path(path), communicator(comm), block, hermitian=True)
    pattern = Pattern.from_csr(rows.indptr, rows.indices, comm=layout.comm, diagonal=diagonal, source=str(path))
    return pattern.in_blocks(block)


def read_matrix(
    path: str | os.PathLike[str],
    comm: MPI.Comm | None,
    *,
    one_triangle: bool = False,
    beside: StoredMatrix | None = None,
    hermitian: bool = False,
) -> StoredMatrix:
    """Return the symmetric matrix of a file, or a complex Hermitian one.

    Collective.

    Parameters
    ----------
    path
        Of a file, or of one matrix of a file, as `model.mat:K`.
    beside
        The matrix that it stands beside, as a mass beside a stiffness: where rows have labels of nodes, it gets
        those of this matrix, in its order.
    one_triangle
        Whether a matrix of which one triangle alone is stored stands for the symmetric one; else it is refused.
    hermitian
        Whether it may be complex where PETSc's scalars are real; where they are complex it always may.

    Raises
    ------
    InputError
        The file is missing, damaged, not square, empty, has an entry that is not finite, is not symmetric (the
        message says which entry, or which triangle is missing), or is complex where a real one is needed.
    """
    path = Path(path)
    pattern, values, origin, labels = _read_square(path, comm, beside, hermitian)
    layout, other = pattern.layout, _transposed(pattern, values)
    if layout.comm.allreduce(not np.array_equal(values, other), op=MPI.LOR):
        triangle = _only_triangle(pattern, values)
        if triangle and one_triangle:
            values = _completed(pattern, values, other)
            sentence = f"its {triangle} triangle alone is stored, and taken for one of a symmetric matrix"
            origin = replace(origin, said=(*origin.said, sentence))
        else:
            origin = replace(origin, asymmetry=_check_symmetry(path, pattern, values, other, triangle))
            # What is equal stays as it is: sums overflow, and halves of the least numbers vanish.
            values = np.where(values == other, values, 0.5 * values + 0.5 * other)
    return StoredMatrix(pattern, values, replace(origin, digest=_digest(pattern, values)), labels)


def read_unsymmetric(
    path: str | os.PathLike[str], comm: MPI.Comm | None, *, beside: StoredMatrix | None = None
) -> tuple[PETSc.Mat, Origin]:
    """Return the square matrix of a file as it is, as a gyroscopic one; the caller destroys it.

    Collective.

    Parameters
    ----------
    beside
        The matrix that it stands beside, see `read_matrix`.

    Raises
    ------
    InputError
        The file is missing, damaged, not square, empty, has an entry that is not finite, or is complex where
        scalars are real.
    """
    pattern, values, origin, _ = _read_square(Path(path), comm, beside)
    matrix = aij(pattern.layout, pattern.indptr, pattern.indices, values)
    matrix.setOption(PETSc.Mat.Option.HERMITIAN, False)
    matrix.setOption(PETSc.Mat.Option.SYMMETRIC, False)
    origin = replace(origin, digest=_digest(pattern, values))
    pattern.free()
    return matrix, origin


def _read_square(
    path: Path, comm: MPI.Comm | None, beside: StoredMatrix | None, hermitian: bool = False
) -> tuple[Pattern, np.ndarray, Origin, Labels | None]:
    """Return the finite entries of a file on a symmetric pattern, what was found, and labels of own rows.

    Collective.
    """
    comm = communicator(comm)
    first = None if beside is None else FirstRows(beside.pattern.n, _whole_labels(beside.labels, comm))
    rows, layout, origin, labels = _read_rows(path, comm, first=first, hermitian=hermitian)
    with agreement(layout.comm):
        bad = np.flatnonzero(~np.isfinite(rows.data))
        if len(bad):
            row = int(np.searchsorted(rows.indptr, bad[0], side="right")) - 1 + layout.start
            raise InputError(
                f"{path}: entry ({row}, {rows.indices[bad[0]]}) is {rows.data[bad[0]]}: entries must be finite"
            )
    pattern = Pattern.from_csr(rows.indptr, rows.indices, comm=layout.comm, source=str(path))
    return pattern, _on_pattern(rows, pattern), origin, labels


def _check_symmetry(path: Path, pattern: Pattern, values: np.ndarray, other: np.ndarray, triangle: str) -> float:
    """Return how far a matrix is from symmetric, if it is little: the largest |a_ij - a_ji| over the size of rows.

    Collective. That is the largest entry of the smaller of the two rows, or of a typical one: differences have
    errors of one size everywhere, and one large entry must not hide what the others are like.

    Parameters
    ----------
    other
        The transpose.
    triangle
        The only one that is stored, if there is only one: that is never symmetric.
    """
    comm = pattern.comm
    sizes = _sizes_of_rows(pattern, values)
    difference = np.abs(values - other)
    share = np.divide(difference, sizes, out=np.zeros(len(sizes)), where=difference > 0)
    asymmetry, rank = comm.allreduce((float(share.max(initial=0.0)), comm.rank), op=MPI.MAXLOC)
    if triangle or not asymmetry <= ASYMMETRY:
        alike = not comm.allreduce(bool((values != other.conj()).any()), op=MPI.LOR)
        at = int(share.argmax()) if comm.rank == rank else 0
        told = (*pattern.entry(at), values[at].item(), other[at].conj().item()) if comm.rank == rank else None
        i, j, forth, back = comm.bcast(told, root=rank)
        kind, mirror = ("Hermitian", "Aᴴ") if values.dtype.kind == "c" else ("symmetric", "Aᵀ")
        reason = f"a Hessian is {kind}: give (A + {mirror})/2 if it is meant to be one"
        if triangle:
            reason = (
                f"only the {triangle} triangle is stored, which --one-triangle takes for one of a {kind} matrix"
            )
        elif alike:
            reason = COMPLEX_SYMMETRIC
        raise InputError(
            f"{path}: not {kind}: entry ({i}, {j}) is {forth:.6g}, entry ({j}, {i}) is {back:.6g}; {reason}"
        )
    return asymmetry


def _sizes_of_rows(pattern: Pattern, values: np.ndarray) -> np.ndarray:
    """Return (nnz_local,) max(t, min(rᵢ, rⱼ)): rᵢ is the largest entry of a row, t the median of these.

    Collective. The median to a factor of two, a power of two. Every row has its diagonal.
    """
    largest = np.maximum.reduceat(np.abs(values), pattern.indptr[:-1]) if len(values) else np.empty(0)
    exponents = np.frexp(largest[largest > 0])[1] + _EXPONENTS
    counts = np.bincount(exponents, minlength=2 * _EXPONENTS)
    pattern.comm.Allreduce(MPI.IN_PLACE, counts)
    typical = np.ldexp(0.5, int(np.searchsorted(np.cumsum(counts), 0.5 * counts.sum())) - _EXPONENTS)
    here = np.repeat(largest, np.diff(pattern.indptr))
    return np.maximum(np.minimum(here, pattern.transposed(here)), typical)


def _only_triangle(pattern: Pattern, values: np.ndarray) -> str:
    """Return `upper` or `lower` where all entries beside the diagonal stand in that triangle, else nothing.

    Collective.
    """
    row, there = _rows_of(pattern), values != 0
    counts = np.array(
        [np.count_nonzero(there & (pattern.indices > row)), np.count_nonzero(there & (pattern.indices < row))]
    )
    above, below = pattern.comm.allreduce(counts)
    return "upper" if above and not below else "lower" if below and not above else ""


def _completed(pattern: Pattern, values: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the values of the symmetric matrix of which one triangle is stored, and `other` is its transpose."""
    return np.where(pattern.indices == _rows_of(pattern), values, values + other)


def _rows_of(pattern: Pattern) -> np.ndarray:
    """Return (nnz_local,) global rows of the entries."""
    own = np.arange(pattern.layout.start, pattern.layout.stop)
    return np.repeat(own, np.diff(pattern.indptr))


def _digest(pattern: Pattern, values: np.ndarray) -> str:
    """Return a number for the entries that are not zero and their places, the same on any number of ranks.

    Collective. The sum over entries of a mixture of their bits.
    """
    total, rows = 0, _rows_of(pattern)
    for first in range(0, len(values), _PIECE):
        here = slice(first, first + _PIECE)
        part = values[here]
        there = part != 0
        numbers = [rows[here], pattern.indices[here], part.real]
        if part.dtype.kind == "c":
            numbers = [*numbers[:2], part.real + 0.0, part.imag + 0.0]  # which makes one zero of two
        mixed = np.zeros(len(part), np.uint64)
        for one, odd in zip(numbers, _ODD, strict=False):
            kind = np.float64 if one.dtype.kind == "f" else np.int64
            mixed += np.ascontiguousarray(one, kind).view(np.uint64) * odd
        # Each entry is mixed thoroughly (the last steps of SplitMix64), and all are summed.
        mixed ^= mixed >> np.uint64(30)
        mixed *= np.uint64(0xBF58476D1CE4E5B9)
        mixed ^= mixed >> np.uint64(27)
        mixed *= np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
        total += int(mixed[there].sum(dtype=np.uint64))
    return f"{sum(pattern.comm.allgather(total)) % 2**64:016x}"


def _transposed(pattern: Pattern, values: np.ndarray) -> np.ndarray:
    """Return the values of the conjugate transpose in the order of these. Collective."""
    if values.dtype.kind == "c":
        real, imaginary = (np.ascontiguousarray(part) for part in (values.real, values.imag))
        return _transposed(pattern, real) - 1j * _transposed(pattern, imaginary)
    return pattern.transposed(values)


# What may stand in the place of a matrix, by suffix, and how it becomes a problem.
_ATOMS = (".xyz", ".extxyz", ".traj", ".cif", ".pdb", ".vasp", ".poscar", ".gen", ".in", ".json", ".db")


def _instead(path: Path) -> str:
    """Return what to give in the place of a file that holds no matrix; empty where nothing is known of it."""
    if path.suffix == ".py":
        return f"; a problem in Python is {path}:NAME, NAME a function in it that returns an Objective"
    if path.suffix.lower() in _ATOMS:
        return (
            "; atoms need forces, too: give problem.py:NAME, NAME a function that reads them, sets a calculator, "
            "and returns sparsehess.from_atoms(atoms)"
        )
    return ""


# --- rows over ranks -------------------------------------------------------------------


def _read_rows(
    path: Path, comm: MPI.Comm, block: int = 1, first: FirstRows | None = None, *, hermitian: bool = False
) -> tuple[scipy.sparse.csr_matrix, Layout, Origin, Labels | None]:
    """Return (local rows with global columns, layout, what was found, labels of the local rows)."""
    suffix = suffix_of(path)
    if suffix is None:
        raise InputError(
            f"{path}: not a matrix file; its name must end with one of {', '.join(SUFFIXES)}{_instead(path)}"
        )
    if suffix == ".petsc":
        return *_load_petsc(path, comm, block, hermitian), None
    loaded = Loaded(scipy.sparse.csr_matrix((0, 0)))  # of rank 0
    with agreement(comm):
        if comm.rank == 0:
            loaded = matrix_formats.load_matrix(path, suffix, first, hermitian=hermitian)
    said, rounding, completed = comm.bcast((loaded.said, loaded.rounding, loaded.completed))
    rows, layout = _deal(loaded.matrix, comm, block)
    origin = Origin(str(path), said=said, rounding=rounding, completed=completed)
    return rows, layout, origin, _deal_labels(loaded.labels, layout)


def _deal_labels(whole: Labels | None, layout: Layout) -> Labels | None:
    """Send each rank the labels of its rows, which rank 0 has. Collective."""
    comm, starts = layout.comm, layout.starts
    if not comm.bcast(whole is not None):
        return None
    for rank in range(1, comm.size):
        if comm.rank == 0 and whole is not None:
            part = whole.part(starts[rank], starts[rank + 1])
            comm.Send(np.ascontiguousarray(part.keys), dest=rank)
        elif comm.rank == rank:
            keys = np.empty(layout.n_local, np.int64)
            comm.Recv(keys, source=0)
            return labels_of_keys(keys)
    return None if whole is None else whole.part(0, layout.n_local)


def _whole_labels(own: Labels | None, comm: MPI.Comm) -> Labels | None:
    """Return the labels of all rows on rank 0, which reads; None on others. Collective."""
    parts = comm.gather(None if own is None else own.keys)
    if own is None or parts is None:
        return None
    return labels_of_keys(np.concatenate(parts))


def _deal(whole: scipy.sparse.csr_matrix, comm: MPI.Comm, block: int) -> tuple[scipy.sparse.csr_matrix, Layout]:
    """Send each rank its rows of the matrix that rank 0 has."""
    n = comm.bcast(whole.shape[0] if comm.rank == 0 else None)
    layout = _layout(n, comm, block)
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


def _layout(n: int, comm: MPI.Comm, block: int) -> Layout:
    """Return the layout of n rows in whole blocks. Collective."""
    if block < 1 or n % block:
        raise InputError(f"blocks of {block}: {n} variables are not a whole number of them")
    return Layout.from_size(n, comm, block)


def _on_pattern(rows: scipy.sparse.csr_matrix, pattern: Pattern) -> np.ndarray:
    """Return the values (nnz_local,) of rows on a pattern that contains them."""
    kind = np.result_type(rows.data, PETSc.ScalarType)
    if len(rows.indices) == pattern.nnz_local:
        return np.ascontiguousarray(rows.data, kind)
    n, local = pattern.n, np.arange(pattern.layout.n_local, dtype=np.int64)
    places = np.repeat(local, np.diff(pattern.indptr)) * n + pattern.indices
    wanted = np.repeat(local, np.diff(rows.indptr)) * n + rows.indices
    values = np.zeros(pattern.nnz_local, kind)
    values[np.searchsorted(places, wanted)] = rows.data
    return values


def _load_petsc(
    path: Path, comm: MPI.Comm, block: int, hermitian: bool
) -> tuple[scipy.sparse.csr_matrix, Layout, Origin]:
    """Return the rows of a PETSc binary matrix, each rank's read by itself. Collective."""
    head: PetscHead | None = None
    with agreement(comm):
        if comm.rank == 0:
            head = matrix_formats.check_petsc_matrix(path)
    head = comm.bcast(head)
    layout = _layout(head.rows, comm, block)
    free = memory.free_memory(comm)
    with agreement(comm):
        needed = (head.entries * PER_ENTRY + head.rows * PER_ROW) // comm.size
        require_memory(path, "a rank's part of the matrix", needed, free)
        lengths = head.read(path, "lengths", layout.start, layout.stop).astype(np.int64)
    before = sum(comm.allgather(int(lengths.sum()))[: comm.rank])
    said: tuple[str, ...] = ()
    with agreement(comm):
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        indices, data = (
            head.read(path, part, before, before + int(indptr[-1])) for part in ("columns", "numbers")
        )
    complex_here = data.dtype.kind == "c" and not complex_scalars()
    imaginary = comm.allreduce(complex_here and matrix_formats.has_imaginary_part(data), op=MPI.LOR)
    with agreement(comm):
        if imaginary and not hermitian:
            raise matrix_formats.complex_where_real(path)
        if complex_here and not imaginary:
            data, said = data.real, (matrix_formats.REAL_AFTER_ALL,)
        rounding = rounding_of_type(data)
        kind = np.complex128 if imaginary else PETSc.ScalarType
        rows = scipy.sparse.csr_matrix((data.astype(kind), indices, indptr), (layout.n_local, layout.n))
        rows.sum_duplicates()
    rounding = next((one for one in comm.allgather(rounding) if one), FULL)
    return rows, layout, Origin(str(path), said=said, rounding=rounding)
