"""Flux: flux batch, flux jobs, flux cancel. A job runs as an instance of its own, with the script in it."""

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
    **dict.fromkeys(("NEW", "DEPEND", "PRIORITY", "SCHED"), "pending"),
    **dict.fromkeys(("RUN", "CLEANUP"), "running"),
    "COMPLETED": "done",
    "CANCELED": "cancelled",
    "FAILED": "failed",
    "TIMEOUT": "failed",
}

_FORMAT = "{id.f58}|{status}|{returncode}|{contextual_info}|{inactive_reason}"


class Flux:
    """flux batch, flux jobs, flux cancel."""

    def submit(self, job: Job) -> None:
        """See `Scheduler.submit`. Not collective."""
        number = plain_number(told_by(["flux", "batch", str(job.file("script"))]))
        batch_jobs.write_small_file(job.file("number"), number + "\n")

    def ask_states(self, some: list[Job]) -> dict[int, State]:
        """See `Scheduler.ask_states`. Not collective."""
        numbers = {plain_number(number): identity for number, identity in jobs_by_number(some).items()}
        if not numbers:
            return {}
        # Of unknown ones it complains on standard error, and prints the others.
        asked = ask_scheduler(["flux", "jobs", "-n", "-c", "0", "-o", _FORMAT, *numbers])
        found = parse_flux_states(asked.stdout)
        refuse_silence(asked, found, "unknown")
        return {numbers[number]: state for number, state in found.items() if number in numbers}

    def cancel(self, job: Job) -> None:
        """See `Scheduler.cancel`. Not collective."""
        told_by(["flux", "cancel", plain_number(number_of(job))])


def plain_number(text: str) -> str:
    """Return a job's number with the letter f, which Flux reads in every locale, for the ƒ that it prints in most.

    Not collective.
    """
    number = text.strip()
    if not re.fullmatch(r"[ƒf][1-9A-HJ-NP-Za-km-z]{1,16}", number):
        raise Unanswered(f"flux batch has printed no number but {number!r}")
    return f"f{number[1:]}"


def parse_flux_states(text: str) -> dict[str, State]:
    """Return states by number, from lines `number|STATUS|status of the script|information|reason`.

    Not collective. Flux tells no reason for most that wait; `held` and an estimate are among those that it does.
    """
    found = {}
    for line in text.splitlines():
        columns = line.strip().split("|", 4)
        if len(columns) < 5 or columns[1] not in _WORDS:
            continue
        number, said, code, information, reason = columns
        word = _WORDS[said]
        status = int(code) if code.isdigit() and word in ("done", "failed") else None
        if said == "TIMEOUT" or (status == 0 and word != "done"):  # a limit, and not the script, has set it
            status = None
        why = {"pending": information, "failed": reason.lower(), "cancelled": reason.partition(": ")[2]}.get(
            word, ""
        )
        found[f"f{number[1:]}"] = State(word, status, why)
    return found
