"""Names of a spool and of what is in it: its folders, ids of jobs, and what is added to them.

    new/       being written; nobody else looks at it
    queued/    <order>.<job>, so that the names sort by priority, then by time of submission
    running/   <job>, with `attempts` (a line for each, which ends with the bytes that were saved when it began)
               and `status.json`
    done/      <job>, ended with status 0
    failed/    <job>, ended with another status, cancelled, or refused
    cancel/    <job>, an empty file: the end of the job is asked for

The folder of a job is named by its id, and in a spool of several users by <id>.<secret>: 128 random bits, without
which nobody reaches a folder in another that cannot be listed. The id is for everybody, the secret for who has
submitted the job.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from pathlib import Path

from sparsehess.runtime.printable import printable

STATES = ("queued", "running", "done", "failed")

# Folders into which who submits puts something, and all folders.
BOXES = ("new", "queued", "cancel")
FOLDERS = ("new", *STATES, "cancel")

# What the name of a job ends with while it is being cancelled, and while it is copied from another user's.
CANCELLED, COPY = ".cancelled", ".copy"

# What the name of another user's folder in the queue begins with once it is being copied.
TAKEN = "taken."

_ID = r"\d{8}-\d{6}-\d{6}-[0-9a-f]{6}"
_JOB = rf"({_ID})(?:\.([0-9a-f]{{32}}))?"
_NAME = re.compile(_JOB, re.ASCII)
_WORKING = re.compile(rf"({_JOB})\.[0-9a-f]{{8}}(?:{re.escape(CANCELLED)}|{re.escape(COPY)})", re.ASCII)
_QUEUED = re.compile(rf"(?:taken\.)?(\d{{4}})\.({_JOB})", re.ASCII)
_SECRET = re.compile(r"(?<=[0-9a-f]{6})\.[0-9a-f]{32}(?![0-9a-f])", re.ASCII)


def make_name(*, secret: bool) -> str:
    """Return a name that no other job has. Not collective."""
    now = time.time_ns()
    when = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now // 10**9))
    identity = f"{when}-{now // 1000 % 10**6:06d}-{secrets.token_hex(3)}"
    return f"{identity}.{secrets.token_hex(16)}" if secret else identity


def parse_name(name: str) -> tuple[str, str | None] | None:
    """Return (id, secret or None) of the name of a job, None where it is none. Not collective."""
    match = _NAME.fullmatch(name)
    return (match[1], match[2]) if match else None


def parse_queued(name: str) -> tuple[str, str] | None:
    """Return (order, name of the job) of a name in the queue, None where it is none. Not collective."""
    match = _QUEUED.fullmatch(name)
    return (match[1], match[2]) if match else None


def working_name(job: str, suffix: str) -> str:
    """Return a name for a folder that is becoming that of a job; who knows the job cannot foresee it.

    Not collective.
    """
    return f"{job}.{secrets.token_hex(4)}{suffix}"


def job_name(folder: str | os.PathLike[str]) -> str:
    """Return the name of the job of a folder, wherever it stands. Not collective."""
    name = Path(folder).name
    match = _WORKING.fullmatch(name)
    queued = parse_queued(name)
    return queued[1] if queued else match[1] if match else name


def job_id(folder: str | os.PathLike[str]) -> str:
    """Return the id of the job of a folder: what everybody may know of its name. Not collective."""
    return job_name(folder).partition(".")[0]


def has_secret(folder: str | os.PathLike[str]) -> bool:
    """Return whether nobody finds the folder of a job who was not told its name. Not collective."""
    parsed = parse_name(job_name(folder))
    return parsed is not None and parsed[1] is not None


def hide_secrets(text: str) -> str:
    """Return a text that names jobs by their ids alone. Not collective."""
    return _SECRET.sub("", text)


def show_queued(name: str) -> str:
    """Return a name in the queue as everybody may see it, on a terminal too. Not collective."""
    return job_id(name) if parse_queued(name) else printable(name, "")
