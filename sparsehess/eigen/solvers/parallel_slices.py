"""Slices of an interval solved side by side by groups of ranks, each of which has the whole of the matrices."""

from __future__ import annotations

from contextlib import closing
from typing import NamedTuple

from mpi4py import MPI

import numpy as np

from sparsehess.eigen.problem.group_copies import copy_on_group
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.solvers.spectrum_slicing import MOST, Slicing
from sparsehess.eigen.solvers.subintervals import CountedSearch, Subinterval
from sparsehess.errors import InputError
from sparsehess.runtime import destroy, raise_together
from sparsehess.runtime.process_groups import Teams
from sparsehess.runtime.work_stealing import Work

# Subintervals for each group at least: what one group's take longer, the others take over.
_EACH = 4


def cut_for_groups(counter: Slicing, whole: Subinterval, groups: int) -> list[Subinterval]:
    """Return subintervals enough for groups of ranks, from below.

    Collective.
    """
    check_groups(counter.problem, groups)
    return counter.cut(whole, max(1, min(MOST, whole.inertia // (_EACH * groups))))


def check_groups(problem: EigenProblem, groups: int) -> None:
    """Raise InputError for more groups than ranks. Not collective; the same on every rank."""
    if groups > problem.comm.size:
        raise InputError(f"groups={groups} must be from 1 to the number of ranks, {problem.comm.size}")


def find_in_groups(counter: Slicing, search: CountedSearch, groups: int, options: dict) -> None:
    """Find the eigenvectors of a search in the subintervals that wait, dealt out to groups of ranks.

    Collective. The counter, on all ranks, is told of the groups' iterations and time.

    Parameters
    ----------
    search
        What is found and what waits. A signal is heeded between two subintervals of a group.
    groups
        Groups of consecutive ranks.
    options
        PETSc options of the solves.
    """
    problem = counter.problem
    check_groups(problem, groups)
    with closing(Teams(problem.layout, groups)) as teams, copy_on_group(problem, teams) as copy:
        while search.waiting:
            found, reports = _deal_out(search, counter, copy, teams, options)
            done: set[int] = set()
            for report in (reports[first] for first in teams.first[:-1]):
                search.repairs += report.repairs
                search.unresolved += report.unresolved
                counter.elsewhere += report.iterations
                done.update(report.done)
            for name in counter.seconds:  # as long as the slowest took
                counter.seconds[name] += max(report.seconds[name] for report in reports)
            for column in teams.join_columns(found).T:
                vector = problem.A.createVecRight()
                vector.setArray(column)
                search.vectors.append(vector)
            search.waiting = [one for number, one in enumerate(search.waiting) if number not in done]
            search.pause()


class _Report(NamedTuple):
    """What a rank of a group says of the subintervals that its group has solved.

    Attributes
    ----------
    repairs, unresolved
        As those of `CountedSearch`.
    iterations, seconds
        Of the group's solver.
    done
        Numbers of the subintervals.
    """

    repairs: int
    unresolved: list[tuple[Subinterval, int]]
    iterations: int
    done: list[int]
    seconds: dict[str, float]


def _deal_out(
    search: CountedSearch, counter: Slicing, copy: EigenProblem, teams: Teams, options: dict
) -> tuple[np.ndarray, list[_Report]]:
    """Return this rank's rows of what its group found, and the reports of all ranks.

    Collective. Ends with all subintervals, or earlier where a save is due.
    """
    comm, group = counter.problem.comm, teams.layout.comm
    columns: list[np.ndarray] = []
    report, error = _Report(0, [], 0, [], {}), None
    work = Work(comm, group, len(search.waiting), False)
    try:
        with closing(
            Slicing(copy, options, tol=counter.tol, accepts=counter.accepts, seed=counter.seed)
        ) as solver:
            repairs, done = 0, []
            unresolved: list[tuple[Subinterval, int]] = []
            for number in work:
                part = CountedSearch.of(search.waiting[number])
                solver.find(part)
                columns += [vector.getArray(readonly=True).copy() for vector in part.vectors]
                destroy(*part.vectors)
                repairs, unresolved = repairs + part.repairs, unresolved + part.unresolved
                done.append(number)
                if group.allreduce(search.store.wants_save, op=MPI.LOR):
                    work.stop()
            report = _Report(repairs, unresolved, solver.iterations, done, dict(solver.seconds))
    except BaseException as caught:  # the other groups must hear of it
        error = caught
    work.finish(error)
    raise_together(comm, error)
    found = np.stack(columns, axis=1) if columns else np.empty((teams.layout.n_local, 0))
    return found, comm.allgather(report)
