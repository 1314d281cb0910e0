"""Eigenpairs, inertia, and the check of stored results."""

from __future__ import annotations

import argparse
import dataclasses
import time
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsehess import errors, runtime
from sparsehess.commands import flag_groups, problem_files
from sparsehess.commands.frequency_units import check_units, spec_in_eigenvalues, unit_facts
from sparsehess.commands.input_facts import (
    find_fixed,
    fixed_facts,
    fixed_lines,
    input_differences,
    input_facts,
    rounding_facts,
    uncoupled_lines,
)
from sparsehess.commands.inputs import Input, drop_entries, open_input, open_known_vectors
from sparsehess.commands.mode_outputs import open_mode_outputs
from sparsehess.commands.near_pairs import explain_near, refuse_beside_near, solve_near
from sparsehess.commands.output import SCHEMA, answer, process_facts, refuse_solver_options, run_facts
from sparsehess.commands.participation import (
    check_participation,
    find_participation,
    participation_facts,
    participation_lines,
)
from sparsehess.commands.reports import page, plots
from sparsehess.commands.reports.pictures import pattern_picture
from sparsehess.commands.reports.records import gather_record
from sparsehess.commands.reports.stored_results import read_result
from sparsehess.commands.reports.tables import notes_told, reading_notes
from sparsehess.commands.summaries import (
    check_lines,
    count_facts,
    derivative_facts,
    eigs_facts,
    eigs_lines,
    held_rows,
    hessian_lines,
    inertia_lines,
    sparsified_line,
)
from sparsehess.eigen.certificates.certificate import recheck
from sparsehess.eigen.certificates.inertia import count_inertia
from sparsehess.eigen.certificates.lowest_curvature import condition_number, curvature
from sparsehess.eigen.inverses.stationary_point import stationary_point
from sparsehess.eigen.problem.backends import check_backend
from sparsehess.eigen.problem.brought_facts import only_projected
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.problem.solve_spec import SolveSpec
from sparsehess.eigen.solvers.eigs import complete_spec, shortfall, solve
from sparsehess.eigen.solvers.method_choice import PRECONDITIONED, choose_method
from sparsehess.errors import CheckError, InputError
from sparsehess.hessian.hessian import Hessian
from sparsehess.long_range import NearFar
from sparsehess.runtime import destroy
from sparsehess.runtime.progress import GuardedProgress
from sparsehess.storage import writers

if TYPE_CHECKING:
    from sparsehess.commands.call import Call


def run_eigs(call: Call) -> int:
    """Compute eigenpairs of a matrix file or of a problem. Collective."""
    began = time.perf_counter()
    arguments, comm = call.arguments, call.comm
    _refuse_idle(arguments)
    check_units(arguments)
    check_participation(arguments)
    shapes = open_mode_outputs(call)
    if not shapes.draws:
        writers.check_writable(arguments.plot, plots.SUFFIXES, comm)
    writers.check_writable(arguments.report, page.SUFFIXES, comm)
    spec = SolveSpec(
        k=arguments.k,
        which=arguments.which,
        interval=None if arguments.interval is None else tuple(arguments.interval),
        target=arguments.target,
        tol=arguments.tol,
        options=call.options,
        count=arguments.count,
        seed=arguments.seed,
        method=arguments.method,
        groups=arguments.groups,
        backend=arguments.backend,
    )
    check_backend(spec.backend)
    if arguments.explain and arguments.pattern == "near":
        near, lines = explain_near(call)
        answer(call, {"schema": SCHEMA, "task": "explain", **near}, lines)
        return errors.DONE
    with (
        closing(_open_for_pairs(call, shapes.writes or shapes.draws)) as given,
        closing(open_known_vectors(arguments, given)) as known,
        drop_entries(arguments, given.matrix, given.mass) as left,
        given.problem_type.of(
            **(given.problem_arguments(left) | {"units": given.units(arguments)}),
            nullspace=known.null,
            near_null=known.near_null,
            guess=known.guess,
            preconditioner=given.preconditioner,
        ) as problem,
    ):
        spec = spec_in_eigenvalues(arguments, spec, problem.units)
        if arguments.explain:
            return _explain(call, problem, spec)
        shapes.check(problem.n, problem.units is not None, given.labels)
        spec = complete_spec(problem, spec)
        remembered = given.stored if left is None and given.copies == 1 else None
        if remembered is not None:
            given.resources.add_guess(problem, remembered, spec)
        progress = GuardedProgress("eigenpairs converged", comm, arguments.quiet)
        if isinstance(given.hessian, NearFar):
            spectrum = solve_near(arguments, given.hessian, spec)
        else:
            spectrum = solve(problem, spec, progress, call.checkpoint)
        progress.finish()
        timings = {**given.timings, **spectrum.timings, "total": time.perf_counter() - began}
        facts = eigs_facts(given, spec, spectrum, problem, timings) | run_facts(call, given.title)
        facts["units"] = unit_facts(arguments, problem.units)
        fixed = find_fixed(given)
        facts["fixed"] = fixed_facts(fixed)
        taking_part = find_participation(arguments, problem, spectrum)
        facts |= participation_facts(taking_part)
        facts["thinned"] = None if left is None else left.facts
        facts["null_names"] = list(known.names)
        error = shortfall(spectrum)
        facts["shortfall"] = None if error is None else str(error)
        lines = eigs_lines(given, facts, spec, spectrum, problem, known.names) + notes_told(given.origins)
        lines += (
            fixed_lines(fixed)
            + uncoupled_lines(given, spectrum.eigenvalues, fixed)
            + participation_lines(taking_part)
        )
        if left is not None:
            lines += f"\n{sparsified_line(left)}"
        record = gather_record(
            call,
            facts,
            lines,
            pattern=given.pattern,
            coloring=given.coloring,
            given=given,
            vectors=spectrum.vectors if given.copies == 1 else (),
        )
        shapes.write(facts, [(vector,) for vector in spectrum.vectors])
        if arguments.out is not None and not shapes.writes:
            arrays = {"eigenvalues": spectrum.eigenvalues, "residuals": spectrum.residuals, **record.kept_arrays()}
            writers.write_results(arguments.out, record.kept_facts(), arrays, spectrum.vectors, comm)
        picture = None
        drawn = arguments.plot is not None and not shapes.draws
        if drawn and given.pattern is not None:
            picture = pattern_picture(given.pattern)
        draw = partial(plots.plot_spectrum, arguments.plot, spectrum, problem.units, picture, given.n, given.title)
        tell = arguments.report and partial(page.write_page, arguments.report, record)
        answer(call, facts, lines, draw if drawn else None, tell)
        if remembered is not None and error is None:
            given.resources.keep_vectors(remembered, spec, spectrum)
        spectrum.close()
    comm.Barrier()
    if error is not None:
        raise error
    return errors.DONE


