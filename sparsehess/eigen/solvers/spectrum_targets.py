"""The parts of a spectrum that can be asked for: where to shift, where the edge is, how to count it.

A window orders eigenvalues by `distance`: the wanted ones are those of least distance. Its edge is a
distance past the last wanted pair that no eigenvalue lies near; its inertia counts those within.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.problem.spectrum import SolveSpec
from sparsehess.eigen.solvers.krylov_schur import KrylovSchur
from sparsehess.errors import InputError

# Two eigenvalues closer than this, relative to themselves or to the largest, are one for a count:
# no eigenvalue is known better, and a factorization nearer to one has no sure signs.
_RELATIVE = 5e-10
_ROUNDING = 3e-13

# A lowest eigenvalue below zero is known well enough for a shift when it is known to this part of itself.
_ROUGH = 0.1


def separation(problem: EigenProblem, value: float) -> float:
    """Return the distance within which eigenvalues near a value are one to a count. Not collective."""
    return max(_RELATIVE * abs(value), _ROUNDING * problem.scale)


class Window(ABC):
    """One way to ask. Subclasses say distance and count.

    Those that invert also have `find_shift(solver, lowest)`, collective: factorize at a shift from
    which the wanted eigenvalues are the nearest, and return it.
    """

    inverts = True  # solved by shift-and-invert; else by products
    direct = ""  # what SLEPc is asked for with products
    nears_clusters = False  # whether a shift too far from a cluster is moved
    may_lie_within = False  # whether a shift may turn out to lie among the wanted ones
    roughly: tuple[
        str, ...
    ] = ()  # PETSc options, flags, of the solve by products that tells where the spectrum begins
    reason = ""

    def __init__(self, problem: EigenProblem, spec: SolveSpec):
        self.problem, self.spec = problem, spec

    @abstractmethod
    def distance(self, values: np.ndarray) -> np.ndarray:
        """Return (m,) numbers by which the wanted eigenvalues come first."""

    @abstractmethod
    def inertia(self, solver: KrylovSchur, edge: float) -> int:
        """Return how many finite eigenvalues have a distance below the edge. Collective."""

    @abstractmethod
    def reported(self, edge: float) -> tuple[float, float]:
        """Return the interval that an edge stands for."""

    def _refuse_singular_mass(self) -> None:
        """Raise InputError where infinite eigenvalues hide on which side of all others a shift lies."""
        if self.problem.finite < self.problem.n:
            raise InputError(
                f"an end of the spectrum needs a count where the mass matrix is singular: {self.problem.uncounted}"
                "; ask for a target or an interval"
            )

    # --- the same for all ---

    def nearest_first(self, values: np.ndarray) -> np.ndarray:
        """Return the order of the values by distance."""
        return np.argsort(self.distance(values), kind="stable")

    def holds(self, edge: float, value: float) -> bool:
        """Return whether a value is within the edge."""
        return bool(self.distance(np.array([value]))[0] < edge)

    def found(self, edge: float, values: np.ndarray) -> int:
        """Return how many values are within the edge."""
        return int(np.count_nonzero(self.distance(values) < edge))

    def edge(self, values: np.ndarray, k: int, wider: float = 1.0) -> float:
        """Return a distance past the k-th value that lies in a gap.

        In the first gap past the k-th where more than k were found. Else, just before the group of
        equal values that the k-th belongs to: the count then covers all before that group, and a
        value missed within the group equals those that are there.
        """
        order = self.nearest_first(values)
        distance, size = self.distance(values)[order], np.abs(values[order])
        least = wider * np.maximum(_RELATIVE * size, _ROUNDING * self.problem.scale)
        gap = np.diff(distance) > 4 * np.maximum(least[1:], least[:-1])
        past = np.flatnonzero(gap[k - 1 :])
        if len(past):
            j = k - 1 + past[0]
            return float(0.5 * (distance[j] + distance[j + 1]))
        before = np.flatnonzero(gap[: k - 1])
        first = before[-1] + 1 if len(before) else 0
        return float(distance[first] - 2 * least[first])


class Smallest(Window):
    direct = "smallest"
    nears_clusters = True
    reason = "shift-and-invert just below the spectrum: the smallest converge in few solves"

    def distance(self, values):
        return values

    def find_shift(self, solver, lowest):
        problem = self.problem
        shift = -max(1e-10 * problem.typical, 2e-13 * problem.scale) or -1.0
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

    def inertia(self, solver, edge):
        return solver.shift_to(edge)[0]

    def reported(self, edge):
        return (-np.inf, edge)


class SmallestByProducts(Smallest):
    """The smallest where no factorization counts: products tell where the spectrum begins.

    They do so to a part of the norm. Where that leaves the sign of the lowest eigenvalue open, a shift that is
    surely below it tells it to working accuracy. Should one be found below the shift all the same, it is moved
    `below` that.
    """

    nears_clusters = False
    may_lie_within = True
    roughly = ("eps_conv_norm",)

    def find_shift(self, solver, lowest):
        self._refuse_singular_mass()
        value, error = lowest()
        at_zero = -max(1e-10 * self.problem.typical, 2e-13 * self.problem.scale) or -1.0
        if value - 2 * error <= 0 and 2 * error > _ROUGH * abs(value):
            self._regular(value - 2 * error + at_zero, solver)
            value, error = lowest(solver)
        shift = at_zero if value >= 0 else min(at_zero, value - max(2 * error, 1e-3 * abs(value)))
        return self._regular(shift, solver)

    def below(self, low: float, solver: KrylovSchur) -> float:
        """Factorize at a shift below the lowest eigenvalue found, and return it. Collective."""
        return self._regular(low - max(1e-3 * abs(low), 2e-13 * self.problem.scale), solver)

    def _regular(self, shift: float, solver: KrylovSchur) -> float:
        for _ in range(20):
            if solver.shift_to(shift)[1] == 0:
                return shift
            shift -= max(1e-3 * abs(shift), 1e-12 * self.problem.scale)
        raise InputError(f"the factorization is singular at {shift:.6g} and nearby")


class Largest(Window):
    direct = "largest"
    reason = "products alone: the largest converge first in a Krylov space"

    def __init__(self, problem, spec):
        super().__init__(problem, spec)
        if problem.finite < problem.n:
            self.inverts = True
            self.reason = "shift-and-invert just above the finite eigenvalues: the mass matrix is singular"
        else:
            self.inverts = False

    def distance(self, values):
        return -values

    def find_shift(self, solver, lowest):
        if self.problem.uncounted:
            self._refuse_singular_mass()
        shift = self.problem.scale or 1.0
        for _ in range(40):
            if self._above(solver, shift) == 0:
                return shift
            shift *= 10
        raise InputError(f"no shift up to {shift:.3g} is above the finite eigenvalues")

    def _above(self, solver: KrylovSchur, shift: float) -> int:
        return solver.shift_to(shift)[2] - (self.problem.n - self.problem.finite)

    def inertia(self, solver, edge):
        return self._above(solver, -edge)

    def reported(self, edge):
        return (-edge, np.inf)


class Magnitude(Window):
    inverts = False
    direct = "magnitude"
    reason = "products alone: the largest in magnitude converge first in a Krylov space"

    def __init__(self, problem, spec):
        super().__init__(problem, spec)
        if problem.finite < problem.n:
            raise InputError(
                "which='magnitude' needs a mass matrix without zero rows: its infinite eigenvalues are the largest"
            )

    def distance(self, values):
        return -np.abs(values)

    def inertia(self, solver, edge):
        within = solver.shift_to(-edge)[0] - solver.shift_to(edge)[0]
        return self.problem.n - within

    def reported(self, edge):
        return (edge, -edge)


class Nearest(Window):
    direct = "nearest"
    reason = "shift-and-invert at the target"

    def distance(self, values):
        return np.abs(values - self.spec.target)

    def find_shift(self, solver, lowest):
        target, step = self.spec.target, max(1e-9 * abs(self.spec.target), 1e-11 * self.problem.scale)
        for rung in range(6):
            shift = target - step * (10.0**rung - 1)
            if solver.shift_to(shift)[1] == 0:
                return shift
        raise InputError(f"target={target}: the factorization is singular there and nearby; choose another")

    def inertia(self, solver, edge):
        target = self.spec.target
        return solver.shift_to(target + edge)[0] - solver.shift_to(target - edge)[0]

    def reported(self, edge):
        return (self.spec.target - edge, self.spec.target + edge)


WINDOWS = {
    "smallest": Smallest,
    "negative": Smallest,
    "largest": Largest,
    "magnitude": Magnitude,
    "nearest": Nearest,
}


def window_of(problem: EigenProblem, spec: SolveSpec) -> Window:
    """Return the window of a spec. Collective."""
    name = "nearest" if spec.target is not None else spec.which
    if name == "smallest" and problem.assembled and problem.uncounted:
        return SmallestByProducts(problem, spec)
    return WINDOWS[name](problem, spec)
