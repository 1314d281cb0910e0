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
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np

from sparsehess import errors, runtime
from sparsehess.commands.arguments import CommandLine
from sparsehess.commands.checkpoint_flags import clear_checkpoint, open_checkpoint
from sparsehess.errors import STOPPED, Cancelled, EvaluationError, Leaving, SparseHessError, Stopped
from sparsehess.runtime import PETSc, agreement, on_root
from sparsehess.service import job_outcomes
from sparsehess.service.admission import Allowance, Task, admit
from sparsehess.service.limits import JobGuard
from sparsehess.service.process_state import SIGNALS, flush_output, record_output, restore_process
from sparsehess.service.service_facts import describe_service, write_service
from sparsehess.service.spool import Spool
from sparsehess.service.spool_layout import job_id
from sparsehess.service.spool_recovery import recover_jobs
from sparsehess.service.warm_resources import WarmResources
from sparsehess.storage.atomic_files import explain_write_errors, sync_file_system
from sparsehess.storage.checkpoint import Checkpoint

log = logging.getLogger("sparsehess")

# Least and greatest seconds between two polls of an empty queue. Seconds after which ended jobs are synchronised
# with the disk, and the number of ended jobs that forces it.
_QUICK, _SLOW, _UNSETTLED, _TOGETHER = 0.0005, 0.02, 0.5, 100

# Values in place of the length of a job's name: no job is left; the spool cannot be used.
_NONE, _BROKEN = -1, -2

# Seconds in which a job with a checkpoint has to save once the service leaves.
_SAVING = 10.0