def _open_for_pairs(call: Call, shown: bool) -> Input:
    """Open INPUT for `eigs`; of a complex one refuse what is for real ones. Collective.

    Parameters
    ----------
    shown
        Whether modes are shown on a mesh.
    """
    arguments = call.arguments
    near = arguments.pattern == "near"
    if near:
        refuse_beside_near(call)
    given = open_input(call, shell=arguments.shell, hermitian=True, near=near)
    flags = {
        "--participation": arguments.participation,
        "--drop": arguments.drop,
        "--keep": arguments.keep,
        "--mesh": arguments.mesh if shown else None,
        "--coordinates": arguments.coordinates,
    }
    try:
        given.refuse_complex(flags)
    except InputError:
        given.close()
        raise
    return given


def _refuse_idle(arguments: argparse.Namespace) -> None:
    """Refuse flags that nothing would heed beside others."""
    for name in ("interval", "target"):
        if getattr(arguments, name) is not None:
            flag_groups.refuse_flags(arguments, flag_groups.WHICH, f"--{name} says which ones already")
    if arguments.explain:
        flag_groups.refuse_flags(arguments, flag_groups.ANSWERS, "--explain solves nothing")
    rigid = "rigid" in (arguments.nullspace, arguments.participation)
    if not rigid and arguments.method not in ("auto", *PRECONDITIONED):
        flag_groups.refuse_flags(
            arguments, flag_groups.POSITIONS, f"for --nullspace rigid, and for {', '.join(PRECONDITIONED)}"
        )


