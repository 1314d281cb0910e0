"""Values of rows that other ranks have."""

from __future__ import annotations

import numpy as np

from sparsehess.runtime import PETSc, destroy
from sparsehess.runtime.row_layout import Layout


def values_at(layout: Layout, local: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the values (m,) that a vector of local rows (n_local,) has at some rows of all.

    Collective. Each rank asks for its own rows, any number of them.
    """
    if layout.comm.size == 1:
        return local[rows]
    wanted, place = np.unique(rows, return_inverse=True)
    whole = PETSc.Vec().createMPI((layout.n_local, layout.n), comm=layout.comm)
    whole.setArray(local)
    here = PETSc.Vec().createSeq(len(wanted), comm=PETSc.COMM_SELF)
    index = PETSc.IS().createGeneral(wanted.astype(PETSc.IntType), comm=PETSc.COMM_SELF)
    scatter = PETSc.Scatter().create(whole, index, here, None)
    try:
        scatter.scatter(whole, here)
        return here.getArray().copy()[place]
    finally:
        destroy(scatter, index, here, whole)
