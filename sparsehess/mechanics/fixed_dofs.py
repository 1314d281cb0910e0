"""Dofs that a code has fixed without taking them out: by penalties, or by numbers on both diagonals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mpi4py import MPI

import numpy as np

from sparsehess.runtime import PETSc, communicator

if TYPE_CHECKING:
    from sparsehess.storage.dof_labels import Labels

# A diagonal that is so many times all that stands beside it, or all other diagonals, is a penalty.
PENALTY = 1e6

# Rows that are told of each kind.
_TOLD = 20


@dataclass(frozen=True)
class SomeRows:
    """Rows of one kind: how many there are, and which the first ones are.

    Attributes
    ----------
    count
        How many.
    rows, names
        The first of them, from 0, and as nodes and components where rows have labels.
    """

    count: int
    rows: tuple[int, ...] = ()
    names: tuple[str, ...] = ()

    def told(self, most: int = 6) -> str:
        """Return which rows they are, in words. Not collective."""
        more = ", …" if self.count > most else ""
        text = f"row{'s' if self.count > 1 else ''} {', '.join(map(str, self.rows[:most]))}{more}"
        return f"{text}: {', '.join(self.names[:most])}{more}" if self.names else text

    def facts(self) -> dict[str, object]:
        """Return what JSON says of them. Not collective."""
        return {"count": self.count, "rows": list(self.rows), "names": list(self.names) or None}


@dataclass(frozen=True)
class FixedDofs:
    """What was found of fixed dofs in K and M; kinds do not overlap.

    Attributes
    ----------
    penalties
        The diagonal of K is `PENALTY` times all that stands beside it in its row, or where nothing does, the
        largest diagonal of rows that are coupled. Each has an eigenvalue of its own, far above, or infinite.
    uncoupled
        Nothing stands beside the diagonals of K and M, and M has one: each has an eigenvalue of its own, k/m.
        Without M they have one in K.
    massless
        The row of M is empty, that of K is not, and it has no penalty: as many eigenvalues are infinite.
    largest
        The largest penalty over the largest diagonal of a coupled row; 0 without one.
    """

    penalties: SomeRows
    uncoupled: SomeRows
    massless: SomeRows
    largest: float


def find_fixed_dofs(stiffness: PETSc.Mat, mass: PETSc.Mat | None, labels: Labels | None = None) -> FixedDofs:
    """Return which dofs are fixed by penalties or stand alone, and which have no mass.

    Collective. Rows without entries in both matrices are none of these.

    Parameters
    ----------
    labels
        Of the own rows.
    """
    comm = communicator(stiffness.comm)
    beside, diagonal = row_sizes(stiffness)
    coupled = beside > 0
    stiff = coupled & (np.abs(diagonal) >= PENALTY * beside)
    rest = comm.allreduce(float(np.abs(diagonal[coupled & ~stiff]).max(initial=0.0)), op=MPI.MAX)
    if rest > 0:
        stiff |= ~coupled & (np.abs(diagonal) >= PENALTY * rest)
    worst = comm.allreduce(float(np.abs(diagonal[stiff]).max(initial=0.0)), op=MPI.MAX)
    alone, massless = ~coupled & (diagonal != 0) & ~stiff, np.zeros(len(stiff), bool)
    if mass is not None:
        apart, weight = row_sizes(mass)
        massless = (apart == 0) & (weight == 0) & (coupled | (diagonal != 0)) & ~stiff
        alone = ~coupled & (apart == 0) & (weight > 0) & ~stiff
    start = stiffness.getOwnershipRange()[0]
    penalties, uncoupled, empty = (_some(comm, here, start, labels) for here in (stiff, alone, massless))
    return FixedDofs(penalties, uncoupled, empty, worst / rest if rest > 0 else 0.0)


def row_sizes(matrix: PETSc.Mat) -> tuple[np.ndarray, np.ndarray]:
    """Return (n_local,) sums of the sizes of entries beside the diagonal, and the diagonal. Not collective."""
    start, stop = matrix.getOwnershipRange()
    indptr, indices, entries = matrix.getValuesCSR()
    rows = np.repeat(np.arange(stop - start), np.diff(indptr))
    inside = indices == rows + start
    beside = np.bincount(rows[~inside], weights=np.abs(entries[~inside]), minlength=stop - start)
    diagonal = np.bincount(rows[inside], weights=entries[inside].real, minlength=stop - start)
    return beside, diagonal


def _some(comm: MPI.Comm, here: np.ndarray, start: int, labels: Labels | None) -> SomeRows:
    """Return how many rows these are on all ranks, and the first ones. Collective."""
    count = comm.allreduce(int(np.count_nonzero(here)))
    first = np.flatnonzero(here)[:_TOLD]
    names = labels.names(first) if labels is not None else []
    parts = comm.allgather(((first + start).tolist(), names))
    rows = [row for part, _ in parts for row in part][:_TOLD]
    told = [name for _, part in parts for name in part][:_TOLD]
    return SomeRows(count, tuple(rows), tuple(told))
