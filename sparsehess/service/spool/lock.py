"""The lock of a spool: one service at a time, all of its ranks together; others are told who has it."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from pathlib import Path

from sparsehess.errors import InputError
from sparsehess.service.spool.job_outcomes import read_json

# Seconds that a service which ends may take.
_PATIENCE = 3.0


def lock_spool(path: Path, whom: str) -> int:
    """Return the descriptor of a spool's lock, held alone until `share_lock`; for the first rank of a service.

    Not collective.

    Raises
    ------
    InputError
        Another service has it.
    """
    descriptor = _open(path)
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError:
            held = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
            if time.monotonic() > deadline:
                os.close(descriptor)
                raise InputError(f"{path} is served already, by {held or 'another'}") from None
        time.sleep(0.05)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, whom.encode(), 0)
    return descriptor


def share_lock(path: Path, descriptor: int | None = None) -> int:
    """Return a descriptor of the lock, held together with the other ranks of the service.

    Not collective. While one of them lives, nobody else serves the spool.

    Raises
    ------
    InputError
        Another service was quicker: between holding it alone and together nobody holds it.
    """
    if descriptor is None:
        descriptor = _open(path)
    try:
        before = os.pread(descriptor, 200, 0)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        now = os.pread(descriptor, 200, 0)
        if now != before:
            raise InputError(f"{path} is served already, by {now.decode(errors='replace').strip()}")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def is_locked(path: Path) -> bool:
    """Return whether a service has the lock. Not collective.

    Who cannot open it, for whoever can may also hold it, is told by `service.json`: a process of the spool's user
    lives, or is on another machine and has not told of its end.
    """
    try:
        descriptor = _open(path)
    except (PermissionError, FileNotFoundError):
        return _is_told(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _is_told(path: Path) -> bool:
    service = read_json(path / "service.json")
    process, host = service.get("process"), service.get("host")
    if not isinstance(process, int) or process < 1:
        return False
    if host != socket.gethostname():
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    try:
        return os.stat(f"/proc/{process}").st_uid == os.stat(path).st_uid
    except OSError:  # processes of others are hidden here
        return True


def _open(path: Path) -> int:
    # Nobody else may read it either: who can open a file can hold its lock.
    return os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
