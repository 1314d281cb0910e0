"""Flags of derivatives and colourings, by their names in the parsed arguments, and what they are by default."""

from __future__ import annotations

from sparsehess.errors import InputError

COLORING = {"coloring": None, "order": "best", "rule": None, "budget": 0.2, "blocks": 1}
DERIVATIVES = {"derivative": "auto", "pattern": "given", "points": 1, "no_verify": False, "no_repair": False}
SETTINGS = {"settings": ()}
CHECKPOINT = {"checkpoint": None, "resume": False, "checkpoint_interval": 600.0}


def refuse(arguments, flags: dict, reason: str) -> None:
    """Raise InputError with a reason where one of these flags says something else than its default.

    Not collective; the same on every rank.
    """
    for name, default in flags.items():
        value = getattr(arguments, name)
        if value and value != default:
            flag = "--set" if name == "settings" else "--" + name.replace("_", "-")
            raise InputError(f"{flag}: {reason}")
