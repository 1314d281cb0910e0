"""Phonons of a crystal: bands and densities of states, of phonopy's files or by a calculator of ASE."""

from __future__ import annotations

import argparse
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsehess import errors
from sparsehess.commands.output import SCHEMA, answer, process_facts, run_facts
from sparsehess.commands.reports import plots
from sparsehess.commands.reports.tables import format_table
from sparsehess.commands.structure_files import load_atoms, load_calculator
from sparsehess.crystals.bands import Bands
from sparsehess.crystals.densities import PhononDensity
from sparsehess.crystals.force_constants import ForceConstants
from sparsehess.crystals.modes import UNITS
from sparsehess.crystals.phonopy_files import read_force_constants
from sparsehess.crystals.solver import Phonons, phonons
from sparsehess.errors import CheckError, InputError
from sparsehess.hosts.ase.crystal_forces import force_constants
from sparsehess.runtime.progress import SharedProgress
from sparsehess.runtime.short_repr import number_of
from sparsehess.storage import writers

if TYPE_CHECKING:
    from sparsehess.commands.call import Call

# Of each special point so many modes are printed: the lowest, and the highest one.
_SHOWN = 6

# Wave vectors of bands where nobody says how many.
_POINTS = 200

# Of the largest entry, by how much force constants may be asymmetric and nothing is said.
_ASKEW = 0.1


def run_phonons(call: Call) -> int:
    """Compute phonons of a crystal, with a bound on each. Collective."""
    began = time.perf_counter()
    arguments, comm = call.arguments, call.comm
    _check(call)
    writers.check_writable(arguments.out, writers.RESULTS, comm)
    writers.check_writable(arguments.plot, plots.SUFFIXES, comm)
    constants, calculator = _constants(call)
    taken = time.perf_counter() - began
    solid = phonons(
        constants,
        sum_rule=not arguments.no_sum_rule,
        polar=not arguments.no_polar,
        nac=arguments.nac,
        comm=comm,
    )
    per = UNITS.to(arguments.units).factor / UNITS.factor
    bands = density = None
    if arguments.path is not None or arguments.mesh is None:
        bands = solid.bands(arguments.path, _POINTS if arguments.points is None else arguments.points)
    if arguments.mesh is not None:
        width = None if arguments.width is None else arguments.width / per
        density = solid.density(arguments.mesh, width=width)
    facts = _facts(call, solid, constants, calculator, bands, density)
    facts["timings"] = {
        "derivatives": taken,
        "solve": time.perf_counter() - began - taken,
        "total": time.perf_counter() - began,
    }
    lines = _lines(facts)
    if arguments.out is not None:
        kept = {**facts, "answer": lines}
        writers.write_results(arguments.out, kept, _arrays(solid, bands, density, per), (), comm)
    draw = arguments.plot and partial(plots.plot_phonons, arguments.plot, facts, constants.primitive.formula)
    answer(call, facts, lines, draw or None)
    comm.Barrier()
    if not facts["certified"]:
        raise CheckError("some wave vectors are not certified: `certified` of bands and density tell how many are")
    return errors.DONE


def _check(call: Call) -> None:
    """Refuse flags that contradict each other. Not collective; alike on all ranks."""
    arguments: argparse.Namespace = call.arguments
    if arguments.mesh is None and arguments.width is not None:
        raise InputError("--width: it is of the density of states; give --mesh too, or leave it out")
    if arguments.mesh is not None and arguments.path is None and arguments.points is not None:
        raise InputError("--points: they are of bands, which --mesh alone has none of; give --path too")
    if arguments.no_polar and arguments.nac is not None:
        raise InputError("--nac: it is of the field that --no-polar leaves out; leave one of them out")
    for name in call.options:
        raise InputError(f"-{name}: phonons takes no options of a solver; leave it out")
    if arguments.calculator is None:
        for name, default in (
            ("supercell", None),
            ("settings", []),
            ("cutoff", None),
            ("reach", None),
            ("frame", -1),
        ):
            if getattr(arguments, name) != default:
                flag = "--set" if name == "settings" else f"--{name}"
                raise InputError(f"{flag}: it is for --calculator; leave it out, or name a calculator")
        return
    for name in ("cell", "born", "nac"):
        if getattr(arguments, name) is not None:
            raise InputError(f"--{name}: it belongs to phonopy's files, not to --calculator; leave it out")
    if arguments.supercell is None:
        raise InputError("--calculator: say how often the cell is repeated, such as --supercell 4 4 4")


