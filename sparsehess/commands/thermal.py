"""Thermochemistry of the command `modes`: what was asked for, and the answer for machines and people."""

from __future__ import annotations

import argparse
from typing import Any

from sparsehess.eigen.problem.count import finite_or_none
from sparsehess.errors import InputError
from sparsehess.hosts.ase.thermal_answer import Thermochemistry
from sparsehess.hosts.ase.thermodynamics import check_conditions

# Names of arguments, and of those of `thermochemistry`.
_GIVEN = {
    "pressure": "pressure",
    "thermo_model": "model",
    "low_modes": "low_modes",
    "low_cutoff": "cutoff",
    "symmetry_number": "symmetry_number",
    "spin": "spin",
    "geometry": "geometry",
    "imaginary": "imaginary",
}


def read_conditions(arguments: argparse.Namespace) -> dict[str, Any] | None:
    """Return the arguments of `thermochemistry` that were given, None where none is asked for.

    Not collective.

    Raises
    ------
    InputError
        One of them cannot be used, or there is no temperature for it.
    """
    given = {
        name: getattr(arguments, flag) for flag, name in _GIVEN.items() if getattr(arguments, flag) is not None
    }
    if arguments.temperature is None:
        for flag in _GIVEN:
            if getattr(arguments, flag) is not None:
                raise InputError(f"--{flag.replace('_', '-')} is for thermochemistry: give a --temperature too")
        return None
    given["temperature"] = arguments.temperature
    check_conditions(**given)
    return given


def thermal_facts(found: Thermochemistry) -> dict[str, Any]:
    """Return the JSON of thermochemistry. Not collective."""
    return {
        "model": found.model,
        "temperature": found.temperature,
        "pressure": found.pressure,
        "low_modes": found.low_modes,
        "cutoff": found.cutoff,
        "geometry": found.geometry,
        "symmetry_number": found.symmetry_number,
        "spin": found.spin,
        "energy": found.energy,
        "quantities": [
            {
                "name": name,
                "unit": "eV/K" if name == "entropy" else "eV",
                "value": finite_or_none(one.value),
                "low": finite_or_none(one.low),
                "high": finite_or_none(one.high),
            }
            for name, one in found.quantities().items()
        ],
        "used": found.used.tolist(),
        "unbounded": list(found.unbounded),
        "dominant": found.dominant,
        "share": found.share,
        "notes": list(found.notes),
    }


def thermal_lines(found: Thermochemistry) -> list[str]:
    """Return the answer for people, in lines. Not collective."""
    return ["", *found.quantity_lines(), *found.state_lines()]
