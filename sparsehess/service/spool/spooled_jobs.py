"""What is remembered of jobs in spools of others, which do not list them: a small file for each.

They lie beside the records of batch jobs, in `$SPARSEHESS_JOBS/spooled` or `~/.sparsehess/jobs/spooled`, for their
user alone: each holds the secret by which its job is found.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from sparsehess.errors import InputError
from sparsehess.service.batch.jobs import HOME, jobs_folder
from sparsehess.service.spool.job_outcomes import read_json
from sparsehess.storage.atomic_files import replace_file

_FOLDER = "spooled"


@dataclass(frozen=True, kw_only=True)
class SpooledJob:
    """A job in a spool of another user.

    Attributes
    ----------
    spool
        Real path of the spool.
    id, secret
        The two parts of its name; an empty secret where it has none.
    order
        What its name in the queue begins with.
    name
        For people; None where it has none.
    submitted
        When, in seconds since 1970.
    """

    spool: str
    id: str
    secret: str
    order: str
    name: str | None
    submitted: float

    @property
    def folder_name(self) -> str:
        """Name of its folder."""
        return f"{self.id}.{self.secret}" if self.secret else self.id


def remember_job(job: SpooledJob) -> None:
    """Write down a job, before it is queued.

    Not collective.

    Raises
    ------
    InputError
        It cannot be written.
    """
    place = jobs_folder() / _FOLDER
    try:
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        with replace_file(place / f"{job.id}.json") as beside, _private(beside) as descriptor:
            os.write(descriptor, (json.dumps(asdict(job)) + "\n").encode())
            os.fsync(descriptor)
    except OSError as error:
        raise InputError(
            f"{place}: {error.strerror}; by what lies there your job is found: set {HOME} to a folder of yours"
        ) from error


@contextmanager
def _private(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def forget_job(identity: str) -> None:
    """Forget a job. Not collective."""
    with suppress(OSError):
        (jobs_folder() / _FOLDER / f"{identity}.json").unlink(missing_ok=True)


def list_spooled(spool: Path) -> list[SpooledJob]:
    """Return the jobs in a spool, the oldest first; files that are damaged are passed over. Not collective."""
    place, jobs = jobs_folder() / _FOLDER, []
    with suppress(FileNotFoundError):
        for name in sorted(os.listdir(place)):
            with suppress(TypeError):
                job = SpooledJob(**read_json(place / name))
                if job.spool == os.fspath(spool) and name == f"{job.id}.json":
                    jobs.append(job)
    return jobs
