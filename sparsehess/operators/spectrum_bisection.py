"""Counts of the eigenvalues of a diagonal plus a matrix of low rank, and bisection on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import scipy.linalg

from sparsehess.operators.tall_skinny_qr import sum_over_ranks

if TYPE_CHECKING:
    from mpi4py import MPI

_EPS = float(np.finfo(float).eps)

# Entries nearer to a shift than this part of the matrix have no place in a Gram matrix: squares of what they
# are divided by would drown what stands beside.
_NEAR = 1e-3

# An interval is split here: not in its middle, where entries of the diagonal like to be. Each round of
# counts costs ranks as much waiting as one count does, so that four parts halve the rounds.
_SPLITS = np.array([0.2467, 0.4853, 0.7611])


class Counts:
    """How many eigenvalues of D + V K Vᵀ lie below numbers.

    Collective to make and to use. By Haynsworth's inertia additivity (1968) they are the negative entries of
    D - σ, and the positive eigenvalues of K + Vᵀ (D - σ)⁻¹ V less those of K.

    That matrix is F₊ᵀ F₊ - F₋ᵀ F₋ with a row v / √|d - σ| for each row of V, and rows of K. With [F₊; F₋] = Q R it
    has the signs of Q₊ᵀ Q₊ - Q₋ᵀ Q₋, whatever the sizes of the rows. Rows are sorted and columns pivoted, so that
    rounding is small beside each row (Cox, Higham 1998): σ may come as near to entries of D as
    it likes, and to as many. Rows far from σ are all of one size, and summed.

    Parameters
    ----------
    comm
        The ranks.
    d, V
        (n_local,) and (n_local, r).
    K
        (r,) signs, the same on every rank.
    scale
        Size of the matrix.
    """

    def __init__(self, comm: MPI.Comm, d: np.ndarray, V: np.ndarray, K: np.ndarray, scale: float):
        self.comm, self.d, self.V, self.K, self.scale = comm, d, V, K, scale

    def below(self, shifts: np.ndarray) -> np.ndarray:
        """Return for each number (m,) how many eigenvalues lie below it, the same on every rank.

        Collective: one sum and one gathering, for all numbers. An eigenvalue that is the number to rounding may
        be counted either way.
        """
        r = len(self.K)
        sums, near = np.empty((len(shifts), r * r + 1)), []
        for number, shift in enumerate(shifts):
            away = self.d - shift
            close = np.abs(away) < _NEAR * self.scale
            far = self.V[~close]
            gram = far.T @ (far / away[~close, None])
            sums[number] = [*gram.ravel(), np.count_nonzero(away < 0)]
            # An entry that is the shift itself is as good as a rounding above it.
            least = np.where(np.abs(away[close]) < _EPS * self.scale, _EPS * self.scale, away[close])
            rows = self.V[close] / np.sqrt(np.abs(least))[:, None]
            near.append([_triangle(rows[least > 0]), _triangle(rows[least < 0])])
            sums[number, -1] += np.count_nonzero(least < 0) - np.count_nonzero(away[close] < 0)
        sums, brought = sum_over_ranks(self.comm, sums), self.comm.gather(near)
        found = None
        if brought is not None:
            found = np.array(
                [self._count(row, [part[i] for part in brought]) for i, row in enumerate(sums)], np.int64
            )
        return self.comm.bcast(found)

    def _count(self, row: np.ndarray, near: list) -> int:
        """Return the count from what the ranks have brought; on one rank."""
        r, negative = len(self.K), round(row[-1])
        if r == 0:
            return negative
        weights, vectors = np.linalg.eigh(np.diag(self.K) + row[:-1].reshape(r, r))
        of_far = np.sqrt(np.abs(weights))[:, None] * vectors.T
        plus = [*(part[0] for part in near), of_far[weights > 0]]
        minus = [*(part[1] for part in near), of_far[weights <= 0]]
        rows = np.concatenate(plus + minus)
        negated = np.arange(len(rows)) >= sum(map(len, plus))
        order = _descending(rows)
        Q = scipy.linalg.qr(rows[order], mode="economic", pivoting=True)[0][negated[order]]
        positive = int(np.count_nonzero(np.linalg.eigvalsh(Q.T @ Q) < 0.5))
        return negative + positive - int(np.count_nonzero(self.K > 0))


def _descending(rows: np.ndarray) -> np.ndarray:
    return np.argsort(-np.abs(rows).max(axis=1, initial=0.0), kind="stable")


def _triangle(rows: np.ndarray) -> np.ndarray:
    """Return as many rows as there are columns, or fewer, that have the same Gram matrix."""
    if len(rows) <= rows.shape[1]:
        return rows
    R, order = scipy.linalg.qr(rows[_descending(rows)], mode="r", pivoting=True)
    out = np.empty((rows.shape[1],) * 2)
    out[:, order] = R[: rows.shape[1]]
    return out


def bisect_spectrum(
    below: Callable[[np.ndarray], np.ndarray], wanted: np.ndarray, low: float, high: float, n: int, floor: float
) -> np.ndarray:
    """Return the eigenvalues of these numbers (0 is the lowest), by counts.

    Collective. All intervals are split at once (Barth, Martin, Wilkinson 1967 with several points).

    Parameters
    ----------
    below
        Counts for several numbers.
    wanted
        (m,) ascending.
    low, high
        None of the n eigenvalues lie outside.
    floor
        Absolute width that is narrow enough; relatively roundings are.
    """
    found = np.empty(len(wanted))
    intervals = [(low, 0, high, n)]
    while intervals:
        points = np.array([a + _SPLITS * (b - a) for a, _, b, _ in intervals])
        counts = below(points.ravel()).reshape(points.shape)
        fresh = []
        for (a, before, b, upto), at, counted in zip(intervals, points, counts, strict=True):
            many = np.maximum.accumulate(np.clip(counted, before, upto))
            ends, numbers = [a, *at, b], [before, *many, upto]
            for i in range(len(ends) - 1):
                inside = (wanted >= numbers[i]) & (wanted < numbers[i + 1])
                if not inside.any():
                    continue
                if ends[i + 1] - ends[i] <= 2 * max(_EPS * max(abs(ends[i]), abs(ends[i + 1])), floor):
                    found[inside] = 0.5 * (ends[i] + ends[i + 1])
                else:
                    fresh.append((ends[i], numbers[i], ends[i + 1], numbers[i + 1]))
        intervals = fresh
    return found
