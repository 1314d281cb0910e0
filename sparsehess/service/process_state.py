"""The state of the process around a job of the service: restored afterwards; its output is recorded in a file."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

# Signals that ask a service to leave, whatever handlers its jobs install.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


@contextlib.contextmanager
def restore_process() -> Iterator[None]:
    """Restore folder, environment, module path, modules and signal handlers at the end of the block.

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
    """Write the output of this process, that of C libraries included, into a file. Not collective."""
    flush_output()
    streams = sys.stdout, sys.stderr
    kind = os.O_TRUNC if first else 0
    record = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | kind, 0o600)
    out, err = os.dup(1), os.dup(2)
    try:
        os.dup2(record, 1)
        os.dup2(record, 2)
        yield
    finally:
        flush_output()
        os.dup2(out, 1)
        os.dup2(err, 2)
        for one in (record, out, err):
            os.close(one)
        sys.stdout, sys.stderr = (_open(stream, number) for number, stream in enumerate(streams, 1))


def _open(stream: TextIO, number: int) -> TextIO:
    """Return a stream of this process; a new one where a job has closed it."""
    return open(number, "w", closefd=False) if stream.closed else stream


def flush_output() -> None:
    """Flush the buffers of Python and C; errors of a full disk are ignored."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    ctypes.CDLL(None).fflush(None)
