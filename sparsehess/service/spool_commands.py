"""What `submit`, `status`, `result` and `cancel` do with `--spool`."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from pathlib import Path

from sparsehess import errors
from sparsehess.commands import job_checks, job_files, problem_files
from sparsehess.commands.arguments import CommandLine
from sparsehess.commands.job_files import OUTPUTS
from sparsehess.commands.output import SCHEMA, print_answer
from sparsehess.commands.reports.tables import format_columns
from sparsehess.errors import InputError, no_such_file
from sparsehess.runtime.printable import printable
from sparsehess.service.batch.choices import FOR_SCHEDULERS
from sparsehess.service.spool.clients import ENDED, SeenJob, SpoolClient, discard_draft, open_client
from sparsehess.service.spool.foreign_drafts import FILE_BYTES, INPUTS, JOB_BYTES
from sparsehess.service.spool.job_outcomes import read_json, read_outcome
from sparsehess.service.spool.layout import has_secret, hide_secrets
from sparsehess.service.spool.spool import Spool
from sparsehess.service.spool.states import read_submit
from sparsehess.storage.json_files import write_text
from sparsehess.storage.matrix_address import split_name

# What a running job tells of itself, and of which types.
_PROGRESS = {"stage": (str,), "done": (int,), "total": (int,), "seconds": (int, float)}

# Seconds between two looks of one who waits, at first, and after which a job that is nowhere is given up.
_LOOK, _LOST = 0.02, 5.0


def _open(arguments: argparse.Namespace) -> SpoolClient:
    return open_client(Spool.open_existing(arguments.spool))


# --- submit ------------------------------------------------------------------------------------


def submit_to_spool(arguments: argparse.Namespace, line: CommandLine) -> int:
    """Put a job into a spool. Not collective."""
    _pass_over_schedulers(arguments)
    client = _open(arguments)
    folder = client.make_draft()
    queued = False
    try:
        text = write_job(folder, arguments, line)
        if arguments.dry_run:
            print_answer(
                arguments, {"schema": SCHEMA, "task": "submit", "dry_run": True, "job": text}, text.rstrip("\n")
            )
            return errors.DONE
        (identity,) = client.enqueue([folder], arguments.priority)
        queued = True
    except OSError as error:
        place = client.spool.path
        where = hide_secrets(str(error.filename or place))
        raise InputError(f"{where}: cannot be written: {error.strerror}") from error
    finally:
        if not queued:
            discard_draft(folder)
    if arguments.wait:
        return _print_result(_wait(client, identity), arguments)
    facts = {
        "id": identity,
        "name": arguments.name,
        "spool": str(client.spool.path),
        "priority": arguments.priority,
    }
    print_answer(arguments, {"schema": SCHEMA, "task": "submit", "dry_run": False, **facts}, f"job {identity}")
    return errors.DONE


def _pass_over_schedulers(arguments: argparse.Namespace) -> None:
    """Tell which keys of the job file are for schedulers alone; refuse flags that are."""
    usual = {
        "scheduler": "auto",
        "ranks": 1,
        "account": None,
        "queue": None,
        "launcher": None,
        "setup": [],
        "directive": [],
    }
    said = job_files.read_job_file(arguments.job).submit
    passed = [key for key in said if key in FOR_SCHEDULERS]
    told = {"queue" if key == "partition" else key: said[key] for key in passed}
    for name, value in usual.items():
        given = getattr(arguments, name)
        if given not in (value, told.get(name, value)):
            raise InputError(f"--{name}: for schedulers; the service of a --spool has its own; leave it out")
    if passed and not arguments.quiet:
        sys.stderr.write(
            f"sparsehess: {', '.join(passed)} in [submit]: for schedulers, passed over; the service has its own\n"
        )


def write_job(folder: Path, arguments: argparse.Namespace, line: CommandLine) -> str:
    """Write the job file of a spooled job, and copies of its inputs, into a folder; return its text.

    Not collective. Files up to 64 MiB, 256 MiB together, are copied; larger ones, and Python files, are named by
    their absolute paths, for the service to allow.

    Raises
    ------
    InputError
        The job file, or what it names, cannot be used.
    """
    path = Path(arguments.job)
    job = job_files.read_job_file(path)
    job_checks.refuse_calculator(job)
    if not arguments.no_check:
        job_checks.check_job(path, line, outputs=False)
    words, _ = job_files.job_command_line(path.absolute(), line)
    parsed = line.parse(words)
    choices = {key: value for key, value in job.choices.items() if key != "json"}
    for name, value in job_files.path_arguments(words, parsed, line).items():
        key = job_files.job_file_key(name, words[0], line)
        if key not in choices:
            continue
        if name in OUTPUTS:
            choices[key] = os.path.basename(value)
        elif name == "input" and problem_files.is_problem(value):
            place, _, called = value.rpartition(":")
            choices[key] = f"{os.path.realpath(place)}:{called}" if place.endswith(".py") else value
        else:
            file, matrix = split_name(value)
            brought = _brought(file, folder, awaited=arguments.no_check)
            choices[key] = brought if matrix is None else f"{brought}:{matrix}"
    limits = {name: getattr(arguments, name) for name in ("name", "time", "memory")}
    table = {name: value for name, value in limits.items() if value is not None} | {"priority": arguments.priority}
    text = job_files.compose_job_file(job.command, choices, job.petsc, table)
    (folder / "job.toml").write_text(text)
    return text


def _brought(path: Path, folder: Path, *, awaited: bool) -> str:
    """Return what the job calls one of its inputs: a copy in its folder, or where it lies, or is awaited."""
    if awaited and not path.exists():
        return os.path.abspath(path)
    if not path.is_file():
        raise no_such_file(path)
    inputs = folder / INPUTS
    there = [place.stat().st_size for place in inputs.iterdir()] if inputs.is_dir() else []
    size = path.stat().st_size
    if size > FILE_BYTES or size + sum(there) > JOB_BYTES:
        return os.path.realpath(path)
    inputs.mkdir(exist_ok=True)
    name = f"{len(there)}-{path.name}"
    shutil.copyfile(path, inputs / name)
    return f"{INPUTS}/{name}"


def _wait(client: SpoolClient, identity: str) -> SeenJob:
    """Return a job once it has ended, or is cancelled."""
    job, seen, pause = client.find_job(identity), time.monotonic(), _LOOK
    while job.state not in ENDED and not client.spool.is_cancelled(job.folder):
        time.sleep(pause)
        pause = min(1.1 * pause, 25 * _LOOK)
        now = client.look_again(job)
        if now is not None:
            job, seen = now, time.monotonic()
        elif time.monotonic() - seen > _LOST:
            raise InputError(f"job {identity} is not in {client.spool.path} any more: somebody has removed it")
    return job


# --- status, result, cancel --------------------------------------------------------------------


def print_spool_status(arguments: argparse.Namespace) -> int:
    """Print how the jobs of a spool stand, and the service itself. Not collective."""
    client = _open(arguments)
    spool = client.spool
    found = [client.find_job(text) for text in arguments.jobs] if arguments.jobs else client.list_jobs()
    facts = [_state(client, job) for job in found]
    service = read_json(spool.path / "service.json") if spool.is_served else {}
    groups = [read_json(path) for path in sorted(spool.path.glob("group-*.json"))]
    lines = _table(facts) if facts else "no jobs"
    if service:
        process, host, ranks, many = (service.get(name) for name in ("process", "host", "ranks", "groups"))
        lines += f"\nserved by    process {process} on {host}, {ranks} rank(s) in {many} group(s)"
    else:
        lines += "\nnot served: no service runs on this spool"
    whole = {"schema": SCHEMA, "task": "status", "jobs": facts, "service": service or None, "groups": groups}
    print_answer(arguments, whole, lines)
    return errors.DONE


def _state(client: SpoolClient, job: SeenJob) -> dict:
    queued = job.state == "queued"  # it may be another user's, who could have anything there
    outcome = (None if queued else read_outcome(job.folder)) or {}
    state = "cancelled" if queued and client.spool.is_cancelled(job.folder) else job.state
    priority = read_submit(job.folder).get("priority")
    return {
        "id": job.id,
        "name": client.read_name(job),
        "user": client.read_user(job),
        "priority": priority if isinstance(priority, int) else 0,
        "state": outcome.get("state", state),
        "exit": outcome.get("exit"),
        "error": outcome.get("error"),
        "attempts": outcome.get("attempts"),
        "seconds": outcome.get("seconds"),
        "progress": None if queued else _progress(job.folder),
        "folder": None if has_secret(job.folder) else str(job.folder),
    }


def _progress(folder: Path) -> dict | None:
    """Return how far a running job is; None where it has told nothing, or no service has written what is there."""
    told = read_json(folder / "status.json")
    known = all(type(told.get(name)) in kinds for name, kinds in _PROGRESS.items())
    return {name: told[name] for name in _PROGRESS} if known else None


def _table(facts: list[dict]) -> str:
    several = ["user"] if len({fact["user"] for fact in facts}) > 1 else []
    columns = ["name", *several, "priority", "state", "exit"]
    rows: list[tuple[str, ...]] = [("job", *columns, "")]
    for fact in facts:
        progress = fact["progress"]
        said = fact["error"] or ("" if not progress else "{stage}: {done} of {total}".format(**progress))
        cells = (fact[name] for name in ("id", *columns))
        rows.append((*("" if cell is None else str(cell) for cell in cells), str(said)[:100]))
    return format_columns(rows)


def print_spool_result(arguments: argparse.Namespace) -> int:
    """Print what a job of a spool has answered; return its status. Not collective."""
    client = _open(arguments)
    job = client.find_job(arguments.id)
    if job.state not in ENDED and not client.spool.is_cancelled(job.folder):
        raise InputError(
            f"job {job.id} is {job.state}: no result yet; "
            f"`sparsehess status --spool {client.spool.path}` tells when"
        )
    return _print_result(job, arguments)


def _print_result(job: SeenJob, arguments: argparse.Namespace) -> int:
    if job.state not in ENDED:
        raise InputError(f"job {job.id} was cancelled")
    outcome = read_outcome(job.folder)
    if outcome is None:
        raise InputError(f"job {job.id}: its outcome cannot be read, or is damaged")
    complaint = printable(f"sparsehess: {outcome.get('error')}\n")
    if not arguments.quiet and arguments.json != "-":
        record = job.folder / "log"
        said = printable(record.read_text(errors="replace")) if record.is_file() else ""
        # The last word of the log is told apart, below.
        sys.stdout.write(said.replace(complaint, "", 1))
        print(f"files        {job.folder}")
        sys.stdout.flush()
    if arguments.json is not None and (job.folder / "result.json").is_file():
        write_text(arguments.json, (job.folder / "result.json").read_text())
    if outcome.get("state") == "done":
        return errors.DONE
    if outcome.get("exit") is None:
        raise InputError(f"job {job.id} was {outcome.get('state')}")
    sys.stderr.write(complaint)
    return int(outcome["exit"])


def cancel_in_spool(arguments: argparse.Namespace) -> int:
    """Cancel jobs of a spool; those that have ended stay as they are. Not collective."""
    client = _open(arguments)
    facts, lines = [], []
    for text in arguments.jobs:
        job = client.cancel(text)
        ended = job.state in ENDED
        facts.append({"id": job.id, "state": job.state if ended else "cancelled", "cancelled": not ended})
        when = {"queued": "cancelled", "running": "will be cancelled at its next iteration"}
        lines.append(f"job {job.id} {when.get(job.state, f'had ended before: {job.state}')}")
    print_answer(arguments, {"schema": SCHEMA, "task": "cancel", "jobs": facts}, "\n".join(lines))
    return errors.DONE
