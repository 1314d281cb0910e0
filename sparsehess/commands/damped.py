"""Modes of damped, gyroscopic and rotating structures: complex frequencies, damping, growth, whirl."""

from __future__ import annotations

import argparse
import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

from sparsehess import errors, runtime
from sparsehess.commands.estimates import completed_facts, told_lines
from sparsehess.commands.frequency_units import check_units, unit_facts
from sparsehess.commands.inputs import open_input
from sparsehess.commands.mode_outputs import open_mode_outputs
from sparsehess.commands.output import answer
from sparsehess.commands.reports.tables import format_table, notes_told, reading_notes
from sparsehess.errors import CheckError, InputError, NotConverged
from sparsehess.mechanics.damped_modes import damped_modes
from sparsehess.runtime.progress import GuardedProgress
from sparsehess.storage import matrix_files, writers

if TYPE_CHECKING:
    from sparsehess.commands.call import Call
    from sparsehess.derivatives.units import Units
    from sparsehess.mechanics.complex_modes import DampedModes

# Flags that name matrices beside K and M, with their letters.
_BESIDE = {"damping": "C", "gyroscopic": "G", "circulatory": "N"}
_SKEW = ("gyroscopic", "circulatory")


def run_damped(call: Call) -> int:
    """Compute modes of (λ²M + λ(C + G) + K + N) x = 0, with what is proven of their number. Collective."""
    began = time.perf_counter()
    arguments, comm = call.arguments, call.comm
    check_units(arguments)
    shapes = open_mode_outputs(call)
    with ExitStack() as stack:
        given = stack.enter_context(closing(open_input(call)))
        units = given.units(arguments)
        shapes.check(given.n, units is not None, given.labels)
        target, radius = _place(arguments, units)
        beside, origins = {}, []
        for name in _BESIDE:
            path = getattr(arguments, name)
            if path is not None:
                beside[name], origin = matrix_files.read_unsymmetric(path, comm, beside=given.stored)
                stack.callback(runtime.destroy, beside[name])
                origins.append(origin)
                if origin.completed and name in _SKEW:
                    raise InputError(
                        f"--{name}: {path} has one triangle, completed as of a symmetric matrix, and must be "
                        "skew-symmetric: write both triangles, or Matrix Market of kind skew-symmetric"
                    )
        progress = GuardedProgress("modes converged", comm, arguments.quiet)
        found = stack.enter_context(
            damped_modes(
                given.matrix,
                given.mass,
                k=arguments.k,
                target=target,
                radius=radius,
                tol=arguments.tol,
                options=call.options,
                seed=arguments.seed,
                strict=False,
                progress=progress,
                **beside,
            )
        )
        progress.finish()
        facts = completed_facts(call, given, found.facts(), began)
        facts["units"] = unit_facts(arguments, units)
        facts["frequencies"] = _frequency_facts(found, units)
        facts["notes"] = [*facts["notes"], *reading_notes(origins)]
        facts["timings"] = {**given.timings, **found.timings, "total": time.perf_counter() - began}
        shapes.write(facts, list(zip(found.real, found.imaginary, strict=True)))
        if arguments.out is not None and not shapes.writes:
            arrays = {"eigenvalues": found.eigenvalues, "residuals": found.residuals}
            parts = [part for pair in zip(found.real, found.imaginary, strict=True) for part in pair]
            writers.write_results(arguments.out, facts, arrays, parts, comm)
        lines = told_lines(given, facts, _lines(call, given.name, found, facts, units))
        answer(call, facts, lines + notes_told(origins))
    comm.Barrier()
    if found.shortfall:
        raise (NotConverged if len(found.eigenvalues) < found.asked else CheckError)(found.shortfall)
    return errors.DONE


def _place(arguments: argparse.Namespace, units: Units | None) -> tuple[complex, float | None]:
    """Return the target λ and the radius that flags ask for. Not collective."""
    per = units.factor if units is not None and arguments.units is not None else 1.0
    if arguments.interval is not None:
        if arguments.k is not None:
            raise InputError("-k: --interval takes all modes of the band; leave it out")
        low, high = arguments.interval
        if not 0 <= low < high < float("inf"):
            raise InputError(f"--interval {low:g} {high:g}: frequencies go up from zero or above")
        return 0.5j * (low + high) / per, 0.5 * (high - low) / per
    return 1j * (arguments.target or 0.0) / per, None


def _frequency_facts(found: DampedModes, units: Units | None) -> dict[str, Any] | None:
    """Return what JSON says of Im λ as frequencies. Not collective."""
    if units is None:
        return None
    known = found.facts()["resolution"]
    return {
        "unit": units.frequency,
        "values": (units.factor * found.frequencies).tolist(),
        "errors": None if known is None else [units.factor * one for one in known],
    }


