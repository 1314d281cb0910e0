"""Writers, chosen by suffix. Files appear whole: written beside, then renamed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import scipy.sparse

from sparsehess.errors import InputError
from sparsehess.files import replaced
from sparsehess.pattern.layout import offsets
from sparsehess.runtime import PETSc, agreement, optional

RESULTS = (".h5", ".npz")
MATRICES = (".mtx", ".npz", ".petsc", ".h5")


def check_writable(path, suffixes: tuple[str, ...], comm) -> None:
    """Refuse a file that could not be written, before anything is computed.

    Collective.
    """
    with agreement(comm):
        if comm.rank == 0 and path is not None:
            path = Path(path)
            if suffixes and path.suffix not in suffixes:
                raise InputError(f"{path}: its name must end with one of {', '.join(suffixes)}")
            if not path.absolute().parent.is_dir():
                raise InputError(f"{path}: there is no folder {path.absolute().parent}")
            if not os.access(path.absolute().parent, os.W_OK) or path.is_dir():
                raise InputError(f"{path}: cannot be written")
            if path.suffix == ".h5":  # imported before the user's code, which may bring another HDF5
                optional("h5py", "an .h5 file", "hdf5")


def write_json(path, facts: dict) -> None:
    """Write JSON to a file, or to standard output for `-`.

    Not collective: rank 0 calls it.
    """
    text = json.dumps(facts, indent=2)
    if str(path) == "-":
        print(text, flush=True)
        return
    with replaced(Path(path)) as beside:
        beside.write_text(text + "\n")


def write_results(path, facts: dict, arrays: dict[str, np.ndarray], vectors, comm) -> None:
    """Write facts (as JSON text), small arrays, and distributed vectors as rows of `vectors`.

    Collective. Rank 0 holds one vector at a time for .h5, all of them for .npz.
    """
    path = Path(path)
    n = vectors[0].getSize() if vectors else 0
    if path.suffix == ".h5":
        target = None
        with agreement(comm):
            if comm.rank == 0:
                beside = path.with_name(f".{os.getpid()}.{path.name}")
                target = optional("h5py", "an .h5 file", "hdf5").File(beside, "w")
                target.attrs["json"] = json.dumps(facts)
                for name, array in arrays.items():
                    target[name] = array
                rows = target.create_dataset("vectors", (len(vectors), n), PETSc.ScalarType)
        for number, vector in enumerate(vectors):
            whole = _whole(vector, comm)
            with agreement(comm):
                if comm.rank == 0:
                    rows[number] = whole
        with agreement(comm):
            if comm.rank == 0:
                target.close()
                os.replace(beside, path)
        return
    whole = [_whole(vector, comm) for vector in vectors]
    with agreement(comm):
        if comm.rank == 0:
            stacked = np.array(whole).reshape(len(vectors), n)
            with replaced(path) as beside, open(beside, "wb") as stream:
                np.savez(stream, json=np.array(json.dumps(facts)), vectors=stacked, **arrays)


def _whole(vector: PETSc.Vec, comm) -> np.ndarray | None:
    """Return all of a vector on rank 0, None elsewhere. Collective."""
    local = vector.getArray(readonly=True)
    counts = np.array(comm.gather(len(local)) or [], np.int64)
    whole = np.empty(vector.getSize(), local.dtype) if comm.rank == 0 else None
    comm.Gatherv(local, [whole, (counts, offsets(counts))] if comm.rank == 0 else None)
    return whole


def write_matrix(path, matrix: PETSc.Mat) -> None:
    """Write a distributed matrix.

    Collective. .petsc is written by all ranks together; the other formats are gathered on rank 0.
    """
    path, comm = Path(path), matrix.comm.tompi4py()
    if path.suffix == ".petsc":
        viewer = PETSc.Viewer().createBinary(str(path), "w", comm=comm)
        matrix.view(viewer)
        viewer.destroy()
        info = Path(str(path) + ".info")
        if comm.rank == 0:
            info.unlink(missing_ok=True)
        return
    whole = _gathered(matrix, comm)
    with agreement(comm):
        if comm.rank == 0:
            with replaced(path) as beside, open(beside, "wb") as stream:
                if path.suffix == ".mtx":
                    from scipy.io import mmwrite  # 20 ms on every rank, and needed on one

                    mmwrite(stream, whole, symmetry="symmetric")
                elif path.suffix == ".npz":
                    scipy.sparse.save_npz(stream, whole)
                else:
                    with optional("h5py", "an .h5 file", "hdf5").File(stream, "w") as file:
                        for name in ("indptr", "indices", "data"):
                            file[name] = getattr(whole, name)
                        file["shape"] = whole.shape


def _gathered(matrix: PETSc.Mat, comm) -> scipy.sparse.csr_matrix | None:
    """Return the whole matrix on rank 0, None elsewhere. Collective."""
    indptr, indices, data = matrix.getValuesCSR()
    n = matrix.getSize()[0]
    if comm.rank != 0:
        comm.send((np.diff(indptr), len(indices)), dest=0)
        comm.Send(np.ascontiguousarray(indices, np.int64), dest=0)
        comm.Send(np.ascontiguousarray(data), dest=0)
        return None
    lengths, columns, values = [np.diff(indptr)], [indices], [data]
    for rank in range(1, comm.size):
        length, entries = comm.recv(source=rank)
        columns.append(np.empty(entries, np.int64))
        values.append(np.empty(entries))
        comm.Recv(columns[-1], source=rank)
        comm.Recv(values[-1], source=rank)
        lengths.append(length)
    starts = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
    return scipy.sparse.csr_matrix((np.concatenate(values), np.concatenate(columns), starts), (n, n))
