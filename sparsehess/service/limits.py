"""What a job of the service may take: time, memory, and until somebody cancels it.

Guaranteed is this. At every iteration of a solver and at every gradient that the job calls, all ranks ask
whether to go on; over its time, over its memory, cancelled or told to leave, the job ends there in order. Sizes
that its files claim are compared with its memory before anything is read. While it runs, `RLIMIT_DATA` of each
rank is what the rank had at its beginning and what it is allowed beyond that, so that an allocation that goes
further fails as one does on a full machine.

What returns to none of these points (a factorization without end, a user's loop) can only be ended with its
processes: some seconds (`--grace`) behind the limit a watchdog thread outside the interpreter writes where the job
stands into `watchdog` and ends the rank, and mpiexec then ends the others. Started as `sparsehess serve SPOOL
--ranks P` the service starts itself again and the job has failed; under a bare mpiexec whoever started that must
do it. A job without a time limit has no watchdog.
"""

from __future__ import annotations

import faulthandler
import os
import re
import resource
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from mpi4py import MPI

from sparsehess.errors import Cancelled, InputError, Leaving, OverLimit
from sparsehess.runtime import agreement
from sparsehess.runtime.guards import Guard, guard_of, set_guard

# Seconds between two looks at the clock and at the folder of the job, and between two writings of its status.
_LOOK, _TELL = 0.05, 0.25

# What the interpreter and the libraries may need for themselves while a job is at its limit, in bytes.
_SLACK = 32 * 2**20

_GOES_ON, _OVER_TIME, _OVER_MEMORY, _CANCELLED, _LEAVES = range(5)


_Number = TypeVar("_Number", int, float)


@dataclass(frozen=True)
class Limits:
    """What a job may take; None is as much as there is.

    Attributes
    ----------
    time
        Seconds.
    memory
        Bytes of each rank, beyond what the service itself has.
    """

    time: float | None = None
    memory: int | None = None

    def within(self, most: Limits) -> Limits:
        """Return these limits, no larger than the most that a service gives. Not collective."""
        return Limits(_least(self.time, most.time), _least(self.memory, most.memory))


def _least(*numbers: _Number | None) -> _Number | None:
    return min((number for number in numbers if number is not None), default=None)


def size(text: str, flag: str = "--memory") -> int:
    """Return the bytes of a size such as 500M or 4G, given by this flag.

    Not collective.

    Raises
    ------
    InputError
        It is none.
    """
    match = re.fullmatch(r"(\d{1,12})([KMGT]?)(?:i?B)?", text, re.ASCII)
    if not match or not int(match[1]):
        raise InputError(f"{flag} {text}: write a size such as 500M or 4G")
    return int(match[1]) * 1024 ** " KMGT".index(match[2] or " ")


