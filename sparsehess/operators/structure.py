"""`Structure`: what a matrix tells exactly of itself. `NOTHING` is what one without a structure tells.

Doors ask in one way (`total`, `entries`, `pairs`, counts), whatever the matrix; None says that nothing is known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np

from sparsehess.errors import InputError
from sparsehess.operators.eigenvalues import Eigenvalues, Inertia
from sparsehess.operators.wanted import Wanted

Value = TypeVar("Value", float, np.ndarray)


class Spectral(Protocol):
    """A function of eigenvalues, as doors take it.

    Attributes
    ----------
    name
        `identity`, `logdet`, ..., or that of a callable.
    call
        (m,) to (m,), unchecked.
    above
        Eigenvalues must be greater than this.
    resolvent
        (a, b, shift) of a function a + b / (λ + shift), else None.
    """

    @property
    def name(self) -> str:
        """The name."""
        ...

    @property
    def call(self) -> Callable[[np.ndarray], np.ndarray]:
        """The function, unchecked."""
        ...

    @property
    def above(self) -> float:
        """Where the domain begins."""
        ...

    @property
    def resolvent(self) -> tuple[float, float, float] | None:
        """Coefficients of a resolvent."""
        ...

    @property
    def linear(self) -> bool:
        """Whether it is the identity."""
        ...

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Return the values of the function, checked. Not collective."""
        ...


@dataclass(frozen=True, eq=False)
class Exact(Generic[Value]):
    """An answer that is no estimate.

    Attributes
    ----------
    value
        A number, the same on every rank, or (n_local,) numbers.
    rounding
        How far rounding may have moved it, to first order; infinite where that leaves nothing of it.
    why
        What has told it.
    """

    value: Value
    rounding: Value
    why: str


def _untold(what: str) -> InputError:
    """Return the error of asking for what a matrix does not tell. Not collective."""
    return InputError(f"this matrix has no structure that tells its {what}")


class Structure:
    """What a matrix tells exactly of itself; here nothing. *Collective* to ask."""

    @property
    def knows_counts(self) -> bool:
        """Whether it counts eigenvalues. Collective the first time."""
        return False

    @property
    def knows_signs(self) -> bool:
        """Whether it tells the inertia. Collective the first time."""
        return False

    @property
    def knows_eigenvalues(self) -> bool:
        """Whether it tells all eigenvalues. Collective the first time."""
        return False

    @property
    def knows_pairs(self) -> bool:
        """Whether it tells eigenvectors. Collective the first time."""
        return False

    def total(self, f: Spectral) -> Exact[float] | None:
        """Return the trace of f(H), the sum of f over all eigenvalues.

        Collective.
        """
        return None

    def entries(self, f: Spectral) -> Exact[np.ndarray] | None:
        """Return the diagonal (n_local,) of f(H).

        Collective.
        """
        return None

    def eigenvalues(self) -> Eigenvalues:
        """Return all eigenvalues, where it knows them. Collective."""
        raise _untold("eigenvalues")

    def count(self, below: float) -> int:
        """Return how many eigenvalues are below a number, where it knows counts. Collective."""
        raise _untold("counts")

    def counts(self, below: np.ndarray) -> np.ndarray:
        """Return how many eigenvalues are below each of some numbers, where it knows counts. Collective."""
        raise _untold("counts")

    def spectrum(self, k: int = 6, which: str = "smallest") -> np.ndarray:
        """Return k eigenvalues, where it knows counts. Collective."""
        raise _untold("eigenvalues")

    def inertia(self, zero: float | None = None) -> Inertia:
        """Return the inertia, where it knows counts. Collective."""
        raise _untold("inertia")

    def powers(self, most: int) -> np.ndarray:
        """Return (most + 1,) traces of powers of H from 0 on, where it knows counts. Collective."""
        raise _untold("traces of powers")

    def pairs(self, wanted: Wanted) -> tuple[np.ndarray, np.ndarray]:
        """Return (eigenvalues (m,), eigenvectors (n_local, m)), ascending, where it knows them. Collective."""
        raise _untold("eigenvectors")


NOTHING = Structure()
