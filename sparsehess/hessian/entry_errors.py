"""How far noise and finite steps may move the quotients xᵀHx of a Hessian, entry by entry.

The error model says how the variances of the entries compare; the product that verification compares with says how
large they are together.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from mpi4py import MPI

import numpy as np

from sparsehess.hessian import recovery_kernels
from sparsehess.hessian.element_assembly import ElementAssembly
from sparsehess.hessian.recovery import Plan, Substitution
from sparsehess.runtime.short_repr import ShortRepr

# A bar is so many standard deviations.
_BARS = 2.0

# Rows of whose errors the variance is less than this part of the largest have no part in what was seen.
_SEEN = 1e-6

_EPS = float(np.finfo(float).eps)


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
        rows = self._variances(self.level - self.shared, x)
        size = self._rounding(x) + self._absolute_product(self.values, x * self.left)
        common = self._absolute_product(np.ones(len(self.values)), x * np.sqrt(self.weight))
        rows = rows + self._spreads * self.shared * common**2
        sums = np.array([2.0 * (x**2 @ rows), x @ size])
        pattern.comm.Allreduce(MPI.IN_PLACE, sums)
        return float(_BARS * np.sqrt(sums[0]) + sums[1])

    def of_product(self, x: np.ndarray) -> np.ndarray:
        """Return (n_local,) standard deviations of the errors of H x, by rows, and what finite steps leave out.

        Collective. `x` (n_local,) are magnitudes.
        """
        rows = self._variances(self.level, x)
        return np.sqrt(rows) + self._rounding(x) + self._absolute_product(self.values, x * self.left)

    @cached_property
    def _substituted(self) -> np.ndarray | None:
        """(nnz_local,) standard deviations of entries that are read by substitution, None of others.

        Collective the first time. They are those of noise, their squares of no smaller sum than was seen: what was
        seen of a graded matrix is that of its largest rows alone, and small by chance as likely as large. Where no
        noise is known they are those of rounding.
        """
        if not isinstance(self.plan, Substitution):
            return None
        noisy = self.spread > 0
        level, taken = np.sqrt(self.level), self.weight**-0.5
        out = self.plan.deviations(level, taken, self.values, 0.0 if noisy else _EPS)
        total = self.plan.pattern.comm.allreduce(float(out @ out))
        if noisy and total > 0:
            out *= max(1.0, self.norm / np.sqrt(total))
        return out

    @cached_property
    def _spreads(self) -> np.ndarray:
        """(n_local,) `spread`, but for rows whose errors are far below those that were seen: no less than one.

        Collective the first time. The errors that are seen of a graded matrix are those of its largest rows, which
        say nothing of the noise of others.
        """
        rows = self.plan.variances(self.level, self.weight, np.ones(len(self.level)))[2]
        largest = self.plan.pattern.comm.allreduce(float(rows.max(initial=0.0)), op=MPI.MAX)
        seen = rows >= _SEEN * largest
        return np.where(seen | (self.spread == 0), self.spread, max(1.0, self.spread))

    def _variances(self, level: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Return (n_local,) what noise of these variances makes of the rows of H x. Collective."""
        deviations = self._substituted
        if deviations is None:
            rows = self.plan.variances(level, self.weight, x)[2]
            return self._spreads * rows
        return self._absolute_product(deviations, x) ** 2 if self.spread > 0 else np.zeros(len(x))

    def _rounding(self, x: np.ndarray) -> np.ndarray | float:
        """Return (n_local,) what rounding may make of the rows of H x beside that of their entries. Collective."""
        deviations = self._substituted
        if deviations is None or self.spread > 0:
            return 0.0
        return self._absolute_product(_BARS * deviations, x)

    def _absolute_product(self, values: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Return |A| x (n_local,) for entries of A. Collective."""
        pattern = self.plan.pattern
        out = np.empty(pattern.layout.n_local)
        recovery_kernels.absolute_product(pattern.indptr, pattern.columns, values, pattern.exchange.halo(x), out)
        return out
