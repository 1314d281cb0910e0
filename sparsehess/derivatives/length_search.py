"""Over which distance each variable changes the gradient: a search along a line through x.

Every variable moves along the line by its own typical length. Rows in which the near and the far points contradict
each other have variables with other lengths than that; a gradient that does not change at all near x has a grain.
Then lengths, or the distance of the near points, are changed, and the line is looked at again.
"""

from __future__ import annotations

from dataclasses import replace

from mpi4py import MPI

import numpy as np

from sparsehess.derivatives.evaluations import Evaluations
from sparsehess.derivatives.gradient_line import NEAR, Line
from sparsehess.derivatives.scales import Scales
from sparsehess.errors import CheckError, EvaluationError

# Wider distances of the near points, where nothing changes.
_WIDER = 1e-3, 3e-2

# Lengths that are too long or too short are divided or multiplied by this, so often at most.
_FACTOR = 30.0
_ROUNDS = 8

# Lengths that are given are too long by no more than this, unless x itself is nearer to zero.
_LEAST = 1e-3

# An x below this part of the others, or of a length that is given, may be the rounding of zero.
_ROUNDED, _ROUNDED_OF_GIVEN = 1e-15, 1e-10

# Lengths are no less than so many spacings of floating-point numbers.
SPACINGS = 1e6

# What remains the same changes by no more than this part of it.
_STEADY = 0.3


def first_line(evaluations: Evaluations, scales: Scales) -> tuple[Line, Scales]:
    """Return a line on which the gradient is finite; where it is not, lengths are shortened first.

    Collective. What is not finite once, and then is at the same points, is an error of the function.
    """
    x = np.abs(evaluations.x)
    try:
        return Line.look(evaluations, scales), scales
    except CheckError as error:
        failure = error
    here = evaluations.gradients([evaluations.x])[0]  # where it is not finite at x, that is told
    again = _try_line(evaluations, scales, here)
    if again is not None:
        raise failure
    for _ in range(2):
        beside = (x > 0) & (x < scales.length)
        some = evaluations.comm.allreduce(bool(beside.any()), op=MPI.LOR)
        scales = replace(scales, length=np.where(beside, x, scales.length / (1.0 if some else _FACTOR)))
        again = _try_line(evaluations, scales, here)
        if again is not None:
            return again, scales
    raise failure


def _try_line(evaluations: Evaluations, scales: Scales, here: np.ndarray) -> Line | None:
    """Return a line, None where the gradient is not finite on it. Collective."""
    try:
        return Line.look(evaluations, scales, here)
    except CheckError:
        return None


def settle(evaluations: Evaluations, scales: Scales, line: Line) -> tuple[Line, Scales, np.ndarray, np.ndarray]:
    """Return a line whose rows are straight or noisy, the lengths, and which rows are flat or have a kink at x.

    Collective. A row that bends, or whose noise is none, may belong to a variable of a shorter length: |x|, or a
    thirtieth of it, down to a thousandth of one that is given: a row that hardly changes at x, as that of an atom
    across the plane in which all lie, may bend over however short a distance. If its slope still falls towards x
    however short the line, the Hessian is zero there, whatever the length; if what is no noise falls in proportion
    to the length, the slope jumps at x.
    """
    comm, x = evaluations.comm, np.abs(evaluations.x)
    rounded = _ROUNDED * np.sqrt(comm.allreduce(float(x @ x)) / max(line.n, 1))
    first, tried, least = scales.length, np.zeros(len(x), bool), np.zeros(len(x))
    if scales.given:
        rounded, least = np.maximum(rounded, _ROUNDED_OF_GIVEN * first), _LEAST * first
    flat, kinked, wider, before = tried.copy(), tried.copy(), list(_WIDER), np.full(len(x), np.inf)
    jumps = np.zeros(len(x))
    for _ in range(_ROUNDS):
        if line.stands_still() and wider:
            line = Line.look(evaluations, scales, line.here, wider.pop(0))
            continue
        if line.near > NEAR:
            break  # shorter lengths than the grain show nothing
        bent = line.bent(scales.length, tried) & ~flat
        if comm.allreduce(bool((bent & ~line.apart).any()), op=MPI.LOR):
            line = line.beside(evaluations, scales)
            bent = line.bent(scales.length, tried) & ~flat
        finer = line.finer(evaluations, scales)
        jump = np.where(finer & line.jumps, line.own / scales.length, 0.0)
        kinked = (jumps > 0) & (np.abs(jumps - jump) < _STEADY * jump)
        jumps = jump
        change = np.abs(line.slopes[1]) + line.bend / line.far
        vanishing = bent & tried & line.flat & (change < 0.2 * before)
        flat |= vanishing
        before, shorter = change, (bent | finer) & ~flat & ~kinked
        length = np.where(vanishing, first, scales.length)
        beside = (x > rounded) & (x < 0.5 * length)
        length = np.where(shorter, np.where(beside, x, np.maximum(length / _FACTOR, least)), length)
        length = np.maximum(length, SPACINGS * np.spacing(x))
        tried |= shorter
        if not comm.allreduce(bool((length != scales.length).any()), op=MPI.LOR):
            break
        scales = replace(scales, length=length)
        line = Line.look(evaluations, scales, line.here, line.near)
    return line, scales, flat, kinked


def lengthen(evaluations: Evaluations, scales: Scales, line: Line) -> tuple[Line, Scales]:
    """Return the line with longer lengths, up to |x|, where rows did not show above the noise. Collective.

    No farther than they need to show: what a function does over shorter distances is noise on a longer line.
    """
    x, comm = np.abs(evaluations.x), evaluations.comm
    never = np.zeros(len(x), bool)
    for _ in range(_ROUNDS):
        longest = np.minimum(x, np.maximum(scales.room, scales.length))
        lost = ~line.visible & (longest > 3 * scales.length)
        if not comm.allreduce(bool(lost.any()), op=MPI.LOR):
            break
        length = np.where(lost, np.minimum(_FACTOR * scales.length, longest), scales.length)
        longer = replace(scales, length=length)
        try:
            again = Line.look(evaluations, longer, line.here, line.near)
        except (CheckError, EvaluationError):
            break  # so far the function does not reach
        worse = again.bent(longer.length, never) & ~line.bent(scales.length, never) & ~lost
        if comm.allreduce(bool(worse.any()), op=MPI.LOR):
            break
        line, scales = again, longer
    return line, scales
