"""Safe reading of untrusted HDF5 files, and writing that survives a full disk.

On some damaged files the HDF5 library loops without end, or reads beyond its memory. A short-lived process
therefore reads a file first. A file with links into other files is refused.

Where a write fails, the library ends the process when its objects are closed. Write errors are therefore
withheld from it, and raised after it has closed the file.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsehess.errors import InputError, no_such_file
from sparsehess.runtime import memory, optional
from sparsehess.storage.atomic_files import open_deferring_errors
from sparsehess.storage.memory_claims import bytes_of, require_memory, shown

if TYPE_CHECKING:
    import h5py

# Processor seconds of the reading process, and the bytes of the file that add one second.
_SECONDS, _BYTES_PER_SECOND = 5, 50 * 2**20

# Bytes up to which that process reads a whole array; of a larger one it reads the first and the last entries.
_WHOLE = 2**24

# Bytes that the reading process takes by itself, with a whole array and a chunk of a few megabytes.
_LIBRARY = 2**29

_VISIT = """
import math, os, resource, sys
import h5py
path = os.fsdecode(sys.stdin.buffer.read())
seconds, whole, library, free = map(int, sys.argv[1:5])
resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
before = resource.getrlimit(resource.RLIMIT_DATA)
def allow(more):
    most = min(free, library + more)
    if (before[0] < 0 or most < before[0]) and sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_DATA, (most, before[1]))
allow(0)
def look(item):
    elsewhere = item.file.filename != file.filename
    if elsewhere or not isinstance(item, h5py.Group) and (item.external or item.is_virtual):
        raise ValueError("it leads to another file, and only what a file has itself is read")
    for name in item.attrs:
        item.attrs[name]
    if isinstance(item, h5py.Group):
        return
    size = math.prod(item.shape or ()) * item.dtype.itemsize
    chunk = math.prod(item.chunks or ()) * item.dtype.itemsize
    if chunk > free // 4:
        raise MemoryError
    allow(4 * chunk)
    if item.ndim == 0 or size <= min(whole, 4096 + 1100 * item.id.get_storage_size()):
        item[()]
    elif size:
        item[tuple(0 for _ in item.shape)], item[tuple(-1 for _ in item.shape)]
with h5py.File(path, "r") as file:
    look(file)
    for name in file:
        look(file[name])
        if "MATLAB_sparse" in file[name].attrs:
            for part in file[name]:
                look(file[name][part])
"""


def claimed_bytes(file: h5py.File) -> int:
    """Return the bytes of all arrays of a file, as it claims. Not collective."""
    total = 0

    def add(_: str, item: Any) -> None:
        nonlocal total
        total += bytes_of(item.shape or (), item.dtype.itemsize) if hasattr(item, "dtype") else 0

    file.visititems(add)
    return total


def require_chunks(path: Path, stored: h5py.Dataset) -> None:
    """Raise InputError if a chunk of an array, which is read as a whole, would not fit into memory.

    Not collective.
    """
    if stored.chunks:
        require_memory(path, f"a chunk of {stored.name}", 2 * bytes_of(stored.chunks, stored.dtype.itemsize))


def read_array(path: Path, stored: h5py.Dataset) -> np.ndarray:
    """Return an array, after a look at the memory that it takes.

    Not collective.

    Raises
    ------
    InputError
        There is not so much.
    """
    require_chunks(path, stored)
    require_memory(path, f"the array {stored.name}", bytes_of(stored.shape, stored.dtype.itemsize))
    return stored[()]


def small_array(path: Path, stored: Any, most: int) -> np.ndarray:
    """Return an array of no more entries than this.

    Not collective.

    Raises
    ------
    InputError
        It has more, or is none.
    """
    if getattr(stored, "shape", None) is None or bytes_of(stored.shape, 1) > most:
        raise InputError(f"{path}: {getattr(stored, 'name', 'a part')} is no array of {most} entries at most")
    return read_array(path, stored)


@contextmanager
def create_hdf5(path: Path) -> Iterator[h5py.File]:
    """Yield an h5py file of this name, open for writing.

    Not collective.

    Raises
    ------
    OSError
        The file could not be written; raised at the end of the block.
    StackError
        There is no h5py.
    """
    library = optional("h5py", "an .h5 file", "hdf5")
    with open_deferring_errors(path) as stream, library.File(stream, "w") as file:
        yield file


def open_hdf5(path: str | os.PathLike[str]) -> h5py.File:
    """Return an h5py file, open for reading, after a process of its own has read it without harm.

    Not collective. The caller closes it, or leaves its block.

    Raises
    ------
    InputError
        The file is missing, damaged, or not HDF5.
    StackError
        There is no h5py.
    """
    library = optional("h5py", "an .h5 file", "hdf5")
    path = Path(path)
    if not path.is_file():
        raise no_such_file(path)
    seconds = _SECONDS + os.path.getsize(path) // _BYTES_PER_SECOND
    words = [sys.executable, "-c", _VISIT, str(seconds), str(_WHOLE), str(_LIBRARY), str(memory.room_of_one())]
    try:
        done = subprocess.run(
            words,
            input=os.fspath(path),  # and not a word of the command line, which every user can read
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=30 * seconds,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise InputError(f"{path}: cannot be read within {30 * seconds} s") from error
    if "MemoryError" in done.stderr or "nable to allocate" in done.stderr:
        raise InputError(
            f"{path}: a part of it unfolds to more memory than it claims, or than the "
            f"{shown(memory.room_of_one())} that are free: damaged, or made to harm; write it anew"
        )
    if done.returncode < 0:
        raise InputError(f"{path}: damaged: reading it ends a process with signal {-done.returncode}")
    if done.returncode:
        said = done.stderr.strip().splitlines()
        reason = said[-1].partition(": ")[2] if said else f"status {done.returncode}"
        if "unable to lock file" in reason:
            raise InputError(
                f"{path}: this file system gives HDF5 no lock, or another program holds it; where nobody writes "
                "the file, set HDF5_USE_FILE_LOCKING=FALSE in the environment"
            )
        raise InputError(f"{path}: damaged or not of its format: {reason[:200]}; write it anew")
    return library.File(path, "r")
