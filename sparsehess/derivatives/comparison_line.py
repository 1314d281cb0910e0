"""A line through x along which functions of an objective are compared, and what is evaluated on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property

from mpi4py import MPI

import numpy as np

from sparsehess.derivatives.evaluations import Evaluations
from sparsehess.derivatives.objective import Objective
from sparsehess.derivatives.scales import Scales
from sparsehess.derivatives.step_series import (
    FIRST,
    LONGEST,
    RATIO,
)
from sparsehess.runtime import PETSc, agreement
from sparsehess.runtime.random_numbers import draw_signed

_SEED = 76185

# Noise of products shows at so many points beside x, no farther apart than this. What is more than this part of
# the largest product, as an energy, is no noise of last digits: a wrong function may jump from point to point.
_BESIDE, _APART, _DIGITS = 6, 2.0**-13, 3e-5

_EPS, _EPS_SINGLE = float(np.finfo(np.float64).eps), float(np.finfo(np.float32).eps)


@dataclass(frozen=True, eq=False)
class ComparisonLine:
    """Points x + h up and x - h down, and what is evaluated there.

    Attributes
    ----------
    evaluations
        At x.
    scales
        Around x.
    up, down
        (n_local,) `down` is 0 where bounds leave no room to both sides.
    seed
        Of the direction.
    spent
        Calls of the user's functions by others on the way here.
    """

    evaluations: Evaluations
    scales: Scales
    up: np.ndarray
    down: np.ndarray
    seed: int
    spent: list[int] = field(default_factory=lambda: [0])
    _gradients: dict[float, np.ndarray] = field(default_factory=dict)
    _energies: dict[float, np.ndarray] = field(default_factory=dict)

    @classmethod
    def through(cls, objective: Objective, x: np.ndarray | PETSc.Vec, seed: int) -> ComparisonLine:
        """Return a line through x in a random direction. Collective."""
        evaluations = Evaluations(objective, x)
        scales = Scales.of(evaluations)
        with agreement(evaluations.comm):
            scales.check_room(evaluations.layout)
        return cls._along(evaluations, scales, seed, [0])

    @classmethod
    def _along(cls, evaluations: Evaluations, scales: Scales, seed: int, spent: list[int]) -> ComparisonLine:
        up, down = _sides(scales, draw_signed(evaluations.layout, _SEED + seed))
        return cls(evaluations, scales, up, down, seed, spent)

    @property
    def comm(self) -> MPI.Comm:
        """Of all ranks."""
        return self.evaluations.comm

    @property
    def calls(self) -> int:
        """How many calls of the user's functions so far. Not collective."""
        return self.spent[0] + sum(self.evaluations.counts.values())

    @cached_property
    def symmetric(self) -> ComparisonLine:
        """The line on which variables that have room to one side alone stay. Collective the first time."""
        both = self.down == self.up
        if self.comm.allreduce(bool(both.all()), op=MPI.LAND):
            return self
        steps = np.where(both, self.up, 0.0)
        return replace(self, up=steps, down=steps, _gradients={}, _energies={})

    def relative(self) -> ComparisonLine | None:
        """Return a line of steps relative to each variable, None where those are much the same. Collective."""
        x, length = np.abs(self.scales.x), self.scales.length
        own = np.where(x > 0, x, length)
        apart = bool((np.maximum(own / length, length / own) > RATIO).any())
        if not self.comm.allreduce(apart, op=MPI.LOR):
            return None
        return self._along(self.evaluations, replace(self.scales, length=own), self.seed + 1, self.spent)

    @contextmanager
    def moved(self, step: float) -> Iterator[ComparisonLine]:
        """Give a line in another direction about x + step up. Collective."""
        x = np.clip(self.scales.x + step * self.up, self.scales.lower, self.scales.upper)
        with self.evaluations.at(x) as evaluations:
            yield self._along(evaluations, replace(self.scales, x=x), self.seed + 2, self.spent)
            self.spent[0] += sum(evaluations.counts.values())

    def points(self, h: float) -> tuple[np.ndarray, np.ndarray]:
        """Return x + h up and x - h down. Not collective."""
        x, lower, upper = self.scales.x, self.scales.lower, self.scales.upper
        return np.clip(x + h * self.up, lower, upper), np.clip(x - h * self.down, lower, upper)

    def taken(self, h: float) -> np.ndarray:
        """Return (n_local,) the way from one point to the other. Not collective."""
        ahead, behind = self.points(h)
        return ahead - behind

    def gradients(self, h: float) -> np.ndarray:
        """Return (2, n_local) the gradients at the two points. Collective."""
        if h not in self._gradients:
            self._gradients[h] = self.evaluations.gradients(list(self.points(h)))
        return self._gradients[h]

    def energies(self, h: float) -> np.ndarray:
        """Return (2,) the energies at the two points. Collective."""
        if h not in self._energies:
            self._energies[h] = self.evaluations.energies(list(self.points(h)))
        return self._energies[h]

    def energy_here(self) -> float:
        """Return the energy at x. Collective."""
        if 0.0 not in self._energies:
            self._energies[0.0] = self.evaluations.energies([self.scales.x])
        return float(self._energies[0.0][0])

    def product(self, name: str, direction: np.ndarray) -> np.ndarray:
        """Return (n_local,) the product by the function of this name. Collective."""
        return self.evaluations.along(direction[None], by=name)[0]

    def product_noise(self, name: str, h: float) -> np.ndarray:
        """Return (n_local,) the noise of the product by this function along the whole line.

        Collective. By six more products with the same direction, at points no farther than h up: what a smooth
        function makes of them is gone in their third differences, and last digits are not. A wrong function is as
        smooth as a right one, or jumps by more.
        """
        step, direction = min(_APART, h / _BESIDE), self.up + self.down
        table = [self.product(name, direction)]
        for k in range(1, _BESIDE + 1):
            with self.evaluations.at(self.points(k * step)[0]) as evaluations:
                table.append(evaluations.along(direction[None], by=name)[0])
                self.spent[0] += sum(evaluations.counts.values())
        third = np.diff(np.stack(table), 3, axis=0)
        noise = np.sqrt(np.mean(third**2, axis=0) / 20)  # its variance is that of twenty values
        length = self.scales.length
        top = self.comm.allreduce(float((np.abs(table[0]) * length).max(initial=0.0)), op=MPI.MAX)
        return np.minimum(noise, _DIGITS * top / length)

    def dot(self, one: np.ndarray, other: np.ndarray) -> float:
        """Return the product of two vectors. Collective."""
        return float(self.comm.allreduce(float(np.dot(one, other))))

    def total(self, values: np.ndarray) -> float:
        """Return the sum of the absolute values of a vector. Collective."""
        return float(self.comm.allreduce(float(np.abs(values).sum())))

    def printed(self, values: np.ndarray) -> float:
        """Return the last decimal that these numbers have, from the third on, 0 if they have more than eight.

        Collective.
        """
        for decimals in range(3, 9):
            few = bool((np.round(values, decimals) == values).all())
            if self.comm.allreduce(few, op=MPI.LAND):
                return 10.0**-decimals
        return 0.0

    def digits(self, values: np.ndarray) -> float:
        """Return the last digit that these numbers have, relative to them: of single precision if all are that."""
        single = bool((values == values.astype(np.float32)).all())
        return _EPS_SINGLE if self.comm.allreduce(single, op=MPI.LAND) else _EPS


def _sides(scales: Scales, signs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (up, down), by which variables move to either side for h = 1. Not collective.

    The longest step, and one as long from its end, stay within the bounds.
    """
    above, below = scales.upper - scales.x, scales.x - scales.lower
    farthest = 2 * FIRST * RATIO**LONGEST
    both = np.minimum(above, below) >= farthest * scales.length
    inward = np.where(above >= below, 1.0, -1.0) * np.abs(signs)
    room = np.minimum(scales.length, np.maximum(above, below) / farthest)
    up = np.where(both, signs * scales.length, inward * room)
    return up, np.where(both, up, 0.0)