def _explain(call: Call, problem: EigenProblem, spec: SolveSpec) -> int:
    choice = choose_method(problem, complete_spec(problem, spec))
    facts = {"schema": SCHEMA, "task": "explain", "n": problem.n // problem.copies, **dataclasses.asdict(choice)}
    answer(call, facts, f"method       {choice.method}\nbecause      {choice.reason}")
    return errors.DONE


def run_inertia(call: Call) -> int:
    """Count negative, zero and positive eigenvalues; add lowest curvature and condition number. Collective."""
    began = time.perf_counter()
    arguments, comm = call.arguments, call.comm
    writers.check_writable(arguments.direction, writers.RESULTS, comm)
    _refuse_stationary(arguments)
    with closing(open_input(call, shell=arguments.shell, hermitian=True)) as given:
        given.refuse_complex({"--direction": arguments.direction})
        kind, null = given.problem_type, only_projected(given.matrix)
        with kind.of(**given.problem_arguments(), nullspace=null) as problem:
            signs = count_inertia(problem, arguments.zero, call.options)
            more: dict[str, Any] = {"held": held_rows(problem), "projected": len(problem.null)}
            if arguments.condition:
                more["condition"] = condition_number(problem, arguments.seed)
            if arguments.direction is not None:
                lowest = curvature(problem, seed=arguments.seed)
                more["lowest"] = {"value": lowest.value, "error": lowest.error, "certified": lowest.certified}
        point = None
        if arguments.stationary is not None and isinstance(given.hessian, Hessian):
            with stationary_point(given.hessian, step_tol=arguments.stationary, seed=arguments.seed) as point:
                more["stationary"] = point.facts()
        facts = {
            "schema": SCHEMA,
            "task": "inertia",
            "n": given.n,
            "nnz": given.nnz,
            **dataclasses.asdict(signs),
            "definite": signs.definite,
            **more,
            **({} if given.hessian is None else derivative_facts(given.hessian)),
            "notes": reading_notes(given.origins),
            "timings": {**given.timings, "total": time.perf_counter() - began},
            **process_facts(comm),
            "versions": runtime.versions(),
        }
        if arguments.direction is not None:
            arrays = {"eigenvalues": np.array([lowest.value])}
            writers.write_results(arguments.direction, facts, arrays, [lowest.direction], comm)
            destroy(lowest.direction)
        taken = "" if given.hessian is None else hessian_lines(given.hessian, facts) + "\n"
        told = "" if point is None else f"\n{point}"
        answer(call, facts, taken + inertia_lines(signs, more) + told + notes_told(given.origins))
    comm.Barrier()
    if point is not None and not (point.certified and point.stationary):
        raise CheckError(f"no stationary point is proven: {point.verdict}")
    if not signs.certified and signs.stderr is None:
        raise CheckError(
            f"the counts are not certain: {signs.doubt}; eigenvalues lie near ±{signs.threshold:.1e}, "
            "give another --zero"
        )
    return errors.DONE


def _refuse_stationary(arguments: argparse.Namespace) -> None:
    """Refuse --stationary where there is no gradient, or no matrix to factorize. Not collective."""
    if arguments.stationary is None:
        return
    if not problem_files.is_problem(arguments.input):
        raise InputError(
            f"--stationary: {arguments.input} is a matrix file, which has no gradient; give a problem"
        )
    if arguments.shell:
        raise InputError("--stationary takes factors of an assembled Hessian: leave out --shell")


def run_check(call: Call) -> int:
    """Verify a stored result from the files alone. Collective."""
    began = time.perf_counter()
    arguments, comm = call.arguments, call.comm
    refuse_solver_options(call.options)
    if arguments.nullspace != "rigid":
        flag_groups.refuse_flags(arguments, flag_groups.POSITIONS, "only --nullspace rigid asks where nodes are")
    with (
        closing(open_input(call, hermitian=True)) as given,
        closing(open_known_vectors(arguments, given)) as known,
        given.problem_type.of(**given.problem_arguments(), nullspace=known.null) as problem,
    ):
        result = read_result(arguments.result, problem.layout)
        tol = max(arguments.tol, 10 * problem.relative_error)
        retaken, spec = given.hessian is not None, complete_spec(problem, result.spec)
        found, wanted = recheck(problem, spec, result.eigenvalues, result.vectors, tol, retaken)
        count = found.count
        digits, rounding = rounding_facts(given, problem, result.eigenvalues, result.vectors, count)
        runtime.destroy(*result.vectors)
        uncounted, held = problem.uncounted, held_rows(problem)
        inputs = input_facts(given, problem)
        differs = input_differences(result.facts.get("inputs"), inputs)
    passed = found.passed and len(result.eigenvalues) >= wanted
    facts = {
        "schema": SCHEMA,
        "task": "check",
        "result": arguments.result,
        "n": given.n,
        "k": len(result.eigenvalues),
        "wanted": wanted,
        "residual": found.residual,
        "rayleigh": found.rayleigh,
        "orthogonality": found.orthogonality,
        "tol": tol,
        "count": count_facts(count),
        "held": held,
        "inputs": inputs,
        "digits": digits,
        "rounding": rounding,
        "differs": differs,
        "passed": passed,
        "notes": reading_notes(given.origins),
        "timings": {**given.timings, "total": time.perf_counter() - began},
        **process_facts(comm),
        "versions": runtime.versions(),
    }
    answer(call, facts, check_lines(facts, uncounted) + notes_told(given.origins))
    comm.Barrier()
    if not passed:
        reason = "; ".join(differs) or "see the report"
        raise CheckError(f"{arguments.result} does not hold for {arguments.input}: {reason}")
    return errors.DONE
