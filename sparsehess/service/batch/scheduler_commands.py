"""What all schedulers have in common: how a job stands, and their commands as processes."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from sparsehess.errors import InputError, StackError
from sparsehess.service.batch import local_scheduler
from sparsehess.service.batch.jobs import Job

# Variables of Slurm that are no marks of an allocation.
_SETTINGS = ("SLURM_CONF", "SLURM_CLUSTERS", "SLURM_JWT", "SLURM_CONF_SERVER", "SLURM_TIME_FORMAT")

# Seconds that a scheduler's command may take: a busy one answers late, a dead one never.
_PATIENCE = 60


@dataclass(frozen=True)
class State:
    """How a job stands.

    Attributes
    ----------
    word
        `pending`, `running`, `done`, `failed`, `stopped` (saved, can go on), `cancelled`, or `unknown`.
    exit
        Exit status of the command, None before its end or where nobody knows.
    why
        What the scheduler says besides.
    """

    word: str
    exit: int | None = None
    why: str = ""

    @property
    def is_over(self) -> bool:
        """Whether it will not run any more."""
        return self.word not in ("pending", "running", "unknown")


class Unanswered(StackError):
    """A scheduler has not said whether it has queued a job."""


def _environment() -> dict[str, str]:
    """Return what a scheduler's command, and the job that it queues, inherit.

    Neither what narrows a person's own listings, nor marks of the allocation that a job is submitted from: the
    memory of its nodes would contradict that of the job.
    """
    inside = "SLURM_JOB_ID" in os.environ
    return {
        key: value
        for key, value in local_scheduler.job_environment().items()
        if not key.startswith(("SQUEUE_", "SACCT_"))
        and not (inside and key.startswith("SLURM_") and key not in _SETTINGS)
    }


def ask_scheduler(command: list[str], script: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a scheduler's command.

    Not collective.

    Parameters
    ----------
    script
        What it reads from its standard input; nothing where there is none.

    Raises
    ------
    StackError
        It is not there, or does not answer: `Unanswered`.
    """
    try:
        with open(script or "/dev/null", "rb") as stream:
            return subprocess.run(
                command,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_PATIENCE,
                stdin=stream,
                env=_environment(),
                check=False,
            )
    except FileNotFoundError as error:
        raise StackError(
            f"there is no {command[0]} here: submit from where the scheduler's commands are"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise Unanswered(f"{command[0]} has not answered within {_PATIENCE} s") from error


def told_by(command: list[str], script: Path | None = None) -> str:
    """Return what a command prints; where it fails, its reason is raised. Not collective."""
    done = ask_scheduler(command, script)
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split()) or f"status {done.returncode}"
        raise InputError(f"{command[0]} has refused: {said}")
    return done.stdout


def refuse_silence(asked: subprocess.CompletedProcess[str], found: object, forgotten: str) -> None:
    """Raise StackError where a scheduler has told of no job and has failed, but for that it knows none of them.

    Not collective.

    Parameters
    ----------
    forgotten
        What it then says, in small letters.
    """
    said = " ".join((asked.stderr or asked.stdout).split())
    if asked.returncode and not found and forgotten not in said.lower():
        raise StackError(f"{asked.args[0]} does not answer: {said or f'status {asked.returncode}'}")


def number_of(job: Job) -> str:
    """Return the number that the scheduler has given a job.

    Not collective.

    Raises
    ------
    InputError
        It has none.
    """
    number = job.read_word("number")
    if not number:
        raise InputError(f"job {job.id} has no number of {job.scheduler}: its submission was interrupted")
    return number


def jobs_by_number(some: list[Job]) -> dict[str, int]:
    """Return the ids of jobs by the numbers of their scheduler; those that have none are left out.

    Not collective.
    """
    numbers = ((job.read_word("number"), job.id) for job in some)
    return {number: identity for number, identity in numbers if number}
