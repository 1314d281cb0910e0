"""The digits that entries of a file have: by how much they may have been rounded when they were written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

# Entries that are looked at, evenly over the file.
_LOOKED_AT = 20_000

# Digits up to which entries can be told from those that were written in full.
_MOST_DIGITS = 12

# Digits, and different numbers with so many of them, from which on entries count as rounded: few are often exact.
_FEWEST = ((7, 3), (5, 8), (3, 20))

# Part of the entries that has no more digits, and part of those that has exactly so many.
_MOST, _MANY = 0.99, 0.5


@dataclass(frozen=True)
class Rounding:
    """By how much entries may have been rounded when they were written, entry by entry.

    Attributes
    ----------
    digits
        Significant ones, or those behind the point where `absolute` is above 0; None where nothing was rounded
        but to double precision.
    relative, absolute
        An entry a that is not zero may be off by relative · |a| + absolute.
    """

    digits: int | None = None
    relative: float = 0.0
    absolute: float = 0.0

    def __bool__(self) -> bool:
        """Return whether anything was rounded."""
        return self.digits is not None

    @property
    def told(self) -> str:
        """What is said of it."""
        return f"{self.digits} digits" + (" behind the point" if self.absolute else "")


FULL = Rounding()


def rounding_of_type(values: np.ndarray) -> Rounding:
    """Return the rounding of numbers of single precision, or none. Not collective.

    Whole numbers are exact, and so are those that have no more digits.
    """
    if values.dtype.kind not in "fc" or np.finfo(values.dtype).bits >= 64:
        return FULL
    half = 0.5 * float(np.finfo(values.dtype).eps)
    looked_at = _different(values.real)
    mantissa = np.frexp(looked_at)[0] * 2.0**20
    if np.count_nonzero(mantissa != np.rint(mantissa)) <= _MANY * len(mantissa):
        return FULL
    return Rounding(int(-np.log10(half)), half)


def find_rounding(values: np.ndarray) -> Rounding:
    """Return by how much the numbers of a text were rounded, from the numbers as they were read.

    Not collective. Numbers with few digits are exact where they are few, or whole. They were rounded to d digits
    where hardly one has more, most have exactly so many, and these end at different places; to d digits behind the
    point where most end there.
    """
    if values.dtype.kind not in "fc":
        return FULL
    looked_at = _different(values.real)
    if not len(looked_at):
        return FULL
    digits, ends = _digits_and_ends(looked_at)
    cut = ~_is_dyadic(looked_at, ends)
    most = int(np.quantile(digits, _MOST, method="lower"))
    full = cut & (digits == most)
    many = most <= _MOST_DIGITS and _enough(most, int(full.sum())) and np.mean(full) >= _MANY
    if many and len(np.unique(ends[full])) > 1:
        return Rounding(most, 0.5 * 10.0 ** (1 - most))
    last = -int(np.quantile(ends, 1 - _MOST, method="higher"))
    fixed = cut & (ends == -last)
    many = 0 < last <= _MOST_DIGITS and _enough(last, int(fixed.sum())) and np.mean(fixed) >= _MANY
    if many and len(np.unique(digits[fixed])) > 1:
        return Rounding(last, absolute=0.5 * 10.0**-last)
    return FULL


def _different(values: Any) -> np.ndarray:
    """Return the different magnitudes among some of the numbers, zeros and what is not finite left out."""
    flat = np.ravel(values)
    some = np.abs(flat[:: max(1, len(flat) // _LOOKED_AT)].astype(np.float64))
    return np.unique(some[(some > 0) & np.isfinite(some)])


def _digits_and_ends(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how many significant digits numbers have at least, and the powers of ten of the last ones."""
    digits, ends = [], []
    for value in values.tolist():
        mantissa, _, exponent = f"{value!r}".partition("e")
        whole, _, behind = mantissa.partition(".")
        behind = behind.rstrip("0")
        significant = (whole + behind).lstrip("0")
        digits.append(len(significant.rstrip("0")))
        ends.append(int(exponent or 0) - len(behind) + len(significant) - len(significant.rstrip("0")))
    return np.array(digits), np.array(ends)


def _enough(digits: int, count: int) -> bool:
    """Return whether so many different numbers with so many digits are no accident."""
    return any(digits >= least and count >= number for least, number in _FEWEST)


def _is_dyadic(values: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Return which numbers are whole multiples of a power of 1/2 with so many decimals, such as 0.375.

    All of its decimals are written: of numbers that were rounded one in 5^d happens to be one.
    """
    behind = np.clip(-ends, 0, 60)
    scaled = np.ldexp(values, behind)
    return (behind > 0) & (scaled == np.rint(scaled))
