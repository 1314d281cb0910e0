"""The grain of a gradient: what the digits of its values say of its noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from mpi4py import MPI

import numpy as np

# Decimals that are looked for, as long as values have so many digits more.
_DECIMALS = 8
_DIGITS = 1e4

# The standard deviation of what is rounded to multiples of 1.
_ROUNDED = 12.0**-0.5


@dataclass(frozen=True, eq=False)
class Grain:
    """What values look like.

    Attributes
    ----------
    level
        (n_local,) standard deviation of their rounding, 0 where they have all their digits; where most have not,
        that of all.
    sentence
        For messages, "" where there is nothing to tell.
    """

    level: np.ndarray
    sentence: str


def find_grain(values: np.ndarray, comm: MPI.Comm) -> Grain:
    """Return the grain of values that should differ from each other in all their digits, row by row.

    Collective.

    Parameters
    ----------
    values
        (m, n_local) gradients at several points.
    """
    level, size = np.zeros(values.shape[1]), np.abs(values).max(axis=0)
    left = np.flatnonzero((values != values[0]).any(axis=0))  # not looked at, or with more digits than so far
    words: list[str] = []
    rows, levels = [len(left)], list[np.ndarray]()
    for name, rounded, step in _formats(size):
        coarse = left[rounded(values[0, left]) == values[0, left]]
        coarse = coarse[(step[coarse] > _DIGITS * np.spacing(size[coarse]))]
        coarse = coarse[(rounded(values[:, coarse]) == values[:, coarse]).all(axis=0)]
        level[coarse] = _ROUNDED * step[coarse]
        left = np.setdiff1d(left, coarse, assume_unique=True)
        words, rows, levels = [*words, name], [*rows, len(coarse)], [*levels, _ROUNDED * step]
    changing, *found = comm.allreduce(np.array(rows)).tolist()
    most = int(np.argmax(found))
    if not found[most]:
        return Grain(level, "")
    if 2 * found[most] <= changing:
        return Grain(level, f"some of its values are {words[most]}")
    return Grain(np.maximum(level, levels[most]), f"its values are {words[most]}")


def _formats(size: np.ndarray) -> Iterator[tuple[str, Callable[[np.ndarray], Any], np.ndarray]]:
    """Yield what values may be rounded to: its name, how, and the steps (n_local,) at values of this size."""
    for kind, name in ((np.float16, "half"), (np.float32, "single")):
        with np.errstate(over="ignore", invalid="ignore"):
            step = np.spacing(size.astype(kind)).astype(float)
        yield f"computed in {name} precision", partial(_in_precision, kind), np.where(step > 0, step, 0.0)
    for decimals in range(_DECIMALS + 1):
        yield (
            f"rounded to {decimals} decimals",
            partial(np.round, decimals=decimals),
            np.full(len(size), 10.0**-decimals),
        )


def _in_precision(kind: type[np.floating], values: np.ndarray) -> np.ndarray:
    """Return values as numbers of this precision hold them."""
    with np.errstate(over="ignore"):
        rounded: np.ndarray = values.astype(kind).astype(float)
    return rounded
