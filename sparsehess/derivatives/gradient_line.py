"""Gradients at seven points of a line through x, and what each row of them says by itself.

Differences of the k-th order of equally spaced values fall with k as long as they show the function,
and grow with k once they show its noise (Hamming 1973, chapter 6; Moré and Wild 2011, section 3).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from math import factorial

from mpi4py import MPI

import numpy as np

from sparsehess.derivatives.evaluations import Evaluations
from sparsehess.derivatives.grain import Grain, find_grain
from sparsehess.derivatives.scales import Scales
from sparsehess.errors import CheckError, InputError
from sparsehess.runtime.random_numbers import draw_signed

_SEED = 20110309

# Where the near points lie, in their distance.
_TO_BOTH, _TO_ONE_SIDE = (-2, -1, 0, 1, 2), (0, 1, 2, 3, 4)

# Distance of neighbouring near points, in typical lengths; the far ones' at least and at most, and in those.
NEAR = 1e-5
_FAR = 1e-3, 3e-2
_FARTHEST = 0.3  # where nothing changes nearer
_APART = 6.0

# Values are seen to change by so many standard deviations, which are known from few values, and otherwise than in
# proportion by so many; and by so many of the last digits.
_VISIBLE, _SURE = 10.0, 30.0
_DIGITS = 16.0

# A row is straight if it bends by no more of its change, and if near and far slopes differ by no more.
_BENT, _UNEQUAL, _STILL_BENT = 0.5, 0.3, 0.05

# More noise than this part of a component's change in a typical length may be a function on a shorter one. At a
# distance of so many typical lengths, and of this part of x, that changes less than this part of the noise.
NOISY, _TINY, _BESIDE, _STILL = 1e-11, 1e-11, 1e-6, 1e-3
_FARTHER = 1e3

# Differences of two orders agree on the noise if they say no more than this many times as much.
_AGREE = 10.0

# Squares of values between these are numbers.
_TINIEST, _HUGE = 1e-120, 1e120

# Distances, in typical lengths, at which a component changes at last that does not nearer.
_STUCK = 0.03, 0.3

# Slopes may differ by this part, and by the square of so many distances, where a component is smooth, as near
# values tell by what is left of them; they are the same if they differ by this part of what another one does.
_CURVED, _CURVES, _SAME_SLOPE, _SMOOTH = 0.01, 10.0, 0.1, 1e-4

# A third derivative is taken to be so many times that along a line.
_ALONE = 2.0

# The mean of log |z| for a normal z.
_MEAN_LOG = -0.635

# The rounding of a component is no less than this part of its last digit, even where it is exact by chance.
_LEAST = 0.1 * float(np.finfo(float).eps)


@dataclass(frozen=True, eq=False)
class Line:
    """Gradients at five points very near x, x among them, and at two that are farther.

    They lie to both sides of x; where a variable is at a bound, all to one side.

    Attributes
    ----------
    comm, n
        All ranks, and how many rows there are on them.
    near, far, spread
        Distances in typical lengths, and the root mean square of the direction in them.
    table
        (5, n_local) gradients at the near points.
    here
        (n_local,) gradient at x.
    ahead, middle, behind
        (n_local,) gradients at the far points and x, in the order in which they lie on the line.
    change
        (n_local,) by how much a component changes up to far points: those of this line, or also of another one.
    farthest
        (n_local,) the step from x to the point that is ahead.
    """

    comm: MPI.Comm
    n: int
    near: float
    far: float
    spread: float
    table: np.ndarray
    here: np.ndarray
    ahead: np.ndarray
    middle: np.ndarray
    behind: np.ndarray
    change: np.ndarray
    farthest: np.ndarray

    @classmethod
    def look(
        cls, evaluations: Evaluations, scales: Scales, here: np.ndarray | None = None, near: float = NEAR
    ) -> Line:
        """Evaluate the gradients.

        Collective. Costs 7 gradients, or 6 where that at x is known.

        Parameters
        ----------
        here
            (n_local,) gradient at x.
        near
            Distance of neighbouring near points, in typical lengths.

        Raises
        ------
        CheckError, EvaluationError
            The gradient is not finite, or too large, or the user's function raised.
        """
        layout, comm, x = evaluations.layout, evaluations.comm, evaluations.x
        inward, room = scales.inward
        one_sided = bool(comm.allreduce(bool(inward.any()), op=MPI.LOR))
        offsets = _TO_ONE_SIDE if one_sided else _TO_BOTH
        shape = draw_signed(layout, _SEED)
        shape = np.where(inward == 0, shape, inward * np.abs(shape))
        farthest = 0.25 * room  # of two steps
        step = np.clip(near * shape * scales.length, -0.5 * farthest, 0.5 * farthest)
        # Exact in floating point: where the points are not is no noise of the function.
        grain = np.spacing(np.abs(x) + len(offsets) * np.abs(step))
        step = np.rint(step / grain) * grain
        table = evaluations.gradients([x + k * step for k in offsets if k or here is None])
        if here is not None:
            table = np.insert(table, offsets.index(0), here, axis=0)
        # As far as the noise asks for, the mean of the logarithms telling of rows in any units.
        mean = geometric_mean(np.abs(table[-1] - table[0]) / (len(offsets) - 1), comm)
        noise = geometric_mean(_noise_of(table), comm) / (mean or np.inf) * near
        far = max(min(max(_FAR[0], 10 * np.sqrt(noise)), _FAR[1]), _APART * near) if mean else _FARTHEST
        way = np.clip(far * shape * scales.length, -farthest, farthest)
        here = table[offsets.index(0)]
        if one_sided:
            behind, (middle, ahead) = here, evaluations.gradients([x + way, x + 2 * way])
            way = 2 * way
        else:
            middle, (behind, ahead) = here, evaluations.gradients([x - way, x + way])
        _check_size(evaluations, here, table, ahead, middle, behind)
        spread = float(np.sqrt(comm.allreduce(float(shape @ shape)) / max(layout.n, 1)))
        change = np.abs(0.5 * (ahead - behind))
        return cls(comm, layout.n, near, far, spread, table, here, ahead, middle, behind, change, way)

    def beside(self, evaluations: Evaluations, scales: Scales) -> Line:
        """Return the line with changes up to the far points of another one as well.

        Collective. Costs 2 gradients. A row's change along one line may be small by chance.
        """
        first, _ = _pair(evaluations, scales, self.far * draw_signed(evaluations.layout, _SEED + 1), self.here)
        return replace(self, change=np.maximum(self.change, np.abs(first)))

    def bends_within(self, evaluations: Evaluations, scales: Scales, some: np.ndarray) -> np.ndarray:
        """Return (n_local,) bool: of some variables, those that bend within a quarter of their lengths.

        Collective. Costs 2 gradients, some variables moving alone.
        """
        first, second = _pair(evaluations, scales, 0.25 * draw_signed(evaluations.layout, _SEED) * some, self.here)
        return some & (np.abs(second) > np.maximum(_BENT / 4 * np.abs(first), _VISIBLE * self.level))

    def lags(self, evaluations: Evaluations, scales: Scales) -> np.ndarray:
        """Return (n_local,) bool: components a part of which changes by steps, as if it were rounded, or kept.

        Collective. Costs a gradient if near and far slopes differ anywhere: beside the point that is ahead. Where
        the slope is there what it is at x, but not between the two, something has jumped.
        """
        near, far = self.slopes
        typical = geometric_mean(self.change * scales.length, self.comm) / scales.length / self.far
        largest = np.maximum.reduce([np.abs(near), np.abs(far), typical])
        allowed = (_CURVED + (_CURVES * self.far) ** 2) * largest
        smooth = self.own < _SMOOTH * np.abs(near) * self.near
        apart = self.visible & smooth & (np.abs(near - far) > allowed + self._blur)
        if not self.comm.allreduce(bool(apart.any()), op=MPI.LOR):
            return apart
        part = self.near / self.far
        beside = evaluations.gradients([evaluations.x + (1 - part) * self.farthest])[0]
        one_sided = 2.0 if self.middle is not self.here else 1.0
        slope = (self.ahead - beside) / (one_sided * self.near)
        return apart & (np.abs(slope - near) < _SAME_SLOPE * np.minimum(np.abs(far - near), np.abs(near)))

    def stuck(self, evaluations: Evaluations, scales: Scales, still: np.ndarray) -> np.ndarray:
        """Return (n_local,) bool: of some components that do not change, those that are rounded, or whose x is.

        Collective. Costs 4 gradients if there are any, their variables moving alone. What is rounded changes at
        last, and then again not between two points close together; a contact that closes changes there too.
        """
        if not self.comm.allreduce(bool(still.any()), op=MPI.LOR):
            return still
        inward, room = scales.inward
        shape = draw_signed(evaluations.layout, _SEED) * still
        way = np.where(inward == 0, shape, inward * np.abs(shape)) * scales.length
        parts = [part * (1 + twin) for part in _STUCK for twin in (0.0, NEAR)]
        points = [evaluations.x + np.clip(part * way, -0.5 * room, 0.5 * room) for part in parts]
        values = evaluations.gradients(points)
        found = np.zeros(len(still), bool)
        for first, second in zip(values[::2], values[1::2], strict=True):
            found |= (first != self.here) & (first == second)
        return still & found

    def finer(self, evaluations: Evaluations, scales: Scales) -> np.ndarray:
        """Return (n_local,) bool: components whose noise is none, but a function on a shorter length.

        Collective. Costs a gradient, if any has more noise than rounding makes: at a point so near that only noise
        would change it, as much as at the near points.
        """
        x = evaluations.x
        noisy = self.own > NOISY * np.maximum(np.abs(self.slopes[0]), self.change / self.far)
        if not self.comm.allreduce(bool(noisy.any()), op=MPI.LOR):
            return noisy
        part = np.where(x != 0, _BESIDE * np.abs(x), np.inf)
        step = np.maximum(np.minimum(_TINY * scales.length, part), 4 * np.spacing(np.abs(x)))
        inward, room = scales.inward
        sign = draw_signed(evaluations.layout, _SEED)
        step = np.where(inward == 0, step * sign, step * inward)
        found = np.zeros(len(x), bool)
        for times in (1.0, _FARTHER):  # where rounding hides the change
            change = np.abs(
                evaluations.gradients([x + np.clip(times * step, -0.5 * room, 0.5 * room)])[0] - self.here
            )
            found |= noisy & (change > 0) & (change < _STILL * self.own)
            hidden = noisy & (change == 0)
            if not self.comm.allreduce(bool(hidden.any()), op=MPI.LOR):
                break
        # So many rows of noise change so little by chance.
        sums = self.comm.allreduce(np.array([int(noisy.sum()), int(found.sum())]))
        chance = 2 * _STILL * sums[0]
        return found & (sums[1] > chance + 3 * np.sqrt(chance))

    @cached_property
    def own(self) -> np.ndarray:
        """(n_local,) noise of each component, from its own differences alone: of one degree of freedom."""
        return _noise_of(self.table)

    @cached_property
    def grain(self) -> Grain:
        """Rounding that the values show. Collective the first time."""
        return find_grain(np.vstack([self.table, self.ahead, self.middle, self.behind]), self.comm)

    @cached_property
    def level(self) -> np.ndarray:
        """(n_local,) standard deviation of the noise of each component. Collective the first time.

        What a row's few differences say is halved with what all say together: noise that is the same everywhere,
        or in proportion to the component, or to its change, whichever fits the rows best.
        """
        rounding = np.maximum(_LEAST * np.abs(self.here), self.grain.level)
        if self.near > NEAR:
            return np.maximum(self._coarse, np.maximum(self.own, rounding))
        own = np.maximum(self.own, rounding)
        typical, best, most = rounding, np.inf, 0
        for size in (np.ones(len(own)), np.abs(self.here), np.abs(self.first)):
            there = (own > 0) & (size > 0)
            logs = np.log(own[there] / size[there])
            sums = np.array([len(logs), logs.sum(), (logs**2).sum()])
            self.comm.Allreduce(MPI.IN_PLACE, sums)
            many, total, squares = sums.tolist()
            if many < 0.8 * most or not many:
                continue  # that says nothing of too many rows
            most = max(most, many)
            scatter = squares / many - (total / many) ** 2
            if scatter < best:
                best, typical = scatter, np.exp(total / many - _MEAN_LOG) * size
        return np.sqrt(0.5 * (own**2 + typical**2))

    @property
    def _coarse(self) -> np.ndarray:
        """(n_local,) noise where values have a grain as coarse as their changes. Collective.

        The same part of the change in every row, for those too in which it has not shown; and half of what should
        have been seen to change, and was not.
        """
        change = np.abs(self.first)
        parts = np.divide(self.own, change, out=np.zeros_like(change), where=change > 0)
        sums = np.array([np.minimum(parts, 1.0) @ np.minimum(parts, 1.0), float(np.count_nonzero(change))])
        self.comm.Allreduce(MPI.IN_PLACE, sums)
        hidden = np.where(self._still, 0.5 * self.near * np.abs(self.slopes[1]), 0.0)
        return np.maximum(np.sqrt(sums[0] / max(sums[1], 1.0)) * change, hidden)

    @cached_property
    def first(self) -> np.ndarray:
        """(n_local,) change of the gradient from x to the far points."""
        return 0.5 * (self.ahead - self.behind)

    @cached_property
    def second(self) -> np.ndarray:
        """(n_local,) second difference over the far points."""
        return self.ahead - 2 * self.middle + self.behind

    @cached_property
    def slopes(self) -> tuple[np.ndarray, np.ndarray]:
        """(near, far) changes (n_local,) of the gradient over one typical length, along the line."""
        return (self.table[-1] - self.table[0]) / ((len(self.table) - 1) * self.near), self.first / self.far

    @cached_property
    def bend(self) -> np.ndarray:
        """(n_local,) size of the second difference that noise does not explain. Collective the first time."""
        return np.sqrt(np.maximum(self.second**2 - 24 * self.level**2, 0.0))  # its variance is that of six values

    @property
    def thirds(self) -> np.ndarray:
        """(n_local,) third derivatives along the line, in typical lengths, as far as slopes show them.

        Collective the first time. By how much near and far slopes differ, which noise does not explain; those of a
        variable alone may be larger than where others move with it.
        """
        near, far = self.slopes
        apart = np.abs(near - far)
        return np.where(apart > self._blur, _ALONE * 6 * apart / (self.far**2 * self.spread**3), 0.0)

    @property
    def visible(self) -> np.ndarray:
        """(n_local,) bool: components that are seen to change up to the far points. Collective the first time."""
        return np.maximum(np.abs(self.first), 0.5 * self.bend) > _VISIBLE * self.level

    @property
    def jumps(self) -> np.ndarray:
        """(n_local,) bool: components whose second difference doubles with the distance: their slope jumps at x.

        That of what is smooth grows fourfold. Not where all points are to one side of x.
        """
        if self.table[2] is not self.here and not np.array_equal(self.table[2], self.here):
            return np.zeros(len(self.here), bool)
        near, far = (self.table[2 + k] - 2 * self.here + self.table[2 - k] for k in (1, 2))
        return (near != 0) & (np.abs(far - 2 * near) < 0.02 * np.abs(far))

    @property
    def apart(self) -> np.ndarray:
        """(n_local,) bool: components whose near and far slopes differ. Collective the first time."""
        near, far = self.slopes
        return np.abs(near - far) > _UNEQUAL * np.maximum(np.abs(near), np.abs(far)) + self._blur

    def bent(self, length: np.ndarray, tried: np.ndarray) -> np.ndarray:
        """Return (n_local,) bool: components that change, and not in proportion.

        Collective. In units of energy, from lengths (n_local,), a row bends if it bends more than others change;
        one the length of which was too long before, if it does not bend much less than it changes.
        """
        typical = geometric_mean(self.change * length, self.comm) / length
        least = np.where(tried, _STILL_BENT * self.change, _BENT * np.maximum(self.change, typical))
        bent = self.bend > np.maximum(least, _SURE * self.level)
        return self.visible & (bent | self.apart)

    @property
    def flat(self) -> np.ndarray:
        """(n_local,) bool: components that change farther away, and hardly at x. Collective the first time."""
        near, far = self.slopes
        return np.abs(near) <= 0.01 * np.maximum(np.abs(far), self.bend / self.far) + self._blur

    @property
    def _blur(self) -> np.ndarray:
        """(n_local,) what noise makes of the near slopes."""
        return _SURE * self.level / ((len(self.table) - 1) * self.near)

    @property
    def _still(self) -> np.ndarray:
        """(n_local,) bool: components that do not change at all near x."""
        return (self.table == self.here).all(axis=0)

    def moves(self) -> bool:
        """Return whether any component is other than zero anywhere. Collective."""
        values = (self.table, self.ahead, self.behind)
        return bool(self.comm.allreduce(any(bool(one.any()) for one in values), op=MPI.LOR))

    def stands_still(self) -> bool:
        """Return whether most components do not change at all near x, although they should.

        Collective. By what they change farther away.
        """
        still = self._still
        digits = np.spacing(np.abs(self.here))
        expected = np.maximum(np.abs(self.first), np.abs(self.second)) * (self.near / self.far) > _DIGITS * digits
        sums = np.array([expected.sum(), (expected & still).sum()])
        self.comm.Allreduce(MPI.IN_PLACE, sums)
        return bool(2 * sums[1] > sums[0])


def _check_size(evaluations: Evaluations, here: np.ndarray, *others: np.ndarray) -> None:
    """Raise where values are too large or too small for their squares to be numbers. Collective."""
    comm, name = evaluations.comm, evaluations.objective.name
    largest = np.array([float(np.abs(values).max(initial=0.0)) for values in (here, *others)])
    comm.Allreduce(MPI.IN_PLACE, largest, op=MPI.MAX)
    if largest[0] > _HUGE or 0 < largest.max() < _TINIEST:
        raise InputError(f"the gradient of {name} is of the size {largest.max():.0e}: choose other units for it")
    if not largest.max() < _HUGE:
        raise CheckError(f"the gradient of {name} overflows beside x")


def _pair(
    evaluations: Evaluations, scales: Scales, shape: np.ndarray, here: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return (n_local,) half the first and the second difference along a direction, in lengths. Collective."""
    way = scales.inside(shape * scales.length)
    ahead, behind = evaluations.gradients([evaluations.x + way, evaluations.x - way])
    return 0.5 * (ahead - behind), ahead - 2 * here + behind


def geometric_mean(values: np.ndarray, comm: MPI.Comm) -> float:
    """Return the geometric mean of the values above 0 on all ranks, 0 where there are none. Collective."""
    logs = np.log(values[values > 0])
    sums = np.array([float(len(logs)), logs.sum()])
    comm.Allreduce(MPI.IN_PLACE, sums)
    return float(np.exp(sums[1] / sums[0])) if sums[0] else 0.0


def _noise_of(table: np.ndarray) -> np.ndarray:
    """Return (n_local,) what the differences of the highest order say of the noise.

    Those of the order before say it twice more, where they agree with it: then they show no function any more.
    """
    order = len(table) - 1

    def squares(k: int) -> np.ndarray:
        return np.mean(np.diff(table, k, axis=0) ** 2, axis=0) * factorial(k) ** 2 / factorial(2 * k)

    last, before = squares(order), squares(order - 1)
    return np.sqrt(np.where(before <= _AGREE**2 * last, 0.5 * (last + before), last))
