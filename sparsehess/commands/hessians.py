"""Hessians to files, and colourings of patterns."""

from __future__ import annotations

import dataclasses
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sparsehess import errors
from sparsehess.coloring import save, verify_coloring
from sparsehess.commands import problem_files
from sparsehess.commands.differentiation import assemble_problem, color_pattern
from sparsehess.commands.inputs import drop_entries
from sparsehess.commands.output import SCHEMA, answer, process_facts, refuse_solver_options, run_facts
from sparsehess.commands.reports import page, plots
from sparsehess.commands.reports.pictures import colored_corner
from sparsehess.commands.reports.records import gather_record
from sparsehess.commands.summaries import (
    color_lines,
    coloring_facts,
    derivative_facts,
    hessian_lines,
    sparsified_line,
)
from sparsehess.errors import CheckError, InputError
from sparsehess.hessian.recovery import plan
from sparsehess.storage import matrix_files, writers

if TYPE_CHECKING:
    from sparsehess.commands.call import Call


def run_assemble(call: Call) -> int:
    """Write the Hessian of a problem to a file. Collective."""
    began = time.perf_counter()
    arguments, comm = call.arguments, call.comm
    refuse_solver_options(call.options)
    writers.check_writable(arguments.out, writers.MATRICES, comm)
    writers.check_writable(arguments.report, page.SUFFIXES, comm)
    if not problem_files.is_problem(arguments.input):
        raise InputError(f"{arguments.input}: assemble needs a problem, file.py:name or package.module:name")
    with assemble_problem(call) as hessian, drop_entries(arguments, hessian) as left:
        writers.write_matrix(arguments.out, hessian.mat if left is None else left.mat)
        facts = {
            "schema": SCHEMA,
            "task": "assemble",
            "n": hessian.pattern.n,
            "nnz": hessian.pattern.nnz,
            **derivative_facts(hessian),
            "error": hessian.error,
            "repaired": hessian.repaired,
            "thinned": None if left is None else left.facts,
            "timings": {**hessian.timings, "total": time.perf_counter() - began},
            **process_facts(comm),
            **run_facts(call, hessian.objective.name),
        }
        lines = [hessian_lines(hessian, facts), f"written      {arguments.out}"]
        if left is not None:
            lines.insert(1, sparsified_line(left))
        told = "\n".join(lines)
        record = gather_record(call, facts, told, pattern=hessian.pattern, coloring=hessian.coloring)
        tell = arguments.report and partial(page.write_page, arguments.report, record)
        answer(call, facts, told, tell)
        hessian.pattern.free()
    return errors.DONE


def run_color(call: Call) -> int:
    """Colour a pattern, and verify the colouring. Collective."""
    arguments, comm = call.arguments, call.comm
    refuse_solver_options(call.options)
    writers.check_writable(arguments.out, writers.RESULTS, comm)
    writers.check_writable(arguments.plot, plots.SUFFIXES, comm)
    writers.check_writable(arguments.report, page.SUFFIXES, comm)
    began, title = time.perf_counter(), Path(arguments.input).name
    pattern = matrix_files.read_pattern(arguments.input, comm, block=arguments.blocks, diagonal=arguments.diagonal)
    read = time.perf_counter()
    coloring = color_pattern(call, pattern)
    made = time.perf_counter()
    broken = verify_coloring(pattern, coloring)
    facts = {
        "schema": SCHEMA,
        "task": "color",
        "n": pattern.n,
        "nnz": pattern.nnz,
        **coloring_facts(coloring, valid=broken is None),
        "seconds": coloring.seconds,
        "amplification": plan(pattern, coloring).amplification if broken is None else None,
        "attempts": [dataclasses.asdict(attempt) for attempt in coloring.attempts],
        "traffic": dataclasses.asdict(coloring.traffic),
        "timings": {"pattern": read - began, "coloring": made - read, "total": time.perf_counter() - began},
        **process_facts(comm),
        **run_facts(call, title),
    }
    picture = None if arguments.plot is None else colored_corner(pattern, coloring, plots.CORNER)
    draw = arguments.plot and partial(plots.plot_coloring, arguments.plot, picture, pattern.n, coloring, title)
    lines = color_lines(facts, broken, arguments.verbose)
    record = gather_record(call, facts, lines, pattern=pattern, coloring=coloring)
    if arguments.out is not None:
        save(arguments.out, pattern, coloring, record.kept_facts())
    tell = arguments.report and partial(page.write_page, arguments.report, record)
    answer(call, facts, lines, draw, tell)
    pattern.free()
    if broken is not None:
        raise CheckError(f"the colouring breaks its definition at entry {broken}")
    return errors.DONE
