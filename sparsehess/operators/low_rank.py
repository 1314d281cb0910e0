"""`LowRankDiagonal`: a diagonal and a symmetric matrix of low rank."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import scipy.linalg

from sparsehess.errors import InputError
from sparsehess.operators.eigenvalues import (
    ZERO,
    Eigenvalues,
    Inertia,
    apply_to_eigenvalues,
    check_which,
    select_first,
)
from sparsehess.operators.low_rank_matrix import LowRankMatrix
from sparsehess.operators.low_rank_pairs import complement, inverse_iteration, numbers_of
from sparsehess.operators.solutions import inverses
from sparsehess.operators.spectrum_bisection import Counts, bisect_spectrum
from sparsehess.operators.wanted import Wanted, choose
from sparsehess.operators.woodbury import Woodbury, damped_complement
from sparsehess.runtime import agreement
from sparsehess.runtime.validation import positive_number

if TYPE_CHECKING:
    from typing import Self

_EPS, _TINY = float(np.finfo(float).eps), float(np.finfo(float).tiny)


class LowRankDiagonal(LowRankMatrix):
    """H = D + U C Uᵀ: a diagonal and a symmetric matrix of low rank.

    *Collective* to make and to use. Solves and determinants are by Woodbury's formula in a stable form, counts of
    eigenvalues by inertia additivity, eigenvalues by bisection on counts. Where D is a multiple of the identity
    all eigenvalues follow from an r x r problem.

    Parameters
    ----------
    D
        Diagonal: Vec, (n_local,) array, or one number for all rows.
    U
        (n_local, r) local rows of a tall matrix.
    C
        (r, r) symmetric, the same on every rank; default the identity.
    window
        So many columns at most: the oldest leave, which come first, when `append` brings more.
    comm
        Communicator, where D is no Vec; default this process alone.

    Attributes
    ----------
    d, U, C
        As given, as arrays; what methods change are these.

    Raises
    ------
    InputError
        Shapes that do not fit, C not symmetric, numbers that are not finite.

    References
    ----------
    Woodbury 1950; Haynsworth 1968, "Determination of the inertia of a partitioned Hermitian matrix".

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> with sh.LowRankDiagonal(2.0, np.ones((5, 1))) as H:  # 2 I + 1 1ᵀ
    ...     print(H.spectrum(2, "largest"), H.solve(np.ones(5)).round(4), H.count(3.0))
    [2. 7.] [0.1429 0.1429 0.1429 0.1429 0.1429] 4
    """

    def _changed(self) -> None:
        super()._changed()
        self._kept_factor: tuple[float, np.ndarray, Woodbury] | None = None
        self._kept_counts: Counts | None = None

    @property
    def knows_eigenvalues(self) -> bool:
        """Whether D is a multiple of the identity, or there is nothing beside it; rows of sizes up to 10¹² apart.

        Collective the first time.
        """
        return self._uniform or self._alone

    @property
    def _alone(self) -> bool:
        """Whether U C Uᵀ is zero to rounding, and D is all."""
        return not len(self._core[1])

    @property
    def knows_counts(self) -> bool:
        """As `knows_pairs`; counts are by inertia additivity. Collective the first time."""
        return self.knows_pairs

    @property
    def knows_signs(self) -> bool:
        """True: they are those of rows of about one size. Not collective."""
        return True

    def eigenvalues(self) -> Eigenvalues:
        """Return all eigenvalues, where D is a multiple of the identity or all there is.

        Collective. Those of an r x r matrix, and the multiple n - r times; or D.

        Raises
        ------
        InputError
            D is another diagonal: `spectrum` finds as many as are wanted, `count` counts.
        """
        low, _ = self._ends
        if self._alone:
            return Eigenvalues.single(self.comm, self.d, _EPS * np.abs(self.d))
        if not self._uniform:
            raise InputError(
                "all eigenvalues at once are for D a multiple of the identity, beside which no row is 10¹² times "
                "smaller than another: ask spectrum for k"
            )
        _, lam = self._core
        others = [self.n - len(lam)] if len(lam) < self.n else []
        values = np.concatenate([low + lam, np.full(len(others), low)])
        counts = np.array([1] * len(lam) + others, np.int64)
        mine = slice(None) if self.comm.rank == 0 else slice(0)
        return Eigenvalues(self.comm, values[mine], counts[mine])

    @property
    def knows_pairs(self) -> bool:
        """Whether no row is 10¹² times smaller than another, whose digits vectors lose, or D is all there is.

        Collective the first time.
        """
        return self._alone or not self._graded

    def pairs(self, wanted: Wanted) -> tuple[np.ndarray, np.ndarray]:
        """Return (eigenvalues (m,), orthonormal eigenvectors (n_local, m)) that are wanted, ascending.

        Collective. Those of the small problem, and vectors orthogonal to them, where D is a multiple of the
        identity; otherwise by bisection, and inverse iteration with Woodbury's formula.
        """
        if self._alone:
            layout = self.layout
            own = np.arange(layout.start, layout.stop)
            found = choose(self.eigenvalues(), own, wanted)
            return found.values, np.asfortranarray(own[:, None] == found.labels, np.float64)
        if not self._uniform:
            margin = 8 * (_EPS * self._size + _TINY)
            numbers = numbers_of(wanted, self.n, self._below, margin)
            beside = np.unique(np.clip(numbers[:, None] + [-1, 0, 1], 0, self.n - 1))
            values = self._bisected(beside)
            among = np.flatnonzero(np.isin(beside, numbers))
            if wanted.which != "interval":
                among = among[wanted.first(values[among], numbers)]
            core = self._core
            vectors = inverse_iteration(
                self, values, among, self._size, lambda shift: Woodbury(self.comm, self.d - shift, *core).solve
            )
            return values[among], vectors
        Q, lam = self._core
        low = self._ends[0]
        values, labels = np.append(low + lam, low), np.arange(len(lam) + 1)
        counts = np.append(np.ones(len(lam), np.int64), self.n - len(lam))
        many = np.minimum(counts, wanted.k)
        values, labels = np.repeat(values, many), np.repeat(labels, many)
        chosen = wanted.first(values, labels)
        labels = labels[chosen]
        beside = labels == len(lam)
        columns = np.empty((self.layout.n_local, len(chosen)))
        columns[:, ~beside] = Q[:, labels[~beside]]
        columns[:, beside] = complement(self.layout, Q, int(np.count_nonzero(beside)))
        return values[chosen], columns

    def counts(self, below: np.ndarray) -> np.ndarray:
        """Return how many eigenvalues are below each of some numbers (m,); see `count`.

        Collective.
        """
        return self._below(np.asarray(below, np.float64))

    def inverse_diagonal(self, shift: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the diagonal (n_local,) of (H + shift I)⁻¹ and how far rounding may have moved it.

        Collective. By Woodbury's formula, of rows of about one size.
        """
        S, factor = self._factor(shift)
        values, rounding = factor.inverse_diagonal()
        return S**2 * values, S**2 * rounding

    def _equilibrated(self, shift: float = 0.0) -> tuple[np.ndarray, LowRankDiagonal]:
        """Return S (n_local,) of powers of two, and S (H + shift I) S whose entries are 1 at most. Collective.

        It has the same signs (Sylvester), and is regular where units alone make a matrix look singular. The caller
        closes it.
        """
        rows = self._row_sizes() + abs(shift)
        S = np.exp2(np.round(-0.5 * np.log2(np.where(rows > 0, rows, 1.0))))
        return S, LowRankDiagonal(S**2 * (self.d + shift), S[:, None] * self.U, self.C, comm=self.comm)

    def _negative_at_once(self, shift: float) -> int:
        """Return how many eigenvalues of H + shift I are negative, rounding on either side. Collective."""
        with self._equilibrated(shift)[1] as scaled:
            Q, lam = scaled._core
            counts = Counts(self.comm, scaled.d, Q * np.sqrt(np.abs(lam)), np.sign(lam), scaled._size)
            return int(counts.below(np.zeros(1))[0])

    def negative(self, shift: float = 0.0) -> int:
        """Return how many eigenvalues of H + shift I are negative. Collective."""
        with self._equilibrated(shift)[1] as scaled:
            return scaled._inertia(2 * ZERO, 1.0).negative

    def count(self, below: float) -> int:
        """Return how many eigenvalues are below a number, by Haynsworth's inertia additivity.

        Collective. An eigenvalue that is that number to rounding may be counted either way.
        """
        return int(self._below(np.array([float(below)]))[0])

    def _below(self, shifts: np.ndarray) -> np.ndarray:
        """Return how many eigenvalues are below each of some numbers."""
        if self._uniform:
            every = self.eigenvalues()
            return np.array([every.below(shift) for shift in shifts])
        if self._graded:
            return np.array([self._negative_at_once(-shift) for shift in shifts], np.int64)
        if self._kept_counts is None:
            Q, lam = self._core
            self._kept_counts = Counts(self.comm, self.d, Q * np.sqrt(np.abs(lam)), np.sign(lam), self._size)
        return self._kept_counts.below(shifts)

    def spectrum(self, k: int = 6, which: str = "smallest") -> np.ndarray:
        """Return k eigenvalues (k,), ascending, the same on every rank.

        Collective. From the small problem where D is a multiple of the identity; otherwise by bisection on
        counts, to rounding, so that none can be missed: a count costs n (r + 1)² operations and an eigenvalue
        about 80 of them.

        Parameters
        ----------
        k
            How many.
        which
            `smallest`, `largest`, `magnitude`, or `negative`, of which there may be fewer.
        """
        check_which(k, which)
        if self._uniform:
            return self.eigenvalues().ends(k, which)
        k = min(k, self.n)
        low, high = range(k), range(self.n - k, self.n)
        if which == "negative":
            low = range(min(k, self.count(0.0)))
        wanted = {"largest": [high], "magnitude": [low, high]}.get(which, [low])
        found = self._bisected(np.unique(np.concatenate([np.array(part, np.int64) for part in wanted])))
        return select_first(found, k, which)

    def _bisected(self, wanted: np.ndarray) -> np.ndarray:
        """Return the eigenvalues of these numbers (0 is the lowest)."""
        _, lam = self._core
        low, high = self._ends
        low, high = low + min(0.0, lam.min(initial=0.0)), high + max(0.0, lam.max(initial=0.0))
        floor = _EPS * (self._kept_graded[1] if self._graded and self._kept_graded else self._size)
        margin = 8 * _EPS * self._size + _TINY
        return bisect_spectrum(self._below, wanted, low - margin, high + margin, self.n, floor)

    @property
    def _size(self) -> float:
        """No less than the largest entry of D and the largest eigenvalue of U C Uᵀ."""
        return float(max(*map(abs, self._ends), np.abs(self._core[1]).max(initial=0.0)))

    def inertia(self, zero: float | None = None) -> Inertia:
        """Return the inertia; `zero` is up to what size an eigenvalue is zero.

        Collective. Four counts, as `sparsehess.inertia` makes them: without `zero` of S H S, whose rows are all of
        about one size, and which has the same signs (Sylvester). `threshold` is then what is zero in a middle row.
        """
        if self._uniform:
            return self.eigenvalues().inertia(zero)
        if zero is not None:
            return self._inertia(positive_number(zero, "zero"), 1.0)
        S, scaled = self._equilibrated()
        with scaled:
            logs = self.comm.allreduce(float(-2.0 * np.log2(S).sum()))
            return scaled._inertia(2 * ZERO, float(np.exp2(logs / self.n)))

    def _inertia(self, threshold: float, unit: float) -> Inertia:
        """Return the inertia by counts of what is up to a threshold, in units of the caller's."""
        counts = self._below(threshold * np.array([-4.0, -1.0, 1.0, 4.0]))
        farther, negative, upto, beyond = map(int, counts)
        near, shown = negative - farther + beyond - upto, threshold * unit
        doubt = f"{near} between {shown:.1e} and {4 * shown:.1e} in size" if near else ""
        return Inertia(negative, upto - negative, self.n - upto, 0, shown, not near, doubt)

    def logdet(self, shift: float = 0.0) -> float:
        """Return log |det (H + shift I)|, -inf where it is singular; `inertia` tells the sign.

        Collective.
        """
        if self._uniform:
            return self.eigenvalues().logdet(shift)
        S, factor = self._factor(shift)
        return factor.logdet() - self.comm.allreduce(float(2.0 * np.log(S).sum()))

    def _factor(self, shift: float) -> tuple[np.ndarray, Woodbury]:
        """Return S (n_local,) and what solves with S (H + shift I) S, whose rows are of about one size."""
        if self._kept_factor is None or self._kept_factor[0] != shift:
            S, scaled = self._equilibrated(shift)
            with scaled:
                self._kept_factor = shift, S, Woodbury(self.comm, scaled.d, *scaled._core)
        return self._kept_factor[1:]

    def _solve(self, b: np.ndarray, shift: float) -> np.ndarray:
        if self._uniform:
            return self._divided(b, shift, np.reciprocal)
        S, factor = self._factor(shift)
        return S[:, None] * factor.solve(S[:, None] * b)

    def _least_squares(self, b: np.ndarray, shift: float) -> np.ndarray:
        if not self._uniform:
            return Woodbury(self.comm, self.d + shift, *self._core, abs(shift)).least_squares(b)
        largest = max(self.eigenvalues().largest(), abs(shift))
        return self._divided(b, shift, lambda values: inverses(values, largest))

    def _divided(self, b: np.ndarray, shift: float, inverse: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Return b divided by eigenvalues where D is a multiple of the identity."""
        Q, lam = self._core
        low = np.array([self._ends[0] + shift])
        outside = 0.0 if len(lam) == self.n else float(inverse(low)[0])
        return damped_complement(self.comm, Q, inverse(low + lam), b, outside)

    @property
    def solves_directly(self) -> bool:
        """True: solutions are by Woodbury's formula. Not collective."""
        return True

    def function(self, f: Callable[[np.ndarray], np.ndarray]) -> LowRankDiagonal:
        """Return f(H), of the same kind, where D is a multiple of the identity or all there is.

        Collective.
        """
        if self._alone:
            with agreement(self.comm):
                d = apply_to_eigenvalues(f, self.d)
            return LowRankDiagonal(d, np.zeros((len(d), 0)), comm=self.comm)
        low = self._ends[0]
        self.eigenvalues()  # refuses another D
        Q, lam = self._core
        outside = float(apply_to_eigenvalues(f, np.array([low]))[0]) if len(lam) < self.n else 0.0
        return LowRankDiagonal(outside, Q, np.diag(apply_to_eigenvalues(f, low + lam) - outside), comm=self.comm)

    @property
    def knows_inverse(self) -> bool:
        """Whether D is positive, or a multiple of the identity. Collective the first time."""
        return self._uniform or self._ends[0] > 0

    def inverse_root(self, z: np.ndarray, shift: float = 0.0) -> np.ndarray:
        """Return R z (n_local, m) with R Rᵀ = (H + shift I)⁻¹, by Woodbury's formula.

        Collective. See `Operator.inverse_root`.
        """
        if self._uniform:
            return super().inverse_root(z, shift)
        self._refuse_singular(shift)
        S, factor = self._factor(shift)
        return S[:, None] * factor.inverse_root(z)

    @classmethod
    def weighted(cls, items: Sequence[tuple[float, Self]], shift: float) -> Self:
        """Return Σ a H + shift I of (a, H) of this kind, of the sum of their ranks at most; `compress` it.

        Collective.
        """
        d = np.sum([a * H.d for a, H in items], axis=0) + shift
        C = scipy.linalg.block_diag(*(a * H.C for a, H in items))
        made = cls(d, np.concatenate([H.U for _, H in items], axis=1), C, comm=items[0][1].comm)
        weights = [a for a, _ in items]
        if min(weights) < 0 < max(weights):  # what cancels is rounding, of which products would be made
            Q, lam = made._core
            made.U, made.C = np.ascontiguousarray(Q), np.diag(lam)
            made._changed()
        return made
