"""Tall matrices: many rows over the ranks, few columns on every rank, and their QR factorization."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sparsehess.errors import InputError
from sparsehess.runtime import PETSc, agreement, on_root
from sparsehess.runtime.row_layout import Layout
from sparsehess.runtime.validation import reals

if TYPE_CHECKING:
    from mpi4py import MPI


def sum_over_ranks(comm: MPI.Comm, array: np.ndarray) -> np.ndarray:
    """Return the sum of the ranks' arrays, on all of them.

    Collective.
    """
    if comm.size == 1:
        return array
    total = np.empty_like(array, order="C")
    comm.Allreduce(np.ascontiguousarray(array), total)
    return total


def inner_products(comm: MPI.Comm, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return leftᵀ right of local rows, on all ranks.

    Collective.
    """
    return sum_over_ranks(comm, np.ascontiguousarray(left.T @ right))


def tall_qr(comm: MPI.Comm, local: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (Q, R): the local rows (n_local, m) of an orthonormal Q, and R (m, r), the same on every rank.

    Collective. Householder at every step, which keeps Q orthonormal to rounding where the columns (n_local, r) are
    nearly dependent (Demmel, Grigori, Hoemmen, Langou 2012); in between, the small R of all ranks
    are stacked on the first. m is the lesser of r and the number of rows.
    """
    Q, R = np.linalg.qr(local)
    if comm.size == 1:
        return Q, R
    stacked = comm.gather(R)
    pieces: list[np.ndarray] = []
    if stacked is not None:
        top, R = np.linalg.qr(np.concatenate(stacked))
        ends = np.cumsum([len(piece) for piece in stacked])
        pieces = np.split(top, ends[:-1])
    piece, R = comm.scatter(pieces), comm.bcast(R)
    return Q @ piece, R


def small_eigh(comm: MPI.Comm, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (eigenvalues, eigenvectors) of a small symmetric matrix that every rank has.

    Collective. Of the first rank's copy: what ranks decide by the result they must decide alike.
    """
    return on_root(comm, lambda: np.linalg.eigh((matrix + matrix.T) / 2))


def local_array(vector: object, layout: Layout, name: str = "the vector") -> np.ndarray:
    """Return local rows as a new array of floats, of a Vec, or of an array (n_local,) or (n_local, m).

    Collective.

    Raises
    ------
    InputError
        Not so many rows, or not finite.
    """
    with agreement(layout.comm):
        own = vector.getArray(readonly=True) if isinstance(vector, PETSc.Vec) else vector
        own = np.array(reals(own, name))
        if own.ndim not in (1, 2) or len(own) != layout.n_local:
            raise InputError(f"{name} must have the {layout.n_local} rows of this rank; its shape is {own.shape}")
        if not np.isfinite(own).all():
            raise InputError(f"{name} must be finite")
    return own
