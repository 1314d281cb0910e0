"""Teams: groups of consecutive ranks of which each has the whole of a distributed thing."""

from __future__ import annotations

from mpi4py import MPI

import numpy as np

from sparsehess.runtime.communicators import communicator
from sparsehess.runtime.guards import share_guard
from sparsehess.runtime.row_layout import Layout, send_to_owners

# (counts, offsets) of rows, for each rank.
Overlap = tuple[np.ndarray, np.ndarray]


class Teams:
    """Groups of consecutive ranks, each with all rows of the matrix on its ranks. Collective to make."""

    def __init__(self, layout: Layout, groups: int):
        comm = layout.comm
        self.whole, self.groups = layout, groups
        self.first = np.arange(groups + 1) * comm.size // groups  # first rank of each
        self.index = int(np.searchsorted(self.first, comm.rank, side="right") - 1)
        self.comm = comm.Split(self.index, comm.rank)
        share_guard(comm, self.comm)
        even = [_even(layout.n, count) for count in np.diff(self.first)]
        self.layout = Layout(communicator(self.comm), even[self.index])
        self.starts = even
        # Overlaps of the rows of this rank in one layout with those of every rank in the other.
        lows, highs = np.concatenate([e[:-1] for e in even]), np.concatenate([e[1:] for e in even])
        self.out = _overlap(layout.start, layout.stop, lows, highs)
        self.into = _overlap(self.layout.start, self.layout.stop, layout.starts[:-1], layout.starts[1:])

    def gather(
        self, indptr: np.ndarray, indices: np.ndarray, a: np.ndarray, m: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return (indptr, indices, a, m) of this rank's rows in its group.

        Collective.
        """
        rows = self.whole.start + np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
        for group, starts in enumerate(self.starts):
            before, behind = self.first[group], self.whole.comm.size - self.first[group + 1]
            table = np.concatenate([np.zeros(before), starts, np.full(behind, self.whole.n)]).astype(np.int64)
            arrived = send_to_owners(Layout(self.whole.comm, table), rows, indices.astype(np.int64), a, m)
            if group == self.index:
                mine = arrived
        row, column, a, m = mine
        order = np.lexsort([column, row])
        counts = np.bincount(row - self.layout.start, minlength=self.layout.n_local)
        return np.concatenate([[0], np.cumsum(counts)]), column[order], a[order], m[order]

    def spread_rows(self, Y: np.ndarray) -> np.ndarray:
        """Return the rows of Y that this rank has in its group.

        Collective.
        """
        result = np.empty((self.layout.n_local, Y.shape[1]), Y.dtype)
        self._exchange(np.ascontiguousarray(Y), self.out, result, self.into)
        return result

    def collect(self, Q: np.ndarray) -> np.ndarray:
        """Return the sum over groups of their Q, the rows of this rank.

        Collective.
        """
        parts = np.empty((self.groups, self.whole.n_local, Q.shape[1]), Q.dtype)
        counts, places = self.out
        team = np.repeat(np.arange(self.groups), np.diff(self.first))
        self._exchange(np.ascontiguousarray(Q), self.into, parts, (counts, places + team * self.whole.n_local))
        return parts.sum(axis=0)

    def join_columns(self, Q: np.ndarray) -> np.ndarray:
        """Return the rows of this rank of all groups' Q side by side, each with columns of its own.

        Collective.
        """
        comm = self.whole.comm
        team = np.repeat(np.arange(self.groups), np.diff(self.first))
        widths = np.array(comm.allgather(Q.shape[1]))  # of each rank's
        counts, places = self.out
        arrived = np.empty(int((counts * widths).sum()), Q.dtype)
        begins = np.concatenate([[0], np.cumsum(counts * widths)[:-1]])
        sent = tuple(numbers * Q.shape[1] for numbers in self.into)
        comm.Alltoallv([np.ascontiguousarray(Q), sent], [arrived, (counts * widths, begins)])
        columns = np.concatenate([[0], np.cumsum(widths[self.first[:-1]])])
        result = np.empty((self.whole.n_local, columns[-1]), Q.dtype)
        for rank in np.flatnonzero(counts * widths):
            part = arrived[begins[rank] : begins[rank] + counts[rank] * widths[rank]]
            here = slice(columns[team[rank]], columns[team[rank] + 1])
            result[places[rank] : places[rank] + counts[rank], here] = part.reshape(counts[rank], -1)
        return result

    def _exchange(self, source: np.ndarray, sent: Overlap, target: np.ndarray, received: Overlap) -> None:
        number = MPI.DOUBLE if source.dtype.kind == "f" else MPI.C_DOUBLE_COMPLEX
        row = number.Create_contiguous(source.shape[-1]).Commit()
        try:
            self.whole.comm.Alltoallv([source, sent, row], [target, received, row])
        finally:
            row.Free()

    def close(self) -> None:
        """Free the communicator of the group.

        Collective.
        """
        self.comm.Free()


def _even(n: int, parts: int) -> np.ndarray:
    share, rest = divmod(n, int(parts))
    return np.concatenate([[0], np.cumsum(share + (np.arange(parts) < rest))]).astype(np.int64)


def _overlap(start: int, stop: int, lows: np.ndarray, highs: np.ndarray) -> Overlap:
    """Return (counts, offsets) of the rows [start, stop) that lie in each of [lows, highs)."""
    begins = np.clip(lows, start, stop)
    return np.maximum(np.clip(highs, start, stop) - begins, 0), begins - start
