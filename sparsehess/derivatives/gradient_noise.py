"""How noisy a gradient is, and over which distances it bends: from gradients at a few points of a line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from mpi4py import MPI

import numpy as np

from sparsehess.derivatives.evaluations import Evaluations
from sparsehess.derivatives.gradient_line import NEAR, Line
from sparsehess.derivatives.length_search import SPACINGS, first_line, lengthen, settle
from sparsehess.derivatives.scales import Scales
from sparsehess.errors import CheckError
from sparsehess.runtime import agreement
from sparsehess.runtime.citations import cite
from sparsehess.runtime.short_repr import ShortRepr

# A variable is beside a bound that is nearer than this part of its length.
_BESIDE_BOUND = 0.1

# There this part of a component's change is noise that comes from the digits of x.
_COARSE = 1e-9

# And more than this part is not that of digits of x, however short the length.
_OF_DIGITS = 2 / SPACINGS

# No steps are made for less noise than rounding makes, though sums may be exact by chance; and curvature is not
# trusted to last longer than this many typical lengths.
_EPS = float(np.finfo(float).eps)
_LEAST_NOISE = 0.01 * _EPS
_FARTHEST = 10.0

# Logarithms of what changes along one line vary by this much by chance, where rows are alike; and none is taken to
# be less than this part of the mean.
_CHANCE, _SHARE = 1.2, 0.5

# Noise of this part of a component is the rounding of what it sums; a change of this part, in a typical length, is
# little.
_ROUNDING_OF_SUMS, _SHARE_OF_CONSTANTS = 1e-10, 1e-3

# A single row that bends sharply, or is seen to bend clearly, does not decide over the others.
_SHARPEST, _SEEN = 30.0, 1e3

_STILL = "it does not change at all near x, as if x were rounded before it is used"

_ARRAYS = ("length", "level", "slope", "moves", "bend")

# Noise below this part of a component's change in a typical length is rounding in double precision.
ROUNDING = 1e-12


@dataclass(frozen=True, eq=False, repr=False)
class Noise(ShortRepr):
    """What a few gradients tell of all others near x.

    Attributes
    ----------
    length
        (n_local,) typical lengths of the variables.
    level
        (n_local,) standard deviation of the noise of each component of the gradient.
    slope
        (n_local,) by how much the component changes within a typical length; above 0.
    moves
        (n_local,) 1 where it was seen to change at x, 0 where it does not, or changes farther away only.
    bend
        (n_local,) the length over which a row of the Hessian changes by its own size, in typical lengths; 1 where
        noise hides it.
    measured
        Whether any bend was seen.
    grain
        What the values look like, for messages: "rounded to 3 decimals"; empty where they have all their digits.
    lasting
        Whether it holds at other points nearby: at this one every component changes.
    """

    length: np.ndarray
    level: np.ndarray
    slope: np.ndarray
    moves: np.ndarray
    bend: np.ndarray
    measured: bool
    grain: str = ""
    lasting: bool = True

    @property
    def relative(self) -> np.ndarray:
        """(n_local,) the noise over the change of the component within a typical length."""
        return np.maximum(self.level / self.slope, 2 * _EPS)  # of the terms that a component sums, no less

    def described(self) -> tuple[dict, dict[str, np.ndarray]]:
        """Return (facts, arrays) that the same can be made of again. Not collective."""
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        return {"measured": self.measured, "grain": self.grain, "lasting": self.lasting}, arrays

    @classmethod
    def restored(cls, facts: dict[str, Any], rows: Callable[[str], np.ndarray]) -> Noise:
        """Return what was described; rows(name) returns the (n_local,) array of that name. Not collective."""
        length, level, slope, moves, bend = map(rows, _ARRAYS)
        return cls(length, level, slope, moves, bend, **facts)


def estimate_noise(evaluations: Evaluations, scales: Scales) -> Noise:
    """Return the noise of the gradient around the point of the evaluations, and the lengths of the variables.

    Collective. Costs 7 gradients, and 6 each time that lengths are changed; one or two more where there is noise,
    two where a row bends more than others change, four where one never changes, and one where slopes differ.

    Parameters
    ----------
    scales
        Lengths to begin with. Those of variables whose rows bend within them are shortened. Those of variables
        whose rows do not show above the noise are lengthened to |x|, unless the user gave them.

    Raises
    ------
    CheckError, EvaluationError
        The gradient is not finite, or the user's function raised, at x or however near to it.
    """
    cite("noise")
    told = scales.length
    scales = replace(scales, length=np.maximum(told, SPACINGS * np.spacing(np.abs(scales.x))))
    beside = (scales.room > 0) & (scales.room < _BESIDE_BOUND * scales.length)
    free, scales = scales.length, replace(scales, length=np.where(beside, scales.room, scales.length))
    line, scales = first_line(evaluations, scales)
    if evaluations.objective.gradient is None and not line.moves():
        raise CheckError(
            f"the energy of {evaluations.objective.name} changes nowhere near x, neither by the steps that its "
            "gradient is taken by nor farther away: it is a constant, or rounded; compute it with all its digits"
        )
    lags = line.lags(evaluations, scales)
    line, scales, flat, kinked = settle(evaluations, scales, line)
    if not scales.given:
        line, scales = lengthen(evaluations, scales, line)
    if evaluations.comm.allreduce(bool(beside.any()), op=MPI.LOR):
        # A function that does not bend beside its bound goes on to the other side.
        beside &= ~line.bends_within(evaluations, scales, beside)
        scales = replace(scales, length=np.where(beside, free, scales.length))
    noise = _describe(evaluations, scales, line, flat)
    longest = replace(scales, length=np.maximum(scales.length, told))
    stuck = line.stuck(evaluations, longest, (noise.moves == 0) & ~flat)
    with agreement(evaluations.comm):
        _check_digits(evaluations, noise)
        _refuse(
            evaluations, stuck, "changes by steps at variable {}, and not between them: it is rounded there, or x "
            "before it is used; compute both with all their digits"
        )  # fmt: skip
        _refuse(
            evaluations, lags & ~beside & (line.near == NEAR), "has a part that changes by steps in variable {}: "
            "it is rounded, or kept from call to call; compute all of it anew, with all its digits"
        )  # fmt: skip
        _refuse(
            evaluations, kinked, "has a kink at x in variable {}: its slope jumps there, and it has no Hessian; "
            "move x, or smooth the function"
        )  # fmt: skip
    return noise


def _check_digits(evaluations: Evaluations, noise: Noise) -> None:
    """Raise CheckError where x has too few digits for its typical lengths, and that shows. Not collective."""
    coarse = noise.length <= SPACINGS * np.spacing(np.abs(evaluations.x))
    worst = np.flatnonzero(coarse & (noise.relative > _COARSE))
    if len(worst):
        i, x, name = worst[0], evaluations.x[worst[0]], evaluations.objective.name
        variable = evaluations.layout.start + i
        if noise.relative[i] > _OF_DIGITS:
            raise CheckError(
                f"the gradient of {name} is noisy at variable {variable}, by {noise.level[i]:.1e} or so, and "
                "nothing else shows however short the step: make it converge further, give it more digits, or "
                "tell typical_x, lengths over which more changes"
            )
        raise CheckError(
            f"variable {variable} of {name} is {x:g}, where double "
            f"precision steps by {np.spacing(abs(x)):.1e}: too coarse for the distance over which the gradient "
            "changes; shift or scale the variable, or tell typical_x"
        )


def _refuse(evaluations: Evaluations, rows: np.ndarray, words: str) -> None:
    """Raise CheckError for the first of some rows (n_local,). Not collective."""
    if rows.any():
        variable = evaluations.layout.start + int(np.flatnonzero(rows)[0])
        raise CheckError(f"the gradient of {evaluations.objective.name} {words.format(variable)}")


def _describe(evaluations: Evaluations, scales: Scales, line: Line, flat: np.ndarray) -> Noise:
    """Return what the line says of the noise. Collective."""
    comm = evaluations.comm
    steep = line.change / (line.far * line.spread)
    curved = line.bend / (line.far * line.spread) ** 2  # by how much a row changes within a typical length
    steep = np.where(flat, np.maximum(steep, curved), steep)
    slope = np.maximum(steep, _least(steep, comm))
    level = np.maximum(line.level, _LEAST_NOISE * slope)
    sharp = curved / slope
    seen = np.divide(line.second, level, out=np.zeros_like(level), where=level > 0) ** 2
    sums = np.array([(np.minimum(sharp, _SHARPEST) ** 2)[~flat].sum(), np.minimum(seen, _SEEN**2).sum()])
    comm.Allreduce(MPI.IN_PLACE, sums)
    measured = bool(sums[1] > 4 * 6 * line.n)  # three values add up to the variance of six
    sharp = np.sqrt(0.5 * (sharp**2 + sums[0] / max(line.n, 1)))
    bend = np.ones(len(slope))
    if measured:
        bend = 1.0 / np.maximum(sharp, 1.0 / _FARTHEST)
    # What is odd about x, as across the plane of a molecule, shows in no second difference.
    odd = line.thirds
    bend = np.minimum(bend, np.sqrt(np.divide(slope, odd, out=np.full(len(odd), np.inf), where=odd > 0)))
    bend = np.where(flat, line.far, bend)
    # What does not show above rounding is none, beside the component itself.
    none = ((steep == 0) | ~line.visible) & (line.level <= _ROUNDING_OF_SUMS * np.abs(line.here))
    still = (line.change == 0) & (line.bend == 0) & (line.second == 0)
    none |= still & (line.grain.level == 0)  # the level is in part that of other rows; what is rounded may move
    slope = np.where(none, np.maximum(slope, _SHARE_OF_CONSTANTS * np.abs(line.here)), slope)
    moves = np.where(flat | none, 0.0, 1.0)
    noise = Noise(scales.length, level, slope, moves, bend, measured)
    noisy = comm.allreduce(float(noise.relative.sum())) / max(line.n, 1) > ROUNDING
    grain = line.grain.sentence or (_STILL if line.near > NEAR else "")
    dead = not comm.allreduce(bool(moves.all()), op=MPI.LAND)
    return replace(noise, grain=grain if noisy else "", lasting=not dead)


def _least(steep: np.ndarray, comm: MPI.Comm) -> float:
    """Return what the change of no row is taken to be less than. Collective.

    A row's change along one line may be small by chance. Half the mean where rows vary no more than by chance; and
    less by two standard deviations of how much more they do.
    """
    logs = np.log(steep[steep > 0])
    sums = np.array([float(len(logs)), logs.sum(), logs @ logs])
    comm.Allreduce(MPI.IN_PLACE, sums)
    many, total, squares = sums.tolist()
    if not many:
        return 1.0
    mean = total / many
    more = max(squares / many - mean**2 - _CHANCE, 0.0)
    return float(max(_SHARE * np.exp(mean - 2 * np.sqrt(more)), np.finfo(float).tiny))
