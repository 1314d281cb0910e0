"""The real form of a complex Hermitian matrix: the real symmetric one of twice the size, rows interleaved."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse

from sparsehess.runtime import PETSc, aij
from sparsehess.runtime.row_layout import Layout

# What is said of a complex matrix that equals its transpose.
COMPLEX_SYMMETRIC = (
    "it is complex symmetric, and its eigenvalues are complex: conjugate the entries of one triangle if it is "
    "meant to be Hermitian, else solve it by scipy.sparse.linalg.eigs or SLEPc's EPS of type NHEP"
)

# Where real and imaginary parts of an entry stand in its 2 x 2 block, and with which sign.
_PLACES = (((0, 0, 1.0), (1, 1, 1.0)), ((0, 1, -1.0), (1, 0, 1.0)))


def real_form(layout: Layout, parts: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> PETSc.Mat:
    """Return [[R, -S], [S, R]] of R + iS as AIJ, real and imaginary part of each row in turn.

    Collective. The caller destroys it.

    Parameters
    ----------
    layout
        Of the rows of R.
    parts
        (indptr, global columns, values) of the own rows of R and, where there is one, of S.
    """
    rows, columns, values = [], [], []
    for (indptr, indices, entries), places in zip(parts, _PLACES, strict=False):
        own = np.repeat(np.arange(layout.n_local, dtype=np.int64), np.diff(indptr))
        for down, right, sign in places:
            rows.append(2 * own + down)
            columns.append(2 * indices.astype(np.int64) + right)
            values.append(sign * entries)
    local = scipy.sparse.coo_matrix(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))),
        (2 * layout.n_local, 2 * layout.n),
    ).tocsr()
    local.sort_indices()
    return aij(Layout(layout.comm, 2 * layout.starts), local.indptr, local.indices, local.data)
