"""Answers as JSON, in files that appear whole or on standard output."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from sparsehess.storage.atomic_files import write_file

# Version of the fields of all answers.
SCHEMA = 1


def write_json(path: str | os.PathLike[str], facts: dict[str, Any]) -> None:
    """Write JSON to a file, or to standard output for `-`.

    Not collective: rank 0 calls it.
    """
    write_text(path, json_text(facts, indent=2) + "\n")


def json_text(facts: dict[str, Any], indent: int | None = None) -> str:
    """Return facts as JSON, with null for what is no finite number.

    Not collective.
    """
    return json.dumps(_finite(facts), indent=indent, allow_nan=False)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write text to a file, or to standard output for `-`.

    Not collective: rank 0 calls it.
    """
    if str(path) == "-":
        print(text, end="", flush=True)
        return
    with write_file(Path(path)) as beside:
        beside.write_text(text)


def _finite(value: Any) -> Any:
    """Return facts with null for what is no finite number: JSON has no word for it."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
