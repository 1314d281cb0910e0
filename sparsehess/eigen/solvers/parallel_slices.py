"""Slices of an interval solved side by side by groups of ranks, each of which has the whole of the matrices."""

from __future__ import annotations

from contextlib import closing

from mpi4py import MPI

import numpy as np

from sparsehess.eigen.problem.group_copies import on_the_group
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.solvers.spectrum_slicing import MOST, Slicing
from sparsehess.eigen.solvers.subintervals import Found
from sparsehess.errors import InputError
from sparsehess.runtime import PETSc, destroy, raise_together
from sparsehess.runtime.process_groups import Teams
from sparsehess.runtime.work_stealing import Work

# Pieces for each group at least: what one group's take longer, the others take over.
_EACH = 4


def find_in_groups(counter: Slicing, so_far: Found, groups: int, options: dict) -> list[PETSc.Vec]:
    """Return eigenvectors of all eigenvalues found in an interval, dealt out in slices to groups of ranks.

    Collective. The counter, on all ranks, halves the interval until there is enough to deal out, and is told of
    repairs and of slices in which some are missing. The caller destroys the vectors, which are those of `so_far`.

    Parameters
    ----------
    so_far
        What is found and what waits; brought forward. A signal is heeded between two slices of a group.
    groups
        Groups of consecutive ranks.
    options
        PETSc options of the solves.
    """
    problem = counter.problem
    if not groups <= problem.comm.size:
        raise InputError(f"groups={groups} must be from 1 to the number of ranks, {problem.comm.size}")
    if so_far.waiting is None:
        most = max(1, min(MOST, counter.expected(so_far.whole) // (_EACH * groups)))
        so_far.waiting = counter.pieces(so_far.whole, most)
    teams = Teams(problem.layout, groups)
    inner = None
    try:
        inner = on_the_group(problem, teams)
        while so_far.waiting:
            found, told = _dealt_out(so_far, counter, inner, teams, options)
            done: set[int] = set()
            for repairs, unresolved, iterations, numbers, _ in (told[first] for first in teams.first[:-1]):
                counter.repairs += repairs
                counter.unresolved += unresolved
                counter.elsewhere += iterations
                done.update(numbers)
            for name in counter.seconds:  # as long as the slowest took
                counter.seconds[name] += max(seconds[name] for *_, seconds in told)
            for column in teams.joined(found).T:
                vector = problem.A.createVecRight()
                vector.setArray(column)
                so_far.vectors.append(vector)
            so_far.waiting = [piece for number, piece in enumerate(so_far.waiting) if number not in done]
            so_far.unresolved, so_far.repairs = counter.unresolved, counter.repairs
            so_far.pause()
        return so_far.vectors
    finally:
        if inner is not None:
            inner.close()
        teams.close()


def _dealt_out(
    so_far: Found, counter: Slicing, inner: EigenProblem, teams: Teams, options: dict
) -> tuple[np.ndarray, list]:
    """Return this rank's rows of what its group found, and what every rank tells of its solver.

    Collective. Ends with all pieces, or earlier where a save is due.
    """
    comm, columns, error, told, done = counter.problem.comm, [], None, None, []
    group = teams.layout.comm
    work = Work(comm, group, len(so_far.waiting), False)
    try:
        with closing(Slicing(inner, options, tol=counter.tol, seed=counter.seed)) as solver:
            for number in work:
                vectors = solver.find(Found.of(so_far.waiting[number]))
                columns += [vector.getArray(readonly=True).copy() for vector in vectors]
                destroy(*vectors)
                done.append(number)
                if group.allreduce(so_far.wanted, op=MPI.LOR):
                    work.stop()
            told = solver.repairs, solver.unresolved, solver.iterations, done, dict(solver.seconds)
    except Exception as caught:  # the other groups must hear of it
        error = caught
    work.finish(error)
    raise_together(comm, error)
    found = np.stack(columns, axis=1) if columns else np.empty((teams.layout.n_local, 0))
    return found, comm.allgather(told)
