"""A diagonal plus a symmetric matrix of low rank: solves and determinants.

All for D + Q Λ Qᵀ with orthonormal columns Q and r numbers Λ, rows of D and Q over the ranks.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mpi4py import MPI

import numpy as np

from sparsehess.errors import InputError
from sparsehess.operators.solutions import ROUNDING
from sparsehess.operators.tall_skinny_qr import inner_products, small_eigh, tall_qr
from sparsehess.runtime import on_root

_EPS = np.finfo(float).eps

# Entries of the diagonal below this part of the matrix are small: dividing by them would lose what stands beside.
_SMALL = 1e-8

# More of them than the rank are moved, up to so many more.
_MORE = 32

# Up to so many roundings of the largest an eigenvalue of the small problem may be of either sign.
_SINGULAR = 10.0

# Null vectors are looked for among eigenvectors of the small problem below this part of its size.
_NEAR = 1e-6


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
    size
        Beside what D was rounded, where it is a sum that may have cancelled.
    """

    comm: MPI.Comm
    d: np.ndarray
    Q: np.ndarray
    lam: np.ndarray
    size: float = 0.0
    scale: float = field(init=False)
    _deficient: bool = field(init=False)

    def __post_init__(self) -> None:
        """Tell how large the numbers are, and whether columns depend on each other. Collective."""
        comm = self.comm
        self.scale = max(
            comm.allreduce(float(np.abs(self.d).max(initial=0.0)), op=MPI.MAX),
            np.abs(self.lam).max(initial=0.0),
            self.size,
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
        rounding = _SINGULAR * _EPS * np.abs(size).max(initial=1.0)
        return self._deficient or not bool(np.abs(size).min(initial=1.0) > rounding)

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
        """Return x (n_local, m) for b (n_local, m), neither refined nor judged.

        Collective. Not finite, or of no use, where the matrix is singular.
        """
        y = b / self._root[:, None]
        if self._capacitance is None:
            y = damped_complement(self.comm, self._V, 1.0 / (1.0 + self.theta), y, 1.0)
        else:
            J = self._capacitance[:, None]
            t = inner_products(self.comm, self._V, J * y) / self.theta[:, None]
            y = J * (y - self._V @ t)
        return y / self._root[:, None]

    def inverse_diagonal(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the diagonal (n_local,) of the inverse, and how far rounding may have moved it.

        Not collective. Not finite, or of no use and said so, where the matrix is singular.
        """
        squares, divisor = self._V**2, self._root**2
        with np.errstate(all="ignore"):  # infinite where the matrix is singular
            if self._capacitance is None:
                large = 1.0 + self.theta
                within = squares @ (1.0 / large)
                values = np.maximum(1.0 - squares.sum(axis=1), 0.0) + within
                beside = 1.0 + squares @ (np.abs(large).max(initial=1.0) / large**2)
            else:
                values = self._capacitance - squares @ (1.0 / self.theta)
                sizes = np.abs(self.theta)
                beside = 1.0 + squares @ (1.0 / sizes + sizes.max(initial=1.0) / sizes**2)
            rounding = _EPS * (len(self.theta) + 2) * beside / divisor
            if self.singular:
                rounding = np.full(len(values), np.inf)
            return values / divisor, rounding

    def inverse_root(self, z: np.ndarray) -> np.ndarray:
        """Return R z (n_local, m) with R Rᵀ the inverse.

        Collective.

        Raises
        ------
        InputError
            It is not positive definite, or the diagonal has negative numbers.
        """
        if self._capacitance is not None:
            raise InputError("the diagonal has negative numbers beside the low rank: no root is known of it")
        negative = int(np.count_nonzero(~(1.0 + self.theta > 0)))
        if negative:
            raise InputError(f"{negative} eigenvalues are negative: it is the inverse of no covariance")
        root = damped_complement(self.comm, self._V, 1.0 / np.sqrt(1.0 + self.theta), z, 1.0)
        return root / self._root[:, None]

    def least_squares(self, b: np.ndarray) -> np.ndarray:
        """Return the x (n_local, m) of least norm of those that leave the least of b (n_local, m).

        Collective. Null vectors are known: with zeros of D, more than the rank, all vectors of those entries that
        are orthogonal to Q; and W z or |D|^(-1/2) V z of what is zero in the small problem. A multiple of the
        projection on them makes the matrix regular, and is of low rank beside a diagonal too.
        """
        comm = self.comm
        if self._deficient:
            zeros = np.abs(self.d) <= _EPS * self.scale
            basis, _ = tall_qr(comm, self.Q[zeros])
            inside = np.zeros((len(self.d), basis.shape[1]))
            inside[zeros] = basis
            there = np.where(zeros[:, None], b, 0.0)
            outside = there - inside @ inner_products(comm, inside, there)
            lam = np.concatenate([self.lam, np.full(basis.shape[1], -self.scale)])
            d = self.d + self.scale * zeros
            return Woodbury(comm, d, np.concatenate([self.Q, inside], axis=1), lam, self.size).least_squares(
                b - outside
            )
        N = self._null_vectors()
        if not N.shape[1]:
            return self.solve(b)
        x = self._lifted(N).solve(b - N @ inner_products(comm, N, b))
        return x - N @ inner_products(comm, N, x)

    def _lifted(self, N: np.ndarray) -> Woodbury:
        """Return the matrix with a multiple of N Nᵀ added."""
        lam = np.concatenate([self.lam, np.full(N.shape[1], self.scale)])
        return Woodbury(self.comm, self.d, np.concatenate([self.Q, N], axis=1), lam, self.size)

    def _product(self, x: np.ndarray) -> np.ndarray:
        return self.d[:, None] * x + self.Q @ (self.lam[:, None] * inner_products(self.comm, self.Q, x))

    def _null_vectors(self) -> np.ndarray:
        """Return an orthonormal basis (n_local, k) of what the matrix takes to rounding.

        Rough ones N are refined: of A + σ N Nᵀ, which is regular, A x = 0 makes x a solution for a vector of N.
        """
        comm = self.comm
        small = self.theta + 1.0 if self._capacitance is None else self.theta
        near = np.abs(small) <= _NEAR * np.abs(small).max(initial=1.0)
        V = self._V[:, near] if self._capacitance is None else self._capacitance[:, None] * self._V[:, near]
        rough, _ = tall_qr(comm, V / self._root[:, None])
        lifted = self._lifted(rough)
        exact = lifted.solve(rough)
        exact += lifted.solve(rough - lifted._product(exact))
        basis, _ = tall_qr(comm, exact)
        _, R = tall_qr(comm, self._product(basis))
        _, sizes, Z = on_root(comm, np.linalg.svd, R)
        return basis @ Z[sizes <= ROUNDING * self.scale].T


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
