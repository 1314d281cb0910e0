"""The grain of a gradient: what the digits of its values say of its noise."""

from __future__ import annotations

from dataclasses import dataclass

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
        (n_local,) standard deviation of their rounding, 0 where they have all their digits.
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
    level = np.zeros(values.shape[1])
    size = np.abs(values).max(axis=0)
    left = np.flatnonzero((values != values[0]).any(axis=0))  # not looked at, or with more digits than so far
    changing, said = len(left), []

    def settle(coarse: np.ndarray, levels: np.ndarray, words: str) -> None:
        nonlocal left
        level[left[coarse]] = levels[coarse]
        said.append((int(coarse.sum()), words))
        left = left[~coarse]

    for kind, name in ((np.float16, "half"), (np.float32, "single")):
        part = values[:, left]
        with np.errstate(over="ignore", invalid="ignore"):
            rounded = part.astype(kind).astype(float)
            steps = np.spacing(size[left].astype(kind)).astype(float)
        settle((rounded == part).all(axis=0), _ROUNDED * steps, f"computed in {name} precision")
    for decimals in range(_DECIMALS + 1):
        part, step = values[:, left], 10.0**-decimals
        coarse = (np.round(part, decimals) == part).all(axis=0) & (step > _DIGITS * np.spacing(size[left]))
        settle(coarse, np.full(len(left), _ROUNDED * step), f"rounded to {decimals} decimals")
    counts = comm.allreduce(np.array([changing, *(many for many, _ in said)]))
    most = int(counts[1:].argmax())
    if not counts[1 + most]:
        return Grain(level, "")
    whose = "its values are" if 2 * counts[1 + most] > counts[0] else "some of its values are"
    return Grain(level, f"{whose} {said[most][1]}")
