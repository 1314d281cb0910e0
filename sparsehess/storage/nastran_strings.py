"""Matrices of Nastran's binary files as strings of entries of columns, gathered all at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import scipy.sparse

from sparsehess.errors import InputError
from sparsehess.storage.found_matrix import Found, in_range, is_completed, symmetric_of
from sparsehess.storage.matrix_market import check_sizes
from sparsehess.storage.memory_claims import PER_TRIPLE, require_memory

_SYMMETRIC = 6
_TYPES = {1: "real single", 2: "real double", 3: "complex single", 4: "complex double"}


@dataclass
class Strings:
    """One matrix: what its header says, and where strings of entries stand.

    Attributes
    ----------
    columns, rows, form, kind
        Sizes; square, rectangular or symmetric; single or double, real or complex.
    big
        Whether strings have their lengths and rows in two words.
    column, row, count, place
        Of each string: its column, its first row, from 1, its length in words or numbers, the word it begins at.
    sparse
        Whether any column is of strings.
    """

    columns: int
    rows: int
    form: int
    kind: int
    big: bool = False
    column: list[int] = field(default_factory=list)
    row: list[int] = field(default_factory=list)
    count: list[int] = field(default_factory=list)
    place: list[int] = field(default_factory=list)
    sparse: bool = False

    def add(self, column: int, row: int, count: int, place: int = 0) -> None:
        """Add a string. Not collective."""
        self.column.append(column)
        self.row.append(row)
        self.count.append(count)
        self.place.append(place)

    def check(self, path: Path, name: str) -> None:
        """Refuse a matrix that is complex, or of an unknown type. Not collective."""
        if self.kind not in (1, 2):
            kind = _TYPES.get(self.kind, f"of type {self.kind}")
            raise InputError(f"{path}: {name} is {kind}: real matrices are read")

    def values(self, path: Path, name: str, markers: np.ndarray, wide: bool, order: str) -> np.ndarray:
        """Return the numbers of all strings, whose lengths are then counted in numbers.

        Not collective.

        Parameters
        ----------
        markers
            The file as integers of four bytes.
        wide
            Whether its words have eight.
        order
            `<` or `>`.
        """
        self.check(path, name)
        per = 1 if wide or self.kind == 1 else 2
        if any(number % per for number in self.count):
            raise InputError(f"{path}: {name} has a string of half a number: damaged")
        self.count = [number // per for number in self.count]
        require_memory(path, f"the matrix {name}", sum(self.count) * PER_TRIPLE)
        counts = np.array(self.count, np.int64)
        words = 2 if wide or self.kind == 2 else 1  # of four bytes
        within = _spread(np.zeros(len(counts), np.int64), counts)
        first = np.repeat(np.array(self.place, np.int64), counts) + words * within
        parts = np.empty((len(first), words), markers.dtype)  # in the file's order of bytes
        for i in range(words):
            parts[:, i] = markers[first + i]
        return parts.view(f"{order}f{4 * words}").ravel().astype(np.float32 if words == 1 else np.float64)

    def found(self, path: Path, form: str, name: str, values: np.ndarray, text: bool = False) -> Found:
        """Return the matrix of the numbers of all strings.

        Not collective.
        """
        check_sizes(path, self.rows, self.columns, len(values), len(values))
        counts = np.array(self.count, np.int64)
        column = np.repeat(np.array(self.column, np.int64), counts)
        row = _spread(np.array(self.row, np.int64), counts)
        in_range(path, column, 1, self.columns, "a column")
        in_range(path, row, 1, self.rows, "a row")
        entries = scipy.sparse.coo_matrix((values, (row - 1, column - 1)), (self.rows, self.columns))
        form = f"Nastran {form}, {_TYPES[self.kind]}, {name}, form {self.form}"
        if self.form != _SYMMETRIC or self.rows != self.columns:
            return Found(entries.tocsr(), form, text=text)
        matrix, word = symmetric_of(path, entries)
        return Found(matrix, f"{form}, {word}", text=text, completed=is_completed(word))


def _spread(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the numbers from each start on, so many of each, one after another."""
    ends = np.cumsum(counts)
    return np.repeat(starts - (ends - counts), counts) + np.arange(int(ends[-1]) if len(ends) else 0)


def record_at(path: Path, markers: np.ndarray, place: int) -> tuple[int, int]:
    """Return where the words of a record of Fortran begin and end.

    Not collective.

    Raises
    ------
    InputError
        Its length does not stand on both sides of it.
    """
    length = int(markers[place]) if place < len(markers) else -1
    end = place + 1 + length // 4
    if length < 0 or length % 4 or end >= len(markers) or int(markers[end]) != length:
        raise InputError(f"{path}: a record of {length} bytes does not end where it says: damaged or truncated")
    return place + 1, end


def integers_at(markers: np.ndarray, begin: int, many: int, wide: bool, order: str) -> list[int]:
    """Return so many integers from a word on. Not collective."""
    step = 2 if wide else 1
    raw = np.ascontiguousarray(markers[begin : begin + step * many])
    return [int(one) for one in (raw.view(f"{order}i8") if wide else raw)]
