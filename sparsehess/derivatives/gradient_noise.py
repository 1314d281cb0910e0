"""How noisy a gradient is, and over which distances it bends: from gradients at a few points of a line.

Every variable moves along the line by its own typical length. Rows in which the near and the far points contradict
each other have variables with other lengths than that; a gradient that does not change at all near x has a grain.
Then lengths, or the distance of the near points, are changed, and the line is looked at again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from mpi4py import MPI

import numpy as np

from sparsehess.derivatives.evaluations import Evaluations
from sparsehess.derivatives.gradient_line import NEAR, Line
from sparsehess.derivatives.scales import Scales
from sparsehess.errors import CheckError, EvaluationError
from sparsehess.runtime import agreement
from sparsehess.runtime.citations import cite

# Wider distances of the near points, where nothing changes.
_WIDER = 1e-3, 3e-2

# Lengths that are too long or too short, by an unknown factor, are divided or multiplied by this; so often at most.
_SHORTER = 30.0
_LONGER = 30.0
_ROUNDS = 8

# An x below this part of the others may be the rounding of zero.
_ROUNDED = 1e-15

# Lengths are no less than so many spacings of floating-point numbers.
_SPACINGS = 1e6

# There this part of a component's change is noise that comes from the digits of x.
_COARSE = 1e-9

# What remains the same changes by no more than this part of it.
_STEADY = 0.3

# No steps are made for less noise than rounding makes, though sums may be exact by chance; and curvature is not
# trusted to last longer than this many typical lengths.
_EPS = float(np.finfo(float).eps)
_LEAST_NOISE = 0.01 * _EPS
_FARTHEST = 10.0

# Logarithms of what changes along one line vary by this much by chance, where rows are alike; and none is taken to
# be less than this part of the mean.
_CHANCE, _SHARE = 1.2, 0.5

# Noise of this part of a component is the rounding of what it sums, and a change of no more than that part of it, in
# a typical length, none.
_ROUNDING_OF_SUMS, _SHARE_OF_CONSTANTS = 1e-10, 1e-3

# A single row that bends sharply does not decide over the others.
_SHARPEST = 3.0

_STILL = "it does not change at all near x, as if x were rounded before it is used"

_ARRAYS = ("length", "level", "slope", "moves", "bend")

# Noise below this part of a component's change in a typical length is rounding in double precision.
ROUNDING = 1e-12


@dataclass(frozen=True, eq=False)
class Noise:
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
        return np.maximum(self.level / self.slope, _EPS)

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

    Collective. Costs 7 gradients, and 6 each time that lengths are changed.

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
    scales = replace(scales, length=np.maximum(told, _SPACINGS * np.spacing(np.abs(scales.x))))
    beside = (scales.room > 0) & (scales.room < scales.length)
    free, scales = scales.length, replace(scales, length=np.where(beside, scales.room, scales.length))
    line, scales = _first_line(evaluations, scales)
    line, scales, flat, kinked = _settle(evaluations, scales, line)
    if not scales.given:
        line, scales = _lengthen(evaluations, scales, line)
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
            evaluations, kinked, "has a kink at x in variable {}: its slope jumps there, so that there is no Hessian; "
            "move x, or smooth the function"
        )  # fmt: skip
    return noise


def _check_digits(evaluations: Evaluations, noise: Noise) -> None:
    """Raise CheckError where x has too few digits for its typical lengths, and that shows. Not collective."""
    coarse = noise.length <= _SPACINGS * np.spacing(np.abs(evaluations.x))
    worst = np.flatnonzero(coarse & (noise.relative > _COARSE))
    if len(worst):
        i, x = worst[0], evaluations.x[worst[0]]
        raise CheckError(
            f"variable {evaluations.layout.start + i} of {evaluations.objective.name} is {x:g}, where double "
            f"precision steps by {np.spacing(abs(x)):.1e}: too coarse for the distance over which the gradient "
            "changes; shift or scale the variable, or tell typical_x"
        )


def _refuse(evaluations: Evaluations, rows: np.ndarray, words: str) -> None:
    """Raise CheckError for the first of some rows (n_local,). Not collective."""
    if rows.any():
        variable = evaluations.layout.start + int(np.flatnonzero(rows)[0])
        raise CheckError(f"the gradient of {evaluations.objective.name} {words.format(variable)}")


def _first_line(evaluations: Evaluations, scales: Scales) -> tuple[Line, Scales]:
    """Return a line on which the gradient exists; where it does not, lengths are shortened first. Collective."""
    x, here = np.abs(evaluations.x), None
    for last in (False, False, True):
        try:
            return Line.look(evaluations, scales, here), scales
        except (CheckError, EvaluationError):
            if last:
                raise
            here = evaluations.gradients([evaluations.x])[0]  # where it fails at x, that is told
            beside = (x > 0) & (x < scales.length)
            some = evaluations.comm.allreduce(bool(beside.any()), op=MPI.LOR)
            scales = replace(scales, length=np.where(beside, x, scales.length / (1.0 if some else _SHORTER)))
    raise AssertionError("the last try returns or raises")


def _settle(evaluations: Evaluations, scales: Scales, line: Line) -> tuple[Line, Scales, np.ndarray, np.ndarray]:
    """Return a line whose rows are straight or noisy, the lengths, and which rows are flat or have a kink at x.

    Collective. A row that bends, or whose noise is none, may belong to a variable of a shorter length: |x|, or a thirtieth of
    it. If its slope still falls towards x however short the line, the Hessian is zero there, whatever the length;
    if what is no noise falls in proportion to the length, the slope jumps at x.
    """
    comm, x = evaluations.comm, np.abs(evaluations.x)
    rounded = _ROUNDED * np.sqrt(comm.allreduce(float(x @ x)) / max(line.n, 1))
    first, tried = scales.length, np.zeros(len(x), bool)
    flat, kinked, wider, before = tried.copy(), tried.copy(), list(_WIDER), np.full(len(x), np.inf)
    jumps = np.zeros((2, len(x)))
    for _ in range(_ROUNDS):
        if line.stands_still() and wider:
            line = Line.look(evaluations, scales, line.here, wider.pop(0))
            continue
        if line.near > NEAR:
            break  # shorter lengths than the grain show nothing
        bent = line.bent(scales.length) & ~flat
        if comm.allreduce(bool((bent & ~line.apart).any()), op=MPI.LOR):
            line = line.beside(evaluations, scales)
            bent = line.bent(scales.length) & ~flat
        finer = line.finer(evaluations, scales)
        jump = np.where(finer, line.own / scales.length, 0.0)
        kinked = line.jumps & (jumps > 0).all(axis=0) & (np.abs(jumps - jump) < _STEADY * jump).all(axis=0)
        jumps = np.stack([jumps[1], jump])
        change = np.abs(line.slopes[1]) + line.bend / line.far
        vanishing = bent & tried & line.flat & (change < 0.2 * before)
        flat |= vanishing
        before, shorter = change, (bent | finer) & ~flat & ~kinked
        length = np.where(vanishing, first, scales.length)
        beside = (x > rounded) & (x < 0.5 * length)
        length = np.where(shorter, np.where(beside, x, length / _SHORTER), length)
        length = np.maximum(length, _SPACINGS * np.spacing(x))
        tried |= shorter
        if not comm.allreduce(bool((length != scales.length).any()), op=MPI.LOR):
            break
        scales = replace(scales, length=length)
        line = Line.look(evaluations, scales, line.here, line.near)
    return line, scales, flat, kinked


def _lengthen(evaluations: Evaluations, scales: Scales, line: Line) -> tuple[Line, Scales]:
    """Return the line with longer lengths, up to |x|, where rows did not show above the noise. Collective.

    No farther than they need to show: what a function does over shorter distances is noise on a longer line.
    """
    x, comm = np.abs(evaluations.x), evaluations.comm
    for _ in range(_ROUNDS):
        longest = np.minimum(x, np.maximum(scales.room, scales.length))
        lost = ~line.visible & (longest > 3 * scales.length)
        if not comm.allreduce(bool(lost.any()), op=MPI.LOR):
            break
        length = np.where(lost, np.minimum(_LONGER * scales.length, longest), scales.length)
        longer = replace(scales, length=length)
        try:
            again = Line.look(evaluations, longer, line.here, line.near)
        except (CheckError, EvaluationError):
            break  # so far the function does not reach
        worse = again.bent(longer.length) & ~line.bent(scales.length) & ~lost
        if comm.allreduce(bool(worse.any()), op=MPI.LOR):
            break
        line, scales = again, longer
    return line, scales


def _describe(evaluations: Evaluations, scales: Scales, line: Line, flat: np.ndarray) -> Noise:
    """Return what the line says of the noise. Collective."""
    comm = evaluations.comm
    steep = line.change / (line.far * line.spread)
    curved = line.bend / (line.far * line.spread) ** 2  # by how much a row changes within a typical length
    steep = np.where(flat, np.maximum(steep, curved), steep)
    slope = np.maximum(steep, _least(steep, comm))
    level = np.maximum(line.level, _LEAST_NOISE * slope)
    sharp = curved / slope
    sums = np.array([(np.minimum(sharp, _SHARPEST) ** 2)[~flat].sum(), float((line.bend > 0).sum())])
    comm.Allreduce(MPI.IN_PLACE, sums)
    measured = bool(sums[1])
    sharp = np.sqrt(0.5 * (sharp**2 + sums[0] / max(line.n, 1)))
    bend = np.ones(len(slope))
    if measured:
        bend = 1.0 / np.maximum(sharp, 1.0 / _FARTHEST)
    bend = np.where(flat, line.far, bend)
    # What does not show above rounding is none, beside the component itself.
    none = (steep == 0) | (~line.visible & (level <= _ROUNDING_OF_SUMS * np.abs(line.here)))
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
