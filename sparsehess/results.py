"""Stored results: what `eigs -o` has written, read again."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sparsehess.errors import InputError
from sparsehess.pattern import Layout
from sparsehess.runtime import PETSc, agreement, optional
from sparsehess.solvers.spectrum import SolveSpec


@dataclass(frozen=True, eq=False)
class Result:
    """A stored spectrum.

    Attributes
    ----------
    spec
        What was asked for.
    facts
        The JSON of the run.
    eigenvalues, vectors
        (k,) numbers, and k Vecs in the layout asked for, the caller's to destroy.
    """

    spec: SolveSpec
    facts: dict
    eigenvalues: np.ndarray
    vectors: list[PETSc.Vec]


def read_result(path, layout: Layout) -> Result:
    """Read a result file (.h5 or .npz); nothing is unpickled.

    Collective. Rank 0 reads one vector at a time of an .h5 file, all of a .npz.

    Raises
    ------
    InputError
        The file is none, or its vectors are not of this many rows.
    """
    path, comm = Path(path), layout.comm
    source = None
    with agreement(comm):
        if comm.rank == 0:
            source = _Source(path, layout.n)
    facts, values = comm.bcast((source.facts, source.values) if comm.rank == 0 else None)
    vectors = []
    for number in range(len(values)):
        row = None
        with agreement(comm):
            if comm.rank == 0:
                row = source.row(number)
        vector = PETSc.Vec().createMPI((layout.n_local, layout.n), comm=comm)
        local = np.empty(layout.n_local)
        comm.Scatterv([row, (layout.counts, layout.starts[:-1])] if comm.rank == 0 else None, local)
        vector.setArray(local)
        vectors.append(vector)
    if comm.rank == 0:
        source.close()
    return Result(_spec(facts, path), facts, values, vectors)


class _Source:
    """An open result file, on rank 0."""

    def __init__(self, path: Path, n: int):
        self.path = path
        try:
            if path.suffix == ".h5":
                self._file = optional("h5py", "an .h5 file", "hdf5").File(path, "r")
                text, self.values = self._file.attrs["json"], self._file["eigenvalues"][()]
            elif path.suffix == ".npz":
                self._file = np.load(path, allow_pickle=False)
                text, self.values = str(self._file["json"]), self._file["eigenvalues"]
            else:
                raise InputError(f"{path}: a result is an .h5 or .npz file")
            self._rows = self._file["vectors"]
            self.facts = json.loads(text)
        except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{path}: no result of sparsehess eigs ({' '.join(str(error).split())})") from error
        k = len(self.values) if self.values.ndim == 1 else -1
        if self._rows.shape not in ((k, n), (0, 0)):
            raise InputError(f"{path}: {k} eigenvalues and vectors {self._rows.shape} do not fit n = {n}")
        if not np.isfinite(self.values).all():
            raise InputError(f"{path}: eigenvalues that are not finite")

    def row(self, number: int) -> np.ndarray:
        return np.ascontiguousarray(self._rows[number], np.float64)

    def close(self) -> None:
        self._file.close()


def _spec(facts: dict, path: Path) -> SolveSpec:
    """Return what a stored run was asked for."""
    try:
        which = facts["which"]
        if facts["interval"] is not None:  # of --which negative too, where all were asked for
            low, high = facts["interval"]
            return SolveSpec(interval=(-np.inf if low is None else low, np.inf if high is None else high))
        if which == "target":
            return SolveSpec(k=facts["k"], target=facts["target"])
        return SolveSpec(k=max(facts["k"], 1), which=which)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: what was asked for cannot be read from it ({error})") from error