def _lines(call: Call, stiffness: str, found: DampedModes, facts: dict[str, Any], units: Units | None) -> str:
    """Return the answer for people. Not collective."""
    arguments = call.arguments
    named = {letter: getattr(arguments, name) for name, letter in _BESIDE.items()}
    files = {"K": stiffness, "M": arguments.mass, **named}
    listed = ", ".join(f"{letter} {path}" for letter, path in files.items() if path is not None)
    lines = [
        f"matrices     {listed}: {facts['n']} rows",
        "motion       x exp(λt): frequency Im λ, decay -Re λ, damping -Re λ / |λ|; one of each pair of conjugates",
    ]
    if arguments.interval is not None:
        unit = arguments.units or "rad per unit of time"
        low, high = arguments.interval
        lines.append(f"asked for    all λ in the disc over the band from {low:g} to {high:g} {unit}")
    if len(found.eigenvalues):
        lines += ["", _table(found, units), ""]
    else:
        lines.append("modes        none")
    if found.rigid:
        lines.append(
            f"rigid        {found.rigid} motions that K does not resist to the accuracy of its rows: λ = 0, "
            f"{found.zeros} times, or |λ| up to {found.rigid_bound:.2g}; left out"
        )
    lines += _growth_lines(found)
    if any(found.whirl):
        lines.append("whirl        forward: G raises the frequency, as the spin of a rotor seen at rest does")
    lines.append(_count_line(found, units))
    if found.shortfall:
        lines.append(f"missing      {found.shortfall}")
    lines.append(f"seconds      solve {found.timings['solve']:.2f}, total {facts['timings']['total']:.2f}")
    return "\n".join(lines)


def _table(found: DampedModes, units: Units | None) -> str:
    """Return the modes as a table. Not collective."""
    heads = [
        "mode",
        "Re λ",
        "Im λ",
        *([] if units is None else [units.frequency]),
        "damping",
        "backward error",
        "",
    ]
    rows = []
    told = zip(found.eigenvalues, found.damping_ratios, found.residuals, found.grows, found.whirl, strict=True)
    for number, (value, ratio, error, grows, whirl) in enumerate(told, 1):
        frequency = [] if units is None else [f"{units.factor * value.imag:.8g}"]
        noted = ", ".join([*(["grows"] if grows else []), *([whirl] if whirl else [])])
        if not grows and value.imag == 0:
            noted = "does not swing"
        cells = [
            str(number),
            f"{value.real:.6g}",
            f"{value.imag:.10g}",
            *frequency,
            f"{round(ratio, 6) + 0.0:.6f}",
        ]
        rows.append([*cells, f"{error:.1e}", noted])
    width = max(len(row[-1]) for row in rows)
    for row in rows:
        row[-1] = row[-1].ljust(width)
    return format_table(heads, rows)


def _growth_lines(found: DampedModes) -> list[str]:
    """Return which modes grow, and how many can. Not collective."""
    growing = [str(number) for number, grows in enumerate(found.grows, 1) if grows]
    most, reason = found.stability
    told = f"no more than {most} can: {reason}" if most is not None else f"how many can is not known: {reason}"
    if growing:
        flutter = any(value.imag > 0 for value, grows in zip(found.eigenvalues, found.grows, strict=True) if grows)
        how = "flutter" if flutter else "divergence"
        which = f"mode {growing[0]} grows" if len(growing) == 1 else f"modes {', '.join(growing)} grow"
        return [f"unstable     {which} ({how}); {told}"]
    if most == 0:
        return [f"stable       no mode can grow: {reason}"]
    return [f"growth       none of these modes grows; {told}"]


def _count_line(found: DampedModes, units: Units | None) -> str:
    """Return what is proven of the number of modes. Not collective."""
    count = found.count
    if count.interval is None:
        return f"count        not counted: {count.reason}"
    factor, unit = (1.0, "") if units is None else (units.factor, f" {units.frequency}")
    low, high = (factor * end for end in count.interval)
    state = "none missed (certified" if count.certified else "(NOT certified"
    margin = "" if count.margin is None else f", margin {count.margin:.1g}"
    place = f"from {low:.6g} to {high:.6g}{unit}"
    if count.line == "real":
        place = f"real λ from {count.interval[0]:.6g} to {count.interval[1]:.6g}"
    return f"count        {count.counted} {place}: {count.found} found; {state}{margin}); {count.reason}"
