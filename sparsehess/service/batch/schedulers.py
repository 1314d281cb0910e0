"""The schedulers, by their own commands: queue a script, ask for states, cancel.

What they print is taken apart here, in `slurm_scheduler`, `flux_scheduler` and `lsf_scheduler`, and nowhere else.
A new one is a class and a row in `SCHEDULERS`, a row in `script_dialects.DIALECTS`, and a name in `choices`.
"""

from __future__ import annotations

import re
import shutil
from typing import Protocol

from sparsehess.errors import StackError
from sparsehess.service.batch import jobs as batch_jobs
from sparsehess.service.batch import local_scheduler
from sparsehess.service.batch.choices import SCHEDULER_NAMES
from sparsehess.service.batch.flux import Flux
from sparsehess.service.batch.jobs import Job
from sparsehess.service.batch.lsf import LSF
from sparsehess.service.batch.scheduler_commands import (
    State,
    Unanswered,
    ask_scheduler,
    jobs_by_number,
    number_of,
    refuse_silence,
    told_by,
)
from sparsehess.service.batch.script_dialects import RESUMABLE
from sparsehess.service.batch.slurm import Slurm


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
        found |= _asked(name, theirs)
    return found


def _asked(name: str, some: list[Job]) -> dict[int, State]:
    """Return what a scheduler says of its jobs, unless their scripts have told more in the meantime."""
    numbers = {job.id: job.read_word("number") for job in some}
    states, why = dict[int, State](), f"{name} does not know it"
    try:
        states = SCHEDULERS[name].ask_states(some)
    except StackError as error:  # what does not answer now says nothing of its jobs, nor of those of others
        why = str(error)
    found = {job.id: _told(job) or states.get(job.id) or State("unknown", why=why) for job in some}
    # One that has queued itself again in the meantime has ended under its old number alone.
    moved = [job for job in some if job.read_word("number") != numbers[job.id] and _told(job) is None]
    return found | {job.id: State("pending") for job in moved}


def _told(job: Job) -> State | None:
    """Return how a job has ended by what its script has written."""
    status = job.exit_status
    if job.is_cancelled:
        return State("cancelled", status)
    if status is None:
        return None
    word = {0: "done", RESUMABLE: "stopped"}.get(status, "failed")
    return State(word, status)


# --- PBS ---------------------------------------------------------------------------------

_PBS_WORDS = {
    **dict.fromkeys("QHWTM", "pending"),
    **dict.fromkeys("REBSU", "running"),
}  # fmt: skip


class PBS:
    """qsub, qstat with its history, qdel."""

    def submit(self, job: Job) -> None:
        """See `Scheduler.submit`. Not collective."""
        number = told_by(["qsub", str(job.file("script"))]).strip()
        if not re.fullmatch(r"\d[\w.\[\]-]*", number):
            raise Unanswered(f"qsub has printed no number but {number!r}")
        batch_jobs.write_small_file(job.file("number"), number + "\n")

    def ask_states(self, some: list[Job]) -> dict[int, State]:
        """See `Scheduler.ask_states`. Not collective."""
        numbers = jobs_by_number(some)
        if not numbers:
            return {}
        # Of unknown ones it complains on standard error, and prints the others.
        asked = ask_scheduler(["qstat", "-x", *numbers])
        found = parse_pbs_states(asked.stdout)
        refuse_silence(asked, found, "unknown job")
        short = {number.split(".")[0]: job for number, job in numbers.items()}
        return {short[number]: state for number, state in found.items() if number in short}

    def cancel(self, job: Job) -> None:
        """See `Scheduler.cancel`. Not collective."""
        told_by(["qdel", number_of(job)])


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


SCHEDULERS: dict[str, Scheduler] = dict(
    zip(SCHEDULER_NAMES, (Slurm(), PBS(), Flux(), LSF(), Local()), strict=True)
)


def installed_scheduler() -> str:
    """Return the scheduler whose commands are here, else `local`. Not collective."""
    for command, name in (("sbatch", "slurm"), ("qsub", "pbs"), ("bsub", "lsf"), ("flux", "flux")):
        if shutil.which(command):
            return name
    return "local"
