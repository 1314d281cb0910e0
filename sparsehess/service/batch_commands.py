"""Batch jobs: submit, status, result, cancel. They need neither MPI nor PETSc."""

from __future__ import annotations

import argparse
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
from typing import TYPE_CHECKING

from sparsehess import errors
from sparsehess.commands import job_checks, job_files, quantities
from sparsehess.commands.arguments import JOB_SUFFIX, CommandLine
from sparsehess.commands.output import SCHEMA, print_answer
from sparsehess.commands.reports.tables import format_columns
from sparsehess.errors import InputError, SparseHessError
from sparsehess.runtime.launchers import is_first_process
from sparsehess.runtime.printable import printable
from sparsehess.service import spool_commands
from sparsehess.service.batch import job_progress, schedulers
from sparsehess.service.batch import jobs as batch_jobs
from sparsehess.service.batch import scripts as batch_scripts
from sparsehess.service.batch.choices import SCHEDULER_NAMES
from sparsehess.service.batch.job_progress import progress_text, read_progress
from sparsehess.service.batch.jobs import Job
from sparsehess.service.batch.scheduler_commands import State, Unanswered
from sparsehess.service.batch.schedulers import SCHEDULERS
from sparsehess.service.batch.script_dialects import DIALECTS
from sparsehess.service.submit_doors import choose_door
from sparsehess.storage.json_files import write_json

if TYPE_CHECKING:
    from mpi4py import MPI

# Bytes of an error file that are shown.
_TAIL = 2000


# --- submit --------------------------------------------------------------------------------


def run_submit(arguments: argparse.Namespace, line: CommandLine, comm: MPI.Comm | None) -> int:
    """Write a batch script for a job file and queue it, or put it into a spool. Not collective."""
    if not is_first_process():
        return errors.DONE
    choose_door(arguments, line)
    if arguments.spool is not None:
        return spool_commands.submit_to_spool(arguments, line)
    if arguments.wait or arguments.priority:
        raise InputError("--wait and --priority are for the jobs of a service: give its --spool")
    planned = _job(arguments, line, Path(batch_jobs.jobs_folder()) / str(batch_jobs.next_number()))
    if arguments.dry_run:
        text = batch_scripts.compose_script(planned)
        facts = {"schema": SCHEMA, "task": "submit", "dry_run": True, **_facts(planned), "script": text}
        print_answer(arguments, facts, text.rstrip("\n"))
        return errors.DONE
    folder = batch_jobs.new_folder()
    job = dataclasses.replace(_job(arguments, line, folder), id=int(folder.name))
    try:
        if job.resumable:
            Path(job.checkpoint).mkdir(exist_ok=True)
        batch_jobs.write_small_file(job.file("script"), batch_scripts.compose_script(job))
        batch_jobs.save_job(job)
        SCHEDULERS[job.scheduler].submit(job)
    except Unanswered as error:
        # It may be queued all the same: its script tells its number once it runs.
        raise Unanswered(f"{error}: job {job.id} may be queued all the same, and is kept") from error
    except SparseHessError:
        batch_jobs.remove_job(folder)
        raise
    except OSError as error:
        batch_jobs.remove_job(folder)
        raise InputError(f"{folder}: the job cannot be written: {error.strerror}") from error
    facts = {
        "schema": SCHEMA,
        "task": "submit",
        "dry_run": False,
        **_facts(job),
        "script": str(job.file("script")),
    }
    number = facts["number"]
    known = f", number {number} of {job.scheduler}" if job.scheduler != "local" else f", process {number}"
    print_answer(arguments, facts, f"job {job.id} ({job.name}){known}\nscript       {job.file('script')}")
    return errors.DONE


