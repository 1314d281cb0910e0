"""`BlockRows`: local rows of a matrix of full and empty blocks, and how ranks add to the rows of others."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from sparsehess.networks.plan import Plan, check_part
from sparsehess.pattern.sparsity_pattern import Pattern
from sparsehess.runtime.row_layout import Layout

if TYPE_CHECKING:
    from mpi4py import MPI


@dataclass(frozen=True, eq=False)
class BlockPiece:
    """A rank's part of a rectangle within block (a, b) of a matrix.

    Attributes
    ----------
    a, rows
        Block of the rows, and which of its rows.
    b, columns
        Block of the columns, and which of its columns.
    numbers
        (rows, columns).
    """

    a: int
    rows: slice
    b: int
    columns: slice
    numbers: np.ndarray

    def transposed(self) -> BlockPiece:
        """Return the mirror of the piece, within block (b, a)."""
        return BlockPiece(self.b, self.columns, self.a, self.rows, self.numbers.T)


@dataclass(frozen=True, eq=False)
class BlockRows:
    """Rows of a matrix of full and empty blocks; a row holds its full blocks one after another.

    An empty block on the diagonal has its diagonal stored all the same, as a `Pattern` has.

    Attributes
    ----------
    coupled
        (blocks, blocks) bool: which blocks are full.
    offsets
        (blocks + 1,) first row of each block.
    layout
        Rows of each rank.
    """

    coupled: np.ndarray
    offsets: np.ndarray
    layout: Layout

    def owned_rows(self, a: int, rank: int) -> slice:
        """Return which rows of block a are a rank's."""
        first, last = self.layout.starts[rank : rank + 2]
        low, high = np.clip([first, last], self.offsets[a], self.offsets[a + 1]) - self.offsets[a]
        return slice(int(low), int(high))

    def columns(self, a: int, b: int) -> slice:
        """Return the places of block b among the numbers of a row of block a."""
        first = int(self.widths[a, :b].sum())
        return slice(first, first + int(self.widths[a, b]))

    @cached_property
    def widths(self) -> np.ndarray:
        """(blocks, blocks) numbers that each block has in a row."""
        sizes = np.diff(self.offsets)
        out = np.where(self.coupled, sizes[None, :], 0)
        np.fill_diagonal(out, np.where(self.coupled.diagonal(), sizes, 1))
        return out

    @cached_property
    def indptr(self) -> np.ndarray:
        """(n_local + 1,) of the local rows."""
        own = [self.owned_rows(a, self.layout.comm.rank) for a in range(len(self.coupled))]
        lengths = np.repeat(self.widths.sum(axis=1), [rows.stop - rows.start for rows in own])
        return np.concatenate([[0], np.cumsum(lengths)])

    def views(self, values: np.ndarray) -> list[np.ndarray]:
        """Return views of local values (nnz_local,), for each block a (its rows here, numbers in a row)."""
        out, first = [], 0
        for a, length in enumerate(self.widths.sum(axis=1)):
            rows = self.owned_rows(a, self.layout.comm.rank)
            size = (rows.stop - rows.start) * int(length)
            out.append(values[first : first + size].reshape(-1, int(length)))
            first += size
        return out

    def pattern(self) -> Pattern:
        """Return the pattern.

        *Collective.*
        """
        indices = np.empty(int(self.indptr[-1]), np.int64)
        for a, view in enumerate(self.views(indices)):
            own = self.owned_rows(a, self.layout.comm.rank)
            for b in np.flatnonzero(self.coupled[a]):
                view[:, self.columns(a, b)] = np.arange(self.offsets[b], self.offsets[b + 1])
            if not self.coupled[a, a]:
                view[:, self.columns(a, a)] = self.offsets[a] + np.arange(own.start, own.stop)[:, None]
        found = Pattern.from_csr(self.indptr, indices, comm=self.layout.comm, source="network")
        hollow = ~self.coupled.diagonal()
        if not hollow.any():
            return found
        block = np.searchsorted(self.offsets, np.arange(self.layout.start, self.layout.stop), side="right") - 1
        return replace(found, hollow=hollow[block])

    def add_pieces(self, pieces: list[BlockPiece], views: list[np.ndarray]) -> None:
        """Add the pieces of all ranks to the rows of their owners.

        *Collective.*

        Parameters
        ----------
        pieces
            This rank's parts of the same rectangles on every rank.
        views
            Of this rank's values; see `views`.
        """
        comm, first = self.layout.comm, 0
        if comm.size > 1:
            parts = [piece.numbers[self._overlap(piece, rank)] for rank in range(comm.size) for piece in pieces]
            counts = np.array([part.size for part in parts]).reshape(comm.size, -1).sum(axis=1)
            summed = np.empty(counts[comm.rank])
            comm.Reduce_scatter(np.concatenate([part.ravel() for part in parts]), summed, counts)
        for piece in pieces:
            rows = self._overlap(piece, comm.rank)
            own = piece.numbers[rows]
            if comm.size > 1:
                own = summed[first : first + own.size].reshape(own.shape)
                first += own.size
            row = piece.rows.start + rows.start - self.owned_rows(piece.a, comm.rank).start
            column = self.columns(piece.a, piece.b).start
            target = views[piece.a][row : row + len(own)]
            target[:, column + piece.columns.start : column + piece.columns.stop] += own

    def _overlap(self, piece: BlockPiece, rank: int) -> slice:
        """Return which rows of a piece are a rank's."""
        own = self.owned_rows(piece.a, rank)
        first, last = np.clip([own.start, own.stop], piece.rows.start, piece.rows.stop) - piece.rows.start
        return slice(int(first), int(last))


def block_rows(plan: Plan, part: str, comm: MPI.Comm | None) -> BlockRows:
    """Return the local rows of a part of a network's Hessian.

    *Collective.*

    Raises
    ------
    InputError
        There is no such part.
    """
    return BlockRows(plan.block_coupling(check_part(part)), plan.offsets, Layout.from_size(plan.n, comm))
