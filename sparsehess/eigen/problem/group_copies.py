"""Copies of a problem and of its vectors on the communicators of groups of ranks."""

from __future__ import annotations

import numpy as np

from sparsehess.eigen.problem.pencil import pencil
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.runtime import PETSc, aij
from sparsehess.runtime.process_groups import Teams


def copy_on_group(problem: EigenProblem, teams: Teams) -> EigenProblem:
    """Return an assembled problem on the communicator of this rank's group; it owns its matrices.

    Collective.
    """
    indptr, indices, a, m = teams.gather(*pencil(problem))
    A = aij(teams.layout, indptr, indices, a)
    M = None if problem.M is None else aij(teams.layout, indptr, indices, m)
    null = copy_vectors_on_group(problem.null, A, teams)
    owned = [matrix for matrix in (A, M) if matrix is not None] + null
    copy = type(problem)(
        A=A, M=M, null=null, projected=problem.projected, relative_error=problem.relative_error, owned=owned
    )
    return problem.share_facts(copy)


def copy_vectors_on_group(vectors: list[PETSc.Vec], A: PETSc.Mat, teams: Teams) -> list[PETSc.Vec]:
    """Return copies of vectors on the communicator of this rank's group, for a matrix that is there.

    Collective. The caller destroys them.
    """
    if not vectors:
        return []
    local = np.stack([vector.getArray(readonly=True) for vector in vectors], axis=1)
    copies = []
    for column in teams.spread_rows(local).T:
        copies.append(A.createVecRight())
        copies[-1].setArray(column)
    return copies
