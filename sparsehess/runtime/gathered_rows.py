"""Rows that lie on several ranks, brought together."""

from __future__ import annotations

import numpy as np

from sparsehess.runtime.error_agreement import agreement
from sparsehess.runtime.row_layout import Layout

# Who gets what is gathered: every rank, rank 0 alone, or each rank its own.
GATHERED = ("all", "root", "local")


def rows_on_all(layout: Layout, local: np.ndarray) -> np.ndarray:
    """Return all rows (n,) of a vector, on every rank.

    Collective.
    """
    if layout.comm.size == 1:
        return local.copy()
    whole = np.empty(layout.n, local.dtype)
    layout.comm.Allgatherv(np.ascontiguousarray(local), [whole, (layout.counts, layout.starts[:-1])])
    return whole


def gathered_columns(layout: Layout, columns: list[np.ndarray], dtype: np.dtype, where: str) -> np.ndarray:
    """Return vectors, of which each rank has its rows, as columns of an array.

    Collective, but for `local`.

    Parameters
    ----------
    columns
        k arrays (n_local,).
    where
        One of `GATHERED`.

    Returns
    -------
    np.ndarray
        (n, k) where all rows go, (n_local, k) for `local`, and (0, k) on the other ranks for `root`.
    """
    if where == "local":
        out = np.empty((layout.n_local, len(columns)), dtype, order="F")
        for number, column in enumerate(columns):
            out[:, number] = column
        return out
    comm, places = layout.comm, (layout.counts, layout.starts[:-1])
    here = where == "all" or comm.rank == 0
    with agreement(comm):  # before anything is under way that a rank without memory would not take
        out = np.empty((layout.n if here else 0, len(columns)), dtype, order="F")
    for number, column in enumerate(columns):
        target = [out[:, number], places] if here else None
        if where == "all":
            comm.Allgatherv(np.ascontiguousarray(column), target)
        else:
            comm.Gatherv(np.ascontiguousarray(column), target)
    return out
