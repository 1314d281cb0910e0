"""Batch jobs: plan, submit, status, result, cancel. All but `plan` need neither MPI nor PETSc."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import re
import shlex
import shutil
import socket
import sys
from pathlib import Path

from sparsehess import errors
from sparsehess.commands import flag_groups, job_files
from sparsehess.errors import InputError, SparseHessError
from sparsehess.service import batch_jobs, batch_scripts, schedulers, spool_commands
from sparsehess.service.batch_jobs import Job
from sparsehess.service.schedulers import SCHEDULERS, State
from sparsehess.storage.atomic_files import written

_SCHEMA = 1

# What launchers tell a process of its place, for commands that do not ask MPI.
_PLACES = ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK")

# Bytes of an error file that are shown.
_TAIL = 2000


def add_parsers(commands, shared) -> None:
    """Add the commands of this module, after `eigs`, whose flags `plan` takes too.

    Not collective.

    Parameters
    ----------
    commands
        The subparsers of the command line.
    shared
        The parser of flags that all have.
    """
    plan = commands.add_parser(
        "plan",
        parents=[commands.choices["eigs"]],
        add_help=False,
        help="what a run would cost: evaluations, memory per rank, ranks worth having",
    )
    plan.add_argument("--ranks", type=int, metavar="P", help="tell the memory of so many (default: as it is run)")
    plan.add_argument("--measure", action="store_true", help="call the gradient once, and tell the seconds of all")
    plan.add_argument(
        "--row",
        type=int,
        metavar="D",
        default=30,
        help="entries of a row that are reckoned with where the pattern has to be detected (default 30)",
    )

    plan.add_argument(
        "--products",
        type=int,
        metavar="N",
        help="that advice is taken from: how it looks, what each way costs, which to take and why; 0 for none "
        "(default 12)",
    )

    submit = commands.add_parser("submit", parents=[shared], help="queue a job file, and remember it")
    submit.add_argument("job", metavar="JOB.toml", help="what to run; its table [submit] holds these flags")
    submit.add_argument(
        "--scheduler", choices=["auto", *SCHEDULERS], default="auto", help="(default: the one that is installed)"
    )
    submit.add_argument("--ranks", type=int, metavar="N", default=1, help="MPI processes (default 1)")
    submit.add_argument("--time", metavar="HH:MM:SS", help="limit; the last part of it is for saving")
    submit.add_argument("--memory", metavar="SIZE", help="of each rank, such as 4G")
    submit.add_argument("--account", metavar="NAME", help="that pays")
    submit.add_argument("--queue", "--partition", metavar="NAME", help="of the scheduler")
    submit.add_argument("--name", metavar="NAME", help="(default: that of the job file)")
    submit.add_argument(
        "--launcher", metavar="COMMAND", default="mpiexec", help='such as "srun --mpi=pmix" (default mpiexec)'
    )
    submit.add_argument(
        "--setup",
        metavar="LINE",
        action="append",
        default=[],
        help='a line of the script before the command, such as "module load openmpi"; may be repeated',
    )
    submit.add_argument("--dry-run", action="store_true", help="print the script, and queue nothing")

    status = commands.add_parser("status", parents=[shared], help="how jobs stand")
    status.add_argument("jobs", metavar="JOB", nargs="*", help="numbers or names (default: all)")

    result = commands.add_parser(
        "result",
        parents=[shared],
        help="what a job has answered; ends with the status that the job has ended with",
    )
    result.add_argument("id", metavar="JOB", help="number or name")

    cancel = commands.add_parser("cancel", parents=[shared], help="end jobs")
    cancel.add_argument("jobs", metavar="JOB", nargs="+", help="numbers or names")


def first() -> bool:
    """Return whether this process is the one that acts, where a launcher has started several.

    Not collective.
    """
    return not any(os.environ.get(name, "0").isdigit() and int(os.environ.get(name, "0")) for name in _PLACES)


def _tell(arguments, facts: dict, lines: str) -> None:
    if not arguments.quiet and arguments.json != "-":
        print(lines)
    if arguments.json is not None:
        _write_json(arguments.json, facts)


def _write_json(place: str, facts: dict) -> None:
    text = json.dumps(facts, indent=2)
    if place == "-":
        print(text, flush=True)
        return
    with written(Path(place)) as beside:
        beside.write_text(text + "\n")


# --- submit --------------------------------------------------------------------------------


def run_submit(arguments, options, comm) -> int:
    """Write a batch script for a job file and queue it, or put it into a spool."""
    if not first():
        return errors.DONE
    if arguments.spool is not None:
        return spool_commands.submit(arguments)
    if arguments.wait or arguments.priority:
        raise InputError("--wait and --priority are for the jobs of a service: give its --spool")
    planned = _job(arguments, Path(batch_jobs.home()) / str(batch_jobs.next_number()))
    if arguments.dry_run:
        text = batch_scripts.script(planned)
        facts = {"schema": _SCHEMA, "task": "submit", "dry_run": True, **_facts(planned), "script": text}
        _tell(arguments, facts, text.rstrip("\n"))
        return errors.DONE
    folder = batch_jobs.new_folder()
    job = dataclasses.replace(_job(arguments, folder), id=int(folder.name))
    try:
        if job.resumable:
            Path(job.checkpoint).mkdir(exist_ok=True)
        batch_jobs.write(job.file("script"), batch_scripts.script(job))
        batch_jobs.save(job)
        SCHEDULERS[job.scheduler].submit(job)
    except SparseHessError:
        batch_jobs.forget(folder)
        raise
    except OSError as error:
        batch_jobs.forget(folder)
        raise InputError(f"{folder}: the job cannot be written: {error.strerror}") from error
    facts = {
        "schema": _SCHEMA,
        "task": "submit",
        "dry_run": False,
        **_facts(job),
        "script": str(job.file("script")),
    }
    number = facts["number"]
    known = f", number {number} of {job.scheduler}" if job.scheduler != "local" else f", process {number}"
    _tell(arguments, facts, f"job {job.id} ({job.name}){known}\nscript       {job.file('script')}")
    return errors.DONE


def _job(arguments, folder: Path) -> Job:
    """Return the job that the arguments ask for."""
    from sparsehess.commands.arguments import parser

    top = parser()
    path = Path(arguments.job)
    if path.suffix != job_files.SUFFIX:
        raise InputError(f"{path}: submit takes a job file, {job_files.SUFFIX}")
    words, petsc = job_files.command_line(path.absolute(), top)
    # Refused here rather than after a night in the queue.
    known = top.parse_args(job_files.guarded(words))
    scheduler = schedulers.installed() if arguments.scheduler == "auto" else arguments.scheduler
    _check(arguments, scheduler, folder)
    result = str(folder / "result.json") if known.json in (None, "-") else known.json
    resumable = {"--checkpoint", "--resume"} <= job_files.options(words[0], top)
    checkpoint = getattr(known, "checkpoint", None) or str(folder / "checkpoint")
    if result != known.json:
        words += ["--json", result]
    if resumable and not known.checkpoint:
        words += ["--checkpoint", checkpoint]
    return Job(
        id=int(folder.name),
        name=arguments.name or re.sub(r"[^\w.-]", "-", path.stem),
        scheduler=scheduler,
        launcher=shlex.split(arguments.launcher),
        program=_program(),
        command=words + (["--", *petsc] if petsc else []),
        ranks=arguments.ranks,
        time=None if arguments.time is None else batch_scripts.seconds(arguments.time),
        memory=arguments.memory,
        account=arguments.account,
        queue=arguments.queue,
        setup=list(arguments.setup),
        workdir=str(path.absolute().parent),
        folder=str(folder),
        result=result,
        resumable=resumable,
        checkpoint=checkpoint if resumable else "",
        submitted=datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        host=socket.gethostname(),
    )


def _check(arguments, scheduler: str, folder: Path) -> None:
    """Refuse what would break the script, or what the scheduler does not have."""
    if arguments.ranks < 1:
        raise InputError(f"--ranks {arguments.ranks}: at least 1")
    for flag in ("name", "account", "queue", "memory"):
        value = getattr(arguments, flag)
        if value is not None and not re.fullmatch(r"[A-Za-z0-9_][\w.@+-]{0,99}", value, re.ASCII):
            raise InputError(f"--{flag} {value!r}: letters, digits, and . _ - @ + after the first")
    if scheduler == "local":
        for flag in ("memory", "account", "queue"):
            if getattr(arguments, flag) is not None:
                raise InputError(f"--{flag}: jobs of this machine have none; it is for slurm and pbs")
        launcher = shlex.split(arguments.launcher)[:1]
        if not launcher or shutil.which(launcher[0]) is None:
            raise InputError(f"--launcher {arguments.launcher!r}: there is no such program here")
        if arguments.time is not None and shutil.which("timeout") is None:
            raise InputError("--time: needs the program timeout, of GNU coreutils, which is not here")
    elif not re.fullmatch(r"[\w./@+-]+", str(folder)):
        raise InputError(
            f"{folder.parent}: {scheduler} takes no blanks or signs in paths; set {batch_jobs.HOME} to another"
        )


def _program() -> list[str]:
    """Return the words that start sparsehess on the machines of the job."""
    script = Path(sys.executable).with_name("sparsehess")
    return [str(script)] if script.exists() else [sys.executable, "-m", "sparsehess"]


def _facts(job: Job) -> dict:
    number = job.word("pid" if job.scheduler == "local" else "number")
    return {
        "id": job.id,
        "name": job.name,
        "scheduler": job.scheduler,
        "number": number.split()[0] if number else None,
        "ranks": job.ranks,
        "submitted": job.submitted,
        "command": job.command,
        "folder": job.folder,
        "result": job.result,
    }


# --- status, result, cancel ------------------------------------------------------------------


def run_status(arguments, options, comm) -> int:
    """How jobs stand."""
    if not first():
        return errors.DONE
    if arguments.spool is not None:
        return spool_commands.status(arguments)
    some = [batch_jobs.find(text) for text in arguments.jobs] if arguments.jobs else batch_jobs.every()
    states = schedulers.states(some)
    facts = [{**_facts(job), **_state_facts(states[job.id])} for job in some]
    _tell(arguments, {"schema": _SCHEMA, "task": "status", "jobs": facts}, _table(facts))
    return errors.DONE


def _state_facts(state: State) -> dict:
    return {"state": state.word, "exit": state.exit, "why": state.why}


def _table(facts: list[dict]) -> str:
    if not facts:
        return "no jobs"
    rows = [("job", "name", "scheduler", "number", "ranks", "state", "exit", "submitted", "")]
    for fact in facts:
        cells = (fact[name] for name in ("id", "name", "scheduler", "number", "ranks", "state", "exit"))
        when = fact["submitted"][:16].replace("T", " ")
        rows.append((*("" if cell is None else str(cell) for cell in cells), when, fact["why"]))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def run_result(arguments, options, comm) -> int:
    """What a job has answered, as it has answered it."""
    if not first():
        return errors.DONE
    if arguments.spool is not None:
        return spool_commands.result(arguments)
    job = batch_jobs.find(arguments.id)
    state = schedulers.states([job])[job.id]
    if not state.over:
        raise InputError(f"job {job.id} is {state.word}{f' ({state.why})' if state.why else ''}: no result yet")
    try:
        answer = json.loads(Path(job.result).read_text()) if state.exit is not None else None
    except FileNotFoundError:
        answer = None
    except (OSError, ValueError) as error:
        raise InputError(f"{job.result}: no result to be read: {error}") from error
    if not arguments.quiet and arguments.json != "-":
        sys.stdout.write(job.word("out") or "")
        sys.stdout.write("\n" if job.word("out") else "")
        sys.stdout.flush()
    if arguments.json is not None and answer is not None:
        _write_json(arguments.json, answer)
    if state.exit == errors.DONE:
        return errors.DONE
    complaint = (job.word("err") or "").encode()[-_TAIL:].decode(errors="replace")
    if complaint:
        sys.stderr.write(complaint + "\n")
    if state.word == "stopped":
        advice = f"; to go on: bash {job.file('script')}" if job.scheduler == "local" else ""
        sys.stderr.write(f"sparsehess: job {job.id} was stopped after it had saved what it has{advice}\n")
    elif state.exit is None or state.word == "cancelled":
        raise InputError(f"job {job.id} {_ENDS[state.word]}{f': {state.why}' if state.why else ''}")
    return state.exit


_ENDS = {"cancelled": "was cancelled", "failed": "has failed", "done": "has ended without leaving its status"}


def run_cancel(arguments, options, comm) -> int:
    """End jobs; those that have ended stay as they are."""
    if not first():
        return errors.DONE
    if arguments.spool is not None:
        return spool_commands.cancel(arguments)
    some = [batch_jobs.find(text) for text in arguments.jobs]
    states = schedulers.states(some)
    facts, lines = [], []
    for job in some:
        ended = states[job.id].over
        if not ended:
            # Said first, so that a script that saves and ends now is not queued again.
            batch_jobs.write(job.file("cancelled"), "")
            try:
                SCHEDULERS[job.scheduler].cancel(job)
            except SparseHessError:
                job.file("cancelled").unlink(missing_ok=True)
                raise
        word = states[job.id].word if ended else "cancelled"
        facts.append({"id": job.id, "name": job.name, "state": word, "cancelled": not ended})
        lines.append(f"job {job.id} ({job.name}) {f'had ended before: {word}' if ended else 'cancelled'}")
    _tell(arguments, {"schema": _SCHEMA, "task": "cancel", "jobs": facts}, "\n".join(lines))
    return errors.DONE


# --- plan ------------------------------------------------------------------------------------


def run_plan(arguments, options, comm) -> int:
    """What a run would cost."""
    from sparsehess.commands import cost_model as plan
    from sparsehess.commands import problem_files
    from sparsehess.commands.advice import advised
    from sparsehess.commands.output import answer, ranks
    from sparsehess.storage import matrix_files

    if arguments.products is not None and 0 != arguments.products < 4:
        raise InputError(f"--products {arguments.products}: 4 at least, or 0 for no advice")
    for flag in ("ranks", "row", "k"):
        value = getattr(arguments, flag)
        if value is not None and value < 1:
            raise InputError(f"{'-' if flag == 'k' else '--'}{flag} {value}: at least 1")
    is_problem = problem_files.is_problem(arguments.input)
    _refuse_idle(arguments, is_problem)
    objective, stored = None, None
    calls, seconds, pieces, colors = None, None, 0, 0
    if is_problem:
        objective = problem_files.load(arguments.input, problem_files.settings(arguments.settings), comm)
        n, name = objective.n, objective.name
        pattern, calls = (None, None) if arguments.shell else _calls(arguments, objective, comm)
        nnz = 0 if arguments.shell else (pattern.nnz if pattern is not None else n * min(n, arguments.row))
        if calls is not None:
            colors = calls.colors or 0
            pieces = None if objective.distributed else colors
            if arguments.measure:
                one = _measured(objective)
                seconds = {"one": one, "all": one * calls.total}
    else:
        stored = matrix_files.read_matrix(arguments.input, comm)
        pattern = stored.pattern
        n, nnz, name = pattern.n, pattern.nnz, arguments.input
    factored = not arguments.shell and arguments.method in ("auto", "krylovschur", "slicing", "feast", "ciss")
    needed = plan.memory(pattern, n, nnz, min(arguments.k or 6, n), colors, factored)
    needed = dataclasses.replace(needed, process=max(comm.allgather(needed.process)))
    worth = plan.ranks(n, pieces, None if seconds is None else seconds["all"], needed, _allowed(comm))
    many = arguments.ranks or comm.size
    facts = {
        "schema": _SCHEMA,
        "task": "plan",
        "name": name,
        "problem": is_problem,
        "n": n,
        "nnz": nnz,
        "estimated": calls is not None and calls.estimated,
        "evaluations": None if calls is None else {**dataclasses.asdict(calls), "total": calls.total},
        "seconds": seconds,
        "memory": {"ranks": many, "per_rank": needed.each(many), **dataclasses.asdict(needed)},
        "ranks": dataclasses.asdict(worth),
        "mpi": ranks(comm)["mpi"],
    }
    lines = plan.lines(facts)
    if arguments.products != 0:
        source = objective if stored is None else stored
        facts["look"], facts["advice"], told = advised(arguments, source, pattern, calls, needed, many)
        lines = f"{lines}\n{told}"
    answer(arguments, comm, facts, lines)
    if pattern is not None:
        pattern.free()
    return errors.DONE


def _refuse_idle(arguments, is_problem: bool) -> None:
    """Refuse flags that nothing of this plan would heed. Not collective; the same on every rank."""
    flag_groups.refuse(
        arguments, {"explain": False}, "the advice of a plan says which method and why; see --products"
    )
    assembly = flag_groups.DERIVATIVES | flag_groups.COLORING | {"measure": False}
    if not is_problem:
        told = f"{arguments.input} is a matrix file, which is not differentiated"
        flag_groups.refuse(arguments, flag_groups.SETTINGS | assembly, told)
    elif arguments.shell:
        flag_groups.refuse(arguments, assembly, "--shell assembles nothing")
    if arguments.pattern != "detect":
        flag_groups.refuse(arguments, {"row": 30}, "only --pattern detect has to reckon with rows")


def _allowed(comm) -> int:
    """Return bytes that one rank alone could take here. Collective."""
    from sparsehess.runtime import memory

    return memory.free_memory(comm) * max(1, comm.size)


def _calls(arguments, objective, comm):
    """Return (pattern, calls) of a problem that is assembled; no pattern where it has to be found. Collective."""
    from sparsehess.commands import cost_model as plan
    from sparsehess.commands.inputs import asked_coloring
    from sparsehess.storage import matrix_files

    derivative, verified = arguments.derivative, not arguments.no_verify
    pattern = objective.pattern
    if arguments.pattern == "detect":
        row = min(objective.n, arguments.row)
        tests = arguments.points * plan.probes(objective.n, row)
        return None, plan.calls(objective, derivative, row, verified, probed=tests)
    if arguments.pattern != "given":
        pattern = matrix_files.read_pattern(arguments.pattern, comm, block=arguments.blocks)
    if pattern is None:
        raise InputError(f"{objective.name} has no pattern: give one, or plan for --pattern detect")
    if arguments.pattern == "given":
        pattern = pattern.in_blocks(arguments.blocks)
    if pattern.n != objective.n:
        raise InputError(f"{arguments.pattern} has {pattern.n} variables, {objective.name} has {objective.n}")
    if objective.elements is not None and arguments.coloring is None:
        return pattern, plan.calls(objective, derivative, None, verified)
    return pattern, plan.calls(objective, derivative, asked_coloring(arguments, pattern).count, verified)


def _measured(objective) -> float:
    """Return seconds of one gradient, or of one product where there is no gradient. Collective."""
    import time

    import numpy as np

    evaluations = objective.at(objective.x)
    began = time.perf_counter()
    if objective.gradient is not None or objective.energy is not None or objective.elements is not None:
        evaluations.gradients([evaluations.x])
    else:
        together = np.zeros(len(evaluations.x), np.int64)
        evaluations.products(together, 1, np.ones(len(evaluations.x)))
    return objective.comm.allreduce(time.perf_counter() - began) / objective.comm.size
