"""Grids that are numbered row-major, recognised by the differences of row numbers that their entries have."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

MOST_DIFFERENCES = 400  # distinct and positive; a stencil of 625 points in four dimensions has 312
MOST_SHAPES = 60  # that are tried on one set of differences
MOST_RADIUS = 16  # of a stencil, in all directions but the slowest
DEFECTS = 0.05  # entries a row, that a grid may have besides its stencil


@dataclass(frozen=True, eq=False)
class Grid:
    """A grid that is numbered row-major, and the stencil on it.

    Attributes
    ----------
    strides
        Ascending: how the row number grows with each coordinate. The first is 1, or the number of
        interleaved grids that are not coupled.
    shape
        Points in each direction.
    offsets
        (m, d) int64, the stencil: symmetric, without 0.
    periodic
        Of each direction.
    """

    strides: tuple[int, ...]
    shape: tuple[int, ...]
    offsets: np.ndarray
    periodic: tuple[bool, ...]

    def indices(self, rows: np.ndarray) -> np.ndarray:
        """Return (m, d) int64 coordinates of the global row numbers `rows` (m,).

        Not collective.
        """
        return np.asarray(rows, np.int64)[:, None] // np.array(self.strides) % np.array(self.shape)


def recognize_grid(differences: np.ndarray, counts: np.ndarray, n: int) -> Grid | None:
    """Return the row-major grid and the stencil that a pattern is, or None.

    Not collective. What is returned explains the counts, which is no proof: the caller verifies the
    colouring on the pattern.

    Parameters
    ----------
    differences, counts
        (m,) the distinct column minus row of all entries of a symmetric pattern, and how often each
        occurs.
    n
        Rows.

    Notes
    -----
    On a grid of n_i points a direction the offset o occurs prod(n_i - |o_i|) times, and where a
    direction closes |o_i| take the place of n_i - |o_i| for the difference that leads around. For
    every chain of strides that divide n and lie near a frequent difference the differences are split
    into digits; the chain wins whose predicted counts come closest, with small digits. Sides of a
    fast direction must be 2 * radius + 1 at least, for digits to be unique.
    """
    order = np.argsort(differences, kind="stable")
    order = order[differences[order] > 0]
    steps, found = differences[order].astype(np.int64), counts[order].astype(np.int64)
    often = 32 * found >= n
    if not 0 < np.count_nonzero(often) <= MOST_DIFFERENCES or 2 * found[often].sum() < found.sum():
        return None
    unit = int(np.gcd.reduce(steps[often]))
    if n % unit:
        return None
    best = None
    for shape in itertools.islice(_shapes(steps[often] // unit, n // unit, 4), MOST_SHAPES):
        # The slowest direction has no next digit to be confused with and may be thin.
        for thin in (False, True):
            trial = _explain(shape, unit, steps, found, often, thin)
            if trial is not None and (best is None or trial[0] < best[0]):
                best = trial
        if best is not None and best[0][0] == 0:
            break
    return best[2] if best is not None and best[1] <= DEFECTS * n else None


def _shapes(values: np.ndarray, size: int, most: int) -> Iterator[tuple[int, ...]]:
    """Yield shapes of at most `most` directions in which most of these differences are near, likely ones first."""
    yield (size,)
    if most == 1 or len(values) == 0:
        return
    lower = np.arange(1, int(size**0.5) + 1)
    lower = lower[size % lower == 0]
    divisors = np.unique(np.concatenate([lower, size // lower]))
    divisors = divisors[(divisors > 2) & (divisors < size)]
    # Carries from closed directions add one to a digit, and defects have any.
    reach = np.minimum(divisors // 2, MOST_RADIUS)
    sides, close = [], np.abs(values[:, None] - divisors).min(axis=0) <= reach
    for side, near in zip(divisors[close].tolist(), reach[close].tolist(), strict=True):
        digits = (values + side // 2) % side - side // 2
        if (np.abs(digits) <= near).mean() > 0.75:
            sides.append((np.abs(digits).mean() / side, side, np.unique((values - digits) // side)))
    for _, side, rest in sorted(sides, key=lambda entry: entry[:2]):
        for slower in _shapes(rest[rest > 0], size // side, most - 1):
            yield (side, *slower)


class _Trial(NamedTuple):
    """A stencil that may explain the differences.

    Attributes
    ----------
    score
        The less the better: how far the counts are off, then the size of the digits.
    excess
        Entries that the stencil does not predict.
    offsets, periodic
        As those of `Grid`.
    predicted
        Counts of the frequent differences.
    """

    score: tuple[float, float]
    excess: int
    offsets: np.ndarray
    periodic: tuple[bool, ...]
    predicted: np.ndarray


def _explain(
    shape: tuple[int, ...], unit: int, steps: np.ndarray, found: np.ndarray, often: np.ndarray, thin: bool
) -> tuple[tuple[float, float], int, Grid] | None:
    """Return (score, the less the better; entries in excess; grid), or None if there is no stencil."""
    size = np.array(shape)
    strides = unit * np.concatenate([[1], np.cumprod(size[:-1])])
    digits, rest = np.empty((np.count_nonzero(often), len(shape)), np.int64), steps[often] // unit
    for i, side in enumerate(shape[:-1]):
        digits[:, i] = (rest + side // 2) % side - side // 2
        rest = (rest - digits[:, i]) // side
    digits[:, -1] = rest
    near = (size - 1) // 2
    if thin:
        near[-1] = size[-1] - 1
    expected = unit * (size - np.abs(digits)).prod(axis=1)
    # What leads around a closed direction looks like an offset too, but is rarer than that should be.
    chosen = (np.abs(digits) <= near).all(axis=1) & (4 * found[often] >= 3 * expected)
    if not chosen.any() or (thin and np.abs(digits[chosen, -1]).max() < size[-1] / 2):
        return None

    def trial(chosen: np.ndarray, periodic: tuple[bool, ...]) -> _Trial:
        half = digits[chosen]
        offsets, mean = np.concatenate([half, -half]), np.abs(half).sum(axis=1).mean()
        predicted_steps, predicted = _predict(offsets, size, strides, unit, periodic)
        place = np.minimum(np.searchsorted(steps, predicted_steps), len(steps) - 1)
        there = steps[place] == predicted_steps
        at_steps = np.zeros(len(steps), np.int64)
        at_steps[place[there]] = predicted[there]
        common = np.minimum(at_steps, found).sum()
        # Missing entries do no harm, those in excess need other colours.
        excess, missing = found.sum() - common, predicted.sum() - common
        return _Trial(((4 * excess + missing) * mean, mean), excess, offsets, periodic, at_steps[often])

    best = trial(chosen, (False,) * len(shape))
    for i in [*range(len(shape)), *range(len(shape))]:  # again, as the later directions change the earlier
        if best.score[0] > 0:
            closed = best.periodic
            other = trial(chosen, (*closed[:i], not closed[i], *closed[i + 1 :]))
            best = min(best, other, key=lambda one: one.score)
    # On short closed sides what leads around may be often: offsets without which the counts come closer.
    fewer = chosen & (2 * (best.predicted - found[often]) < expected)
    if best.score[0] > 0 and fewer.any():
        best = min(best, trial(fewer, best.periodic), key=lambda one: one.score)
    return best.score, best.excess, Grid(tuple(strides.tolist()), tuple(shape), best.offsets, best.periodic)


def _predict(
    offsets: np.ndarray, size: np.ndarray, strides: np.ndarray, unit: int, periodic: tuple[bool, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the positive differences of a stencil on a grid, and how often each occurs."""
    digits, steps, counts = offsets, np.zeros(len(offsets), np.int64), np.full(len(offsets), unit)
    for i, (side, stride) in enumerate(zip(size.tolist(), strides.tolist(), strict=True)):
        o = digits[:, i]
        inside = steps + o * stride, counts * (side - np.abs(o))
        if not periodic[i]:
            steps, counts = inside
            continue
        around = steps + (o - np.sign(o) * side) * stride, counts * np.abs(o)
        steps, counts = (np.concatenate(both) for both in zip(inside, around, strict=True))
        digits = np.concatenate([digits, digits])
    real = (steps > 0) & (counts > 0)
    steps, inverse = np.unique(steps[real], return_inverse=True)
    return steps, np.bincount(inverse, weights=counts[real], minlength=len(steps)).astype(np.int64)
