"""Atomic replacement of files: a file is written under a temporary name, then renamed; leftovers are removed."""

from __future__ import annotations

import ctypes
import errno
import io
import os
import re
import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from sparsehess.errors import InputError

T = TypeVar("T")


def make_unfinished_name(path: Path) -> Path:
    """Return an unpredictable hidden name in the folder of `path`, with process and machine in it.

    Not collective.
    """
    return path.with_name(f".{os.getpid()}-{_host()}-{secrets.token_hex(4)}.{path.name}")


# What stands in the place of a file that is to be written, and is none.
_TAKEN = "it is a pipe, a device or a socket"


def is_taken(path: Path) -> bool:
    """Return whether a name is that of a pipe, a device or a socket, which no file may replace. Not collective.

    So is every name in /dev itself, and in /proc: links there lead to what others have opened.
    """
    folder = os.path.realpath(path.absolute().parent)
    return os.path.exists(path) and (
        folder == "/dev" or folder.startswith("/proc/") or not (path.is_file() or path.is_dir())
    )


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Yield a name beside `path` that becomes `path` when the block ends without an error.

    Not collective. A pipe, a device or a socket is not replaced: an OSError says so.
    """
    if is_taken(path):
        raise FileExistsError(errno.EEXIST, _TAKEN)
    unfinished = make_unfinished_name(path)
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def write_file(path: Path) -> Iterator[Path]:
    """Yield a name as `replace_file` does; remove leftovers of ended writers; explain errors.

    Not collective.

    Raises
    ------
    InputError
        The file cannot be written; the message says why.
    """
    with explain_write_errors(path), replace_file(path) as unfinished:
        remove_leftovers(path)
        yield unfinished


@contextmanager
def explain_write_errors(path: Path) -> Iterator[None]:
    """Turn an OSError of the block into an InputError that names the file. Not collective."""
    try:
        yield
    except OSError as error:
        if not path.absolute().parent.is_dir():
            raise InputError(f"{path}: there is no folder {path.absolute().parent}: make it first") from error
        reason = error.strerror or " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: cannot be written: {reason}") from error


def refuse_unwritable(path: Path) -> None:
    """Raise InputError where a file could not be written. Not collective."""
    folder = path.absolute().parent
    if not folder.is_dir():
        raise InputError(f"{path}: there is no folder {folder}: make it first")
    told = "it is a folder" if path.is_dir() else _TAKEN if is_taken(path) else f"no permission in {folder}"
    if not os.access(folder, os.W_OK) or path.is_dir() or is_taken(path):
        raise InputError(f"{path}: cannot be written: {told}; name another file")


@contextmanager
def open_deferring_errors(path: Path) -> Iterator[io.RawIOBase]:
    """Yield a new file whose first write error is raised at the end of the block.

    Not collective. For libraries that end the process where a write fails: until the end all writes succeed.
    """
    with open(path, "w+b", buffering=0) as stream:
        target = _DeferringFile(stream.fileno())
        yield target
        if target.error is not None:
            raise target.error


class _DeferringFile(io.RawIOBase):
    """A file that accepts every write, and remembers the first error of the disk."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._at, self._end = descriptor, 0, os.fstat(descriptor).st_size
        self.error: OSError | None = None

    def _tried(self, function: Callable[..., T], *arguments: Any) -> T | None:
        """Call a function of the descriptor; return its result, None from the first failure on."""
        if self.error is None:
            try:
                return function(self._descriptor, *arguments)
            except OSError as error:
                self.error = error
        return None

    def readable(self) -> bool:
        """Return True. Not collective."""
        return True

    writable = seekable = readable

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the position, and return it. Not collective."""
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._end}[whence]
        return self._at

    def tell(self) -> int:
        """Return the position. Not collective."""
        return self._at

    def write(self, data: Any) -> int:
        """Write data as far as the disk accepts it, and return its whole length. Not collective."""
        left = memoryview(data).cast("B")
        size = len(left)
        while len(left) and (done := self._tried(os.pwrite, left, self._at)) is not None:
            left, self._at = left[done:], self._at + done
        self._at += len(left)
        self._end = max(self._end, self._at)
        return size

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer from the file, zeros beyond its end; return its length. Not collective."""
        view = memoryview(buffer).cast("B")
        data = self._tried(os.pread, len(view), self._at) or b""
        view[:] = data + bytes(len(view) - len(data))
        self._at += len(view)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        """Set the length, and return it. Not collective."""
        self._end = self._at if size is None else size
        self._tried(os.ftruncate, self._end)
        return self._end


def remove_leftovers(path: Path) -> None:
    """Remove temporary files of `path` whose process, on this machine, has ended. Not collective."""
    ours = re.compile(rf"\.(\d+)-{re.escape(_host())}-[0-9a-f]{{8}}\.{re.escape(path.name)}", re.ASCII)
    with suppress(OSError):
        for name in os.listdir(path.parent):
            match = ours.fullmatch(name)
            if match and not _lives(int(match[1])):
                path.with_name(name).unlink(missing_ok=True)


def _host() -> str:
    """Return the name of this machine as a part of a file's name."""
    return re.sub(r"[^A-Za-z0-9_]", "_", socket.gethostname())[:40]


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def sync_file_system(path: Path) -> None:
    """Synchronise the file system of a path with its disk. Not collective."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        libc = ctypes.CDLL(None)
        if not hasattr(libc, "syncfs") or libc.syncfs(descriptor):
            os.sync()
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Synchronise the names in a folder with its disk. Not collective."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
