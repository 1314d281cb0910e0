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
from sparsehess.eigen.problem.rayleigh_ritz import RitzPairs
from sparsehess.eigen.problem.solve_spec import SolveSpec
from sparsehess.eigen.solvers.krylov_schur import KrylovSchur
from sparsehess.eigen.solvers.pairs_across import MOST
from sparsehess.errors import InputError

# Two eigenvalues closer than this, relative to themselves or to the largest, are one for a count:
# no eigenvalue is known better, and a factorization nearer to one has no sure signs.
_RELATIVE = 5e-10
ROUNDING = 3e-13

# So far past the last eigenvalue found, relative to itself, a count is made where no further one is known; and up
# to so many times farther where that is not safe.
_BESIDE, _WIDEST = 1e-6, 1e3

# A count is safe whose margin is beyond this; see `KrylovSchur.margin`.
SAFE = 10.0

# Places are told apart by the inverse of sinh of them over this part of a middle eigenvalue: to a factor above it.
# The steps and halvings by which the next eigenvalues are found, to within so much.
_UNIT, _HALVINGS, _NEAR = 1e-3, 40, 0.5

# A part of the size of eigenvalues that a gap must have where nothing else gives it a size.
_FLOOR = 1e-18


def separation(problem: EigenProblem, value: float) -> float:
    """Return the distance within which eigenvalues near a value are one to a count, as is to be expected.

    Not collective. What is found there tells it better; see `RitzPairs.blur`.
    """
    return max(_RELATIVE * abs(value), ROUNDING * problem.scale)


class Counter(Protocol):
    """Counts eigenvalues on both sides of a shift.

    Attributes
    ----------
    shift
        Of the last factorization; None where there is none.
    """

    shift: float | None

    def shift_to(self, shift: float) -> Pivots:
        """Return how many eigenvalues are below, at and above a shift. Collective."""

    def margin(self) -> float:
        """Return how safe the last count is; above 1 nothing that is known can change it. Collective."""

    def across(self, pairs: RitzPairs, inside: np.ndarray) -> float:
        """Return how much of some pairs may lie beyond the last shift; see `pairs_across`. Collective."""


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
    """How many eigenvalues an edge holds, and how safe that is; see `KrylovSchur.margin`.

    Attributes
    ----------
    inertia, margin
        The count, and its margin.
    across
        How much of the pairs found inside may lie beyond the edge, see `pairs_across`; infinite where it is not
        measured.
    of
        Their values.
    """

    inertia: int
    margin: float
    across: float = np.inf
    of: np.ndarray | None = None

    @property
    def safe(self) -> bool:
        """Whether neither rounding nor the error bars of pairs carry one across the edge. Not collective."""
        return bool(self.margin > SAFE and self.across < MOST)


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

    def count(self, counter: Counter, edge: float, pairs: RitzPairs | None = None) -> EdgeCount:
        """Return how many finite eigenvalues have a distance below the edge, and how safe that is. Collective."""
        counts, margin, across = [], np.inf, []
        inside = None if pairs is None else self.distance(pairs.values) < edge
        for shift in self.shifts(edge):
            counts.append(counter.shift_to(shift))
            margin = min(margin, counter.margin() if counts[-1].zero == 0 else 0.0)
            if pairs is not None and inside is not None:
                across.append(counter.across(pairs, inside) if counts[-1].zero == 0 else np.inf)
        if pairs is None:
            return EdgeCount(self.inertia(counts), margin)
        return EdgeCount(self.inertia(counts), margin, float(np.linalg.norm(across)), pairs.values)

    def edge_at(self, shift: float) -> float | None:
        """Return the edge for which one count, at this shift, is enough; None where there is none."""
        return None

    def least(self, blur: np.ndarray) -> np.ndarray:
        """Return (m,) the distances within which no count tells others from the values of this blur."""
        return np.maximum(blur, max(_FLOOR * (self.problem.scale or 1.0), self.rounding))

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
        least = wider * self.least(blur[order])
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

    def shift_past_gap(self, found: np.ndarray, solver: KrylovSchur) -> float | None:
        """Return where what comes after the pairs found begins, by counts; None where that is not far from them.

        Collective. Just short of it, and past all that was found. From before a few that are far out, all others
        look alike.
        """
        if not self.side or not len(found):
            return None

        def holds_more(place: float) -> bool | None:
            counts = [solver.shift_to(shift) for shift in self.shifts(float(np.sinh(place)) * unit)]
            inertia = self.inertia(counts)
            return None if inertia < len(found) or counts[0].zero else inertia > len(found)

        unit = _UNIT * (self.problem.scale or 1.0)
        last = float(self.distance(found).max())
        first = inner = float(np.arcsinh((last + 8 * separation(self.problem, last)) / unit))
        if holds_more(inner) is not False:
            return None
        step, outer = _NEAR, np.inf
        for _ in range(_HALVINGS):
            place = inner + step if outer == np.inf else 0.5 * (inner + outer)
            if holds_more(place) is False:
                inner, step = place, 2 * step
            else:
                outer = place
            if outer - inner <= _NEAR:
                break
        shift = self.shifts(float(np.sinh(inner)) * unit)[0]
        if inner == first or outer == np.inf or holds_more(inner) is not False:
            return None
        return shift

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
