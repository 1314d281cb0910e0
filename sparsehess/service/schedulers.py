"""The schedulers, by their own commands: queue a script, ask for states, cancel.

What they print is taken apart here and nowhere else. A new scheduler is a class and a row in `SCHEDULERS`,
and a head in `batch_scripts`.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from typing import Protocol

from sparsehess.errors import InputError, StackError
from sparsehess.service import batch_jobs, local_scheduler
from sparsehess.service.batch_jobs import Job
from sparsehess.service.batch_scripts import RESUMABLE
from sparsehess.service.choices import SCHEDULER_NAMES

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


class Scheduler(Protocol):
    """What runs batch jobs."""

    def submit(self, job: Job) -> None:
        """Queue the script of a job, and write its number. Not collective."""
        ...

    def ask_states(self, some: list[Job]) -> dict[int, State]:
        """Return the states of jobs whose script has not told its end, by their id. Not collective."""
        ...

    def cancel(self, job: Job) -> None:
        """End a job. Not collective."""
        ...


def ask_states(some: list[Job]) -> dict[int, State]:
    """Return the states of jobs by their id; each scheduler is asked once, and only for jobs that may still run.

    Not collective.
    """
    found: dict[int, State] = {}
    open_ones: dict[str, list[Job]] = {}
    for job in some:
        told = _told(job)
        if told is not None:
            found[job.id] = told
        else:
            open_ones.setdefault(job.scheduler, []).append(job)
    for name, theirs in open_ones.items():
        states = SCHEDULERS[name].ask_states(theirs)
        for job in theirs:
            # It may have ended while the scheduler was asked.
            found[job.id] = _told(job) or states.get(job.id) or State("unknown", why=f"{name} does not know it")
    return found


def _told(job: Job) -> State | None:
    """Return how a job has ended by what its script has written."""
    status = job.exit_status
    if job.is_cancelled:
        return State("cancelled", status)
    if status is None:
        return None
    word = {0: "done", RESUMABLE: "stopped"}.get(status, "failed")
    return State(word, status)


def ask_scheduler(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a scheduler's command.

    Not collective.

    Raises
    ------
    StackError
        It is not there, or does not answer.
    """
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            stdin=subprocess.DEVNULL,
            env=local_scheduler.job_environment(),  # which the job inherits
            check=False,
        )
    except FileNotFoundError as error:
        raise StackError(
            f"there is no {command[0]} here: submit from where the scheduler's commands are"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise StackError(f"{command[0]} has not answered within {_PATIENCE} s") from error


def _done(command: list[str]) -> str:
    """Return what a command prints; where it fails, its reason is raised."""
    done = ask_scheduler(command)
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split()) or f"status {done.returncode}"
        raise InputError(f"{command[0]} has refused: {said}")
    return done.stdout


# --- Slurm -------------------------------------------------------------------------------

_SLURM_WORDS = {
    **dict.fromkeys(
        ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT"), "pending"
    ),
    **dict.fromkeys(
        ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"), "running"
    ),
    "COMPLETED": "done",
    "CANCELLED": "cancelled",
}


class Slurm:
    """sbatch, squeue, sacct where there is accounting, scancel."""

    def submit(self, job: Job) -> None:
        """See `Scheduler.submit`. Not collective."""
        number = parse_slurm_number(_done(["sbatch", "--parsable", str(job.file("script"))]))
        batch_jobs.write_small_file(job.file("number"), number + "\n")

    def ask_states(self, some: list[Job]) -> dict[int, State]:
        """See `Scheduler.ask_states`. Not collective."""
        numbers = {job.read_word("number"): job.id for job in some}
        listed = ",".join(number for number in numbers if number)
        if not listed:
            return {}
        queue = ask_scheduler(["squeue", "-h", "-t", "all", "-j", listed, "-o", "%i|%T|%r"])
        found = parse_slurm_states(queue.stdout)
        missing = [number for number in numbers if number and number not in found]
        if missing and shutil.which("sacct"):
            ended = ask_scheduler(
                ["sacct", "-n", "-P", "-X", "-j", ",".join(missing), "-o", "JobID,State,ExitCode"]
            )
            found = parse_slurm_states(ended.stdout) | found
        return {numbers[number]: state for number, state in found.items() if number in numbers}

    def cancel(self, job: Job) -> None:
        """See `Scheduler.cancel`. Not collective."""
        _done(["scancel", _number(job)])


