"""What PETSc calls of shells and of a preconditioner; the names of the methods are PETSc's."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import numpy as np

from sparsehess.operators.solutions import refusal
from sparsehess.runtime import called_back

if TYPE_CHECKING:
    from mpi4py import MPI
    from petsc4py import PETSc

    Map = Callable[[np.ndarray], np.ndarray]


class ShellProducts:
    """Products of a shell, from functions of local rows."""

    def __init__(self, product: Map, transposed: Map, diagonal: Callable[[], np.ndarray]) -> None:
        self._product, self._transposed, self._diagonal = product, transposed, diagonal

    @called_back
    def mult(self, mat: PETSc.Mat, x: PETSc.Vec, y: PETSc.Vec) -> None:
        """Set y to the product with x. Collective."""
        y.setArray(self._product(x.getArray(readonly=True).copy()))

    @called_back
    def multTranspose(self, mat: PETSc.Mat, x: PETSc.Vec, y: PETSc.Vec) -> None:
        """Set y to the product of the transpose with x. Collective."""
        y.setArray(self._transposed(x.getArray(readonly=True).copy()))

    @called_back
    def getDiagonal(self, mat: PETSc.Mat, d: PETSc.Vec) -> None:
        """Set d to the diagonal. Collective."""
        d.setArray(self._diagonal())


class ShiftedShell:
    """H + shift I as a shell."""

    def __init__(self, mat: PETSc.Mat, shift: float) -> None:
        self._mat, self._shift = mat, shift

    @called_back
    def mult(self, mat: PETSc.Mat, x: PETSc.Vec, y: PETSc.Vec) -> None:
        """Set y to the product with x. Collective."""
        self._mat.mult(x, y)
        y.axpy(self._shift, x)

    multTranspose = mult


class ShellSolves:
    """Solves with H + shift I as a preconditioner, from a function of local rows."""

    def __init__(self, solve: Callable[[np.ndarray, float], np.ndarray], shift: float, comm: MPI.Comm) -> None:
        self._solve, self._shift, self._comm = solve, shift, comm

    @called_back
    def apply(self, pc: PETSc.PC, x: PETSc.Vec, y: PETSc.Vec) -> None:
        """Set y to the solution for x. Collective.

        Raises
        ------
        InputError
            It is not finite.
        """
        with np.errstate(all="ignore"):
            solved = self._solve(x.getArray(readonly=True)[:, None].copy(), self._shift)
        if self._comm.allreduce(int(not np.isfinite(solved).all())):
            raise refusal(self._shift, np.inf)
        y.setArray(solved)

    applyTranspose = apply


class ProductsOfBlocks(Protocol):
    """What `BlockProducts` calls: products with a vector (n_local,), with a block (n_local, k), and a diagonal."""

    def product(self, vector: np.ndarray) -> np.ndarray:
        """Return the product with a vector. Collective."""
        ...

    def products(self, X: np.ndarray) -> np.ndarray:
        """Return the products with a block. Collective."""
        ...

    def diagonal(self) -> np.ndarray:
        """Return the diagonal (n_local,). Collective."""
        ...


class BlockProducts:
    """Products of a symmetric shell that multiplies blocks of vectors too."""

    def __init__(self, owner: ProductsOfBlocks) -> None:
        self._owner = owner

    @called_back
    def mult(self, mat: PETSc.Mat, x: PETSc.Vec, y: PETSc.Vec) -> None:
        """Set y to the product with x. Collective."""
        y.setArray(self._owner.product(x.getArray(readonly=True).copy()))

    multTranspose = mult

    @called_back
    def getDiagonal(self, mat: PETSc.Mat, d: PETSc.Vec) -> None:
        """Set d to the diagonal. Collective."""
        d.setArray(self._owner.diagonal())

    def matmat(self, X: np.ndarray) -> np.ndarray:
        """Return the products with a block (n_local, k). Collective."""
        return self._owner.products(X)
