"""Vectors that are matrices, rows over the ranks: what a Kronecker product acts on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sparsehess.runtime.row_layout import Layout, offsets

if TYPE_CHECKING:
    from mpi4py import MPI


class Grid:
    """p x q matrices X as vectors of p q numbers, row after row, whole rows on one rank.

    Collective to make. (A ⊗ B) x is A X Bᵀ: B acts on the rows that a rank has, and A on whole columns, for
    which ranks exchange all but their share once and back. No rank ever has more than its share of X.

    Attributes
    ----------
    p, q
        Rows and columns of X.
    layout
        Of the vectors; `rows` and `columns` are those of X.
    """

    def __init__(self, p: int, q: int, comm: MPI.Comm):
        self.p, self.q = p, q
        self.layout = Layout.from_size(p * q, comm, block=q)
        self.rows, self.columns = Layout.from_size(p, comm), Layout.from_size(q, comm)

    @property
    def comm(self) -> MPI.Comm:
        """The ranks. Not collective."""
        return self.layout.comm

    @property
    def own_rows(self) -> slice:
        """Rows of X that this rank has. Not collective."""
        return slice(self.rows.start, self.rows.stop)

    @property
    def own_columns(self) -> slice:
        """Columns of X that this rank has after `to_columns`. Not collective."""
        return slice(self.columns.start, self.columns.stop)

    def matrix(self, vector: np.ndarray) -> np.ndarray:
        """Return the local rows (p_local, q) of X from those of x.

        Not collective.
        """
        return vector.reshape(self.rows.n_local, self.q)

    def to_columns(self, X: np.ndarray) -> np.ndarray:
        """Return the local columns (p, q_local) from the local rows (p_local, q).

        Collective.
        """
        if self.comm.size == 1:
            return X
        return self._swapped(X.T, self.columns, self.rows).T

    def to_rows(self, Y: np.ndarray) -> np.ndarray:
        """Return the local rows (p_local, q) from the local columns (p, q_local).

        Collective.
        """
        if self.comm.size == 1:
            return Y
        return self._swapped(Y, self.rows, self.columns)

    def _swapped(self, Y: np.ndarray, rows: Layout, columns: Layout) -> np.ndarray:
        """Return this rank's rows of a matrix of which it has these columns."""
        leave = np.ascontiguousarray(Y).ravel()  # row after row: those of one rank lie together
        out = rows.counts * columns.n_local
        into = columns.counts * rows.n_local
        received = np.empty(into.sum())
        self.comm.Alltoallv([leave, (out, offsets(out))], [received, (into, offsets(into))])
        pieces = np.split(received, np.cumsum(into)[:-1])
        shapes = [(rows.n_local, count) for count in columns.counts]
        return np.concatenate([piece.reshape(shape) for piece, shape in zip(pieces, shapes, strict=True)], axis=1)
