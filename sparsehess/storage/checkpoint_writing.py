"""Stages of checkpoints written: rank 0 writes, a bounded piece of another rank's rows at a time."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from mpi4py import MPI

import numpy as np

from sparsehess.errors import InputError
from sparsehess.runtime import agreement
from sparsehess.storage.checkpoint_format import PIECE, pack_header, sum_elements
from sparsehess.storage.regular_files import open_regular

_TAG = 75


def write_stage(
    path: Path, comm: MPI.Comm, fingerprint: dict, meta: dict, arrays: dict[str, np.ndarray]
) -> tuple[int, str]:
    """Write a stage to a new file of this name, and synchronise it with the disk.

    Collective. A file of this name is replaced.

    Parameters
    ----------
    meta
        JSON, the same on every rank.
    arrays
        (m, ...) this rank's rows, of double precision, 64- or 32-bit integers, or bytes.

    Returns
    -------
    tuple
        How many bytes, and why they could not be written: empty if they were. The same on every rank.
    """

    def opened() -> BinaryIO:
        path.unlink(missing_ok=True)
        # Made here and now: what may lie under this name leads to no file elsewhere.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        return os.fdopen(os.open(path, flags, 0o666), "wb")

    return _put(opened, 0, True, comm, fingerprint, meta, arrays)


def append_stage(
    path: Path, at: int, comm: MPI.Comm, fingerprint: dict, meta: dict, arrays: dict[str, np.ndarray]
) -> tuple[int, str]:
    """Write a stage at this byte of a file, after those that are there; what stood behind is cut off.

    Collective. It is not synchronised with the disk. Where it fails, the file is left as long as it was.

    Parameters
    ----------
    at
        Where the file ends, on rank 0.
    comm, fingerprint, meta, arrays
        See `write_stage`, and for what is returned.
    """

    def opened() -> BinaryIO:
        stream = os.fdopen(open_regular(path, os.O_WRONLY | os.O_CREAT), "wb")
        stream.truncate(at)
        stream.seek(at)
        return stream

    size, told = _put(opened, at, False, comm, fingerprint, meta, arrays)
    if told and comm.rank == 0:
        # Half a stage takes room that is short. Where it stays, the next one cuts it off.
        with suppress(OSError, InputError), os.fdopen(open_regular(path, os.O_WRONLY), "wb") as stream:
            stream.truncate(at)
    return size, told


def _put(
    opened: Callable[[], BinaryIO],
    at: int,
    synchronise: bool,
    comm: MPI.Comm,
    fingerprint: dict,
    meta: dict,
    arrays: dict[str, np.ndarray],
) -> tuple[int, str]:
    """Write a stage to a stream that rank 0 opens; see `append_stage`."""
    parts: list[int] = []
    counts = np.array([(len(array), array.size) for array in arrays.values()], np.int64).reshape(-1, 2)
    every = np.array(comm.allgather(counts))  # of each rank and array: rows, elements
    before = every[: comm.rank, :, 1].sum(axis=0).tolist()
    with agreement(comm):  # what needs memory, before anything is under way that a rank without any would not take
        arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        widest = max((array.itemsize for array in arrays.values()), default=0) if comm.size > 1 else 0
        room = np.empty(PIECE * widest if comm.rank == 0 else 0, np.uint8)
        parts += [sum_elements(array, start) for array, start in zip(arrays.values(), before, strict=True)]
    target = _Target() if comm.rank == 0 else None
    sums = comm.gather(parts)
    if target is not None:
        blocks, size = _describe(arrays, every, sums or [])
        target.open(opened, lambda: pack_header(at, fingerprint, meta, blocks, size))
    for number, array in enumerate(arrays.values()):
        _send(array, every[:, number, 1].tolist(), comm, target, room)
    if target is not None:
        target.close(synchronise)
    return comm.bcast(None if target is None else (target.size, target.told))


def _describe(arrays: dict[str, np.ndarray], counts: np.ndarray, sums: list[list[int]]) -> tuple[list[dict], int]:
    """Return what the header says of the blocks, and their bytes."""
    blocks, place = [], 0
    for number, (name, array) in enumerate(arrays.items()):
        rows, elements = counts[:, number].sum(axis=0).tolist()
        kind = array.dtype.newbyteorder("<").str
        total = sum(part[number] for part in sums) % 2**64
        shape = [rows, *array.shape[1:]]
        blocks.append({"name": name, "dtype": kind, "shape": shape, "offset": place, "sum": total})
        place += elements * array.itemsize
    return blocks, place


class _Target:
    """The stream of rank 0: takes everything, counts its bytes, remembers why it could not write (`told`)."""

    def __init__(self) -> None:
        self.size, self.told = 0, ""
        self._stream: BinaryIO | None = None

    def open(self, opened: Callable[[], BinaryIO], begin: Callable[[], bytes]) -> None:
        """Open the stream, and write its first bytes. Not collective."""

        def opening() -> None:
            first = begin()
            self._stream = opened()
            self.size += self._stream.write(first)

        self._try(opening)

    def write(self, array: np.ndarray) -> None:
        """Write elements, unless something has failed before. Not collective."""
        stream = self._stream
        self.size += array.nbytes
        if stream is not None and not self.told:
            self._try(lambda: stream.write(array.astype(array.dtype.newbyteorder("<"), copy=False).data))

    def close(self, synchronise: bool) -> None:
        """Close the stream. Not collective."""
        stream = self._stream
        if stream is None:
            return

        def closing() -> None:
            with stream:
                if not self.told:
                    stream.flush()
                    if synchronise:
                        os.fsync(stream.fileno())

        self._try(closing)

    def _try(self, function: Callable[[], object]) -> None:
        try:
            function()
        except OSError as error:  # its text alone is kept: frames may hold what all ranks destroy together
            self.told = self.told or f"{error.strerror or error}"
        except InputError as error:
            self.told = self.told or str(error)
        except MemoryError:
            self.told = self.told or os.strerror(errno.ENOMEM)


def _send(array: np.ndarray, sizes: list[int], comm: MPI.Comm, target: _Target | None, room: np.ndarray) -> None:
    """Write an array, rank by rank. Collective."""
    flat = array.reshape(-1)
    if target is None:
        for first in range(0, flat.size, PIECE):
            comm.Send(flat[first : first + PIECE].view(np.uint8), dest=0, tag=_TAG)
        return
    for rank, size in enumerate(sizes):
        for first in range(0, size, PIECE):
            piece = flat[first : first + PIECE]
            if rank:
                piece = room[: min(PIECE, size - first) * flat.itemsize].view(flat.dtype)
                comm.Recv(piece.view(np.uint8), source=rank, tag=_TAG)
            target.write(piece)  # after an error the others are listened to all the same
