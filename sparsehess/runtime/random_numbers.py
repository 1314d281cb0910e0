"""Random numbers that do not depend on the number of ranks."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from sparsehess.runtime.row_layout import Layout

_SHORT = 2**14


def hash_numbers(numbers: np.ndarray, seed: int) -> np.ndarray:
    """Return (m,) uint64, for each number a random one that depends on it and on the seed alone.

    Not collective. SplitMix64 (Steele, Lea, Flood 2014).
    """
    with np.errstate(over="ignore"):
        state = (
            numbers.astype(np.uint64) + np.uint64(1) + np.uint64(seed % 2**32) * np.uint64(0x9E3779B1)
        ) * np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return state ^ (state >> np.uint64(31))


def draw_uniform(layout: Layout, seed: int) -> np.ndarray:
    """Return (n_local,) numbers uniform in (-1, 1), a function of seed and global row alone.

    Not collective. The array is not to be written to: short ones are kept for the next time.
    """
    few = layout.n_local <= _SHORT
    return (_uniform if few else _uniform.__wrapped__)(layout.start, layout.stop, seed)


@lru_cache(maxsize=16)
def _uniform(start: int, stop: int, seed: int) -> np.ndarray:
    state = hash_numbers(np.arange(start, stop), seed)
    out = (state >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1.0
    out.flags.writeable = False
    return out


def draw_signed(layout: Layout, seed: int) -> np.ndarray:
    """Return (n_local,) numbers of random sign with magnitudes uniform in (1/2, 1).

    Not collective. No component is small, so that a product shows every column.
    """
    value = draw_uniform(layout, seed)
    return np.copysign(0.5 + 0.5 * np.abs(value), value)


def draw_normal(layout: Layout, seed: int) -> np.ndarray:
    """Return (n_local,) numbers of the normal distribution: together a direction without preference.

    Not collective. Box and Muller 1958, "A note on the generation of random normal deviates".
    """
    radius, angle = draw_uniform(layout, 2 * seed), draw_uniform(layout, 2 * seed + 1)
    share = np.clip(0.5 - 0.5 * radius, np.finfo(float).tiny, 1.0)  # uniform in (0, 1]
    return np.sqrt(-2.0 * np.log(share)) * np.cos(np.pi * angle)


def hash_rows(layout: Layout, values: np.ndarray) -> str:
    """Return 16 hexadecimal digits that depend on the bits of values (n_local,), not on how ranks share them.

    Collective.
    """
    values = np.ascontiguousarray(values)
    bits = values.view(np.uint64) if values.dtype.itemsize == 8 else values.astype(np.int64).view(np.uint64)
    with np.errstate(over="ignore"):
        own = hash_numbers(bits ^ hash_numbers(np.arange(layout.start, layout.stop), 4), 5).sum(dtype=np.uint64)
    return f"{sum(layout.comm.allgather(int(own))) % 2**64:016x}"
