"""One run at a time in a folder of checkpoints: two would take each other's files for their own."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import time
import weakref
from contextlib import suppress
from pathlib import Path

from sparsehess.errors import InputError
from sparsehess.runtime import log

# Seconds that a run which was told to end, or killed, may take to be gone.
_PATIENCE = 5.0

# What says that another process has a lock, and that a file system has no locks.
_HELD = (errno.EACCES, errno.EAGAIN)
_NONE = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


class Lock:
    """A folder held by this process as long as the object lives, or until it lets go. Not collective.

    By a record lock: file systems of clusters have them too, a process may have several of its own in one folder,
    and they end with it, however it ends.

    Raises
    ------
    InputError
        Another process holds the folder.
    OSError
        The file that is locked cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._path, deadline = folder / "lock", time.monotonic() + _PATIENCE
        while not self._held(folder, time.monotonic() > deadline):
            time.sleep(0.1)

    def _held(self, folder: Path, late: bool) -> bool:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._close = weakref.finalize(self, os.close, descriptor)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _NONE:
                log.warning("%s: no locks there (%s): see that no other run saves in it", folder, error.strerror)
                return True
            if error.errno not in _HELD:
                self._close()
                raise
            holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
            self._close()
            if late:
                raise InputError(
                    f"{folder} is in use by {holder or 'another run'}: wait for its end, or give another folder"
                ) from None
            return False
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(self._path)):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
                return True
        self._close()  # who held it has removed it in between
        return False

    def remove(self) -> None:
        """Let go, and leave no file."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
        self._close()
