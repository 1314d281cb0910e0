"""A watch over calls that may not end: a user's function, or waiting for ranks that never come."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import socket
from types import TracebackType
from typing import TYPE_CHECKING

from sparsehess.errors import UNUSABLE, InputError
from sparsehess.runtime import process_watch

if TYPE_CHECKING:
    from mpi4py import MPI

# The signal at which a process tells its stack; nobody else's.
_NUMBER = signal.SIGRTMIN + 11

# Seconds that waiting may last longer than a call: the rank that is in the call is to speak first.
_LATER = 2.0

_pipe: list[int] = []  # its two ends, made once for a process


class Watch:
    """Ends all ranks where one is too long in a call of a user's function, or waits too long for the others.

    Its thread needs nothing of the interpreter: an endless loop, a sleep, a stray collective call and a read that
    blocks are all seen. Told first is where the rank is in Python, and where the other ranks of its host are.

    Parameters
    ----------
    seconds
        The longest call.
    """

    def __init__(self, seconds: float):
        if not 0 < seconds < float("inf"):
            raise InputError(f"a patience of {seconds:g} seconds: it must be a positive number")
        self.seconds = float(seconds)
        self._met = False

    def begin(self, comm: MPI.Comm) -> None:
        """Begin to look on, and know the other ranks of this host from now on.

        Collective the first time: every rank of a communicator has a watch, or none has.
        """
        if self._met:
            return
        self._met = True
        host = socket.gethostname()
        self._start(f"rank {comm.rank} (process {os.getpid()} on {host})", _handle(comm))
        everybody = comm.allgather((host, os.getpid()))
        process_watch.ask([process for place, process in everybody if place == host])

    def _start(self, rank: str, handle: bytes) -> None:
        """Start the thread, or tell it who this is."""
        if not _pipe:
            _pipe.extend(os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC))
            faulthandler.register(_NUMBER, file=_pipe[1], all_threads=False, chain=False)
        advice = f", longer than the {self.seconds:g} s that a call may take"
        process_watch.start(_pipe[0], _NUMBER, rank, advice, UNUSABLE, handle)

    def call(self, what: str) -> Watched:
        """Return what looks on at a block that calls a function of the user. Not collective."""
        if not _pipe:  # the others are not known yet, and end when this process has
            self._start(f"process {os.getpid()}", b"")
        return Watched(f"in {what}", self.seconds)

    def waiting(self) -> Watched:
        """Return what looks on at a block that waits for the other ranks. Not collective."""
        return Watched("waiting for the other ranks", self.seconds + _LATER)


def _handle(comm: MPI.Comm) -> bytes:
    """Return the bytes of the handle of a communicator, none where there is one process alone. Not collective."""
    from mpi4py import MPI

    if comm.size == 1:
        return b""
    return ctypes.string_at(MPI._addressof(comm), MPI._sizeof(comm))


class Watched:
    """A block that is looked on. Not collective."""

    def __init__(self, what: str, seconds: float):
        self._what, self._seconds = " ".join(what.split()).encode(errors="replace")[:300], seconds

    def __enter__(self) -> None:
        """Begin to look on."""
        self._before = process_watch.enter(self._what, self._seconds)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        """Look on as before."""
        process_watch.leave(self._before)
