"""The processes of a job that runs code, as the service sees them: a fresh set of ranks for each such job.

Nothing of a user's is ever imported into the ranks of the service. The first rank of a group starts a keeper
(`keeper.py`), that starts the launcher, and that the ranks of the job, which find their order on standard input.
This side watches: it ends them all where they are long over their limits, stopped, or do not leave when asked.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from mpi4py import MPI

from sparsehess.errors import InputError
from sparsehess.service.batch.local_scheduler import job_environment
from sparsehess.service.resident import keeper
from sparsehess.service.resident.admission import Allowance
from sparsehess.service.resident.job_ending import LOST, REMOVED, Ending, clear_folder, read_ending
from sparsehess.service.resident.job_run import SAVING
from sparsehess.service.resident.limits import Limits
from sparsehess.service.resident.stopped_processes import StoppedProcesses
from sparsehess.service.spool import job_outcomes
from sparsehess.service.spool.spool import Spool
from sparsehess.storage.regular_files import open_regular

# What has ranks of another launcher's than their own share cores with it, and move between them.
_BESIDE = {
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "OMPI_MCA_hwloc_base_binding_policy": "none",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "PRTE_MCA_hwloc_default_binding_policy": "none",
}

# Where files are memory, and where Open MPI is told to have those that its ranks share.
_SHARED_MEMORY = "/dev/shm"
_SEGMENTS = ("OMPI_MCA_btl_vader_backing_directory", "OMPI_MCA_btl_sm_backing_directory")

# Seconds between two looks at the processes, at first and later; between two looks at what goes wrong.
_QUICK, _SLOW, _LOOK = 0.002, 0.05, 0.2

# Seconds that processes may take to start, to end once their ending is there, and to be killed.
_START, _LEAVING, _KILLED = 30.0, 5.0, 15.0

# Bytes of the log of a job, and of what a keeper says.
_LOG, _SAID = 2**28, 4096

# Bytes at the end of a log in which its ranks may say why they end all.
_END_OF_LOG = 2**14

# What launchers add to the number of a signal that has ended a rank, and signals that come from outside.
_SIGNALLED, _OUTSIDE = 128, (9, 15)

_FAULTS = {
    4: "an illegal instruction",
    6: "an abort",
    7: "a bus error",
    8: "an arithmetic fault",
    11: "a segmentation fault",
}

OVER_TIME = "killed: over its time limit, in a call that nothing interrupts (see `watchdog`)"


@dataclass(frozen=True)
class Order:
    """What the ranks of a job are told.

    Attributes
    ----------
    spool, folder
        Paths.
    code, data, time, memory
        What the job may reach and take, as `Allowance` and `Limits` have it.
    grace
        Seconds between its time limit and the end of its ranks.
    """

    spool: str
    folder: str
    code: tuple[str, ...]
    data: tuple[str, ...]
    time: float | None
    memory: int | None
    grace: float

    @classmethod
    def read(cls) -> Order:
        """Return the order on standard input. Not collective.

        Raises
        ------
        InputError
            There is none.
        """
        try:
            return cls(**json.loads(sys.stdin.buffer.readline()))
        except (OSError, ValueError, TypeError) as error:
            raise InputError("standard input has no order of a service: this is run by `serve` alone") from error

    @property
    def allowance(self) -> Allowance:
        """What the job may reach and take."""
        return Allowance(tuple(self.code), tuple(self.data), Limits(self.time, self.memory))


@dataclass(frozen=True)
class JobProcesses:
    """How a group has jobs run by ranks of their own. Not collective but for `of_group`.

    Attributes
    ----------
    launcher
        Words of the command that starts ranks.
    ranks
        Their number.
    cores
        Those that the ranks of the group on this machine may use.
    alone
        Whether all ranks of the group are on this machine.
    lock
        Descriptor of the lock of the spool: nobody else serves it before all processes of the job are gone.
    """

    launcher: tuple[str, ...]
    ranks: int
    cores: tuple[int, ...]
    alone: bool
    lock: int

    @classmethod
    def of_group(cls, launcher: tuple[str, ...], comm: MPI.Comm, lock: int) -> JobProcesses:
        """Return that of a group. Collective."""
        mine = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
        there = comm.allgather((socket.gethostname(), sorted(mine)))
        cores = {core for host, some in there for core in some if host == socket.gethostname()}
        return cls(launcher, comm.size, tuple(sorted(cores)), len({host for host, _ in there}) == 1, lock)

    def run(self, spool: Spool, folder: Path, allowance: Allowance, limits: Limits, grace: float) -> Ending:
        """Run the job of a folder; return how it has ended once all its processes have.

        What they print goes where the standard error of this process goes.
        """
        order = Order(
            str(spool.path),
            str(folder),
            allowance.code,
            allowance.data,
            allowance.most.time,
            allowance.most.memory,
            grace,
        )
        (folder / "ending.json").unlink(missing_ok=True)
        attempts = job_outcomes.read_beginning(folder / "attempts")
        spared = keeper.list_descendants(os.getpid())
        ended, said = None, b""
        places = self._scratch()
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", keeper.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**job_environment(), **_BESIDE, **places},
            pass_fds=(self.lock,),
            start_new_session=True,
        )
        try:
            watch = _Watch(spool, folder, limits, grace)
            self._tell(process, order, sorted({*places.values()}))
            pause = _QUICK
            while process.poll() is None and ended is None:
                time.sleep(pause)
                pause = min(1.2 * pause, _SLOW)
                ended = watch.verdict()
            if process.stdin is not None:
                with suppress(OSError):
                    process.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                process.wait(_KILLED)
        finally:
            keeper.end_descendants(spared)  # a job can have killed its keeper, or stopped it
            process.poll()
            for place in {*places.values()}:
                shutil.rmtree(place, ignore_errors=True)
            if process.stdout is not None:
                with process.stdout:
                    said = process.stdout.read(_SAID)
        told = read_ending(folder) or ended
        if not clear_folder(folder):
            return Ending.failed(REMOVED)
        if job_outcomes.read_beginning(folder / "attempts") != attempts:  # the job has tampered with them
            job_outcomes.write_text(folder / "attempts", attempts)
        return told or _explained(folder, _status(said))

    def _scratch(self) -> dict[str, str]:
        """Return variables that name folders for what ranks leave on this machine where they are killed.

        Not where some are on other machines, which have no such folders.
        """
        if not self.alone:
            return {}
        places = {"TMPDIR": tempfile.mkdtemp(prefix="sparsehess-")}
        if os.access(_SHARED_MEMORY, os.W_OK):
            place = tempfile.mkdtemp(prefix="sparsehess-", dir=_SHARED_MEMORY)
            places |= dict.fromkeys(_SEGMENTS, place)
        return places

    def _tell(self, process: subprocess.Popen, order: Order, scratch: list[str]) -> None:
        """Tell the keeper what to do."""
        command = [*self.launcher, "-n", str(self.ranks), sys.executable, "-m", "sparsehess.cli"]
        words = json.dumps({"command": command, "cores": self.cores, "scratch": scratch, "order": asdict(order)})
        if process.stdin is not None:
            with suppress(BrokenPipeError):
                process.stdin.write(words.encode() + b"\n")
                process.stdin.flush()


class _Watch:
    """Looks for what the processes of a job do not end by themselves."""

    def __init__(self, spool: Spool, folder: Path, limits: Limits, grace: float):
        self._folder, self._limits, self._grace = folder, limits, grace
        self._began = time.monotonic()
        self._looked = self._began
        self._stopped = StoppedProcesses(os.getpid())  # the keeper among them
        self._since: dict[str, float] = {}
        self._asked: dict[str, Callable[[], bool]] = {
            "cancel": lambda: spool.is_cancelled(folder),
            "leave": lambda: spool.is_stopping,
            "told": lambda: read_ending(folder) is not None,
        }

    def verdict(self) -> Ending | None:
        """Return how the job ends if its processes are to be killed now, else None."""
        now = time.monotonic()
        if now - self._looked < _LOOK:
            return None
        self._looked = now
        for name, asked in self._asked.items():
            if asked():
                self._since.setdefault(name, now)
        limit, grace = self._limits.time, self._grace
        if limit is not None and now - self._began > limit + grace + _START:
            return Ending.failed(OVER_TIME)
        if self._for("told", now) > _LEAVING:
            return read_ending(self._folder)
        if self._for("cancel", now) > grace:
            return Ending(InputError.status, "Cancelled", "cancelled")
        if self._for("leave", now) > SAVING + grace:
            return Ending(0, "Leaving", "the service leaves")
        if self._stopped.longest() > grace:
            return Ending.failed("killed: one of its processes was stopped, and not continued")
        if job_outcomes.file_size(self._folder / "log") > _LOG:
            return Ending.failed(f"killed: its log is over {_LOG // 2**20} MiB")
        return None

    def _for(self, name: str, now: float) -> float:
        """Return since how many seconds something is so, -1 where it is not."""
        return now - self._since[name] if name in self._since else -1.0


def _status(said: bytes) -> int | None:
    """Return the status of the launcher that a keeper has told, None where it has told none."""
    try:
        status = json.loads(said)["status"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return status if type(status) is int else None


def _explained(folder: Path, status: int | None) -> Ending:
    """Return the ending of processes that have told none."""
    if job_outcomes.file_size(folder / "stuck"):
        return Ending.failed(job_outcomes.read_beginning(folder / "stuck").strip())
    if job_outcomes.file_size(folder / "watchdog"):
        return Ending.failed(OVER_TIME)
    number = None if status is None else -status if status < 0 else status - _SIGNALLED
    if number is None or number in _OUTSIDE:
        return Ending(kind=LOST)
    how = f"by {_FAULTS[number]}" if number in _FAULTS else f"with status {status}"
    return Ending.failed(
        _last_word(folder) or f"its processes have ended {how}, and without an answer: its log may tell more"
    )


def _last_word(folder: Path) -> str:
    """Return what the ranks of a job have said of why they end all, the last line of its log that says so."""
    try:
        log = open_regular(folder / "log", os.O_RDONLY)
    except (OSError, InputError):
        return ""
    with open(log, "rb") as file:
        file.seek(max(0, os.fstat(log).st_size - _END_OF_LOG))
        lines = file.read(_END_OF_LOG).decode(errors="replace").splitlines()
    said = (one for one in reversed(lines) if one.startswith("sparsehess: ") and one.endswith(": ending all"))
    return next(said, "").removeprefix("sparsehess: ")
