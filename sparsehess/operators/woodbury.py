"""A diagonal plus a symmetric matrix of low rank: solves and determinants.

All for D + Q Λ Qᵀ with orthonormal columns Q and r numbers Λ, rows of D and Q over the ranks.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mpi4py import MPI

import numpy as np

from sparsehess.errors import InputError
from sparsehess.operators.tall_skinny_qr import inner_products, small_eigh, sum_over_ranks, tall_qr

_EPS = np.finfo(float).eps

# Entries of the diagonal below this part of the matrix are small: dividing by them would lose what stands beside.
_SMALL = 1e-8

# More of them than the rank are moved, up to so many more.
_MORE = 32

# Steps of refinement at most; each gains what the last has lost.
_STEPS = 3


@dataclass(eq=False)
class Woodbury:
    """D + Q Λ Qᵀ with D arbitrary, factorized.

    Collective to make and to use.

    With W = |D|^(-1/2) Q |Λ|^(1/2), K = sign Λ and J = sign D it is |D|^(1/2) (J + W K Wᵀ) |D|^(1/2). Where D is
    positive J is the identity, and W = P R by Householder and the eigenvalues θ of R K Rᵀ give all: 1 + θ are
    the eigenvalues of J + W K Wᵀ beside ones. Otherwise the capacitance K + Wᵀ J W does (Woodbury 1950). Entries
    of D that are small beside the matrix come first into the low-rank part, as a unit vector each, and a larger
    entry stands in their place: neither form divides by them.

    Attributes
    ----------
    comm
        The ranks.
    d
        (n_local,) diagonal.
    Q, lam
        (n_local, r) and (r,).
    """

    comm: MPI.Comm
    d: np.ndarray
    Q: np.ndarray
    lam: np.ndarray
    scale: float = field(init=False)
    _deficient: bool = field(init=False)

    def __post_init__(self) -> None:
        """Tell how large the numbers are, and whether columns depend on each other. Collective."""
        comm = self.comm
        self.scale = max(
            comm.allreduce(float(np.abs(self.d).max(initial=0.0)), op=MPI.MAX), np.abs(self.lam).max(initial=0.0)
        )
        # More zeros than the rank can fill: a vector of these entries alone is orthogonal to Q.
        zeros = comm.allreduce(int(np.count_nonzero(np.abs(self.d) <= _EPS * self.scale)))
        self._deficient = zeros > len(self.lam)
        small = np.flatnonzero(np.abs(self.d) < _SMALL * self.scale)
        counts = comm.allgather(len(small))
        many = sum(counts)
        moved = many if many <= len(self.lam) + _MORE else 0
        kept, E = self.d, np.zeros((len(self.d), moved))
        if moved:
            # d = s + (d - s), the first on the diagonal and the second beside a unit vector.
            kept = self.d.copy()
            kept[small] = self.scale
            column = sum(counts[: comm.rank]) + np.arange(len(small))
            E[small, column] = np.sqrt(self.scale - self.d[small])
        signs = np.concatenate([np.sign(self.lam), -np.ones(moved)])
        self._root = np.sqrt(np.abs(kept))
        self._root[self._root == 0] = np.sqrt(_EPS * self.scale)  # one of many zeros: singular to rounding
        V = self.Q * np.sqrt(np.abs(self.lam))
        W = np.concatenate([V, E], axis=1) / self._root[:, None]
        if not comm.allreduce(int((kept < 0).any())):
            P, R = tall_qr(comm, W)
            self.theta, Z = small_eigh(comm, (R * signs) @ R.T)
            self._V, self._capacitance = P @ Z, None
        else:
            J = np.where(kept < 0, -1.0, 1.0)
            small_matrix = np.diag(signs) + inner_products(comm, W, J[:, None] * W)
            self.theta, Z = small_eigh(comm, small_matrix)
            self._V, self._capacitance = W @ Z, J

    @property
    def singular(self) -> bool:
        """Whether a solve would divide by rounding."""
        size = self.theta + 1.0 if self._capacitance is None else self.theta
        return self._deficient or bool(np.abs(size).min(initial=1.0) <= _EPS * np.abs(size).max(initial=1.0))

    def logdet(self) -> float:
        """Return log |det|, by the matrix determinant lemma; -inf where it is singular to rounding.

        Collective.
        """
        if self.singular:
            return -np.inf
        small = self.theta + 1.0 if self._capacitance is None else self.theta
        large = self.comm.allreduce(float(2 * np.log(self._root).sum()))
        return large + float(np.log(np.abs(small)).sum())

    def solve(self, b: np.ndarray) -> np.ndarray:
        """Return x (n_local, m) for b (n_local, m).

        Collective.
        """
        if self.singular:
            raise InputError("D + U C Uᵀ with this shift is singular: take another shift")
        x, best = self._apply(b), np.inf
        for _ in range(_STEPS):
            rest = b - self.d[:, None] * x - self.Q @ (self.lam[:, None] * inner_products(self.comm, self.Q, x))
            error = float(np.sqrt(sum_over_ranks(self.comm, np.square(rest).sum(axis=0)).max(initial=0.0)))
            if not 0 < error < 0.5 * best:
                break
            best = error
            x = x + self._apply(rest)
        return x

    def _apply(self, b: np.ndarray) -> np.ndarray:
        y = b / self._root[:, None]
        if self._capacitance is None:
            y = damped_complement(self.comm, self._V, 1.0 / (1.0 + self.theta), y, 1.0)
        else:
            J = self._capacitance[:, None]
            t = inner_products(self.comm, self._V, J * y) / self.theta[:, None]
            y = J * (y - self._V @ t)
        return y / self._root[:, None]


def damped_complement(
    comm: MPI.Comm, V: np.ndarray, inside: np.ndarray, b: np.ndarray, outside: float
) -> np.ndarray:
    """Return V diag(inside) Vᵀ b + outside (I - V Vᵀ) b, for orthonormal V.

    Collective. What is outside is projected twice: a trace of V left in it would weigh as much as `outside` does,
    and `inside` may be far smaller (twice is enough: Parlett 1998).
    """
    within = inner_products(comm, V, b)
    out = V @ (inside[:, None] * within)
    if outside:
        rest = b - V @ within
        out += outside * (rest - V @ inner_products(comm, V, rest))
    return out
