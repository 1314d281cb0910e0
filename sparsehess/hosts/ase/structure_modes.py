"""Normal modes of one structure of many, as numbers, and how they are packed for files that grow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from sparsehess.hosts.ase.thermal_answer import Bounded, Thermochemistry
from sparsehess.runtime.short_repr import ShortRepr, number_of

# Arrays of a structure, in the order of the columns in which they are packed.
_COLUMNS = ("frequencies", "errors", "eigenvalues", "residuals", "imaginary", "zero")
_FLAGS = ("imaginary", "zero")


def _numbers() -> np.ndarray:
    return np.empty(0)


def _flags() -> np.ndarray:
    return np.empty(0, bool)


@dataclass(frozen=True, eq=False, repr=False)
class StructureModes(ShortRepr):
    """Normal modes of one structure of many, as numbers; the same on every rank.

    Attributes
    ----------
    number
        Of the structure, from 0.
    formula
        Its chemical formula.
    atoms
        How many there are.
    n
        Coordinates that are free.
    frequencies, errors
        (k,) in cm⁻¹, ascending, and their error bars; imaginary ones are negative. Empty, as those below, where it
        failed.
    eigenvalues, residuals
        (k,) of the Hessian over the masses, in eV/Å²/amu, and backward errors.
    imaginary, zero
        (k,) bool: along which the energy falls, and which are zero, to the accuracy of the forces.
    minimum
        Whether no mode is imaginary, by a certified count; None where that is not known.
    certified
        Whether a count has shown that no mode is missing among them; None where none was made.
    rigid
        Names of the rigid motions that were projected out.
    force_max, force_atom
        The largest force that is left, in eV/Å, and on which atom; infinite and -1 where it failed.
    evaluations
        Calls of the calculator.
    hint
        That it seems to be a molecule in a box, and was not taken so; empty where not.
    thermal, thermal_failure
        Energies and entropies at a temperature where they were asked for, and why there are none; None and empty.
    failure
        Why there are no modes, in words; empty where there are.
    status
        Exit status of that, 0 where there are.
    """

    number: int
    formula: str
    atoms: int
    n: int = 0
    frequencies: np.ndarray = field(default_factory=_numbers)
    errors: np.ndarray = field(default_factory=_numbers)
    eigenvalues: np.ndarray = field(default_factory=_numbers)
    residuals: np.ndarray = field(default_factory=_numbers)
    imaginary: np.ndarray = field(default_factory=_flags)
    zero: np.ndarray = field(default_factory=_flags)
    minimum: bool | None = None
    certified: bool | None = None
    rigid: tuple[str, ...] = ()
    force_max: float = np.inf
    force_atom: int = -1
    evaluations: int = 0
    hint: str = ""
    thermal: Thermochemistry | None = None
    thermal_failure: str = ""
    failure: str = ""
    status: int = 0

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        yield f"number {self.number}, {self.formula}"
        if self.failure:
            yield "failed"
        elif len(self.frequencies):
            found = self.frequencies
            yield f"{number_of(len(found), 'mode')} from {found[0]:.6g} to {found[-1]:.6g} cm^-1"

    def told(self) -> str:
        """Return what was found, for people. Not collective."""
        if self.failure:
            return f"failed: {self.failure}"
        found = self.frequencies
        if not len(found):
            return "nothing vibrates"
        reach = f"{found[0]:.2f}" if len(found) == 1 else f"{found[0]:.2f} to {found[-1]:.2f}"
        imaginary = int(self.imaginary.sum())
        return f"{number_of(len(found), 'mode')}, {reach} cm^-1{f', {imaginary} imaginary' if imaginary else ''}"

    def facts(self) -> dict[str, Any]:
        """Return what is neither an array nor thermochemistry. Not collective."""
        told = {
            each.name: getattr(self, each.name) for each in fields(self) if each.name not in (*_COLUMNS, "thermal")
        }
        return {name: value.item() if isinstance(value, np.generic) else value for name, value in told.items()}

    def packed(self) -> tuple[dict[str, Any], np.ndarray]:
        """Return facts as JSON, and (k, 6) the arrays, of which `unpacked` makes the same to the last bit.

        Not collective.
        """
        thermal = None if self.thermal is None else _packed_thermal(self.thermal)
        columns = [np.asarray(getattr(self, name), np.float64) for name in _COLUMNS]
        return {**self.facts(), "rigid": list(self.rigid), "thermal": thermal}, np.stack(columns, axis=1)

    @classmethod
    def unpacked(cls, facts: dict[str, Any], columns: np.ndarray) -> StructureModes:
        """Return what was packed. Not collective."""
        thermal = None if facts["thermal"] is None else _unpacked_thermal(facts["thermal"])
        arrays = {name: column.copy() for name, column in zip(_COLUMNS, columns.T, strict=True)}
        arrays |= {name: arrays[name] != 0 for name in _FLAGS}
        return cls(**{**facts, **arrays, "rigid": tuple(facts["rigid"]), "thermal": thermal})


def _packed_thermal(found: Thermochemistry) -> dict[str, Any]:
    """Return JSON: Python writes floats with all of their digits."""
    out: dict[str, Any] = {}
    for each in fields(found):
        value = getattr(found, each.name)
        if isinstance(value, Bounded):
            value = {"value": value.value, "low": value.low, "high": value.high, "widths": value.widths.tolist()}
        out[each.name] = value.tolist() if isinstance(value, np.ndarray) else value
    return out


def _unpacked_thermal(packed: dict[str, Any]) -> Thermochemistry:
    bounded = {
        name: Bounded(one["value"], one["low"], one["high"], np.array(one["widths"], np.float64))
        for name, one in packed.items()
        if isinstance(one, dict)
    }
    return Thermochemistry(
        **{
            **packed,
            **bounded,
            "used": np.array(packed["used"], bool),
            "frequencies": np.array(packed["frequencies"], np.float64),
            "ends": np.array(packed["ends"], np.float64).reshape(-1, 2),
            "unbounded": tuple(packed["unbounded"]),
            "notes": tuple(packed["notes"]),
        }
    )
