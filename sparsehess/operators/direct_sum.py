"""`DirectSum`: distributed Hessians that do not know of each other, the layers of a network, as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sparsehess.errors import InputError
from sparsehess.operators.eigenvalues import Eigenvalues, check_which, first
from sparsehess.operators.operator import Operator
from sparsehess.pattern import Layout


class DirectSum(Operator):
    """H = H_1 ⊕ H_2 ⊕ ..., each over all ranks: K-FAC is one of Kronecker products.

    Collective to make and to use. The rows of a rank are those that it has of the first, then of the second, and
    so on, as in PETSc's MATNEST. `BlockDiagonal` is for blocks that each fit on a rank.

    Parameters
    ----------
    parts
        Operators on the same ranks. They are the caller's, unless `owned`, and must live as long as this.
    owned
        Close them with this.
    """

    def __init__(self, parts: Sequence[Operator], *, owned: bool = False):
        self.parts, self._owned = list(parts), owned
        if not self.parts or any(part.comm != self.parts[0].comm for part in self.parts):
            raise InputError("a direct sum needs operators, all on the same communicator")
        sizes = [part.layout.n_local for part in self.parts]
        self._ends = np.cumsum(sizes)[:-1]
        self._shell(Layout.from_local(sum(sizes), self.parts[0].comm))

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

    def _each(self, function: Callable, array: np.ndarray) -> np.ndarray:
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

    def exact(self) -> Eigenvalues | None:
        every = [part.exact() for part in self.parts]
        if any(one is None for one in every):
            return None
        values, counts = np.concatenate([e.values for e in every]), np.concatenate([e.counts for e in every])
        return Eigenvalues(self.comm, values, counts)

    def count(self, below: float) -> int | None:
        every = [part.count(below) for part in self.parts]
        return None if any(one is None for one in every) else sum(every)

    def eigenvalues(self) -> Eigenvalues:
        """Return all eigenvalues, the union of the parts', where all of them know theirs.

        Collective.
        """
        every = self.exact()
        if every is None:
            unknown = next(type(part).__name__ for part in self.parts if part.exact() is None)
            raise InputError(f"not all eigenvalues are known of {unknown}: spectrum finds as many as are wanted")
        return every

    def spectrum(self, k: int = 6, which: str = "smallest") -> np.ndarray:
        """Return k eigenvalues; see `Operator.spectrum`.

        Collective. The first of the parts' first.
        """
        check_which(k, which)
        own = [part.spectrum(min(k, part.n), which) for part in self.parts]
        return first(np.concatenate(own), k, which)

    def logdet(self, shift: float = 0.0) -> float:
        """Return log |det (H + shift I)|, -inf where it is singular; `inertia` tells the sign.

        Collective.
        """
        return sum(part.logdet(shift) for part in self.parts)

    def inertia(self, zero: float | None = None):
        """Return the `Signs` of all eigenvalues; `zero` is up to what size one is zero.

        Collective.
        """
        from sparsehess.eigen.certificates.inertia import (
            Signs,  # solvers take operators in: not before they are asked for
        )

        if zero is None:
            zero = max(part.inertia().threshold for part in self.parts)
        signs = [part.inertia(zero) for part in self.parts]
        doubt = "; ".join(one.doubt for one in signs if one.doubt)
        counts = [
            sum(getattr(one, sign) for one in signs) for sign in ("negative", "zero", "positive", "infinite")
        ]
        return Signs(*counts, zero, not doubt, doubt)

    def _solve(self, b: np.ndarray, shift: float) -> np.ndarray:
        return self._each(lambda part, own: part.solve(own, shift), b)

    def function(self, f: Callable[[np.ndarray], np.ndarray]) -> DirectSum:
        """Return f(H), the direct sum of f of the parts, which belong to it.

        Collective.
        """
        made: list[Operator] = []
        try:
            for part in self.parts:
                made.append(part.function(f))
        except Exception:  # raised on every rank
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
