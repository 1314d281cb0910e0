"""Writers, chosen by suffix. Files appear whole: written beside, then renamed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np
import scipy.sparse

from sparsehess.errors import InputError
from sparsehess.runtime import PETSc, agreement, communicator, destroy, optional, readable_errors
from sparsehess.runtime.row_layout import offsets
from sparsehess.storage.atomic_files import (
    explain_write_errors,
    open_deferring_errors,
    refuse_unwritable,
    write_file,
)
from sparsehess.storage.hdf5 import create_hdf5
from sparsehess.storage.json_files import json_text
from sparsehess.storage.row_pieces import write_in_pieces

RESULTS = (".h5", ".npz")
MATRICES = (".mtx", ".npz", ".petsc", ".h5")


def check_writable(path: str | os.PathLike[str] | None, suffixes: tuple[str, ...], comm: MPI.Comm) -> None:
    """Refuse a file that could not be written, before anything is computed.

    Collective.
    """
    with agreement(comm):
        if comm.rank == 0 and path is not None:
            path = Path(path)
            if suffixes and path.suffix not in suffixes:
                raise InputError(f"{path}: its name must end with one of {', '.join(suffixes)}")
            refuse_unwritable(path)
            if path.suffix == ".h5":  # imported before the user's code, which may bring another HDF5
                optional("h5py", "an .h5 file", "hdf5")


def write_results(
    path: str | os.PathLike[str],
    facts: dict,
    arrays: dict[str, np.ndarray],
    vectors: Sequence[PETSc.Vec],
    comm: MPI.Comm,
) -> None:
    """Write facts (as JSON text), small arrays, and distributed vectors as rows of `vectors`.

    Collective. Rank 0 holds a piece of a vector at a time for .h5, all vectors for .npz.

    Raises
    ------
    InputError
        The file cannot be written; nothing of it is left then.
    """
    path = Path(path)
    n = vectors[0].getSize() if vectors else 0
    if path.suffix == ".h5":
        with ExitStack() as stack:  # what rank 0 has begun ends with it, whatever happens
            rows: Any = None  # of rank 0
            with agreement(comm):
                if comm.rank == 0:
                    beside = stack.enter_context(write_file(path))
                    with explain_write_errors(path):
                        target = stack.enter_context(create_hdf5(beside))
                    target.attrs["json"] = json_text(facts)
                    for name, array in arrays.items():
                        target[name] = array
                    rows = target.create_dataset("vectors", (len(vectors), n), PETSc.ScalarType)

            def write(number: int, first: int, values: np.ndarray) -> None:
                with explain_write_errors(path):
                    rows[number, first : first + len(values)] = values

            for number, vector in enumerate(vectors):
                write_in_pieces(vector, comm, partial(write, number))
            with agreement(comm):
                stack.close()
        return
    everything = [gather_vector(vector, comm) for vector in vectors]
    with agreement(comm):
        if comm.rank == 0:
            stacked = np.array(everything).reshape(len(vectors), n)
            with write_file(path) as beside, open_deferring_errors(beside) as stream:
                np.savez(stream, json=np.array(json_text(facts)), vectors=stacked, **arrays)


def gather_vector(vector: PETSc.Vec, comm: MPI.Comm) -> np.ndarray:
    """Return all of a vector on rank 0, nothing of it elsewhere. Collective."""
    local = vector.getArray(readonly=True)
    counts = np.array(comm.gather(len(local)) or [], np.int64)
    with agreement(comm):
        whole = np.empty(vector.getSize() if comm.rank == 0 else 0, local.dtype)
    comm.Gatherv(local, [whole, (counts, offsets(counts))] if comm.rank == 0 else None)
    return whole


def write_matrix(path: str | os.PathLike[str], matrix: PETSc.Mat) -> None:
    """Write a distributed matrix.

    Collective. .petsc is written by all ranks together; the other formats are gathered on rank 0.
    """
    path, comm = Path(path), communicator(matrix.comm)
    if path.suffix == ".petsc":
        _write_petsc(path, matrix, comm)
        return
    whole = _gathered(matrix, comm)
    with agreement(comm):
        if comm.rank == 0:
            with write_file(path) as beside:
                if path.suffix == ".mtx":
                    from scipy.io import mmwrite  # 20 ms on every rank, and needed on one

                    with open(beside, "wb") as stream:
                        mmwrite(stream, whole, symmetry="symmetric")
                elif path.suffix == ".npz":
                    with open_deferring_errors(beside) as stream:
                        scipy.sparse.save_npz(stream, whole)
                else:
                    with create_hdf5(beside) as file:
                        for name in ("indptr", "indices", "data"):
                            file[name] = getattr(whole, name)
                        file["shape"] = whole.shape


def _write_petsc(path: Path, matrix: PETSc.Mat, comm: MPI.Comm) -> None:
    """Write a matrix in PETSc's format. Collective."""
    with ExitStack() as stack:
        beside = None
        with agreement(comm):
            if comm.rank == 0:
                beside = stack.enter_context(write_file(path))
                with explain_write_errors(path):
                    beside.touch()  # what cannot even be made PETSc would tell rank 0 alone
                stack.callback(Path(f"{beside}.info").unlink, missing_ok=True)
        beside = comm.bcast(beside)
        with readable_errors(f"writing {path}", "is there room on the disk?"):
            viewer = PETSc.Viewer().createBinary(str(beside), "w", comm=comm)
            try:
                matrix.view(viewer)
            finally:
                destroy(viewer)
        with agreement(comm):
            stack.close()


def _gathered(matrix: PETSc.Mat, comm: MPI.Comm) -> scipy.sparse.csr_matrix:
    """Return the whole matrix on rank 0, an empty one elsewhere. Collective."""
    with agreement(comm):
        indptr, indices, data = matrix.getValuesCSR()
        lengths, columns = np.diff(indptr).astype(np.int64), indices.astype(np.int64)
    sizes = comm.gather((len(lengths), len(columns)))
    n = matrix.getSize()[0]
    rows, entries = np.array(sizes or [(0, 0)]).T
    with agreement(comm):  # before anything is under way that a rank without memory would not take
        starts = np.zeros(n + 1 if comm.rank == 0 else 0, np.int64)
        places, values = np.empty(entries.sum(), np.int64), np.empty(entries.sum())
    if comm.rank:
        for array in (lengths, columns, data):
            comm.Send(np.ascontiguousarray(array), dest=0)
        return scipy.sparse.csr_matrix((0, 0))
    ends, last = np.cumsum(rows), np.cumsum(entries)
    starts[1 : ends[0] + 1], places[: last[0]], values[: last[0]] = lengths, columns, data
    for rank in range(1, comm.size):
        here = slice(last[rank - 1], last[rank])
        for array in (starts[ends[rank - 1] + 1 : ends[rank] + 1], places[here], values[here]):
            comm.Recv(array, source=rank)
    np.cumsum(starts, out=starts)
    return scipy.sparse.csr_matrix((values, places, starts), (n, n))
