"""The supervisor behind `serve --ranks P`: it starts the service under mpiexec, and restarts it after a crash.

A rank of the service that somebody has stopped, or that does not end when all others do, is a crash too, and so is
a launcher without ranks. With the service all ends that has come of it.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from sparsehess import errors
from sparsehess.errors import InputError
from sparsehess.service.batch.local_scheduler import job_environment
from sparsehess.service.resident.keeper import DESERTED, DesertedLauncher, adopt_orphans, end_descendants
from sparsehess.service.resident.stopped_processes import StoppedProcesses
from sparsehess.service.spool.access import choose_access
from sparsehess.service.spool.spool import Spool

# Seconds between two checks of the service.
_LOOK = 0.1

# A service that lived for less than _SHORT seconds is restarted after _LATER seconds.
_SHORT, _LATER = 5.0, 1.0

# Seconds beyond the grace that a process of the service may be stopped; status of a service that was.
_LATE, _STUCK = 5.0, -signal.SIGSTOP


def supervise(arguments: argparse.Namespace) -> int:
    """Start the service, and restart it as long as it is killed; return its last exit status.

    Not collective: a process without MPI. SIGTERM and SIGINT are passed on as a request to leave.

    Raises
    ------
    InputError
        There is no such launcher, or the spool is not usable.
    """
    launcher = split_launcher(arguments.launcher)
    spool = Spool.open_or_create(arguments.spool, choose_access(arguments.shared, arguments.group))
    command = [
        *launcher,
        "-n",
        str(arguments.ranks),
        sys.executable,
        "-m",
        "sparsehess",
        "serve",
        *_words(arguments),
    ]
    asked: list[int] = []
    adopt_orphans()
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, lambda number, _: asked.append(number))
    while True:
        began = time.time()
        with subprocess.Popen(command, env=job_environment(), start_new_session=True) as child:
            try:
                status = _watched(child, spool, asked, arguments.grace)
            finally:
                end_descendants()
        if asked or not _was_ended(spool, began):
            return errors.STOPPED if status < 0 else status
        sys.stderr.write(f"sparsehess: the service was ended (status {status}): starting it again\n")
        sys.stderr.flush()
        if time.time() - began < _SHORT:
            time.sleep(_LATER)


def split_launcher(text: str) -> list[str]:
    """Return the words of a command that starts ranks. Not collective.

    Raises
    ------
    InputError
        There is no such program.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InputError(f"--launcher {text!r}: {error}") from error
    if not words or shutil.which(words[0]) is None:
        raise InputError(f"--launcher {text!r}: there is no such program here")
    return words


def _watched(child: subprocess.Popen, spool: Spool, asked: list[int], grace: float) -> int:
    """Wait for the end of the service, pass signals on to it, and return its status."""
    stopped, deserted = StoppedProcesses(os.getpid()), DesertedLauncher(child.pid)
    while True:
        try:
            return child.wait(_LOOK)
        except subprocess.TimeoutExpired:
            if len(asked) > 2:
                child.kill()
            elif len(asked) > 1:
                child.terminate()  # mpiexec ends its ranks; killed it would leave them behind
            elif asked:
                with suppress(FileNotFoundError):
                    spool.stop()  # again and again: one that is just starting forgets what it finds
            # Those of a job are the business of the service, as long as it is not stopped itself.
            if stopped.longest() > grace + _LATE:
                sys.stderr.write("sparsehess: a process of the service is stopped: ending all\n")
                return _STUCK
            if deserted.seconds() > DESERTED:
                sys.stderr.write("sparsehess: the launcher waits for ranks that are gone: ending all\n")
                return _STUCK


def _was_ended(spool: Spool, began: float) -> bool:
    """Return whether the service started then has begun to serve and was killed."""
    try:
        return os.stat(spool.path / "service.json").st_mtime >= began - 1
    except FileNotFoundError:
        return False


def _words(arguments: argparse.Namespace) -> list[str]:
    """Return the flags of the service itself."""
    words = [str(Path(arguments.spool).absolute()), "--groups", str(arguments.groups)]
    words += ["--launcher", arguments.launcher] if arguments.allow_code else []
    for flag in ("allow_code", "allow_data"):
        for folder in getattr(arguments, flag):
            words += [f"--{flag.replace('_', '-')}", os.path.abspath(folder)]
    for flag in ("time", "memory", "grace", "cache", "idle", "group"):
        value = getattr(arguments, flag)
        if value is not None:
            words += [f"--{flag}", str(value)]
    return words + [f"--{flag}" for flag in ("once", "shared", "quiet", "verbose") if getattr(arguments, flag)]
