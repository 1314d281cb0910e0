"""The resident service: groups of ranks that take jobs from a spool, one after another, and survive them.

There is no dispatcher that could be in the way: the first rank of every group takes its next job itself, by a
rename that only one of them wins. Groups therefore wait neither for each other nor for a rank that computes, and
share nothing but the folder.
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

import numpy as np

from sparsehess import commands, errors, runtime
from sparsehess.errors import STOPPED, Cancelled, EvaluationError, Leaving, SparseHessError
from sparsehess.runtime import PETSc, on_root
from sparsehess.service import spool as spools
from sparsehess.service.admission import Allowance, Task, admit
from sparsehess.service.cache import Warm
from sparsehess.service.limits import Guard, Limits
from sparsehess.service.spool import Spool

log = logging.getLogger("sparsehess")

# Seconds between two looks into an empty queue, at first and at last; seconds that ended jobs may wait for the
# disk, and how many of them.
_QUICK, _SLOW, _UNSETTLED, _TOGETHER = 0.0005, 0.02, 0.5, 100

# Failed jobs after which what they have left to the garbage collection is looked for.
_TIDY = 20


@dataclass(frozen=True)
class Manner:
    """How a service serves.

    Attributes
    ----------
    allowance
        What jobs may reach and take.
    groups
        Of ranks, side by side.
    cache
        Bytes over all ranks of a group that are kept from one job for the next.
    grace
        Seconds between a job's time limit and the end of its processes.
    once
        Whether to leave when no job is left.
    idle
        Seconds without a job after which to leave; None for never.
    """

    allowance: Allowance
    groups: int
    cache: int
    grace: float
    once: bool
    idle: float | None


def serve(spool: Spool, manner: Manner, comm) -> int:
    """Serve a spool until told to leave; return the exit status: 0, or 75 where jobs are left.

    Collective. SIGTERM, SIGINT, SIGUSR1 and a file `stop` in the spool tell.

    Raises
    ------
    InputError
        Another service has the spool.
    """
    held = on_root(comm, _begin, spool, f"process {os.getpid()} on {socket.gethostname()}")
    group = comm.Split(comm.rank * manner.groups // comm.size, comm.rank)
    number = comm.rank * manner.groups // comm.size
    before = {one: signal.signal(one, lambda *_: spool.stop()) for one in _SIGNALS}
    kind = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC
    marks = os.open(spool.path / "signals", kind, 0o600)  # the C library's handler writes, whatever Python is at
    wakeup = signal.set_wakeup_fd(marks, warn_on_full_buffer=False)
    try:
        if comm.rank > 0:
            held = spool.share()
        on_root(comm, _tell_service, spool, manner, comm.size)
        inner = runtime.communicator(group)
        with contextlib.closing(_Group(spool, manner, inner, number, comm.rank == 0)) as one:
            one.run()
        _quietly(comm.Ibarrier())
        return comm.bcast(_end(spool) if comm.rank == 0 else None)
    finally:
        signal.set_wakeup_fd(wakeup)
        for one, handler in before.items():
            signal.signal(one, handler)
        os.close(marks)
        os.close(held)
        group.Free()


_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


def _begin(spool: Spool, whom: str) -> int:
    """Take the spool over, and put in order what another service has left; on the first rank."""
    descriptor = spool.lock(whom)
    for line in spool.recover():
        log.warning("%s", line)
    for name in ("stop", "signals"):
        (spool.path / name).unlink(missing_ok=True)
    return spool.share(descriptor)


def _end(spool: Spool) -> int:
    (spool.path / "service.json").unlink(missing_ok=True)
    for path in spool.path.glob("group-*.json"):
        path.unlink(missing_ok=True)
    for name in ("stop", "signals"):
        (spool.path / name).unlink(missing_ok=True)
    return STOPPED if spool.count("queued") + spool.count("running") else errors.DONE


def _quietly(request) -> None:
    """Wait for other ranks without keeping a core busy."""
    pause = 5e-5
    while not request.Test():
        time.sleep(pause)
        pause = min(2 * pause, _SLOW / 4)


class _Group:
    """The ranks that run a job together. Collective, but for what the first rank does with the spool."""

    def __init__(self, spool: Spool, manner: Manner, comm, number: int, first: bool):
        self.spool, self.manner, self.comm, self.number, self.first = spool, manner, comm, number, first
        self.counts = {"done": 0, "failed": 0}
        self._warm = Warm(comm, manner.cache)
        self._unsettled: list[Path] = []
        self._oldest = self._told = 0.0
        self._failed = 0
        if comm.rank == 0:
            from sparsehess.commands.arguments import parser

            self._top = parser()

    def run(self) -> None:
        """Take jobs until told to leave."""
        while (name := self._next()) is not None:
            self._do(self.spool.path / "running" / name)
        if self.comm.rank == 0:
            self._settle()

    def close(self) -> None:
        """Free what is kept. Collective."""
        self._warm.close()

    # --- between jobs ---

    def _next(self) -> str | None:
        """Return the job to do now, None for none any more."""
        name = None
        if self.comm.rank == 0:
            folder = self._wait()
            name = None if folder is None else folder.name
        if self.comm.size == 1:
            return name
        told = np.array([-1 if name is None else len(name)])
        _quietly(self.comm.Ibcast(told))
        return None if told[0] < 0 else self.comm.bcast(name)

    def _wait(self) -> Path | None:
        pause, since = _QUICK, time.monotonic()
        while not self.spool.stopping:
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
        return None

    def _through(self, since: float) -> bool:
        """Return whether nothing is left to be waited for."""
        waited = self.manner.once or (self.manner.idle is not None and time.monotonic() - since > self.manner.idle)
        return waited and not self.spool.count("running") and not self.spool.count("queued")

    def _settle(self) -> None:
        """Have the answers of ended jobs on the disk, and then put the jobs to those that ended."""
        if self._unsettled:
            spools.sync(self.spool.path)
            for folder in self._unsettled:
                self.spool.settle(folder)
            self._unsettled.clear()

    # --- a job ---

    def _do(self, folder: Path) -> None:
        """Run a job; whatever comes of it, the group is ready for the next."""
        began = time.time()
        if self.comm.rank == 0:
            self._tell_group(folder.name)
        status, error = errors.DONE, None
        runtime.on_stuck = self._stuck(folder)
        with _undone(), _recorded(folder / "log", self.comm.rank == 0):
            try:
                status = self._run(folder)
            except BaseException as caught:
                error = caught if isinstance(caught, Exception) else _as_error(caught)
            try:
                runtime.raise_together(self.comm, error)
            except Exception as agreed:
                error = agreed
                status = _status(agreed)
                self._complain(agreed)
        runtime.on_stuck = None
        if self.comm.rank == 0:
            self._write(folder, status, error, began)
        if error is not None:
            self._tidy()

    def _run(self, folder: Path) -> int:
        task: Task = on_root(self.comm, self._admitted, folder)
        os.chdir(folder)  # what a problem writes without a path belongs to the job
        self._warm.begin()
        task.arguments.provision = self._warm
        tell, leaves = self._progress(folder), lambda: self.spool.stopping
        with Guard(self.comm, task.limits, folder, leaves, tell, self.manner.grace):
            return commands.run(task.arguments, task.options, self.comm)

    def _admitted(self, folder: Path) -> Task:
        try:
            return admit(folder, self.manner.allowance, self._top)
        except (OSError, ValueError, RecursionError) as error:
            if isinstance(error, SparseHessError):
                raise
            raise errors.InputError(f"job.toml: {' '.join(str(error).split())[:300]}") from error

    def _write(self, folder: Path, status: int, error: Exception | None, began: float) -> None:
        """Write how a job has ended, or put it back into the queue."""
        (folder / "status.json").unlink(missing_ok=True)
        if isinstance(error, Leaving):
            self.spool.requeue(folder, counted=False)
            return
        state = "done" if error is None and status == errors.DONE else "failed"
        if isinstance(error, Cancelled):
            state, status = "cancelled", None
        facts = {
            "id": folder.name,
            "state": state,
            "exit": status,
            "error": None if error is None else _line(error),
            "seconds": time.time() - began,
            "attempts": len((folder / "attempts").read_text().splitlines()),
            "ranks": self.comm.size,
            "group": self.number,
        }
        spools.write_outcome(folder, facts)
        self.counts["done" if state == "done" else "failed"] += 1
        if not self._unsettled:
            self._oldest = time.monotonic()
        self._unsettled.append(folder)

    def _complain(self, error: Exception) -> None:
        if self.comm.rank == 0:
            sys.stderr.write(f"sparsehess: {_line(error)}\n")
            if not isinstance(error, SparseHessError) or error.status == errors.BUG:
                traceback.print_exception(error)
            sys.stderr.flush()

    def _stuck(self, folder: Path) -> Callable:
        """Return what ends a job whose other ranks wait in a call that a failed one will never make."""

        def end(comm, error: Exception) -> None:
            (folder / "stuck").write_text(f"{_line(error)} (the other ranks waited in another call)")
            sys.stderr.flush()
            comm.Abort(errors.BUG)

        return end

    def _tidy(self) -> None:
        """Destroy what failed jobs have left: PETSc keeps it for a collective moment. Collective."""
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
                spools.write_json(folder / "status.json", facts)

        return tell

    def _tell_group(self, job: str | None) -> None:
        now = time.monotonic()
        if job is None or now - self._told > 0.25:
            self._told = now
            facts = {"job": job, "since": time.time(), **self.counts}
            with contextlib.suppress(OSError):
                spools.write_json(self.spool.path / f"group-{self.number}.json", facts)


def _tell_service(spool: Spool, manner: Manner, ranks: int) -> None:
    most: Limits = manner.allowance.most
    facts = {
        "process": os.getpid(),
        "host": socket.gethostname(),
        "ranks": ranks,
        "groups": manner.groups,
        "began": time.time(),
        "time": most.time,
        "memory": most.memory,
        "code": list(manner.allowance.code),
        "data": list(manner.allowance.data),
    }
    spools.write_json(spool.path / "service.json", facts)


def _status(error: Exception) -> int:
    if isinstance(error, MemoryError):
        return errors.UNUSABLE
    return error.status if isinstance(error, SparseHessError) else errors.BUG


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


@contextlib.contextmanager
def _undone():
    """Undo what a job does to the process: working directory, module search, modules of its problem, signals."""
    place, search, known = os.open(".", os.O_RDONLY | os.O_CLOEXEC), list(sys.path), dict(sys.modules)
    handlers = {one: signal.getsignal(one) for one in _SIGNALS}
    umask = os.umask(0o077)
    try:
        yield
    finally:
        os.fchdir(place)
        os.close(place)
        os.umask(umask)
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
def _recorded(path: Path, first: bool):
    """Have all that this process prints in a file, whoever in it prints."""
    sys.stdout.flush()
    sys.stderr.flush()
    out, err = os.dup(1), os.dup(2)
    kind = os.O_TRUNC if first else 0
    record = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | kind, 0o600)
    try:
        os.dup2(record, 1)
        os.dup2(record, 2)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(out, 1)
        os.dup2(err, 2)
        for one in (record, out, err):
            os.close(one)
