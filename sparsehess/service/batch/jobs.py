"""What is remembered of batch jobs: a folder for each, files that appear whole, no server and no lock.

`$SPARSEHESS_JOBS/<id>/` holds `job.json` (what was asked for, never changed), `script`, `out` and `err` (of the
command), `progress.json` (how far it is), `number` (the scheduler's own, changed where a job is queued again),
`exit` (status of the script once it has ended), and `cancelled`.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from sparsehess.errors import InputError, did_you_mean
from sparsehess.storage.atomic_files import replace_file

log = logging.getLogger("sparsehess")

HOME = "SPARSEHESS_JOBS"

# The variable by which the processes of a job, and they themselves, know its folder.
MARK = "SPARSEHESS_JOB"


@dataclass(frozen=True, kw_only=True)
class Job:
    """A batch job as it was submitted.

    Attributes
    ----------
    id
        Ours: 1, 2, ... in one registry.
    name, scheduler
        For people; one of `SCHEDULER_NAMES`.
    launcher, program, command
        Words before `-n RANKS`, those that start sparsehess, and those of its command line, paths absolute.
    ranks, time
        Processes, and seconds that they may take; None for no limit.
    memory, account, queue
        As the scheduler writes them, or None.
    setup
        Shell commands that come first.
    directives
        Lines for the scheduler besides those that these choices make, without what they begin with.
    workdir
        Where the command runs.
    folder
        Of the registry.
    result
        Where the command writes its JSON.
    resumable, checkpoint
        Whether the command saves what it has, and can go on from it; and the folder where.
    submitted, host
        When, and on which machine.
    """

    id: int
    name: str
    scheduler: str
    launcher: list[str]
    program: list[str]
    command: list[str]
    ranks: int
    time: int | None
    memory: str | None
    account: str | None
    queue: str | None
    setup: list[str]
    workdir: str
    folder: str
    result: str
    resumable: bool
    submitted: str
    host: str
    checkpoint: str = ""
    directives: list[str] = field(default_factory=list)

    def file(self, name: str) -> Path:
        """Return the path of a file of the job. Not collective."""
        return Path(self.folder) / name

    def read_word(self, name: str) -> str | None:
        """Return what one of the small files says, None where it is not there.

        Not collective.
        """
        try:
            return self.file(name).read_text(errors="replace").strip()
        except (FileNotFoundError, NotADirectoryError):
            return None

    @property
    def exit_status(self) -> int | None:
        """Exit status that the script has written, None before it has ended."""
        text = self.read_word("exit")
        return int(text) if text and text.isdigit() else None

    @property
    def is_cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self.file("cancelled").exists()


_FIELDS = {one.name for one in fields(Job)}


def jobs_folder() -> Path:
    """Return the folder of all jobs. Not collective."""
    return Path(os.environ.get(HOME) or Path.home() / ".sparsehess" / "jobs").absolute()


def new_folder() -> Path:
    """Make a folder for another job, whose name is its number.

    Not collective. Of two that ask at the same time each gets its own.

    Raises
    ------
    InputError
        It cannot be made.
    """
    place = jobs_folder()
    try:
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        number = next_number()
        while True:
            try:
                (place / str(number)).mkdir(mode=0o700)
                return place / str(number)
            except FileExistsError:
                number += 1
    except OSError as error:
        raise InputError(f"{place}: {error.strerror}; set {HOME} to a folder for jobs") from error


def next_number() -> int:
    """Return the number that a job submitted now would get. Not collective."""
    return 1 + max(_numbers(), default=0)


def _numbers() -> list[int]:
    try:
        return sorted(int(name) for name in os.listdir(jobs_folder()) if _is_number(name))
    except FileNotFoundError:
        return []


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 16


def save_job(job: Job) -> None:
    """Write what was asked for. Not collective."""
    write_small_file(job.file("job.json"), json.dumps(asdict(job), indent=2) + "\n")


def write_small_file(path: Path, text: str) -> None:
    """Write a small file that appears whole. Not collective."""
    with replace_file(path) as beside:
        beside.write_text(text)


def remove_job(folder: Path) -> None:
    """Remove a job that was never queued. Not collective."""
    shutil.rmtree(folder, ignore_errors=True)


def find_job(text: str) -> Job:
    """Return the job of a number, or the latest of a name.

    Not collective.

    Raises
    ------
    InputError
        There is none.
    """
    text = text.strip()
    if _is_number(text):
        return _load(int(text))
    every = list_jobs()
    named = [job for job in every if job.name == text]
    if not named:
        near = did_you_mean(text, {job.name for job in every})
        raise InputError(f"no job {text!r} in {jobs_folder()}: {near or '`sparsehess status` shows all'}")
    return named[-1]


def list_jobs() -> list[Job]:
    """Return all jobs, the oldest first; of those that are damaged a line tells.

    Not collective. One that is being submitted just now may be missing.
    """
    found = []
    for number in _numbers():
        if (jobs_folder() / str(number) / "job.json").exists():
            try:
                found.append(_load(number))
            except InputError as error:
                log.warning("%s", error)
    return found


def _load(number: int) -> Job:
    path = jobs_folder() / str(number) / "job.json"
    try:
        told = json.loads(path.read_text())
        return Job(**{key: value for key, value in told.items() if key in _FIELDS})  # a newer version tells more
    except FileNotFoundError:
        raise InputError(f"no job {number} in {jobs_folder()}: `sparsehess status` shows all") from None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: damaged ({error}); remove its folder to forget the job") from error
