"""Chebyshev moments of random starts, and the bounds of the spectrum that they need."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sparsehess.eigen.estimates.block_lanczos import Lanczos, batches
from sparsehess.eigen.estimates.reduced_operator import ReducedOperator
from sparsehess.eigen.estimates.spectral_measures import NARROW, Polynomials
from sparsehess.errors import InputError
from sparsehess.runtime.citations import cite

if TYPE_CHECKING:
    from typing import TypeAlias

    # Calls run(operator, numbers) for all samples, on groups of ranks or not; see `run_in_groups`.
    Deal: TypeAlias = Callable[[Callable[[ReducedOperator, range], list]], list]

# Products for each sample, unless the caller says how many.
STEPS = 100

# Lanczos steps for the interval that Chebyshev polynomials need, and by how much of it that is widened.
_FOR_BOUNDS, _WIDER = 24, 0.01

# Rows that several operations are done on while they are in the cache.
_ROWS = 2**15


class Bounds(NamedTuple):
    """What some Lanczos steps tell of the ends of a spectrum.

    Attributes
    ----------
    low, high
        Bounds of it, safe with high probability.
    size
        The largest |Ritz value|.
    ritz
        Least and largest Ritz value, which are within it.
    """

    low: float
    high: float
    size: float
    ritz: tuple[float, float]


def bounds(operator: ReducedOperator, steps: int = _FOR_BOUNDS, seed: int = 0) -> Bounds:
    """Return bounds of the spectrum.

    Collective. Zhou and Li 2011, "Bounding the spectrum of large Hermitian matrices", section 3.
    """
    run = Lanczos(operator, operator.random_vectors([2**30], seed, "sphere"), steps)
    run.advance(steps)
    nodes, _, _ = run.quadratures()[0]
    beyond = float(run.beta[0, run.steps - 1])
    low, high = float(nodes[0]), float(nodes[-1])
    return Bounds(low - beyond, high + beyond, max(abs(low), abs(high)), (low, high))


def polynomials(
    operator: ReducedOperator, deal: Deal, steps: int | None, width: float | None, seed: int
) -> tuple[Polynomials, int]:
    """Return the Chebyshev moments of random starts, and the steps they took."""
    low, high, size, ritz = bounds(operator, seed=seed)
    half = max(0.5 * (high - low) * (1 + _WIDER), 1e-6 * size) or NARROW
    center = 0.5 * (low + high)
    if steps is None:
        steps = STEPS if width is None else max(1, int(np.ceil(0.5 * np.pi * half / width)))
    if width is not None and np.pi * half / (2 * steps) > 1.01 * width:
        raise InputError(
            f"width={width:g} needs {int(np.ceil(0.5 * np.pi * half / width))} steps of 'chebyshev', not {steps}"
        )

    cite("density by chebyshev")

    def run(operator: ReducedOperator, numbers: range) -> list[np.ndarray]:
        rows: list[np.ndarray] = []
        for batch in batches(operator, 5, len(numbers)):
            starts = operator.random_vectors(numbers[batch.start : batch.stop], seed, operator.best_starts)
            rows += list(_moments(operator, starts, steps, center, half))
        return rows

    return Polynomials(np.stack(deal(run)), center, half, ritz), steps


def _moments(operator: ReducedOperator, Z: np.ndarray, steps: int, center: float, half: float) -> np.ndarray:
    """Return (k, 2 steps + 1) Chebyshev moments, two for each product (Weiße et al. 2006, equations 35 and 36)."""
    result = np.empty((Z.shape[1], 2 * steps + 1))
    before, now = np.zeros(Z.shape, order="F"), Z
    for m in range(steps):
        dots = _recurrence(before, now, operator.apply(now), center, half, 1 if m == 0 else 2)
        before, now = now, before
        if operator.plain:
            dots = operator.sum_over_ranks(dots)
        else:
            dots = np.stack([operator.dots(now, before), operator.dots(now, now)])
        if m == 0:
            result[:, 0] = operator.dots(Z, Z)
            result[:, 1] = dots[0]
        else:
            result[:, 2 * m + 1] = 2 * dots[0] - result[:, 1]
        result[:, 2 * m + 2] = 2 * dots[1] - result[:, 0]
    if not np.isfinite(result).all() or np.abs(result).max() > 1.5 * result[:, 0].max():
        raise InputError("the spectrum is wider than Lanczos bounded it: take another seed, or method 'lanczos'")
    return result / result[:, :1]


def _recurrence(
    before: np.ndarray, now: np.ndarray, image: np.ndarray, center: float, half: float, factor: int
) -> np.ndarray:
    """Put factor (A - center) now / half - before into `before`; return its inner products with `now` and itself.

    `image` is A now, and is overwritten. A few rows at a time, while they are in the cache.
    """
    from scipy.linalg.blas import daxpy

    dots = np.zeros((2, now.shape[1]))
    for begin in range(0, len(now), _ROWS):
        rows = slice(begin, begin + _ROWS)
        for i in range(now.shape[1]):
            x, y, old = now[rows, i], image[rows, i], before[rows, i]
            y *= factor / half
            daxpy(x, y, a=-factor * center / half)
            np.subtract(y, old, out=old)
            dots[:, i] += x @ old, old @ old
    return dots
