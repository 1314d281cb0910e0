"""What a caller may give as a matrix: PETSc's, an object that has one, SciPy's matrices, operators, arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeGuard

import numpy as np
import scipy.sparse

from sparsehess.errors import InputError
from sparsehess.operators.products import Products
from sparsehess.runtime import PETSc
from sparsehess.runtime.row_layout import Layout

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

    from mpi4py import MPI


class HasMat(Protocol):
    """An object with a PETSc matrix, assembled or a shell: a `Hessian`, a `MatrixFree`, an `Operator`."""

    @property
    def mat(self) -> PETSc.Mat:
        """The matrix."""
        ...


class HasProducts(Protocol):
    """A linear operator of SciPy, or one that is like those: it has a size and products with vectors."""

    shape: tuple[int, int]
    dtype: Any

    def matvec(self, x: np.ndarray) -> np.ndarray:
        """Return the product with a vector (n,)."""
        ...


if TYPE_CHECKING:
    VectorsLike: TypeAlias = Sequence[PETSc.Vec] | np.ndarray  # of layouts of the matrix, or (m, n) on every rank
    LocalMatrix: TypeAlias = np.ndarray | scipy.sparse.spmatrix | scipy.sparse.sparray  # one that every rank has
    MatrixLike: TypeAlias = PETSc.Mat | HasMat | HasProducts | LocalMatrix


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


def has_products(matrix: object) -> TypeGuard[HasProducts]:
    """Return whether something is a linear operator, SciPy's or like those, and no matrix.

    Not collective.
    """
    return callable(getattr(matrix, "matvec", None)) and hasattr(matrix, "shape") and not hasattr(matrix, "mat")


def stored(matrix: object, name: str) -> Any:
    """Return the PETSc matrix of an object that has one, anything else as it is, but no linear operator.

    Not collective.

    Raises
    ------
    InputError
        It is a linear operator, or a function.
    """
    if has_products(matrix):
        raise InputError(
            f"{name} must be stored, as a matrix of SciPy's or PETSc's: a linear operator has only products"
        )
    if callable(matrix) and not isinstance(matrix, PETSc.Mat):  # a Mat can be called, too: its product
        raise InputError(f"{name} is a function: sparsehess.from_matvec(function, n) takes those of products")
    return mat_of(matrix)


def as_operator(matrix: object, comm: MPI.Comm | None, made: list, layout: Layout | None = None) -> Any:
    """Return a linear operator that every rank has as an `Operator`, and anything else as it is.

    Collective.

    Parameters
    ----------
    comm, layout
        The ranks, over which rows are spread evenly; or the rows of each rank.
    made
        Gets the matrix of an operator that is made here, for the caller to destroy.

    Raises
    ------
    InputError
        The linear operator is not square, or not of real numbers.
    """
    if not has_products(matrix):
        return matrix
    shape = tuple(matrix.shape)
    if len(shape) != 2 or shape[0] != shape[1]:
        raise InputError(f"a Hessian is square; this linear operator is {' x '.join(map(str, shape))}")
    kind = np.dtype(getattr(matrix, "dtype", None) or np.float64)
    if kind.kind not in "fiub":
        raise InputError(f"a linear operator must be of real numbers, not {kind}: give a Hermitian matrix stored")
    layout = layout or Layout.from_size(int(shape[0]), comm)
    if layout.n != shape[0]:
        raise InputError(f"a linear operator of {shape[0]} x {shape[1]} does not fit {layout.n} rows")
    single = kind.kind == "f" and kind.itemsize < 8
    matmat = getattr(matrix, "matmat", None)
    made_here = Products(matrix.matvec, layout, matmat, False, single, "linear operator")
    made.append(made_here.mat)
    return made_here
