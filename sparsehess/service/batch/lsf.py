"""LSF: bsub, bjobs, bkill. It keeps its number when it queues a job again, by the exit status of the script."""

from __future__ import annotations

import re

from sparsehess.service.batch import jobs as batch_jobs
from sparsehess.service.batch.jobs import Job
from sparsehess.service.batch.scheduler_commands import (
    State,
    Unanswered,
    ask_scheduler,
    jobs_by_number,
    number_of,
    refuse_silence,
    told_by,
)

_WORDS = {
    **dict.fromkeys(("PEND", "PSUSP", "PROV", "WAIT"), "pending"),
    **dict.fromkeys(("RUN", "USUSP", "SSUSP"), "running"),
    **dict.fromkeys(("DONE", "POST_DONE", "POST_ERR"), "done"),
    "EXIT": "failed",
}

_HELD = {
    "PSUSP": "held",
    "USUSP": "suspended",
    "SSUSP": "suspended",
    "UNKWN": "its host does not answer",
    "ZOMBI": "its host does not answer",
}

# Reasons of an end that somebody wanted.
_KILLED = ("TERM_OWNER", "TERM_ADMIN", "TERM_FORCE_OWNER", "TERM_FORCE_ADMIN")

_FORMAT = "jobid stat exit_code exit_reason delimiter='|'"


class LSF:
    """bsub, bjobs for as long as it remembers, bkill."""

    def submit(self, job: Job) -> None:
        """See `Scheduler.submit`. Not collective."""
        number = parse_lsf_number(told_by(["bsub"], job.file("script")))
        batch_jobs.write_small_file(job.file("number"), number + "\n")

    def ask_states(self, some: list[Job]) -> dict[int, State]:
        """See `Scheduler.ask_states`. Not collective."""
        numbers = jobs_by_number(some)
        if not numbers:
            return {}
        # Of those that it has forgotten it complains on standard error, and prints the others.
        asked = ask_scheduler(["bjobs", "-a", "-noheader", "-o", _FORMAT, *numbers])
        found = parse_lsf_states(asked.stdout)
        refuse_silence(asked, found, "is not found")
        return {numbers[number]: state for number, state in found.items() if number in numbers}

    def cancel(self, job: Job) -> None:
        """See `Scheduler.cancel`. Not collective."""
        told_by(["bkill", number_of(job)])


def parse_lsf_number(text: str) -> str:
    """Return the job's number of what bsub prints, around which a site may print more.

    Not collective.
    """
    match = re.search(r"^Job <(\d+)> is submitted", text, re.MULTILINE)
    if match is None:
        raise Unanswered(f"bsub has printed no number but {' '.join(text.split())!r}")
    return match[1]


def parse_lsf_states(text: str) -> dict[str, State]:
    """Return states by number, from lines `number|STAT|exit code|exit reason`, a dash for none.

    Not collective.
    """
    found = {}
    for line in text.splitlines():
        columns = [cell.strip() for cell in line.split("|", 3)]
        if len(columns) < 4 or not columns[0].isdigit():
            continue
        number, said, code, reason = columns
        name, _, rest = reason.partition(":")
        word = "cancelled" if said == "EXIT" and name in _KILLED else _WORDS.get(said, "unknown")
        status = 0 if word == "done" else None
        if word == "failed" and code.isdigit() and 0 < int(code) <= 128:  # above it a signal has ended the script
            status = int(code)
        why = _HELD.get(said, "" if reason == "-" else (rest.strip() or name))
        found[number] = State(word, status, why)
    return found
