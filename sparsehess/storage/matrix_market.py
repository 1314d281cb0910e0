"""A reader of Matrix Market files; sizes in the head are checked before memory is taken.

Boisvert, Pozo, Remington 1996, "The Matrix Market exchange formats: initial design".
"""

from __future__ import annotations

import codecs
import gzip
import inspect
import io
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import scipy.sparse

from sparsehess.errors import InputError

# Deflate cannot shrink by more than this.
MOST_SHRUNK = 1032

# Entries that stand in for each other may differ by this part of the largest.
MOST_UNEQUAL = 1e-6

# Bytes that are read at a time.
_PIECE = 2**20

# Bytes as they are read: exponents of Fortran, and no zero bytes.
_AS_READ = bytes.maketrans(b"Dd\0", b"Ee?")


@dataclass(frozen=True)
class MatrixMarketHead:
    """The head of a Matrix Market file: sizes, format, kind, symmetry.

    Attributes
    ----------
    rows, columns, entries
        Sizes; of format array all entries, of format coordinate those that are stored.
    coordinate
        Whether the format is coordinate, else array.
    kind, symmetry
        `real`, `integer`, `complex`, `pattern` …; `general`, `symmetric`, `hermitian`.
    """

    rows: int
    columns: int
    entries: int
    coordinate: bool
    kind: str
    symmetry: str


