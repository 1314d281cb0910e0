"""Panels: blocks of vectors as rows of one local array, with combinations that take all rows at once.

A panel is an array (m, n_local): m vectors, of each this rank's part.
"""

from __future__ import annotations

from mpi4py import MPI

import numpy as np

from sparsehess.eigen.problem.slepc_blocks import require_finite
from sparsehess.runtime import on_root

# Columns of a panel that are combined at a time: they stay in the cache.
_CHUNK = 2048

# Directions of a panel whose rows have norm 1 that are weaker than this hold rounding alone.
_DEPENDENT = 1e-13


def dots(comm: MPI.Comm, left: np.ndarray, *others: np.ndarray) -> np.ndarray:
    """Return conj(left) otherᵀ (m, k) of all others side by side, the same on every rank. Collective."""
    out = np.concatenate([left.conj() @ other.T for other in others], axis=1)
    comm.Allreduce(MPI.IN_PLACE, out)
    return out


def norms(comm: MPI.Comm, panel: np.ndarray) -> np.ndarray:
    """Return the 2-norms (m,) of the vectors. Collective."""
    out = np.einsum("ij,ij->i", panel.conj(), panel).real.copy()
    comm.Allreduce(MPI.IN_PLACE, out)
    return np.sqrt(out)


def combine(panel: np.ndarray, C: np.ndarray) -> None:
    """Have the first k rows of a panel (m, n_local) be its combinations Cᵀ panel, C (m, k). Not collective."""
    m, k = C.shape
    for first in range(0, panel.shape[1], _CHUNK):
        part = panel[:, first : first + _CHUNK]
        part[:k] = C.T @ part[:m]


def orthonormalize(
    comm: MPI.Comm, panel: np.ndarray, images: np.ndarray, also: tuple[np.ndarray, ...] = ()
) -> tuple[int, float]:
    """Make a panel orthonormal in the mass, in its first rows.

    Return how many are independent, and how little the weakest of these directions has that is its own, of 1.
    Collective. SVQB (Stathopoulos and Wu 2002, algorithm 2), which drops what is dependent.

    Parameters
    ----------
    panel, images
        (m, n_local) X and M X; for a standard problem the same array.
    also
        Panels that are combined alike.
    """
    C, weakest = on_root(comm, _independent, dots(comm, panel, images))
    for one in {id(each): each for each in (panel, images, *also)}.values():
        combine(one, C)
    return C.shape[1], weakest


def _independent(gram: np.ndarray) -> tuple[np.ndarray, float]:
    """Return coefficients of an orthonormal combination for each independent direction, and the least weight."""
    require_finite(gram)
    size = np.sqrt(np.maximum(gram.diagonal().real, 0.0))
    scale = np.divide(1.0, size, out=np.zeros_like(size), where=size > 0)
    weights, V = np.linalg.eigh(scale[:, None] * (gram + gram.conj().T) / 2 * scale)
    strong = weights > _DEPENDENT
    C = scale[:, None] * V[:, strong] / np.sqrt(weights[strong])
    return C, float(weights[strong].min(initial=1.0))
