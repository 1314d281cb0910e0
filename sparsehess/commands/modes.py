"""Normal modes of the atoms of a structure file, by a calculator of ASE."""

from __future__ import annotations

import argparse
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsehess import errors
from sparsehess.commands.frequency_units import count_place
from sparsehess.commands.modes_of_each import mode_arguments, run_modes_of_each
from sparsehess.commands.output import SCHEMA, answer, process_facts, run_facts
from sparsehess.commands.reports.tables import count_line, format_table
from sparsehess.commands.structure_files import is_slice, load_atoms, load_calculator
from sparsehess.commands.summaries import count_facts, derivative_facts, hessian_lines
from sparsehess.commands.thermal import read_conditions, thermal_facts, thermal_lines
from sparsehess.errors import CheckError, InputError
from sparsehess.hosts.ase.mode_files import check_mode_file
from sparsehess.hosts.ase.objective import UNITS, free_coordinates
from sparsehess.hosts.ase.thermal_answer import Thermochemistry
from sparsehess.hosts.ase.thermodynamics import thermochemistry
from sparsehess.hosts.ase.vibrations import NormalModes, normal_modes
from sparsehess.runtime import agreement
from sparsehess.runtime.progress import SharedProgress
from sparsehess.storage import writers

if TYPE_CHECKING:
    from sparsehess.commands.call import Call
    from sparsehess.derivatives.units import Units


# Å that the atom which moves most swings where nobody says.
_AMPLITUDE = 0.3


def run_modes(call: Call) -> int:
    """Compute normal modes of the atoms of a file. Collective."""
    began = time.perf_counter()
    arguments, comm = call.arguments, call.comm
    if not arguments.force_limit > 0:
        raise InputError(f"--force-limit {arguments.force_limit:g}: a force above 0, in eV/Å")
    if arguments.amplitude is not None and not str(arguments.modes).endswith(".traj"):
        raise InputError("--amplitude: it is for --modes FILE.traj, where atoms move; leave it out")
    amplitude = _AMPLITUDE if arguments.amplitude is None else arguments.amplitude
    if is_slice(arguments.frames):
        return run_modes_of_each(call)
    writers.check_writable(arguments.out, writers.RESULTS, comm)
    with agreement(comm):
        if comm.rank == 0 and arguments.modes is not None:
            check_mode_file(arguments.modes, amplitude)
    atoms = load_atoms(arguments.input, int(arguments.frames), comm)
    atoms.calc = load_calculator(arguments.calculator, arguments.settings, comm)
    units = UNITS.to(arguments.units)
    conditions = read_conditions(arguments)
    progress = SharedProgress("colours evaluated", comm, arguments.quiet)
    how = {**mode_arguments(call), "checkpoint": call.checkpoint, "progress": progress}
    with closing(normal_modes(atoms, arguments.k, comm=comm, **how)) as modes:
        progress.finish()
        facts = _facts(call, modes, units)
        thermal = _thermal(modes, conditions, facts)
        facts["timings"] = {
            **modes.hessian.timings,
            **modes.spectrum.timings,
            "total": time.perf_counter() - began,
        }
        lines = _lines(modes, facts, units, [] if thermal is None else thermal_lines(thermal))
        if arguments.modes is not None:
            modes.write(arguments.modes, unit=units.frequency, amplitude=amplitude)
        if arguments.out is not None:
            kept = {**facts, "answer": lines}
            writers.write_results(arguments.out, kept, _arrays(modes, units), modes.spectrum.vectors, comm)
        answer(call, facts, lines)
        modes.hessian.pattern.free()
    comm.Barrier()
    if conditions is not None and thermal is None:
        raise CheckError(facts["notes"][-1])
    return errors.DONE


def _thermal(
    modes: NormalModes, conditions: dict[str, Any] | None, facts: dict[str, Any]
) -> Thermochemistry | None:
    """Return the thermochemistry that is asked for, None where the modes have none. Collective.

    The modes are an answer all the same; the last of the notes says why.
    """
    facts["thermochemistry"] = None
    if conditions is None:
        return None
    try:
        found = thermochemistry(modes, **conditions)
    except InputError as error:
        facts["notes"].append(str(error))
        return None
    facts["thermochemistry"] = thermal_facts(found)
    return found