def read_head(path: Path) -> MatrixMarketHead:
    """Return the sizes and kinds in the head of a file, checked against its bytes.

    Not collective.

    Raises
    ------
    InputError
        No such head, a skew-symmetric matrix, or more entries than the file can hold.
    """
    size = os.path.getsize(path) * (MOST_SHRUNK if path.suffix == ".gz" else 1)
    with _opener(path)(path, "rb") as stream:
        told = _skip_head(path, stream)
        each = 2 if told.kind == "pattern" else 4 if told.kind == "complex" else 3
        line = _next_line(stream).split()
        if told.coordinate and line and len(line) != each:
            raise InputError(
                f"{path}: its head says {told.kind}: {each} numbers a line, not {len(line)} as in the first"
            )
    least = 4 if told.coordinate else 2
    check_sizes(path, told.rows, told.columns, told.entries, size // least * (1 if told.coordinate else 2))
    return told


def _skip_head(path: Path, stream: BinaryIO) -> MatrixMarketHead:
    """Return the head of a stream, which is then where the numbers begin."""
    first = stream.readline(1024).removeprefix(codecs.BOM_UTF8)
    banner = first.decode("ascii", "replace").lower().split()
    if len(banner) < 5 or banner[0] != "%%matrixmarket":
        raise InputError(f"{path}: no Matrix Market banner in the first line{_what_it_may_be(first, stream)}")
    form, kind, symmetry = banner[2:5]
    if symmetry == "skew-symmetric":
        raise InputError(f"{path}: a Hessian is symmetric or Hermitian; this matrix is {kind}, {symmetry}")
    coordinate = form == "coordinate"
    numbers = [int(word) for word in _next_line(stream).split()]
    if len(numbers) != (3 if coordinate else 2):
        raise InputError(f"{path}: no line of sizes behind the banner")
    rows, columns = numbers[:2]
    return MatrixMarketHead(
        rows, columns, numbers[2] if coordinate else rows * columns, coordinate, kind, symmetry
    )


def _next_line(stream: BinaryIO) -> bytes:
    """Return the next line of a stream that is no comment and not blank; nothing at its end."""
    line = stream.readline(4096)
    while line and (not line.strip() or line.lstrip().startswith(b"%")):
        line = stream.readline(4096)
    return line


def _what_it_may_be(first: bytes, stream: BinaryIO) -> str:
    """Return what a file without a banner looks like, and what to do about it."""
    words = first.decode("ascii", "replace").replace(",", " ").split()
    if words and all(_is_number(word) for word in words):
        if len(words) == 3:
            return (
                ": it begins with three numbers; if they are row, column and value, numbered from 1, write "
                '"%%MatrixMarket matrix coordinate real general" and a line "rows columns entries" before them'
            )
        return (
            ": it begins with numbers, which is another program's format: write row, column and value of entries"
        )
    stream.readline(1024)
    if re.match(rb"[RCP][SUHZR]A\s", stream.readline(1024).upper()):
        return ": this is a Harwell-Boeing file, as scipy.io.hb_read reads it; scipy.io.mmwrite writes this format"
    return ""


def _is_number(word: str) -> bool:
    try:
        float(word.upper().replace("D", "E"))
    except ValueError:
        return False
    return True


def load_matrix_market(path: Path) -> tuple[Any, tuple[str, ...]]:
    """Return the matrix of a file, sparse or dense as it is stored, and what is to be said of it.

    Not collective.
    """
    told = read_head(path)
    if not told.coordinate:
        return _dense(path, told)
    if told.symmetry not in ("general", "symmetric", "hermitian"):
        raise InputError(f"{path}: general, symmetric or Hermitian, not {told.symmetry}")
    from scipy.io import mmread  # 20 ms on every rank, and needed on one

    # Sparse arrays, or matrices where SciPy reads no arrays.
    kind = {"spmatrix": False} if "spmatrix" in inspect.signature(mmread).parameters else {}
    with _opener(path)(path, "rb") as stream:
        head = _skip_head(path, stream)
        try:
            entries = mmread(io.BufferedReader(_Entries(stream, head), _PIECE), **kind)
        except ValueError as error:
            if "index" not in str(error).lower():
                raise
            raise InputError(
                f"{path}: an entry has a row or column outside 1 to {head.rows}, 1 to {head.columns}; files of "
                "Matrix Market number them from 1"
            ) from error
    if told.symmetry == "general":
        return entries, ()
    if told.rows != told.columns:
        raise InputError(f"{path}: {told.symmetry}, but {told.rows} x {told.columns}")
    return _with_other_triangle(path, entries, told.symmetry)


def _with_other_triangle(path: Path, entries: Any, symmetry: str) -> tuple[Any, tuple[str, ...]]:
    """Return the whole of a symmetric or Hermitian matrix whose head says so, and what is to be said of it.

    Each entry stands for its mirror too. A file of both triangles, each entry once, is the whole matrix already.
    """
    row, column, data = entries.row.astype(np.int64), entries.col.astype(np.int64), entries.data
    mirrored = data.conj() if symmetry == "hermitian" else data
    said: tuple[str, ...] = ()
    below, above = row > column, row < column
    if below.any() and above.any():
        shape, sums = entries.shape, []
        for values, i, j, here in ((data, row, column, below), (mirrored, column, row, above)):
            one = scipy.sparse.csr_matrix((values[here], (i[here], j[here])), shape)
            one.sum_duplicates()
            sums.append(one)
        lower, upper = sums
        both = _number_in_both(lower, upper)
        if both == lower.nnz == upper.nnz and _nearly_equal(lower.data, upper.data):
            diagonal = row[(row == column) & (data != 0)]
            if both != below.sum() or both != above.sum() or len(np.unique(diagonal)) != len(diagonal):
                raise InputError(
                    f"{path}: its head says {symmetry}, both triangles are stored, and entries several times: "
                    "write general in the first line if these are all entries, or one triangle alone"
                )
            return entries, (f"the head says {symmetry}, both triangles are stored: each entry is taken once",)
        if both:
            said = (f"{both} entries stand in both triangles, and the head says {symmetry}: they are summed",)
    off = row != column
    parts = np.concatenate([row, column[off]]), np.concatenate([column, row[off]])
    return scipy.sparse.coo_matrix((np.concatenate([data, mirrored[off]]), parts), entries.shape), said


def _number_in_both(one: scipy.sparse.csr_matrix, other: scipy.sparse.csr_matrix) -> int:
    """Return the number of places that two matrices without duplicates both store."""
    first, second = (
        np.repeat(np.arange(matrix.shape[0], dtype=np.int64), np.diff(matrix.indptr)) * matrix.shape[1]
        + matrix.indices
        for matrix in (one, other)
    )
    return len(np.intersect1d(first, second, assume_unique=True))


def _nearly_equal(one: np.ndarray, other: np.ndarray) -> bool:
    return bool(np.abs(one - other).max() <= MOST_UNEQUAL * np.abs(one).max())


def check_sizes(path: Path, rows: int, columns: int, entries: int, most_entries: int) -> None:
    """Raise InputError for sizes that the file cannot hold, before memory is taken for them.

    Not collective.
    """
    if min(rows, columns, entries) < 0 or entries > most_entries:
        raise InputError(
            f"{path}: claims {entries} entries, but holds at most {most_entries}: truncated or damaged; write "
            "it anew"
        )
    if max(rows, columns) > max(64 * entries, 2**20):
        raise InputError(f"{path}: claims {rows} x {columns} with {entries} entries: damaged")


def _opener(path: Path) -> Callable[[Path, str], Any]:
    return gzip.open if path.suffix == ".gz" else open


class _Entries(io.RawIOBase):
    """The stream of a file of format coordinate behind its head, as SciPy reads it without harm.

    A new head says general: what its symmetry stands for is seen to here. Exponents may be Fortran's, 1.5D+03, and
    comments stand among the entries. The last line ends, and a zero byte becomes a question mark, which the reader
    refuses: it runs beyond both.
    """

    def __init__(self, stream: BinaryIO, head: MatrixMarketHead) -> None:
        kind = {"double": "real"}.get(head.kind, head.kind)
        words = f"%%MatrixMarket matrix coordinate {kind} general\n{head.rows} {head.columns} {head.entries}\n"
        self._stream, self._left, self._more = stream, words.encode(), True

    def readable(self) -> bool:
        """Return True. Not collective."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer; return the number of bytes read. Not collective."""
        data = self._left or self._without_comments(len(buffer)).translate(_AS_READ)
        if not data and self._more:
            self._more, data = False, b"\n"
        self._left = data[len(buffer) :]
        data = data[: len(buffer)]
        buffer[: len(data)] = data
        return len(data)

    def _without_comments(self, size: int) -> bytes:
        """Return about so many bytes of whole or broken lines without those of comments; none at the end."""
        while data := self._stream.read(size):
            if b"%" not in data:
                return data
            lines = (data + self._stream.readline()).splitlines(keepends=True)
            kept = b"".join(line for line in lines if not line.lstrip().startswith(b"%"))
            if kept:
                return kept
        return b""


def _dense(path: Path, told: MatrixMarketHead) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the array of a Matrix Market file of format array, and what is to be said of it.

    SciPy's reader writes beyond the end of its array where a file has more values than its head says.
    """
    rows, columns, field, symmetry = told.rows, told.columns, told.kind, told.symmetry
    if field not in _NUMBERS or symmetry not in ("general", "symmetric", "hermitian"):
        raise InputError(
            f"{path}: an array is real, integer or complex, general, symmetric or Hermitian; "
            f"not {field}, {symmetry}"
        )
    if symmetry != "general" and rows != columns:
        raise InputError(f"{path}: {symmetry}, but {rows} x {columns}")
    wanted = rows * columns if symmetry == "general" else rows * (rows + 1) // 2
    with _opener(path)(path, "rb") as stream:
        _skip_head(path, stream)
        lines = (line for line in stream if line.strip() and not line.lstrip().startswith(b"%"))
        number = _NUMBERS[field]
        kind = np.complex128 if number is _pair else np.float64
        # One more than there can be tells as much as all that a file may hold beyond its claim.
        values = np.fromiter(
            (number(line.translate(_AS_READ)) for line in islice(lines, rows * columns + 1)), kind
        )
    whole = values.reshape((rows, columns), order="F") if len(values) == rows * columns else None
    if whole is not None and wanted < len(values):
        if not _nearly_equal(whole, whole.conj().T if symmetry == "hermitian" else whole.T):
            raise InputError(f"{path}: its head says {symmetry}, and both triangles are stored, which differ")
        return whole, (f"the head says {symmetry}, both triangles are stored: each entry is taken once",)
    if len(values) != wanted:
        has = "more" if len(values) > wanted else len(values)
        raise InputError(f"{path}: claims {wanted} values and has {has}: damaged")
    if whole is not None:
        return whole, ()
    whole = np.zeros((rows, rows), values.dtype)
    upper = np.triu_indices(rows)  # by rows what the lower triangle is by columns
    whole[upper] = values.conj() if symmetry == "hermitian" else values
    whole.T[upper] = values
    return whole, ()


def _pair(line: bytes) -> complex:
    real, imaginary = line.split()
    return complex(float(real), float(imaginary))


# How a line of an array is read.
_NUMBERS: dict[str, Callable[[bytes], complex]] = {
    "real": float,
    "double": float,
    "integer": float,
    "complex": _pair,
}
