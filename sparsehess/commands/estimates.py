"""What the spectrum says without eigenvectors: density, trace, rank."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from sparsehess import errors
from sparsehess.commands import flag_groups
from sparsehess.commands.inputs import Input, open_input, open_known_vectors
from sparsehess.commands.output import SCHEMA, answer, process_facts, refuse_solver_options, run_facts
from sparsehess.commands.reports import page, plots
from sparsehess.commands.reports.records import gather_record
from sparsehess.commands.reports.tables import notes_told, reading_notes
from sparsehess.commands.summaries import density_lines, derivative_facts, hessian_lines, rank_lines, trace_lines
from sparsehess.eigen.certificates.numerical_rank import rank
from sparsehess.eigen.estimates import density, trace
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.problem.solve_spec import SolveSpec
from sparsehess.eigen.solvers.eigs import shortfall, solve
from sparsehess.errors import CheckError, InputError, NotConverged
from sparsehess.storage import writers

if TYPE_CHECKING:
    from sparsehess.commands.call import Call

# What is stored of a density as arrays.
_CURVES = ("grid", "density", "stderr", "cumulative", "cumulative_stderr")


@contextmanager
def open_problem(call: Call, *, hermitian: bool = False) -> Iterator[tuple[Input, EigenProblem]]:
    """Have what INPUT, --mass and --nullspace stand for, as (input, eigenproblem).

    Collective.

    Parameters
    ----------
    hermitian
        Whether matrix files may be complex where PETSc's scalars are real.
    """
    arguments = call.arguments
    if arguments.nullspace != "rigid":
        flag_groups.refuse_flags(arguments, flag_groups.POSITIONS, "only --nullspace rigid asks where nodes are")
    with (
        closing(open_input(call, shell=arguments.shell, hermitian=hermitian)) as given,
        closing(open_known_vectors(arguments, given)) as known,
        given.problem_type.of(**given.problem_arguments(), nullspace=known.null) as problem,
    ):
        yield given, problem


def _refuse_extreme(given: Input, problem: EigenProblem) -> None:
    """Refuse eigenvalues whose squares are no numbers. Collective."""
    power = problem.scales.power
    if power:
        raise InputError(
            f"{given.name}: eigenvalues are about 2^{power}, and the squares of such numbers are none: scale the "
            "matrix, or its mass, by a power of two (eigs and inertia do so themselves)"
        )


def _numbers(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return how many samples and steps are asked for, as far as that is said."""
    return {
        name: getattr(arguments, name) for name in ("samples", "steps") if getattr(arguments, name) is not None
    }


def completed_facts(call: Call, given: Input, facts: dict[str, Any], began: float) -> dict[str, Any]:
    """Return the facts of a task with those that all tasks have. Collective."""
    hessian = given.hessian
    return {
        "schema": SCHEMA,
        "task": call.arguments.command,
        "n": given.n,
        "nnz": given.nnz,
        **facts,
        **({} if hessian is None else derivative_facts(hessian)),
        "notes": reading_notes(given.origins),
        "timings": {**given.timings, "total": time.perf_counter() - began},
        **process_facts(call.comm),
        **run_facts(call, given.title),
    }


def told_lines(given: Input, facts: dict[str, Any], lines: str) -> str:
    """Return the lines of a task with those of its input. Not collective."""
    taken = "" if given.hessian is None else hessian_lines(given.hessian, facts) + "\n"
    return taken + lines + notes_told(given.origins)


def answer_task(call: Call, given: Input, facts: dict[str, Any], lines: str) -> None:
    """Answer a task of complete facts. Collective."""
    answer(call, facts, told_lines(given, facts, lines))


