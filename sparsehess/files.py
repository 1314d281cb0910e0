"""Files appear whole: written beside, then renamed. What a killed process has left beside is removed."""

from __future__ import annotations

import ctypes
import os
import re
import secrets
import socket
from contextlib import contextmanager, suppress
from pathlib import Path

from sparsehess.errors import InputError


def beside(path: Path) -> Path:
    """Return a hidden name in the folder of `path`, which nobody can foresee and which tells who has made it.

    Not collective.
    """
    return path.with_name(f".{os.getpid()}-{_host()}-{secrets.token_hex(4)}.{path.name}")


@contextmanager
def replaced(path: Path):
    """Yield a name beside `path` that becomes `path` when the block ends without an error.

    Not collective.
    """
    unfinished = beside(path)
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def written(path: Path):
    """Yield a name as `replaced` does, for an answer; what earlier writers of it have left is removed.

    Not collective.

    Raises
    ------
    InputError
        The file cannot be written; the message says why.
    """
    with writable(path), replaced(path) as unfinished:
        tidy(path)
        yield unfinished


@contextmanager
def writable(path: Path):
    """Turn an OSError of the block into an InputError that names the file. Not collective."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: cannot be written: {reason}") from error


def tidy(path: Path) -> None:
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


def sync(path: Path) -> None:
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
