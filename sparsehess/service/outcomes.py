"""How jobs of a spool have ended, in small files that appear whole."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from sparsehess.files import replaced

# What the service writes into the folder of a job and may still change or go when the outcome is there.
_CHANGING = ("attempts", "status.json", "cancel", "watchdog", "outcome.json")


def attempts(folder: Path) -> int:
    """Return how often a job was begun. Not collective."""
    return len(text(folder / "attempts").splitlines())


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
        whole = all(size(folder / name) >= least for name, least in outcome["files"].items())
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None
    return outcome if whole else None


def write_json(path: Path, facts: dict) -> None:
    """Write JSON to a file that appears whole. Not collective."""
    with replaced(path) as beside:
        beside.write_text(json.dumps(facts) + "\n")


def read_json(path: Path) -> dict:
    """Return what a JSON file says, nothing where there is none. Not collective."""
    try:
        facts = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def size(path: Path) -> int:
    """Return the bytes of a file, 0 where there is none. Not collective."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def text(path: Path) -> str:
    """Return how a file begins, nothing where there is none. Not collective."""
    try:
        return path.read_text(errors="replace")[:4000]
    except OSError:
        return ""
