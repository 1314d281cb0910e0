"""Stages of a checkpoint as files hold them: facts as JSON, arrays as raw blocks, checksums of both.

    magic (16 bytes) | length of the header (8) | CRC-32 of length and header (4) | header, JSON | blocks

A file holds one stage, or several one after another. Arrays are distributed over ranks along their first axis and
stored in the order of the ranks, so that any number of ranks can read what any other has written. Nothing is ever
unpickled.
"""

from __future__ import annotations

import json
import math
import os
import struct
import zlib
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from mpi4py import MPI

import numpy as np

from sparsehess.errors import Damaged, InputError
from sparsehess.runtime import agreement
from sparsehess.storage.regular_files import open_regular

VERSION = 2
_MAGIC, _MAGIC_BEFORE = b"sparsehess-ckpt2", b"sparsehess-ckpt\n"
_PREFIX = struct.Struct("<16sQI")

# Bytes of a header, at most: what claims more is not read.
LONGEST_HEADER = 2**24

# Types of stored arrays, and the integers as which a checksum reads their bits.
_TYPES = {"<f8": np.uint64, "<i8": np.uint64, "<i4": np.uint32, "|u1": np.uint8}

# Elements that are mixed at a time, few enough for the caches, and what they are multiplied by.
_MIXED = 1 << 14
_ODD = tuple(map(np.uint64, (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)))

# Elements in one message, write, read or partial sum.
PIECE = 1 << 20

# Places that look like the beginning of a stage and are none, after which nobody looks for more.
_MISLED = 100


@dataclass(frozen=True, eq=False)
class Header:
    """What a file says of one of its stages.

    Attributes
    ----------
    fingerprint, meta
        See `StoredStage`.
    blocks
        By name; their offsets are counted from the beginning of the file.
    end
        Where the next stage begins.
    """

    fingerprint: dict
    meta: dict
    blocks: dict[str, dict]
    end: int


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
        width = math.prod(shape[1:])
        with agreement(comm), open_stored(self.path) as stream:
            return _read(stream, block, start * width, count * width).reshape(shape)


def pack_header(at: int, fingerprint: dict, meta: dict, blocks: list[dict], size: int) -> bytes:
    """Return the bytes before the blocks of a stage that begins at this byte of its file.

    Not collective.

    Raises
    ------
    InputError
        There are too many facts.
    """
    facts = {
        "version": VERSION,
        "at": at,
        "fingerprint": fingerprint,
        "meta": meta,
        "blocks": blocks,
        "bytes": size,
    }
    text = json.dumps(facts).encode()
    if len(text) > LONGEST_HEADER:
        raise InputError(f"a checkpoint with {len(text)} bytes of facts: {LONGEST_HEADER} is the most")
    return _PREFIX.pack(_MAGIC, len(text), _header_sum(text)) + text


def open_stored(path: Path) -> BufferedReader:
    """Return a stream of a file of stages. Not collective.

    Raises
    ------
    InputError
        There is no file, or it cannot be read.
    """
    try:
        return os.fdopen(open_regular(path, os.O_RDONLY), "rb")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error


