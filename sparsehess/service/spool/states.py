"""The states of a spool's jobs, and how a job goes from one to the next: by a rename, which only one can win."""

from __future__ import annotations

import os
import re
import stat
import tomllib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sparsehess.service.batch.choices import PRIORITY_LIMIT
from sparsehess.service.spool import job_outcomes
from sparsehess.service.spool.foreign_drafts import read_small_file, remove_draft
from sparsehess.service.spool.job_outcomes import read_outcome, write_outcome
from sparsehess.service.spool.layout import (
    CANCELLED,
    COPY,
    TAKEN,
    has_secret,
    job_id,
    job_name,
    make_name,
    parse_queued,
    show_queued,
    working_name,
)

# Bytes that a job file has at most.
_LARGEST = 2**20


@dataclass
class SpoolStates:
    """The folder of a spool. Not collective: one process acts.

    Attributes
    ----------
    path
        Its real path.
    """

    path: Path

    @property
    def is_shared(self) -> bool:
        """Whether others than its user may submit."""
        return bool(os.stat(self.path / "queued").st_mode & 0o022)

    @property
    def is_own(self) -> bool:
        """Whether it belongs to the user of this process."""
        return os.stat(self.path).st_uid == os.geteuid()

    def is_known(self, job: str) -> bool:
        """Return whether a job was taken before."""
        return any(os.path.lexists(self.path / state / job) for state in ("running", "done", "failed"))

    def refuse(self, source: Path) -> None:
        """Put what is no job to those that failed, with the reason."""
        identity = make_name(secret=False)
        folder = self.path / "new" / identity
        folder.mkdir(mode=0o700)
        try:
            os.rename(source, folder / "refused")
        except OSError as error:
            folder.rmdir()
            if isinstance(error, FileNotFoundError):
                return
            raise
        reason = (
            f"{show_queued(source.name)!r} is no job: `sparsehess submit JOB.toml --spool {self.path}` makes one"
        )
        write_outcome(folder, {"id": identity, "state": "failed", "exit": 2, "error": reason})
        self.settle(folder)

    def settle(self, folder: Path) -> None:
        """Put a job that has its outcome where it belongs, for its submitter to read."""
        outcome = read_outcome(folder)
        state = "done" if outcome is not None and outcome.get("state") == "done" else "failed"
        job = job_name(folder)
        if has_secret(folder):
            _show(folder)
        try:
            os.rename(folder, self.path / state / job)
        except FileNotFoundError:
            raise
        except OSError:  # the name is taken: somebody has copied an old job into the queue
            os.rename(folder, self.path / state / make_name(secret=has_secret(folder)))
        self.remove_mark(job)

    def requeue(self, folder: Path, *, counted: bool) -> None:
        """Put a running job back to its place in the queue.

        Parameters
        ----------
        counted
            Whether the attempt counts.
        """
        attempts = job_outcomes.read_beginning(folder / "attempts").splitlines(keepends=True)
        told = bool(attempts) and re.match(r"\d{4} ", attempts[-1], re.ASCII) is not None
        order = attempts[-1][:4] if told else f"{PRIORITY_LIMIT - read_priority(folder):04d}"
        for name in ("status.json", "stuck", "watchdog", "log", "result.json", "ending.json", "outcome.json"):
            (folder / name).unlink(missing_ok=True)
        if not counted:
            job_outcomes.write_text(folder / "attempts", "".join(attempts[:-1]))
        os.rename(folder, self.path / "queued" / f"{order}.{folder.name}")

    def is_cancelled(self, folder: Path) -> bool:
        """Return whether the end of a job is asked for.

        Who knows the secret in its name may ask for it. A name without one is public: there the mark must be of
        the spool's user.

        Parameters
        ----------
        folder
            The job's, wherever it stands.
        """
        try:
            facts = os.lstat(self.path / "cancel" / job_name(folder))
        except OSError:
            return False
        return has_secret(folder) or facts.st_uid in (0, os.stat(self.path).st_uid)

    def ask_cancel(self, folder: Path) -> None:
        """Ask for the end of a job."""
        with suppress(FileExistsError):
            os.close(os.open(self.path / "cancel" / job_name(folder), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))

    def withdraw(self, name: str) -> None:
        """End a job that waits in the queue under a name; nothing where it waits no more."""
        parsed, source = parse_queued(name), self.path / "queued" / name
        if parsed is None:
            raise ValueError(f"{name} is no name of a job in the queue")
        with suppress(FileNotFoundError):
            if os.lstat(source).st_uid == os.geteuid():
                folder = self.path / "new" / working_name(parsed[1], CANCELLED)
                os.rename(source, folder)  # from now on nobody runs it
                self.settle_cancelled(folder)
                return
            taken = self.path / "queued" / f"{TAKEN}{name}"
            folder = self.path / "new" / working_name(parsed[1], COPY)
            os.rename(source, taken)
            folder.mkdir(mode=0o700)
            self.settle_cancelled(folder)
            remove_draft(taken)

    def settle_cancelled(self, folder: Path) -> None:
        """Settle a job that was taken from the queue to be cancelled."""
        write_outcome(folder, {"id": job_id(folder), "state": "cancelled", "exit": None, "error": "cancelled"})
        self.settle(folder)

    def remove_mark(self, job: str) -> None:
        """Remove the mark by which the end of a job was asked for."""
        mark = self.path / "cancel" / job
        try:
            os.unlink(mark)
        except FileNotFoundError:
            pass
        except OSError:  # somebody has made a folder of it
            with suppress(OSError):
                os.rmdir(mark)

    @property
    def is_stopping(self) -> bool:
        """Whether the service has been asked to leave."""
        return (self.path / "stop").exists()

    def stop(self) -> None:
        """Ask the service to leave: running jobs are stopped at their next iteration and stay queued."""
        (self.path / "stop").touch()


def read_submit(folder: Path) -> dict[str, object]:
    """Return the table [submit] of the job file of a folder, nothing where it has none.

    Not collective. The folder may be another user's, who is changing it.
    """
    try:
        table = tomllib.loads(read_small_file(folder / "job.toml", _LARGEST).decode()).get("submit")
    except (ValueError, RecursionError):
        return {}
    return table if isinstance(table, dict) else {}


def read_priority(folder: Path) -> int:
    """Return the priority that a job file asks for, 0 where it says none that is one. Not collective."""
    asked = read_submit(folder).get("priority")
    return asked if isinstance(asked, int) and abs(asked) <= PRIORITY_LIMIT else 0


def _show(folder: Path) -> None:
    """Let those read the files of an ended job who know the name of its folder."""
    for _, _, names, place in os.fwalk(folder):
        for name in names:
            with suppress(OSError):
                descriptor = os.open(
                    name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=place
                )
                try:
                    facts = os.fstat(descriptor)
                    if stat.S_ISREG(facts.st_mode) and facts.st_nlink == 1:
                        os.fchmod(descriptor, 0o644)
                finally:
                    os.close(descriptor)
        with suppress(OSError):
            os.fchmod(place, 0o755)
