"""Files that are opened only if they are files: no link is followed, and no pipe or device is waited for."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from sparsehess.errors import InputError

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def refuse_irregular(path: Path) -> None:
    """Refuse what lies under this name and is no file; nothing may.

    Not collective.

    Raises
    ------
    InputError
        It is a folder, a link, a pipe, a socket or a device.
    OSError
        Its folder cannot be looked through.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        raise InputError(f"{path} is {_KINDS.get(stat.S_IFMT(mode), 'no file')}, not a file: remove it")


def open_regular(path: Path, flags: int, mode: int = 0o666) -> int:
    """Return a descriptor of a file, at once.

    Not collective.

    Raises
    ------
    InputError
        What lies under this name is no file, though a link may lead to one.
    OSError
        It cannot be opened.
    """
    try:
        descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    except OSError:
        refuse_irregular(path)  # a link, a socket, a pipe that nobody reads
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        refuse_irregular(path)
        raise InputError(f"{path} is not a file: remove it")
    return descriptor
