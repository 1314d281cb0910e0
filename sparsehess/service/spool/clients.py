"""What is done with a spool from outside of its service: jobs are submitted, found and cancelled.

The user of the service sees all jobs. Others see their own: a spool of several users lists nothing to them, and
they find what they have submitted by what they have written down of it.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sparsehess.errors import InputError
from sparsehess.service.batch.choices import PRIORITY_LIMIT
from sparsehess.service.spool.foreign_drafts import read_small_file
from sparsehess.service.spool.job_outcomes import read_outcome
from sparsehess.service.spool.layout import STATES, TAKEN, job_id, job_name, make_name, parse_name, parse_queued
from sparsehess.service.spool.spool import Spool
from sparsehess.service.spool.spooled_jobs import SpooledJob, forget_job, list_spooled, remember_job
from sparsehess.service.spool.states import read_submit
from sparsehess.storage.atomic_files import sync_file_system, sync_folder

ENDED = ("done", "failed")

# Looks at a job that may be moving, and seconds after which one that is nowhere is forgotten.
_LOOKS, _FORGOTTEN = 3, 3600.0

# Letters of an id that are enough to name a job.
_PART = re.compile(r"[0-9a-f.-]{4,90}", re.ASCII)


@dataclass(frozen=True)
class SeenJob:
    """A job of a spool as it stood when it was looked at.

    Attributes
    ----------
    id, state, folder
        The state is that of its folder, one of `STATES`.
    """

    id: str
    state: str
    folder: Path


class SpoolClient(ABC):
    """A spool as one user sees it. Not collective: one process acts."""

    def __init__(self, spool: Spool):
        self.spool = spool

    # --- submitting ---

    def make_draft(self) -> Path:
        """Return a new folder for the files of a job; its name will be the job's."""
        folder = self.spool.path / "new" / make_name(secret=self.spool.is_shared)
        try:
            folder.mkdir(mode=0o700)
        except OSError as error:
            raise InputError(f"{folder.parent}: cannot be written: {error.strerror}") from error
        return folder

    def enqueue(self, drafts: list[Path], priority: int = 0) -> list[str]:
        """Queue jobs that are written; return their ids. They are on the disk by then.

        Raises
        ------
        InputError
            The priority is out of range, or the jobs cannot be written down.
        """
        if not -PRIORITY_LIMIT <= priority <= PRIORITY_LIMIT:
            raise InputError(
                f"--priority {priority}: from {-PRIORITY_LIMIT} to {PRIORITY_LIMIT}, the larger the sooner"
            )
        order = f"{PRIORITY_LIMIT - priority:04d}"
        for folder in drafts:
            if not self.spool.is_own:
                _hand_over(folder)
            self._remember(folder, order)
        sync_file_system(self.spool.path)
        for folder in drafts:
            os.rename(folder, self.spool.path / "queued" / f"{order}.{folder.name}")
        try:
            sync_folder(self.spool.path / "queued")
        except PermissionError:  # others do not open it
            sync_file_system(self.spool.path)
        return [job_id(folder) for folder in drafts]

    @abstractmethod
    def _remember(self, draft: Path, order: str) -> None:
        """Write down by what a job is found again."""

    # --- finding ---

    @abstractmethod
    def list_jobs(self) -> list[SeenJob]:
        """Return the jobs that this user may see, by time of submission."""

    @abstractmethod
    def read_name(self, job: SeenJob) -> str | None:
        """Return the name that a job was given, None where it was given none."""

    @abstractmethod
    def read_user(self, job: SeenJob) -> str:
        """Return the user who has submitted a job."""

    def find_job(self, text: str) -> SeenJob:
        """Return the job of an id, of its beginning or its end, or the latest of a name.

        Raises
        ------
        InputError
            There is none, or there are several of a part of an id.
        """
        text = text.strip()
        for _ in range(_LOOKS):  # one may move while it is looked for
            jobs = self.list_jobs()
            whole = [job for job in jobs if text in (job.id, job_name(job.folder))]
            if len(whole) == 1:
                return whole[0]
            if named := [job for job in jobs if text and self.read_name(job) == text]:
                return named[-1]
            part = bool(_PART.fullmatch(text))
            found = [job for job in jobs if part and _is_part(text, job)]
            if len(found) == 1:
                return found[0]
            if found:
                raise InputError(f"{text} is a part of the ids of {len(found)} jobs: give more of one")
        place = self.spool.path
        raise InputError(f"no job {text!r} in {place}: `sparsehess status --spool {place}` shows all of yours")

    def look_again(self, job: SeenJob) -> SeenJob | None:
        """Return how a job stands now, None where its folder is gone."""
        name, queued = job_name(job.folder), job.folder.name
        places = [("queued", queued), ("queued", f"{TAKEN}{queued}")] if job.state == "queued" else []
        return _look(self.spool, [*places, *((state, name) for state in STATES[1:])])

    # --- cancelling ---

    def cancel(self, text: str) -> SeenJob:
        """Cancel a job; return it as it stood before.

        One that waits is not begun any more; a running one ends at its next iteration.

        Raises
        ------
        InputError
            There is no such job, or it cannot be cancelled.
        """
        job = self.find_job(text)
        if job.state in ENDED:
            return job
        try:
            self.spool.ask_cancel(job.folder)
        except OSError as error:
            raise InputError(f"job {job.id}: cannot be cancelled: {error.strerror}") from error
        if job.state == "queued" and self.spool.is_own:
            with suppress(NotADirectoryError):
                self.spool.withdraw(job.folder.name)
        now = self.look_again(job)
        if now is not None and now.state in ENDED and (read_outcome(now.folder) or {}).get("state") != "cancelled":
            self.spool.remove_mark(job_name(now.folder))
            return now
        return job


