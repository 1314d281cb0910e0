"""How far noise and finite steps may move the quotients xᵀHx of a Hessian, entry by entry.

The error model says how the variances of the entries compare; the product that verification compares with says how
large they are together.
"""

from __future__ import annotations

from dataclasses import dataclass

from mpi4py import MPI

import numpy as np

from sparsehess.hessian import recovery_kernels
from sparsehess.hessian.element_assembly import ElementAssembly
from sparsehess.hessian.recovery import Plan
from sparsehess.runtime.short_repr import ShortRepr

# A bar is so many standard deviations.
_BARS = 2.0


@dataclass(frozen=True, eq=False, repr=False)
class EntryErrors(ShortRepr):
    """Estimates of the errors of a Hessian's entries.

    Attributes
    ----------
    plan
        From which the entries are read.
    values
        (nnz_local,) the entries.
    level, shared, weight
        (n_local,) variance of each component of a gradient change; the part of it that all changes have in common,
        from a gradient that all are differences to; 1 / step² of each variable.
    spread
        What the variances are multiplied with, for their sum to be that of the errors that were seen.
    left
        (n_local,) what finite steps leave out of each column, relative to its entries.
    norm
        Frobenius norm of all errors.
    """

    plan: Plan | ElementAssembly
    values: np.ndarray
    level: np.ndarray
    shared: np.ndarray
    weight: np.ndarray
    spread: float
    left: np.ndarray
    norm: float

    def of_quotient(self, x: np.ndarray) -> float:
        """Return how far xᵀHx may be off: two standard deviations, and what finite steps leave out.

        Collective. For independent errors e_ij = e_ji the variance of xᵀEx is 4 Σ x_i² x_j² var(e_ij) over all
        pairs and Σ x_i⁴ var(e_ii), no more than twice the sum over all entries. What a row has in common adds up.

        Parameters
        ----------
        x
            (n_local,) magnitudes of the vector.
        """
        pattern = self.plan.pattern
        _, _, rows = self.plan.variances(self.level - self.shared, self.weight, x)
        size = self._absolute_product(self.values, x * self.left)
        common = self._absolute_product(np.ones(len(self.values)), x * np.sqrt(self.weight))
        rows = rows + self.shared * common**2
        sums = np.array([2.0 * self.spread * (x**2 @ rows), x @ size])
        pattern.comm.Allreduce(MPI.IN_PLACE, sums)
        return float(_BARS * np.sqrt(sums[0]) + sums[1])

    def of_product(self, x: np.ndarray) -> np.ndarray:
        """Return (n_local,) standard deviations of the errors of H x, by rows, and what finite steps leave out.

        Collective. `x` (n_local,) are magnitudes.
        """
        _, _, rows = self.plan.variances(self.level, self.weight, x)
        return np.sqrt(self.spread * rows) + self._absolute_product(self.values, x * self.left)

    def _absolute_product(self, values: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Return |A| x (n_local,) for entries of A. Collective."""
        pattern = self.plan.pattern
        out = np.empty(pattern.layout.n_local)
        recovery_kernels.absolute_product(pattern.indptr, pattern.columns, values, pattern.exchange.halo(x), out)
        return out
