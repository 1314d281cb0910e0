"""What a run would cost: evaluations, memory per rank, ranks worth having, and the advice of a few products.

One number answers one question: what a run calls is counted once, by the rules of the run. Text, JSON, limits and
the table of ways are made of that.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from typing import TYPE_CHECKING

import numpy as np

from sparsehess import errors, runtime
from sparsehess.commands import cost_model, flag_groups, method_advice, problem_files
from sparsehess.commands.advice import look, measure, request_of
from sparsehess.commands.cost_model import Memory
from sparsehess.commands.differentiation import color_pattern, load_problem, read_given_pattern
from sparsehess.commands.output import SCHEMA, answer, process_facts
from sparsehess.commands.plan_limits import Request, judge_limits
from sparsehess.commands.plan_lines import plan_lines
from sparsehess.commands.planned_calls import Calls, Measured, count_calls, count_probes, count_shell_calls
from sparsehess.commands.planned_products import Products, Question
from sparsehess.commands.reports.tables import notes_told, reading_notes
from sparsehess.commands.spectrum_probe import LEAST, SpectrumProbe
from sparsehess.derivatives.evaluations import Evaluations
from sparsehess.derivatives.finite_differences import scheme_of
from sparsehess.derivatives.objective import Objective
from sparsehess.errors import CheckError, InputError
from sparsehess.pattern import Pattern
from sparsehess.runtime import memory
from sparsehess.storage import matrix_files
from sparsehess.storage.matrix_files import StoredMatrix

if TYPE_CHECKING:
    from mpi4py import MPI

    from sparsehess.commands.call import Call

# Entries of a row that are reckoned with where nothing is known of a pattern.
ROW = 30

# Commands that take complex Hermitian matrices where PETSc's scalars are real.
_TAKES_COMPLEX = ("eigs", "inertia", "trace", "density", "rank")

# Bytes of a dense matrix with what LAPACK takes beside it, for each entry.
_DENSE = 24


def run_plan(call: Call) -> int:
    """Tell what a run would cost. Collective."""
    arguments, comm = call.arguments, call.comm
    if arguments.products is not None and 0 != arguments.products < LEAST:
        raise InputError(f"--products {arguments.products}: {LEAST} at least, or 0 for no advice")
    for flag in ("ranks", "row", "k"):
        value = getattr(arguments, flag)
        if value is not None and value < 1:
            raise InputError(f"{'-' if flag == 'k' else '--'}{flag} {value}: at least 1")
    asked, is_problem = Request.of(arguments), problem_files.is_problem(arguments.input)
    _refuse_idle(arguments, is_problem)
    question = Question.of(arguments, call.options)
    source: Objective | StoredMatrix
    if is_problem:
        source = load_problem(arguments, comm)
        n, name, pattern = source.n, source.name, _pattern(call, source)
    else:
        source = _read_source(arguments, comm, question)
        pattern = source.pattern
        n, name = pattern.n, arguments.input
    question = question.in_eigenvalues(arguments, source if isinstance(source, Objective) else None)
    if isinstance(source, StoredMatrix) and source.origin.doubled:
        question.check_number(n // 2)
        question = question.doubled
    question.check_number(n)
    found, measured, silent = _looked(arguments, source, question, pattern is None)
    row = min(n, ROW if found is None or found.row is None else max(1, round(found.row)))
    if arguments.row is not None:
        row = min(n, arguments.row)
    assembly = shell = products = None
    refused = ""
    if isinstance(source, Objective):
        assembly = _assembly(call, source, pattern, row, measured)
        products, refused = _products(arguments, source, question, found)
        if products is not None:
            shell = count_shell_calls(source, products, not arguments.no_verify, measured)
    calls = shell if arguments.shell else assembly
    nnz = pattern.nnz if pattern is not None else n * row
    colors = 0 if assembly is None else assembly.colors or 0
    needed = cost_model.estimate_memory(pattern, n, nnz, question.number(n), colors, question.factorizes(n))
    needed = dataclasses.replace(needed, process=max(comm.allgather(needed.process)))
    taken = _memory_of_run(needed, question, n, products if arguments.shell else None)
    second, seconds = None if found is None or calls is None else found.seconds / _per(source), None
    if arguments.measure and calls is not None and isinstance(source, Objective):
        second = _measured(source, calls.function)
        seconds = {"one": second, "all": second * calls.total}
    took = None if second is None or calls is None else second * calls.total
    room = asked.memory or memory.free_memory(comm) * comm.size
    pieces = None if isinstance(source, Objective) and source.distributed else 0 if arguments.shell else colors
    worth = cost_model.choose_ranks(n, pieces, None if seconds is None else took, taken, room)
    many = asked.ranks or comm.size
    facts = {
        "schema": SCHEMA,
        "task": "plan",
        "of": question.command,
        "name": name,
        "problem": is_problem,
        "n": n,
        "nnz": 0 if arguments.shell else nnz,
        "estimated": pattern is None and not arguments.shell,
        "evaluations": None if calls is None else calls.facts(),
        "seconds": seconds,
        "memory": {"ranks": many, "per_rank": taken.per_rank(many), **dataclasses.asdict(taken)},
        "ranks": dataclasses.asdict(worth),
        "mpi": process_facts(comm)["mpi"],
        "versions": runtime.versions(),
    }
    origins = [source.origin] if isinstance(source, StoredMatrix) else []
    facts["notes"] = reading_notes(origins)
    lines = [plan_lines(facts, calls) + notes_told(origins)]
    if arguments.products != 0:
        facts["look"] = facts["advice"] = None
        lines.append(f"advice       none: {silent}")
    if found is not None:
        wanted = request_of(question, n)
        costs = method_advice.Costs(
            assembly, shell, products, refused, second, needed, many, asked.memory or room // many,
            detects=is_problem and pattern is None, shelled=arguments.shell,
        )  # fmt: skip
        if question.spec is None:
            advice = method_advice.advise_on_estimate(question.command, n, found, costs)
        else:
            choice = question.choice_of_matrix(n, pattern, comm)
            advice = method_advice.advise(wanted, n, found, costs, choice)
        facts["look"], facts["advice"] = found.facts(), dataclasses.asdict(advice)
        known = None if pattern is None else pattern.nnz
        told = method_advice.look_lines(found, n, known, wanted) + method_advice.advice_lines(advice)
        lines[-1] = "\n".join(told)
    facts["request"], limits = judge_limits(asked, many, taken, worth, took)
    answer(call, facts, "\n".join([*lines, limits] if limits else lines))
    if pattern is not None:
        pattern.free()
    return errors.DONE


def _read_source(arguments: argparse.Namespace, comm: MPI.Comm, question: Question) -> StoredMatrix:
    """Return the matrix of a file, of a complex one its real form, which a run works on. Collective."""
    takes = question.command in _TAKES_COMPLEX
    one = arguments.one_triangle
    stored = matrix_files.read_matrix(arguments.input, comm, one_triangle=one, hermitian=takes)
    if not stored.is_complex:
        return stored
    matrix = stored.to_mat()
    indptr, indices, values = matrix.getValuesCSR()
    pattern = Pattern.from_csr(indptr, indices, comm=comm, source=stored.origin.path)
    matrix.destroy()
    stored.pattern.free()
    said = (*stored.origin.said, "complex Hermitian: planned as the real symmetric matrix of twice the size")
    return StoredMatrix(pattern, values, dataclasses.replace(stored.origin, said=said, doubled=True))


def _refuse_idle(arguments: argparse.Namespace, is_problem: bool) -> None:
    """Refuse flags that nothing would heed, of this plan or in the run. Not collective; alike on every rank."""
    flag_groups.refuse_flags(
        arguments, {"explain": False}, "the advice of a plan says which method and why; see --products"
    )
    assembly = flag_groups.DERIVATIVES | flag_groups.COLORING | {"measure": False}
    if not is_problem:
        told = f"{arguments.input} is a matrix file, which is not differentiated"
        flag_groups.refuse_flags(arguments, flag_groups.SETTINGS | assembly | {"shell": False}, told)
    elif arguments.shell:
        checked = {"no_verify", "measure"}
        idle = {name: default for name, default in assembly.items() if name not in checked}
        flag_groups.refuse_flags(arguments, idle, "--shell assembles nothing")
    if not arguments.shell:
        told = "for the products of --shell; give that too, or leave it out"
        flag_groups.refuse_flags(arguments, {"precision": "double"}, told)
    if arguments.pattern != "detect":
        flag_groups.refuse_flags(arguments, {"points": 1}, "only --pattern detect probes points")
    if arguments.pattern != "detect" and not arguments.shell:
        flag_groups.refuse_flags(arguments, {"row": None}, "only --pattern detect has to reckon with rows")


def _pattern(call: Call, objective: Objective) -> Pattern | None:
    """Return the pattern of a problem, None where it has to be found, or nothing needs it. Collective."""
    arguments = call.arguments
    if arguments.shell:
        return objective.pattern
    if arguments.pattern == "detect":
        return objective.traced_pattern()
    pattern = read_given_pattern(arguments, objective, call.comm)
    if pattern is None:
        raise InputError(
            f"{objective.name} has no pattern: give one, have it found (--pattern detect), or take products alone "
            "(--shell); a plan tells what either costs"
        )
    if pattern.n != objective.n:
        raise InputError(f"{arguments.pattern} has {pattern.n} variables, {objective.name} has {objective.n}")
    return pattern


def _looked(
    arguments: argparse.Namespace, source: Objective | StoredMatrix, question: Question, unknown: bool
) -> tuple[SpectrumProbe | None, Measured | None, str]:
    """Return what products say, the noise measured, and why there is nothing of them. Collective."""
    if arguments.products == 0:
        return None, None, ""
    n = source.n if isinstance(source, Objective) else source.pattern.n
    unknown = unknown and isinstance(source, Objective)
    try:
        return *look(arguments, source, request_of(question, n), unknown), ""
    except (InputError, CheckError) as error:
        if arguments.products is not None or arguments.shell:
            raise
        measured = measure(arguments, source) if isinstance(source, Objective) else None
        return None, measured, str(error)


def _assembly(
    call: Call, objective: Objective, pattern: Pattern | None, row: int, measured: Measured | None
) -> Calls:
    """Return the calls of an assembly. Collective."""
    arguments = call.arguments
    colors: int | None = row
    tests = 0
    if pattern is None:
        tests = arguments.points * count_probes(objective.n, row)
    elif objective.elements is not None and arguments.coloring is None:
        colors = None
    else:
        colors = color_pattern(call, pattern).count
    return count_calls(
        objective, arguments.derivative, colors, not arguments.no_verify, tests, measured, arguments.seed
    )


def _products(
    arguments: argparse.Namespace, objective: Objective, question: Question, found: SpectrumProbe | None
) -> tuple[Products | None, str]:
    """Return the products of a run that assembles nothing, or why there is no such run. Collective."""
    differs = scheme_of("auto", objective) != "product"
    known = () if objective.null_vectors is None else objective.null_vectors
    null = {"none": 0, "constant": 1}.get(arguments.nullspace, len(known))
    checked = 0 if objective.projected is not None and arguments.nullspace is None else null
    try:
        return question.products(objective.layout, null, checked, differs, found), ""
    except InputError as error:
        if arguments.shell:
            raise
        return None, str(error)


def _memory_of_run(needed: Memory, question: Question, n: int, products: Products | None) -> Memory:
    """Return the memory of the run that is asked for."""
    dense = _DENSE * n * n
    if products is not None:
        whole = dense if products.whole else 0
        return dataclasses.replace(needed, matrix=0, factor=0, analysed=False, columns=whole)
    if question.method == "dense":
        return dataclasses.replace(needed, factor=0, analysed=False, process=needed.process + dense)
    return needed if question.inverts else dataclasses.replace(needed, factor=0, analysed=False)


def _per(source: Objective | StoredMatrix) -> int:
    """Return how many calls a product with a Hessian that is not assembled takes."""
    if not isinstance(source, Objective) or scheme_of("auto", source) == "product":
        return 1
    return 2 if source.gradient is not None else 4 * source.n


def _measured(objective: Objective, function: str) -> float:
    """Return seconds of one call of what is counted. Collective."""
    evaluations = Evaluations(objective, objective.x)
    together = np.zeros(len(evaluations.x), np.int64)
    began = time.perf_counter()
    if function == "product":
        evaluations.products(together, 1, np.ones(len(evaluations.x)))
    elif function == "energy":
        evaluations.energies([evaluations.x])
    else:
        evaluations.gradients([evaluations.x])
    return objective.comm.allreduce(time.perf_counter() - began) / objective.comm.size
