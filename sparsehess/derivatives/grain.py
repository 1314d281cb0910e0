"""The grain of a gradient: what the digits of its values say of its noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from mpi4py import MPI

import numpy as np

# Decimals that are looked for, and rows that are looked at first.
_DECIMALS = 12
_FEW = 64

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
    """Return the grain of values that should differ from each other in all their digits.

    Collective.

    Parameters
    ----------
    values
        (m, n_local) gradients at several points.
    """
    few = values[:, :_FEW]

    def everywhere(rounded: Callable[[np.ndarray], Any]) -> bool:
        """Return whether rounding changes nothing."""
        same = np.array_equal(rounded(few), few) and np.array_equal(rounded(values), values)
        return bool(comm.allreduce(same, op=MPI.LAND))

    none = np.zeros(values.shape[1])
    if not comm.allreduce(bool((values != values[0]).any()), op=MPI.LOR):
        return Grain(none, "")
    size = np.abs(values).max(axis=0)
    for kind, name in ((np.float16, "half"), (np.float32, "single")):
        with np.errstate(over="ignore"):
            if everywhere(partial(_in_precision, kind)):
                level = _ROUNDED * np.spacing(size.astype(kind)).astype(float)
                return Grain(level, f"it is computed in {name} precision")
    for decimals in range(_DECIMALS + 1):
        if everywhere(partial(np.round, decimals=decimals)):
            level = np.full(len(none), _ROUNDED * 10.0**-decimals)
            return Grain(level, f"its values are rounded to {decimals} decimals")
    return Grain(none, "")


def _in_precision(kind: type[np.floating], values: np.ndarray) -> np.ndarray:
    """Return the values as numbers of this precision hold them."""
    rounded: np.ndarray = values.astype(kind).astype(float)
    return rounded
