"""`DirectSum`: distributed Hessians that do not know of each other, the layers of a network, as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sparsehess.errors import InputError
from sparsehess.operators.eigenvalues import Eigenvalues, Inertia, check_which, select_first
from sparsehess.operators.operator import Operator
from sparsehess.operators.solutions import SystemOfParts
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
    def knows_eigenvalues(self) -> bool:
        """Whether all parts know theirs. Collective the first time."""
        return all(part.knows_eigenvalues for part in self.parts)

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
        return Eigenvalues(self.comm, values, counts)

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
        """Return the inertia: the sum of the parts' own, with one size up to which an eigenvalue is zero.

        Collective. See `Operator.inertia`.
        """
        if zero is None:
            zero = max(part.inertia().threshold for part in self.parts)
        every = [part.inertia(zero) for part in self.parts]
        doubt = "; ".join(one.doubt for one in every if one.doubt)
        return Inertia(
            sum(one.negative for one in every),
            sum(one.zero for one in every),
            sum(one.positive for one in every),
            0,
            zero,
            not doubt,
            doubt,
        )

    def _solve(self, b: np.ndarray, shift: float) -> np.ndarray:
        return self._each(lambda part, own: part.solve(own, shift), b)

    def _least_squares(self, b: np.ndarray, shift: float) -> np.ndarray:
        return self._each(lambda part, own: part.solve(own, shift, singular="least-squares"), b)

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
