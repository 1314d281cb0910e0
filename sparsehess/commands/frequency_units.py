"""Frequencies on the command line: what --units and --matrix-units mean, and --interval and --target in them."""

from __future__ import annotations

import argparse
import dataclasses
import math
from typing import TYPE_CHECKING, Any

from sparsehess.commands.problem_files import is_problem
from sparsehess.derivatives.units import CONSISTENT, Units
from sparsehess.errors import InputError

if TYPE_CHECKING:
    from sparsehess.derivatives.objective import Objective
    from sparsehess.eigen.problem.count import Count
    from sparsehess.eigen.problem.solve_spec import SolveSpec
    from sparsehess.eigen.problem.spectrum import Spectrum


def check_units(arguments: argparse.Namespace) -> None:
    """Refuse units that mean nothing for the problem, as far as flags tell. Not collective; alike on all ranks.

    Raises
    ------
    InputError
        --matrix-units without --units, names that are not known, or a matrix file without what the unit needs.
    """
    if arguments.units is None and arguments.matrix_units is not None:
        raise InputError("--matrix-units: no frequencies are asked for; give --units Hz too, or leave it out")
    if arguments.matrix_units is not None or not is_problem(arguments.input):
        find_units(arguments, None)


def check_units_of(arguments: argparse.Namespace, objective: Objective) -> None:
    """Refuse a unit that a problem does not tell enough for, before it is differentiated. Not collective.

    Raises
    ------
    InputError
        As `find_units`.
    """
    if getattr(arguments, "units", None) is not None:
        find_units(arguments, objective)


def find_units(arguments: argparse.Namespace, objective: Objective | None) -> Units | None:
    """Return what an eigenvalue means by the flags, or by the problem where these say nothing.

    Not collective; alike on all ranks.

    Parameters
    ----------
    objective
        The problem; None for a matrix file.

    Raises
    ------
    InputError
        The unit needs to know more of the matrices than is told.
    """
    unit, brought = arguments.units, None if objective is None else objective.units
    if unit is None:
        return brought
    if arguments.matrix_units is not None:
        stiffness, mass = arguments.matrix_units
        return Units.of_matrices(stiffness, mass, unit)
    if brought is not None:
        return brought.to(unit)
    what = "the entries are in, such as --matrix-units N/mm t, or eV/A^2 u"
    if arguments.mass is None and (objective is None or objective.mass is None):
        raise InputError(
            f"--units {unit}: there is no mass, so that an eigenvalue is no ω²; give --mass FILE, or, for a "
            f"matrix that is divided by masses, say with --matrix-units STIFFNESS MASS what {what}"
        )
    if unit not in CONSISTENT:
        raise InputError(f"--units {unit}: say with --matrix-units STIFFNESS MASS what {what}")
    return Units.consistent(unit)


def spec_in_eigenvalues(arguments: argparse.Namespace, spec: SolveSpec, units: Units | None) -> SolveSpec:
    """Return a spec whose interval or target is that of λ, where the flags give them as frequencies.

    Not collective.

    Raises
    ------
    InputError
        A frequency whose square is beyond double precision.
    """
    if arguments.units is None or units is None:
        return spec
    interval = target = None
    if spec.interval is not None:
        interval = tuple(units.to_eigenvalues(spec.interval).tolist())
    if spec.target is not None:
        target = float(units.to_eigenvalues(spec.target))
        if not math.isfinite(target):
            raise InputError(f"--target {spec.target:g} {units.frequency}: its square is beyond all numbers")
    return dataclasses.replace(spec, interval=interval, target=target)


def unit_facts(arguments: argparse.Namespace, units: Units | None) -> dict[str, Any] | None:
    """Return what JSON says of units. Not collective."""
    if units is None:
        return None
    asked = arguments.units is not None
    ends = arguments.interval if asked else None
    return {
        "frequency": units.frequency,
        "factor": units.factor,
        "matrices": arguments.matrix_units,
        "interval": None if ends is None else [end if math.isfinite(end) else None for end in ends],
        "target": arguments.target if asked else None,
    }


def frequency_facts(spectrum: Spectrum, units: Units | None) -> dict[str, Any] | None:
    """Return what JSON says of eigenvalues as frequencies. Not collective."""
    if units is None:
        return None
    values, errors = spectrum.eigenvalues, spectrum.bars
    return {
        "unit": units.frequency,
        "values": units.of_eigenvalues(values).tolist(),
        "errors": None if errors is None else units.of_errors(values, errors).tolist(),
    }


def count_place(count: Count, unit: str | None, factor: float) -> str:
    """Return where a count counts, as frequencies and as λ; as λ alone where no unit is known. Not collective."""
    if unit is None or count.place == "in all":
        return count.place
    low, high = (math.copysign(factor * abs(end) ** 0.5, end) for end in count.interval)
    if low > high:
        place = f"below {_told(high, unit)} and above {_told(low, unit)}"
    elif math.isfinite(low) and math.isfinite(high):
        place = f"between {_told(low, unit)} and {_told(high, unit)}"
    else:
        place = f"below {_told(high, unit)}" if math.isfinite(high) else f"above {_told(low, unit)}"
    return f"{place} (λ {count.place})"


def place_lines(facts: dict[str, Any]) -> list[str]:
    """Return which frequencies were asked for, and of which λ they are, as a line, or nothing. Not collective."""
    told = facts["units"]
    if told is None or (told["interval"] is None and told["target"] is None):
        return []
    unit = told["frequency"]
    if told["target"] is not None:
        return [f"asked for    the nearest to {_told(told['target'], unit)}, λ = {facts['target']:.6g}"]
    low, high = (_told(end, unit, way) for end, way in zip(told["interval"], ("-inf", "inf"), strict=True))
    ends = ["-inf" if facts["interval"][0] is None else f"{facts['interval'][0]:.6g}"]
    ends.append("inf" if facts["interval"][1] is None else f"{facts['interval'][1]:.6g}")
    return [f"asked for    all from {low} to {high}, λ from {ends[0]} to {ends[1]}"]


def _told(frequency: float | None, unit: str, infinite: str = "") -> str:
    """Return a frequency as tables print it, an imaginary one with its i."""
    if frequency is None:
        return infinite
    return f"{abs(frequency):g}{'i' if frequency < 0 else ''} {unit}"