def _job(arguments: argparse.Namespace, line: CommandLine, folder: Path) -> Job:
    """Return the job that the arguments ask for."""
    path = Path(arguments.job)
    if path.suffix != JOB_SUFFIX:
        raise InputError(f"{path}: submit takes a job file, {JOB_SUFFIX}, which holds command, input and flags")
    words, petsc = job_files.job_command_line(path.absolute(), line)
    # Refused here rather than after a night in the queue.
    known = line.parse(words)
    if not arguments.no_check:
        job_checks.check_job(path, line)
    scheduler = schedulers.installed_scheduler() if arguments.scheduler == "auto" else arguments.scheduler
    _check(arguments, scheduler, folder)
    result = str(folder / "result.json") if known.json in (None, "-") else known.json
    resumable = {"--checkpoint", "--resume"} <= job_files.command_flags(words[0], line)
    checkpoint = getattr(known, "checkpoint", None) or str(folder / "checkpoint")
    if result != known.json:
        words += ["--json", result]
    if resumable and not known.checkpoint:
        words += ["--checkpoint", checkpoint]
    return Job(
        id=int(folder.name),
        name=arguments.name or re.sub(r"[^\w.-]", "-", path.stem),
        scheduler=scheduler,
        launcher=_launcher(arguments, scheduler),
        program=_program(),
        command=words + (["--", *petsc] if petsc else []),
        ranks=arguments.ranks,
        time=None if arguments.time is None else quantities.parse_time(arguments.time),
        memory=None if arguments.memory is None else quantities.parse_memory(arguments.memory),
        account=arguments.account,
        queue=arguments.queue,
        setup=list(arguments.setup),
        directives=list(arguments.directive),
        workdir=str(path.absolute().parent),
        folder=str(folder),
        result=result,
        resumable=resumable,
        checkpoint=checkpoint if resumable else "",
        submitted=datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        host=socket.gethostname(),
    )


def _check(arguments: argparse.Namespace, scheduler: str, folder: Path) -> None:
    """Refuse what would break the script, or what the scheduler does not have."""
    if arguments.ranks < 1:
        raise InputError(f"--ranks {arguments.ranks}: at least 1")
    for flag in ("name", "account", "queue"):
        value = getattr(arguments, flag)
        if value is not None and not re.fullmatch(r"[A-Za-z0-9_][\w.@+-]{0,99}", value, re.ASCII):
            raise InputError(f"--{flag} {value!r}: letters, digits, and . _ - @ + after the first")
    dialect = DIALECTS[scheduler]
    for flag in dialect.lacks:
        if getattr(arguments, flag):
            others = ", ".join(name for name in SCHEDULER_NAMES if flag not in DIALECTS[name].lacks)
            whose = "this machine" if scheduler == "local" else scheduler
            raise InputError(f"--{flag}: jobs of {whose} have none; it is for {others}")
    for text in arguments.directive:
        dialect.check_directive(text)
    if scheduler == "local":
        launcher = _launcher(arguments, scheduler)[:1]
        if not launcher or shutil.which(launcher[0]) is None:
            raise InputError(f"--launcher {arguments.launcher!r}: there is no such program here")
        if arguments.time is not None and shutil.which("timeout") is None:
            raise InputError("--time: needs the program timeout, of GNU coreutils, which is not here")
    elif not re.fullmatch(r"[\w./@+-]+", str(folder)):
        raise InputError(
            f"{folder.parent}: {scheduler} takes no blanks or signs in paths; set {batch_jobs.HOME} to another"
        )


def _launcher(arguments: argparse.Namespace, scheduler: str) -> list[str]:
    """Return the words that start the ranks."""
    text = DIALECTS[scheduler].launcher if arguments.launcher is None else arguments.launcher
    try:
        return shlex.split(text)
    except ValueError as error:
        raise InputError(f"--launcher {text}: {str(error).lower()}") from error


def _program() -> list[str]:
    """Return the words that start sparsehess on the machines of the job."""
    script = Path(sys.executable).with_name("sparsehess")
    return [str(script)] if script.exists() else [sys.executable, "-m", "sparsehess"]


def _facts(job: Job) -> dict:
    number = job.read_word("pid" if job.scheduler == "local" else "number")
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


def run_status(arguments: argparse.Namespace, line: CommandLine, comm: MPI.Comm | None) -> int:
    """Print how jobs stand. Not collective."""
    if not is_first_process():
        return errors.DONE
    if arguments.spool is not None:
        return spool_commands.print_spool_status(arguments)
    some = [batch_jobs.find_job(text) for text in arguments.jobs] if arguments.jobs else batch_jobs.list_jobs()
    states = schedulers.ask_states(some)
    facts = [{**_facts(job), **_state_facts(job, states[job.id])} for job in some]
    print_answer(arguments, {"schema": SCHEMA, "task": "status", "jobs": facts}, _table(facts))
    return errors.DONE


def _state_facts(job: Job, state: State) -> dict:
    progress = read_progress(job.file(job_progress.FILE)) if state.word == "running" else None
    return {"state": state.word, "exit": state.exit, "why": state.why, "progress": progress}


