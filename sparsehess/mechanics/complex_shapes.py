"""Complex modes on meshes: how far their nodes swing, and what files tell of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from sparsehess.derivatives.units import Units
from sparsehess.storage.mode_records import ModeRecord


def farthest(moved: np.ndarray) -> np.ndarray:
    """Return (m,) how far each node is from its place at most while a mode (m, 3) swings.

    Not collective. A node of a complex mode goes around an ellipse, Re(a exp(iωt)); the half of its longer axis is
    the root of (aᴴa + |aᵀa|) / 2, as |Re(a exp(iφ))|² = (aᴴa + Re(aᵀa exp(2iφ))) / 2.
    """
    if not np.iscomplexobj(moved):
        return np.linalg.norm(moved, axis=1)
    sizes = np.abs(moved).max(axis=1, initial=0.0)
    parts = moved / np.where(sizes > 0, sizes, 1.0)[:, None]  # so that squares neither vanish nor overflow
    squares = (np.abs(parts) ** 2).sum(axis=1), np.abs((parts**2).sum(axis=1))
    return sizes * np.sqrt((squares[0] + squares[1]) / 2)


def complex_record(facts: dict[str, Any], turns: bool, scale: float | None) -> ModeRecord:
    """Return what a file tells of complex modes beside their shapes, from the JSON of `damped`. Not collective."""
    values = np.array([complex(*pair) for pair in facts["eigenvalues"]], np.complex128)
    numbers = {"eigenvalue_real": values.real, "eigenvalue_imaginary": values.imag}
    frequencies, hertz = facts.get("frequencies"), None
    names = [f"mode_{number}_{one.real:.6g}{one.imag:+.6g}i" for number, one in enumerate(values, 1)]
    if frequencies is not None:
        unit = str(frequencies["unit"])
        shown = np.asarray(frequencies["values"], np.float64)
        numbers[f"frequency_{plain_unit(unit)}"] = shown
        names = [f"mode_{number}_{one:.6g}_{plain_unit(unit)}" for number, one in enumerate(shown, 1)]
        per = Units(unit, 1.0).to("Hz").factor
        hertz = per * shown
        values = 2 * np.pi * per * float(facts["units"]["factor"]) * values
    numbers["damping_ratio"] = np.asarray(facts["damping_ratios"], np.float64)
    numbers["residual"] = np.asarray(facts["residuals"], np.float64)
    said, certified = told_of_count(facts)
    numbers["none_missed"] = np.full(len(values), float(certified))
    told = f"{said}; {told_of_scale(scale, 'largest entry 1')}; moves as real cos wt - imaginary sin wt"
    return ModeRecord(tuple(names), values, hertz, numbers, told, buckling=False, turns=turns, complex=True)


def told_of_count(facts: dict[str, Any]) -> tuple[str, bool]:
    """Return what a file says of the count of a run, and whether it is certified. Not collective."""
    certified = bool((facts.get("count") or {}).get("certified"))
    return ("none missed (certified by a count)" if certified else "not certified that none was missed"), certified


def told_of_scale(scale: float | None, found: str) -> str:
    """Return how modes are scaled: as they are found, or to a largest translation. Not collective."""
    return f"scaled to {found}" if scale is None else f"scaled to a largest translation of {scale:g}"


def plain_unit(unit: str) -> str:
    """Return the name of a unit as a part of a name: rad_s, cm-1. Not collective."""
    return unit.replace("/", "_").replace("^", "")
