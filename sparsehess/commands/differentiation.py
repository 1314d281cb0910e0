"""Problems of the command line: loaded, and differentiated as the flags say."""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sparsehess.coloring import BEST, Coloring, fingerprint, load
from sparsehess.commands import flag_groups, problem_files
from sparsehess.commands.frequency_units import check_units_of
from sparsehess.derivatives.finite_differences import scheme_of
from sparsehess.eigen.solvers.eigs import DEFAULT_K
from sparsehess.eigen.solvers.lowest_pairs import require_gradients
from sparsehess.errors import InputError
from sparsehess.hessian.assembly import assemble, detect_with_journal
from sparsehess.hessian.evaluation_journal import NoJournal, open_journal
from sparsehess.hessian.hessian import Hessian
from sparsehess.hessian.matrix_free import MatrixFree
from sparsehess.long_range import Forecast, NearFar, forecast, near_far
from sparsehess.runtime import on_root
from sparsehess.runtime.progress import SharedProgress
from sparsehess.runtime.validation import whole_number
from sparsehess.storage import array_files, matrix_files

if TYPE_CHECKING:
    from mpi4py import MPI

    from sparsehess.commands.call import Call
    from sparsehess.derivatives.objective import Objective
    from sparsehess.pattern import Pattern


# Flags of derivatives that --pattern near heeds; gradients that it may take where nobody says.
_OF_NEAR, _GRADIENTS = ("pattern", "derivative"), 200


def load_problem(arguments: argparse.Namespace, comm: MPI.Comm) -> Objective:
    """Return the objective that is the INPUT, made with the arguments of --set. Collective."""
    return problem_files.load_objective(arguments.input, problem_files.parse_settings(arguments.settings), comm)


def matrix_free_problem(call: Call, precision: str) -> MatrixFree:
    """Return the Hessian of the problem that is the INPUT, never assembled. Collective."""
    arguments = call.arguments
    flags = {**flag_groups.DERIVATIVES, **flag_groups.COLORING}
    verify = not arguments.no_verify
    del flags["no_verify"]
    flag_groups.refuse_flags(arguments, flags | flag_groups.GRADIENTS, "--shell assembles nothing")
    objective = load_problem(arguments, call.comm)
    check_units_of(arguments, objective)
    return MatrixFree(objective, seed=arguments.seed, precision=precision, verify=verify)


def near_far_problem(call: Call) -> NearFar:
    """Return about the Hessian of the problem that is the INPUT, in which everything couples. Collective."""
    objective, arguments = _near_far_objective(call), call.arguments
    budget = number_of_gradients(arguments)
    return near_far(objective, gradients=budget, derivative=arguments.derivative, seed=arguments.seed)


def near_far_forecast(call: Call) -> tuple[Objective, Forecast]:
    """Return the problem that is the INPUT, in which everything couples, and what that takes. Collective."""
    objective, arguments = _near_far_objective(call), call.arguments
    budget = whole_number(number_of_gradients(arguments), "gradients", 1)
    return objective, forecast(objective, gradients=budget, derivative=arguments.derivative, seed=arguments.seed)


def _near_far_objective(call: Call) -> Objective:
    """Return the problem that is the INPUT, for --pattern near. Collective."""
    arguments = call.arguments
    flags = {name: default for name, default in flag_groups.DERIVATIVES.items() if name not in _OF_NEAR}
    reason = "--pattern near reads what is near by a star colouring of its own, and verifies by fresh products"
    flag_groups.refuse_flags(arguments, {**flags, **flag_groups.COLORING}, reason)
    objective = load_problem(arguments, call.comm)
    check_units_of(arguments, objective)
    k = min(DEFAULT_K if arguments.k is None else arguments.k, objective.n)
    each = 1 if scheme_of(arguments.derivative, objective) == "product" else 2
    require_gradients(k, each, number_of_gradients(arguments))
    return objective


def number_of_gradients(arguments: argparse.Namespace) -> int:
    """Return the budget of --pattern near. Not collective."""
    return _GRADIENTS if arguments.budget_gradients is None else arguments.budget_gradients


