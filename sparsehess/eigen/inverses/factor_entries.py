"""Entries of the inverse from the factors of MUMPS: of each column the path in the elimination tree alone.

MUMPS computes chosen entries of an inverse with pruned solves, of many columns at once (Amestoy, Duff,
L'Excellent, Robert, Rouet, Uçar 2012, "On computing inverse entries of a sparse matrix in an out-of-core
environment"). It takes them and gives them back on the first rank; so they go there in batches, beside one integer
for each column.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from mpi4py import MPI

import numpy as np

from sparsehess.eigen.inverses.remote_rows import values_at
from sparsehess.errors import StackError
from sparsehess.runtime import PETSc, destroy, raise_together
from sparsehess.runtime.row_layout import Layout, offsets

# Entries that the first rank holds at a time.
_BATCH = 2**18

# Columns that MUMPS solves at once: more share their paths, each needs a column of numbers.
_COLUMNS, _FEWEST, _NUMBERS = 256, 16, 2**24

# MUMPS's controls: of the solution's place (distributed or not), of the block of columns, and of the inverse.
_SOLUTION, _BLOCK, _INVERSE = 21, 27, 30


def tells_entries() -> bool:
    """Return whether this PETSc asks MUMPS for entries of the inverse. Not collective."""
    return hasattr(ctypes.CDLL(PETSc.__file__), "MatMumpsGetInverse")


def entries_of_factor(factor: PETSc.Mat, layout: Layout, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return the entries (m,) of the inverse at these places; each rank asks for its own, any number of them.

    Collective. The factor solves afterwards as before.

    Parameters
    ----------
    factor
        Of MUMPS, of a matrix with these rows.
    layout
        Of its rows.
    rows, columns
        (m,) global numbers.

    Raises
    ------
    StackError
        MUMPS has failed.
    """
    comm = layout.comm
    order = np.lexsort((rows, columns))
    rows, columns = rows[order], columns[order]
    share = max(1, _BATCH // comm.size)
    rounds = comm.allreduce(-(-len(rows) // share), op=MPI.MAX)
    found = np.empty(len(rows))
    library = ctypes.CDLL(PETSc.__file__)  # petsc4py has no name for it
    place = factor.getMumpsIcntl(_SOLUTION)
    factor.setMumpsIcntl(_BLOCK, min(_COLUMNS, max(_FEWEST, _NUMBERS // max(1, layout.n))))
    try:
        for number in range(rounds):
            here = slice(number * share, (number + 1) * share)
            found[here] = _batch(library, factor, layout, rows[here], columns[here])
    finally:
        factor.setMumpsIcntl(_INVERSE, 0)
        factor.setMumpsIcntl(_SOLUTION, place)  # which PETSc changes, and does not set back
    out = np.empty_like(found)
    out[order] = found
    return out


def _batch(
    library: ctypes.CDLL, factor: PETSc.Mat, layout: Layout, rows: np.ndarray, columns: np.ndarray
) -> np.ndarray:
    """Return the entries of one batch."""
    comm = layout.comm
    counts = np.array(comm.allgather(len(rows)))
    asked = np.empty((2, counts.sum() if comm.rank == 0 else 0), np.int64)
    for target, own in zip(asked, (rows, columns), strict=True):
        comm.Gatherv(np.ascontiguousarray(own, np.int64), [target, (counts, offsets(counts))])
    n = layout.n if comm.rank == 0 else 0
    places, again = np.unique(asked[1] * layout.n + asked[0], return_inverse=True)
    indptr = np.searchsorted(places, layout.n * np.arange(n + 1))
    csr = (indptr.astype(PETSc.IntType), (places % layout.n).astype(PETSc.IntType), np.ones(len(places)))
    # Row j holds what is asked of column j.
    wanted = PETSc.Mat().createAIJ(((n, layout.n),) * 2, csr=csr, comm=comm)
    transposed = PETSc.Mat().createTranspose(wanted)
    error = None
    try:
        code = library.MatMumpsGetInverse(ctypes.c_void_p(factor.handle), ctypes.c_void_p(transposed.handle))
        if code or factor.getMumpsInfog(1) < 0:
            error = StackError(
                f"MUMPS has told no entries of the inverse: INFOG(1) = {factor.getMumpsInfog(1)}, "
                f"INFOG(2) = {factor.getMumpsInfog(2)}, PETSc's error {code}"
            )
        raise_together(comm, error)
        values = wanted.getValuesCSR()[2][again]
    finally:
        destroy(transposed, wanted)
    own = np.empty(len(rows))
    comm.Scatterv([values, (counts, offsets(counts))], own)
    return own


def entries_by_solves(
    solve: Callable[[np.ndarray], np.ndarray], layout: Layout, rows: np.ndarray, columns: np.ndarray
) -> np.ndarray:
    """Return the entries (m,) of the inverse at these places, from a solution for each column that is asked for.

    Collective. Each rank asks for its own places.

    Parameters
    ----------
    solve
        From local rows (n_local, 1) of a right-hand side to those of the solution.
    """
    found = np.empty(len(rows))
    for column, here in _each_column(layout, columns):
        unit = np.zeros((layout.n_local, 1))
        if layout.start <= column < layout.stop:
            unit[column - layout.start] = 1.0
        found[here] = values_at(layout, solve(unit)[:, 0], rows[here])
    return found


def _each_column(layout: Layout, columns: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Return each column that a rank asks for, with where this rank does. Collective."""
    every = np.unique(np.concatenate(layout.comm.allgather(np.unique(columns))))
    order = np.argsort(columns, kind="stable")
    ends = np.searchsorted(columns[order], every, side="right")
    return list(zip(every.tolist(), np.split(order, ends[:-1]), strict=True)) if len(every) else []
