"""A matrix near the Hessian, which a caller brings as a preconditioner: assembled, or an operator."""

from __future__ import annotations

import numpy as np

from sparsehess.eigen.problem.brought_facts import SYMMETRY
from sparsehess.eigen.problem.equilibration import scaled_copy
from sparsehess.eigen.problem.matrix_inputs import MatrixLike, as_mat, check_symmetric
from sparsehess.errors import InputError
from sparsehess.hessian.hessian import Hessian
from sparsehess.operators.operator import Operator
from sparsehess.pattern import Layout
from sparsehess.runtime import PETSc
from sparsehess.runtime.petsc_matrices import is_assembled


def nearby_matrix(
    given: Hessian | Operator | MatrixLike | None, layout: Layout, owned: list
) -> PETSc.Mat | Operator | None:
    """Return a caller's preconditioner, checked: a Mat, or an operator with a structure as it is. Collective."""
    if given is None:
        return None
    name = "the preconditioner"
    if isinstance(given, Operator):
        if given.mat is None:
            raise InputError(f"{name} is closed: it must live as long as the solve")
        as_mat(given.mat, None, layout, owned, name)  # refuses other rows
        check_symmetric(name, given.mat, np.ones(layout.n_local), layout, SYMMETRY)
        return given
    near = as_mat(given.mat if isinstance(given, Hessian) else given, None, layout, owned, name)
    if not is_assembled(near):
        raise InputError(
            f"{name} must be an assembled matrix near the Hessian, or a structure such as a LowRankDiagonal or a "
            "Kronecker"
        )
    return near


def scaled_nearby_matrix(near: PETSc.Mat | Operator | None, d: PETSc.Vec, power: int) -> PETSc.Mat | None:
    """Return a preconditioner in other units, None where there is none. Collective."""
    if isinstance(near, Operator):
        raise InputError(
            "rows of the Hessian differ by more than a factor of 16,384, and are scaled alike, which no structure "
            "of a preconditioner outlasts: give both with variables in such units, or the preconditioner assembled"
        )
    return None if near is None else scaled_copy(near, d, power)
