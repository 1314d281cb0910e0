"""The eigenvalues nearest to a number as what is wanted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sparsehess.eigen.problem.factorization import Pivots
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.problem.solve_spec import SolveSpec
from sparsehess.eigen.solvers.krylov_schur import KrylovSchur
from sparsehess.eigen.solvers.spectrum_targets import ROUNDING, LowestEstimate, ShiftedTarget
from sparsehess.errors import InputError

# Part of a target by which the distance of an eigenvalue to it is rounded.
_LAST_DIGITS = 4 * float(np.finfo(float).eps)

# Halvings by which the nearest eigenvalues are found, to this part of themselves.
_BISECTIONS, _NEAR = 60, 1e-3


class Nearest(ShiftedTarget):
    """The eigenvalues nearest to a number."""

    which = "nearest"
    reason = "shift-and-invert at the target"

    def __init__(self, problem: EigenProblem, spec: SolveSpec):
        super().__init__(problem, spec)
        if spec.target is None:
            raise InputError("no target is asked for")
        self.center = spec.target
        self.rounding = _LAST_DIGITS * abs(self.center)

    def distance(self, values: np.ndarray) -> np.ndarray:
        """Return (m,) numbers by which the wanted eigenvalues come first. Not collective."""
        return np.abs(values - self.center)

    def shifts_past(self, found: np.ndarray, step: float) -> tuple[float, ...]:
        """Return where the wanted eigenvalues are the nearest that come after those found. Not collective."""
        past = float(self.distance(found).max(initial=0.0)) + step
        return self.center + past, self.center - past

    def bisect_nearest(self, solver: KrylovSchur) -> tuple[float, ...]:
        """Return shifts just short of the nearest eigenvalues, by counts. Collective."""
        scale = self.problem.scale or 1.0
        inner, outer = 0.0, abs(self.center) + scale
        for _ in range(_BISECTIONS):
            if self.inertia([solver.shift_to(shift) for shift in self.shifts(outer)]) > 0:
                break
            inner, outer = outer, 4 * outer
        for _ in range(_BISECTIONS):
            # To a part of where they are, not of how far: their distances from each other are of that size.
            if outer - inner <= _NEAR * max(min(map(abs, self.shifts(outer))), ROUNDING * scale):
                break
            middle = 0.5 * (inner + outer)
            if self.inertia([solver.shift_to(shift) for shift in self.shifts(middle)]) > 0:
                outer = middle
            else:
                inner = middle
        (above, below), (beyond, before) = (
            [solver.shift_to(shift).negative for shift in self.shifts(edge)] for edge in (inner, outer)
        )
        sides = (beyond > above, below > before)
        return tuple(shift for shift, there in zip(self.shifts(inner), sides, strict=True) if there)

    def find_shift(self, solver: KrylovSchur, lowest: LowestEstimate) -> float:
        """Factorize at a shift from which the wanted eigenvalues are the nearest, and return it. Collective."""
        target, step = self.center, max(1e-9 * abs(self.center), 1e-11 * self.problem.scale) or 1.0
        for rung in range(6):
            shift = target - step * (10.0**rung - 1)
            if solver.shift_to(shift).zero == 0:
                return shift
        raise InputError(f"target={target}: the factorization is singular there and nearby; choose another")

    def shifts(self, edge: float) -> tuple[float, ...]:
        """Return where to count; nowhere where none can be as near. Not collective."""
        return (self.center + edge, self.center - edge) if edge > 0 else ()

    def inertia(self, counts: Sequence[Pivots]) -> int:
        """Return how many finite eigenvalues have a distance below the edge. Not collective."""
        return counts[0].negative - counts[1].negative if counts else 0

    def interval(self, edge: float) -> tuple[float, float]:
        """Return the interval that an edge stands for. Not collective."""
        return (self.center - edge, self.center + edge)