def read_stage(path: Path, comm: MPI.Comm) -> StoredStage:
    """Return the stage of a file that holds one, with right checksums; every rank checks a part of the file.

    Collective.

    Raises
    ------
    Damaged
        A checksum or a size is wrong.
    InputError
        It cannot be read on a rank.
    """
    sums = []
    with agreement(comm), open_stored(path) as stream:
        there = os.fstat(stream.fileno()).st_size
        header = _header(stream, path, 0, there)
        if header.end != there:
            raise Damaged(f"{path} is damaged: it has {there} bytes instead of {header.end}")
        for block in header.blocks.values():
            size = math.prod(block["shape"])
            sums.append(
                _sum_stored(stream, block, size * comm.rank // comm.size, size * (comm.rank + 1) // comm.size)
            )
    totals = np.array(comm.allgather(sums), object).reshape(comm.size, -1).sum(axis=0)
    for block, total in zip(header.blocks.values(), totals, strict=True):
        if total % 2**64 != block["sum"]:
            raise Damaged(f"{path} is damaged: the checksum of {block['name']} is not that of its contents")
    return StoredStage(path, header.fingerprint, header.meta, comm, header.blocks)


def list_stages(path: Path) -> tuple[list[Header], list[str]]:
    """Return the headers of the stages of a file, in order, and what is wrong between and after them.

    Not collective. The checksums of their blocks are not looked at.

    Raises
    ------
    InputError
        It cannot be read, or is of another version.
    """
    found: list[Header] = []
    wrong: list[str] = []
    with open_stored(path) as stream:
        there = os.fstat(stream.fileno()).st_size
        at = 0
        while at < there:
            try:
                found.append(_header(stream, path, at, there))
                at = found[-1].end
            except Damaged:
                after = _next_stage(stream, path, at + 1, there)
                lost = "its end was not written, or" if after == there else "a part of it"
                wrong.append(f"{path}: {lost} is damaged, bytes {at} to {after}")
                at = after
    return found, wrong


def is_sound(path: Path, header: Header) -> bool:
    """Return whether the blocks of a stage have the checksums that its header says. Not collective."""
    with open_stored(path) as stream:
        return all(
            _sum_stored(stream, block, 0, math.prod(block["shape"])) % 2**64 == block["sum"]
            for block in header.blocks.values()
        )


def sum_elements(array: np.ndarray, start: int) -> int:
    """Return a checksum of elements from number `start` on; checksums of parts add up, modulo 2**64.

    Not collective. Each element is mixed with its number by a bijection: a change of any one changes the sum.
    """
    bits = array.reshape(-1).view(_TYPES[array.dtype.newbyteorder("<").str])
    total = 0
    mixed, high = np.empty((2, min(len(bits), _MIXED)), np.uint64)
    for first in range(0, len(bits), _MIXED):
        some = bits[first : first + _MIXED]
        state, shifted = mixed[: len(some)], high[: len(some)]
        np.multiply(
            np.arange(start + first + 1, start + first + 1 + len(some), dtype=np.uint64), _ODD[0], out=state
        )
        state ^= some
        for factor in _ODD[1:]:  # a multiplication by an odd number, and a shifted half: each can be undone
            state *= factor
            np.right_shift(state, np.uint64(32), out=shifted)
            state ^= shifted
        total += int(state.sum(dtype=np.uint64))
    return total % 2**64


def _header_sum(text: bytes) -> int:
    return zlib.crc32(text, zlib.crc32(len(text).to_bytes(8, "little")))


def _next_stage(stream: BufferedReader, path: Path, at: int, there: int) -> int:
    """Return where the first stage from this byte on begins; the end of the file where none does."""
    misled = 0
    while at < there and misled < _MISLED:
        stream.seek(at)
        piece = stream.read(PIECE)
        place = piece.find(_MAGIC)
        if place < 0:
            at += max(len(piece) - len(_MAGIC) + 1, 1)
            continue
        try:
            _header(stream, path, at + place, there)
        except Damaged:
            at, misled = at + place + 1, misled + 1
        else:
            return at + place
    return there


def _header(stream: BufferedReader, path: Path, at: int, there: int) -> Header:
    """Return the header of the stage that begins at this byte of a file of so many."""
    try:
        stream.seek(at)
        first = stream.read(_PREFIX.size)
        if first[: len(_MAGIC_BEFORE)] == _MAGIC_BEFORE:
            raise InputError(
                f"{path}: a checkpoint of version 1, this sparsehess has {VERSION}: end its run with the one that "
                "began it, or give another folder"
            )
        if len(first) < _PREFIX.size:
            raise Damaged(f"{path} is damaged: it has {there} bytes")
        magic, length, checksum = _PREFIX.unpack(first)
        begin = at + _PREFIX.size + length
        text = stream.read(length) if magic == _MAGIC and length <= LONGEST_HEADER and begin <= there else b""
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    if magic != _MAGIC or len(text) != length or _header_sum(text) != checksum:
        raise Damaged(f"{path} is damaged, or no checkpoint: the checksum of its header is not right")
    try:
        facts = json.loads(text)
        if facts["version"] != VERSION or facts["at"] != at:
            raise ValueError(f"version {facts['version']}, at byte {facts['at']}")
        blocks = {block["name"]: block for block in facts["blocks"]}
        end = begin + max(map(_check_block, blocks.values()), default=0)
        for block in blocks.values():
            block["offset"] += begin
        header = Header(dict(facts["fingerprint"]), dict(facts["meta"]), blocks, begin + facts["bytes"])
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise Damaged(f"{path} is no checkpoint: its header makes no sense ({error})") from error
    if not end <= header.end <= there:
        raise Damaged(f"{path} is damaged: it has {there} bytes instead of {header.end}")
    return header


def _check_block(block: dict) -> int:
    """Return where a block ends, from the first one's beginning on."""
    offset, shape, kind = block["offset"], block["shape"], block["dtype"]
    if kind not in _TYPES or not all(type(size) is int and size >= 0 for size in (offset, *shape)) or not shape:
        raise ValueError(f"block {block['name']}")
    return offset + math.prod(shape) * np.dtype(kind).itemsize


def _sum_stored(stream: BufferedReader, block: dict, first: int, last: int) -> int:
    """Return the checksum of some elements of a block."""
    pieces = (
        sum_elements(_read(stream, block, at, min(PIECE, last - at)), at) for at in range(first, last, PIECE)
    )
    return sum(pieces) % 2**64


def _read(stream: BufferedReader, block: dict, first: int, count: int) -> np.ndarray:
    kind = np.dtype(block["dtype"])
    stream.seek(block["offset"] + first * kind.itemsize)
    array = np.empty(count, kind)
    if stream.readinto(array.view(np.uint8).data) != array.nbytes:
        raise Damaged(f"{stream.name} is damaged: it ends early")
    return array.astype(kind.newbyteorder("="), copy=False)
