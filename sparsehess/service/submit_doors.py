"""Which door a job is submitted through, and what its job file says that this door has nothing for."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from sparsehess.commands import job_files
from sparsehess.commands.arguments import JOB_SUFFIX, CommandLine
from sparsehess.service.batch.schedulers import installed_scheduler
from sparsehess.service.batch.script_dialects import DIALECTS

log = logging.getLogger("sparsehess")

# Choices of `submit` for spools alone.
_OF_SPOOLS = ("priority", "wait")


def choose_door(arguments: argparse.Namespace, line: CommandLine) -> None:
    """Take back what [submit] of a job file says and a scheduler has nothing for; one line tells of it.

    Not collective. What the command line itself says stays as it is, to be heeded or refused: a job file is for
    many machines, a command line for one. A scheduler that is named there wins over the spool of a job file.
    """
    path = Path(arguments.job)
    if path.suffix != JOB_SUFFIX:
        return
    job = job_files.read_job_file(path)
    written = job_files.submit_flags(job, line)
    words = arguments.words[1:]
    if not written or words[: len(written)] != written:
        return
    typed = line.parse(["submit", *words[len(written) :]])
    passed = ["spool"] if "spool" in job.submit and typed.scheduler != "auto" and typed.spool is None else []
    if arguments.spool is not None and not passed:
        return
    scheduler = installed_scheduler() if arguments.scheduler == "auto" else arguments.scheduler
    keys = {"queue" if key == "partition" else key for key in job.submit}
    passed += [name for name in (*_OF_SPOOLS, *DIALECTS[scheduler].lacks) if name in keys]
    for name in passed:
        setattr(arguments, name, getattr(typed, name))
    if passed and not arguments.quiet:
        log.warning("%s: %s in [submit]: nothing that %s has, passed over", path, ", ".join(passed), scheduler)