# Failed jobs between two collective garbage collections.
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
    quiet
        Whether it starts without a word.
    """

    allowance: Allowance
    groups: int
    cache: int
    grace: float
    once: bool
    idle: float | None
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
            _Group(spool, settings, line, runtime.communicator(mine.group), number, comm.rank == 0)
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


class _FolderGuard(runtime.Guard):
    """Ends the processes of a job where one rank has failed and the others wait for it."""

    def __init__(self, folder: Path):
        self._folder = folder

    def end_stuck(self, comm: MPI.Comm, error: Exception) -> None:
        """Write the reason into the folder, and end all ranks. Not collective."""
        with contextlib.suppress(OSError):
            (self._folder / "stuck").write_text(f"{_line(error)} (the other ranks waited in another call)")
        flush_output()
        comm.Abort(errors.BUG)


class _RankState:
    """The state of a serving rank: the lock, its group, the file of signals and their handlers."""

    def __init__(self) -> None:
        self.lock: int | None = None
        self.group: MPI.Comm | None = None
        self._marks: int | None = None
        self._wakeup = -1
        self._before: dict[int, Any] = {}

    def hear(self, spool: Spool) -> None:
        """Install handlers by which signals ask the service to leave."""
        kind = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC
        self._marks = os.open(spool.path / "signals", kind, 0o600)
        for one in SIGNALS:
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
        if self.lock is not None:
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
        self, spool: Spool, settings: ServiceSettings, line: CommandLine, comm: MPI.Comm, number: int, first: bool
    ):
        self.spool, self.settings, self.comm, self.number, self.first = spool, settings, comm, number, first
        self.counts = {"done": 0, "failed": 0}
        self._resources = WarmResources(comm, settings.cache)
        self._unsettled: list[Path] = []
        self._oldest = self._told = 0.0
        self._failed = 0
        self._broken: Exception | None = None  # of the spool, met by the first rank
        self._line = line

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
        status, error = errors.DONE, None
        with contextlib.ExitStack() as process:
            process.enter_context(runtime.use_guard(self.comm, _FolderGuard(folder)))
            try:
                with agreement(self.comm):
                    process.enter_context(restore_process())
                    process.enter_context(record_output(folder / "log", self.comm.rank == 0))
                status = self._run(folder)
            except BaseException as caught:
                error = caught if isinstance(caught, Exception) else _as_error(caught)
            flush_output()  # before the first rank looks how long the log is
            try:
                runtime.raise_together(self.comm, error)
            except Exception as agreed:
                error = agreed
                status = _status(agreed)
                self._complain(agreed, folder)
        if self.comm.rank == 0:
            try:
                with explain_write_errors(folder):
                    self._write(folder, status, error, began)
            except errors.InputError as caught:
                if folder.is_dir():
                    self._broken = caught
                else:
                    log.warning("%s is gone: its job has removed it", job_id(folder))
        if error is not None:
            self._tidy()

    def _run(self, folder: Path) -> int:
        task: Task = on_root(self.comm, self._admitted, folder)
        with agreement(self.comm):
            os.chdir(folder)  # files that a problem writes without a path belong to the job
        self._resources.begin_job()
        # A job that was queued again resumes from its checkpoint.
        checkpoint = open_checkpoint(task.arguments, self.comm, resume=True)
        tell, leaves = self._progress(folder), self._leaves(checkpoint)
        with JobGuard(self.comm, task.limits, folder, leaves, tell, self.settings.grace):
            status = self._line.run(
                task.arguments, task.options, self.comm, checkpoint=checkpoint, resources=self._resources
            )
        clear_checkpoint(checkpoint, task.arguments)
        return status

    def _leaves(self, checkpoint: Checkpoint | None) -> Callable[[], bool]:
        """Return a function that says whether a job must end because the service leaves.

        A job with a checkpoint is asked to save first.
        """
        asked: list[float] = []

        def leaves() -> bool:
            if not self.spool.is_stopping:
                return False
            asked.append(time.monotonic())
            if checkpoint is None:
                return True
            checkpoint.interrupt(signal.SIGTERM)
            return asked[-1] - asked[0] > _SAVING

        return leaves

    def _admitted(self, folder: Path) -> Task:
        try:
            return admit(folder, self.settings.allowance, self._line)
        except (OSError, ValueError, RecursionError) as error:
            if isinstance(error, SparseHessError):
                raise
            raise errors.InputError(f"job.toml: {' '.join(str(error).split())[:300]}") from error

    def _write(self, folder: Path, status: int, error: Exception | None, began: float) -> None:
        """Write the outcome of a job, or put it back into the queue."""
        (folder / "status.json").unlink(missing_ok=True)
        if isinstance(error, Leaving | Stopped):
            self.spool.requeue(folder, counted=False)
            return
        state = "done" if error is None and status == errors.DONE else "failed"
        if isinstance(error, Cancelled):
            state = "cancelled"
        facts = {
            "id": job_id(folder),
            "state": state,
            "exit": None if state == "cancelled" else status,
            "error": None if error is None else _told(error, folder),
            "seconds": time.time() - began,
            "attempts": job_outcomes.count_attempts(folder),
            "ranks": self.comm.size,
            "group": self.number,
        }
        job_outcomes.write_outcome(folder, facts)
        self.counts["done" if state == "done" else "failed"] += 1
        if not self._unsettled:
            self._oldest = time.monotonic()
        self._unsettled.append(folder)

    def _complain(self, error: Exception, folder: Path) -> None:
        if self.comm.rank == 0:
            sys.stderr.write(f"sparsehess: {_told(error, folder)}\n")
            if not isinstance(error, SparseHessError) or error.status == errors.BUG:
                traceback.print_exception(error)
            sys.stderr.flush()

    def _tidy(self) -> None:
        """Destroy objects that failed jobs have left; PETSc keeps them for a collective call. Collective."""
        runtime.forget_children(self.comm)
        self._failed += 1
        if self._failed % _TIDY == 0:
            gc.collect()
            if hasattr(PETSc, "garbage_cleanup"):
                PETSc.garbage_cleanup(self.comm)

    # --- telling ---

    def _progress(self, folder: Path) -> Callable[[str, int, int], None]:
        began = time.time()

        def tell(stage: str, done: int, total: int) -> None:
            facts = {"stage": stage, "done": int(done), "total": int(total), "seconds": time.time() - began}
            with contextlib.suppress(OSError):
                job_outcomes.write_json(folder / "status.json", facts)

        return tell

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


def _status(error: Exception) -> int:
    if isinstance(error, MemoryError):
        return errors.UNUSABLE
    return error.status if isinstance(error, SparseHessError) else errors.BUG


def _told(error: Exception, folder: Path) -> str:
    """Return an error as one line that names files of the job without their folder, which is about to move."""
    return _line(error).replace(f"{folder}{os.sep}", "")


def _line(error: Exception) -> str:
    """Return an error as one line."""
    if isinstance(error, MemoryError):
        return f"out of memory: {error}" if str(error) else "out of memory"
    text = str(error) if isinstance(error, SparseHessError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:2000]


def _as_error(caught: BaseException) -> EvaluationError:
    if isinstance(caught, SystemExit):
        return EvaluationError(f"the problem has called sys.exit({caught.code!r})")
    return EvaluationError(f"the problem has raised {type(caught).__name__}")
