"""Rows sent between the ranks that evaluate them and the ranks that own them."""

from __future__ import annotations

from mpi4py import MPI

import numpy as np

from sparsehess.runtime.row_layout import Layout, offsets

# Numbers that one exchange of results sends from a rank, at most.
_PIECE = 2**26


class RowTransfer:
    """Sends rows between the layout of the Hessian and what a rank holds within its group.

    Collective to make and to use.

    Parameters
    ----------
    first, held
        The rows that this rank has of its group's vectors: first, and how many.

    Attributes
    ----------
    gives, gets
        (ranks, 2) first and past the last of the rows held here that each rank owns, and of the rows owned here
        that each rank holds.
    """

    def __init__(self, comm: MPI.Comm, layout: Layout, first: int, held: int) -> None:
        self.comm, self.layout, self.held = comm, layout, held
        self.first, self.last = first, first + held
        ranges = np.array(comm.allgather((first, first + held)))
        starts, stops = layout.starts[:-1], layout.starts[1:]
        self._aligned = bool((ranges[:, 0] == starts).all() and (ranges[:, 1] == stops).all())
        self._whole = bool((ranges == (0, layout.n)).all())
        # Overlaps of the rows held here with the rows that each rank owns, and the other way round.
        self._give = np.clip(np.stack([starts, stops]), self.first, self.last)
        self._get = np.clip(ranges.T, layout.start, layout.stop)
        self.gives, self.gets = self._give.T, self._get.T

    def to_group(self, values: np.ndarray) -> np.ndarray:
        """Return the rows held in the group of a vector (n_local,) in the layout of the Hessian. Collective."""
        if self._aligned:
            return values
        out = np.empty(self.last - self.first, values.dtype)
        if self._whole:
            counts = self.layout.counts
            self.comm.Allgatherv(np.ascontiguousarray(values), [out, (counts, offsets(counts))])
            return out
        sent = np.concatenate([values[a - self.layout.start : b - self.layout.start] for a, b in self._get.T])
        counts, into = np.diff(self._get, axis=0)[0], np.diff(self._give, axis=0)[0]
        self.comm.Alltoallv([sent, (counts, offsets(counts))], [out, (into, self._give[0] - self.first)])
        return out

    def to_owners(self, numbers: list[list[int]], vectors: list[np.ndarray], count: int) -> np.ndarray:
        """Return (count, n_local): vectors by number, each held by the ranks of one group.

        Collective.

        Parameters
        ----------
        numbers
            Of the vectors of each rank.
        vectors
            (held,) each: this rank's part of those that its group has.
        """
        if self.comm.size == 1:
            return np.array(vectors)
        out = np.empty((count, self.layout.n_local))
        most = max(len(theirs) for theirs in numbers)
        piece = max(1, _PIECE // max(int(np.diff(self.layout.starts).sum()), 1))
        for begin in range(0, most, piece):
            mine = vectors[begin : begin + piece]
            theirs = [some[begin : begin + piece] for some in numbers]
            blocks = [vector[a - self.first : b - self.first] for a, b in self._give.T for vector in mine]
            sent = np.concatenate([*blocks, np.empty(0)])
            counts = len(mine) * np.diff(self._give, axis=0)[0]
            into = np.array([len(some) for some in theirs]) * np.diff(self._get, axis=0)[0]
            arrived = np.empty(int(into.sum()))
            self.comm.Alltoallv([sent, (counts, offsets(counts))], [arrived, (into, offsets(into))])
            for some, (a, b), at, many in zip(theirs, self._get.T, offsets(into), into, strict=True):
                if many:
                    rows = arrived[at : at + many].reshape(len(some), b - a)
                    out[some, a - self.layout.start : b - self.layout.start] = rows
        return out

    def sum(self, vectors: list[np.ndarray]) -> np.ndarray:
        """Return (count, n_local) sums over all ranks of vectors that each has whole. Collective."""
        out = np.empty((len(vectors), self.layout.n_local))
        piece = max(1, _PIECE // max(self.layout.n, 1))
        for begin in range(0, len(vectors), piece):
            part = np.array(vectors[begin : begin + piece])
            sent = np.concatenate([part[:, a:b].ravel() for a, b in self._give.T])
            rows = np.empty((len(part), self.layout.n_local))
            self.comm.Reduce_scatter(sent, rows, (len(part) * self.layout.counts).tolist(), op=MPI.SUM)
            out[begin : begin + len(part)] = rows
        return out
