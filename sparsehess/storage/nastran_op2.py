"""Matrices of OUTPUT2 files of Nastran.

MSC Nastran DMAP Programmer's Guide, "OUTPUT2": data blocks of records of Fortran, each behind a record of its
length in words. A block is its name, -1, a trailer (…, columns, rows, form, type), -2 and a header, then logical
records -3, -4, …, each with 1 and its kind: 1 is a column of a matrix, strings of a first row and entries; 0 a
record of a table, or, with no words, the end.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sparsehess.errors import InputError
from sparsehess.storage.found_matrix import Found, choose_matrix
from sparsehess.storage.memory_claims import bytes_of
from sparsehess.storage.nastran_strings import Strings, integers_at, record_at

# Bytes of a word, as the first record has them, and words of a trailer and of the name of a block.
_NARROW, _WIDE, _TRAILER, _NAME = 4, 8, 7, 2

# Words of the first record of a file with a head, which is a date.
_DATE = 3


def load_op2(path: Path, name: str | None) -> Found:
    """Return the matrix of this name, or the only one there is.

    Not collective. Tables, such as results and MATPOOL, are passed over.

    Raises
    ------
    InputError
        There is none, it is complex, or records do not belong together.
    """
    file = _File(path)
    held: dict[str, Strings] = {}
    several: set[str] = set()
    while (block := file.next_block()) is not None:
        key, found = block
        if found is not None:
            if key in held:
                several.add(key)
            held.setdefault(key, found)
    key, strings = choose_matrix(path, held, name, "; results and tables of an OP2 file are passed over", several)
    values = strings.values(path, key, file.markers, file.wide, file.order)
    return strings.found(path, f"OP2{', 64 bits' if file.wide else ''}", key, values)


class _File:
    """The records of a file, one after another.

    Attributes
    ----------
    markers
        The file as integers of four bytes.
    wide, order
        Whether its words have eight; `<` or `>`.
    """

    def __init__(self, path: Path):
        data = np.memmap(path, np.uint8, "r")
        first = data[:4].tobytes()
        sizes = {int.from_bytes(first, "little"): "<", int.from_bytes(first, "big"): ">"}
        length = next((size for size in sizes if size in (_NARROW, _WIDE)), None)
        if length is None:
            raise InputError(f"{path}: no OP2 file: it does not begin with a record of one word")
        self._path, self.order, self.wide = path, sizes[length], length == _WIDE
        self.markers = data[: bytes_of(data.shape, 1) // 4 * 4].view(f"{self.order}i4")
        self._place = 0
        if self._peek() == _DATE:
            self._skip_head()

    def _marker(self) -> int:
        """Return the next record, which is one word."""
        begin, end = record_at(self._path, self.markers, self._place)
        if end - begin != (2 if self.wide else 1):
            raise InputError(
                f"{self._path}: a record of {4 * (end - begin)} bytes where a word should be: damaged"
            )
        self._place = end + 1
        return integers_at(self.markers, begin, 1, self.wide, self.order)[0]

    def _peek(self) -> int:
        place = self._place
        number = self._marker()
        self._place = place
        return number

    def _record(self, words: int) -> int:
        """Return where the words of the next record begin, which has so many."""
        begin, end = record_at(self._path, self.markers, self._place)
        if end - begin != words * (2 if self.wide else 1):
            raise InputError(f"{self._path}: a record of {4 * (end - begin)} bytes, not of {words} words: damaged")
        self._place = end + 1
        return begin

    def _expect(self, *numbers: int) -> None:
        for number in numbers:
            if (found := self._marker()) != number:
                raise InputError(f"{self._path}: {found} where {number} should be between records: damaged")

    def _skip_head(self) -> None:
        """Pass over date, title and label."""
        while (words := self._marker()) > 0:
            self._record(words)
        if self._peek() == 0:
            self._marker()

    def next_block(self) -> tuple[str, Strings | None] | None:
        """Return the name of the next data block, and the strings of a matrix; None at the end. Not collective."""
        if self._place >= len(self.markers) or (words := self._marker()) == 0:
            return None
        begin = self._record(words)
        text = self.markers[begin : self._place - 1].tobytes().decode("ascii", "replace")
        while self._peek() > 0:  # newer versions tell which they are
            self._record(self._marker())
        self._expect(-1, _TRAILER)
        trailer = integers_at(self.markers, self._record(_TRAILER), _TRAILER, self.wide, self.order)
        columns_told, rows, form, kind = trailer[1:5]
        strings = Strings(columns_told, rows, form, kind)
        columns, number = 0, -2
        while True:
            self._expect(number, 1)
            if self._marker() == 1:
                columns += 1
                self._column(strings, columns)
            elif self._peek() == 0:
                self._marker()
                return text.replace(" ", ""), strings if columns and columns <= strings.columns else None
            else:
                while self._peek() > 0:
                    self._record(self._marker())
            number -= 1

    def _column(self, strings: Strings, column: int) -> None:
        """Add the strings of a column."""
        strings.sparse = True
        step = 2 if self.wide else 1
        while self._peek() > 0:
            words = self._marker()
            begin = self._record(words + 1)  # the first row beside so many
            (row,) = integers_at(self.markers, begin, 1, self.wide, self.order)
            strings.add(column, row, words, begin + step)
