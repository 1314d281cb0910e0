"""Normal modes of many structures of a file, each by itself."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsehess import errors
from sparsehess.commands.output import SCHEMA, answer, process_facts, run_facts
from sparsehess.commands.reports.tables import format_table
from sparsehess.commands.structure_files import calculator_maker, load_frames
from sparsehess.commands.thermal import read_conditions, thermal_facts
from sparsehess.errors import CheckError, InputError, NotConverged
from sparsehess.hosts.ase.modes_of_each import ModesOfEach, StructureModes, normal_modes_of_each
from sparsehess.hosts.ase.objective import UNITS
from sparsehess.runtime.progress import SharedProgress
from sparsehess.runtime.short_repr import number_of
from sparsehess.storage import writers

if TYPE_CHECKING:
    from sparsehess.commands.call import Call

# So many of those that have failed are named in the message.
_NAMED = 3


def mode_arguments(call: Call) -> dict[str, Any]:
    """Return what flags say of how the modes of a structure are computed. Not collective."""
    arguments = call.arguments
    if arguments.molecule and arguments.no_project:
        raise InputError("--molecule: it says which rotations are projected out, and --no-project that none is")
    reach = arguments.reach
    return {
        "cutoff": arguments.cutoff,
        "reach": int(reach) if reach is not None and reach.isdecimal() else reach,
        "project": not arguments.no_project,
        "own": not arguments.differences,
        "molecule": arguments.molecule,
        "tol": arguments.tol,
        "options": call.options,
        "seed": arguments.seed,
    }


def run_modes_of_each(call: Call) -> int:
    """Compute normal modes of each of several structures of a file. Collective."""
    began = time.perf_counter()
    arguments, comm = call.arguments, call.comm
    if arguments.modes is not None:
        raise InputError(
            f"--modes {arguments.modes}: shapes for viewers are those of one structure: give one, --frames N, or "
            "-o FILE.h5, which has the shapes of all"
        )
    conditions = read_conditions(arguments)
    writers.check_writable(arguments.out, (".h5",), comm)
    frames, structures = load_frames(arguments.input, arguments.frames, comm)
    make = calculator_maker(arguments.calculator, arguments.settings, comm)
    progress = SharedProgress("structures", comm, arguments.quiet)
    found = normal_modes_of_each(
        structures,
        arguments.k,
        calculator=make,
        conditions=conditions,
        checkpoint=call.checkpoint,
        comm=comm,
        progress=progress,
        **mode_arguments(call),
    )
    progress.finish()
    facts = _facts(call, found, frames)
    facts["timings"] = {"total": time.perf_counter() - began}
    lines = _lines(found, facts)
    if arguments.out is not None:
        width = len(str(max(frames)))
        names = [f"{frame:0{width}d}" for frame in frames]
        told = {one["number"]: one for one in facts["structures"]}
        found.write(
            arguments.out,
            unit=arguments.units,
            names=names,
            facts={**facts, "answer": lines},
            facts_of=lambda one: told[one.number],
        )
    answer(call, facts, lines)
    short = "; ".join(filter(None, (facts["shortfall"], _lacking(facts))))
    if short:
        raise (CheckError if facts["shortfall"] is None else NotConverged)(short)
    return errors.DONE


def _facts(call: Call, found: ModesOfEach, frames: list[int]) -> dict[str, Any]:
    """Return the JSON. Collective."""
    arguments = call.arguments
    structures = [_structure_facts(call, one, frames[one.number]) for one in found]
    return {
        "schema": SCHEMA,
        "task": "modes_of_each",
        "calculator": arguments.calculator,
        "unit": arguments.units,
        "structures": structures,
        "done": len(found) - len(found.failed),
        "failed": [frames[one.number] for one in found.failed],
        "shortfall": _shortfall(found, frames),
        "temperature": arguments.temperature,
        "without_thermochemistry": [frames[one.number] for one in found if one.thermal_failure],
        "evaluations": sum(one.evaluations for one in found),
        **process_facts(call.comm),
        **run_facts(call, arguments.input),
    }


def _structure_facts(call: Call, one: StructureModes, frame: int) -> dict[str, Any]:
    """Return the JSON of a structure. Not collective."""
    per = UNITS.to(call.arguments.units).factor / UNITS.factor
    failed = bool(one.failure)
    limit = call.arguments.force_limit
    return {
        "number": one.number,
        "frame": frame,
        "formula": one.formula,
        "atoms": one.atoms,
        "n": None if failed else one.n,
        "k": len(one.frequencies),
        "eigenvalues": one.eigenvalues.tolist(),
        "residuals": one.residuals.tolist(),
        "frequencies": (per * one.frequencies).tolist(),
        "errors": (per * one.errors).tolist(),
        "imaginary": one.imaginary.tolist(),
        "zero": one.zero.tolist(),
        "minimum": one.minimum,
        "certified": one.certified,
        "rigid": list(one.rigid),
        "force_max": None if failed else one.force_max,
        "force_atom": None if failed else one.force_atom,
        "at_rest": None if failed else bool(one.force_max <= limit),
        "evaluations": one.evaluations,
        "hint": one.hint or None,
        "thermochemistry": None if one.thermal is None else thermal_facts(one.thermal),
        "no_thermochemistry": one.thermal_failure or None,
        "failure": one.failure or None,
        "exit": one.status,
    }


def _shortfall(found: ModesOfEach, frames: list[int]) -> str | None:
    """Return which structures have no modes, in words; None if all have. Not collective."""
    failed = found.failed
    if not failed:
        return None
    named = [f"frame {frames[one.number]} ({one.formula}): {one.failure}" for one in failed]
    return f"{len(failed)} of {number_of(len(found), 'structure')} without modes: {_first_of(named)}"


def _lacking(facts: dict[str, Any]) -> str:
    """Return which structures have modes and no thermochemistry, in words; empty if all have. Not collective."""
    named = [
        f"frame {one['frame']} ({one['formula']}): {one['no_thermochemistry']}"
        for one in facts["structures"]
        if one["no_thermochemistry"] is not None
    ]
    if not named:
        return ""
    many = number_of(len(facts["structures"]), "structure")
    return f"{len(named)} of {many} without thermochemistry: {_first_of(named)}"


def _first_of(named: list[str]) -> str:
    more = f"; and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    return "; ".join(named[:_NAMED]) + more


def _lines(found: ModesOfEach, facts: dict[str, Any]) -> str:
    """Return the answer for people. Not collective."""
    rows, unit = [], facts["unit"]
    for one in facts["structures"]:
        values, failed = np.array(one["frequencies"]), one["failure"] is not None
        ends = [_shown(value) for value in (values[0], values[-1])] if len(values) else ["-", "-"]
        force = "-" if failed else f"{one['force_max']:.2g}"
        rows.append(
            [
                str(one["frame"]),
                one["formula"],
                "-" if failed else str(one["k"]),
                *ends,
                "-" if failed else str(int(np.sum(one["imaginary"]))),
                force,
                "failed" if failed else _verdict(one),
            ]
        )
    width = max(len(row[-1]) for row in rows)
    for row in rows:
        row[-1] = row[-1].ljust(width)
    heads = ["frame", "formula", "modes", f"lowest {unit}", f"highest {unit}", "imaginary", "force eV/Å", ""]
    told = Counter("failed" if one["failure"] is not None else _verdict(one) for one in facts["structures"])
    lines = [
        f"structures   {len(found)} of {facts['run']['name']} by {facts['calculator']}",
        "",
        format_table(heads, rows),
        "",
        f"in all       {', '.join(f'{many} {verdict}' for verdict, many in told.most_common())}",
        f"derivatives  {facts['evaluations']} calls of the calculator",
    ]
    lines += _thermal_lines(facts)
    lines += [
        f"failed       frame {one['frame']}: {one['failure']}" for one in facts["structures"] if one["failure"]
    ]
    for hint in dict.fromkeys(one["hint"] for one in facts["structures"] if one["hint"] is not None):
        frames = [str(one["frame"]) for one in facts["structures"] if one["hint"] == hint]
        more = f" and {len(frames) - _NAMED} more" if len(frames) > _NAMED else ""
        lines.append(f"note         frame {', '.join(frames[:_NAMED])}{more}: {hint}")
    lines.append(f"seconds      total {facts['timings']['total']:.2f}")
    return "\n".join(lines)


def _thermal_lines(facts: dict[str, Any]) -> list[str]:
    """Return what is told of energies and entropies where they were asked for, in lines. Not collective."""
    if facts["temperature"] is None:
        return []
    rows = []
    for one in facts["structures"]:
        if one["thermochemistry"] is None:
            continue
        told = {each["name"]: each for each in one["thermochemistry"]["quantities"]}
        free = told.get("gibbs", told["helmholtz"])
        ends = [free["low"], free["value"], free["high"]]
        bar = "unbounded" if None in ends else f"{max(ends[2] - ends[1], ends[1] - ends[0]):.2g}"
        quantities = (told["zero_point"], 1, told["internal_energy"], 1, told["entropy"], 1e3, free, 1)
        shown = [
            "-" if each["value"] is None else f"{per * each['value']:.6f}"
            for each, per in zip(quantities[::2], quantities[1::2], strict=True)
        ]
        rows.append([str(one["frame"]), one["formula"], *shown, bar, "G" if "gibbs" in told else "F"])
    lines = [f"thermo       at {facts['temperature']:g} K: G of an ideal gas, F where the model is harmonic"]
    if rows:
        heads = ["frame", "formula", "zero point eV", "energy eV", "entropy meV/K", "free energy eV", "±", ""]
        lines = ["", format_table(heads, rows), "", *lines]
    return lines + [
        f"no thermo    frame {one['frame']}: {one['no_thermochemistry']}"
        for one in facts["structures"]
        if one["no_thermochemistry"] is not None
    ]


def _shown(value: float) -> str:
    return f"{abs(value):.2f}{'i' if value < 0 else ' '}"


def _verdict(one: dict[str, Any]) -> str:
    """Return what a structure is, in words. Not collective."""
    if not one["at_rest"]:
        return "not at rest"
    if any(one["imaginary"]):
        return "no minimum"
    return "minimum" if one["minimum"] else "not told"
