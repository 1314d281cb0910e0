"""Slices of an interval solved side by side by groups of ranks, each of which has the whole of the matrices."""

from __future__ import annotations

from contextlib import closing

import numpy as np

from sparsehess.errors import InputError
from sparsehess.runtime import PETSc, aij, destroy, raise_together
from sparsehess.solvers.doubled import pencil
from sparsehess.solvers.problem import EigenProblem
from sparsehess.solvers.slicing import MOST, Piece, Slicing
from sparsehess.solvers.teams import Teams
from sparsehess.work import Work

# Pieces for each group at least: what one group's take longer, the others take over.
_EACH = 4


def find_in_groups(counter: Slicing, whole: Piece, groups: int, options: dict) -> list[PETSc.Vec]:
    """Return eigenvectors of all eigenvalues found in a piece, which is dealt out in slices to groups of ranks.

    Collective. The counter, on all ranks, halves the piece until there is enough to deal out, and is told of
    repairs and of slices in which some are missing. The caller destroys the vectors.

    Parameters
    ----------
    groups
        Groups of consecutive ranks.
    options
        PETSc options of the solves.
    """
    problem = counter.problem
    if not groups <= problem.comm.size:
        raise InputError(f"groups={groups} must be from 1 to the number of ranks, {problem.comm.size}")
    pieces = counter.pieces(whole, max(1, min(MOST, counter.expected(whole) // (_EACH * groups))))
    teams = Teams(problem.layout, groups)
    try:
        found, told = _dealt_out(pieces, counter, teams, options)
        for repairs, unresolved, iterations, _ in (told[first] for first in teams.first[:-1]):
            counter.repairs += repairs
            counter.unresolved += unresolved
            counter.elsewhere += iterations
        for name in counter.seconds:  # as long as the slowest took
            counter.seconds[name] += max(seconds[name] for *_, seconds in told)
        vectors = []
        for column in teams.joined(found).T:
            vector = problem.A.createVecRight()
            vector.setArray(column)
            vectors.append(vector)
        return vectors
    finally:
        teams.close()


def _dealt_out(pieces: list[Piece], counter: Slicing, teams: Teams, options: dict) -> tuple[np.ndarray, list]:
    """Return this rank's rows of what its group found, and what every rank tells of its solver. Collective."""
    comm, columns, error, told = counter.problem.comm, [], None, None
    inner = on_the_group(counter.problem, teams)
    work = Work(comm, teams.layout.comm, len(pieces), False)
    try:
        with closing(Slicing(inner, options, tol=counter.tol, seed=counter.seed)) as solver:
            for number in work:
                vectors = solver.find(pieces[number])
                columns += [vector.getArray(readonly=True).copy() for vector in vectors]
                destroy(*vectors)
            told = solver.repairs, solver.unresolved, solver.iterations, dict(solver.seconds)
    except Exception as caught:  # the other groups must hear of it
        error = caught
    try:
        work.finish(error)
        raise_together(comm, error)
    finally:
        inner.close()
    found = np.stack(columns, axis=1) if columns else np.empty((teams.layout.n_local, 0))
    return found, comm.allgather(told)


def on_the_group(problem: EigenProblem, teams: Teams) -> EigenProblem:
    """Return an assembled problem on the communicator of this rank's group; it owns its matrices.

    Collective.
    """
    indptr, indices, a, m = teams.gather(*pencil(problem))
    A = aij(teams.layout, indptr, indices, a)
    M = None if problem.M is None else aij(teams.layout, indptr, indices, m)
    null = vectors_on_the_group(problem.null, A, teams)
    owned = [matrix for matrix in (A, M) if matrix is not None] + null
    return EigenProblem(A=A, M=M, null=null, relative_error=problem.relative_error, owned=owned)


def vectors_on_the_group(vectors: list[PETSc.Vec], A: PETSc.Mat, teams: Teams) -> list[PETSc.Vec]:
    """Return copies of vectors on the communicator of this rank's group, for a matrix that is there.

    Collective. The caller destroys them.
    """
    if not vectors:
        return []
    local = np.stack([vector.getArray(readonly=True) for vector in vectors], axis=1)
    copies = []
    for column in teams.spread(local).T:
        copies.append(A.createVecRight())
        copies[-1].setArray(column)
    return copies
