"""HDF5 files of many results: facts of all at the root, and a group for each with its facts and arrays."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsehess.errors import InputError
from sparsehess.runtime import agreement, optional
from sparsehess.storage.atomic_files import explain_write_errors, write_file
from sparsehess.storage.hdf5 import create_hdf5
from sparsehess.storage.json_files import json_text

if TYPE_CHECKING:
    from typing import Self

    from mpi4py import MPI


class GroupFile:
    """A file that is written group by group, and appears whole when the block ends, or not at all.

    Collective, all of it; rank 0 writes. A context manager.

    Parameters
    ----------
    path
        Its name ends with .h5.
    facts
        JSON of the root.
    comm
        All ranks.

    Raises
    ------
    InputError
        It cannot be written.
    StackError
        h5py is not installed.
    """

    def __init__(self, path: Path, facts: dict[str, Any], comm: MPI.Comm) -> None:
        self._path, self._facts, self._comm = path, facts, comm
        self._stack = ExitStack()
        self._file: Any = None  # of rank 0

    def __enter__(self) -> Self:
        """Begin the file."""
        with agreement(self._comm):
            if self._comm.rank == 0:
                if self._path.suffix != ".h5":
                    raise InputError(f"{self._path}: its name must end with .h5")
                optional("h5py", "an .h5 file", "hdf5")
                beside = self._stack.enter_context(write_file(self._path))
                with explain_write_errors(self._path):
                    self._file = self._stack.enter_context(create_hdf5(beside))
                    self._file.attrs["json"] = json_text(self._facts)
        return self

    def add(self, name: str, facts: dict[str, Any], arrays: Callable[[], dict[str, np.ndarray]]) -> None:
        """Write a group; `arrays` is called on rank 0 for what stands in it."""
        with agreement(self._comm):
            if self._comm.rank == 0:
                with explain_write_errors(self._path):
                    group = self._file.create_group(name)
                    group.attrs["json"] = json_text(facts)
                    for key, array in arrays().items():
                        group[key] = array

    def __exit__(self, kind: Any, error: BaseException | None, frames: Any) -> None:
        """Give the file its name; leave nothing of it after an error, which all ranks bring."""
        if error is not None:
            self._stack.__exit__(kind, error, frames)
            return
        with agreement(self._comm):
            self._stack.close()
