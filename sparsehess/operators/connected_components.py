"""Connected components of a distributed matrix, and their dealing to ranks by what they cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse
from scipy.sparse.csgraph import connected_components

from sparsehess.pattern import Pattern
from sparsehess.runtime.row_layout import Layout, send_to_owners

if TYPE_CHECKING:
    from mpi4py import MPI
    from petsc4py import PETSc

# Components of more than this part of a rank's even share of the work are dealt one by one.
_SINGLE = 1 / 64


def labels_of(matrix: PETSc.Mat, layout: Layout) -> np.ndarray:
    """Return for each local row (n_local,) the lowest row of its connected component.

    Collective. Components within a rank by SciPy; then ranks tell each other the labels of shared rows until none
    changes: as many rounds as the longest way of a component through ranks. Stored zeros connect nothing.
    """
    indptr, indices, values = matrix.getValuesCSR()
    stored = scipy.sparse.csr_matrix((values, indices, indptr), (layout.n_local, layout.n))
    stored.eliminate_zeros()
    pattern = Pattern.from_csr(stored.indptr, stored.indices, comm=layout.comm)
    exchange = pattern.exchange
    inside = exchange.columns < layout.n_local
    row_of = np.repeat(np.arange(layout.n_local), np.diff(pattern.indptr))
    within = scipy.sparse.coo_matrix(
        (np.ones(np.count_nonzero(inside), np.int8), (row_of[inside], exchange.columns[inside])),
        (layout.n_local,) * 2,
    )
    count, part = connected_components(within.tocsr(), directed=False)
    lowest = np.full(count, layout.n, np.int64)
    np.minimum.at(lowest, part, np.arange(layout.start, layout.stop))
    outside = np.flatnonzero(~inside)
    at, ghost = part[row_of[outside]], exchange.columns[outside]
    while True:
        before = lowest.copy()
        np.minimum.at(lowest, at, exchange.halo(lowest[part])[ghost])
        if not layout.comm.allreduce(int((lowest != before).any())):
            pattern.free()
            return lowest[part]


def deal(homes: np.ndarray, sizes: np.ndarray, comm: MPI.Comm) -> np.ndarray:
    """Return which rank is to work on each of this rank's components (m,), by cost size³.

    Collective.

    Parameters
    ----------
    homes
        (m,) label of each component that this rank has the lowest row of, ascending.
    sizes
        (m,) their rows.

    Notes
    -----
    Large ones, of which there are few, are dealt largest first to the rank with least to do (Graham 1969); the
    small fill up what room is left, in their order, so that no rank ever has the list of all.
    """
    cost = sizes.astype(np.float64) ** 3
    share = comm.allreduce(float(cost.sum())) / comm.size
    large = cost > _SINGLE * share
    every = np.concatenate(comm.allgather(np.stack([cost[large], homes[large]], axis=1)))
    ranks, load = balance_loads(every[:, 0], comm.size)
    target = np.empty(len(sizes), np.int64)
    target[large] = ranks[np.isin(every[:, 1], homes[large])]  # both ascend: by rank, and within one
    small = cost[~large]
    rest = comm.allreduce(float(small.sum()))
    room = np.maximum(_level(load, rest) - load, 0.0)
    before = sum(comm.allgather(float(small.sum()))[: comm.rank])
    middle = before + np.cumsum(small) - small / 2
    target[~large] = np.minimum(np.searchsorted(np.cumsum(room), middle), comm.size - 1)
    return target


def balance_loads(cost: np.ndarray, ranks: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (rank of each item, load of each rank): the costliest first, each to the rank with least to do.

    Not collective.
    """
    target, load = np.empty(len(cost), np.int64), np.zeros(ranks)
    for item in np.argsort(-cost, kind="stable"):
        target[item] = np.argmin(load)
        load[target[item]] += cost[item]
    return target, load


def _level(load: np.ndarray, amount: float) -> float:
    """Return up to where ranks are filled that take so much together, none above the others."""
    order = np.sort(load)
    levels = (amount + np.cumsum(order)) / np.arange(1, len(order) + 1)
    return float(levels[np.flatnonzero(levels >= order)[-1]])


def members(labels: np.ndarray, layout: Layout, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (labels, rows) of the components that this rank is to work on, ascending, a label for each row.

    Collective.

    Parameters
    ----------
    labels
        (n_local,) of `labels_of`.
    limit
        Largest size of a component that is sent anywhere; see `largest`.
    """
    own, counts = np.unique(labels, return_counts=True)
    homes, sizes = _at_home(own, counts, layout)
    if layout.comm.allreduce(int((sizes > limit).any())):
        raise TooLarge(max(layout.comm.allgather(int(sizes.max(initial=0)))))
    # Rows are sent home, and from there, with their component, to the rank that is to have it.
    rows = np.arange(layout.start, layout.stop)
    home, row = send_to_owners(layout, labels, rows)
    rank = deal(homes, sizes, layout.comm)[np.searchsorted(homes, home)]
    each = Layout.from_local(1, layout.comm)
    _, label, row = send_to_owners(each, rank, home, row)
    order = np.lexsort((row, label))
    return label[order], row[order]


class TooLarge(Exception):
    """A component has more rows than are taken; `args[0]` says how many. Raised on every rank."""


def _at_home(labels: np.ndarray, counts: np.ndarray, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Return (labels, sizes) of the components whose lowest row is here, from what each rank has of them."""
    label, count = send_to_owners(layout, labels, counts.astype(np.int64))
    homes, inverse = np.unique(label, return_inverse=True)
    sizes = np.zeros(len(homes), np.int64)
    np.add.at(sizes, inverse, count)
    return homes, sizes
