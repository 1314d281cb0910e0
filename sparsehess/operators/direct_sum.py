"""`DirectSum`: distributed Hessians that do not know of each other, the layers of a network, as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sparsehess.errors import InputError
from sparsehess.operators.eigenvalues import Eigenvalues, Inertia, check_which, select_first, total_inertia
from sparsehess.operators.operator import Operator
from sparsehess.operators.solutions import SystemOfParts
from sparsehess.operators.structure import Exact, Spectral
from sparsehess.operators.wanted import Wanted
from sparsehess.runtime.row_layout import Layout


class DirectSum(Operator):
    """H = H_1 ⊕ H_2 ⊕ ..., each over all ranks: K-FAC is one of Kronecker products.

    *Collective* to make and to use. The rows of a rank are those that it has of the first, then of the second, and
    so on, as in PETSc's MATNEST. It knows what all parts know. `BlockDiagonal` is for blocks that each fit on a
    rank.

    Parameters
    ----------
    parts
        Operators on the same ranks. They are the caller's, unless `owned`, and must live as long as this.
    owned
        Close them with this.

    Attributes
    ----------
    parts
        As given.

    Raises
    ------
    InputError
        No operator, or operators of different communicators.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> first = sh.Kronecker((np.diag([1.0, 2.0]), np.eye(2)))
    >>> second = sh.LowRankDiagonal(3.0, np.ones((2, 1)))
    >>> with sh.DirectSum([first, second], owned=True) as H:
    ...     print(H.n, H.spectrum(3, "largest"), H.inertia().definite)
    6 [2. 3. 5.] positive definite
    """

    _judge = SystemOfParts

    def __init__(self, parts: Sequence[Operator], *, owned: bool = False):
        self.parts, self._owned = list(parts), owned
        if not self.parts or any(part.comm != self.parts[0].comm for part in self.parts):
            raise InputError("a direct sum needs operators, all on the same communicator")
        sizes = [part.layout.n_local for part in self.parts]
        self._ends = np.cumsum(sizes)[:-1]
        self._make_shell(Layout.from_local(sum(sizes), self.parts[0].comm))

    def product(self, vector: np.ndarray) -> np.ndarray:
        """Return H v (n_local,).

        Collective.
        """
        return self._each(lambda part, own: part.product(own), vector)

    def transposed_product(self, vector: np.ndarray) -> np.ndarray:
        """Return Hᵀ v (n_local,).

        Collective.
        """
        return self._each(lambda part, own: part.transposed_product(own), vector)

    def _each(self, function: Callable[[Operator, np.ndarray], np.ndarray], array: np.ndarray) -> np.ndarray:
        pieces = np.split(array, self._ends)
        return np.concatenate([function(part, own) for part, own in zip(self.parts, pieces, strict=True)])

    def diagonal(self) -> np.ndarray:
        """Return the diagonal (n_local,).

        Collective.
        """
        return np.concatenate([part.diagonal() for part in self.parts])

    def trace(self) -> float:
        """Return the trace.

        Collective.
        """
        return sum(part.trace() for part in self.parts)

    @property
    def diagonal_is_exact(self) -> bool:
        """Whether those of all parts are. Collective."""
        return all(part.diagonal_is_exact for part in self.parts)

    def diagonal_rounding(self) -> np.ndarray:
        """Return (n_local,) how far rounding may have moved `diagonal`.

        Collective.
        """
        return np.concatenate([part.diagonal_rounding() for part in self.parts])

    def total(self, f: Spectral) -> Exact[float] | None:
        """Return the trace of f(H), the sum of those of the parts; None where one does not tell its own.

        Collective.
        """
        found = [part.total(f) for part in self.parts]
        told = [one for one in found if one is not None]
        if len(told) < len(found):
            return None
        return Exact(sum(one.value for one in told), sum(one.rounding for one in told), _reasons(told))

    def entries(self, f: Spectral) -> Exact[np.ndarray] | None:
        """Return the diagonal (n_local,) of f(H), from those of the parts; None where one does not tell its own.

        Collective.
        """
        found = [part.entries(f) for part in self.parts]
        told = [one for one in found if one is not None]
        if len(told) < len(found):
            return None
        value, rounding = (
            np.concatenate(list(side)) for side in zip(*((e.value, e.rounding) for e in told), strict=True)
        )
        return Exact(value, rounding, _reasons(told))

    @property
    def knows_pairs(self) -> bool:
        """Whether all parts know theirs. Collective the first time."""
        return all(part.knows_pairs for part in self.parts)

    def pairs(self, wanted: Wanted) -> tuple[np.ndarray, np.ndarray]:
        """Return (eigenvalues (m,), orthonormal eigenvectors (n_local, m)) that are wanted, ascending.

        Collective. The first of the parts' first; of equal ones those of the first parts.
        """
        every = [part.pairs(wanted) for part in self.parts]
        values = np.concatenate([own for own, _ in every])
        chosen = wanted.first(values, np.arange(len(values)))
        columns = np.zeros((self.layout.n_local, len(values)), order="F")
        ends = np.concatenate([[0], self._ends, [self.layout.n_local]]).astype(np.int64)
        first = 0
        for (own, vectors), begin, end in zip(every, ends[:-1], ends[1:], strict=True):
            columns[begin:end, first : first + len(own)] = vectors
            first += len(own)
        return values[chosen], np.asfortranarray(columns[:, chosen])

    def counts(self, below: np.ndarray) -> np.ndarray:
        """Return how many eigenvalues are below each of some numbers: the sums of the parts' counts.

        Collective.
        """
        return np.sum([part.counts(below) for part in self.parts], axis=0)

    def powers(self, most: int) -> np.ndarray:
        """Return (most + 1,) traces of powers of H from 0 on.

        Collective.
        """
        return np.sum([part.powers(most) for part in self.parts], axis=0)

    @property
    def knows_eigenvalues(self) -> bool:
        """Whether all parts know theirs. Collective the first time."""
        return all(part.knows_eigenvalues for part in self.parts)

    @property
    def knows_signs(self) -> bool:
        """Whether all parts know theirs. Collective the first time."""
        return all(part.knows_signs for part in self.parts)

    @property
    def knows_counts(self) -> bool:
        """Whether all parts know theirs. Collective the first time."""
        return all(part.knows_counts for part in self.parts)

    def count(self, below: float) -> int:
        """Return how many eigenvalues are below a number: the sum of the parts' counts.

        Collective.
        """
        return sum(part.count(below) for part in self.parts)

    def eigenvalues(self) -> Eigenvalues:
        """Return all eigenvalues: the union of the parts'.

        Collective.

        Raises
        ------
        InputError
            A part does not know its own.
        """
        unknown = [type(part).__name__ for part in self.parts if not part.knows_eigenvalues]
        if unknown:
            raise InputError(f"not all eigenvalues are known of {unknown[0]}: eigs finds as many as are wanted")
        every = [part.eigenvalues() for part in self.parts]
        values, counts = np.concatenate([e.values for e in every]), np.concatenate([e.counts for e in every])
        return Eigenvalues(self.comm, values, counts, np.concatenate([e.rounding() for e in every]))

    def spectrum(self, k: int = 6, which: str = "smallest") -> np.ndarray:
        """Return k eigenvalues; see `Operator.spectrum`.

        Collective. The first of the parts' first.
        """
        check_which(k, which)
        own = [part.spectrum(min(k, part.n), which) for part in self.parts]
        return select_first(np.concatenate(own), k, which)

    def logdet(self, shift: float = 0.0) -> float:
        """Return log |det (H + shift I)|, -inf where it is singular; `inertia` tells the sign.

        Collective.
        """
        return sum(part.logdet(shift) for part in self.parts)

    def inertia(self, zero: float | None = None) -> Inertia:
        """Return the inertia: the sum of the parts' own, each with what is zero to it unless `zero` says it.

        Collective. See `Operator.inertia`; `threshold` is the largest of the parts'.
        """
        return total_inertia(part.inertia(zero) for part in self.parts)

    def negative(self, shift: float = 0.0) -> int:
        """Return how many eigenvalues of H + shift I are negative.

        Collective.
        """
        return sum(part.negative(shift) for part in self.parts)

    def _solve(self, b: np.ndarray, shift: float) -> np.ndarray:
        return self._each(lambda part, own: part.solve(own, shift), b)

    def _least_squares(self, b: np.ndarray, shift: float) -> np.ndarray:
        return self._each(lambda part, own: part.solve(own, shift, singular="least-squares"), b)

    @property
    def applies_inverse(self) -> bool:
        """Whether those of all parts are by no iterations. Collective the first time."""
        return all(part.applies_inverse for part in self.parts)

    def apply_inverse(self, b: np.ndarray, shift: float) -> np.ndarray:
        """Return about (H + shift I)⁻¹ b (n_local, m), of the parts; see `Operator.apply_inverse`.

        Collective.
        """
        return self._each(lambda part, own: part.apply_inverse(own, shift), b)

    @property
    def knows_inverse(self) -> bool:
        """Whether all parts know theirs. Collective the first time."""
        return all(part.knows_inverse for part in self.parts)

    def condition(self, shift: float = 0.0) -> float:
        """Return the largest condition number of the parts: they are solved apart.

        Collective. See `Operator.condition`.
        """
        return max(part.condition(shift) for part in self.parts)

    def inverse_root(self, z: np.ndarray, shift: float = 0.0) -> np.ndarray:
        """Return R z (n_local, m) with R Rᵀ = (H + shift I)⁻¹: those of the parts.

        Collective. See `Operator.inverse_root`.
        """
        return self._each(lambda part, own: part.inverse_root(own, shift), z)

    def function(self, f: Callable[[np.ndarray], np.ndarray]) -> DirectSum:
        """Return f(H), the direct sum of f of the parts, which belong to it.

        Collective.
        """
        made: list[Operator] = []
        try:
            for part in self.parts:
                made.append(part.function(f))
        except BaseException:  # raised on every rank
            for one in made:
                one.close()
            raise
        return DirectSum(made, owned=True)

    def close(self) -> None:
        """Destroy the matrix, and the parts if they belong to it.

        Collective.
        """
        super().close()
        if self._owned:
            for part in self.parts:
                part.close()
        self.parts = []


def _reasons(told: Sequence[Exact]) -> str:
    """Return what has told the parts' answers, each once."""
    return "; ".join(dict.fromkeys(one.why for one in told))
