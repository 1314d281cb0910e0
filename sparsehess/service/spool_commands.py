"""The resident service: `serve` itself, and what `submit`, `status`, `result` and `cancel` do with `--spool`."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path

from sparsehess import errors
from sparsehess.commands import flag_groups, job_files, problem_files
from sparsehess.errors import InputError
from sparsehess.service import spool as spools
from sparsehess.service.spool import Spool
from sparsehess.storage.atomic_files import written

_SCHEMA = 1

# Inputs up to this size are copied into the job; larger ones are referred to.
_COPIED = 64 * 2**20

# Seconds between two looks of one who waits.
_LOOK = 0.02


def add_parsers(commands, shared) -> None:
    """Add `serve`, and the flags of a spool to the commands for batch jobs.

    Not collective.

    Parameters
    ----------
    commands
        The subparsers of the command line.
    shared
        The parser of flags that all have.
    """
    for name in ("submit", "status", "result", "cancel"):
        commands.choices[name].add_argument("--spool", metavar="DIR", help="of a resident service, see serve")
    submit = commands.choices["submit"]
    submit.add_argument(
        "--priority",
        type=int,
        metavar="N",
        default=0,
        help=f"in a spool, up to {spools.LIMIT}: the larger the sooner",
    )
    submit.add_argument("--wait", action="store_true", help="in a spool: wait for the end, then do as result does")

    serve = commands.add_parser("serve", parents=[shared], help="stay up, and take jobs from a spool directory")
    serve.add_argument("spool", metavar="SPOOL", help="made if it is missing; who may write there may submit")
    serve.add_argument("--groups", type=int, metavar="G", default=1, help="of ranks, each with a job of its own")
    serve.add_argument(
        "--allow-code",
        metavar="DIR",
        action="append",
        default=[],
        help="whose Python files jobs may run; repeatable",
    )
    serve.add_argument(
        "--allow-data", metavar="DIR", action="append", default=[], help="whose files jobs may read; repeatable"
    )
    serve.add_argument("--time", metavar="HH:MM:SS", help="that a job gets at most (default: no limit)")
    serve.add_argument(
        "--memory", metavar="SIZE", help="of each rank that a job gets at most (default: most of what is free)"
    )
    serve.add_argument(
        "--grace", type=float, metavar="S", default=30.0, help="from a job's limit to the end of its processes"
    )
    serve.add_argument(
        "--cache", metavar="SIZE", default="256M", help="kept between jobs, 0 for nothing (default 256M)"
    )
    serve.add_argument("--idle", type=float, metavar="S", help="leave after so many seconds without a job")
    serve.add_argument("--once", action="store_true", help="leave when no job is left")
    serve.add_argument("--shared", action="store_true", help="take a spool that others can write into")
    serve.add_argument(
        "--ranks", type=int, metavar="P", help="start mpiexec with P ranks, and again where a job has ended them"
    )
    serve.add_argument("--launcher", metavar="COMMAND", default="mpiexec", help="of --ranks (default mpiexec)")


def run_serve(arguments, options, comm) -> int:
    """Take jobs from a spool until told to leave."""
    flag_groups.refuse(arguments, {"json": None}, "each job has a result.json of its own")
    if arguments.ranks is not None:
        from sparsehess.service.supervisor import supervise

        if arguments.ranks < 1:
            raise InputError(f"--ranks {arguments.ranks}: at least 1")
        return supervise(arguments)
    flag_groups.refuse(arguments, {"launcher": "mpiexec"}, "it is for --ranks")
    from sparsehess.commands.output import no_solver
    from sparsehess.runtime import memory, on_root
    from sparsehess.service import batch_scripts, limits
    from sparsehess.service.admission import Allowance
    from sparsehess.service.resident import Manner, serve

    no_solver(options)
    if not 1 <= arguments.groups <= comm.size:
        raise InputError(f"--groups {arguments.groups}: from 1 to the number of ranks, {comm.size}")
    for flag in ("grace", "idle"):
        value = getattr(arguments, flag)
        if value is not None and not 0 <= value < 10**8:
            raise InputError(f"--{flag} {value:g}: seconds, not negative")
    free = int(0.9 * memory.free_memory(comm))
    most = limits.Limits(
        None if arguments.time is None else batch_scripts.seconds(arguments.time),
        free if arguments.memory is None else limits.size(arguments.memory),
    )
    manner = Manner(
        allowance=Allowance(
            code=on_root(comm, _real, arguments.allow_code, "--allow-code"),
            data=on_root(comm, _real, arguments.allow_data, "--allow-data"),
            most=most,
        ),
        groups=arguments.groups,
        cache=0 if arguments.cache == "0" else limits.size(arguments.cache, "--cache"),
        grace=arguments.grace,
        once=arguments.once,
        idle=arguments.idle,
    )
    spool = on_root(comm, _opened, arguments.spool, arguments.shared)
    return serve(spool, manner, comm)


def _opened(place: str, shared: bool) -> Spool:
    return Spool.opened(place, shared=shared)


def _real(folders: list[str], flag: str) -> tuple[str, ...]:
    for folder in folders:
        if not os.path.isdir(folder):
            raise InputError(f"{flag} {folder}: no such folder")
    return tuple(os.path.realpath(folder) for folder in folders)


# --- submit ------------------------------------------------------------------------------------


def submit(arguments) -> int:
    """Put a job into a spool."""
    _refuse_batch(arguments)
    spool = Spool.found(arguments.spool)
    folder = spool.draft()
    try:
        text = write_job(folder, arguments)
        if arguments.dry_run:
            _tell(
                arguments, {"schema": _SCHEMA, "task": "submit", "dry_run": True, "job": text}, text.rstrip("\n")
            )
            return errors.DONE
        (identity,) = spool.enqueue([folder], arguments.priority)
        folder = None
    except OSError as error:
        raise InputError(f"{error.filename or spool.path}: cannot be written: {error.strerror}") from error
    finally:
        if folder is not None:
            spools.discard(folder)
    if arguments.wait:
        _wait(spool, identity)
        return _result(spool, identity, arguments)
    facts = {"id": identity, "name": arguments.name, "spool": str(spool.path), "priority": arguments.priority}
    _tell(arguments, {"schema": _SCHEMA, "task": "submit", "dry_run": False, **facts}, f"job {identity}")
    return errors.DONE


def _refuse_batch(arguments) -> None:
    """Refuse flags that are for schedulers."""
    usual = {"scheduler": "auto", "ranks": 1, "account": None, "queue": None, "launcher": "mpiexec", "setup": []}
    for name, value in usual.items():
        if getattr(arguments, name) != value:
            raise InputError(f"--{name}: for schedulers; the service of a --spool has its own")


def write_job(folder: Path, arguments) -> str:
    """Write the job file of a spooled job, and copies of its inputs, into a folder; return its text.

    Not collective. Files up to 64 MiB are copied; larger ones, and Python files, are named by their absolute
    paths, for the service to allow.

    Raises
    ------
    InputError
        The job file, or what it names, cannot be used.
    """
    from sparsehess.commands.arguments import parser

    path, top = Path(arguments.job), parser()
    job = job_files.read(path)
    words, _ = job_files.command_line(path.absolute(), top)
    parsed = top.parse_args(job_files.guarded(words))
    choices = {key: value for key, value in job.choices.items() if key != "json"}
    for name, value in job_files.paths(words, parsed, top).items():
        key = job_files.key_of(name, words[0], top)
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
    text = job_files.written(job.command, choices, job.petsc, table)
    (folder / "job.toml").write_text(text)
    return text


def _brought(path: Path, folder: Path) -> str:
    """Return what the job calls one of its inputs: a copy in its folder, or where it lies."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
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


