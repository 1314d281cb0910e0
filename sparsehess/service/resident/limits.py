"""Limits of a job of the service: time, memory, cancellation.

All ranks check the limits at every iteration of a solver and at every gradient of the job. A job that is over its
time or memory, or cancelled, ends there in order; so does every job where the service leaves. Sizes in the head of
its files are compared with its memory before anything is read. `RLIMIT_DATA` of each rank is set to its use at the
beginning plus the memory of the job; an allocation beyond fails as it does on a full machine.

A call that never reaches a check (a factorization without end, a user's loop) ends only with its processes. Some
seconds (`--grace`) after the time limit a watchdog thread writes the stack of the rank into `watchdog` and ends
the rank; the launcher then ends the others. Ranks of a job that runs code are its own, and only the job has failed
(see `job_processes`). Where the ranks are those of the service, `sparsehess serve SPOOL --ranks P` restarts it,
and the job has failed; under a bare mpiexec the caller must restart it. A job without a time limit has none.
"""

from __future__ import annotations

import faulthandler
import os
import resource
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from mpi4py import MPI

from sparsehess.commands.quantities import memory_bytes, parse_memory
from sparsehess.errors import Cancelled, Leaving, OverLimit
from sparsehess.runtime import agreement
from sparsehess.runtime.guards import Guard, guard_of, set_guard

# Seconds between two checks of clock and folder, and between two writes of the status.
_LOOK, _TELL = 0.05, 0.25

# Bytes for interpreter and libraries beyond the limit of a job.
_SLACK = 32 * 2**20

_GOES_ON, _OVER_TIME, _OVER_MEMORY, _CANCELLED, _LEAVES = range(5)


_Number = TypeVar("_Number", int, float)


@dataclass(frozen=True)
class Limits:
    """The limits of a job; None is no limit.

    Attributes
    ----------
    time
        Seconds.
    memory
        Bytes of each rank, beyond the use of the service itself.
    """

    time: float | None = None
    memory: int | None = None

    def cap(self, most: Limits) -> Limits:
        """Return these limits, none of them above the limits of the service. Not collective."""
        return Limits(_least(self.time, most.time), _least(self.memory, most.memory))


def _least(*numbers: _Number | None) -> _Number | None:
    return min((number for number in numbers if number is not None), default=None)


def parse_size(text: str, flag: str = "--memory") -> int:
    """Return the bytes of a size such as 500M or 4G; errors name the flag.

    Not collective.

    Raises
    ------
    InputError
        The text is no size.
    """
    return memory_bytes(parse_memory(text, flag))


class JobGuard(Guard):
    """Enforces the limits of a job: a context manager on every rank of its group.

    Collective.

    Parameters
    ----------
    comm
        Communicator of the group.
    limits
        Limits of the job.
    folder
        Folder of the job.
    leaves, cancelled
        Return whether the service leaves, and whether the end of the job is asked for; called on the first rank.
    tell
        Called on the first rank as tell(stage, done, total), at most four times a second.
    grace
        Seconds between the time limit and the watchdog.
    """

    def __init__(
        self,
        comm: MPI.Comm,
        limits: Limits,
        folder: Path,
        leaves: Callable[[], bool],
        cancelled: Callable[[], bool],
        tell: Callable[[str, int, int], None],
        grace: float,
    ):
        self._outer = guard_of(comm)
        self.patience = self._outer.patience
        self._comm, self._limits, self._folder, self._tell = comm, limits, folder, tell
        self._leaves, self._cancelled = leaves, cancelled
        self._grace = grace
        self._looked = self._told = 0.0
        self._verdict = _GOES_ON
        self._began = time.monotonic()
        self._had = _resident()
        self._before = resource.getrlimit(resource.RLIMIT_DATA)
        self._traces: int | None = None

    def __enter__(self) -> JobGuard:
        """Set the limits of this process, and become the guard of the communicator. Collective."""
        try:
            with agreement(self._comm):
                self._set()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _set(self) -> None:
        """Set the limits of this process, and become the guard of the communicator."""
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
        """Restore the limits of the process and the previous guard. Collective."""
        set_guard(self._comm, self._outer)
        if self._traces is not None:
            faulthandler.cancel_dump_traceback_later()
            os.close(self._traces)
            with suppress(FileNotFoundError):
                if self._comm.rank == 0 and not os.path.getsize(self._folder / "watchdog"):
                    os.unlink(self._folder / "watchdog")
        resource.setrlimit(resource.RLIMIT_DATA, self._before)

    def end_stuck(self, comm: MPI.Comm, error: BaseException) -> None:
        """End the job by the previous guard. Not collective."""
        self._outer.end_stuck(comm, error)

    def watch_call(self, what: str) -> AbstractContextManager[None]:
        """Look on as the guard before. Not collective."""
        return self._outer.watch_call(what)

    def watch_wait(self, comm: MPI.Comm) -> AbstractContextManager[None]:
        """Look on as the guard before. Collective the first time."""
        return self._outer.watch_wait(comm)

    def check_progress(self, stage: str, done: int, total: int, together: bool) -> None:
        """Raise where a limit is passed; report the progress of the job. Collective where `together` is true."""
        verdict = self._look()
        if together and self._comm.size > 1:
            verdict = self._comm.allreduce(verdict, op=MPI.MAX)
        now = time.monotonic()
        if self._comm.rank == 0 and now - self._told > _TELL:
            self._told = now
            self._tell(stage, done, total)
        self._raise_verdict(verdict)

    def check_call(self) -> None:
        """Raise where this rank has passed a limit; report the first call of a job. Not collective."""
        if self._comm.rank == 0 and not self._told:
            self._told = time.monotonic()
            self._tell("functions called", 0, 0)
        self._raise_verdict(self._look())

    def _raise_verdict(self, verdict: int) -> None:
        """Raise the error of a verdict."""
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
        """Return the verdict of this rank: the limit that it has passed, if any."""
        now = time.monotonic()
        if now - self._looked < _LOOK:
            return self._verdict
        self._looked = now
        memory, seconds = self._limits.memory, self._limits.time
        self._verdict = _GOES_ON
        if self._comm.rank == 0 and self._leaves():
            self._verdict = _LEAVES
        if self._comm.rank == 0 and self._cancelled():
            self._verdict = _CANCELLED
        if memory is not None and _resident() - self._had > memory + _SLACK:
            self._verdict = _OVER_MEMORY
        if seconds is not None and now - self._began > seconds:
            self._verdict = _OVER_TIME
        return self._verdict


def _resident() -> int:
    """Return the resident bytes of this process, 0 where the system has no /proc."""
    with suppress(OSError), open("/proc/self/statm", "rb") as stream:
        return int(stream.read().split()[1]) * resource.getpagesize()
    return 0


def _data() -> int:
    """Return the bytes counted by RLIMIT_DATA, 0 where the system has no /proc."""
    with suppress(OSError), open("/proc/self/status", "rb") as stream:
        for line in stream:
            if line.startswith(b"VmData:"):
                return int(line.split()[1]) * 1024
    return 0
