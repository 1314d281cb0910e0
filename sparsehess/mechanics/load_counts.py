"""How many load factors there are in a range, in both directions of the load, by inertia and its margins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sparsehess.eigen.problem.count import finite_or_none
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.problem.rayleigh_ritz import rayleigh_ritz
from sparsehess.eigen.problem.solve_spec import SolveSpec
from sparsehess.eigen.solvers.counts import compare_with_count, count_past
from sparsehess.eigen.solvers.krylov_schur import KrylovSchur
from sparsehess.eigen.solvers.spectrum_targets import SAFE
from sparsehess.eigen.solvers.target_choice import counted_target
from sparsehess.errors import CheckError
from sparsehess.runtime import destroy
from sparsehess.runtime.short_repr import ShortRepr

# Inverse load factors, over their middle size, beyond which all are counted where no range is asked for: the first
# one that a count with a margin allows. Where few are far above that size, rounding of those is too.
_FAR = 10.0 ** np.arange(-10, 13)


@dataclass(frozen=True, repr=False)
class LoadCount(ShortRepr):
    """An inertia count of load factors against those found.

    *Not collective*; the same on every rank.

    Attributes
    ----------
    low, high
        The range: load factors λ with low < λ < high, zero left out. Of `which="positive"` and `"negative"` the
        other direction is counted in the same range, and not solved for.
    positive, negative
        How many load factors of (0, high) and of (low, 0) the inertia counts; None where the pivots do not tell
        them apart.
    found
        How many of them the solver has, of the directions that were asked for.
    counted
        How many there are of the directions that were asked for.
    certified
        Whether no load factor of those directions nearer to zero than the last one returned is missing: counted
        and found agree, or what is not returned is as far from zero as the last one to a millionth; and the
        margin is above 10.
    margin
        Distance of the ends to the nearest eigenvalue, over how far the measured backward error of the
        factorizations can move it; the least of those of the directions that were asked for.
    opposite_margin
        That of the count in the other direction, where one was asked for; else None.
    group
        How many load factors as far from zero as the last one, to a millionth, are counted and not returned.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> with sh.buckling(np.diag([1.0, 1.0]), np.diag([-0.5, 0.25]), 1) as found:
    ...     print(found.count.positive, found.count.negative, found.count.certified)
    1 0 True
    """

    low: float
    high: float
    positive: int | None
    negative: int | None
    found: int
    counted: int
    certified: bool
    margin: float | None
    opposite_margin: float | None = None
    group: int = 0

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        yield self.in_short

    @property
    def in_short(self) -> str:
        """The verdict in words."""
        place = f"in ({self.low:.6g}, {self.high:.6g})"
        if self.certified:
            return f"certified {place}"
        return f"NOT certified: {self.found} of {self.counted} {place}"

    def facts(self) -> dict[str, Any]:
        """Return the count as JSON. Not collective."""
        return {
            "interval": [finite_or_none(self.low), finite_or_none(self.high)],
            **{name: getattr(self, name) for name in ("positive", "negative", "found", "counted", "certified")},
            **{name: getattr(self, name) for name in ("margin", "opposite_margin", "group")},
        }


@dataclass(frozen=True)
class Range:
    """Counts of ν above `above` and below `-below`, of a problem in the caller's units.

    Attributes
    ----------
    above, below
        Ends, of size.
    ahead, behind
        How many ν are above the one, and below the other.
    margins
        Of the two counts.
    """

    above: float
    below: float
    ahead: int
    behind: int
    margins: tuple[float, float]


def count_range(problem: EigenProblem, above: float, below: float) -> Range:
    """Count ν above `above` and below `-below`, ends of the caller's units. Collective."""
    scaled, power = problem.equilibrated, problem.scales.power
    counter = KrylovSchur(scaled, True, {}, tol=1e-8)
    try:
        ahead = counter.shift_to(float(np.ldexp(above, -power)))
        first = counter.margin() if ahead.zero == 0 else 0.0
        behind = counter.shift_to(-float(np.ldexp(below, -power)))
        second = counter.margin() if behind.zero == 0 else 0.0
    finally:
        counter.close()
    return Range(above, below, ahead.positive, behind.negative, (first, second))


