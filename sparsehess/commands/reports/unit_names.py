"""Names of units as they are printed in pictures."""

from __future__ import annotations

from typing import Any


def unit_told(facts: dict[str, Any]) -> str:
    """Return the unit of the frequencies of a run, empty where there is none. Not collective."""
    return unit_name(str((facts.get("frequencies") or {}).get("unit", "")))


def unit_name(unit: str) -> str:
    """Return a unit with its power raised: cm⁻¹ for cm^-1. Not collective."""
    return unit.replace("^-1", "⁻¹")
