"""Batch scripts, written to be read: what the scheduler is told, the command, and what happens at its end."""

from __future__ import annotations

import re
import shlex

from sparsehess.service.batch.jobs import Job
from sparsehess.service.batch.script_dialects import DIALECTS, RESUMABLE, lead_time

# Seconds that a command without anything to save gets to end at the limit.
_KILL = 10

# How often a job is queued again by itself.
_STARTS = 100

# What a shell that SIGTERM has ended leaves.
_ENDED = 143


def compose_script(job: Job) -> str:
    """Return the batch script of a job.

    Not collective. Its own status is that of the command, which it also leaves in the file `exit` of the job.
    """
    parts = [
        ["#!/bin/bash"],
        DIALECTS[job.scheduler].head(job),
        [""],
        _opening(job),
        [""],
        _command(job),
        [""],
        _run(job),
    ]
    return "\n".join(line for part in parts for line in part) + "\n"


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
    else:
        # Whoever has queued it may have been killed before it could keep the number.
        lines.append(f'[ -s "$job/number" ] || echo "${DIALECTS[job.scheduler].number}" > "$job/number"')
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
    if job.time is not None and not DIALECTS[job.scheduler].signals:
        # The last part of the time is for saving.
        told, lead = ("USR1", lead_time(job.time)) if job.resumable else ("TERM", 0)
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
        return ['"${command[@]}" "${petsc[@]}"', "status=$?", *_ending(job)]
    dialect = DIALECTS[job.scheduler]
    saved = shlex.quote(job.checkpoint) if job.checkpoint else '"$job/checkpoint"'
    lines = [
        "# A start after the first goes on from what was saved; files that are not whole yet are hidden.",
        'date "+%F %T" >> "$job/starts"',
        f'if [ "$(wc -l < "$job/starts")" -gt 1 ] && [ -n "$(ls {saved} 2> /dev/null)" ]',
        "then resume=(--resume); else resume=(); fi",
        "",
        f"# SIGUSR1, before the time limit, and {_named(dialect.end)} are passed on: "
        "the ranks save what they have and end with",
        f"# status {RESUMABLE}.",
        "child= ended=no",
        """trap '[ -z "$child" ] || kill -USR1 "$child"' USR1""",
        f"""trap 'ended=yes; [ -z "$child" ] || kill -USR1 "$child"' {dialect.end}""",
        '"${command[@]}" "${resume[@]}" "${petsc[@]}" &',
        "child=$!",
        "# A shell that waits while the same signal ends its child may lose the child's status: it waits after.",
        f"""while kill -0 "$child"; do (trap '' USR1 {dialect.end}; exec sleep 1); done 2> /dev/null""",
        'wait "$child"; status=$?',
        "child=",
        *_again(job),
    ]
    return [*lines, *_ending(job)]


def _named(signals: str) -> str:
    return " or ".join(f"SIG{one}" for one in signals.split())


def _again(job: Job) -> list[str]:
    """Return what queues a stopped job again."""
    queue = DIALECTS[job.scheduler].again
    if queue is None:
        return []
    # Where status 75 alone queues a job again, one that was ended has another.
    ended = '"$status"' if queue else str(_ENDED)
    return [
        "",
        "# Ended by the scheduler, which also knows whether this job is to begin again.",
        f'[ "$ended" = no ] || [ "$status" = 0 ] || exit {ended}',
        "",
        "# Stopped, and not by `sparsehess cancel`: queued again, to go on.",
        f'if [ "$status" = {RESUMABLE} ] && [ ! -e "$job/cancelled" ] && '
        f'[ "$(wc -l < "$job/starts")" -lt {_STARTS} ]; then',
        f'    {queue} && exit "$status"' if queue else f'    exit "$status"    # at which {job.scheduler} does it',
        "fi",
    ]


def _ending(job: Job) -> list[str]:
    lines = ["", 'echo "$status" > "$job/exit.new" && mv "$job/exit.new" "$job/exit"']
    if DIALECTS[job.scheduler].again == "":
        lines.append(f'[ "$status" != {RESUMABLE} ] || exit 1    # {RESUMABLE} would queue it again')
    return [*lines, 'exit "$status"']
