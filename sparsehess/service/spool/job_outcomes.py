"""How jobs of a spool have ended, in small files that appear whole."""

from __future__ import annotations

import itertools
import json
import os
import time
from contextlib import suppress
from pathlib import Path

from sparsehess.storage.atomic_files import replace_file

# What the service writes into the folder of a job.
OWN = (
    "attempts",
    "status.json",
    "stuck",
    "submitter",
    "watchdog",
    "log",
    "result.json",
    "ending.json",
    "outcome.json",
)

# Of this, and may still change or go when the outcome is there.
_CHANGING = ("attempts", "status.json", "watchdog", "outcome.json")


def count_attempts(folder: Path) -> int:
    """Return how often a job was begun. Not collective."""
    return len(read_beginning(folder / "attempts").splitlines())


def count_fruitless_runs(folder: Path, saved: int) -> int:
    """Return how many runs of a job in a row, the last among them, have left no more saved than was before.

    Not collective. `saved` is what is now, in bytes; each line of `attempts` ends with what was when it began.
    """
    last = [line.rpartition(" ")[2] for line in read_beginning(folder / "attempts").splitlines()]
    sizes = [int(word) if word.isdecimal() else 0 for word in last] + [saved]
    count, best = 0, 0
    for before, after in itertools.pairwise(sizes):
        best = max(best, before)
        count = 0 if after > best else count + 1
    return count


def count_saved_bytes(folder: Path) -> int:
    """Return the bytes of all files in the folder of a job but those that the service writes. Not collective."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            if not (name in OWN and place == os.fspath(folder)):
                with suppress(OSError):
                    total += os.lstat(os.path.join(place, name)).st_size
    return total


def write_outcome(folder: Path, facts: dict) -> None:
    """Write that a job has ended, and how: the commit point. Not collective."""
    with os.scandir(folder) as entries:
        sizes = {
            one.name: one.stat().st_size
            for one in entries
            if one.is_file(follow_symlinks=False) and one.name not in _CHANGING
        }
    write_json(folder / "outcome.json", {"schema": 1, **facts, "ended": time.time(), "files": sizes})


def read_outcome(folder: Path) -> dict | None:
    """Return how a job has ended, None before it has, or where a power failure has torn files. Not collective."""
    try:
        outcome = json.loads((folder / "outcome.json").read_text())
        # Torn ones are shorter; a process that the job has left behind may still add to its log.
        whole = all(file_size(folder / name) >= least for name, least in outcome["files"].items())
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None
    return outcome if whole else None


def write_json(path: Path, facts: dict) -> None:
    """Write JSON to a file that appears whole, for all to read whom its folder lets in. Not collective."""
    with replace_file(path) as beside:
        beside.write_text(json.dumps(facts) + "\n")
        beside.chmod(0o644)


def read_json(path: Path) -> dict:
    """Return what a JSON file says, nothing where there is none. Not collective."""
    try:
        facts = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def file_size(path: Path) -> int:
    """Return the bytes of a file, 0 where there is none. Not collective."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def read_beginning(path: Path) -> str:
    """Return how a file begins, nothing where there is none. Not collective."""
    try:
        return path.read_text(errors="replace")[:4000]
    except OSError:
        return ""


def append_line(path: Path, line: str) -> None:
    """Append to a file, which is made if it is missing, and no link. Not collective."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a file that appears whole. Not collective."""
    with replace_file(path) as beside:
        beside.write_text(text)
