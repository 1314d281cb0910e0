"""PETSc matrices: made from local rows, and asked what they store."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import numpy as np

from sparsehess.runtime import petsc

if TYPE_CHECKING:
    from petsc4py import PETSc

    from sparsehess.runtime.row_layout import Layout


def aij(layout: Layout, indptr: np.ndarray, indices: np.ndarray, values: np.ndarray) -> PETSc.Mat:
    """Return the Hermitian AIJ matrix of local CSR rows with global columns. The caller destroys it.

    Collective.
    """
    PETSc = petsc.PETSc
    csr = (indptr.astype(PETSc.IntType), indices.astype(PETSc.IntType), values)
    matrix = PETSc.Mat().createAIJ(((layout.n_local, layout.n),) * 2, csr=csr, comm=layout.comm)
    matrix.setOption(PETSc.Mat.Option.HERMITIAN, True)  # of real scalars the same as symmetric
    return matrix


def refill(matrix: PETSc.Mat, indptr: np.ndarray, indices: np.ndarray, values: np.ndarray) -> None:
    """Put other values (m,) into an AIJ matrix that was made of these CSR rows, on several ranks.

    Collective. The places are known from then: nothing is searched for, where PETSc has a function for it (3.18).
    """
    library = ctypes.CDLL(petsc.PETSc.__file__)
    update = getattr(library, "MatUpdateMPIAIJWithArray", None)  # petsc4py does not have it
    if update is None or matrix.getType() != "mpiaij":
        matrix.setValuesCSR(indptr, indices, values)
        matrix.assemble()
        return
    values = np.ascontiguousarray(values, petsc.PETSc.ScalarType)
    update.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    code = update(matrix.handle, values.ctypes.data)
    if code:
        raise petsc.PETSc.Error(code)


def diagonal_of(matrix: PETSc.Mat) -> np.ndarray | None:
    """Return the diagonal (n_local,), real, of a matrix, None of a shell that has none. Collective."""
    diagonal = matrix.createVecRight()
    try:
        matrix.getDiagonal(diagonal)
        return diagonal.getArray(readonly=True).real.copy()
    except (petsc.PETSc.Error, SystemError) as error:  # on all ranks alike
        if petsc.error_code(error) not in petsc.UNSUPPORTED:
            raise
        return None
    finally:
        petsc.destroy(diagonal)


def is_assembled(matrix: PETSc.Mat) -> bool:
    """Return whether a matrix stores its entries by rows, as factorizations and multigrid need. Not collective."""
    return "aij" in matrix.getType()
