"""What a user's function gives at one value of a parameter, as an eigenproblem."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mpi4py import MPI

from sparsehess.eigen.problem.matrix_inputs import VectorsLike
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.errors import InputError
from sparsehess.runtime import PETSc, agreement, communicator
from sparsehess.runtime.validation import explain_evaluation_errors


def matrices_at(problem_of: Callable[[float], Any], value: float, comm: MPI.Comm | None) -> Any:
    """Return what a user's function gives at a value of the parameter.

    Collective. An error on one rank is one on all.

    Raises
    ------
    EvaluationError
        The function raised.
    """
    with agreement(communicator(comm)), explain_evaluation_errors(f"problem_of({value:.10g})"):
        return problem_of(value)


def as_problem(
    given: Any,
    comm: MPI.Comm | None,
    *,
    nullspace: VectorsLike | None = None,
    guess: list[PETSc.Vec] | None = None,
) -> EigenProblem:
    """Return the problem of a matrix, or of a pair (K, M); the caller closes it. Collective.

    Raises
    ------
    InputError
        It is neither, or no symmetric matrix.
    """
    matrix, mass = given, None
    if isinstance(given, tuple):
        if len(given) != 2:
            raise InputError(f"problem_of must return a matrix, or (K, M); this is a tuple of {len(given)}")
        matrix, mass = given
    if matrix is None:
        raise InputError("problem_of returned None: it must return a matrix, a Hessian, or (K, M)")
    return EigenProblem.of(matrix, mass=mass, nullspace=nullspace, guess=guess, comm=comm)
