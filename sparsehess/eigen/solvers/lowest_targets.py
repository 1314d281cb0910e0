"""The lower end of the spectrum as what is wanted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sparsehess.eigen.problem.factorization import Pivots
from sparsehess.eigen.solvers.krylov_schur import KrylovSchur
from sparsehess.eigen.solvers.spectrum_targets import LowestEstimate, ShiftedTarget
from sparsehess.errors import InputError

# A lowest eigenvalue below zero is known well enough for a shift when it is known to this part of itself.
_ROUGH = 0.1


class _LowestEnd(ShiftedTarget):
    """The lower end of the spectrum."""

    which = "smallest"
    side = -1.0
    reason = "shift-and-invert just below the spectrum: the smallest converge in few solves"

    def distance(self, values: np.ndarray) -> np.ndarray:
        """Return (m,) numbers by which the wanted eigenvalues come first. Not collective."""
        return values

    def shifts(self, edge: float) -> tuple[float, ...]:
        """Return where to count. Not collective."""
        return (edge,)

    def edge_at(self, shift: float) -> float | None:
        """Return the edge for which one count, at this shift, is enough. Not collective."""
        return shift

    def inertia(self, counts: Sequence[Pivots]) -> int:
        """Return how many finite eigenvalues have a distance below the edge. Not collective."""
        return counts[0].negative

    def interval(self, edge: float) -> tuple[float, float]:
        """Return the interval that an edge stands for. Not collective."""
        return (-np.inf, edge)

    def _just_below_zero(self) -> float:
        """Return a shift below zero by more than rounding."""
        return -max(1e-10 * self.problem.typical, 2e-13 * self.problem.scale) or -1.0


class Smallest(_LowestEnd):
    """The smallest eigenvalues, where a factorization tells whether a shift is below all of them."""

    cluster_after = 6

    def find_shift(self, solver: KrylovSchur, lowest: LowestEstimate) -> float:
        """Factorize at a shift from which the wanted eigenvalues are the nearest, and return it. Collective."""
        problem = self.problem
        shift = self._just_below_zero()
        told = False  # how far the spectrum goes below zero, by products
        for rung in range(40):
            if solver.shift_below(shift):
                return shift
            if told:
                shift -= max(0.1 * abs(shift), 1e-3 * problem.scale)
            elif problem.M is None and (rung == 2 or problem.ritz[0] < shift):
                # Not a matter of rounding.
                value, error = lowest()
                shift, told = min(shift, value - max(2 * error, 1e-3 * abs(value))), True
            else:
                shift *= 100 if rung < 2 else 10
        raise InputError(
            f"no shift down to {shift:.3g} is below the spectrum: H must be positive definite on the null space "
            "of the mass matrix, and the mass matrix positive semidefinite"
        )


class SmallestByProducts(_LowestEnd):
    """The smallest where no factorization counts: products tell where the spectrum begins.

    They do so to a part of the norm. Where that leaves the sign of the lowest eigenvalue open, a shift that is
    surely below it tells it to working accuracy. Should one be found below the shift all the same, the shift is
    moved below that.
    """

    def find_shift(self, solver: KrylovSchur, lowest: LowestEstimate) -> float:
        """Factorize at a shift from which the wanted eigenvalues are the nearest, and return it. Collective."""
        self._refuse_singular_mass()
        value, error = lowest(options={"eps_conv_norm": None})
        at_zero = self._just_below_zero()
        if value - 2 * error <= 0 and 2 * error > _ROUGH * abs(value):
            self._regular(value - 2 * error + at_zero, solver)
            value, error = lowest(solver)
        shift = at_zero if value >= 0 else min(at_zero, value - max(2 * error, 1e-3 * abs(value)))
        return self._regular(shift, solver)

    def shifts_past(self, found: np.ndarray, step: float) -> tuple[float, ...]:
        """Return where the wanted eigenvalues are the nearest that come after those found. Not collective."""
        past = float(self.distance(found).max()) + step if len(found) else step
        return (-self.side * past,)

    def shift_below(self, found: np.ndarray, shift: float, solver: KrylovSchur) -> float | None:
        """Factorize below the eigenvalues found where one lies below the shift, and return where. Collective."""
        low = float(found.min(initial=np.inf))
        if low >= shift:
            return None
        return self._regular(low - max(1e-3 * abs(low), 2e-13 * self.problem.scale), solver)

    def _regular(self, shift: float, solver: KrylovSchur) -> float:
        for _ in range(20):
            if solver.shift_to(shift).zero == 0:
                return shift
            shift -= max(1e-3 * abs(shift), 1e-12 * self.problem.scale)
        raise InputError(f"the factorization is singular at {shift:.6g} and nearby")
