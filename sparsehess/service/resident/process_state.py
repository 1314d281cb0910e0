"""The state of a process around a job: the folder that it works in, and a file that its output goes to."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from sparsehess.runtime import agreement

if TYPE_CHECKING:
    from mpi4py import MPI


@contextlib.contextmanager
def work_in_folder(folder: Path, comm: MPI.Comm) -> Iterator[None]:
    """Work in a folder, on files that are for oneself alone, for the length of the block. Collective."""
    place, umask = os.open(".", os.O_RDONLY | os.O_CLOEXEC), os.umask(0o077)
    try:
        with agreement(comm):
            os.chdir(folder)
        yield
    finally:
        os.umask(umask)
        os.fchdir(place)
        os.close(place)


@contextlib.contextmanager
def record_output(path: Path, anew: bool) -> Iterator[None]:
    """Write the output of this process, that of C libraries included, into a file. Not collective."""
    flush_output()
    streams = sys.stdout, sys.stderr
    kind = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    record = os.open(path, kind | (os.O_TRUNC if anew else 0), 0o600)
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
