"""Ranges of the entries of a Hessian over all sides of the kinks at a sample, and what they say of eigenvalues.

Kinks of different samples do not know of each other: the Hessian is a sum over samples, so are the ranges. At one
sample it is a function f on the corners of a cube, one side of a kink to each axis. Arguments at kinks are 0
whatever the slopes are, so that these enter by tangents and adjoints alone: where no kink is behind another, both
are affine in all slopes together, and f, which has two tangents, is a polynomial of second degree. On corners,
with d = ±1 for the sides, d² = 1 and

    f = C + Σ_i d_i A_i + Σ_{i<j} d_i d_j B_ij,    |f - C| <= Σ |A_i| + Σ |B_ij|, entry by entry.

Of what is within R of C entry by entry, as all elements of the convex hull are, the eigenvalues are within |R|₂ of
those of C, one by one (Weyl). |R|₂ is at most its Frobenius norm and its largest sum of a row.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

from mpi4py import MPI

import numpy as np

# Most Hessians of one sample.
MOST_PIECES = 2**10

Piece = Callable[[np.ndarray], np.ndarray]


def is_feasible(count: int, parallel: bool) -> bool:
    """Return whether so many kinks of a sample can be looked at; parallel: none is behind another.

    Not collective.
    """
    return 2**count <= MOST_PIECES or (parallel and _pairs(count) <= MOST_PIECES)


def _pairs(count: int) -> int:
    return 1 + count + count * (count - 1) // 2


def entry_ranges(piece: Piece, count: int, parallel: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the middle and half the width of ranges that hold the entries for all sides of some kinks.

    Collective, as the pieces are.

    Parameters
    ----------
    piece
        piece(positive (count,) bool) -> entries.
    count
        Kinks of the sample; see `is_feasible`.
    parallel
        Whether no kink is behind another.
    """
    if parallel and _pairs(count) < 2**count:
        return _by_pairs(piece, count)
    low = high = piece(np.zeros(count, bool))
    for sides in itertools.islice(itertools.product([False, True], repeat=count), 1, None):
        entries = piece(np.array(sides))
        low, high = np.minimum(low, entries), np.maximum(high, entries)
    return (low + high) / 2, (high - low) / 2


def _by_pairs(piece: Piece, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the same for a polynomial of second degree, from its values with at most two positive sides."""
    places = np.arange(count)
    none = piece(np.zeros(count, bool))
    single = [piece(places == i) - none for i in range(count)]  # of sides 0 and 1
    middle, linear = none + sum(single) / 2, [one / 2 for one in single]
    width = np.zeros_like(none)
    for i, j in itertools.combinations(range(count), 2):
        both = (piece((places == i) | (places == j)) - none - single[i] - single[j]) / 4
        middle = middle + both
        linear[i], linear[j] = linear[i] + both, linear[j] + both
        width += np.abs(both)
    return middle, width + sum(np.abs(one) for one in linear)


def eigenvalue_radius(comm: MPI.Comm, widths: np.ndarray, indptr: np.ndarray) -> float:
    """Return by how much eigenvalues move at most where entries move by at most these widths (nnz_local,) >= 0.

    Collective.
    """
    rows = np.diff(np.concatenate([[0.0], np.cumsum(widths)])[indptr]) if len(widths) else np.zeros(1)
    largest = comm.allreduce(float(rows.max(initial=0.0)), op=MPI.MAX)
    return min(largest, float(np.sqrt(comm.allreduce(float(widths @ widths)))))
