"""Vectors between the ranks and a file that rank 0 has open, piece by piece: it never holds a whole one."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from sparsehess.runtime import PETSc, agreement
from sparsehess.runtime.row_layout import Layout

if TYPE_CHECKING:
    from mpi4py import MPI

# Numbers that rank 0 holds of other ranks at a time.
PIECE = 2**20


def write_in_pieces(vector: PETSc.Vec, comm: MPI.Comm, write: Callable[[int, np.ndarray], None]) -> None:
    """Hand all rows of a vector to write(first row, values) on rank 0, in their order.

    Collective. What `write` raises is raised on all ranks.
    """
    local = vector.getArray(readonly=True)
    with agreement(comm):
        room = np.empty(PIECE if comm.rank == 0 and comm.size > 1 else 0, local.dtype)
    error: BaseException | None = None
    with agreement(comm):
        if comm.rank:
            for first in range(0, len(local), PIECE):
                comm.Send(local[first : first + PIECE], dest=0)
            return
        for rank, (begin, end) in enumerate(pairwise(vector.getOwnershipRanges().tolist())):
            for first in range(begin, end, PIECE):
                piece = (room if rank else local[first:])[: min(PIECE, end - first)]
                if rank:
                    comm.Recv(piece, source=rank)
                try:
                    if error is None:
                        write(first, piece)
                except BaseException as caught:  # the others are listened to all the same
                    error = caught
        if error is not None:
            raise error


def read_in_pieces(layout: Layout, read: Callable[[int, int], np.ndarray]) -> np.ndarray:
    """Return this rank's rows (n_local,) of a vector, of which read(first, last) gives rows on rank 0.

    Collective. What `read` raises is raised on all ranks.
    """
    comm = layout.comm
    with agreement(comm):
        local = np.empty(layout.n_local, PETSc.ScalarType)
    error: BaseException | None = None
    with agreement(comm):
        if comm.rank:
            for first in range(0, len(local), PIECE):
                comm.Recv(local[first : first + PIECE], source=0)
            return local
        for rank, (begin, end) in enumerate(pairwise(layout.starts.tolist())):
            for first in range(begin, end, PIECE):
                piece = np.zeros(min(PIECE, end - first), local.dtype)
                try:
                    if error is None:
                        piece[:] = read(first, first + len(piece))
                except BaseException as caught:  # the others wait for something all the same
                    error = caught
                if rank:
                    comm.Send(piece, dest=rank)
                else:
                    local[first : first + len(piece)] = piece
        if error is not None:
            raise error
    return local
