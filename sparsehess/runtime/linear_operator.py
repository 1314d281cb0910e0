"""PETSc matrices as SciPy's linear operators."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpi4py import MPI

import numpy as np

from sparsehess.errors import InputError
from sparsehess.runtime.communicators import communicator
from sparsehess.runtime.error_agreement import agreement
from sparsehess.runtime.gathered_rows import rows_on_all
from sparsehess.runtime.replicated_arrays import have_same
from sparsehess.runtime.row_layout import Layout

if TYPE_CHECKING:
    from petsc4py import PETSc

    from scipy.sparse.linalg import LinearOperator


def linear_operator(mat: PETSc.Mat | None, what: str) -> LinearOperator:
    """Return a symmetric matrix as a SciPy linear operator, for as long as the matrix lives.

    Not collective; its products are collective. On several ranks they take and give whole vectors (n,), the same
    on every rank, and every rank must ask for the same ones.

    Parameters
    ----------
    mat
        The matrix, assembled or a shell; None where it is destroyed.
    what
        What it belongs to, for messages.

    Raises
    ------
    InputError
        It is destroyed.
    """
    from scipy.sparse.linalg import LinearOperator

    from sparsehess.runtime.petsc import PETSc

    if not mat:
        raise InputError(f"the {what} is closed, and its matrix destroyed: take its linear operator before")
    n = mat.getSize()[0]
    layout = Layout(communicator(mat.comm), mat.getOwnershipRanges().astype(np.int64))

    def product(vector: np.ndarray) -> np.ndarray:
        with agreement(layout.comm):
            if not mat:
                raise InputError(f"the {what} is closed, and its matrix destroyed: use its linear operator before")
            whole = np.ascontiguousarray(vector, PETSc.ScalarType).reshape(n)
        _check_alike(layout.comm, whole)
        x, y = mat.createVecs()
        try:
            x.setArray(whole[layout.start : layout.stop])
            mat.mult(x, y)
            return rows_on_all(layout, y.getArray(readonly=True))
        finally:
            x.destroy()
            y.destroy()

    def products(vectors: np.ndarray) -> np.ndarray:
        return np.stack([product(column) for column in vectors.T], axis=1)

    return LinearOperator(
        (n, n),
        matvec=product,
        rmatvec=product,
        matmat=products,
        rmatmat=products,
        dtype=np.dtype(PETSc.ScalarType),
    )


def _check_alike(comm: MPI.Comm, whole: np.ndarray) -> None:
    """Refuse vectors that are not the same on every rank, as far as a checksum tells. Collective."""
    if not have_same(comm, whole):
        raise InputError(
            "a linear operator on several ranks takes the same vector on every rank, and these differ: give "
            "iterations the same start (v0 of eigsh), not a random one on each rank"
        )
