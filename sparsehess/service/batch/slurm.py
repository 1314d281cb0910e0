"""Slurm: sbatch, squeue, sacct where there is accounting, scancel."""

from __future__ import annotations

import datetime
import re
import shutil

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
    **dict.fromkeys(
        ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT"), "pending"
    ),
    **dict.fromkeys(
        ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"), "running"
    ),
    "COMPLETED": "done",
    "CANCELLED": "cancelled",
}

# Ends after which Slurm itself queues a job again that may be; its queue shows them for a moment.
_PASSING = ("preempted", "node fail", "boot fail")


class Slurm:
    """sbatch, squeue, sacct where there is accounting, scancel. A number is `123`, or `123;cluster`."""

    def submit(self, job: Job) -> None:
        """See `Scheduler.submit`. Not collective."""
        number = parse_slurm_number(told_by(["sbatch", "--parsable", str(job.file("script"))]))
        batch_jobs.write_small_file(job.file("number"), number + "\n")

    def ask_states(self, some: list[Job]) -> dict[int, State]:
        """See `Scheduler.ask_states`. Not collective."""
        clusters: dict[str, list[Job]] = {}
        for job in some:
            clusters.setdefault((job.read_word("number") or "").partition(";")[2], []).append(job)
        return {
            identity: state
            for cluster, theirs in clusters.items()
            for identity, state in _states(cluster, theirs).items()
        }

    def cancel(self, job: Job) -> None:
        """See `Scheduler.cancel`. Not collective."""
        number, _, cluster = number_of(job).partition(";")
        told_by(["scancel", *_of(cluster), number])


def _of(cluster: str) -> list[str]:
    """Return the words that mean another cluster than the one that is asked anyhow."""
    return ["-M", cluster] if cluster else []


def _states(cluster: str, some: list[Job]) -> dict[int, State]:
    """Return the states of jobs of one cluster."""
    numbers = {number.partition(";")[0]: identity for number, identity in jobs_by_number(some).items()}
    if not numbers:
        return {}
    jobs = {job.id: job for job in some}
    queue = ask_scheduler(["squeue", *_of(cluster), "-h", "-t", "all", "-j", ",".join(numbers), "-o", "%i|%T|%r"])
    found = parse_slurm_states(queue.stdout)
    for number, state in found.items():
        if number in numbers and state.why in _PASSING and jobs[numbers[number]].resumable:
            found[number] = State("pending", None, state.why)
    missing = [number for number in numbers if number not in found]
    if missing and shutil.which("sacct"):
        # Numbers begin anew where a Slurm does: what is older than the job is another one.
        first = min(datetime.datetime.fromisoformat(job.submitted) for job in some) - datetime.timedelta(days=1)
        since = ["-S", first.strftime("%Y-%m-%d"), "-j", ",".join(missing)]
        ended = ask_scheduler(["sacct", *_of(cluster), "-n", "-P", "-X", *since, "-o", "JobID,State,ExitCode"])
        found = parse_slurm_states(ended.stdout) | found
    refuse_silence(queue, found, "invalid job id")
    return {numbers[number]: state for number, state in found.items() if number in numbers}


def parse_slurm_number(text: str) -> str:
    """Return the job's number of what `sbatch --parsable` prints: `123`, or `123;cluster`.

    Not collective.
    """
    match = re.match(r"\d+(;[\w.-]+)?(?=\s|$)", text.strip(), re.ASCII)
    if match is None:
        raise Unanswered(f"sbatch has printed no number but {text.strip()!r}")
    return match[0]


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
        word = _WORDS.get(said.split()[0], "failed")  # `CANCELLED by 1000`
        status = int(code.group(1)) if code else None
        if word != "done" and not status:  # a limit, or a node, and not the script, has set it
            status = None
        why = more if word == "pending" and not code else said.lower().replace("_", " ")
        found[number] = State(word, status, "" if word in ("running", "done") or why == "None" else why)
    return found