def _table(facts: list[dict]) -> str:
    if not facts:
        return "no jobs"
    rows = [("job", "name", "scheduler", "number", "ranks", "state", "exit", "submitted", "")]
    for fact in facts:
        cells = (fact[name] for name in ("id", "name", "scheduler", "number", "ranks", "state", "exit"))
        when = fact["submitted"][:16].replace("T", " ")
        told = "; ".join(filter(None, (fact["why"], progress_text(fact["progress"]))))
        rows.append((*("" if cell is None else str(cell) for cell in cells), when, told))
    return format_columns(rows)


def run_result(arguments: argparse.Namespace, line: CommandLine, comm: MPI.Comm | None) -> int:
    """Print what a job has answered, as it has answered it. Not collective."""
    if not is_first_process():
        return errors.DONE
    if arguments.spool is not None:
        return spool_commands.print_spool_result(arguments)
    job = batch_jobs.find_job(arguments.id)
    state = schedulers.ask_states([job])[job.id]
    if not state.is_over:
        word = f"{state.word}{f' ({state.why})' if state.why else ''}"
        raise InputError(f"job {job.id} is {word}: no result yet; `sparsehess status {job.id}` tells when")
    answer = None if arguments.json is None else _answer(job, state)
    if not arguments.quiet and arguments.json != "-":
        sys.stdout.write(printable(job.read_word("out") or ""))
        sys.stdout.write("\n" if job.read_word("out") else "")
        sys.stdout.flush()
    if arguments.json is not None and answer is not None:
        write_json(arguments.json, answer)
    if state.exit == errors.DONE:
        return errors.DONE
    complaint = (job.read_word("err") or "").encode()[-_TAIL:].decode(errors="replace")
    if complaint:
        sys.stderr.write(printable(complaint) + "\n")
    if state.word == "stopped":
        advice = f"; to go on: bash {job.file('script')}" if job.scheduler == "local" else ""
        sys.stderr.write(f"sparsehess: job {job.id} was stopped after it had saved what it has{advice}\n")
    if state.exit is None or state.word == "cancelled":
        raise InputError(f"job {job.id} {_ENDS[state.word]}{f': {state.why}' if state.why else ''}")
    return state.exit


_ENDS = {"cancelled": "was cancelled", "failed": "has failed", "done": "has ended without leaving its status"}


def _answer(job: Job, state: State) -> dict | None:
    """Return what a job has written as its answer, None where it has written none.

    A file of that name may be an earlier run's: statuses without an answer leave it as it was.
    """
    if state.exit not in (errors.DONE, errors.TOO_FEW, errors.CHECK_FAILED):
        return None
    try:
        with open(job.result, "rb") as stream:
            kept = os.fstat(stream.fileno()).st_mtime < job.file("job.json").stat().st_mtime
            return None if kept and state.exit == errors.CHECK_FAILED else json.load(stream)
    except FileNotFoundError as error:
        if state.exit == errors.CHECK_FAILED:
            return None
        raise InputError(f"job {job.id} is {state.word}, and {job.result} is no longer there") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{job.result}: no result to be read: {error}") from error


def run_cancel(arguments: argparse.Namespace, line: CommandLine, comm: MPI.Comm | None) -> int:
    """End jobs; those that have ended stay as they are. Not collective."""
    if not is_first_process():
        return errors.DONE
    if arguments.spool is not None:
        return spool_commands.cancel_in_spool(arguments)
    some = [batch_jobs.find_job(text) for text in arguments.jobs]
    states = schedulers.ask_states(some)
    facts, lines, refused = [], [], list[SparseHessError]()
    for job in some:
        ended = states[job.id].is_over
        if not ended:
            # Said first, so that a script that saves and ends now is not queued again.
            batch_jobs.write_small_file(job.file("cancelled"), "")
            try:
                SCHEDULERS[job.scheduler].cancel(job)
            except SparseHessError as error:
                job.file("cancelled").unlink(missing_ok=True)
                # It may have ended between the two.
                states[job.id] = schedulers.ask_states([job])[job.id]
                ended = states[job.id].is_over
                if not ended:
                    refused.append(error)
                    continue
        word = states[job.id].word if ended else "cancelled"
        facts.append({"id": job.id, "name": job.name, "state": word, "cancelled": not ended})
        lines.append(f"job {job.id} ({job.name}) {f'had ended before: {word}' if ended else 'cancelled'}")
    if facts or not refused:
        print_answer(arguments, {"schema": SCHEMA, "task": "cancel", "jobs": facts}, "\n".join(lines))
    if refused:  # the others are not left running for it
        raise refused[0]
    return errors.DONE
