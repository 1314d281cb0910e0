"""Fields of Nastran's files to numbers, many at a time."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from sparsehess.errors import InputError

# A sign behind a digit or a point begins an exponent: 1.5-3 is 1.5E-3.
_EXPONENT = re.compile(rb"(?<=[0-9.])([+-])(?=[0-9])")

_AS_READ = bytes.maketrans(b"Dd\0", b"Ee ")


def reals_of(path: Path, fields: np.ndarray) -> np.ndarray:
    """Return (m,) real numbers of fields of one width; blank ones are zero.

    Not collective.

    Raises
    ------
    InputError
        One is no number.
    """
    width = fields.dtype.itemsize
    text = np.ascontiguousarray(fields).tobytes().translate(_AS_READ)
    words = np.frombuffer(text, f"S{width}")
    words = np.where(np.char.strip(words) == b"", b"0", words)
    try:
        return words.astype(np.float64)
    except ValueError:
        pass
    # Exponents without a letter, and spaces within a field.
    split = [_EXPONENT.sub(rb"E\1", word.replace(b" ", b"")) for word in words.tolist()]
    try:
        return np.array(split, np.bytes_).astype(np.float64)
    except ValueError as error:
        raise InputError(f"{path}: a field that is no number: {str(error)[:80]}: damaged") from error


def integers_of(path: Path, fields: np.ndarray) -> np.ndarray:
    """Return (m,) whole numbers of fields of one width; blank ones are zero.

    Not collective.

    Raises
    ------
    InputError
        One is no whole number.
    """
    words = np.char.strip(fields, b" \0")
    try:
        return np.where(words == b"", b"0", words).astype(np.int64)
    except (ValueError, OverflowError) as error:
        raise InputError(f"{path}: a field that is no whole number: {str(error)[:80]}: damaged") from error
