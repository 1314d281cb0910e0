"""The JSON Schema of what commands answer, as a file of the package."""

from __future__ import annotations

from importlib import resources

FILE = "answers.schema.json"


def schema_text() -> str:
    """Return the JSON Schema (draft 2020-12) of all answers, and of the small files of a spool.

    Not collective.
    """
    return resources.files("sparsehess.commands").joinpath(FILE).read_text(encoding="utf-8")
