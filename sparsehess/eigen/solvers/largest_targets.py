"""The largest eigenvalues, algebraically or in magnitude, as what is wanted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from sparsehess.eigen.problem.factorization import Pivots
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.problem.solve_spec import SolveSpec
from sparsehess.eigen.solvers.krylov_schur import KrylovSchur
from sparsehess.eigen.solvers.spectrum_targets import LowestEstimate, ShiftedTarget, SpectrumTarget
from sparsehess.errors import InputError


class _UpperEnd(SpectrumTarget):
    """The upper end of the spectrum."""

    which = "largest"

    def distance(self, values: np.ndarray) -> np.ndarray:
        """Return (m,) numbers by which the wanted eigenvalues come first. Not collective."""
        return -values

    def shifts(self, edge: float) -> tuple[float, ...]:
        """Return where to count. Not collective."""
        return (-edge,)

    def inertia(self, counts: Sequence[Pivots]) -> int:
        """Return how many finite eigenvalues have a distance below the edge. Not collective."""
        return counts[0].positive

    def interval(self, edge: float) -> tuple[float, float]:
        """Return the interval that an edge stands for. Not collective."""
        return (-edge, np.inf)

    def find_outer_shifts(self, solver: KrylovSchur, found: np.ndarray) -> Iterator[float]:
        """Factorize at shifts outside of the spectrum from which the wanted eigenvalues are the nearest.

        Collective.
        """
        yield _shift_above(self.problem, solver, found)


class Largest(_UpperEnd):
    """The largest eigenvalues; the mass matrix is regular."""

    reason = "products alone: the largest converge first in a Krylov space"


class LargestFinite(_UpperEnd, ShiftedTarget):
    """The largest of the finite eigenvalues; the mass matrix is singular."""

    side = 1.0
    cluster_after = 6
    reason = "shift-and-invert just above the finite eigenvalues: the mass matrix is singular"

    def find_shift(self, solver: KrylovSchur, lowest: LowestEstimate) -> float:
        """Factorize at a shift from which the wanted eigenvalues are the nearest, and return it. Collective."""
        if self.problem.uncounted:
            self._refuse_singular_mass()
        return _shift_above(self.problem, solver, np.empty(0))


def _shift_above(problem: EigenProblem, solver: KrylovSchur, found: np.ndarray) -> float:
    """Factorize above all finite eigenvalues but those found, and return where. Collective."""
    shift = 2.0 * problem.scale or 1.0
    for _ in range(80):
        if solver.shift_to(shift).positive == np.count_nonzero(found > shift):
            return shift
        shift *= 4.0 if shift < 1e3 * problem.scale else 64.0
    raise InputError(f"no shift up to {shift:.3g} is above the finite eigenvalues")


class Magnitude(SpectrumTarget):
    """The largest eigenvalues in magnitude."""

    which = "magnitude"
    reason = "products alone: the largest in magnitude converge first in a Krylov space"

    def __init__(self, problem: EigenProblem, spec: SolveSpec):
        super().__init__(problem, spec)
        if problem.finite < problem.n:
            raise InputError(
                "which='magnitude' needs a mass matrix that is regular: its infinite eigenvalues are the largest"
            )

    def distance(self, values: np.ndarray) -> np.ndarray:
        """Return (m,) numbers by which the wanted eigenvalues come first. Not collective."""
        return -np.abs(values)

    def shifts(self, edge: float) -> tuple[float, ...]:
        """Return where to count; nowhere past zero, for all are within. Not collective."""
        return (edge, -edge) if edge < 0 else ()

    def inertia(self, counts: Sequence[Pivots]) -> int:
        """Return how many finite eigenvalues have a distance below the edge. Not collective."""
        return counts[0].negative + counts[1].positive if counts else self.problem.sought

    def interval(self, edge: float) -> tuple[float, float]:
        """Return the interval that an edge stands for. Not collective."""
        return (-edge, edge) if edge < 0 else (-np.inf, np.inf)

    def find_outer_shifts(self, solver: KrylovSchur, found: np.ndarray) -> Iterator[float]:
        """Factorize at shifts outside of the spectrum from which the wanted eigenvalues are the nearest.

        Collective.
        """
        yield _shift_above(self.problem, solver, found)
        shift = -2.0 * self.problem.scale or -1.0
        while solver.shift_to(shift).negative != np.count_nonzero(found < shift):
            shift *= 4.0
        yield shift
