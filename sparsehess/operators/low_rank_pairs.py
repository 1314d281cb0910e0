"""Eigenvectors of a diagonal plus a matrix of low rank, of eigenvalues that counts have found."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import numpy as np

from sparsehess.operators.tall_skinny_qr import inner_products, small_eigh, tall_qr
from sparsehess.runtime.random_numbers import draw_normal

if TYPE_CHECKING:
    from mpi4py import MPI

    from sparsehess.operators.wanted import Wanted
    from sparsehess.runtime.row_layout import Layout

    Solve = Callable[[np.ndarray], np.ndarray]

# Eigenvalues that are nearer to each other than this part of the matrix are found together.
_TOGETHER = 1e-7

# A shift is so far beside the first of them: near enough to find them in a few steps, and no eigenvalue to
# rounding.
_BESIDE = 3e-10

# Steps of inverse iteration: of the second nothing is left but what the solves have lost.
_STEPS = 3


class Multiplies(Protocol):
    """A matrix by its products. Collective to use."""

    layout: Layout

    @property
    def comm(self) -> MPI.Comm:
        """The ranks."""

    def product(self, vector: np.ndarray, /) -> np.ndarray:
        """Return H v (n_local,)."""


def numbers_of(wanted: Wanted, n: int, below: Callable[[np.ndarray], np.ndarray], margin: float) -> np.ndarray:
    """Return numbers (m,) of eigenvalues, 0 the lowest, among which those are that are wanted.

    Collective.

    Parameters
    ----------
    below
        Counts for several numbers.
    margin
        By so much an eigenvalue at an end of an interval may be counted on its other side.
    """
    k = min(wanted.k, n)
    low, high = range(k), range(n - k, n)
    if wanted.which == "nearest":
        at = int(below(np.array([wanted.target]))[0])
        parts = [range(max(0, at - k - 1), min(n, at + k + 1))]
    elif wanted.which == "interval":
        ends = np.clip([wanted.low - margin, wanted.high + margin], -1e300, 1e300)
        parts = [range(*(int(number) for number in below(ends)))]
    elif wanted.which == "negative":
        parts = [range(min(k, int(below(np.zeros(1))[0])))]
    else:
        parts = {"largest": [high], "magnitude": [low, high]}.get(wanted.which, [low])
    return np.unique(np.concatenate([np.array(part, np.int64) for part in parts]))


def complement(layout: Layout, Q: np.ndarray, many: int) -> np.ndarray:
    """Return orthonormal vectors (n_local, many) that are orthogonal to the columns of Q, which are too.

    Collective. The same on any number of ranks.
    """
    drawn = np.empty((layout.n_local, many))
    for j in range(many):
        drawn[:, j] = draw_normal(layout, 101 + j)
    for _ in range(2):  # once leaves what cancellation leaves
        for _ in range(2):
            drawn = drawn - Q @ inner_products(layout.comm, Q, drawn)
        drawn, _ = tall_qr(layout.comm, drawn)
    return drawn


def inverse_iteration(
    H: Multiplies, values: np.ndarray, size: float, factorized: Callable[[float], Solve]
) -> np.ndarray:
    """Return orthonormal eigenvectors (n_local, m) of eigenvalues (m,), ascending; nobody has judged them.

    Collective. Those that are near to each other are found together, from a block of random vectors; a
    Rayleigh-Ritz step at the end turns all of them into what belongs to each value.

    Parameters
    ----------
    size
        Of the matrix.
    factorized
        factorized(shift) returns what solves with H - shift.
    """
    layout, comm = H.layout, H.comm
    if not len(values):
        return np.empty((layout.n_local, 0))
    size = size or 1.0
    breaks = np.flatnonzero(np.diff(values) > _TOGETHER * size) + 1
    blocks: list[np.ndarray] = []
    for number, group in enumerate(np.split(values, breaks)):
        solve = factorized(float(group[0]) - _BESIDE * max(size, float(np.ptp(group))))
        X = np.stack([draw_normal(layout, 1009 * (number + 1) + j) for j in range(len(group))], axis=1)
        for _ in range(_STEPS):
            X, _ = tall_qr(comm, X)
            with np.errstate(all="ignore"):  # what is not finite is begun anew
                Y = solve(X)
            if comm.allreduce(int(np.isfinite(Y).all())) != comm.size:
                break
            X = Y
        blocks.append(tall_qr(comm, X)[0])
    X, _ = tall_qr(comm, np.concatenate(blocks, axis=1))
    image = np.stack([H.product(np.ascontiguousarray(column)) for column in X.T], axis=1)
    _, Z = small_eigh(comm, inner_products(comm, X, image))
    return np.asfortranarray(X @ Z)
