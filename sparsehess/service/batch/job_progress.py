"""How far a batch job is: its command writes it into the job's folder, `status` reads it."""

from __future__ import annotations

import json
import os
import time
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsehess.runtime.guards import Guard, guard_of, set_guard
from sparsehess.service.batch.jobs import MARK
from sparsehess.storage.atomic_files import replace_file
from sparsehess.storage.json_files import json_text

if TYPE_CHECKING:
    from mpi4py import MPI

# The file in the folder of a batch job.
FILE = "progress.json"

# Seconds between two writes.
_PAUSE = 0.3

# What is told, and of which types.
_FIELDS = {"stage": (str,), "done": (int,), "total": (int,), "seconds": (int, float)}

# Bytes of a file that is read, and letters of a stage: another program may have written it.
_LARGEST, _LETTERS = 4096, 100


class ProgressFile:
    """The file that tells how far a command is; what cannot be written is not told.

    Parameters
    ----------
    path
        Of the file.
    """

    def __init__(self, path: Path):
        self._path = path
        self._began = time.monotonic()
        self._next = 0.0

    def tell(self, stage: str, done: int, total: int) -> None:
        """Write how far a stage is, unless something was written just now. Not collective."""
        now = time.monotonic()
        if now < self._next:
            return
        facts = {"stage": stage, "done": int(done), "total": int(total), "seconds": round(now - self._began, 3)}
        with suppress(OSError), replace_file(self._path) as beside:
            beside.write_text(json_text(facts) + "\n")
        # A disk that is slow is written to less often.
        self._next = time.monotonic() + max(_PAUSE, 20 * (time.monotonic() - now))


class TellingGuard(Guard):
    """Tells the progress that it sees, and leaves all else to the guard before it.

    Parameters
    ----------
    outer
        The guard before.
    file
        Where progress is told.
    """

    def __init__(self, outer: Guard, file: ProgressFile):
        self._outer, self._file = outer, file
        self.patience = outer.patience
        self._calls: int | None = 0  # until a stage has told more

    def end_stuck(self, comm: MPI.Comm, error: BaseException) -> None:
        """End the job by the guard before. Not collective."""
        self._outer.end_stuck(comm, error)

    def watch_call(self, what: str) -> AbstractContextManager[None]:
        """Look on as the guard before. Not collective."""
        return self._outer.watch_call(what)

    def watch_wait(self, comm: MPI.Comm) -> AbstractContextManager[None]:
        """Look on as the guard before. Collective the first time."""
        return self._outer.watch_wait(comm)

    def check_progress(self, stage: str, done: int, total: int, together: bool) -> None:
        """Tell how far a stage is. As the guard before."""
        self._outer.check_progress(stage, done, total, together)
        self._calls = None
        self._file.tell(stage, done, total)

    def check_call(self) -> None:
        """Tell how many calls there were where no stage has told more. Not collective."""
        self._outer.check_call()
        if self._calls is not None:
            self._calls += 1
            self._file.tell("functions called", self._calls, 0)


def tell_progress(comm: MPI.Comm) -> None:
    """Have the progress of a batch job told in its folder, if this is one.

    Not collective: the first rank tells it.
    """
    folder = os.environ.get(MARK)
    if folder and comm.rank == 0:
        file = ProgressFile(Path(folder) / FILE)
        file.tell("started", 0, 0)
        set_guard(comm, TellingGuard(guard_of(comm), file))


def read_progress(path: Path) -> dict[str, Any] | None:
    """Return how far a running job is, None where it has told nothing that can be read.

    Not collective. The seconds go on where nothing is told for a while, as in a factorization.
    """
    try:
        with open(path, "rb") as stream:
            age = max(0.0, time.time() - os.fstat(stream.fileno()).st_mtime)
            told = json.loads(stream.read(_LARGEST))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(told, dict) or any(type(told.get(name)) not in kinds for name, kinds in _FIELDS.items()):
        return None
    if not (min(told["done"], told["total"]) >= 0 and 0 <= told["seconds"] < float("inf")):
        return None
    more = {"stage": told["stage"][:_LETTERS], "seconds": round(told["seconds"] + age, 3)}
    return {name: told[name] for name in _FIELDS} | more


def progress_text(told: dict[str, Any] | None) -> str:
    """Return how far a job is in words, empty where nothing is told. Not collective."""
    if told is None:
        return ""
    done, total = told["done"], told["total"]
    far = f": {done} of {total}" if total > 0 else f": {done}" if done > 0 else ""
    return f"{told['stage']}{far}, {told['seconds']:.0f} s"
