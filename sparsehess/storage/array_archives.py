"""Arrays of NumPy in files, .npy and .npz: what they claim is checked before memory is taken for it.

Nothing is unpickled. An archive is read by our own hand: NumPy's takes as much as a head claims, and a compressed
file of a few megabytes can claim any number of gigabytes.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from sparsehess.errors import InputError
from sparsehess.storage.memory_claims import bytes_of, require_memory

# Deflate cannot shrink by more than this.
MOST_SHRUNK = 1032

# Bytes of the list of an archive's members, how many members, and bytes of an array's head.
_LIST, _MEMBERS, _HEAD = 2**20, 1000, 2**16

# Bytes that are read at a time.
_PIECE = 2**20


@dataclass(frozen=True)
class ArrayHead:
    """The head of an array: shape, order and type."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype

    @property
    def count(self) -> int:
        """Number of entries."""
        return bytes_of(self.shape, 1)

    @property
    def nbytes(self) -> int:
        """Bytes of the entries."""
        return bytes_of(self.shape, self.dtype.itemsize)


def read_head(stream: IO[bytes], name: str, size: int) -> ArrayHead:
    """Return the head of an array in a stream of so many bytes, which is then where the entries begin.

    Not collective.

    Raises
    ------
    InputError
        It claims more than the stream has, or less than nothing, or holds Python objects.
    """
    version = np.lib.format.read_magic(stream)
    wide = 2 if version == (1, 0) else 4
    length = stream.read(wide)
    if int.from_bytes(length, "little") > _HEAD:
        raise InputError(f"{name}: its head claims {int.from_bytes(length, 'little')} bytes: damaged")
    text = stream.read(int.from_bytes(length, "little"))
    read = np.lib.format.read_array_header_1_0 if wide == 2 else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(io.BytesIO(length + text))
    if dtype.hasobject:
        raise InputError(f"{name} holds Python objects, which are never loaded")
    head = ArrayHead(tuple(int(number) for number in shape), bool(fortran), dtype)
    there = size - np.lib.format.MAGIC_LEN - wide - len(text)
    if min(head.shape, default=0) < 0 or head.nbytes > there:
        raise InputError(f"{name} claims {head.shape} entries of {dtype} and has {there} bytes: damaged")
    return head


class ArrayArchive:
    """The arrays of a .npz; `close()` closes it. Names and heads are read when it is opened.

    Not collective. `archive[name]` reads an array, if there is memory for it.

    Attributes
    ----------
    heads
        By name, without its `.npy`.

    Raises
    ------
    InputError
        No such file, no archive, or arrays that claim what it cannot hold.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path, self.heads = Path(path), dict[str, ArrayHead]()
        self._members: dict[str, zipfile.ZipInfo] = {}
        self._stream = _ShortReads(self.path)
        try:
            self._archive = zipfile.ZipFile(self._stream)
            self._stream.most = None
            self._find_members()
        except zipfile.BadZipFile as error:
            self._stream.close()
            raise InputError(f"{path}: no .npz archive, or a damaged one: {error}; write it anew") from error
        except BaseException:
            self._stream.close()
            raise

    def _find_members(self) -> None:
        members, size = self._archive.infolist(), os.path.getsize(self.path)
        if len(members) > _MEMBERS:
            raise InputError(f"{self.path}: {len(members)} arrays; an archive has at most {_MEMBERS}")
        for info in members:
            name = info.filename.removesuffix(".npy")
            if name in self._members:
                raise InputError(f"{self.path}: {name} is there twice: damaged")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise InputError(f"{self.path}: {name} is compressed as NumPy does not: write it anew")
            if info.file_size > size * MOST_SHRUNK:
                raise InputError(f"{self.path}: {name} claims more bytes than the file can hold")
            with self._archive.open(info) as stream:
                self.heads[name] = read_head(stream, f"{self.path}: {info.filename}", info.file_size)
            self._members[name] = info

    def __contains__(self, name: str) -> bool:
        """Return whether there is an array of this name."""
        return name in self.heads

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self.heads)

    def __getitem__(self, name: str) -> np.ndarray:
        """Return an array, after a look at the memory that it takes."""
        head = self.heads[name]
        require_memory(self.path, f"the array {name}", head.nbytes)
        array, place = np.empty(head.count, head.dtype), 0
        with self.entries(name) as entries:
            while place < head.count:
                piece = entries.read(max(1, _PIECE // max(1, head.dtype.itemsize)))
                array[place : place + len(piece)] = piece
                place += len(piece)
        return array.reshape(head.shape, order="F" if head.fortran else "C")

    def entries(self, name: str) -> EntryStream:
        """Return the entries of an array as they stand in the file, some at a time; the caller closes it."""
        stream = self._archive.open(self._members[name])
        head = read_head(stream, f"{self.path}: {name}", self._members[name].file_size)
        return EntryStream(stream, head)

    def close(self) -> None:
        """Close the file."""
        self._archive.close()
        self._stream.close()


class EntryStream:
    """The entries of one array from first to last; a context that closes the file.

    Attributes
    ----------
    head
        Of the array.
    """

    def __init__(self, stream: IO[bytes], head: ArrayHead):
        self.head, self._stream, self._left = head, stream, head.count

    def read(self, number: int) -> np.ndarray:
        """Return the next entries, so many or all that are left; never none before the end.

        Not collective.

        Raises
        ------
        ValueError
            The file ends before.
        """
        number = min(number, self._left)
        wanted = number * self.head.dtype.itemsize
        parts = []
        while wanted > 0:
            parts.append(self._stream.read(min(wanted, _PIECE)))
            if not parts[-1]:
                raise ValueError("it ends before its last entry")
            wanted -= len(parts[-1])
        self._left -= number
        if not self._left:
            self._stream.read(1)  # at its end an archive compares the check sum
        return np.frombuffer(bytearray().join(parts), self.head.dtype, number)  # to be written to, too

    def __enter__(self) -> EntryStream:
        """Enter a block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the stream."""
        self._stream.close()


def map_array(path: str | os.PathLike[str]) -> np.ndarray:
    """Return the array of a .npy file, mapped into memory: its pages are read when they are looked at.

    Not collective.

    Raises
    ------
    InputError
        It claims what it does not hold, or holds Python objects.
    """
    size = os.path.getsize(path)
    with open(path, "rb") as stream:
        head = read_head(stream, str(path), size)
        offset = stream.tell()
    order: Any = "F" if head.fortran else "C"
    if not head.count:
        return np.empty(head.shape, head.dtype, order=order)
    return np.memmap(path, head.dtype, "r", offset, head.shape, order)


class _ShortReads(io.FileIO):
    """A file of which no more is read at a time than a list of members may have, as long as there is a limit."""

    def __init__(self, path: Path):
        super().__init__(path, "rb")
        self.most: int | None = _LIST

    def read(self, size: int | None = -1, /) -> bytes:
        """Return so many bytes, or all that are left."""
        if self.most is not None:
            left = os.fstat(self.fileno()).st_size - self.tell()
            if (left if size is None or size < 0 else min(size, left)) > self.most:
                raise InputError(f"{self.name}: a list of more members than an archive of arrays has: damaged")
        with suppress(BlockingIOError):
            return super().read(-1 if size is None else size) or b""
        return b""
