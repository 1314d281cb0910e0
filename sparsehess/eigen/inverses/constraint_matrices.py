"""The matrix of constraints that a caller brings, or that null vectors are, as PETSc's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse

from sparsehess.errors import InputError
from sparsehess.runtime import PETSc, agreement
from sparsehess.runtime.replicated_arrays import of_all_ranks
from sparsehess.runtime.row_layout import Layout, offsets
from sparsehess.runtime.validation import reals

if TYPE_CHECKING:
    from typing import TypeAlias

    Jacobian: TypeAlias = PETSc.Mat | scipy.sparse.spmatrix | scipy.sparse.sparray | np.ndarray


def constraints_of(jacobian: Jacobian, layout: Layout) -> PETSc.Mat:
    """Return the Jacobian (m, n) of constraints as a new AIJ matrix, which the caller destroys.

    Collective.

    Parameters
    ----------
    jacobian
        A Mat with columns as the rows of the Hessian; or what of SciPy's or NumPy's every rank holds.
    layout
        Rows of the Hessian.

    Raises
    ------
    InputError
        Not as many columns as variables, or not finite.
    """
    if isinstance(jacobian, PETSc.Mat):
        columns = Layout.from_local(jacobian.getLocalSize()[1], layout.comm)
        if not columns.same(layout):
            raise InputError(
                f"the constraints have {columns.n} columns ({columns.counts.tolist()} on the ranks), the Hessian "
                f"{layout.n} rows ({layout.counts.tolist()})"
            )
        made = jacobian.convert("aij", PETSc.Mat())
        with agreement(layout.comm):
            _require_finite(made.getValuesCSR()[2])
        return made
    with agreement(layout.comm):
        stored = jacobian if scipy.sparse.issparse(jacobian) else np.atleast_2d(reals(jacobian, "the constraints"))
        if stored.ndim != 2 or stored.shape[1] != layout.n:
            raise InputError(f"the constraints must be (m, {layout.n}), not {stored.shape}")
        whole = scipy.sparse.csr_matrix(stored)
        whole = whole.astype(reals(whole.data, "the constraints").dtype)
        whole.sum_duplicates()
        _require_finite(whole.data)
    for part in (whole.indptr, whole.indices, whole.data):
        of_all_ranks(layout.comm, part, "the entries of the constraints", "every rank gives all of one matrix")
    own = Layout.from_size(whole.shape[0], layout.comm)
    return _aij(whole[own.start : own.stop], own, layout)


def constraints_of_vectors(vectors: Sequence[PETSc.Vec], layout: Layout) -> PETSc.Mat | None:
    """Return the matrix (m, n) whose rows are vectors, a new one, which the caller destroys; None of none.

    Collective. Each row goes to one rank: dense ones are as many numbers as the Hessian has rows.
    """
    if not vectors:
        return None
    comm = layout.comm
    own = Layout.from_size(len(vectors), comm)
    rows = np.empty((own.n_local, layout.n))
    for number, vector in enumerate(vectors):
        root = int(own.owner(np.array([number]))[0])
        target = rows[number - own.start] if comm.rank == root else None
        places = (layout.counts, offsets(layout.counts))
        comm.Gatherv(vector.getArray(readonly=True).copy(), [target, places], root)
    return _aij(scipy.sparse.csr_matrix(rows), own, layout)


def without_rows(C: PETSc.Mat, rows: np.ndarray, layout: Layout) -> PETSc.Mat:
    """Return a copy of a matrix of constraints without some rows, numbered in all; the caller destroys it.

    Collective.
    """
    start, stop = C.getOwnershipRange()
    indptr, indices, values = C.getValuesCSR()
    whole = scipy.sparse.csr_matrix((values, indices, indptr), (stop - start, layout.n))
    kept = np.setdiff1d(np.arange(start, stop), rows) - start
    return _aij(whole[kept], Layout.from_local(len(kept), layout.comm), layout)


def _aij(rows: scipy.sparse.csr_matrix, own: Layout, columns: Layout) -> PETSc.Mat:
    rows.sort_indices()
    csr = (rows.indptr.astype(PETSc.IntType), rows.indices.astype(PETSc.IntType), rows.data)
    return PETSc.Mat().createAIJ(((own.n_local, own.n), (columns.n_local, columns.n)), csr=csr, comm=own.comm)


def _require_finite(values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        raise InputError("the constraints must be finite")
