"""Which rank has which rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mpi4py import MPI

import numpy as np

from sparsehess.runtime.communicators import communicator
from sparsehess.runtime.short_repr import ShortRepr, number_of
from sparsehess.runtime.validation import whole_number


@dataclass(frozen=True, repr=False)
class Layout(ShortRepr):
    """Contiguous blocks of rows, one a rank, in the order of the ranks, as PETSc has them.

    Not collective; its constructors `from_size` and `from_local` are collective.

    Attributes
    ----------
    comm
        Communicator of the ranks.
    starts
        (size + 1,) first row of each rank; the last entry is the global size.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> layout = sh.Layout.from_size(10, None)  # this process alone; give a communicator for several ranks
    >>> layout.n, layout.n_local, layout.start, layout.stop
    (10, 10, 0, 10)
    >>> layout.owner(np.array([0, 9])).tolist()
    [0, 0]
    """

    comm: MPI.Comm
    starts: np.ndarray

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        yield f"{number_of(self.n, 'row')} over {number_of(len(self.starts) - 1, 'rank')}"

    @classmethod
    def from_size(cls, n: int, comm: MPI.Comm | None, block: int = 1) -> Layout:
        """Return the even layout that PETSc chooses; whole blocks of rows stay on one rank.

        Collective.
        """
        comm = communicator(comm)
        share, rest = divmod(whole_number(n, "n", 0) // block, comm.size)
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
        """Number of rows over all ranks."""
        return int(self.starts[-1])

    @property
    def start(self) -> int:
        """First row of this rank."""
        return int(self.starts[self.comm.rank])

    @property
    def stop(self) -> int:
        """First row past those of this rank."""
        return int(self.starts[self.comm.rank + 1])

    @property
    def n_local(self) -> int:
        """Number of rows of this rank."""
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
