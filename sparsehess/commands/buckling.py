"""Buckling: load factors of a stiffness and a geometric stiffness matrix."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

from sparsehess import errors, runtime
from sparsehess.commands.estimates import completed_facts, told_lines
from sparsehess.commands.inputs import open_input
from sparsehess.commands.mode_outputs import open_mode_outputs
from sparsehess.commands.output import answer
from sparsehess.commands.reports.tables import format_table, notes_told, reading_notes
from sparsehess.errors import CheckError, NotConverged
from sparsehess.mechanics.buckling import buckling
from sparsehess.runtime.progress import GuardedProgress
from sparsehess.storage import matrix_files, writers

if TYPE_CHECKING:
    from sparsehess.commands.call import Call
    from sparsehess.mechanics.buckling import Buckling
    from sparsehess.mechanics.load_counts import LoadCount


def run_buckling(call: Call) -> int:
    """Compute load factors, and count them in both directions of the load. Collective."""
    began = time.perf_counter()
    arguments, comm = call.arguments, call.comm
    shapes = open_mode_outputs(call)
    with closing(open_input(call)) as given:
        shapes.check(given.n, True, given.labels)
        stored = matrix_files.read_matrix(
            arguments.geometric, comm, one_triangle=arguments.one_triangle, beside=given.stored
        )
        load = stored.to_mat()
        try:
            progress = GuardedProgress("load factors converged", comm, arguments.quiet)
            found = buckling(
                given.matrix,
                load,
                arguments.k,
                which=arguments.which,
                max_factor=arguments.max_factor,
                tol=arguments.tol,
                options=call.options,
                seed=arguments.seed,
                strict=False,
                progress=progress,
            )
            progress.finish()
        finally:
            runtime.destroy(load)
            stored.pattern.free()
        with found:
            facts = completed_facts(call, given, found.facts(), began)
            facts["notes"] = [*facts["notes"], *reading_notes([stored.origin])]
            facts["timings"] = {**given.timings, **found.timings, "total": time.perf_counter() - began}
            shapes.write(facts, [(mode,) for mode in found.modes])
            if arguments.out is not None and not shapes.writes:
                arrays = {"load_factors": found.load_factors, "residuals": found.residuals}
                writers.write_results(arguments.out, facts, arrays, found.modes, comm)
            lines = told_lines(given, facts, _lines(given.name, arguments.geometric, found, facts))
            answer(call, facts, lines + notes_told([stored.origin]))
    comm.Barrier()
    if found.shortfall:
        raise (NotConverged if len(found.load_factors) < found.asked else CheckError)(found.shortfall)
    return errors.DONE


def _lines(stiffness: str, geometric: str, found: Buckling, facts: dict[str, Any]) -> str:
    """Return the answer for people. Not collective."""
    lines = [
        f"matrices     K {stiffness}, Kg {geometric}: {facts['n']} rows",
        "sign         (K + λ Kg) φ = 0: λ > 0 multiplies the load of Kg, λ < 0 the reversed load",
    ]
    if found.form == "shifted":
        lines.append(f"form         with K + {found.shift:.3g} Kg, which is definite, in the place of K")
    if found.free:
        lines.append(f"free         {found.free} rigid motions that neither matrix resists, left out")
    if found.tipped:
        lines.append(
            f"load 0       {found.tipped} rigid motions that K does not resist and the load moves: load factor 0"
        )
    if len(found.load_factors):
        values = zip(found.load_factors, found.resolutions, found.residuals, strict=True)
        rows = [
            [str(i), f"{value:.10g}", f"{off:.1g}", f"{error:.1e}"]
            for i, (value, off, error) in enumerate(values, 1)
        ]
        lines += ["", format_table(["mode", "load factor", "±", "backward error"], rows), ""]
    critical = found.critical
    if critical is not None:
        lines.append(f"critical     {critical:.10g}, the smallest positive load factor found")
    elif found.which != "negative":
        lines.append(f"critical     {_no_buckling(found.count)}")
    equal = [group for group in found.groups if len(group) > 1]
    if equal:
        told = "; ".join(", ".join(str(i + 1) for i in group) for group in equal)
        lines.append(f"equal        modes {told}: any combination of them is a mode")
    lines += _count_lines(found)
    if found.shortfall:
        lines.append(f"missing      {found.shortfall}")
    lines.append(
        f"seconds      factorization and solve {_seconds(found):.2f}, total {facts['timings']['total']:.2f}"
    )
    return "\n".join(lines)


def _seconds(found: Buckling) -> float:
    return found.timings["factorization"] + found.timings["solve"]


def _no_buckling(count: LoadCount | None) -> str:
    """Return what it means that no positive load factor was found. Not collective."""
    if count is None:
        return "none: Kg is zero, no multiple of this load buckles"
    if count.positive == 0 and count.certified:
        return f"none: no buckling under this load up to {count.high:.6g} times it"
    return "none found"


def _count_lines(found: Buckling) -> list[str]:
    """Return what the counts say, one line for each direction of the load. Not collective."""
    count = found.count
    if count is None:
        return ["count        nothing to count"]
    lines: list[str] = []
    for direction, many, low, high in (
        ("positive", count.positive, 0.0, count.high),
        ("negative", count.negative, count.low, 0.0),
    ):
        asked = found.which in ("both", direction)
        margin = count.margin if asked else count.opposite_margin
        sure = count.certified if asked else margin is not None and margin > 10
        told = "not counted apart" if many is None else f"{many} in ({low:.6g}, {high:.6g})"
        if asked:
            inside = int(((found.load_factors > low) & (found.load_factors < high)).sum())
            told += f": {inside} shown"
        state = "certified" if sure else "NOT certified"
        state += "" if margin is None else f", margin {margin:.1g}"
        lines.append(f"{'' if lines else 'count':<12} {told} ({state})")
    if count.certified:
        lines.append(f"{'':<12} none nearer to zero than the last one is missing")
    if found.which == "positive" and count.negative:
        lines.append(f"reversed     {count.negative} load factors of the reversed load are in this range too")
    return lines
