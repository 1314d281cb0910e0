"""Files appear whole: written beside, then renamed. What a killed process has left beside is removed."""

from __future__ import annotations

import ctypes
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


def unfinished_name(path: Path) -> Path:
    """Return a hidden name in the folder of `path`, which nobody can foresee and which tells who has made it.

    Not collective.
    """
    return path.with_name(f".{os.getpid()}-{_host()}-{secrets.token_hex(4)}.{path.name}")


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Yield a name beside `path` that becomes `path` when the block ends without an error.

    Not collective.
    """
    unfinished = unfinished_name(path)
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def write_file(path: Path) -> Iterator[Path]:
    """Yield a name as `replace_file` does, for an answer; what earlier writers of it have left is removed.

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
        reason = error.strerror or " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: cannot be written: {reason}") from error


@contextmanager
def open_unfailing(path: Path) -> Iterator[io.RawIOBase]:
    """Yield a new file for a library that does not bear a write that fails.

    Not collective. The stream says that all went well, and the first error is raised at the end of the block.
    """
    with open(path, "w+b", buffering=0) as stream:
        target = _Unfailing(stream.fileno())
        yield target
        if target.error is not None:
            raise target.error


class _Unfailing(io.RawIOBase):
    """A file that takes all that is written to it, and remembers the first error of the disk."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._at, self._end = descriptor, 0, os.fstat(descriptor).st_size
        self.error: OSError | None = None

    def _tried(self, function: Callable[..., T], *arguments: Any) -> T | None:
        """Return what a call returns, None from its first failure on."""
        if self.error is None:
            try:
                return function(self._descriptor, *arguments)
            except OSError as error:
                self.error = error
        return None

    def readable(self) -> bool:
        """Return that it is. Not collective."""
        return True

    writable = seekable = readable

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go somewhere, and return where that is. Not collective."""
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._end}[whence]
        return self._at

    def tell(self) -> int:
        """Return where it is. Not collective."""
        return self._at

    def write(self, data: Any) -> int:
        """Write all of it, or what the disk takes. Not collective."""
        left = memoryview(data).cast("B")
        size = len(left)
        while len(left) and (done := self._tried(os.pwrite, left, self._at)) is not None:
            left, self._at = left[done:], self._at + done
        self._at += len(left)
        self._end = max(self._end, self._at)
        return size

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer with what was written, zeros where that is nowhere; return its length. Not collective."""
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
    """Remove what processes of this machine that have ended have left beside `path`. Not collective."""
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
    """Have all that was written to the file system of a path on its disk. Not collective."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        libc = ctypes.CDLL(None)
        if not hasattr(libc, "syncfs") or libc.syncfs(descriptor):
            os.sync()
    finally:
        os.close(descriptor)


def sync_names(folder: Path) -> None:
    """Have the names in a folder on its disk. Not collective."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