def status(arguments) -> int:
    """How jobs of a spool stand, and the service itself."""
    spool = Spool.found(arguments.spool)
    if arguments.jobs:
        found = [spool.find(identity) for identity in arguments.jobs]
    else:
        found = [(state, folder) for _, state, folder in spool.every()]
    facts = [_state(state, folder) for state, folder in found]
    service = spools.read_json(spool.path / "service.json") if spool.served else {}
    groups = [spools.read_json(path) for path in sorted(spool.path.glob("group-*.json"))]
    lines = _table(facts) if facts else "no jobs"
    if service:
        process, host, ranks, many = (service.get(name) for name in ("process", "host", "ranks", "groups"))
        lines += f"\nserved by    process {process} on {host}, {ranks} rank(s) in {many} group(s)"
    else:
        lines += "\nnot served: no service runs on this spool"
    whole = {"schema": _SCHEMA, "task": "status", "jobs": facts, "service": service or None, "groups": groups}
    _tell(arguments, whole, lines)
    return errors.DONE


def _state(state: str, folder: Path) -> dict:
    identity = folder.name.rpartition(".")[2]
    outcome = spools.read_outcome(folder) or {}
    try:
        said = job_files.read(folder / "job.toml").submit if (folder / "job.toml").is_file() else {}
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
        "progress": spools.read_json(folder / "status.json") or None,
        "folder": str(folder),
    }