def assemble_problem(call: Call) -> Hessian:
    """Return the Hessian of the problem that is the INPUT. Collective."""
    began = time.perf_counter()
    arguments = call.arguments
    flag_groups.refuse_flags(arguments, flag_groups.GRADIENTS, "only --pattern near has a budget of gradients")
    objective = load_problem(arguments, call.comm)
    check_units_of(arguments, objective)
    by_element = objective.elements is not None and arguments.coloring is None
    pattern: Pattern | None
    calls: dict[str, int] = {}
    if arguments.pattern == "detect":
        flag_groups.refuse_flags(arguments, {"blocks": 1}, "a pattern that is detected comes without groups")
        journal = _journal(call, objective, None)
        pattern, calls = detect_with_journal(objective, journal, seed=arguments.seed, points=arguments.points)
    else:
        flag_groups.refuse_flags(arguments, {"points": 1}, "only --pattern detect probes points")
        pattern = read_given_pattern(arguments, objective, call.comm)
        journal = _journal(call, objective, pattern)
    given = time.perf_counter() - began
    if by_element:
        flag_groups.refuse_flags(
            arguments, flag_groups.COLORING, "the Hessians of the elements are summed; --coloring colours all"
        )
    coloring = None
    if not by_element and pattern is not None:
        make = partial(color_pattern, call, pattern)
        coloring = journal.coloring(pattern, make)
    progress = SharedProgress("colours evaluated", call.comm, arguments.quiet)
    hessian = assemble(
        objective,
        pattern=pattern,
        derivative=arguments.derivative,
        coloring=coloring,
        verify=not arguments.no_verify,
        repair=not arguments.no_repair,
        budget=arguments.budget,
        seed=arguments.seed,
        progress=progress,
        checkpoint=journal,
    )
    progress.finish()
    hessian.timings["pattern"] += given
    hessian.evaluations["pattern"] += sum(calls.values())
    return hessian


def read_given_pattern(arguments: argparse.Namespace, objective: Objective, comm: MPI.Comm) -> Pattern | None:
    """Return the pattern of the file that --pattern names, or the problem's own or traced one if there is any.

    Collective.
    """
    if arguments.pattern == "near":
        raise InputError(
            "--pattern near: eigs finds the lowest pairs of a problem in which everything couples; here give a "
            "file, given or detect"
        )
    if arguments.pattern != "given":
        return matrix_files.read_pattern(arguments.pattern, comm, block=arguments.blocks)
    own = objective.pattern or objective.traced_pattern()
    return None if own is None else own.in_blocks(arguments.blocks)


def color_pattern(call: Call, pattern: Pattern) -> Coloring:
    """Return the colouring that the flags ask for, or the stored one. Collective."""
    arguments = call.arguments
    if (arguments.coloring or "").endswith((".npz", ".h5")):
        flag_groups.refuse_flags(
            arguments, flag_groups.SEARCH | flag_groups.TEMPLATES, f"{arguments.coloring} is a colouring already"
        )
        return load(arguments.coloring, pattern)
    if arguments.order != BEST:
        flag_groups.refuse_flags(
            arguments, flag_groups.TEMPLATES, f"only --order {BEST} searches; {arguments.order} is one order"
        )
    lattice = getattr(arguments, "lattice", None)
    if lattice is not None:
        groups = pattern if pattern.quotient is None else pattern.quotient
        lattice = array_files.read_coordinates(lattice, groups.layout)
    return call.resources.color(
        pattern,
        kind=arguments.coloring or "star",
        order=arguments.order,
        rule=arguments.rule,
        seed=arguments.seed,
        budget=arguments.budget,
        lattice=lattice,
    )


def _journal(call: Call, objective: Objective, pattern: Pattern | None) -> NoJournal:
    """Return the journal of an assembly in the checkpoint. Collective."""
    arguments = call.arguments

    def decided() -> dict:
        place = arguments.input.rpartition(":")[0]
        names = (*flag_groups.DERIVATIVES, *flag_groups.COLORING, "seed")
        return {
            **{name: getattr(arguments, name) for name in names},
            "input": arguments.input.replace(place, Path(place).name),
            "settings": sorted(arguments.settings),
            "structure": None if pattern is None else fingerprint(pattern),
            "code": on_root(objective.comm, _code, place),
        }

    return open_journal(call.checkpoint, objective, decided)


def _code(place: str) -> str | None:
    """Return a digest of the file that a problem comes from; what that imports is not looked at."""
    origin = place if place.endswith(".py") else getattr(sys.modules.get(place), "__file__", None)
    return None if origin is None else hashlib.sha256(Path(origin).read_bytes()).hexdigest()[:16]