class JobGuard(Guard):
    """Looks after a job: a context manager on every rank of its group.

    Collective.

    Parameters
    ----------
    comm
        Of the group.
    limits
        Of the job.
    folder
        Of the job, where the first rank looks for `cancel` and writes `status.json`.
    leaves
        Says whether the service leaves.
    tell
        Called on the first rank as tell(stage, done, total), some times a second at most.
    grace
        Seconds between the limit and the watchdog.
    """

    def __init__(
        self,
        comm: MPI.Comm,
        limits: Limits,
        folder: Path,
        leaves: Callable[[], bool],
        tell: Callable[[str, int, int], None],
        grace: float,
    ):
        self._outer = guard_of(comm)
        self.patience = self._outer.patience
        self._comm, self._limits, self._folder, self._leaves, self._tell = comm, limits, folder, leaves, tell
        self._grace = grace
        self._looked = self._told = 0.0
        self._verdict = _GOES_ON
        self._began = time.monotonic()
        self._had = _resident()
        self._before = resource.getrlimit(resource.RLIMIT_DATA)
        self._traces: int | None = None

    def __enter__(self) -> JobGuard:
        """Set the limits of this process, and have its progress looked at. Collective."""
        try:
            with agreement(self._comm):
                self._set()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _set(self) -> None:
        """Set the limits of this process, and have its progress looked at."""
        memory, seconds = self._limits.memory, self._limits.time
        if memory is not None:
            wanted = _data() + memory + _SLACK
            hard = self._before[1]
            resource.setrlimit(
                resource.RLIMIT_DATA, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard)
            )
        if seconds is not None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            self._traces = os.open(self._folder / "watchdog", flags, 0o600)
            faulthandler.dump_traceback_later(seconds + self._grace, exit=True, file=self._traces)
        set_guard(self._comm, self)

    def __exit__(self, *reason: object) -> None:
        """Take the limits away, and the guard before this one back. Collective."""
        set_guard(self._comm, self._outer)
        if self._traces is not None:
            faulthandler.cancel_dump_traceback_later()
            os.close(self._traces)
            with suppress(FileNotFoundError):
                if self._comm.rank == 0 and not os.path.getsize(self._folder / "watchdog"):
                    os.unlink(self._folder / "watchdog")
        resource.setrlimit(resource.RLIMIT_DATA, self._before)

    def end_stuck(self, comm: MPI.Comm, error: Exception) -> None:
        """End the job as the guard before this one does. Not collective."""
        self._outer.end_stuck(comm, error)

    def check_progress(self, stage: str, done: int, total: int, together: bool) -> None:
        """Ask whether to go on; tell the status of the job. Collective where `together` is true."""
        verdict = self._look()
        if together and self._comm.size > 1:
            verdict = self._comm.allreduce(verdict, op=MPI.MAX)
        now = time.monotonic()
        if self._comm.rank == 0 and now - self._told > _TELL:
            self._told = now
            self._tell(stage, done, total)
        self.refuse(verdict)

    def check_call(self) -> None:
        """Ask whether this rank goes on; the first calls of a job tell its status too. Not collective."""
        if self._comm.rank == 0 and not self._told:
            self._told = time.monotonic()
            self._tell("functions called", 0, 0)
        self.refuse(self._look())

    def refuse(self, verdict: int) -> None:
        """Raise what a verdict says. Not collective."""
        memory, seconds = self._limits.memory, self._limits.time
        if verdict == _OVER_TIME and seconds is not None:
            raise OverLimit(f"over its time limit of {seconds:g} s")
        if verdict == _OVER_MEMORY and memory is not None:
            raise OverLimit(f"over its memory limit of {memory / 2**20:.0f} MiB a rank")
        if verdict == _CANCELLED:
            raise Cancelled("cancelled")
        if verdict == _LEAVES:
            raise Leaving("the service leaves")

    def _look(self) -> int:
        """Return why this rank would not go on."""
        now = time.monotonic()
        if now - self._looked < _LOOK:
            return self._verdict
        self._looked = now
        memory, seconds = self._limits.memory, self._limits.time
        self._verdict = _GOES_ON
        if self._comm.rank == 0 and self._leaves():
            self._verdict = _LEAVES
        if self._comm.rank == 0 and (self._folder / "cancel").exists():
            self._verdict = _CANCELLED
        if memory is not None and _resident() - self._had > memory + _SLACK:
            self._verdict = _OVER_MEMORY
        if seconds is not None and now - self._began > seconds:
            self._verdict = _OVER_TIME
        return self._verdict


def _resident() -> int:
    """Return the resident bytes of this process, 0 where the system does not say."""
    with suppress(OSError), open("/proc/self/statm", "rb") as stream:
        return int(stream.read().split()[1]) * resource.getpagesize()
    return 0


def _data() -> int:
    """Return the bytes that RLIMIT_DATA counts, 0 where the system does not say."""
    with suppress(OSError), open("/proc/self/status", "rb") as stream:
        for line in stream:
            if line.startswith(b"VmData:"):
                return int(line.split()[1]) * 1024
    return 0
