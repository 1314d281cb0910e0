"""Eigenpairs on disk, read again: on any number of ranks, whatever number has written them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np

from sparsehess.errors import InputError, StackError
from sparsehess.runtime import PETSc, agreement, another_build, communicator, complex_scalars, destroy
from sparsehess.runtime.row_layout import Layout
from sparsehess.runtime.short_repr import ShortRepr
from sparsehess.storage.array_archives import ArrayArchive
from sparsehess.storage.hdf5 import open_hdf5, require_chunks
from sparsehess.storage.memory_claims import bytes_of, require_memory
from sparsehess.storage.row_pieces import read_in_pieces


@dataclass(frozen=True, eq=False, repr=False)
class StoredPairs(ShortRepr):
    """What a result file holds.

    Attributes
    ----------
    facts
        The JSON of the run.
    arrays
        Lists of k numbers by name, `eigenvalues` or what was asked for among them, the same on every rank.
    vectors
        k Vecs, the caller's to destroy; of complex pairs 2k, the real and the imaginary part of each in turn.
    complex
        Whether values are complex, as those of `damped` are.
    """

    facts: dict[str, Any]
    arrays: dict[str, np.ndarray]
    vectors: list[PETSc.Vec]
    complex: bool = False

    def __len__(self) -> int:
        """Return the number of pairs. Not collective."""
        return len(self.vectors) // 2 if self.complex else len(self.vectors)


def read_pairs(
    path: str | os.PathLike[str],
    *,
    comm: MPI.Comm | None = None,
    layout: Layout | None = None,
    names: Sequence[str] = ("eigenvalues",),
    complex_pairs: bool = False,
) -> StoredPairs:
    """Read a result file (.h5 or .npz); nothing is unpickled.

    Collective. Rank 0 reads a piece of a vector at a time of an .h5 file, all of a .npz.

    Parameters
    ----------
    comm, layout
        Ranks, over which rows are spread evenly; or the rows of each rank, which the vectors must have.
    names
        What the values of the vectors may be called in the file: `eigenvalues`, `load_factors`.
    complex_pairs
        Whether values may be complex, with two real vectors each.

    Raises
    ------
    InputError
        The file is none, or its vectors are not of this many rows.
    """
    path, comm = Path(path), layout.comm if layout is not None else communicator(comm)
    with ExitStack() as stack:
        source: Any = None  # of rank 0, a _Source
        told: tuple[dict[str, Any], dict[str, np.ndarray], int] | None = None
        with agreement(comm):
            if comm.rank == 0:
                n = None if layout is None else layout.n
                source = stack.enter_context(_open(path, n, names, complex_pairs))
                told = source.facts, source.arrays, source.n
        facts, arrays, n = comm.bcast(told)
        # Real and imaginary parts in turn stay together.
        layout = layout or Layout.from_size(n, comm, 2 if facts.get("real_form") is True and n % 2 == 0 else 1)
        vectors: list[PETSc.Vec] = []
        try:
            values = next(arrays[name] for name in names if name in arrays)
            for number in range(len(values) * (2 if np.iscomplexobj(values) else 1)):
                local = read_in_pieces(layout, partial(_Source.piece, source, number))
                vectors.append(PETSc.Vec().createMPI((layout.n_local, layout.n), comm=comm))
                vectors[-1].setArray(local)
        except BaseException:
            destroy(*vectors)
            raise
    return StoredPairs(facts, arrays, vectors, np.iscomplexobj(values))


@dataclass(frozen=True)
class _Source:
    """An open result file, on rank 0: its JSON, its lists of numbers, and the rows of its vectors."""

    path: Path
    facts: dict[str, Any]
    arrays: dict[str, np.ndarray]
    n: int
    rows: Any

    def piece(self, number: int, first: int, last: int) -> np.ndarray:
        try:
            return self.rows[number, first:last]
        except OSError as error:
            raise InputError(
                f"{self.path}: vector {number} cannot be read ({' '.join(str(error).split())})"
            ) from error


@contextmanager
def _open(path: Path, n: int | None, names: Sequence[str], complex_pairs: bool) -> Iterator[_Source]:
    """Open a result of n variables, or of any number, whose values have one of these names."""
    with ExitStack() as stack:
        try:
            if path.suffix == ".h5":
                file = stack.enter_context(closing(open_hdf5(path)))
                text = str(file.attrs["json"])
            elif path.suffix == ".npz":
                file = stack.enter_context(closing(ArrayArchive(path)))
                text = str(file["json"])
            else:
                raise InputError(f"{path}: a result is an .h5 or .npz file, as eigs -o writes it")
            rows = file["vectors"]
            if hasattr(rows, "chunks"):
                require_chunks(path, rows)
            name = next((one for one in names if one in file), names[0])
            arrays = {name: _numbers(path, name, file[name], complex_pairs)}
            if "residuals" in file:
                arrays["residuals"] = _numbers(path, "residuals", file["residuals"])
            facts = json.loads(text)
        except (InputError, StackError):
            raise
        except Exception as error:  # whatever a damaged file makes a reader do
            raise InputError(
                f"{path}: no result of sparsehess eigs ({' '.join(str(error).split())[:200]}); eigs -o writes one"
            ) from error
        if not isinstance(facts, dict):
            raise InputError(f"{path}: no result of sparsehess eigs (its JSON is no table)")
        values = arrays[name]
        k = len(values) * (2 if np.iscomplexobj(values) else 1)  # vectors
        shape: Any = getattr(rows, "shape", "that are none")
        if n is None:
            n = int(shape[1]) if isinstance(shape, tuple) and len(shape) == 2 else 0
        if shape != (k, n) and (k or shape != (0, 0)):
            told = f": its matrix has {shape[1]} rows" if len(shape) == 2 and shape[0] == k else ""
            if told and facts.get("real_form") is True:
                told = f": its matrix is complex and has {shape[1] // 2} rows"
            raise InputError(f"{path}: {len(values)} eigenvalues and vectors {shape} do not fit n = {n}{told}")
        if rows.dtype.kind == "c" and not complex_scalars():
            raise InputError(f"{path}: its vectors are complex: they take {another_build(True)}")
        if rows.dtype.kind not in "fiuc":
            raise InputError(f"{path}: vectors of {rows.dtype}, not of numbers")
        if not np.isfinite(values).all():
            raise InputError(f"{path}: eigenvalues that are not finite")
        yield _Source(path, facts, arrays, n, rows)


def _numbers(path: Path, name: str, stored: Any, complex_ones: bool = False) -> np.ndarray:
    """Return a list of numbers, real unless complex ones may be; its size is looked at before it is read."""
    kind = getattr(stored, "dtype", np.dtype(object)).kind
    if getattr(stored, "ndim", 0) != 1 or kind not in ("fiuc" if complex_ones else "fiu"):
        raise InputError(f"{path}: {name} must be a list of numbers")
    require_memory(path, name, bytes_of(stored.shape, 16))
    return np.asarray(stored[()], np.complex128 if kind == "c" else np.float64)
