"""Which rank has which rows."""

from __future__ import annotations

from dataclasses import dataclass

from mpi4py import MPI

import numpy as np

from sparsehess.runtime.communicators import communicator


@dataclass(frozen=True)
class Layout:
    """Contiguous blocks of rows, one a rank, in the order of the ranks, as PETSc has them.

    Attributes
    ----------
    comm
        Communicator, as the caller gave it.
    starts
        (size + 1,) first row of each rank; the last is the global size.
    """

    comm: MPI.Comm
    starts: np.ndarray

    @classmethod
    def from_size(cls, n: int, comm: MPI.Comm | None, block: int = 1) -> Layout:
        """Return the even layout that PETSc chooses; whole blocks of rows stay on one rank.

        Collective.
        """
        comm = communicator(comm)
        share, rest = divmod(n // block, comm.size)
        counts = (share + (np.arange(comm.size) < rest)) * block
        return cls(comm, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))

    @classmethod
    def from_local(cls, n_local: int, comm: MPI.Comm | None) -> Layout:
        """Return the layout in which this rank has n_local rows.

        Collective.
        """
        comm = communicator(comm)
        counts = np.array(comm.allgather(int(n_local)), np.int64)
        return cls(comm, np.concatenate([[0], np.cumsum(counts)]))

    @property
    def n(self) -> int:
        return int(self.starts[-1])

    @property
    def start(self) -> int:
        return int(self.starts[self.comm.rank])

    @property
    def stop(self) -> int:
        return int(self.starts[self.comm.rank + 1])

    @property
    def n_local(self) -> int:
        return self.stop - self.start

    @property
    def counts(self) -> np.ndarray:
        """(size,) rows of each rank."""
        return np.diff(self.starts)

    def owner(self, rows: np.ndarray) -> np.ndarray:
        """Return the rank that has each of these global rows.

        Not collective.
        """
        return np.searchsorted(self.starts, rows, side="right") - 1

    def same(self, other: Layout) -> bool:
        """Return whether both give every rank the same rows.

        Not collective.
        """
        return np.array_equal(self.starts, other.starts)


def offsets(counts: np.ndarray) -> np.ndarray:
    """Return where each of several consecutive pieces begins.

    Not collective.
    """
    return np.cumsum(counts) - counts


def send_to_owners(layout: Layout, rows: np.ndarray, *columns: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return (rows, *columns) after every item has gone to the rank that has its row.

    Collective. All arrays are (m,) on this rank; the arrays returned are (m',), in no given order.
    """
    if layout.comm.size == 1:
        return (rows, *columns)
    owner = layout.owner(rows)
    order = np.argsort(owner, kind="stable")
    out = np.bincount(owner, minlength=layout.comm.size).astype(np.int64)
    into = np.empty_like(out)
    layout.comm.Alltoall(out, into)
    arrived = []
    for array in (rows, *columns):
        sent = np.ascontiguousarray(array[order])
        received = np.empty(into.sum(), sent.dtype)
        layout.comm.Alltoallv([sent, (out, offsets(out))], [received, (into, offsets(into))])
        arrived.append(received)
    return tuple(arrived)