def run_density(call: Call) -> int:
    """Estimate the density of states. Collective."""
    began = time.perf_counter()
    arguments, comm = call.arguments, call.comm
    writers.check_writable(arguments.out, writers.RESULTS, comm)
    writers.check_writable(arguments.plot, plots.SUFFIXES, comm)
    writers.check_writable(arguments.report, page.SUFFIXES, comm)
    if arguments.method == "dense":
        flag_groups.refuse_flags(arguments, flag_groups.SAMPLES, "--method dense takes no samples")
    with open_problem(call, hermitian=True) as (given, problem):
        _refuse_extreme(given, problem)
        outliers = None
        if arguments.outliers:
            spec = SolveSpec(k=arguments.outliers, which="magnitude", options=call.options, seed=arguments.seed)
            outliers = solve(problem, spec)
            if (error := shortfall(outliers)) is not None:
                raise error
        else:
            refuse_solver_options(call.options)
        found = density(
            problem,
            points=arguments.grid,
            width=arguments.width,
            method=arguments.method,
            deflate=outliers,
            groups=arguments.groups,
            seed=arguments.seed,
            **_numbers(arguments),
        )
        arrays = {name: getattr(found, name) for name in _CURVES}
        facts = {
            **{name: array.tolist() for name, array in arrays.items()},
            "moments": found.moments.tolist(),
            "moments_stderr": found.moments_stderr.tolist(),
            "atoms": [list(atom) for atom in found.atoms],
            "range": list(found.range),
            "width": found.width,
            "method": found.method,
            "samples": found.samples,
            "steps": found.steps,
            "products": found.products,
            "real_form": problem.copies == 2,
        }
        facts = completed_facts(call, given, facts, began)
        lines = told_lines(given, facts, density_lines(found))
        record = gather_record(call, facts, lines, pattern=given.pattern, coloring=given.coloring)
        if arguments.out is not None:
            vectors = outliers.vectors if outliers else []
            writers.write_results(arguments.out, record.kept_facts(), arrays | record.kept_arrays(), vectors, comm)
        draw = arguments.plot and partial(plots.plot_density, arguments.plot, found, given.title)
        tell = arguments.report and partial(page.write_page, arguments.report, record)
        answer(call, facts, lines, draw, tell)
        if outliers is not None:
            outliers.close()
    comm.Barrier()
    return errors.DONE


def run_trace(call: Call) -> int:
    """Take the trace of a Hessian or of a function of it. Collective."""
    began = time.perf_counter()
    arguments, comm = call.arguments, call.comm
    refuse_solver_options(call.options)
    if arguments.method == "exact":
        flag_groups.refuse_flags(
            arguments, {**flag_groups.SAMPLES, "tol": None}, "--method exact takes no samples"
        )
    if arguments.function == "identity":
        flag_groups.refuse_flags(arguments, {"steps": None}, "the trace itself takes one product with each sample")
    with open_problem(call, hermitian=True) as (given, problem):
        if arguments.function != "identity":
            _refuse_extreme(given, problem)
        found = trace(
            problem,
            arguments.function.replace("-", " "),
            method=arguments.method,
            tol=arguments.tol,
            gamma=arguments.gamma,
            time=arguments.time,
            seed=arguments.seed,
            **_numbers(arguments),
        )
        answer_task(call, given, completed_facts(call, given, asdict(found), began), trace_lines(found))
    comm.Barrier()
    if not found.converged:
        raise NotConverged(
            f"the error {found.stderr:.2g} of the trace is more than --tol {arguments.tol:g} of it after "
            f"{found.samples} vectors: give more --samples"
        )
    return errors.DONE


def _threshold(text: str | None) -> float | str | None:
    if text in (None, "gap"):
        return text
    try:
        return float(text)
    except ValueError as error:
        raise InputError(
            f"--threshold {text}: neither a number nor gap: write --threshold 1e-6, or --threshold gap"
        ) from error


def run_rank(call: Call) -> int:
    """Count the eigenvalues that are not zero. Collective."""
    began = time.perf_counter()
    arguments, comm = call.arguments, call.comm
    if arguments.method == "inertia":
        flag_groups.refuse_flags(arguments, flag_groups.SAMPLES, "--method inertia takes no samples")
    with open_problem(call, hermitian=True) as (given, problem):
        _refuse_extreme(given, problem)
        found = rank(
            problem,
            _threshold(arguments.threshold),
            absolute=arguments.absolute,
            method=arguments.method,
            options=call.options,
            seed=arguments.seed,
            **_numbers(arguments),
        )
        answer_task(call, given, completed_facts(call, given, asdict(found), began), rank_lines(found))
    comm.Barrier()
    if found.doubt and found.method == "inertia":
        raise CheckError(
            f"the counts are not certain: {found.doubt}; give another --threshold, or --threshold gap"
        )
    return errors.DONE
