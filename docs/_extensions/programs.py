"""How drivers are run for the gallery: as programs, told where they are, with words of a command line."""

import logging
from pathlib import Path
from typing import Any

OUT = Path(__file__).parents[2] / "build" / "docs"  # what a program writes

WORDS = {"training_curvature.py": ["--steps", "60", "--every", "20", "--out", str(OUT / "series.jsonl")]}


def prepare(_: dict[str, Any], program: dict[str, Any]) -> list[str]:
    """Return the words after the name of a program that is going to be run."""
    file = Path(program["src_file"])
    logging.getLogger("skfem").setLevel(logging.WARNING)  # it speaks of each form otherwise
    program["example_globals"]["__file__"] = str(file)
    return WORDS.get(file.name, [])
