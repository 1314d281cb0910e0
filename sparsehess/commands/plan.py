"""What a run would cost: evaluations, memory per rank, ranks worth having, and the advice of a few products."""

from __future__ import annotations

import argparse
import dataclasses
import time
from typing import TYPE_CHECKING

import numpy as np

from sparsehess import errors, runtime
from sparsehess.commands import cost_model, flag_groups, problem_files
from sparsehess.commands.advice import give_advice
from sparsehess.commands.cost_model import Calls
from sparsehess.commands.differentiation import color_pattern, load_problem, read_given_pattern
from sparsehess.commands.output import SCHEMA, answer, process_facts
from sparsehess.commands.plan_limits import Request, judge_limits
from sparsehess.commands.reports.tables import notes_told, reading_notes
from sparsehess.derivatives.evaluations import Evaluations
from sparsehess.errors import InputError
from sparsehess.runtime import memory
from sparsehess.storage import matrix_files
from sparsehess.storage.matrix_files import StoredMatrix

if TYPE_CHECKING:
    from sparsehess.commands.call import Call
    from sparsehess.derivatives.objective import Objective
    from sparsehess.pattern import Pattern


def run_plan(call: Call) -> int:
    """Tell what a run would cost. Collective."""
    arguments, comm = call.arguments, call.comm
    if arguments.products is not None and 0 != arguments.products < 4:
        raise InputError(f"--products {arguments.products}: 4 at least, or 0 for no advice")
    for flag in ("ranks", "row", "k"):
        value = getattr(arguments, flag)
        if value is not None and value < 1:
            raise InputError(f"{'-' if flag == 'k' else '--'}{flag} {value}: at least 1")
    asked = Request.of(arguments)
    is_problem = problem_files.is_problem(arguments.input)
    _refuse_idle(arguments, is_problem)
    source: Objective | StoredMatrix
    pattern: Pattern | None
    calls: Calls | None = None
    seconds: dict[str, float] | None = None
    pieces: int | None = 0
    colors = 0
    if is_problem:
        source = objective = load_problem(arguments, comm)
        n, name = objective.n, objective.name
        pattern, calls = (None, None) if arguments.shell else _calls(call, objective)
        nnz = 0 if arguments.shell else (pattern.nnz if pattern is not None else n * min(n, arguments.row))
        if calls is not None:
            colors = calls.colors or 0
            pieces = None if objective.distributed else colors
            if arguments.measure:
                one = _measured(objective)
                seconds = {"one": one, "all": one * calls.total}
    else:
        source = matrix_files.read_matrix(arguments.input, comm, one_triangle=arguments.one_triangle)
        pattern = source.pattern
        n, nnz, name = pattern.n, pattern.nnz, arguments.input
    factored = not arguments.shell and arguments.method in ("auto", "krylovschur", "slicing", "feast", "ciss")
    needed = cost_model.estimate_memory(pattern, n, nnz, min(arguments.k or 6, n), colors, factored)
    needed = dataclasses.replace(needed, process=max(comm.allgather(needed.process)))
    room = asked.memory or memory.free_memory(comm) * comm.size
    worth = cost_model.choose_ranks(n, pieces, None if seconds is None else seconds["all"], needed, room)
    many = asked.ranks or comm.size
    facts = {
        "schema": SCHEMA,
        "task": "plan",
        "name": name,
        "problem": is_problem,
        "n": n,
        "nnz": nnz,
        "estimated": calls is not None and calls.estimated,
        "evaluations": None if calls is None else {**dataclasses.asdict(calls), "total": calls.total},
        "seconds": seconds,
        "memory": {"ranks": many, "per_rank": needed.per_rank(many), **dataclasses.asdict(needed)},
        "ranks": dataclasses.asdict(worth),
        "mpi": process_facts(comm)["mpi"],
        "versions": runtime.versions(),
    }
    origins = [source.origin] if isinstance(source, StoredMatrix) else []
    facts["notes"] = reading_notes(origins)
    lines = cost_model.plan_lines(facts) + notes_told(origins)
    took = None if seconds is None else seconds["all"]
    if arguments.products != 0:
        free = asked.memory or room // many
        looked, advice, told = give_advice(arguments, source, pattern, calls, needed, free, many)
        facts["look"] = None if looked is None else dataclasses.asdict(looked)
        facts["advice"] = None if advice is None else dataclasses.asdict(advice)
        lines = f"{lines}\n{told}"
        took = took if advice is None else advice.seconds or took
    facts["request"], told = judge_limits(asked, many, needed, worth, took)
    lines = f"{lines}\n{told}" if told else lines
    answer(call, facts, lines)
    if pattern is not None:
        pattern.free()
    return errors.DONE


def _refuse_idle(arguments: argparse.Namespace, is_problem: bool) -> None:
    """Refuse flags that nothing of this plan would heed. Not collective; the same on every rank."""
    flag_groups.refuse_flags(
        arguments, {"explain": False}, "the advice of a plan says which method and why; see --products"
    )
    assembly = flag_groups.DERIVATIVES | flag_groups.COLORING | {"measure": False}
    if not is_problem:
        told = f"{arguments.input} is a matrix file, which is not differentiated"
        flag_groups.refuse_flags(arguments, flag_groups.SETTINGS | assembly, told)
    elif arguments.shell:
        flag_groups.refuse_flags(arguments, assembly, "--shell assembles nothing")
    if arguments.pattern != "detect":
        flag_groups.refuse_flags(arguments, {"row": 30}, "only --pattern detect has to reckon with rows")


def _calls(call: Call, objective: Objective) -> tuple[Pattern | None, Calls]:
    """Return (pattern, calls) of a problem that is assembled; no pattern where it has to be found. Collective."""
    arguments = call.arguments
    derivative, verified = arguments.derivative, not arguments.no_verify
    if arguments.pattern == "detect":
        row = min(objective.n, arguments.row)
        tests = arguments.points * cost_model.count_probes(objective.n, row)
        return None, cost_model.count_calls(objective, derivative, row, verified, probed=tests)
    pattern = read_given_pattern(arguments, objective, call.comm)
    if pattern is None:
        raise InputError(f"{objective.name} has no pattern: give one, or plan for --pattern detect")
    if pattern.n != objective.n:
        raise InputError(f"{arguments.pattern} has {pattern.n} variables, {objective.name} has {objective.n}")
    if objective.elements is not None and arguments.coloring is None:
        return pattern, cost_model.count_calls(objective, derivative, None, verified)
    return pattern, cost_model.count_calls(objective, derivative, color_pattern(call, pattern).count, verified)


def _measured(objective: Objective) -> float:
    """Return seconds of one gradient, or of one product where there is no gradient. Collective."""
    evaluations = Evaluations(objective, objective.x)
    began = time.perf_counter()
    if objective.gradient is not None or objective.energy is not None or objective.elements is not None:
        evaluations.gradients([evaluations.x])
    else:
        together = np.zeros(len(evaluations.x), np.int64)
        evaluations.products(together, 1, np.ones(len(evaluations.x)))
    return objective.comm.allreduce(time.perf_counter() - began) / objective.comm.size
