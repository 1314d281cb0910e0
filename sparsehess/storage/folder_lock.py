"""A lock by which one run at a time saves in a folder of checkpoints."""

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
from sparsehess.storage.regular_files import open_regular

# The name of the file that is locked.
LOCK = "lock"

# Seconds to wait for a run that is ending.
_PATIENCE = 5.0

# Error numbers: another process holds the lock; the file system has no locks.
_HELD = (errno.EACCES, errno.EAGAIN)
_NONE = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


class FolderLock:
    """A lock of a folder, held until `remove` or the end of the object. Not collective.

    It is a record lock: file systems of clusters have them, one process may hold several in one folder, and the
    system releases them when the process ends.

    Raises
    ------
    InputError
        Another process holds the folder, or what has the name of the file that is locked is no file.
    OSError
        The file that is locked cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._path, deadline = folder / LOCK, time.monotonic() + _PATIENCE
        while not self._held(folder, time.monotonic() > deadline):
            time.sleep(0.1)

    def _held(self, folder: Path, late: bool) -> bool:
        descriptor = open_regular(self._path, os.O_RDWR | os.O_CREAT, 0o600)
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
        """Release the lock, and remove its file."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
        self._close()
