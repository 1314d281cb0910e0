"""The parts of a spectrum that can be asked for: where to shift, where the edge is, how to count it.

A target orders eigenvalues by `distance`: the wanted ones are those of least distance. Its edge is a
distance past the last wanted pair that no eigenvalue lies near; its inertia counts those within.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from sparsehess.eigen.problem.factorization import Pivots
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.problem.solve_spec import SolveSpec
from sparsehess.eigen.solvers.krylov_schur import KrylovSchur
from sparsehess.errors import InputError

# Two eigenvalues closer than this, relative to themselves or to the largest, are one for a count:
# no eigenvalue is known better, and a factorization nearer to one has no sure signs.
_RELATIVE = 5e-10
_ROUNDING = 3e-13

# So far past the last eigenvalue found, relative to itself, a count is made where no further one is known; and up
# to so many times farther where that is not safe.
_BESIDE, _WIDEST = 1e-6, 1e3

# A count is safe whose margin is beyond this; see `KrylovSchur.margin`.
SAFE = 10.0

# A part of the size of eigenvalues that a gap must have where nothing else gives it a size.
_FLOOR = 1e-18

# Part of a target by which the distance of an eigenvalue to it is rounded.
_LAST_DIGITS = 4 * float(np.finfo(float).eps)
# Halvings by which the nearest eigenvalues are found, to this part of themselves.
_BISECTIONS, _NEAR = 60, 1e-3

# A lowest eigenvalue below zero is known well enough for a shift when it is known to this part of itself.
_ROUGH = 0.1


def separation(problem: EigenProblem, value: float) -> float:
    """Return the distance within which eigenvalues near a value are one to a count, as is to be expected.

    Not collective. What is found there tells it better; see `RitzPairs.blur`.
    """
    return max(_RELATIVE * abs(value), _ROUNDING * problem.scale)


class Counter(Protocol):
    """Counts eigenvalues on both sides of a shift."""

    def shift_to(self, shift: float) -> Pivots:
        """Return how many eigenvalues are below, at and above a shift. Collective."""

    def margin(self) -> float:
        """Return how safe the last count is; above 1 nothing that is known can change it. Collective."""


class LowestEstimate(Protocol):
    """Estimates the lowest eigenvalue."""

    def __call__(
        self, below: KrylovSchur | None = None, options: dict[str, None] | None = None
    ) -> tuple[float, float]:
        """Return the lowest eigenvalue, roughly, and how far it may be.

        Collective.

        Parameters
        ----------
        below
            A solver whose shift is below it; None to estimate by products.
        options
            PETSc options of the estimate by products.
        """


class Edge(NamedTuple):
    """Distances that stand for shifts of a count.

    Attributes
    ----------
    past
        Past all eigenvalues that were found and wanted.
    begin
        Before the last ones, which no count tells from each other.
    """

    past: float
    begin: float


class EdgeCount(NamedTuple):
    """How many eigenvalues an edge holds, and how safe that is; see `KrylovSchur.margin`."""

    inertia: int
    margin: float


class SpectrumTarget(ABC):
    """A part of the spectrum that can be asked for. Its methods are collective where they factorize.

    Attributes
    ----------
    which
        What solvers that take products alone are asked for.
    reason
        Why a problem is solved as it is.
    rounding
        Of distances, beside that of eigenvalues.
    """

    which: str
    reason: str
    rounding = 0.0

    def __init__(self, problem: EigenProblem, spec: SolveSpec):
        self.problem, self.spec = problem, spec

    @abstractmethod
    def distance(self, values: np.ndarray) -> np.ndarray:
        """Return (m,) numbers by which the wanted eigenvalues come first."""

    @abstractmethod
    def shifts(self, edge: float) -> tuple[float, ...]:
        """Return where to count for an edge."""

    @abstractmethod
    def inertia(self, counts: Sequence[Pivots]) -> int:
        """Return how many finite eigenvalues have a distance below an edge, from the counts at its shifts."""

    def count(self, counter: Counter, edge: float) -> EdgeCount:
        """Return how many finite eigenvalues have a distance below the edge, and how safe that is. Collective."""
        counts, margin = [], np.inf
        for shift in self.shifts(edge):
            counts.append(counter.shift_to(shift))
            margin = min(margin, counter.margin() if counts[-1].zero == 0 else 0.0)
        return EdgeCount(self.inertia(counts), margin)

    @abstractmethod
    def interval(self, edge: float) -> tuple[float, float]:
        """Return the interval that an edge stands for."""

    def find_outer_shifts(self, solver: KrylovSchur, found: np.ndarray) -> Iterator[float]:
        """Factorize at shifts outside of the spectrum but for what is found, the wanted eigenvalues the nearest.

        Collective. None where products are not what finds them.
        """
        return iter(())

    def nearest_first(self, values: np.ndarray) -> np.ndarray:
        """Return the order of the values by distance."""
        return np.argsort(self.distance(values), kind="stable")

    def holds(self, edge: float, value: float) -> bool:
        """Return whether a value is within the edge."""
        return bool(self.distance(np.array([value]))[0] < edge)

    def found(self, edge: float, values: np.ndarray) -> int:
        """Return how many values are within the edge."""
        return int(np.count_nonzero(self.distance(values) < edge))

    def edge(self, values: np.ndarray, blur: np.ndarray, k: int, wider: float = 1.0) -> Edge:
        """Return a distance past the k-th value that lies in a gap, and where the last group before it begins.

        In the first gap past the k-th where more than k were found; else just past the last one, by far more than
        its blur.

        Parameters
        ----------
        values, blur
            (m,) eigenvalues found, and the distances within which a count cannot tell others from them.
        k
            How many are wanted, at most m.
        wider
            So many times wider than otherwise a gap must be.
        """
        order = self.nearest_first(values)
        distance = self.distance(values)[order]
        least = wider * np.maximum(blur[order], max(_FLOOR * (self.problem.scale or 1.0), self.rounding))
        gap = np.diff(distance) > 4 * np.maximum(least[1:], least[:-1])
        past, before = np.flatnonzero(gap[k - 1 :]), np.flatnonzero(gap[: k - 1])
        first = before[-1] + 1 if len(before) else 0
        begin = float(distance[first] - 2 * least[first])
        if len(past):
            j = k - 1 + past[0]
            return Edge(float(0.5 * (distance[j] + distance[j + 1])), begin)
        beside = max(8 * float(least[-1]), min(wider, _WIDEST) * _BESIDE * abs(float(values[order[-1]])))
        return Edge(float(distance[-1]) + beside, begin)


class ShiftedTarget(SpectrumTarget):
    """A target whose eigenvalues shift-and-invert finds.

    Attributes
    ----------
    cluster_after
        Restarts after which a solve may stop for a shift nearer to a cluster, see `KrylovSchur.solve`; None where
        the shift stays.
    side
        Where the shift lies: -1 below all wanted eigenvalues, 1 above all, 0 among them.
    """

    cluster_after: int | None = None
    side: float = 0.0

    @abstractmethod
    def find_shift(self, solver: KrylovSchur, lowest: LowestEstimate) -> float:
        """Factorize at a shift from which the wanted eigenvalues are the nearest, and return it. Collective."""

    def shifts_past(self, found: np.ndarray, step: float) -> tuple[float, ...]:
        """Return where the wanted eigenvalues are the nearest that come after those found. Not collective."""
        past = float(self.distance(found).max()) + step if len(found) else step
        return (-self.side * past,)

    def bisect_nearest(self, solver: KrylovSchur) -> tuple[float, ...]:
        """Return shifts just short of the nearest eigenvalues, by counts; none where one lies at an end.

        Collective.
        """
        return ()

    def shift_below(self, found: np.ndarray, shift: float, solver: KrylovSchur) -> float | None:
        """Factorize below the eigenvalues found where one lies below the shift, which should not be; return where.

        Collective. None where the shift stays.
        """
        return None

    def _refuse_singular_mass(self) -> None:
        """Raise InputError where infinite eigenvalues hide on which side of all others a shift lies."""
        if self.problem.massless:
            raise InputError(
                f"an end of the spectrum needs a count where the mass matrix is singular: {self.problem.uncounted}"
                "; ask for a target or an interval"
            )


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
            if outer - inner <= _NEAR * max(min(map(abs, self.shifts(outer))), _ROUNDING * scale):
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


_ENDS: dict[str, type[SpectrumTarget]] = {
    "smallest": Smallest,
    "negative": Smallest,
    "largest": Largest,
    "magnitude": Magnitude,
}


def counted_target(problem: EigenProblem, spec: SolveSpec) -> SpectrumTarget:
    """Return the part of the spectrum that a spec asks for, to be counted by factorizations. Collective."""
    if spec.target is not None:
        return Nearest(problem, spec)
    if spec.which == "largest" and problem.massless:
        return LargestFinite(problem, spec)
    return _ENDS[spec.which](problem, spec)


def solved_target(problem: EigenProblem, spec: SolveSpec) -> SpectrumTarget:
    """Return the part of the spectrum that a spec asks for, to be solved for. Collective."""
    if spec.target is None and spec.which == "smallest" and problem.assembled and problem.uncounted:
        return SmallestByProducts(problem, spec)
    return counted_target(problem, spec)
