"""Batch scripts, written to be read: what the scheduler is told, the command, and what happens at its end."""

from __future__ import annotations

import re
import shlex

from sparsehess.commands.quantities import format_time
from sparsehess.service.batch_jobs import Job

# Exit status of a command that was stopped after it had saved what it has.
RESUMABLE = 75

# Seconds before the time limit at which ranks are asked to save, and at most this part of the time.
_LEAD = 120
_PART = 0.25

# Seconds that a command without anything to save gets to end at the limit.
_KILL = 10

# How often a job is queued again by itself.
_STARTS = 100


def compose_script(job: Job) -> str:
    """Return the batch script of a job.

    Not collective. Its own status is that of the command, which it also leaves in the file `exit` of the job.
    """
    parts = [
        ["#!/bin/bash"],
        _HEADS[job.scheduler](job),
        [""],
        _opening(job),
        [""],
        _command(job),
        [""],
        _run(job),
    ]
    return "\n".join(line for part in parts for line in part) + "\n"


def _lead(seconds: int) -> int:
    return max(1, min(_LEAD, int(_PART * seconds)))


def _slurm(job: Job) -> list[str]:
    told = {
        "job-name": job.name,
        "ntasks": job.ranks,
        "cpus-per-task": 1,
        "time": None if job.time is None else format_time(job.time),
        "mem-per-cpu": job.memory,
        "account": job.account,
        "partition": job.queue,
        "output": job.file("scheduler"),
        "open-mode": "append",
        "signal": f"B:USR1@{_lead(job.time)}" if job.resumable and job.time is not None else None,
    }
    lines = [f"#SBATCH --{key}={value}" for key, value in told.items() if value is not None]
    return [*lines, "#SBATCH --requeue" if job.resumable else "#SBATCH --no-requeue"]


def _pbs(job: Job) -> list[str]:
    chunk = f"select={job.ranks}:ncpus=1:mpiprocs=1" + (f":mem={job.memory.lower()}b" if job.memory else "")
    told = [
        ("-N", job.name),
        ("-l", chunk),
        ("-l", None if job.time is None else f"walltime={format_time(job.time)}"),
        ("-A", job.account),
        ("-q", job.queue),
        ("-j", "oe"),
        ("-o", job.file("scheduler")),
        ("-r", "y" if job.resumable else "n"),
    ]
    return [f"#PBS {key} {value}" for key, value in told if value is not None]


_HEADS = {"slurm": _slurm, "pbs": _pbs, "local": lambda job: []}


def _opening(job: Job) -> list[str]:
    lines = [
        f"# Job {job.id} of sparsehess, {job.name}, written {job.submitted} on {job.host}.",
        "",
        f"job={shlex.quote(job.folder)}",
        'export SPARSEHESS_JOB="$job"',
        "export OMP_NUM_THREADS=1    # the ranks are the parallelism",
        "",
        'rm -f "$job/exit" "$job/progress.json"',
        'exec >> "$job/out" 2>> "$job/err"',
    ]
    if job.scheduler == "local":
        # A number is given to another process once this one has ended: its start tells them apart.
        lines.append('echo "$$ $(cut -d " " -f 22 /proc/$$/stat 2> /dev/null)" > "$job/pid.new"')
        lines.append('mv "$job/pid.new" "$job/pid"')
    lines += ["", f"cd {shlex.quote(job.workdir)} || exit 2", *job.setup]
    return lines


def _command(job: Job) -> list[str]:
    """Return the command as arrays: a flag with its values on each line, what is for PETSc apart."""
    at = job.command.index("--") if "--" in job.command else len(job.command)
    words, petsc = ([shlex.quote(word) for word in part] for part in (job.command[:at], job.command[at:]))
    first = next((place for place, word in enumerate(words) if word.startswith("-")), len(words))
    lines, line = [" ".join([*map(shlex.quote, job.program), *words[:first]])], list[str]()
    for word in words[first:]:
        if line and word.startswith("-") and not re.fullmatch(r"-[\d.].*", word):
            lines.append(" ".join(line))
            line = []
        line.append(word)
    lines += [" ".join(line)] if line else []
    launch = [*map(shlex.quote, job.launcher), "-n", str(job.ranks)]
    limit = []
    if job.time is not None and job.scheduler != "slurm":
        # Slurm signals by itself; elsewhere the last part of the time is for saving.
        told, lead = ("USR1", _lead(job.time)) if job.resumable else ("TERM", 0)
        wait = lead or _KILL
        limit = [
            f"    timeout --foreground --preserve-status --signal={told} --kill-after={wait} {job.time - lead}"
        ]
    return [
        "command=(",
        *limit,
        f"    {' '.join(launch)}",
        *(f"    {line}" for line in lines),
        ")",
        f"petsc=({' '.join(petsc)})",
    ]


def _run(job: Job) -> list[str]:
    if not job.resumable:
        return ['"${command[@]}" "${petsc[@]}"', "status=$?", *_ending()]
    saved = shlex.quote(job.checkpoint) if job.checkpoint else '"$job/checkpoint"'
    lines = [
        "# A start after the first goes on from what was saved; files that are not whole yet are hidden.",
        'date "+%F %T" >> "$job/starts"',
        f'if [ "$(wc -l < "$job/starts")" -gt 1 ] && [ -n "$(ls {saved} 2> /dev/null)" ]',
        "then resume=(--resume); else resume=(); fi",
        "",
        "# SIGUSR1, before the time limit, and SIGTERM are passed on: the ranks save what they have and end with",
        f"# status {RESUMABLE}.",
        "told=no child= ended=no",
        """trap 'told=yes; [ -z "$child" ] || kill -USR1 "$child"' USR1""",
        """trap 'told=yes ended=yes; [ -z "$child" ] || kill -USR1 "$child"' TERM""",
        '"${command[@]}" "${resume[@]}" "${petsc[@]}" &',
        "child=$!",
        'wait "$child"; status=$?',
        'while [ "$told" = yes ]; do told=no; wait "$child"; status=$?; done',
        *_again(job),
    ]
    return [*lines, *_ending()]


def _again(job: Job) -> list[str]:
    """Return what queues a stopped job again."""
    queue = {
        "slurm": ['scontrol requeue "$SLURM_JOB_ID" && exit "$status"'],
        "pbs": ['qsub "$job/script" > "$job/number.new" && mv "$job/number.new" "$job/number" && exit "$status"'],
    }.get(job.scheduler)
    if queue is None:
        return []
    return [
        "",
        "# Ended by the scheduler, which also knows whether this job is to begin again.",
        '[ "$ended" = no ] || exit "$status"',
        "",
        "# Stopped, and not by `sparsehess cancel`: queued again, to go on.",
        f'if [ "$status" = {RESUMABLE} ] && [ ! -e "$job/cancelled" ] && '
        f'[ "$(wc -l < "$job/starts")" -lt {_STARTS} ]; then',
        *(f"    {line}" for line in queue),
        "fi",
    ]


def _ending() -> list[str]:
    return ["", 'echo "$status" > "$job/exit.new" && mv "$job/exit.new" "$job/exit"', 'exit "$status"']
