"""Consistency: whether gradient, products and energy of an objective are those of one function.

What is given twice is compared along a random line through x, d being about a typical length of each variable:

- products with the gradient, row by row: H 2 d with (g(x + h d) - g(x - h d)) / h;
- the gradient with the energy: the mean of the two gradients times 2 d with (E(x + h d) - E(x - h d)) / h. Where
  that does not see anything, as at a minimum, and where there are products but no gradient, by second differences.

The rule by which functions are refused, from how their difference depends on h (see `step_series`):

1. A row in which the two agree to `TOLERANCE` at any step is in order: c is then that small, or hidden by noise of
   just its size.
2. Where the first step, of 1/1000 typical lengths, leaves rows in doubt, longer and shorter ones follow, by
   factors of eight, until every row is in order, or shows what steps leave out to the one side, and noise to the
   other. Rows in which nothing like agreement was seen are looked at again by steps relative to each variable.
3. A row is a candidate if its difference is the same at two neighbouring steps, and what differences say there
   too (it falls with 1 / h where steps are too long), and if no shorter step shows noise that would be felt.
   Values that do not change at all may be rounded: then they must not change at any longer step either, where
   others change by far less than these should.
4. A candidate is refused if its difference is the same again at a step between the two, and at two steps about
   another point of the line, in another direction, where it is as large: x itself may lie in a kink, and a product
   may be small by chance, so that its last digits are not.

What remains in doubt is not refused: neither a contradiction nor agreement was seen. A product that is wrong in a
single row is found; of a gradient that is wrong in one of n rows the energy feels about 1 / √n, so that it tells
on larger parts of the gradient alone.
"""

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
    SHORTEST,
    TOLERANCE,
    Look,
    StepSeries,
    same,
)
from sparsehess.errors import CheckError, EvaluationError
from sparsehess.runtime import PETSc, agreement
from sparsehess.runtime.random_numbers import draw_signed

_SEED = 76185

# How far along the line the other point is, in the longer step of two: steps about it do not reach back to x.
_MOVED = 0.9

# About another point a contradiction is this part of what it was at least.
_AS_LARGE = 0.1

# A factor between two functions holds in a row to this part, and in all rows if in this share of those refused.
_LIKE, _MOST = 0.05, 0.95

_EPS, _EPS_SINGLE = float(np.finfo(np.float64).eps), float(np.finfo(np.float32).eps)

_SKIP = "without this check: verify=False, --no-verify"


def check_consistency(objective: Objective, x: np.ndarray | PETSc.Vec | None = None, *, seed: int = 0) -> int:
    """Refuse functions of an objective that are not those of one function; return how many calls that took.

    Collective. Costs two gradients, a product and two energies, of what the objective has if that is more than one
    of them, and more only where they seem to disagree; see the module.

    Parameters
    ----------
    objective
        With any of gradient, products and energy.
    x
        Of the kind of the objective's x; default that x.
    seed
        Of the direction.

    Raises
    ------
    CheckError
        Which of them disagrees with which, by what factor, at which variable, and what to do.
    EvaluationError
        A function raised at every step.
    """
    doors = _doors(objective)
    if not doors:
        return 0
    line = _Line.through(objective, objective.x if x is None else x, seed)
    for door in doors:
        _compare(line, door)
    return line.calls


def least_calls(objective: Objective) -> int:
    """Return how many calls of its functions `check_consistency` takes where all is well. Not collective."""
    doors = _doors(objective)
    by_energy = sum(2 if isinstance(door, _Slope) else 3 for door in doors if not door.distributed)
    products = sum(not isinstance(door, _Slope) for door in doors)
    return by_energy + products + (2 if doors and objective.gradient is not None else 0)


def _doors(objective: Objective) -> list[_Door]:
    """Return what is given twice. Not collective."""
    products = [name for name in ("hvps", "hvp") if getattr(objective, name) is not None]
    if objective.gradient is not None:
        compared: list[_Door] = [_Products(name) for name in products]
        return compared if objective.energy is None else [*compared, _Slope()]
    return [] if objective.energy is None else [_Curvature(name) for name in products]