class WholeSpool(SpoolClient):
    """A spool as its own user sees it: all jobs."""

    def _remember(self, draft: Path, order: str) -> None:
        """Write nothing down: the spool can be listed."""

    def list_jobs(self) -> list[SeenJob]:
        """Return all jobs, by time of submission."""
        found = {}
        for state in STATES:  # the way that jobs go, so that none is missed; where it was seen last counts
            for name in os.listdir(self.spool.path / state):
                if state == "queued":
                    queued = parse_queued(name)
                    job = queued[1] if queued else ""
                else:
                    job = name
                if parse_name(job):
                    found[job] = SeenJob(job_id(job), state, self.spool.path / state / name)
        return [found[job] for job in sorted(found)]

    def read_name(self, job: SeenJob) -> str | None:
        """Return the name in the job file of a job, None where it says none."""
        name = read_submit(job.folder).get("name")
        return name if isinstance(name, str) else None

    def read_user(self, job: SeenJob) -> str:
        """Return the user who has submitted a job, as the service has written down."""
        try:
            user = os.lstat(job.folder).st_uid
        except OSError:
            return ""
        if user == os.stat(self.spool.path).st_uid:  # what others have put there is not read
            told = read_small_file(job.folder / "submitter", 20).decode("ascii", "replace").strip()
            user = int(told) if told.isdecimal() else user
        return _user_name(user)


class OwnJobs(SpoolClient):
    """A spool as another user sees it: the jobs that he has submitted."""

    def __init__(self, spool: Spool):
        super().__init__(spool)
        self._names: dict[str, str | None] = {}

    def _remember(self, draft: Path, order: str) -> None:
        name = read_submit(draft).get("name")
        identity, secret = parse_name(draft.name) or (draft.name, None)
        remember_job(
            SpooledJob(
                spool=os.fspath(self.spool.path),
                id=identity,
                secret=secret or "",
                order=order,
                name=name if isinstance(name, str) else None,
                submitted=time.time(),
            )
        )

    def list_jobs(self) -> list[SeenJob]:
        """Return the jobs of this user that are there, by time of submission; forget those that were removed."""
        jobs = []
        for known in list_spooled(self.spool.path):
            name = f"{known.order}.{known.folder_name}"
            places = [("queued", name), ("queued", f"{TAKEN}{name}")]
            found = _look(self.spool, [*places, *((state, known.folder_name) for state in STATES[1:])])
            if found is not None:
                self._names[found.id] = known.name
                jobs.append(found)
            elif time.time() - known.submitted > _FORGOTTEN:
                forget_job(known.id)
        return jobs

    def read_name(self, job: SeenJob) -> str | None:
        """Return the name that this user has given a job, None where he has given none."""
        return self._names.get(job.id)

    def read_user(self, job: SeenJob) -> str:
        """Return this user."""
        return _user_name(os.geteuid())


def open_client(spool: Spool) -> SpoolClient:
    """Return a spool as the user of this process sees it. Not collective."""
    whole = all(os.access(spool.path / state, os.R_OK) for state in STATES)
    return WholeSpool(spool) if whole else OwnJobs(spool)


def discard_draft(folder: Path) -> None:
    """Remove a draft, and what was written down of it. Not collective."""
    forget_job(job_id(folder))
    shutil.rmtree(folder, ignore_errors=True)


def _hand_over(folder: Path) -> None:
    """Let the user of a service read a draft and remove it; nobody else knows its name."""
    for place, _, names in os.walk(folder):
        os.chmod(place, 0o777)
        for name in names:
            os.chmod(os.path.join(place, name), 0o644)


def _user_name(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _look(spool: Spool, places: list[tuple[str, str]]) -> SeenJob | None:
    """Return the job of a name in one of several states, in the order in which jobs go through them."""
    for _ in range(_LOOKS):
        found = [(state, spool.path / state / name) for state, name in places]
        found = [(state, folder) for state, folder in found if os.path.lexists(folder)]
        if found:
            state, folder = found[-1]
            return SeenJob(job_id(folder), state, folder)
    return None


def _is_part(text: str, job: SeenJob) -> bool:
    return job.id.startswith(text) or job.id.endswith(text) or job_name(job.folder).startswith(text)
