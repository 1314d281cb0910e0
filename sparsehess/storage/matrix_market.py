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
from sparsehess.storage.array_archives import MOST_SHRUNK
from sparsehess.storage.compressed_rows import CompressedRows
from sparsehess.storage.memory_claims import PER_ROW, PER_TRIPLE, require_memory

# Entries that stand in for each other may differ by this part of the largest.
MOST_UNEQUAL = 1e-6

# Bytes that are read at a time, of which a line has far fewer; and lines that are not blank, beyond those claimed.
_PIECE, _LINE = 2**20, 2**16

# Entries of a dense matrix that are read at a time.
_TOGETHER = 2**18

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
        No such head, or more entries than the file can hold.
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
    if told.symmetry not in ("general", "symmetric", "hermitian", "skew-symmetric"):
        raise InputError(f"{path}: general, symmetric, skew-symmetric or Hermitian, not {told.symmetry}")
    if told.entries > told.rows * told.columns * (1 if told.rows * told.columns > _PIECE else _PIECE):
        raise InputError(
            f"{path}: claims {told.entries} entries of {told.rows} x {told.columns}, more than there are places: "
            "damaged"
        )
    stored = told.entries if told.symmetry == "general" else 2 * told.entries
    require_memory(path, "its entries", stored * PER_TRIPLE + told.rows * PER_ROW)
    from scipy.io import mmread  # 20 ms on every rank, and needed on one

    # Sparse arrays, or matrices where SciPy reads no arrays.
    kind = {"spmatrix": False} if "spmatrix" in inspect.signature(mmread).parameters else {}
    with _opener(path)(path, "rb") as stream:
        head = _skip_head(path, stream)
        try:
            entries = mmread(io.BufferedReader(_Entries(path, stream, head), _PIECE), **kind)
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
    return with_other_triangle(path, entries, told.symmetry)


def with_other_triangle(path: Path, entries: Any, symmetry: str) -> tuple[Any, tuple[str, ...]]:
    """Return the whole of a symmetric, skew or Hermitian matrix whose head says so, and what is to be said of it.

    Each entry stands for its mirror too. A file of both triangles, each entry once, is the whole matrix already.
    """
    row, column, data = entries.row.astype(np.int64), entries.col.astype(np.int64), entries.data
    mirrored = data.conj() if symmetry == "hermitian" else -data if symmetry == "skew-symmetric" else data
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


def _nearly_equal(one: Any, other: Any) -> bool:
    """Return whether arrays, or sparse matrices of one shape, differ by little; not where one has a nan."""
    apart = one - other
    sizes = [np.abs(part.data if scipy.sparse.issparse(part) else part) for part in (apart, one)]
    return bool(sizes[0].max(initial=0.0) <= MOST_UNEQUAL * sizes[1].max(initial=0.0))


def _short_line(path: Path, stream: BinaryIO) -> bytes:
    """Return the next line of a stream, which must end."""
    line = stream.readline(_LINE + 1)
    if len(line) > _LINE:
        raise _endless(path)
    return line


