"""OUTPUT4 files of Nastran, binary and text, dense and sparse.

MSC Nastran DMAP Programmer's Guide, "OUTPUT4": of each matrix a header (columns, rows, form, type, name), then a
record of each column that is not zero (column, first row, words, entries), and one of a column beyond the last. Of
sparse matrices the first row is 0, and strings of entries follow, each behind a word (its length + 1) * 65536 +
first row, or, where the header has a negative number of rows (BIGMAT), behind two words, its length + 1 and first
row. Lengths are in words of four bytes, or of eight where integers have so many.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np

from sparsehess.errors import InputError
from sparsehess.storage.found_matrix import Found, choose_matrix
from sparsehess.storage.memory_claims import require_memory
from sparsehess.storage.nastran_numbers import reals_of
from sparsehess.storage.nastran_strings import Strings, integers_at, record_at

# How a text writes numbers: five of 16 characters, as 1P,5E16.9.
_FORMAT = re.compile(rb"(\d+)\s*[EDeda]\s*(\d+)\.\d+")

# Integers of a text that are wider than eight characters, as 1P,3E23.16|I16.
_WIDE_INTEGERS = re.compile(rb"\|\s*I\s*(\d+)\s*$")


def load_op4(path: Path, name: str | None) -> Found:
    """Return the matrix of this name, or the only one there is.

    Not collective.

    Raises
    ------
    InputError
        There is none, it is complex, or records do not belong together.
    """
    with open(path, "rb") as stream:
        head = stream.read(4)
    binary = any(head == number.to_bytes(4, order) for number in (24, 48) for order in ("little", "big"))
    return _load_binary(path, name) if binary else _load_text(path, name)


# --- binary ----------------------------------------------------------------------------


def _load_binary(path: Path, name: str | None) -> Found:
    size = os.path.getsize(path)
    data = np.memmap(path, np.uint8, "r")
    order = "<" if int.from_bytes(data[:4].tobytes(), "little") in (24, 48) else ">"
    markers = data[: size // 4 * 4].view(f"{order}i4")
    wide = int(markers[0]) == 48
    held: dict[str, Strings] = {}
    several: set[str] = set()
    place = 0  # in words of four bytes, of markers
    while place < len(markers):
        place, key, told = _scan_matrix(path, markers, place, wide, order)
        if key in held:
            several.add(key)
        held.setdefault(key, told)
    key, told = choose_matrix(path, held, name, "", several)
    values = told.values(path, key, markers, wide, order)
    style = ("sparse" if told.sparse else "dense") + (", 64 bits" if wide else "")
    return told.found(path, f"OP4, binary {style}", key, values)


def _scan_matrix(path: Path, markers: np.ndarray, place: int, wide: bool, order: str) -> tuple[int, str, Strings]:
    """Return where the next matrix begins, and name and strings of the one that begins here."""
    step = 2 if wide else 1
    begin, end = record_at(path, markers, place)
    if end - begin != (12 if wide else 6):
        raise InputError(f"{path}: a header of {4 * (end - begin)} bytes: damaged, or no OP4 file")
    columns, rows, form, kind = integers_at(markers, begin, 4, wide, order)
    key = markers[begin + 4 * step : end].tobytes().decode("ascii", "replace").strip()
    told = Strings(columns, abs(rows), form, kind, big=rows < 0)
    if min(columns, told.rows) <= 0:
        raise InputError(f"{path}: {key} claims {columns} columns of {rows} rows: damaged")
    place = end + 1
    while place < len(markers):
        begin, end = record_at(path, markers, place)
        if end - begin < 3 * step:
            raise InputError(f"{path}: a column of {4 * (end - begin)} bytes: damaged")
        column, row, _ = integers_at(markers, begin, 3, wide, order)
        place = end + 1
        if column > columns:
            return place, key, told
        _add_column(path, told, markers, (begin + 3 * step, end), (column, row), (wide, order))
    raise InputError(f"{path}: {key} ends before its last column: truncated")


def _add_column(
    path: Path,
    told: Strings,
    markers: np.ndarray,
    room: tuple[int, int],
    where: tuple[int, int],
    width: tuple[bool, str],
) -> None:
    """Add the strings of a column: the whole of a dense one."""
    (begin, end), (column, row), (wide, order) = room, where, width
    step = 2 if wide else 1
    if row > 0:
        told.add(column, row, (end - begin) // step, begin)
        return
    told.sparse = True
    while begin < end:
        if told.big:
            length, row = integers_at(markers, begin, 2, wide, order)
            begin += 2 * step
            length -= 1
        else:
            (word,) = integers_at(markers, begin, 1, wide, order)
            begin += step
            length, row = (word >> 16) - 1, word & 0xFFFF
        if length <= 0 or begin + length * step > end:
            raise InputError(f"{path}: a string of {length} words in column {column}: damaged")
        told.add(column, row, length, begin)
        begin += length * step


# --- text ------------------------------------------------------------------------------


def _load_text(path: Path, name: str | None) -> Found:
    require_memory(path, "its lines", 6 * os.path.getsize(path))
    lines = path.read_bytes().replace(b"\r", b"").split(b"\n")
    held: dict[str, tuple[Strings, list[bytes], int]] = {}
    several: set[str] = set()
    at = 0
    while at < len(lines):
        if not lines[at].strip():
            at += 1
            continue
        at, key, told, texts, width = _scan_text(path, lines, at)
        if key in held:
            several.add(key)
        held.setdefault(key, (told, texts, width))
    key, (told, texts, width) = choose_matrix(path, held, name, "", several)
    told.check(path, key)
    blob = b"".join(texts)
    if len(blob) != width * sum(told.count):
        raise InputError(f"{path}: the numbers of {key} are not {width} characters wide each: damaged")
    values = reals_of(path, np.frombuffer(blob, f"S{width}")) if blob else np.empty(0)
    return told.found(path, f"OP4, text {'sparse' if told.sparse else 'dense'}", key, values, text=True)


def _scan_text(path: Path, lines: list[bytes], at: int) -> tuple[int, str, Strings, list[bytes], int]:
    """Return the line behind a matrix, its name, its strings, the texts of their numbers, and a number's width."""
    line = lines[at]
    wide = _WIDE_INTEGERS.search(line)
    if wide and int(wide[1]) != 8:
        raise InputError(
            f"{path}: line {at + 1}: integers of {int(wide[1])} characters, which are not read: have OUTPUT4 "
            "write it in binary (FORM=UNFORMATTED), or with integers of 8"
        )
    try:
        columns, rows, form, kind = (int(line[8 * i : 8 * i + 8]) for i in range(4))
        key = line[32:40].decode("ascii", "replace").strip()
        written = _FORMAT.search(line[40:])
        each, width = (int(one) for one in written.groups()) if written else (5, 16)
    except ValueError as error:
        raise InputError(f"{path}: line {at + 1} is no header of a matrix: damaged, or no OP4 file") from error
    told, texts = Strings(columns, abs(rows), form, kind, big=rows < 0), list[bytes]()
    if min(columns, told.rows, each, width) <= 0:
        raise InputError(f"{path}: {key} claims {columns} columns of {rows} rows: damaged")
    per = 2 if kind in (2, 4) else 1  # words of a number
    at += 1
    try:
        while True:
            column, row, words = (int(lines[at][8 * i : 8 * i + 8]) for i in range(3))
            at += 1
            if column > columns:
                return at + -(-words // each), key, told, texts, width
            if row > 0:
                at = _take(told, texts, lines, (at, each, width), (column, row, words))
                continue
            told.sparse = True
            while words > 0:
                if told.big:
                    length, row = (int(lines[at][8 * i : 8 * i + 8]) for i in range(2))
                    length -= 1
                else:
                    word = int(lines[at])
                    length, row = (word >> 16) - 1, word & 0xFFFF
                if length <= 0:
                    raise InputError(f"{path}: line {at + 1}: a string of {length} words: damaged")
                words -= length + 1 + told.big
                at = _take(told, texts, lines, (at + 1, each, width), (column, row, length // per))
    except IndexError as error:
        raise InputError(f"{path}: {key} ends before its last column: truncated") from error
    except ValueError as error:
        raise InputError(f"{path}: line {at + 1} has other numbers than a column's: damaged") from error


def _take(
    told: Strings,
    texts: list[bytes],
    lines: list[bytes],
    how: tuple[int, int, int],
    what: tuple[int, int, int],
) -> int:
    """Add a string of so many numbers, that begin on a line; return the line behind it."""
    (at, each, width), (column, row, count) = how, what
    told.add(column, row, count)
    end = at + -(-count // each)
    if end > len(lines):
        raise IndexError
    for line in lines[at:end]:
        length = -(-len(line.rstrip()) // width) * width
        texts.append(line[:length].ljust(length))
    return end
