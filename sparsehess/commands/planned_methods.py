"""Which method a run would take, by its own rule, of a matrix that is not there yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sparsehess.commands.cost_model import problem_of_pattern
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.problem.solve_spec import SolveSpec
from sparsehess.eigen.solvers.eigs import complete_spec
from sparsehess.eigen.solvers.method_choice import Choice, choose_method
from sparsehess.pattern import Pattern
from sparsehess.runtime import PETSc, destroy
from sparsehess.runtime.row_layout import Layout

if TYPE_CHECKING:
    from mpi4py import MPI


def method_of_matrix(spec: SolveSpec, pattern: Pattern) -> Choice:
    """Return the method that a run takes of an assembled matrix of this pattern. Collective."""
    with problem_of_pattern(pattern) as problem:
        return choose_method(problem, complete_spec(problem, spec))


def method_of_unknown_matrix(spec: SolveSpec, n: int, comm: MPI.Comm) -> Choice:
    """Return the method that a run takes of an assembled matrix of n rows whose factors are cheap. Collective."""
    layout = Layout.from_size(n, comm)
    own = np.arange(layout.n_local)
    diagonal = Pattern.from_csr(np.arange(layout.n_local + 1), own + layout.start, comm=comm)
    try:
        return method_of_matrix(spec, diagonal)
    finally:
        diagonal.free()


def method_of_shell(spec: SolveSpec, layout: Layout, null: int, noise: float) -> tuple[SolveSpec, Choice]:
    """Return the spec with its defaults, and the method that a run takes of a Hessian that is never assembled.

    Collective. Nothing is multiplied with what a user gave.

    Parameters
    ----------
    null
        How many null vectors are known.
    noise
        Relative error of products.

    Raises
    ------
    InputError
        A run would refuse it.
    """
    size = ((layout.n_local, layout.n),) * 2
    A = PETSc.Mat().createPython(size, _Nothing(), comm=layout.comm)
    A.setUp()
    vector = A.createVecRight()
    try:
        with EigenProblem(A=A, null=[vector] * null, relative_error=noise, owned=[]) as problem:
            whole = complete_spec(problem, spec)
            return whole, choose_method(problem, whole)
    finally:
        destroy(A, vector)


class _Nothing:
    """What PETSc calls for a matrix of zeros."""

    def mult(self, mat: PETSc.Mat, x: PETSc.Vec, y: PETSc.Vec) -> None:
        y.set(0.0)