def _constants(call: Call) -> tuple[ForceConstants, str | None]:
    """Return the force constants, and the class of the calculator. Collective."""
    arguments, comm = call.arguments, call.comm
    if arguments.calculator is None:
        return read_force_constants(arguments.input, arguments.cell, born=arguments.born, comm=comm), None
    atoms = load_atoms(arguments.input, arguments.frame, comm)
    atoms.calc = load_calculator(arguments.calculator, arguments.settings, comm)
    reach = arguments.reach
    progress = SharedProgress("coordinates moved", comm, arguments.quiet)
    found = force_constants(
        atoms,
        arguments.supercell,
        cutoff=arguments.cutoff,
        reach=int(reach) if reach is not None and reach.isdecimal() else reach,
        seed=arguments.seed,
        comm=comm,
        progress=progress,
    )
    progress.finish()
    return found, type(atoms.calc).__name__


def _facts(
    call: Call,
    solid: Phonons,
    constants: ForceConstants,
    calculator: str | None,
    bands: Bands | None,
    density: PhononDensity | None,
) -> dict[str, Any]:
    """Return the JSON of `phonons`. Collective."""
    cell, arguments = constants.primitive, call.arguments
    found = [one.modes for one in (bands, density) if one is not None]
    return {
        "schema": SCHEMA,
        "task": "phonons",
        "atoms": len(cell),
        "formula": cell.formula,
        "lattice": cell.lattice.tolist(),
        "periodic": list(cell.periodic),
        "cells": constants.images.count,
        "pairs": len(constants.first),
        "source": constants.name,
        "calculator": calculator,
        "calls": constants.evaluations,
        "error": constants.error,
        "sum_rule": {
            "drift": solid.drift,
            "asymmetry": solid.asymmetry,
            "imposed": not arguments.no_sum_rule,
        },
        "polar": solid.constants.polar is not None,
        "nac": solid.nac,
        "unit": arguments.units,
        "bands": None if bands is None else _band_facts(bands, arguments.units),
        "density": None if density is None else _density_facts(density, arguments.units),
        "certified": bool(all(one.certified.all() for one in found)),
        "scale": found[0].scale,
        "how": found[0].how,
        "notes": _notes(constants),
        **process_facts(call.comm),
        **run_facts(call, constants.name),
    }


def _band_facts(bands: Bands, unit: str) -> dict[str, Any]:
    modes, per = bands.modes, UNITS.to(unit).factor / UNITS.factor
    lowest, where = bands.lowest
    return {
        "labels": [{"name": name, "distance": place} for place, name in bands.path.labels],
        "q": modes.q.tolist(),
        "distances": bands.path.distances.tolist(),
        "frequencies": (per * modes.frequencies).tolist(),
        "bounds": modes.bounds.tolist(),
        "certified": int(modes.certified.sum()),
        "imaginary": int(modes.imaginary.sum()),
        "lowest": per * lowest,
        "lowest_at": where.tolist(),
        "highest": per * float(modes.frequencies.max()),
    }


def _density_facts(density: PhononDensity, unit: str) -> dict[str, Any]:
    per = UNITS.to(unit).factor / UNITS.factor
    return {
        "mesh": list(density.mesh),
        "wave_vectors": len(density.weights),
        "width": per * density.width,
        "grid": (per * density.frequencies).tolist(),
        "states": (density.states / per).tolist(),
        "below": density.below.tolist(),
        "certified": int(density.modes.certified.sum()),
        "imaginary": density.imaginary,
    }


def _notes(constants: ForceConstants) -> list[str]:
    """Return what is to be said of crystal and forces, a sentence each. Not collective."""
    polar, found = constants.polar, []
    size = float(np.abs(constants.blocks).max(initial=0.0))
    if constants.asymmetry > _ASKEW * size:
        found.append(
            f"force constants of up to {size:.2g} eV/Å^2 are asymmetric by {constants.asymmetry:.2g}: are their "
            "atoms in the order of the supercell?"
        )
    if polar is not None and polar.excess > 1e-3 * np.abs(polar.charges).max():
        found.append(
            f"Born charges add up to {polar.excess:.2g} e in the cell, which is neutral: all give a share of it"
        )
    return found


