"""Flags of derivatives and colourings, by their names in the parsed arguments, and what they are by default."""

from __future__ import annotations

from sparsehess.errors import InputError

COLORING = {"coloring": None, "order": "best", "rule": None, "budget": 0.2, "blocks": 1}
DERIVATIVES = {"derivative": "auto", "pattern": "given", "points": 1, "no_verify": False, "no_repair": False}
SETTINGS = {"settings": ()}
CHECKPOINT = {"checkpoint": None, "resume": False, "checkpoint_interval": 600.0}
SEARCH = {name: COLORING[name] for name in ("order", "rule", "budget")}
TEMPLATES = {"budget": COLORING["budget"], "lattice": None}
WHICH = {"which": "smallest"}
ANSWERS = {"out": None, "plot": None}
POSITIONS = {"coordinates": None}
SAMPLES = {"samples": None, "steps": None}


def refuse(arguments, flags: dict, reason: str) -> None:
    """Raise InputError with a reason where one of these flags says something else than its default.

    Not collective; the same on every rank. Flags that the command does not have are passed over.
    """
    for name, default in flags.items():
        value = getattr(arguments, name, default)
        if (tuple(value) if isinstance(default, tuple) else value) != default:
            flag = "--set" if name == "settings" else "--" + name.replace("_", "-")
            raise InputError(f"{flag}: {reason}")