def _endless(path: Path) -> InputError:
    return InputError(f"{path}: a line of more than {_LINE} bytes: damaged, or no matrix; an entry is a line")


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

    def __init__(self, path: Path, stream: BinaryIO, head: MatrixMarketHead) -> None:
        kind = {"double": "real"}.get(head.kind, head.kind)
        words = f"%%MatrixMarket matrix coordinate {kind} general\n{head.rows} {head.columns} {head.entries}\n"
        self._path, self._stream, self._left, self._more = path, stream, words.encode(), True
        self._claimed, self._since, self._lines = head.entries, 0, 0  # bytes since a line began, lines so far

    def readable(self) -> bool:
        """Return True. Not collective."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer; return the number of bytes read. Not collective."""
        data = self._left or self._checked(self._without_comments(len(buffer))).translate(_AS_READ)
        if not data and self._more:
            self._more, data = False, b"\n"
        self._left = data[len(buffer) :]
        data = data[: len(buffer)]
        buffer[: len(data)] = data
        return len(data)

    def _checked(self, data: bytes) -> bytes:
        """Return bytes after a look at whether lines end, and are not far more than the head claims."""
        last = data.rfind(b"\n")
        self._since = len(data) - last - 1 if last >= 0 else self._since + len(data)
        if self._since > _LINE:
            raise _endless(self._path)
        self._lines += data.count(b"\n")
        if self._lines > 4 * self._claimed + _LINE:
            raise InputError(f"{self._path}: claims {self._claimed} entries and has far more lines: damaged")
        return data

    def _without_comments(self, size: int) -> bytes:
        """Return about so many bytes of whole or broken lines without those of comments; none at the end."""
        while data := self._stream.read(size):
            if b"%" not in data:
                return data
            lines = (data + _short_line(self._path, self._stream)).splitlines(keepends=True)
            kept = b"".join(line for line in lines if not line.lstrip().startswith(b"%"))
            if kept:
                return kept
        return b""


def _dense(path: Path, told: MatrixMarketHead) -> tuple[scipy.sparse.csr_matrix, tuple[str, ...]]:
    """Return the sparse matrix of a file of format array, and what is to be said of it.

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
    lower, more = _columns_of_dense(path, told, symmetry == "general")
    if symmetry == "general" or more:
        if more and symmetry != "general":
            lower, more = _columns_of_dense(path, told, True)
        if more:
            raise InputError(f"{path}: claims {_wanted(told, symmetry == 'general')} values and has more: damaged")
        whole = lower.T.tocsr()
        if symmetry == "general":
            return whole, ()
        mirror = lower.conj() if symmetry == "hermitian" else lower
        if not _nearly_equal(whole, mirror):
            raise InputError(f"{path}: its head says {symmetry}, and both triangles are stored, which differ")
        return whole, (f"the head says {symmetry}, both triangles are stored: each entry is taken once",)
    above = scipy.sparse.triu(lower, 1, format="csr")  # the columns of the lower triangle are rows here
    return (lower.T.tocsr() + (above.conj() if symmetry == "hermitian" else above)).tocsr(), ()


def _wanted(told: MatrixMarketHead, whole: bool) -> int:
    """Return the number of values of a dense matrix, or of its lower triangle."""
    return told.rows * told.columns if whole else told.rows * (told.rows + 1) // 2


def _columns_of_dense(path: Path, told: MatrixMarketHead, whole: bool) -> tuple[scipy.sparse.csr_matrix, bool]:
    """Return the columns of a dense matrix, or of its lower triangle, as rows; and whether more values follow."""
    rows, columns, number = told.rows, told.columns, _NUMBERS[told.kind]
    kind = np.dtype(np.complex128 if number is _pair else np.float64)
    made = CompressedRows(path, (columns, rows), _wanted(told, whole), kind)
    together, found = max(1, _TOGETHER // max(1, rows)), 0
    with _opener(path)(path, "rb") as stream:
        _skip_head(path, stream)
        lines = iter(lambda: _short_line(path, stream), b"")
        texts = (line for line in lines if line.strip() and not line.lstrip().startswith(b"%"))
        values = (number(line.translate(_AS_READ)) for line in texts)
        for first in range(0, columns, together):
            here = range(first, min(first + together, columns))
            lengths = np.array([rows if whole else rows - column for column in here])
            read = np.fromiter(islice(values, int(lengths.sum())), kind)
            found += len(read)
            if len(read) != lengths.sum():
                raise InputError(f"{path}: claims {_wanted(told, whole)} values and has {found}: damaged")
            block = np.zeros((len(here), rows), kind)
            block[np.arange(rows) >= rows - lengths[:, None]] = read
            made.add(scipy.sparse.csr_matrix(block))
        more = next(values, None) is not None
    return made.finish(), more


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
