"""What noise and finite steps make of a Hessian's entries, and of a product to compare it with."""

from __future__ import annotations

from dataclasses import dataclass

from mpi4py import MPI

import numpy as np

from sparsehess.derivatives.finite_differences import Steps, truncation
from sparsehess.derivatives.gradient_noise import Noise
from sparsehess.hessian import recovery_kernels
from sparsehess.hessian.element_assembly import ElementAssembly
from sparsehess.hessian.error_kernels import mean_squares, scaled_square
from sparsehess.hessian.recovery import Plan
from sparsehess.runtime.short_repr import ShortRepr

# A single difference may be small by chance, and is taken to be so much larger; the mean square of so many is not.
_FEW, _MANY = 3.0, 10.0


def unsure(rows: float) -> float:
    """Return how many times larger an error may be than what so many rows say of it. Not collective."""
    return 1.0 + _FEW / rows if rows < _MANY else 1.0


@dataclass(frozen=True, eq=False, repr=False)
class ErrorModel(ShortRepr):
    """What noise and finite steps make of the entries; made once, since steps stay much the same.

    Fresh products are taken along several directions: a group of variables whose steps are of one size at a time.

    Attributes
    ----------
    plan
        From which the entries are read.
    noise
        Norm of what noise makes of the matrix.
    largest
        Largest standard deviation of an entry.
    left
        (n_local,) what finite steps leave out of each column, relative to it.
    of_product
        (groups, n_local) what noise makes of the differences of our products and fresh ones.
    share
        (groups, n_local) how much of its variance is that of our product.
    left_of_product
        (n_local,) what finite steps leave out of each variable's part of the fresh product, relative to it.
    squares
        (groups, n_local) mean over a row's entries of the square of the direction, of those where it is not 0.
    slope
        (n_local,) change of each component of the gradient within a typical length of the variables.
    length
        (n_local,) typical lengths.
    """

    plan: Plan | ElementAssembly
    noise: float
    largest: float
    left: np.ndarray
    of_product: np.ndarray
    share: np.ndarray
    left_of_product: np.ndarray
    squares: np.ndarray
    slope: np.ndarray
    length: np.ndarray

    @classmethod
    def of(
        cls,
        plan: Plan | ElementAssembly,
        steps: Steps,
        noise: Noise | None,
        length: np.ndarray,
        check: Steps,
        directions: np.ndarray,
    ) -> ErrorModel:
        """Return the model of a Hessian that is recovered by a plan, for a check by other steps.

        Collective.

        Parameters
        ----------
        length
            (n_local,) typical lengths of the variables.
        check, directions
            Steps to compare with, and (groups, n_local) what the variables of each group take together.
        """
        squares = np.stack([_mean_squares(plan, direction) for direction in directions])
        if noise is None:
            none, nothing = np.zeros(len(length)), np.zeros(directions.shape)
            return cls(plan, 0.0, 0.0, none, nothing, nothing + 1.0, none, squares, none, length)
        variance, of_check = (
            noise.level**2 * sum(weight**2 for _, weight in kind.nodes) for kind in (steps, check)
        )
        found = [plan.variances(variance, steps.taken**-2.0, direction) for direction in directions]
        total, largest, _ = found[0]
        rows = np.stack([one[2] for one in found])
        both = of_check + rows
        return cls(
            plan,
            float(np.sqrt(total)),
            float(np.sqrt(largest)),
            # What does not change is all error.
            np.where(noise.moves > 0, truncation(steps, length, noise), 1.0),
            np.sqrt(both),
            np.divide(rows, both, out=np.ones_like(rows), where=both > 0),
            truncation(check, length, noise),
            squares,
            noise.slope,
            length,
        )

    def truncation(self, values: np.ndarray) -> float:
        """Return the norm of what finite steps leave out of a matrix of these values (nnz_local,). Collective."""
        pattern = self.plan.pattern
        left = pattern.exchange.halo(self.left)
        square = scaled_square(pattern.indptr, pattern.columns, values, left)
        return float(np.sqrt(pattern.comm.allreduce(square)))

    def left_out(self, values: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """Return (n_local,) what finite steps leave out of our product and a fresh one. Collective."""
        return self.absolute_product(values, direction * (self.left + self.left_of_product))

    def absolute_product(self, values: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Return |A| |x| (n_local,) for entries (nnz_local,) of A. Collective."""
        pattern = self.plan.pattern
        out = np.empty(pattern.layout.n_local)
        recovery_kernels.absolute_product(pattern.indptr, pattern.columns, values, pattern.exchange.halo(x), out)
        return out

    def scale_of(self, rows: np.ndarray) -> float:
        """Return the norm of a matrix with rows that change the gradient as it does within a typical length.

        Collective. Of some rows (n_local,) bool.
        """
        part = (self.slope / self.length)[rows]
        return float(np.sqrt(self.plan.pattern.comm.allreduce(float(part @ part))))

    def independent(self, error: np.ndarray) -> float:
        """Return of how many rows the error of a product is made, those that are small beside others not counted.

        Collective. (Σ e²)² / Σ e⁴, from 1 to the number of rows, in each group.
        """
        squares = np.divide(error**2, self.squares, out=np.zeros_like(error), where=self.squares > 0)
        comm = self.plan.pattern.comm
        top = comm.allreduce(float(squares.max(initial=0.0)), op=MPI.MAX)
        if not 0 < top < np.inf:
            return 1.0
        squares /= top
        sums = np.array([squares.sum(), (squares**2).sum()])
        comm.Allreduce(MPI.IN_PLACE, sums)
        return float(sums[0] ** 2 / sums[1])

    def frobenius(self, error: np.ndarray) -> float:
        """Return the norm of the error of the matrix that shows as this error of a product. Collective.

        For an error E and random signs, the mean of (E v)_i² is Σ_j E_ij² v_j² (Hutchinson 1990). Of the noise
        that has made it, a share is that of the fresh product.
        """
        part = np.divide(self.share * error**2, self.squares, out=np.zeros_like(error), where=self.squares > 0)
        return float(np.sqrt(self.plan.pattern.comm.allreduce(float(part.sum()))))


def _mean_squares(plan: Plan | ElementAssembly, direction: np.ndarray) -> np.ndarray:
    """Return (n_local,) the mean square of a direction over each row's entries where it is not 0. Collective."""
    pattern = plan.pattern
    out = np.empty(pattern.layout.n_local)
    mean_squares(pattern.indptr, pattern.columns, pattern.exchange.halo(direction), out)
    return out