def parse_slurm_number(text: str) -> str:
    """Return the job's number of what `sbatch --parsable` prints: `123`, or `123;cluster`.

    Not collective.
    """
    match = re.match(r"(\d+)(;|\s|$)", text.strip())
    if match is None:
        raise StackError(f"sbatch has printed no number but {text.strip()!r}")
    return match.group(1)


def parse_slurm_states(text: str) -> dict[str, State]:
    """Return states by number, from lines `number|STATE|reason` (squeue) or `number|STATE|exit:signal` (sacct).

    Not collective.
    """
    found = {}
    for line in text.splitlines():
        number, _, rest = line.strip().partition("|")
        said, _, more = rest.partition("|")
        if not (number.isdigit() and said):
            continue
        code = re.fullmatch(r"(\d+):(\d+)", more)
        word = _SLURM_WORDS.get(said.split()[0], "failed")  # `CANCELLED by 1000`
        status = int(code.group(1)) if code else None
        if word != "done" and not status:  # a limit, or a node, and not the script, has set it
            status = None
        why = more if word == "pending" and not code else said.lower().replace("_", " ")
        found[number] = State(word, status, "" if word in ("running", "done") or why == "None" else why)
    return found


# --- PBS ---------------------------------------------------------------------------------

_PBS_WORDS = {
    **dict.fromkeys("QHWTM", "pending"),
    **dict.fromkeys("REBSU", "running"),
}  # fmt: skip


class PBS:
    """qsub, qstat with its history, qdel."""

    def submit(self, job: Job) -> None:
        """See `Scheduler.submit`. Not collective."""
        number = _done(["qsub", str(job.file("script"))]).strip()
        if not re.fullmatch(r"\d[\w.\[\]-]*", number):
            raise StackError(f"qsub has printed no number but {number!r}")
        batch_jobs.write_small_file(job.file("number"), number + "\n")

    def ask_states(self, some: list[Job]) -> dict[int, State]:
        """See `Scheduler.ask_states`. Not collective."""
        numbers = {job.read_word("number"): job.id for job in some}
        listed = [number for number in numbers if number]
        if not listed:
            return {}
        # Of unknown ones it complains on standard error, and prints the others.
        found = parse_pbs_states(ask_scheduler(["qstat", "-x", *listed]).stdout)
        short = {number.split(".")[0]: job for number, job in numbers.items() if number}
        return {short[number]: state for number, state in found.items() if number in short}

    def cancel(self, job: Job) -> None:
        """See `Scheduler.cancel`. Not collective."""
        _done(["qdel", _number(job)])


def parse_pbs_states(text: str) -> dict[str, State]:
    """Return states by number (without the server's name), from the table of `qstat -x`.

    Not collective. One that has ended without its script's word was killed: by a limit, or with its node.
    """
    found = {}
    for line in text.splitlines():
        columns = line.split()
        if len(columns) < 6 or not columns[0][0].isdigit():
            continue
        letter = columns[-2]
        word = _PBS_WORDS.get(letter, "failed")
        why = {"H": "held", "F": "ended without a status", "X": "ended without a status"}.get(letter, "")
        found[columns[0].split(".")[0]] = State(word, None, why)
    return found


# --- this machine ------------------------------------------------------------------------


class Local:
    """Processes of this machine, that nothing but the kernel watches."""

    def submit(self, job: Job) -> None:
        """See `Scheduler.submit`. Not collective."""
        local_scheduler.start_script(job)

    def ask_states(self, some: list[Job]) -> dict[int, State]:
        """See `Scheduler.ask_states`. Not collective."""
        return {job.id: State(*local_scheduler.job_state(job)) for job in some}

    def cancel(self, job: Job) -> None:
        """See `Scheduler.cancel`. Not collective."""
        local_scheduler.end_processes(job)


SCHEDULERS: dict[str, Scheduler] = dict(zip(SCHEDULER_NAMES, (Slurm(), PBS(), Local()), strict=True))


def installed_scheduler() -> str:
    """Return the scheduler whose commands are here, else `local`. Not collective."""
    for command, name in (("sbatch", "slurm"), ("qsub", "pbs")):
        if shutil.which(command):
            return name
    return "local"


def _number(job: Job) -> str:
    number = job.read_word("number")
    if not number:
        raise InputError(f"job {job.id} has no number of {job.scheduler}: its submission was interrupted")
    return number