# --- what is evaluated ---


@dataclass(frozen=True, eq=False)
class _Line:
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
    def through(cls, objective: Objective, x: np.ndarray | PETSc.Vec, seed: int) -> _Line:
        """Return a line through x in a random direction. Collective."""
        evaluations = Evaluations(objective, x)
        scales = Scales.of(evaluations)
        with agreement(evaluations.comm):
            scales.check_room(evaluations.layout)
        return cls._along(evaluations, scales, seed, [0])

    @classmethod
    def _along(cls, evaluations: Evaluations, scales: Scales, seed: int, spent: list[int]) -> _Line:
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
    def symmetric(self) -> _Line:
        """The line on which variables that have room to one side alone stay. Collective the first time."""
        both = self.down == self.up
        if self.comm.allreduce(bool(both.all()), op=MPI.LAND):
            return self
        steps = np.where(both, self.up, 0.0)
        return replace(self, up=steps, down=steps, _gradients={}, _energies={})

    def relative(self) -> _Line | None:
        """Return a line of steps relative to each variable, None where those are much the same. Collective."""
        x, length = np.abs(self.scales.x), self.scales.length
        own = np.where(x > 0, x, length)
        apart = bool((np.maximum(own / length, length / own) > RATIO).any())
        if not self.comm.allreduce(apart, op=MPI.LOR):
            return None
        return self._along(self.evaluations, replace(self.scales, length=own), self.seed + 1, self.spent)

    @contextmanager
    def moved(self, step: float) -> Iterator[_Line]:
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


# --- what is compared ---


class _Door:
    """Two functions of an objective that say the same."""

    name: str
    distributed = True  # whether rows are those of the variables

    def look(self, line: _Line, h: float) -> Look:
        """Return what the two say at a step. Collective."""
        raise NotImplementedError

    def refusal(self, line: _Line, look: Look, rows: np.ndarray) -> str:
        """Return what is said of rows that contradict each other. Collective."""
        raise NotImplementedError

    def after(self, first: Look | None) -> list[_Door]:
        """Return what else is compared, after the look at the first step. Not collective."""
        return []


@dataclass(frozen=True)
class _Products(_Door):
    """Products beside differences of the gradient."""

    name: str

    def look(self, line: _Line, h: float) -> Look:
        """See `_Door`."""
        gradients = line.gradients(h)
        product = line.product(self.name, line.taken(h) / h)
        change = gradients[0] - gradients[1]
        size = np.abs(gradients).sum(axis=0)
        return Look(
            product,
            change / h,
            np.maximum(np.abs(product), np.abs(change / h)),
            4 * _EPS * size / h,
            change,
            4 * line.digits(gradients) * size,
            h,
        )

    def refusal(self, line: _Line, look: Look, rows: np.ndarray) -> str:
        """See `_Door`."""
        name, layout = line.evaluations.objective.name, line.evaluations.layout
        count = int(line.comm.allreduce(int(rows.sum())))
        # The row that tells most, as an energy.
        told = np.where(rows, np.abs(look.difference) * line.scales.length, -1.0)
        own = (-1.0, 0, 0.0, 0.0)
        if rows.any():
            i = int(told.argmax())
            own = (float(told[i]), -(layout.start + i), float(look.one[i]), float(look.other[i]))
        _, variable, one, other = max(line.comm.allgather(own))
        factor = one / other if other else np.inf
        like = np.abs(look.one - factor * look.other) <= _LIKE * look.size if other else look.other == 0
        alike = int(line.comm.allreduce(int((rows & like).sum()))) >= _MOST * count
        what = f"{_number(factor)} times what" if alike and other else "not what"
        return (
            f"the products ({self.name}) of {name} contradict its gradient: they are {what} its differences say, "
            f"in {count} of {layout.n} rows at least (variable {-variable}: {one:.4g}, the gradient {other:.4g}), "
            f"the same at several steps: {self._reason(one, other, alike)}; mend it, or leave {self.name} out "
            f"(differences of the gradient are taken), or go on {_SKIP}"
        )

    def _reason(self, one: float, other: float, alike: bool) -> str:
        if other == 0:
            return "the gradient does not change there (it is constant, stored from before, or rounded)"
        if abs(one / other + 1) <= _LIKE:
            return "one of the two has the wrong sign (forces are minus the gradient)"
        if abs(one) <= _LIKE * abs(other):
            return "something cuts the second derivative off (detach, stop_gradient, a backward pass of one's own)"
        if alike:
            return "one of the two lacks a factor, or terms"
        return "terms are lost in one of the two (detach, stop_gradient, a backward pass of one's own)"


