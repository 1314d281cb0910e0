"""What a structure may tell of its eigenvalues: all, and what follows from them; counts alone; or nothing.

`sparsehess.eigs`, `sparsehess.inertia` and the estimates ask it first.
"""

from __future__ import annotations

import numpy as np

from sparsehess.errors import InputError
from sparsehess.operators.eigenvalues import Eigenvalues, Inertia
from sparsehess.operators.exact_functions import ExactFunctions
from sparsehess.operators.wanted import Wanted


class ToldEigenvalues(ExactFunctions):
    """Answers from all eigenvalues, if the structure tells them; those that tell counts alone have their own."""

    @property
    def knows_eigenvalues(self) -> bool:
        """Whether the structure tells all eigenvalues. Collective the first time."""
        return False

    @property
    def knows_counts(self) -> bool:
        """Whether the structure tells `count`, `inertia` and `spectrum`. Collective the first time."""
        return self.knows_eigenvalues

    @property
    def knows_signs(self) -> bool:
        """Whether the structure tells `negative` and `inertia`. Collective the first time."""
        return self.knows_counts

    @property
    def knows_pairs(self) -> bool:
        """Whether the structure tells eigenvectors, by `pairs`. Collective the first time."""
        return False

    def eigenvalues(self) -> Eigenvalues:
        """Return all eigenvalues.

        Collective.

        Raises
        ------
        InputError
            The structure does not tell them: `sparsehess.eigs` finds as many as are wanted.
        """
        raise InputError(f"the structure of a {type(self).__name__} tells no eigenvalues: eigs finds them")

    def count(self, below: float) -> int:
        """Return how many eigenvalues are below a number.

        Collective.

        Raises
        ------
        InputError
            The structure does not tell it.
        """
        return self.eigenvalues().below(below)

    def counts(self, below: np.ndarray) -> np.ndarray:
        """Return how many eigenvalues are below each of some numbers (m,).

        Collective.

        Raises
        ------
        InputError
            The structure does not tell it.
        """
        return self.eigenvalues().below_each(below)

    def powers(self, most: int) -> np.ndarray:
        """Return (most + 1,) traces of powers of H from 0 on.

        Collective.

        Raises
        ------
        InputError
            The structure does not tell them.
        """
        return self.eigenvalues().powers(most)

    def pairs(self, wanted: Wanted) -> tuple[np.ndarray, np.ndarray]:
        """Return (eigenvalues (m,), orthonormal eigenvectors (n_local, m)) that are wanted, ascending.

        Collective.

        Raises
        ------
        InputError
            The structure does not tell them: `sparsehess.eigs` finds them.
        """
        raise InputError(f"the eigenvectors of a {type(self).__name__} are not known: eigs finds them")

    def spectrum(self, k: int = 6, which: str = "smallest") -> np.ndarray:
        """Return k eigenvalues (k,), ascending, the same on every rank.

        Collective.

        Parameters
        ----------
        k
            How many.
        which
            `smallest`, `largest`, `magnitude`, or `negative`, of which there may be fewer.

        Raises
        ------
        InputError
            The structure does not tell them: `sparsehess.eigs` finds them.
        """
        return self.eigenvalues().ends(k, which)

    def inertia(self, zero: float | None = None) -> Inertia:
        """Return the inertia; `zero` is up to what size an eigenvalue is zero.

        Collective.

        Raises
        ------
        InputError
            The structure does not tell it: `sparsehess.inertia` counts.
        """
        return self.eigenvalues().inertia(zero)
