"""Lines of numbers in fixed columns, written many at a time."""

from __future__ import annotations

from typing import IO

import numpy as np

# Lines that are in memory at a time.
_LINES = 50_000

# Numbers nearer to zero than this are written as zero: a longer exponent has no room in its column.
_LEAST = 1e-98


def write_rows(stream: IO[str], line: str, *columns: np.ndarray) -> None:
    """Write a line for each row of columns that stand side by side.

    Not collective.

    Parameters
    ----------
    line
        A %-format of the numbers of a row.
    columns
        (rows,) or (rows, c) arrays.
    """
    for first in range(0, len(columns[0]), _LINES):
        pieces = [one[first : first + _LINES] for one in columns]
        rows = zip(*(piece.reshape(len(piece), -1).tolist() for piece in pieces), strict=True)
        stream.write("".join(line % tuple(number for part in row for number in part) for row in rows))


def in_columns(values: np.ndarray) -> np.ndarray:
    """Return values with those that no column has room for as zero. Not collective."""
    return np.where(np.abs(values) < _LEAST, 0.0, values)
