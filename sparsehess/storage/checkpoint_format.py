"""The file of one stage of a checkpoint: facts as JSON, arrays as raw blocks, checksums of both.

    magic (16 bytes) | length of the header (8) | its CRC-32 (4) | header, JSON | blocks

Arrays are distributed over ranks along their first axis and stored in the order of the ranks, so that any
number of ranks can read what any other has written. Nothing is ever unpickled.
"""

from __future__ import annotations

import errno
import json
import os
import struct
import zlib
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

from mpi4py import MPI

import numpy as np

from sparsehess.errors import Damaged, InputError
from sparsehess.runtime import agreement
from sparsehess.runtime.random_numbers import hash_numbers

VERSION = 1
_MAGIC = b"sparsehess-ckpt\n"
_PREFIX = struct.Struct("<16sQI")
# Types of stored arrays, and the integers as which a checksum reads their bits.
_TYPES = {"<f8": np.uint64, "<i8": np.uint64, "<i4": np.uint32, "|u1": np.uint8}

# Elements in one message, write, read or partial sum.
_PIECE = 1 << 20
_TAG = 75


@dataclass(frozen=True, eq=False)
class StoredStage:
    """A stage of a file whose checksums are right; its arrays are read when they are asked for.

    Attributes
    ----------
    path
        Of the file.
    fingerprint
        Facts by which its problem is recognised.
    meta
        Facts saved beside the arrays.
    """

    path: Path
    fingerprint: dict
    meta: dict
    comm: MPI.Comm
    _blocks: dict[str, dict]

    def __contains__(self, name: str) -> bool:
        """Return whether there is an array of this name."""
        return name in self._blocks

    def read_rows(self, name: str, count: int) -> np.ndarray:
        """Return (count, ...) this rank's part of an array, after those of the ranks before it.

        Collective.

        Raises
        ------
        InputError
            All ranks together ask for more or fewer rows than there are.
        """
        block, comm = self._blocks[name], self.comm
        counts = comm.allgather(count)
        start, rows = sum(counts[: comm.rank]), sum(counts)
        if rows != block["shape"][0]:
            raise InputError(f"{self.path}: {name} has {block['shape'][0]} rows, {rows} are needed here")
        shape = (count, *block["shape"][1:])
        width = int(np.prod(shape[1:], dtype=np.int64))
        with agreement(comm), open(self.path, "rb") as stream:
            return _read(stream, block, start * width, count * width).reshape(shape)


def write_stage(path: Path, comm: MPI.Comm, fingerprint: dict, meta: dict, arrays: dict[str, np.ndarray]) -> None:
    """Write a stage to a new file of this name, and synchronise it with the disk.

    Collective. Rank 0 writes, a bounded piece of another rank's rows at a time. A file of this name is replaced.

    Parameters
    ----------
    meta
        JSON, the same on every rank.
    arrays
        (m, ...) this rank's rows, of double precision, 64- or 32-bit integers, or bytes.

    Raises
    ------
    OSError
        On rank 0 alone: the file could not be written.
    """
    blocks, place = [], 0
    with agreement(comm):  # what needs memory, before anything is under way that a rank without any would not take
        arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        widest = max((array.itemsize for array in arrays.values()), default=0) if comm.size > 1 else 0
        room = np.empty(_PIECE * widest if comm.rank == 0 else 0, np.uint8)
    counts = np.array(comm.allgather([array.size for array in arrays.values()]), np.int64)
    before = counts[: comm.rank].sum(axis=0).tolist()
    with agreement(comm):
        parts = [_sum(array, start) for array, start in zip(arrays.values(), before, strict=True)]
    for (name, array), part, sizes in zip(arrays.items(), parts, counts.T.tolist(), strict=True):
        rows = comm.allreduce(len(array))
        total = comm.allreduce(part)
        kind = array.dtype.newbyteorder("<").str
        blocks.append(
            {"name": name, "dtype": kind, "shape": [rows, *array.shape[1:]], "offset": place, "sum": total % 2**64}
        )
        place += sum(sizes) * array.itemsize
    header = {"version": VERSION, "fingerprint": fingerprint, "meta": meta, "blocks": blocks, "bytes": place}
    with agreement(comm):
        text = json.dumps(header).encode()
    error: Exception | None = None
    stream: BinaryIO | None = None
    if comm.rank == 0:
        try:
            path.unlink(missing_ok=True)
            # Made here and now: what may lie under this name leads to no file elsewhere.
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            stream = os.fdopen(os.open(path, flags, 0o666), "wb")
            stream.write(_PREFIX.pack(_MAGIC, len(text), zlib.crc32(text)) + text)
        except (OSError, MemoryError) as caught:
            error = caught
    for array in arrays.values():
        error = _gathered(array, comm, stream, error, room)
    if comm.rank == 0:
        try:
            if stream is not None:
                with stream:
                    if error is None:
                        stream.flush()
                        os.fsync(stream.fileno())
        except (OSError, MemoryError) as caught:
            error = error or caught
        if error is not None:
            raise error if isinstance(error, OSError) else OSError(errno.ENOMEM, os.strerror(errno.ENOMEM), path)