def _arrays(
    solid: Phonons, bands: Bands | None, density: PhononDensity | None, per: float
) -> dict[str, np.ndarray]:
    """Return what a stored result has beside facts. Not collective."""
    cell = solid.constants.primitive
    found = {
        "lattice": cell.lattice,
        "positions": cell.positions,
        "masses": cell.masses,
        "symbols": np.array(cell.symbols, "S3"),
    }
    if bands is not None:
        modes = bands.modes
        found |= {"q": modes.q, "distances": bands.path.distances, "frequencies": per * modes.frequencies}
        found |= {"bounds": modes.bounds}
        if modes.velocities is not None:
            found["velocities"] = modes.velocities
    if density is not None:
        found |= {"mesh_q": density.modes.q, "mesh_weights": density.weights}
        found |= {"mesh_frequencies": per * density.modes.frequencies, "grid": per * density.frequencies}
        found |= {"states": density.states / per, "below": density.below}
    return found


def _lines(facts: dict[str, Any]) -> str:
    """Return the answer for people. Not collective."""
    unit, rule = facts["unit"], facts["sum_rule"]
    lines = [
        f"crystal      {facts['formula']}, {number_of(facts['atoms'], 'atom')} in the primitive cell; "
        f"supercell of {number_of(facts['cells'], 'cell')}",
        f"forces       {facts['source']}: {number_of(facts['pairs'], 'pair')}",
    ]
    if not all(facts["periodic"]):
        along = ", ".join(str(number) for number, one in enumerate(facts["periodic"], 1) if one)
        lines.append(f"repeats      along {'vector ' + along if along else 'no vector'} of the cell alone")
    if facts["calculator"] is not None:
        lines.append(
            f"calls        {facts['calls']} of the calculator; a fresh product is missed by "
            f"{facts['error']:.1e} of it"
        )
    kept = "the nearest without either are taken" if rule["imposed"] else "taken as they are"
    lines.append(
        f"sum rule     violated by {rule['drift']:.1e} eV/Å^2, asymmetric by {rule['asymmetry']:.1e}: {kept}"
    )
    if facts["polar"]:
        source = {"gonze": "Gonze and Lee 1997", "wang": "Wang et al. 2010"}[facts["nac"]]
        lines.append(f"polar        the field of Born charges is added ({source})")
    lines.append(f"solver       {facts['how']}")
    if facts["bands"] is not None:
        lines += _band_lines(facts["bands"], unit, facts["scale"])
    if facts["density"] is not None:
        lines += _density_lines(facts["density"], unit)
    lines += [f"note         {note}" for note in facts["notes"]]
    timings = facts["timings"]
    lines.append(
        f"seconds      forces {timings['derivatives']:.2f}, phonons {timings['solve']:.2f}, "
        f"total {timings['total']:.2f}"
    )
    return "\n".join(lines)


def _band_lines(bands: dict[str, Any], unit: str, scale: float) -> list[str]:
    many = len(bands["q"])
    rows = []
    distances = np.array(bands["distances"])
    for label in bands["labels"]:
        number = int(np.argmin(np.abs(distances - label["distance"])))
        values = [_shown(value) for value in bands["frequencies"][number]]
        if len(values) > _SHOWN:
            values = [*values[: _SHOWN - 1], "…", values[-1]]
        place = " ".join(f"{one:.3g}" for one in bands["q"][number])
        rows.append([label["name"], place, "  ".join(values)])
    lowest, where = bands["lowest"], " ".join(f"{one:.4g}" for one in bands["lowest_at"])
    told = (
        "none"
        if not bands["imaginary"]
        else f"{bands['imaginary']} modes, the lowest {_shown(lowest)} at q = {where}"
    )
    worst = max(bands["bounds"]) / scale if scale > 0 else 0.0
    return [
        "",
        format_table(["point", "q", unit], rows),
        "",
        f"bands        {number_of(many, 'wave vector')}, up to {bands['highest']:.6g} {unit}",
        f"imaginary    {told}",
        f"certified    {bands['certified']} of {many}: all modes, within {worst:.1e} of the scale of ω^2",
    ]


def _density_lines(density: dict[str, Any], unit: str) -> list[str]:
    mesh = " x ".join(map(str, density["mesh"]))
    part = f", {density['imaginary']:.2%} of the modes imaginary" if density["imaginary"] > 0 else ""
    return [
        f"density      mesh of {mesh}, {number_of(density['wave_vectors'], 'wave vector')}, modes "
        f"{density['width']:.3g} {unit} wide{part}",
        f"certified    {density['certified']} of {density['wave_vectors']} of the mesh",
    ]


def _shown(frequency: float) -> str:
    """Return a frequency, imaginary ones with an i."""
    return f"{abs(frequency):.4f}{'i' if frequency < 0 and abs(frequency) >= 5e-5 else ''}"
