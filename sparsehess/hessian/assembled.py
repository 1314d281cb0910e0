"""A Hessian as it was assembled, for those who judge it."""

from __future__ import annotations

from dataclasses import dataclass

from mpi4py import MPI

import numpy as np

from sparsehess.derivatives.evaluations import Evaluations
from sparsehess.derivatives.finite_differences import Steps, along
from sparsehess.derivatives.gradient_noise import Noise
from sparsehess.hessian.error_kernels import largest_of_rows
from sparsehess.hessian.error_model import ErrorModel
from sparsehess.hessian.recovery import Recovered
from sparsehess.pattern import Pattern
from sparsehess.runtime import PETSc, destroy
from sparsehess.runtime.short_repr import ShortRepr

# A Hessian passes if it agrees with a fresh product, row by row, and with its own transpose this well.
# Rounding and truncation leave 1e-9 to 1e-6; a missing entry or a kink leaves 1e-3 and more.
TOLERANCE = 1e-4

# Of what noise alone makes of a check, so many standard deviations are no failure.
SIGMAS = 20.0

EPS = float(np.finfo(float).eps)


@dataclass(frozen=True, eq=False, repr=False)
class Assembled(ShortRepr):
    """A Hessian as it was assembled, for those who judge it.

    Attributes
    ----------
    name
        Of the function.
    pattern, mat, values
        The matrix, and its entries (nnz_local,) in the pattern's order.
    steps, recovered, model, noise
        What they were made with, what recovery saw, what may be wrong with them, and the noise that was measured.
    check, groups, directions
        Steps of the fresh products, (n_local,) which variables take them together, and (groups, n_local) what
        those of each group take.
    norm, error
        Frobenius norm, and the relative error of the matrix as far as noise and steps tell.
    """

    name: str
    pattern: Pattern
    mat: PETSc.Mat
    values: np.ndarray
    steps: Steps
    recovered: Recovered
    model: ErrorModel
    noise: Noise | None
    check: Steps
    groups: np.ndarray
    directions: np.ndarray
    norm: float
    error: float

    def felt(self, times: np.ndarray) -> tuple[np.ndarray, float]:
        """Return the noise of the components if it is (n_local,) times that which was measured, and of the matrix.

        Collective.
        """
        if self.noise is None:
            return np.zeros(len(times)), 0.0
        level, plan = self.noise.level * times, self.model.plan
        if not self.pattern.comm.allreduce(bool((times != 1).any()), op=MPI.LOR):
            return level, self.model.noise
        variance = level**2 * sum(weight**2 for _, weight in self.steps.nodes)
        return level, float(np.sqrt(plan.variances(variance, self.steps.taken**-2.0, self.steps.taken)[0]))

    def stuck(self, fresh: np.ndarray) -> np.ndarray:
        """Return (n_local,) bool: rows in which nothing has changed, neither here nor in fresh products.

        Not collective. Where the gradient is known to change, what is equal there is its rounding.
        """
        if self.noise is None:
            return np.zeros(fresh.shape[1], bool)
        expected = self.model.slope * np.abs(self.check.taken) / self.model.length
        moves = (self.noise.moves > 0) & (self.check.taken != 0)
        noise = SIGMAS * self.model.of_product.max(axis=0)
        still = moves & (fresh == 0).all(axis=0) & (expected > noise)
        if still.any():
            own = np.empty(len(still))
            largest_of_rows(self.pattern.indptr, self.values, own)
            still &= own == 0
        return still

    def fresh(self, evaluations: Evaluations) -> np.ndarray:
        """Return (groups, n_local) products along the directions of the check. Collective."""
        return along(evaluations, self.check, self.groups, len(self.directions))

    def product(self, direction: np.ndarray) -> np.ndarray:
        """Return H d (n_local,). Collective."""
        x, y = self.mat.createVecs()
        x.setArray(direction)
        self.mat.mult(x, y)
        ours = y.getArray().copy()
        destroy(x, y)
        return ours