def _table(facts: list[dict]) -> str:
    rows = [("job", "name", "priority", "state", "exit", "")]
    for fact in facts:
        progress = fact["progress"]
        here = () if not progress else (progress.get(name, "?") for name in ("stage", "done", "total"))
        said = fact["error"] or ("" if not progress else "{}: {} of {}".format(*here))
        cells = (fact[name] for name in ("id", "name", "priority", "state", "exit"))
        rows.append((*("" if cell is None else str(cell) for cell in cells), str(said)[:100]))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def result(arguments) -> int:
    """What a job of a spool has answered; ends with its status."""
    spool = Spool.found(arguments.spool)
    return _result(spool, arguments.id, arguments)


def _result(spool: Spool, identity: str, arguments) -> int:
    state, folder = spool.find(identity)
    outcome = spools.read_outcome(folder)
    if outcome is None or state not in ("done", "failed"):
        raise InputError(f"job {identity} is {state}: no result yet")
    if not arguments.quiet and arguments.json != "-":
        record = folder / "log"
        sys.stdout.write(record.read_text(errors="replace") if record.is_file() else "")
        print(f"files        {folder}")
    if arguments.json is not None and (folder / "result.json").is_file():
        _write(arguments.json, (folder / "result.json").read_text())
    if outcome.get("state") == "done":
        return errors.DONE
    if outcome.get("exit") is None:
        raise InputError(f"job {identity} was {outcome.get('state')}")
    sys.stderr.write(f"sparsehess: {outcome.get('error')}\n")
    return int(outcome["exit"])


def cancel(arguments) -> int:
    """Cancel jobs of a spool; those that have ended stay as they are."""
    spool = Spool.found(arguments.spool)
    facts, lines = [], []
    for identity in arguments.jobs:
        state = spool.cancel(identity)
        ended = state in ("done", "failed")
        facts.append({"id": identity, "state": state if ended else "cancelled", "cancelled": not ended})
        when = {"queued": "cancelled", "running": "will be cancelled at its next iteration"}
        lines.append(f"job {identity} {when.get(state, f'had ended before: {state}')}")
    _tell(arguments, {"schema": _SCHEMA, "task": "cancel", "jobs": facts}, "\n".join(lines))
    return errors.DONE


def _tell(arguments, facts: dict, lines: str) -> None:
    if not arguments.quiet and arguments.json != "-":
        print(lines)
    if arguments.json is not None:
        _write(arguments.json, json.dumps(facts, indent=2) + "\n")


def _write(place: str, text: str) -> None:
    if place == "-":
        print(text, end="", flush=True)
        return
    with written(Path(place)) as beside:
        beside.write_text(text)
