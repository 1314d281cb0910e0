"""`Projection`: what was changed by projecting directions out that the Hessian resists."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsehess.runtime.short_repr import ShortRepr


@dataclass(frozen=True, repr=False)
class Projection(ShortRepr):
    """What it has changed that directions N were projected out whatever A says of them.

    *Not collective*; the same on every rank. What was solved is PᵀAP, P = I − N NᵀM with NᵀMN = I. A differs from
    that by what it does to N: by NᵀAN, and by the couplings NᵀAx with the eigenvectors x.

    Attributes
    ----------
    resisted
        (m,) eigenvalues of NᵀAN, ascending: zero were the directions null vectors.
    coupled
        (k,) norm of NᵀAx of each eigenvector. A has an eigenvalue within that of each (Krylov and Weinstein).
    moved
        (k,) by how much the eigenvalues of A differ from those of PᵀAP, on the span of N and the eigenvectors.
    whole
        Whether these span all, so that `moved` is exact.
    """

    resisted: np.ndarray
    coupled: np.ndarray
    moved: np.ndarray
    whole: bool

    @property
    def farthest(self) -> int:
        """Place of the eigenvalue of NᵀAN that is farthest from zero. Not collective."""
        return int(np.abs(self.resisted).argmax())

    @property
    def most_moved(self) -> float:
        """Most that an eigenvalue differs by, without sign; 0 where there are none. Not collective."""
        return float(np.abs(self.moved).max(initial=0.0))
