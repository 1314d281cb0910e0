"""The resident service: `serve` itself, and what `submit`, `status`, `result` and `cancel` do with `--spool`."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from sparsehess import errors
from sparsehess.commands import flag_groups, job_checks, job_files, problem_files
from sparsehess.commands.arguments import CommandLine
from sparsehess.commands.output import SCHEMA, print_answer
from sparsehess.commands.quantities import parse_time
from sparsehess.commands.reports.tables import format_columns
from sparsehess.errors import InputError, no_such_file
from sparsehess.service import spool as spools
from sparsehess.service.spool import Spool
from sparsehess.storage.json_files import write_text

if TYPE_CHECKING:
    from mpi4py import MPI

# Inputs up to this size are copied into the job; larger ones are referred to.
_COPIED = 64 * 2**20

# What a running job tells of itself, and of which types.
_PROGRESS = {"stage": (str,), "done": (int,), "total": (int,), "seconds": (int, float)}

# Seconds between two looks of one who waits.
_LOOK = 0.02


def run_serve(arguments: argparse.Namespace, line: CommandLine, comm: MPI.Comm | None) -> int:
    """Take jobs from a spool until told to leave. Collective."""
    flag_groups.refuse_flags(arguments, {"json": None}, "each job has a result.json of its own")
    if arguments.ranks is not None:
        from sparsehess.service.supervisor import supervise

        if arguments.ranks < 1:
            raise InputError(f"--ranks {arguments.ranks}: at least 1")
        return supervise(arguments)
    if comm is None:
        raise ValueError("a service without --ranks runs on a communicator")
    flag_groups.refuse_flags(arguments, {"launcher": "mpiexec"}, "it is for --ranks")
    from sparsehess.runtime import memory, on_root
    from sparsehess.service import limits
    from sparsehess.service.admission import Allowance
    from sparsehess.service.resident import ServiceSettings, serve_spool

    if not 1 <= arguments.groups <= comm.size:
        raise InputError(f"--groups {arguments.groups}: from 1 to the number of ranks, {comm.size}")
    for flag in ("grace", "idle"):
        value = getattr(arguments, flag)
        if value is not None and not 0 <= value < 10**8:
            raise InputError(f"--{flag} {value:g}: seconds, not negative")
    free = int(0.9 * memory.free_memory(comm))
    most = limits.Limits(
        None if arguments.time is None else parse_time(arguments.time),
        free if arguments.memory is None else limits.parse_size(arguments.memory),
    )
    settings = ServiceSettings(
        allowance=Allowance(
            code=on_root(comm, _real, arguments.allow_code, "--allow-code"),
            data=on_root(comm, _real, arguments.allow_data, "--allow-data"),
            most=most,
        ),
        groups=arguments.groups,
        cache=0 if arguments.cache == "0" else limits.parse_size(arguments.cache, "--cache"),
        grace=arguments.grace,
        once=arguments.once,
        idle=arguments.idle,
    )
    spool = on_root(comm, _opened, arguments.spool, arguments.shared)
    return serve_spool(spool, settings, line, comm)


def _opened(place: str, shared: bool) -> Spool:
    return Spool.open_or_create(place, shared=shared)


def _real(folders: list[str], flag: str) -> tuple[str, ...]:
    for folder in folders:
        if not os.path.isdir(folder):
            raise InputError(f"{flag} {folder}: no such folder; make it first")
    return tuple(os.path.realpath(folder) for folder in folders)


# --- submit ------------------------------------------------------------------------------------


def submit_to_spool(arguments: argparse.Namespace, line: CommandLine) -> int:
    """Put a job into a spool. Not collective."""
    _refuse_batch(arguments)
    spool = Spool.open_existing(arguments.spool)
    folder = spool.make_draft()
    queued = False
    try:
        text = write_job(folder, arguments, line)
        if arguments.dry_run:
            print_answer(
                arguments, {"schema": SCHEMA, "task": "submit", "dry_run": True, "job": text}, text.rstrip("\n")
            )
            return errors.DONE
        (identity,) = spool.enqueue([folder], arguments.priority)
        queued = True
    except OSError as error:
        raise InputError(f"{error.filename or spool.path}: cannot be written: {error.strerror}") from error
    finally:
        if not queued:
            spools.discard_draft(folder)
    if arguments.wait:
        _wait(spool, identity)
        return _result(spool, identity, arguments)
    facts = {"id": identity, "name": arguments.name, "spool": str(spool.path), "priority": arguments.priority}
    print_answer(arguments, {"schema": SCHEMA, "task": "submit", "dry_run": False, **facts}, f"job {identity}")
    return errors.DONE


def _refuse_batch(arguments: argparse.Namespace) -> None:
    """Refuse flags that are for schedulers."""
    usual = {"scheduler": "auto", "ranks": 1, "account": None, "queue": None, "launcher": "mpiexec", "setup": []}
    for name, value in usual.items():
        if getattr(arguments, name) != value:
            raise InputError(f"--{name}: for schedulers; the service of a --spool has its own; leave it out")


def write_job(folder: Path, arguments: argparse.Namespace, line: CommandLine) -> str:
    """Write the job file of a spooled job, and copies of its inputs, into a folder; return its text.

    Not collective. Files up to 64 MiB are copied; larger ones, and Python files, are named by their absolute
    paths, for the service to allow.

    Raises
    ------
    InputError
        The job file, or what it names, cannot be used.
    """
    path = Path(arguments.job)
    job = job_files.read_job_file(path)
    if not arguments.no_check:
        job_checks.check_job(path, line, outputs=False)
    words, _ = job_files.job_command_line(path.absolute(), line)
    parsed = line.parse(words)
    choices = {key: value for key, value in job.choices.items() if key != "json"}
    for name, value in job_files.path_arguments(words, parsed, line).items():
        key = job_files.job_file_key(name, words[0], line)
        if key not in choices:
            continue
        if name in spools.OUTPUTS:
            choices[key] = os.path.basename(value)
        elif name == "input" and problem_files.is_problem(value):
            place, _, called = value.rpartition(":")
            choices[key] = f"{os.path.realpath(place)}:{called}" if place.endswith(".py") else value
        else:
            choices[key] = _brought(Path(value), folder)
    limits = {name: getattr(arguments, name) for name in ("name", "time", "memory")}
    table = {name: value for name, value in limits.items() if value is not None} | {"priority": arguments.priority}
    text = job_files.compose_job_file(job.command, choices, job.petsc, table)
    (folder / "job.toml").write_text(text)
    return text


def _brought(path: Path, folder: Path) -> str:
    """Return what the job calls one of its inputs: a copy in its folder, or where it lies."""
    if not path.is_file():
        raise no_such_file(path)
    if path.stat().st_size > _COPIED:
        return os.path.realpath(path)
    (folder / "inputs").mkdir(exist_ok=True)
    name = f"{len(os.listdir(folder / 'inputs'))}-{path.name}"
    shutil.copyfile(path, folder / "inputs" / name)
    return f"inputs/{name}"


def _wait(spool: Spool, identity: str) -> None:
    while True:
        if any((spool.path / state / identity).is_dir() for state in ("done", "failed")):
            return
        time.sleep(_LOOK)


# --- status, result, cancel --------------------------------------------------------------------


def print_spool_status(arguments: argparse.Namespace) -> int:
    """Print how the jobs of a spool stand, and the service itself. Not collective."""
    spool = Spool.open_existing(arguments.spool)
    if arguments.jobs:
        found = [spool.find_job(identity) for identity in arguments.jobs]
    else:
        found = [(state, folder) for _, state, folder in spool.list_jobs()]
    facts = [_state(state, folder) for state, folder in found]
    service = spools.read_json(spool.path / "service.json") if spool.is_served else {}
    groups = [spools.read_json(path) for path in sorted(spool.path.glob("group-*.json"))]
    lines = _table(facts) if facts else "no jobs"
    if service:
        process, host, ranks, many = (service.get(name) for name in ("process", "host", "ranks", "groups"))
        lines += f"\nserved by    process {process} on {host}, {ranks} rank(s) in {many} group(s)"
    else:
        lines += "\nnot served: no service runs on this spool"
    whole = {"schema": SCHEMA, "task": "status", "jobs": facts, "service": service or None, "groups": groups}
    print_answer(arguments, whole, lines)
    return errors.DONE


def _state(state: str, folder: Path) -> dict:
    identity = folder.name.rpartition(".")[2]
    outcome = spools.read_outcome(folder) or {}
    try:
        said = job_files.read_job_file(folder / "job.toml").submit if (folder / "job.toml").is_file() else {}
    except (InputError, OSError):
        said = {}
    kinds = {"name": str, "priority": int}
    submit = {name: said[name] for name, kind in kinds.items() if isinstance(said.get(name), kind)}
    return {
        "id": identity,
        "name": submit.get("name"),
        "priority": submit.get("priority", 0),
        "state": outcome.get("state", state),
        "exit": outcome.get("exit"),
        "error": outcome.get("error"),
        "attempts": outcome.get("attempts"),
        "seconds": outcome.get("seconds"),
        "progress": _progress(folder),
        "folder": str(folder),
    }


def _progress(folder: Path) -> dict | None:
    """Return how far a running job is; None where it has told nothing, or no service has written what is there."""
    told = spools.read_json(folder / "status.json")
    known = all(type(told.get(name)) in kinds for name, kinds in _PROGRESS.items())
    return {name: told[name] for name in _PROGRESS} if known else None


def _table(facts: list[dict]) -> str:
    rows: list[tuple[str, ...]] = [("job", "name", "priority", "state", "exit", "")]
    for fact in facts:
        progress = fact["progress"]
        said = fact["error"] or ("" if not progress else "{stage}: {done} of {total}".format(**progress))
        cells = (fact[name] for name in ("id", "name", "priority", "state", "exit"))
        rows.append((*("" if cell is None else str(cell) for cell in cells), str(said)[:100]))
    return format_columns(rows)


def print_spool_result(arguments: argparse.Namespace) -> int:
    """Print what a job of a spool has answered; return its status. Not collective."""
    spool = Spool.open_existing(arguments.spool)
    return _result(spool, arguments.id, arguments)


def _result(spool: Spool, identity: str, arguments: argparse.Namespace) -> int:
    state, folder = spool.find_job(identity)
    outcome = spools.read_outcome(folder)
    if outcome is None or state not in ("done", "failed"):
        raise InputError(
            f"job {identity} is {state}: no result yet; `sparsehess status --spool {spool.path}` tells when"
        )
    if not arguments.quiet and arguments.json != "-":
        record = folder / "log"
        sys.stdout.write(record.read_text(errors="replace") if record.is_file() else "")
        print(f"files        {folder}")
    if arguments.json is not None and (folder / "result.json").is_file():
        write_text(arguments.json, (folder / "result.json").read_text())
    if outcome.get("state") == "done":
        return errors.DONE
    if outcome.get("exit") is None:
        raise InputError(f"job {identity} was {outcome.get('state')}")
    sys.stderr.write(f"sparsehess: {outcome.get('error')}\n")
    return int(outcome["exit"])


def cancel_in_spool(arguments: argparse.Namespace) -> int:
    """Cancel jobs of a spool; those that have ended stay as they are. Not collective."""
    spool = Spool.open_existing(arguments.spool)
    facts, lines = [], []
    for identity in arguments.jobs:
        state = spool.cancel(identity)
        ended = state in ("done", "failed")
        facts.append({"id": identity, "state": state if ended else "cancelled", "cancelled": not ended})
        when = {"queued": "cancelled", "running": "will be cancelled at its next iteration"}
        lines.append(f"job {identity} {when.get(state, f'had ended before: {state}')}")
    print_answer(arguments, {"schema": SCHEMA, "task": "cancel", "jobs": facts}, "\n".join(lines))
    return errors.DONE
