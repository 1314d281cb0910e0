"""Variables of MATLAB's .mat files of versions 5 to 7.

Read by our own hand: SciPy's reader ends the process on some files that are damaged.

MATLAB, "MAT-File Level 5 File Format": behind 128 bytes elements of a type, a length, and data; one that is
compressed holds another. A matrix is flags, dimensions, a name, and its numbers by columns; a sparse one has rows,
where columns begin, and numbers (ir, jc, pr).
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from sparsehess.errors import InputError
from sparsehess.storage.memory_claims import require_memory

# Bytes of the head of a file, and those of a variable that its name and dimensions are in.
_HEAD, _FIRST = 128, 4096

_MATRIX, _COMPRESSED = 14, 15

# Types of numbers.
_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}

# Classes of arrays that are numbers, and the one that is sparse; the bit of complex ones.
SPARSE, _NUMBERS, _COMPLEX = 5, range(5, 16), 0x0800


@dataclass(frozen=True)
class Variable:
    """A variable of a file.

    Attributes
    ----------
    name, shape
        Of the array.
    sparse, complex
        Which kind of array it is.
    place, length
        Of its element in the file.
    """

    name: str
    shape: tuple[int, ...]
    sparse: bool
    complex: bool
    place: int
    length: int


def find_variables(path: Path) -> dict[str, Variable]:
    """Return the arrays of numbers of a file by name. Not collective."""
    held: dict[str, Variable] = {}
    size = os.path.getsize(path)
    with open(path, "rb") as stream:
        head = stream.read(_HEAD)
        order = {b"IM": "<", b"MI": ">"}.get(head[126:128])
        if order is None:
            raise InputError(f"{path}: no .mat file of version 5 or later: save it with -v7 or -v7.3")
        place = _HEAD
        while place + 8 <= size:
            stream.seek(place)
            kind, length = (int(one) for one in np.frombuffer(stream.read(8), f"{order}u4"))
            if length > size - place - 8:
                raise InputError(
                    f"{path}: a variable claims {length} bytes, {size - place - 8} are there: truncated"
                )
            if kind in (_MATRIX, _COMPRESSED):
                found = _describe(path, _beginning(stream, kind, length), order, place, length)
                if found is not None:
                    held.setdefault(found.name, found)
            place += 8 + length + (-length % 8 if kind != _COMPRESSED else 0)
    return held


def read_parts(path: Path, variable: Variable) -> list[np.ndarray]:
    """Return the numbers of an array: one part of a dense one; ir, jc and data of a sparse one.

    Not collective. Of complex ones the imaginary part follows.
    """
    with open(path, "rb") as stream:
        head = stream.read(_HEAD)
        order = "<" if head[126:128] == b"IM" else ">"
        stream.seek(variable.place)
        kind = int(np.frombuffer(stream.read(8), f"{order}u4")[0])
        data = stream.read(variable.length)
    if kind == _COMPRESSED:
        unpacked = zlib.decompressobj()
        claimed = int(np.frombuffer(unpacked.decompress(data, 8), f"{order}u4")[1])
        require_memory(path, f"the array {variable.name}", 2 * claimed)
        data = unpacked.decompress(unpacked.unconsumed_tail, claimed) if claimed else b""
        if len(data) != claimed:
            raise InputError(f"{path}: {variable.name} claims {claimed} bytes and has {len(data)}: damaged")
    parts = list(_elements(path, data, order))
    return [_numbers(path, kind, part, order) for kind, part in parts[3:]]


def _beginning(stream: BinaryIO, kind: int, length: int) -> bytes:
    """Return the first bytes of a matrix, behind its type and length; empty of what is none."""
    data = stream.read(min(length, _FIRST))
    if kind == _MATRIX:
        return data
    return zlib.decompressobj().decompress(data, _FIRST)[8:]


def _describe(path: Path, data: bytes, order: str, place: int, length: int) -> Variable | None:
    """Return what the first elements of a matrix say; None of one that is no numbers."""
    elements = _elements(path, data, order, whole=False)
    found = [part for _, part in (next(elements, (0, b"")) for _ in range(3))]
    if len(found[0]) < 8:
        raise InputError(f"{path}: a variable without flags: damaged")
    flags = int(np.frombuffer(found[0][:4], f"{order}u4")[0])
    shape = tuple(int(one) for one in np.frombuffer(found[1][: len(found[1]) // 4 * 4], f"{order}i4"))
    kind = flags & 0xFF
    if kind not in _NUMBERS or min(shape, default=0) < 0:
        return None
    name = found[2].decode("ascii", "replace")
    return Variable(name, shape, kind == SPARSE, bool(flags & _COMPLEX), place, length)


def _elements(path: Path, data: bytes, order: str, whole: bool = True) -> Iterator[tuple[int, bytes]]:
    """Yield type and data of the elements of a matrix; up to its last whole one where it is only its beginning."""
    at = 0
    while at + 8 <= len(data):
        kind, length = (int(one) for one in np.frombuffer(data[at : at + 8], f"{order}u4"))
        if kind >> 16:  # a short one: its length and type in one word, its data in the other
            kind, length, begin, at = kind & 0xFFFF, kind >> 16, at + 4, at + 8
            length = min(length, 4)
        else:
            begin, at = at + 8, at + 8 + length + -length % 8
        if begin + length > len(data):
            if whole:
                raise InputError(
                    f"{path}: an element claims {length} bytes, {len(data) - begin} are there: damaged"
                )
            return
        yield kind, data[begin : begin + length]


def _numbers(path: Path, kind: int, data: bytes, order: str) -> np.ndarray:
    if kind not in _TYPES:
        raise InputError(f"{path}: an element of type {kind}, which no number has: damaged")
    dtype = np.dtype(f"{order}{_TYPES[kind]}")
    return np.frombuffer(data[: len(data) // dtype.itemsize * dtype.itemsize], dtype)
