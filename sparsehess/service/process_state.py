"""What a job of the service does to its process, undone; and what it prints, kept apart."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

# What tells a service to leave, whatever handlers its jobs install.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


@contextlib.contextmanager
def restore_process() -> Iterator[None]:
    """Undo what a job does to its process: folder, environment, modules and where they are sought, signals.

    Not collective.
    """
    place, search, known = os.open(".", os.O_RDONLY | os.O_CLOEXEC), list(sys.path), dict(sys.modules)
    environment = dict(os.environ)
    handlers = {one: signal.getsignal(one) for one in SIGNALS}
    umask = os.umask(0o077)
    try:
        yield
    finally:
        os.fchdir(place)
        os.close(place)
        os.umask(umask)
        if os.environ != environment:
            os.environ.clear()
            os.environ.update(environment)
        added = [folder for folder in sys.path if folder not in search]
        sys.path[:] = search
        if added:  # the next job's modules of the same names are others
            for name, module in list(sys.modules.items()):
                origin = getattr(module, "__file__", None) or ""
                if known.get(name) is not module and os.path.dirname(origin) in added:
                    sys.modules.pop(name)
                    if name in known:
                        sys.modules[name] = known[name]
        for one, handler in handlers.items():
            signal.signal(one, handler)


@contextlib.contextmanager
def record_output(path: Path, first: bool) -> Iterator[None]:
    """Have all that this process prints in a file, whoever in it prints. Not collective."""
    flush()
    streams = sys.stdout, sys.stderr
    kind = os.O_TRUNC if first else 0
    record = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | kind, 0o600)
    out, err = os.dup(1), os.dup(2)
    try:
        os.dup2(record, 1)
        os.dup2(record, 2)
        yield
    finally:
        flush()
        os.dup2(out, 1)
        os.dup2(err, 2)
        for one in (record, out, err):
            os.close(one)
        sys.stdout, sys.stderr = (_open(stream, number) for number, stream in enumerate(streams, 1))


def _open(stream: TextIO, number: int) -> TextIO:
    """Return a stream of this process, or another one where a job has closed it."""
    return open(number, "w", closefd=False) if stream.closed else stream


def flush() -> None:
    """Have all that was printed where it belongs, what C has buffered too; a full disk must end nothing here."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    ctypes.CDLL(None).fflush(None)
