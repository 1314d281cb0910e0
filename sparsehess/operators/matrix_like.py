"""What a caller may give as a matrix: PETSc's, an object that has one, a SciPy matrix, an array."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeGuard

import scipy.sparse

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

    from petsc4py import PETSc

    import numpy as np


class HasMat(Protocol):
    """An object with a PETSc matrix, assembled or a shell: a `Hessian`, a `MatrixFree`, an `Operator`."""

    @property
    def mat(self) -> PETSc.Mat:
        """The matrix."""
        ...


if TYPE_CHECKING:
    VectorsLike: TypeAlias = Sequence[PETSc.Vec] | np.ndarray  # of layouts of the matrix, or (m, n) on every rank
    LocalMatrix: TypeAlias = np.ndarray | scipy.sparse.spmatrix  # one that every rank has
    MatrixLike: TypeAlias = PETSc.Mat | HasMat | LocalMatrix


def mat_of(matrix: object) -> Any:
    """Return the PETSc matrix of an object that has one, and anything else as it is.

    Not collective.
    """
    return getattr(matrix, "mat", matrix)


def is_sparse(matrix: object) -> TypeGuard[scipy.sparse.spmatrix]:
    """Return whether a matrix is one of SciPy's sparse ones.

    Not collective.
    """
    return scipy.sparse.issparse(matrix)