def count_far(problem: EigenProblem) -> Range:
    """Count all ν but those that are hardly to be told from zero. Collective."""
    size = problem.scale or 1.0
    found = count_range(problem, _FAR[0] * size, _FAR[0] * size)
    for part in _FAR[1:]:
        if min(found.margins) > SAFE:
            break
        nearer = count_range(problem, part * size, part * size)
        if nearer.ahead + nearer.behind == 0:
            break  # past them all, and nothing is left to be told
        found = nearer
    return found


def count_found(
    problem: EigenProblem, spec: SolveSpec, vectors: list, wanted: int, shift: float, sign: int
) -> LoadCount:
    """Count past the last of some eigenvectors, the wanted ones of largest ν, in both directions. Collective.

    Parameters
    ----------
    spec
        Which ν are wanted: `magnitude` or `largest`.
    vectors
        Those of the problem in the caller's units; they stay as they are.
    shift, sign
        λ = shift + sign / ν.

    Raises
    ------
    CheckError
        The vectors are those of no eigenvalue.
    """
    scaled, power = problem.equilibrated, problem.scales.power
    both = spec.which == "magnitude"
    pairs = rayleigh_ritz(scaled, problem.scale_vectors(vectors))
    if not pairs.vectors:
        raise CheckError(
            "no load factor that was found can be told from rounding: the matrix that resists is singular to "
            "almost the last digits of its entries; hold what moves freely, as on determinate supports"
        )
    target = counted_target(scaled, spec.scaled(-power))
    counter = KrylovSchur(scaled, True, {}, tol=1e-8)
    try:
        edge, counted = count_past(target, pairs, wanted, counter)
        end = -edge.past  # of ν, above zero; where all are found it may be any number
        opposite, ahead, behind = None, counted.inertia, None
        if both and end > 0:
            ahead = counter.shift_to(end).positive  # the factors are at hand
            behind = counted.inertia - ahead
        elif both:
            ahead = int(np.count_nonzero(pairs.values > 0))
            behind = counted.inertia - ahead
        elif end > 0:
            others = counter.shift_to(-end)
            behind, opposite = others.negative, counter.margin() if others.zero == 0 else 0.0
        count = compare_with_count(target, pairs, wanted, counter, past=(edge, counted))
    finally:
        counter.close()
        destroy(*pairs.vectors)
    reach = 1 / float(np.ldexp(end, power)) if end > 0 else np.inf
    told = LoadCount(
        low=sign * shift - reach,
        high=sign * shift + reach,
        positive=ahead,
        negative=behind,
        found=count.found,
        counted=count.inertia,
        certified=count.certified and end > 0,
        margin=count.margin,
        opposite_margin=opposite,
        group=count.group,
    )
    return told if sign > 0 else mirrored(told)


def count_of_range(counted: Range, found: int, both: bool, shift: float, sign: int) -> LoadCount:
    """Return what a range says where all in it were to be found. Not collective."""
    there = counted.ahead + (counted.behind if both else 0)
    margin = min(counted.margins) if both else counted.margins[0]
    told = LoadCount(
        low=sign * shift - 1 / counted.below,
        high=sign * shift + 1 / counted.above,
        positive=counted.ahead,
        negative=counted.behind,
        found=found,
        counted=there,
        certified=bool(found == there and margin > SAFE),
        margin=margin,
        opposite_margin=None if both else counted.margins[1],
    )
    return told if sign > 0 else mirrored(told)


def without_tipped(count: LoadCount, tipped: int, shift: float, both: bool, sign: int) -> LoadCount:
    """Return the count without load factors zero, which lie below a positive shift. Not collective."""
    if not tipped:
        return count
    taken = {"negative": count.negative, "positive": count.positive}
    side = "negative" if shift > 0 else "positive"
    many = taken[side]
    told = replace(count, **{side: None if many is None else many - tipped})  # type: ignore[arg-type]
    if both or (side == "positive") == (sign > 0):
        return replace(told, found=count.found - tipped, counted=count.counted - tipped)
    return told


def mirrored(count: LoadCount) -> LoadCount:
    """Return the count of the load in the other direction. Not collective."""
    return replace(count, low=-count.high, high=-count.low, positive=count.negative, negative=count.positive)
