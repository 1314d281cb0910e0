"""Blocks of random vectors, each a function of a seed, of its number and of the global rows alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sparsehess.runtime.random_numbers import hash_numbers
from sparsehess.runtime.row_layout import Layout


def random_signs(layout: Layout, numbers: Sequence[int], seed: int) -> np.ndarray:
    """Return a block (n_local, k) of random signs.

    Not collective.

    Parameters
    ----------
    numbers
        (k,) which vectors of this seed.
    """
    rows = np.arange(layout.start, layout.stop)
    Z = np.empty((layout.n_local, len(numbers)), order="F")
    for column, key in enumerate(_keys(numbers, seed)):
        Z[:, column] = 1.0 - 2.0 * (hash_numbers(rows, 2 * key) >> np.uint64(63)).astype(np.float64)
    return Z


def standard_normal(layout: Layout, numbers: Sequence[int], seed: int) -> np.ndarray:
    """Return a block (n_local, k) of standard normal numbers (Box and Muller 1958).

    Not collective. For the parameters see `random_signs`.
    """
    rows = np.arange(layout.start, layout.stop)
    Z = np.empty((layout.n_local, len(numbers)), order="F")
    for column, key in enumerate(_keys(numbers, seed)):
        first, second = (
            ((hash_numbers(rows, 2 * key + half) >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
            for half in (0, 1)
        )
        Z[:, column] = np.sqrt(-2 * np.log(first)) * np.cos(2 * np.pi * second)
    return Z


def _keys(numbers: Sequence[int], seed: int) -> list[int]:
    """Return a seed of 31 bits for each numbered vector of a seed."""
    return (hash_numbers(np.asarray(numbers, np.int64), seed) >> np.uint64(33)).tolist()