@dataclass(frozen=True)
class _Slope(_Door):
    """The gradient beside differences of the energy."""

    name: str = "gradient"
    distributed = False

    def look(self, line: _Line, h: float) -> Look:
        """See `_Door`."""
        energies, gradients, taken = line.energies(h), line.gradients(h), line.taken(h) / h
        slope = 0.5 * line.dot(gradients[0] + gradients[1], taken)
        change = energies[0] - energies[1]
        # A minimum has no slope: what matters is then by how much of a typical length it is displaced.
        bent = line.dot(gradients[0] - gradients[1], taken) / h / np.sqrt(max(line.evaluations.layout.n, 1))
        rounded = line.printed(gradients) * line.total(taken)
        return _look(line, slope, change, change / h, abs(bent), energies, h, rounded)

    def after(self, first: Look | None) -> list[_Door]:
        """See `_Door`."""
        if first is not None:
            visible = np.maximum(np.abs(first.one), np.abs(first.other))
            if (visible > first.rounding).all() and (np.abs(first.difference) <= TOLERANCE * visible).all():
                return []
        return [_Curvature("gradient")]

    def refusal(self, line: _Line, look: Look, rows: np.ndarray) -> str:
        """See `_Door`."""
        return _energy_refusal(line, look, "slope")


@dataclass(frozen=True)
class _Curvature(_Door):
    """Differences of the gradient, or products, beside second differences of the energy."""

    name: str
    distributed = False

    def look(self, line: _Line, h: float) -> Look:
        """See `_Door`."""
        line = line.symmetric  # variables that have room to one side alone stay
        half, rounded = 0.5 * line.taken(h) / h, 0.0
        if self.name == "gradient":
            gradients = line.gradients(h)
            rounded = line.printed(gradients) * line.total(half) / h
            bent = line.dot(0.5 * (gradients[0] - gradients[1]) / h, half)
        else:
            bent = line.dot(line.product(self.name, half), half)
        here, energies = line.energy_here(), line.energies(h)
        change = (energies[0] - here) - (here - energies[1])
        return _look(line, bent, change, change / h**2, 0.0, np.append(energies, 2 * here) / h, h, rounded)

    def refusal(self, line: _Line, look: Look, rows: np.ndarray) -> str:
        """See `_Door`."""
        if self.name == "gradient":
            return _energy_refusal(line, look, "curvature")
        name = line.evaluations.objective.name
        return (
            f"the products ({self.name}) of {name} contradict its energy: along a random direction they say "
            f"{look.one[0]:.4g}, second differences of the energy {look.other[0]:.4g}, the same at several steps; "
            f"mend it, leave the energy out if it is another function's, or go on {_SKIP}"
        )


def _look(
    line: _Line,
    one: float,
    change: float,
    other: float,
    least: float,
    energies: np.ndarray,
    h: float,
    rounded: float,
) -> Look:
    """Return a look at a single number, the same on every rank. Collective.

    `rounded` is what a gradient of few decimals makes of it: that is the same at all steps.
    """
    total = float(np.abs(energies).sum())
    return Look(
        np.array([one]),
        np.array([other]),
        np.array([max(abs(one), abs(other), least)]),
        np.array([4 * _EPS * total / h + rounded]),
        np.array([change]),
        np.array([4 * line.digits(energies) * total]),
        h,
    )


