"""What neighbouring ranks tell each other about a symmetric pattern.

A structurally symmetric pattern needs no index to be sent for either exchange: a rank knows from
its own rows which of them its neighbours have as ghosts, and which of their entries mirror its own.
"""

from __future__ import annotations

from mpi4py import MPI

import numpy as np

from sparsehess.runtime.row_layout import Layout, offsets


class NeighborGraph:
    """The ranks that this one receives from and sends to; on a single rank nothing is ever sent.

    Collective to make and to use; `free` releases its communicator.

    Parameters
    ----------
    comm
        Communicator of all ranks.
    sources, targets
        Ascending ranks that this one receives from, and sends to.
    """

    def __init__(self, comm: MPI.Comm, sources: np.ndarray, targets: np.ndarray):
        self._comm: MPI.Distgraphcomm | None = None
        if comm.size > 1:
            self._comm = MPI.Intracomm(comm).Create_dist_graph_adjacent(sources.tolist(), targets.tolist())

    def swap(self, out: np.ndarray, out_counts: np.ndarray, into: np.ndarray, into_counts: np.ndarray) -> None:
        """Send so many items to each target, one after another; receive so many of each source.

        Collective.
        """
        if self._comm is not None:
            self._comm.Neighbor_alltoallv(
                [out, (out_counts, offsets(out_counts))], [into, (into_counts, offsets(into_counts))]
            )

    def free(self) -> None:
        """Release the communicator.

        Collective.
        """
        if self._comm is not None:
            self._comm.Free()
            self._comm = None


class Exchange:
    """Halo of vectors and mirror of entries, planned once for a pattern.

    Collective to make and to use, on the communicator of the layout; `free` releases it.

    Parameters
    ----------
    layout
        Rows of each rank.
    indptr, indices
        Local rows, global columns, structurally symmetric over all ranks.
    """

    def __init__(self, layout: Layout, indptr: np.ndarray, indices: np.ndarray):
        self.layout = layout
        outside = (indices < layout.start) | (indices >= layout.stop)
        self.remote = np.flatnonzero(outside)  # (m,) entries with a ghost column, in their order
        columns = indices[self.remote].astype(np.int64)
        rows = (np.searchsorted(indptr, self.remote, side="right") - 1).astype(np.int64)
        self.ghosts, inverse = np.unique(columns, return_inverse=True)  # global numbers, ascending
        owners = layout.owner(columns)
        neighbors = np.unique(owners)

        # Entries to owner q leave sorted by (row, column); their mirrors arrive in that order of
        # the sender, which is (column, row) here.
        self._leave = np.lexsort((columns, rows, owners))
        self._arrive = np.lexsort((rows, columns, owners))
        self._entry_counts = np.array([np.count_nonzero(owners == q) for q in neighbors], np.int64)

        # Row i goes to q when q owns one of its columns: it is a ghost there.
        pair = np.unique(np.stack([owners, rows], axis=1), axis=0) if len(rows) else np.empty((0, 2), np.int64)
        self._rows_out = pair[:, 1]
        self._row_counts = np.array([np.count_nonzero(pair[:, 0] == q) for q in neighbors], np.int64)
        ghost_owner = layout.owner(self.ghosts)
        self._ghost_counts = np.array([np.count_nonzero(ghost_owner == q) for q in neighbors], np.int64)

        self.columns = np.where(outside, 0, indices - layout.start).astype(np.int32)
        self.columns[self.remote] = layout.n_local + inverse
        self._alone = layout.comm.size == 1
        self._graph = NeighborGraph(layout.comm, neighbors, neighbors)

    def halo(self, values: np.ndarray) -> np.ndarray:
        """Return (n_local + ghosts,) values of local rows followed by those of the ghosts.

        Collective.
        """
        if self._alone:
            return values
        out = np.empty(self.layout.n_local + len(self.ghosts), values.dtype)
        out[: self.layout.n_local] = values
        ghosts = np.empty(len(self.ghosts), values.dtype)
        self._graph.swap(
            np.ascontiguousarray(values[self._rows_out]), self._row_counts, ghosts, self._ghost_counts
        )
        out[self.layout.n_local :] = ghosts
        return out

    def mirror(self, values: np.ndarray) -> np.ndarray:
        """Return (m,) for each remote entry (i, j) what the owner of row j has at (j, i).

        Collective. `values` (m,) belongs to the remote entries in their order, as the result does.
        """
        if self._alone:
            return values
        arrived = np.empty_like(values)
        self._graph.swap(
            np.ascontiguousarray(values[self._leave]), self._entry_counts, arrived, self._entry_counts
        )
        out = np.empty_like(values)
        out[self._arrive] = arrived
        return out

    def free(self) -> None:
        """Release the communicator of the neighbours.

        Collective.
        """
        self._graph.free()
