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

_EPS = float(np.finfo(float).eps)

# Eigenvalues that are nearer to each other than so many roundings of the matrix are found together.
_TOGETHER = 1e3

# A shift is beside an eigenvalue by this part of its distance to others, by no less than so many roundings of the
# matrix and by no more than this part of it.
_BESIDE, _LEAST, _MOST = 1e-3, 16.0, 3e-10

# Steps of inverse iteration, and shifts that are tried, each farther by a factor, where one is an eigenvalue.
_STEPS, _TRIED, _FARTHER = 4, 6, 8.0


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
    H: Multiplies, known: np.ndarray, wanted: np.ndarray, size: float, factorized: Callable[[float], Solve]
) -> np.ndarray:
    """Return orthonormal eigenvectors (n_local, m) of eigenvalues (m,), ascending; nobody has judged them.

    Collective. Those that are the same to rounding are found together, from a block of random vectors; a
    Rayleigh-Ritz step at the end turns all of them into what belongs to each value.

    Parameters
    ----------
    known
        Eigenvalues that are known, ascending: the wanted ones, and such as are next to them.
    wanted
        (m,) which of them are wanted, ascending.
    size
        Of the matrix.
    factorized
        factorized(shift) returns what solves with H - shift.
    """
    layout, comm = H.layout, H.comm
    if not len(wanted):
        return np.empty((layout.n_local, 0))
    size = size or 1.0
    cluster = np.concatenate([[0], np.cumsum(np.diff(known) > _TOGETHER * _EPS * size)])
    blocks: list[np.ndarray] = []
    for number in np.unique(cluster[wanted]):
        own, others = known[cluster == number], known[cluster != number]
        gap = float(np.abs(others[:, None] - own[[0, -1]]).min()) if len(others) else 0.0  # not known
        beside = float(np.clip(_BESIDE * gap, _LEAST * _EPS * size, _MOST * size))
        many = int(np.count_nonzero(cluster[wanted] == number))
        start = np.empty((layout.n_local, many))
        for j in range(many):
            start[:, j] = draw_normal(layout, 1009 * (len(blocks) + 1) + j)
        for _ in range(_TRIED):
            found = _iterated(comm, factorized(float(own.mean()) - beside), start)
            if found is not None:
                break
            beside *= _FARTHER
        blocks.append(start if found is None else found)
    X, _ = tall_qr(comm, np.concatenate(blocks, axis=1))
    image = np.stack([H.product(np.ascontiguousarray(column)) for column in X.T], axis=1)
    _, Z = small_eigh(comm, inner_products(comm, X, image))
    return np.asfortranarray(X @ Z)


def _iterated(comm: MPI.Comm, solve: Solve, X: np.ndarray) -> np.ndarray | None:
    """Return a basis after some steps of inverse iteration; None where a shift is singular. Collective."""
    for _ in range(_STEPS):
        with np.errstate(all="ignore"):  # what is not finite is begun anew
            X = solve(tall_qr(comm, X)[0])
        if comm.allreduce(int(np.isfinite(X).all())) != comm.size:
            return None
    return tall_qr(comm, X)[0]