def _energy_refusal(line: _Line, look: Look, what: str) -> str:
    name, one, other = line.evaluations.objective.name, float(look.one[0]), float(look.other[0])
    ratio = "" if other == 0 else f", {_number(one / other)} times that"
    if other != 0 and abs(one / other + 1) <= _LIKE:
        reason = "the gradient has the sign of forces: give minus the forces"
    elif other == 0:
        reason = "the energy does not change there (it is constant, stored from before, or rounded)"
    else:
        reason = "the gradient lacks something, or the energy is another function's"
    return (
        f"the gradient of {name} contradicts its energy: along a random direction differences of the energy give "
        f"a {what} of {other:.4g}, the gradient {one:.4g}{ratio}, the same at several steps: {reason}; mend it, "
        f"or leave the energy out if it is another function's, or go on {_SKIP}"
    )


def _number(value: float) -> str:
    return f"{value:.3g}"


# --- the rule ---


def _compare(line: _Line, door: _Door) -> None:
    """Refuse two functions that contradict each other, by steps of typical lengths, then relative ones.

    Collective.
    """
    rows = np.ones(line.evaluations.layout.n_local if door.distributed else 1, bool)
    series, failure = _series(line, door, rows, reaches=True)
    _refuse(line, door, series)
    relative = None
    lost = series.lost
    if line.comm.allreduce(bool(lost.any()), op=MPI.LOR):
        relative = line.relative()
    if relative is not None:
        again, failure = _series(relative, door, lost, reaches=False)
        _refuse(relative, door, again)
        failure = None if series.looks else failure
    if failure is not None:
        raise failure
    for other in door.after(series.looks.get(0)):
        _compare(line, other)


def _series(line: _Line, door: _Door, rows: np.ndarray, reaches: bool) -> tuple[StepSeries, Exception | None]:
    """Look at these rows at one step, and at others as long as there is doubt.

    Collective. With it what failed, if nothing was seen at any step.
    """
    series = StepSeries(line.comm, rows, reaches)
    failures: list[Exception] = []

    def look(number: int) -> bool:
        try:
            series.add(number, _look_at(line, door, number))
        except (CheckError, EvaluationError) as failure:  # a step that leaves the domain of the function
            failures.append(failure)
            return False
        return True

    if look(0):
        for number in range(1, LONGEST + 1):
            if not (series.wants(number) and look(number)):
                break
    for number in range(-1, SHORTEST - 1, -1):
        if not series.wants(number):
            break
        look(number)
    return series, None if series.looks else failures[0]


def _look_at(line: _Line, door: _Door, number: float) -> Look:
    """Return a look at a step, by its number. Collective."""
    look = door.look(line, FIRST * RATIO**number)
    with agreement(line.comm):
        if not np.isfinite(look.difference).all():
            raise CheckError(f"the derivatives of {line.evaluations.objective.name} overflow")
    return look


def _refuse(line: _Line, door: _Door, series: StepSeries) -> None:
    """Raise CheckError where rows of a series contradict each other, and do so again. Collective."""
    for number, found in series.candidates():
        long = series.looks[number + 1]
        rows = found & _confirmed(line, door, number, long)
        if line.comm.allreduce(bool(rows.any()), op=MPI.LOR):
            raise CheckError(door.refusal(line, long, rows))


def _confirmed(line: _Line, door: _Door, number: int, long: Look) -> np.ndarray:
    """Return (m,) whether a difference is the same at another step, and at two about another point. Collective."""
    between = number + 0.5
    rows = same(_look_at(line, door, between), long)
    with line.moved(_MOVED * long.step) as elsewhere:
        one, other = _look_at(elsewhere, door, between), _look_at(elsewhere, door, number)
        least = np.maximum(TOLERANCE * np.maximum(one.size, long.size), one.rounding)
        rows &= same(one, other) & (np.abs(one.difference) > least)
        # Noise may be the same by chance, but not as large as what it should confirm.
        return rows & (np.abs(one.difference) > _AS_LARGE * np.abs(long.difference))
