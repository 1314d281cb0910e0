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
5. Nor is it refused where the product is nothing but last digits: where rows vanish by symmetry, as those of atoms
   in a plane, single precision leaves a product of its own. It differs by as much between six points nearby.

What remains in doubt is not refused: neither a contradiction nor agreement was seen. A product that is wrong in a
single row is found; of a gradient that is wrong in one of n rows the energy feels about 1 / √n, so that it tells
on larger parts of the gradient alone.
"""

from __future__ import annotations

from mpi4py import MPI

import numpy as np

from sparsehess.derivatives.comparison_doors import Curvature, Door, Products, Slope
from sparsehess.derivatives.comparison_line import ComparisonLine
from sparsehess.derivatives.objective import Objective
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

# How far along the line the other point is, in the longer step of two: steps about it do not reach back to x.
_MOVED = 0.9

# A contradiction is so many times the noise of products, which few values tell.
_ABOVE_NOISE = 30.0

# About another point a contradiction is this part of what it was at least.
_AS_LARGE = 0.1


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
    line = ComparisonLine.through(objective, objective.x if x is None else x, seed)
    for door in doors:
        _compare(line, door)
    return line.calls


def least_calls(objective: Objective) -> int:
    """Return how many calls of its functions `check_consistency` takes where all is well. Not collective."""
    doors = _doors(objective)
    by_energy = sum(2 if isinstance(door, Slope) else 3 for door in doors if not door.distributed)
    products = sum(not isinstance(door, Slope) for door in doors)
    return by_energy + products + (2 if doors and objective.gradient is not None else 0)


def _doors(objective: Objective) -> list[Door]:
    """Return what is given twice. Not collective."""
    products = [name for name in ("hvps", "hvp") if getattr(objective, name) is not None]
    if objective.gradient is not None:
        compared: list[Door] = [Products(name) for name in products]
        return compared if objective.energy is None else [*compared, Slope()]
    return [] if objective.energy is None else [Curvature(name) for name in products]


def _compare(line: ComparisonLine, door: Door) -> None:
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


def _series(
    line: ComparisonLine, door: Door, rows: np.ndarray, reaches: bool
) -> tuple[StepSeries, Exception | None]:
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


def _look_at(line: ComparisonLine, door: Door, number: float) -> Look:
    """Return a look at a step, by its number. Collective."""
    look = door.look(line, FIRST * RATIO**number)
    with agreement(line.comm):
        if not np.isfinite(look.difference).all():
            raise CheckError(f"the derivatives of {line.evaluations.objective.name} overflow")
    return look


def _refuse(line: ComparisonLine, door: Door, series: StepSeries) -> None:
    """Raise CheckError where rows of a series contradict each other, and do so again. Collective."""
    noise: np.ndarray | None = None
    for number, found in series.candidates():
        long = series.looks[number + 1]
        rows = found & _confirmed(line, door, number, long)
        if not line.comm.allreduce(bool(rows.any()), op=MPI.LOR):
            continue
        noise = _noise(line, door, series) if noise is None else noise
        rows &= ~(np.abs(long.difference) <= _ABOVE_NOISE * noise)
        if line.comm.allreduce(bool(rows.any()), op=MPI.LOR):
            raise CheckError(door.refusal(line, long, rows))


def _noise(line: ComparisonLine, door: Door, series: StepSeries) -> np.ndarray:
    """Return (m,) the noise of what has no step; none where it cannot be measured. Collective."""
    try:
        return door.noise(line, FIRST * RATIO ** max(series.looks))
    except (CheckError, EvaluationError):  # a function that ends there
        return np.zeros(len(series.open))


def _confirmed(line: ComparisonLine, door: Door, number: int, long: Look) -> np.ndarray:
    """Return (m,) whether a difference is the same at another step, and at two about another point. Collective."""
    between = number + 0.5
    rows = same(_look_at(line, door, between), long)
    with line.moved(_MOVED * long.step) as elsewhere:
        one, other = _look_at(elsewhere, door, between), _look_at(elsewhere, door, number)
        least = np.maximum(TOLERANCE * np.maximum(one.size, long.size), one.rounding)
        rows &= same(one, other) & (np.abs(one.difference) > least)
        # Noise may be the same by chance, but not as large as what it should confirm.
        return rows & (np.abs(one.difference) > _AS_LARGE * np.abs(long.difference))