def _facts(call: Call, modes: NormalModes, units: Units) -> dict[str, Any]:
    """Return the JSON of `modes`. Collective."""
    spectrum, hessian, atoms = modes.spectrum, modes.hessian, modes.atoms
    per = units.factor / UNITS.factor
    return {
        "schema": SCHEMA,
        "task": "modes",
        "n": hessian.pattern.n,
        "nnz": hessian.pattern.nnz,
        "atoms": len(atoms),
        "formula": atoms.get_chemical_formula(),
        "calculator": type(atoms.calc).__name__,
        "own": hessian.objective.hvp is not None,
        "k": len(spectrum.eigenvalues),
        "eigenvalues": spectrum.eigenvalues.tolist(),
        "residuals": spectrum.residuals.tolist(),
        "frequencies": {
            "unit": units.frequency,
            "values": (per * modes.frequencies).tolist(),
            "errors": (per * modes.errors).tolist(),
        },
        "imaginary": modes.imaginary.tolist(),
        "zero": modes.zero.tolist(),
        "minimum": modes.minimum,
        "count": count_facts(spectrum.count),
        "rigid": [{"name": name, "frequency": per * value} for name, value in modes.rigid.items()],
        "resisted": per * modes.resisted,
        "moved": (per * modes.moved).tolist(),
        "shape": modes.shape,
        "forces": {
            "largest": modes.force_max,
            "atom": modes.force_atom,
            "rms": modes.force_rms,
            "limit": call.arguments.force_limit,
            "passed": modes.force_max <= call.arguments.force_limit,
        },
        "error": hessian.error,
        **derivative_facts(hessian),
        "notes": _notes(call.arguments, modes),
        **process_facts(call.comm),
        **run_facts(call, hessian.objective.name),
    }


def _notes(arguments: argparse.Namespace, modes: NormalModes) -> list[str]:
    """Return what is to be said of structure and calculator, a sentence each. Not collective."""
    notes, name = [], type(modes.atoms.calc).__name__
    if not modes.force_max <= arguments.force_limit:
        symbol = modes.atoms.symbols[modes.force_atom]
        notes.append(
            f"not at rest: a force of {modes.force_max:.3g} eV/Å is left on atom {modes.force_atom} ({symbol}), "
            f"above {arguments.force_limit:g}: relax first with this calculator, as by ase.optimize.BFGS(atoms)"
            f".run(fmax={arguments.force_limit:g})"
        )
    objective = modes.hessian.objective
    if objective.gradient is None:
        notes.append(f"{name} has energies and no forces: second differences of energies have few digits")
    if objective.hvp is not None:
        notes.append(
            f"second derivatives are those that {name} has itself; along a random line they agree with "
            "differences of its forces"
        )
    if modes.hint:
        notes.append(modes.hint)
    return notes


def _arrays(modes: NormalModes, units: Units) -> dict[str, np.ndarray]:
    """Return what a stored result has beside facts and vectors. Not collective."""
    atoms, per = modes.atoms, units.factor / UNITS.factor
    return {
        "eigenvalues": modes.spectrum.eigenvalues,
        "residuals": modes.spectrum.residuals,
        "frequencies": per * modes.frequencies,
        "frequency_errors": per * modes.errors,
        "numbers": atoms.get_atomic_numbers(),
        "positions": atoms.get_positions(),
        "masses": atoms.get_masses(),
        "cell": atoms.get_cell().array,
        "pbc": atoms.get_pbc(),
        "free": free_coordinates(atoms),
    }


def _lines(modes: NormalModes, facts: dict[str, Any], units: Units, thermal: list[str]) -> str:
    """Return the answer for people. Not collective."""
    told, spectrum = facts["frequencies"], modes.spectrum
    rows = []
    for number, (value, error) in enumerate(zip(told["values"], told["errors"], strict=True)):
        imaginary, zero = modes.imaginary[number], modes.zero[number]
        note = "zero to its accuracy" if zero else "imaginary" if imaginary else ""
        shown = f"{abs(value):.4f}" if abs(value) >= 1 else f"{abs(value):.6g}"
        rows.append([str(number + 1), shown + ("i" if imaginary else " "), f"{error:.2g}", note])
    width = max((len(row[-1]) for row in rows), default=0)
    for row in rows:
        row[-1] = row[-1].ljust(width)
    lines = [hessian_lines(modes.hessian, facts), f"solver       {spectrum.method} ({spectrum.reason})"]
    if rows:
        lines += ["", format_table(["mode", f"{units.frequency} ", "±", ""], rows), ""]
    else:
        lines.append("modes        none: nothing vibrates")
    if spectrum.count is not None:
        place = count_place(spectrum.count, units.frequency, units.factor)
        nulls, zeros = len(modes.rigid), int(modes.zero.sum())
        lines.append(
            f"count        {count_line(spectrum.count, nulls, tuple(modes.rigid), zeros, len(rows), place)}"
        )
    lines += modes.state_lines(units.frequency)
    lines += [f"note         {note}" for note in facts["notes"]]
    lines += thermal
    timings = facts["timings"]
    lines.append(f"seconds      total {timings['total']:.2f}")
    return "\n".join(lines)
