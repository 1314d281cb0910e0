"""What a service finds that another has left: jobs that had ended are settled, others queued again."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sparsehess.runtime.printable import printable
from sparsehess.service.spool import job_outcomes
from sparsehess.service.spool.foreign_drafts import remove_draft
from sparsehess.service.spool.job_outcomes import count_attempts, read_json, read_outcome, write_outcome
from sparsehess.service.spool.layout import CANCELLED, COPY, TAKEN, hide_secrets, job_id, parse_name, parse_queued
from sparsehess.service.spool.spool import FULL, Spool

# Runs of a job at a stretch that the service did not outlive, that nothing explains and that saved nothing more;
# then it is taken for the cause. So it is after many that did.
ATTEMPTS, MANY = 5, 50


def recover_jobs(spool: Spool) -> list[str]:
    """Settle or queue again what a service has left that ended; return a line for each.

    Not collective: by who holds the lock of the spool alone.
    """
    told: list[str] = []
    for name in os.listdir(spool.path / "new"):
        with _left_alone(spool.path / "new" / name, told):
            _recover_draft(spool, spool.path / "new" / name)
    # Before those that run are queued again: they are known by where they are.
    for name in os.listdir(spool.path / "queued"):
        if name.startswith(TAKEN):
            with _left_alone(spool.path / "queued" / name, told):
                _recover_taken(spool, spool.path / "queued" / name)
    left = [spool.path / "running" / name for name in sorted(os.listdir(spool.path / "running"))]
    known = _is_explained(spool, left)
    for folder in left:
        with _left_alone(folder, told):
            told += recover_running(spool, folder, known)
    for name in os.listdir(spool.path / "cancel"):
        if parse_name(name) is None or any(
            os.path.lexists(spool.path / state / name) for state in ("done", "failed")
        ):
            spool.remove_mark(name)
    return [printable(hide_secrets(line), "") for line in told]


@contextmanager
def _left_alone(folder: Path, told: list[str]) -> Iterator[None]:
    """Let a folder be where the block fails with it, and tell so; what is of no single folder is raised."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise
        told.append(f"{folder} stays where it is: {error.strerror or error}")


def _is_explained(spool: Spool, left: list[Path]) -> bool:
    """Return whether something other than a job that is to blame for nothing explains the end of the service."""
    # Each rank that hears a signal leaves a byte: all of them where the service was told to end, not all where
    # one has crashed and mpiexec ends the others.
    ranks = read_json(spool.path / "service.json").get("ranks", 1)
    asked = job_outcomes.file_size(spool.path / "signals") >= (ranks if isinstance(ranks, int) else 1)
    return asked or any(job_outcomes.file_size(folder / name) for folder in left for name in ("watchdog", "stuck"))


def _recover_draft(spool: Spool, folder: Path) -> None:
    """Settle what was refused or cancelled, and is not settled any more; remove half a copy. Drafts stay."""
    with suppress(FileNotFoundError):
        facts = os.lstat(folder)
        if facts.st_uid != os.geteuid() or not stat.S_ISDIR(facts.st_mode):
            return
        if read_outcome(folder) is not None:
            spool.settle(folder)
        elif folder.name.endswith(CANCELLED):
            spool.settle_cancelled(folder)
        elif folder.name.endswith(COPY):
            shutil.rmtree(folder)


def _recover_taken(spool: Spool, folder: Path) -> None:
    """Put the draft of another user back into the queue, or remove it where the job is known."""
    parsed = parse_queued(folder.name)
    if parsed is not None and spool.is_known(parsed[1]):
        remove_draft(folder)
    elif parsed is not None:
        os.rename(folder, folder.with_name(folder.name.removeprefix(TAKEN)))


def recover_running(spool: Spool, folder: Path, known: bool) -> list[str]:
    """Settle a job that was begun, or queue it again; return what was done.

    Not collective.

    Parameters
    ----------
    known
        Whether something other than the job explains the end of its processes, or of the service.
    """
    if folder.is_symlink() or not folder.is_dir():
        spool.refuse(folder)
        return []
    told = [] if read_outcome(folder) is not None else [_recover_unended(spool, folder, known)]
    if read_outcome(folder) is not None:
        spool.settle(folder)
    return told


def _recover_unended(spool: Spool, folder: Path, known: bool) -> str:
    """Queue a job again that was not through, or end it; return what was done."""
    tried, identity = count_attempts(folder), job_id(folder)
    reason = None
    if spool.is_cancelled(folder):
        reason = "cancelled"
    elif job_outcomes.file_size(folder / "stuck"):
        reason = job_outcomes.read_beginning(folder / "stuck").strip()
    elif job_outcomes.file_size(folder / "watchdog"):
        reason = "killed: over its time limit, in a call that nothing interrupts (see `watchdog`)"
    elif not known and (
        tried >= MANY
        or job_outcomes.count_fruitless_runs(folder, job_outcomes.count_saved_bytes(folder)) >= ATTEMPTS
    ):
        reason = f"given up: its processes, or the service, were ended {tried} times while it ran"
    if reason is None:
        spool.requeue(folder, counted=not known)
        return f"{identity} is queued again"
    state = "cancelled" if reason == "cancelled" else "failed"
    exit_status = None if state == "cancelled" else 2
    facts = {"id": identity, "state": state, "exit": exit_status, "error": reason}
    write_outcome(folder, {**facts, "attempts": tried})
    return f"{identity}: {reason}"
