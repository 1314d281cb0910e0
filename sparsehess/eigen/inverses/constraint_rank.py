"""Which constraints follow from the others."""

from __future__ import annotations

from contextlib import suppress

from mpi4py import MPI

import numpy as np

from sparsehess.eigen.inverses.constraint_matrices import without_rows
from sparsehess.eigen.inverses.factors import Factors
from sparsehess.eigen.inverses.saddle_point import SaddlePoint
from sparsehess.eigen.problem.factorization import Pivots
from sparsehess.errors import CheckError, InputError
from sparsehess.runtime import PETSc, aij, destroy, on_root
from sparsehess.runtime.row_layout import Layout

# Constraints depend on each other where the scaled ones have a singular value σ below 1e-7: [[α I, Cᵀ], [C, 0]]
# has the eigenvalue -σ²/α then, which is not to be told from zero; where factors are less exact, up to 1e-6. α is
# as small as a pivot may be that is taken: smaller ones are delayed, and fill rows of constraints on all of them.
_ALPHA, _ZEROS = 2.0**-6, (1e-12, 1e-11, 1e-10)

# So many redundant ones are named.
_MOST = 500

# Of constraints that can be exchanged the last one is named whose part in a dependence is not less than this part
# of the largest.
_PART = 0.1


def redundant_constraints(C: PETSc.Mat, fixed: np.ndarray, layout: Layout) -> np.ndarray:
    """Return the numbers of constraints, ascending, without which the others say the same and are independent.

    Collective. From the inertia of [[α I, Cᵀ], [C, 0]], C scaled by rows and columns, and from its null vectors,
    which are the dependences. Columns of fixed variables count as zero.

    Parameters
    ----------
    C
        (m, n).
    fixed
        (n_local,) whether a variable is held.
    layout
        Of the variables.

    Raises
    ------
    CheckError
        It is not to be told which singular values are zero.
    InputError
        More than 500.
    """
    many, vectors = _dependences(C, fixed, layout)
    if not many:
        return np.empty(0, np.int64)
    rows = on_root(layout.comm, _exchanged, _gathered(layout.comm, vectors))
    left = without_rows(C, rows, layout)
    try:
        again, _ = _dependences(left, fixed, layout)
    finally:
        destroy(left)
    if again:
        raise CheckError(
            f"{many} of the constraints depend on others, and without those that seem to, {again} still do"
        )
    return rows


def _dependences(C: PETSc.Mat, fixed: np.ndarray, layout: Layout) -> tuple[int, np.ndarray]:
    """Return how many combinations of constraints are zero, and those (m_local, that many). Collective."""
    columns = _largest_in_columns(C, fixed, layout)
    sizes = np.where(columns > 0, columns, 1.0) ** 2
    own = np.arange(layout.n_local)
    diagonal = aij(layout, np.arange(layout.n_local + 1), layout.start + own, _ALPHA * sizes)
    try:
        system = SaddlePoint(diagonal, C, fixed, sizes=sizes)
    finally:
        destroy(diagonal)
    try:
        factors: Factors = system.factors
        zero, signs = _zeros(factors)
        if signs.zero > _MOST:
            raise InputError(
                f"{signs.zero} of the {C.getSize()[0]} constraints follow from others, more than {_MOST}: leave "
                "them out"
            )
        vectors = factors.nearest_zero(signs.zero, zero) if signs.zero else np.empty((system.whole.n_local, 0))
        return signs.zero, vectors[layout.n_local :]
    finally:
        system.close()


def _zeros(factors: Factors) -> tuple[float, Pivots]:
    """Return the least size up to which eigenvalues are told to be zero, and the signs beyond. Collective."""
    for size in _ZEROS[:-1]:
        with suppress(CheckError):  # the same on every rank
            return size, factors.signs_beyond(size)
    return _ZEROS[-1], factors.signs_beyond(_ZEROS[-1])


def _largest_in_columns(C: PETSc.Mat, fixed: np.ndarray, layout: Layout) -> np.ndarray:
    """Return (n_local,) the largest entry of each column of |C|, 0 of fixed variables. Collective."""
    transposed = C.transpose(PETSc.Mat())
    indptr, _, values = transposed.getValuesCSR()
    destroy(transposed)
    largest, full = np.zeros(layout.n_local), np.flatnonzero(np.diff(indptr))
    if len(full):
        largest[full] = np.maximum.reduceat(np.abs(values), indptr[full])
    return np.where(fixed, 0.0, largest)


def _gathered(comm: MPI.Comm, rows: np.ndarray) -> np.ndarray | None:
    """Return all rows on the first rank. Collective."""
    every = comm.gather(rows)
    return None if every is None else np.concatenate(every)


def _exchanged(vectors: np.ndarray) -> np.ndarray:
    """Return as many rows as there are combinations that are zero, each solved for one of its constraints."""
    left, rows = np.array(vectors), []
    for _ in range(vectors.shape[1]):
        sizes = np.sqrt(np.square(left).sum(axis=1))
        row = int(np.flatnonzero(sizes >= _PART * sizes.max())[-1])
        direction = left[row] / sizes[row]
        left -= np.outer(left @ direction, direction)
        left[row] = 0.0
        rows.append(row)
    return np.sort(np.array(rows, np.int64))
