"""The resident service: groups of ranks take jobs from a spool, one after another, and survive their failures.

There is no dispatcher. The first rank of a group takes its next job by a rename that only one process can win.
Groups share the folder and nothing else, and never wait for each other.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np

from sparsehess import errors, runtime
from sparsehess.commands.arguments import CommandLine
from sparsehess.errors import STOPPED
from sparsehess.runtime import PETSc, agreement, on_root
from sparsehess.service.resident.admission import Allowance, Task
from sparsehess.service.resident.job_ending import LOST, REMOVED, Ending, clear_folder
from sparsehess.service.resident.job_processes import JobProcesses
from sparsehess.service.resident.job_run import admit_together, record_run, run_task
from sparsehess.service.resident.keeper import adopt_orphans
from sparsehess.service.resident.service_facts import describe_service, write_service
from sparsehess.service.resident.warm_resources import WarmResources
from sparsehess.service.spool import job_outcomes
from sparsehess.service.spool.layout import job_id
from sparsehess.service.spool.recovery import recover_jobs, recover_running
from sparsehess.service.spool.spool import Spool
from sparsehess.storage.atomic_files import explain_write_errors, sync_file_system
from sparsehess.storage.checkpoint import remove_checkpoint

log = logging.getLogger("sparsehess")

# Least and greatest seconds between two polls of an empty queue. Seconds after which ended jobs are synchronised
# with the disk, and the number of ended jobs that forces it.
_QUICK, _SLOW, _UNSETTLED, _TOGETHER = 0.0005, 0.02, 0.5, 100

# Values in place of the length of a job's name: no job is left; the spool cannot be used.
_NONE, _BROKEN = -1, -2

# Signals that ask a service to leave.
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

# Kinds of endings of jobs that go back into the queue where the service leaves.
_LEFT = (errors.Leaving.__name__, errors.Stopped.__name__)

# Jobs between two collective garbage collections: of PETSc's, and of Python's, where they have failed.
_TIDY = 20


@dataclass(frozen=True)
class ServiceSettings:
    """The settings of a service.

    Attributes
    ----------
    allowance
        Files that jobs may reach, and their limits.
    groups
        Number of groups of ranks that run jobs side by side.
    cache
        Bytes, over all ranks of a group, of values kept for later jobs.
    grace
        Seconds between the time limit of a job and the end of its processes.
    once
        Whether the service leaves when no job is left.
    idle
        Seconds without a job after which the service leaves; None for never.
    launcher
        Words of the command that starts ranks for jobs that run code.
    quiet
        Whether it starts without a word.
    """

    allowance: Allowance
    groups: int
    cache: int
    grace: float
    once: bool
    idle: float | None
    launcher: tuple[str, ...] = ()
    quiet: bool = False


def serve_spool(spool: Spool, settings: ServiceSettings, line: CommandLine, comm: MPI.Comm) -> int:
    """Serve a spool until the service is asked to leave; return its exit status: 0, or 75 where jobs are left.

    Collective. SIGTERM, SIGINT, SIGUSR1 and a file `stop` in the spool ask it to leave.

    Parameters
    ----------
    line
        The command line against which job files are checked.

    Raises
    ------
    InputError
        Another service holds the spool.
    """
    mine, error = _RankState(), None
    try:
        with agreement(comm), explain_write_errors(spool.path):
            if comm.rank == 0:
                mine.lock = _begin(spool, f"process {os.getpid()} on {socket.gethostname()}")
        with agreement(comm), explain_write_errors(spool.path):
            if comm.rank > 0:
                mine.lock = spool.share()
            mine.hear(spool)
        on_root(comm, _tell_service, spool, settings, comm.size)
        number = comm.rank * settings.groups // comm.size
        mine.group = comm.Split(number, comm.rank)
        runtime.share_guard(comm, mine.group)
        with contextlib.closing(
            _Group(spool, settings, line, runtime.communicator(mine.group), number, comm.rank == 0, mine.lock)
        ) as one:
            try:
                one.run()
            except Exception as caught:  # of all ranks of the group, which goes no further; the others leave too
                error = caught
                with contextlib.suppress(OSError):
                    spool.stop()
        _quietly(comm.Ibarrier())
        status = on_root(comm, _end, spool)
        runtime.raise_together(comm, error)
        return status
    finally:
        mine.close()


class _RankState:
    """The state of a serving rank: the lock, its group, the file of signals and their handlers."""

    def __init__(self) -> None:
        self.lock = -1
        self.group: MPI.Comm | None = None
        self._marks: int | None = None
        self._wakeup = -1
        self._before: dict[int, Any] = {}

    def hear(self, spool: Spool) -> None:
        """Install handlers by which signals ask the service to leave."""
        kind = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC
        self._marks = os.open(spool.path / "signals", kind, 0o600)
        for one in _SIGNALS:
            self._before[one] = signal.signal(one, lambda *_: _asked_to_leave(spool))
        # The handler of the C library writes at once, even while Python waits in a call.
        self._wakeup = signal.set_wakeup_fd(self._marks, warn_on_full_buffer=False)

    def close(self) -> None:
        """Restore the handlers, release the lock, free the group. Collective where there is a group."""
        if self._marks is not None:
            signal.set_wakeup_fd(self._wakeup)
            for one, handler in self._before.items():
                signal.signal(one, handler)
            os.close(self._marks)
        if self.lock >= 0:
            os.close(self.lock)
        if self.group is not None:
            self.group.Free()


def _asked_to_leave(spool: Spool) -> None:
    """Pass a signal on to all groups; a missing folder is ignored, for this may run inside a call of MPI."""
    with contextlib.suppress(OSError):
        spool.stop()


def _begin(spool: Spool, whom: str) -> int:
    """Lock the spool, and recover the jobs of a service that has ended; on the first rank."""
    descriptor = spool.lock(whom)
    try:
        for line in recover_jobs(spool):
            log.warning("%s", line)
        for name in ("stop", "signals"):
            (spool.path / name).unlink(missing_ok=True)
    except BaseException:
        os.close(descriptor)
        raise
    return spool.share(descriptor)


def _end(spool: Spool) -> int:
    with explain_write_errors(spool.path):
        (spool.path / "service.json").unlink(missing_ok=True)
        for path in spool.path.glob("group-*.json"):
            path.unlink(missing_ok=True)
        for name in ("stop", "signals"):
            (spool.path / name).unlink(missing_ok=True)
        return STOPPED if spool.count_jobs("queued") + spool.count_jobs("running") else errors.DONE


def _quietly(request: MPI.Request) -> None:
    """Wait for other ranks without keeping a core busy."""
    pause = 5e-5
    while not request.Test():
        time.sleep(pause)
        pause = min(2 * pause, _SLOW / 4)


class _Group:
    """The ranks that run a job together. Collective; the first rank alone works on the spool."""

    def __init__(
        self,
        spool: Spool,
        settings: ServiceSettings,
        line: CommandLine,
        comm: MPI.Comm,
        number: int,
        first: bool,
        lock: int,
    ):
        adopt_orphans()
        self.spool, self.settings, self.comm, self.number, self.first = spool, settings, comm, number, first
        self.counts = {"done": 0, "failed": 0}
        self._resources = WarmResources(comm, settings.cache)
        self._unsettled: list[Path] = []
        self._saved: str | None = None  # where the present job has its checkpoint, in its folder
        self._oldest = self._told = 0.0
        self._failed = self._ended = 0
        self._broken: Exception | None = None  # of the spool, met by the first rank
        self._line = line
        self._processes = JobProcesses.of_group(settings.launcher, comm, lock)

    def run(self) -> None:
        """Run jobs until the service is asked to leave."""
        while (name := self._next()) is not None:
            self._do(self.spool.path / "running" / name)

    def close(self) -> None:
        """Free what is kept. Collective."""
        self._resources.close()

    # --- between jobs ---

    def _next(self) -> str | None:
        """Return the next job, None at the end; raise an error of the spool on all ranks."""
        name, error = None, self._broken
        if self.comm.rank == 0 and error is None:
            try:
                with explain_write_errors(self.spool.path):
                    folder = self._wait()
                name = None if folder is None else folder.name
            except Exception as caught:
                error = caught
        told = np.array([_BROKEN if error is not None else _NONE if name is None else len(name)])
        if self.comm.size > 1:
            _quietly(self.comm.Ibcast(told))
        if told[0] == _BROKEN:
            runtime.raise_together(self.comm, error)
        return None if told[0] == _NONE else self.comm.bcast(name)

    def _wait(self) -> Path | None:
        pause, since = _QUICK, time.monotonic()
        while not self.spool.is_stopping:
            if self._unsettled and (
                len(self._unsettled) >= _TOGETHER or time.monotonic() - self._oldest > _UNSETTLED
            ):
                self._settle()
            folder = self.spool.claim()
            if folder is not None:
                return folder
            if self._unsettled:
                self._settle()
                self._tell_group(None)
            if self.first and self._through(since):
                self.spool.stop()
            time.sleep(pause)
            pause = min(1.5 * pause, _SLOW)
        self._settle()
        return None

    def _through(self, since: float) -> bool:
        """Return whether no job is left and none is awaited."""
        waited = self.settings.once or (
            self.settings.idle is not None and time.monotonic() - since > self.settings.idle
        )
        return waited and not self.spool.count_jobs("running") and not self.spool.count_jobs("queued")

    def _settle(self) -> None:
        """Synchronise the answers of ended jobs with the disk, then move the jobs to `done` or `failed`."""
        if self._unsettled:
            sync_file_system(self.spool.path)
            for folder in self._unsettled:
                with contextlib.suppress(FileNotFoundError):  # somebody has removed it
                    self.spool.settle(folder)
            self._unsettled.clear()

    # --- a job ---

    def _do(self, folder: Path) -> None:
        """Run a job; the group is ready for the next one whatever happens."""
        began = time.time()
        if self.comm.rank == 0:
            self._tell_group(job_id(folder))
        ending = record_run(folder, self.comm, lambda: self._work(folder), anew=True)
        if self.comm.rank == 0:
            try:
                with explain_write_errors(folder):
                    self._write(folder, ending, began)
            except errors.InputError as caught:
                if folder.is_dir():
                    self._broken = caught
                else:
                    log.warning("%s is gone: somebody has removed it", job_id(folder))
        self._tidy(bool(ending.kind))

    def _work(self, folder: Path) -> Ending:
        """Run a job here, or by ranks of its own where it imports what is a user's."""
        settings = self.settings
        self._saved = None
        task = admit_together(folder, self.comm, settings.allowance, self._line)
        self._saved = getattr(task.arguments, "checkpoint", None)
        if task.runs_code:
            return self._run_apart(folder, task)
        self._resources.begin_job()
        return run_task(folder, self.comm, self._line, task, self.spool, self._resources, settings.grace)

    def _run_apart(self, folder: Path, task: Task) -> Ending:
        """Wait for ranks that are started for the job alone."""
        ending, error = Ending(), None
        if self.comm.rank == 0:
            try:
                ending = self._processes.run(
                    self.spool, folder, self.settings.allowance, task.limits, self.settings.grace
                )
            except Exception as caught:
                error = caught
        _quietly(self.comm.Ibarrier())
        runtime.raise_together(self.comm, error)
        return self.comm.bcast(ending)

    def _write(self, folder: Path, ending: Ending, began: float) -> None:
        """Write the outcome of a job, or put it back into the queue."""
        if not clear_folder(folder):
            ending = Ending.failed(REMOVED)
        (folder / "status.json").unlink(missing_ok=True)
        leaves = self.spool.is_stopping
        if leaves and ending.kind in _LEFT:
            self.spool.requeue(folder, counted=False)
            return
        if ending.kind in (LOST, *_LEFT):  # a job may say that it was asked to leave, again and again
            for line in recover_running(self.spool, folder, leaves):
                log.warning("%s", line)
            return
        state = "done" if not ending.kind and ending.status == errors.DONE else "failed"
        if ending.kind == errors.Cancelled.__name__:
            state = "cancelled"
        facts = {
            "id": job_id(folder),
            "state": state,
            "exit": None if state == "cancelled" else ending.status,
            "error": ending.error,
            "seconds": time.time() - began,
            "attempts": job_outcomes.count_attempts(folder),
            "ranks": self.comm.size,
            "group": self.number,
        }
        job_outcomes.write_outcome(folder, facts)
        if self._saved is not None and not ending.kind:
            remove_checkpoint(folder / self._saved)
        self.counts["done" if state == "done" else "failed"] += 1
        if not self._unsettled:
            self._oldest = time.monotonic()
        self._unsettled.append(folder)

    def _tidy(self, failed: bool) -> None:
        """Destroy what jobs have left: what Python lets go of, PETSc keeps until a collective call. Collective."""
        self._ended += 1
        if failed:
            runtime.forget_children(self.comm)
            self._failed += 1
            if self._failed % _TIDY == 0:
                gc.collect()
        if self._ended % _TIDY == 0 and hasattr(PETSc, "garbage_cleanup"):
            for comm in (self.comm, MPI.COMM_SELF):
                PETSc.garbage_cleanup(comm)

    # --- telling ---

    def _tell_group(self, job: str | None) -> None:
        now = time.monotonic()
        if job is None or now - self._told > 0.25:
            self._told = now
            facts = {"job": job, "since": time.time(), **self.counts}
            with contextlib.suppress(OSError):
                job_outcomes.write_json(self.spool.path / f"group-{self.number}.json", facts)


def _tell_service(spool: Spool, settings: ServiceSettings, ranks: int) -> None:
    """Tell who has started the service what it serves, and all others by a file; on the first rank."""
    allowance = settings.allowance
    facts = write_service(
        spool,
        ranks=ranks,
        groups=settings.groups,
        seconds=allowance.most.time,
        memory=allowance.most.memory,
        code=allowance.code,
        data=allowance.data,
    )
    if not settings.quiet:
        print(describe_service(spool, facts), flush=True)