def _gathered(
    array: np.ndarray, comm: MPI.Comm, stream: BinaryIO | None, error: Exception | None, room: np.ndarray
) -> Exception | None:
    """Write an array, rank by rank; return the first error so far. Collective."""
    flat = array.reshape(-1)
    sizes = comm.allgather(flat.size)
    if comm.rank:
        for first in range(0, flat.size, _PIECE):
            comm.Send(flat[first : first + _PIECE].view(np.uint8), dest=0, tag=_TAG)
        return None
    for rank, size in enumerate(sizes):
        for first in range(0, size, _PIECE):
            piece = flat[first : first + _PIECE]
            if rank:
                piece = room[: min(_PIECE, size - first) * flat.itemsize].view(flat.dtype)
                comm.Recv(piece.view(np.uint8), source=rank, tag=_TAG)
            if error is None and stream is not None:  # after an error the others are listened to all the same
                try:
                    stream.write(piece.astype(piece.dtype.newbyteorder("<"), copy=False).tobytes())
                except (OSError, MemoryError) as caught:
                    error = caught
    return error


def read_stage(path: Path, comm: MPI.Comm) -> StoredStage:
    """Return a stage whose checksums are right; every rank checks a part of the file.

    Collective.

    Raises
    ------
    Damaged
        A checksum or a size is wrong.
    InputError
        It cannot be read on a rank.
    """
    with agreement(comm):
        header, start = _header(path)
        for block in header["blocks"]:
            block["offset"] += start
    sums = []
    with agreement(comm), open(path, "rb") as stream:
        for block in header["blocks"]:
            size = int(np.prod(block["shape"], dtype=np.int64))
            first, last = size * comm.rank // comm.size, size * (comm.rank + 1) // comm.size
            part = 0
            for at in range(first, last, _PIECE):
                part += _sum(_read(stream, block, at, min(_PIECE, last - at)), at)
            sums.append(part % 2**64)
    totals = np.array(comm.allgather(sums), object).reshape(comm.size, -1).sum(axis=0)
    for block, total in zip(header["blocks"], totals, strict=True):
        if total % 2**64 != block["sum"]:
            raise Damaged(f"{path} is damaged: the checksum of {block['name']} is not that of its contents")
    blocks = {block["name"]: block for block in header["blocks"]}
    return StoredStage(path, header["fingerprint"], header["meta"], comm, blocks)


def _header(path: Path) -> tuple[dict, int]:
    """Return the header of a file, and where its blocks begin."""
    try:
        with open(path, "rb") as stream:
            there = os.fstat(stream.fileno()).st_size
            first = stream.read(_PREFIX.size)
            if len(first) < _PREFIX.size:
                raise Damaged(f"{path} is damaged: it has {len(first)} bytes")
            magic, length, checksum = _PREFIX.unpack(first)
            text = stream.read(length) if magic == _MAGIC and length <= there else b""
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    if magic != _MAGIC or len(text) != length or zlib.crc32(text) != checksum:
        raise Damaged(f"{path} is damaged, or no checkpoint: the checksum of its header is not right")
    try:
        header = json.loads(text)
        if header["version"] != VERSION:
            raise InputError(f"{path}: a checkpoint of version {header['version']}, this sparsehess has {VERSION}")
        start, size = _PREFIX.size + length, header["bytes"]
        ends = [block["offset"] + _bytes(block) for block in header["blocks"]]
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise Damaged(f"{path} is no checkpoint: its header makes no sense ({error})") from error
    if there != start + size or max(ends, default=0) > size:
        raise Damaged(f"{path} is damaged: it has {there} bytes instead of {start + size}")
    return header, start


def _bytes(block: dict) -> int:
    if block["dtype"] not in _TYPES or min(block["shape"]) < 0 or block["offset"] < 0:
        raise ValueError(f"block {block['name']}")
    return int(np.prod(block["shape"], dtype=np.int64)) * np.dtype(block["dtype"]).itemsize


def _read(stream: BufferedReader, block: dict, first: int, count: int) -> np.ndarray:
    kind = np.dtype(block["dtype"])
    stream.seek(block["offset"] + first * kind.itemsize)
    array = np.empty(count, kind)
    if stream.readinto(array.view(np.uint8).data) != array.nbytes:
        raise Damaged(f"{stream.name} is damaged: it ends early")
    return array.astype(kind.newbyteorder("="), copy=False)


def _sum(array: np.ndarray, start: int) -> int:
    """Return a checksum of elements from number `start` on; checksums of parts add up, modulo 2**64.

    Each element is mixed with its number by a bijection, so that a change of any one changes the sum.
    """
    bits = array.reshape(-1).view(_TYPES[array.dtype.newbyteorder("<").str])
    total = np.uint64(0)
    for first in range(0, len(bits), _PIECE):
        some = bits[first : first + _PIECE].astype(np.uint64)
        numbers = np.arange(start + first, start + first + len(some))
        with np.errstate(over="ignore"):
            total += hash_numbers(some ^ hash_numbers(numbers, 6), 7).sum(dtype=np.uint64)
    return int(total)
