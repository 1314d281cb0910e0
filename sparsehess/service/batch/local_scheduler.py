"""Batch jobs as processes of this machine, in a session of their own: they outlive who has started them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from sparsehess.errors import InputError
from sparsehess.service.batch.jobs import MARK, Job

# Starts a script in a process group of its own, and leaves it to the system: nobody here has to wait for it.
_LET_GO = 'set -m; /bin/bash "$1" &'

# Seconds for a script to write its first line, and for a cancelled job to end by itself.
_START, _GRACE = 10.0, 5.0


def start_script(job: Job) -> None:
    """Start the script of a job, and return once it has begun. Not collective."""
    subprocess.run(
        ["/bin/bash", "-c", _LET_GO, "sparsehess", str(job.file("script"))],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={**job_environment(), MARK: job.folder},
        check=True,
    )
    deadline = time.monotonic() + _START
    while not job.file("pid").exists():
        if time.monotonic() > deadline:
            raise InputError(f"the script {job.file('script')} does not start")
        time.sleep(0.01)


def job_environment() -> dict[str, str]:
    """Return this environment without a launcher's marks: a job is no part of the run that queues it.

    Not collective.
    """
    return {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(
            ("PMI", "OMPI_COMM_", "OMPI_UNIVERSE", "OMPI_APP_CTX", "PRTE_LAUNCHED", "HYDI_", "MPIR_CVAR")
        )
        and not (key.startswith("OMPI_MCA_") and key.split("_")[2] in ("ess", "orte", "pmix"))
    }


def job_state(job: Job) -> tuple[str, int | None, str]:
    """Return (word, exit status, reason) of a job whose script has not told its end. Not collective."""
    if job.host != socket.gethostname():
        return "unknown", None, f"on {job.host}"
    leader = _leader(job)
    if leader is None:
        return "unknown", None, "its submission was interrupted"
    if _runs(*leader):
        return "running", None, ""
    # Between a script's last line and our look the file may have come.
    return (
        ("failed", None, "killed, without a status") if job.exit_status is None else ("done", job.exit_status, "")
    )


def _leader(job: Job) -> tuple[int, str] | None:
    """Return (pid, start) of the script."""
    pid, _, began = (job.read_word("pid") or "").partition(" ")
    return (int(pid), began) if pid.isdigit() else None


def _runs(pid: int, began: str) -> bool:
    """Return whether the process of a number is the one that began then, and is alive."""
    if not began:  # no /proc where it has run
        with suppress(PermissionError):
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                return False
        return True
    fields = _stat(pid)
    return fields is not None and fields[19] == began and fields[0] != "Z"


def _stat(pid: int) -> list[str] | None:
    """Return the fields of /proc/<pid>/stat after the name, which may hold anything: the state is the first."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def end_processes(job: Job) -> None:
    """End all processes of a job: asked first, killed after a while.

    Not collective.

    Raises
    ------
    InputError
        It runs on another machine.
    """
    if job.host != socket.gethostname():
        raise InputError(f"job {job.id} runs on {job.host}: cancel it there")
    leader = _leader(job)
    if leader is not None and _runs(*leader):
        with suppress(ProcessLookupError):
            os.killpg(leader[0], signal.SIGTERM)
    else:  # the script alone was killed: what it has left is asked one by one
        for pid in list_processes(job):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _GRACE
    while list_processes(job) and time.monotonic() < deadline:
        time.sleep(0.05)
    for _ in range(100):  # one that is just being born is seen the next time
        there = list_processes(job)
        for pid in there:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if not there:
            return
        time.sleep(0.05)


def list_processes(job: Job) -> list[int]:
    """Return all processes of a job that live. Not collective."""
    mark = f"{MARK}={job.folder}".encode()
    found = []
    for name in os.listdir("/proc") if os.path.isdir("/proc/self") else []:
        if name.isdigit() and int(name) != os.getpid():
            with suppress(OSError):  # another user's, or gone
                inherited = Path(f"/proc/{name}/environ").read_bytes().split(b"\0")
                fields = _stat(int(name))
                if mark in inherited and fields is not None and fields[0] != "Z":
                    found.append(int(name))
    return found
