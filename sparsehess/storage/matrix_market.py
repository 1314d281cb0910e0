"""A reader of Matrix Market files; sizes in the head are checked before memory is taken.

Boisvert, Pozo, Remington 1996, "The Matrix Market exchange formats: initial design".
"""

from __future__ import annotations

import gzip
import inspect
import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from sparsehess.errors import InputError

# Deflate cannot shrink by more than this.
MOST_SHRUNK = 1032


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
        banner = stream.readline(1024).decode("ascii", "replace").split()
        if len(banner) < 5 or banner[0] != "%%MatrixMarket":
            raise InputError(f"{path}: no Matrix Market banner in the first line")
        line = stream.readline(4096)
        while line.startswith(b"%") or (line and not line.strip()):
            line = stream.readline(4096)
        numbers = [int(word) for word in line.split()]
    form, kind, symmetry = (word.lower() for word in banner[2:5])
    if symmetry == "skew-symmetric":
        raise InputError(f"{path}: a Hessian is symmetric or Hermitian; this matrix is {kind}, {symmetry}")
    coordinate = form == "coordinate"
    if len(numbers) != (3 if coordinate else 2):
        raise InputError(f"{path}: no line of sizes behind the banner")
    rows, columns = numbers[:2]
    entries = numbers[2] if coordinate else rows * columns
    check_sizes(path, rows, columns, entries, size // (4 if coordinate else 2) * (1 if coordinate else 2))
    return MatrixMarketHead(rows, columns, entries, coordinate, kind, symmetry)


def load_matrix_market(path: Path) -> Any:
    """Return the matrix of a file, sparse or dense as it is stored.

    Not collective.
    """
    told = read_head(path)
    if not told.coordinate:
        return _dense(path, told)
    if path.suffix != ".gz" and _is_text(path):
        return _read(path)
    with _opener(path)(path, "rb") as stream:
        return _read(io.BufferedReader(_Text(stream)))


def _read(source: Path | io.BufferedReader) -> Any:
    """Return the sparse array of a file, or a sparse matrix where SciPy reads no arrays."""
    from scipy.io import mmread  # 20 ms on every rank, and needed on one

    kind = {"spmatrix": False} if "spmatrix" in inspect.signature(mmread).parameters else {}
    return mmread(source, **kind)


def check_sizes(path: Path, rows: int, columns: int, entries: int, most_entries: int) -> None:
    """Raise InputError for sizes that the file cannot hold, before memory is taken for them.

    Not collective.
    """
    if min(rows, columns, entries) < 0 or entries > most_entries:
        raise InputError(
            f"{path}: claims {entries} entries, but holds at most {most_entries}: truncated or damaged"
        )
    if max(rows, columns) > max(64 * entries, 2**20):
        raise InputError(f"{path}: claims {rows} x {columns} with {entries} entries: damaged")


def _opener(path: Path) -> Callable[[Path, str], Any]:
    return gzip.open if path.suffix == ".gz" else open


def _is_text(path: Path) -> bool:
    """Return whether a file has no zero bytes and ends with a line end."""
    with open(path, "rb") as stream:
        last = b""
        while piece := stream.read(2**20):
            if b"\0" in piece:
                return False
            last = piece
    return last.endswith(b"\n")


class _Text(io.RawIOBase):
    """A stream whose last line ends and that has no zero bytes: SciPy's reader runs beyond both.

    A zero byte becomes a question mark, which the reader refuses.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._more = stream, True

    def readable(self) -> bool:
        """Return True. Not collective."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer; return the number of bytes read. Not collective."""
        data = self._stream.read(len(buffer)).replace(b"\0", b"?")
        if not data and self._more:
            self._more, data = False, b"\n"
        buffer[: len(data)] = data
        return len(data)


def _dense(path: Path, told: MatrixMarketHead) -> np.ndarray:
    """Return the array of a Matrix Market file of format array.

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
        lines = (line for line in stream if line.strip() and not line.startswith(b"%"))
        next(lines)  # the sizes
        number = _NUMBERS[field]
        kind = np.complex128 if number is _pair else np.float64
        # One more than there should be tells as much as all that a file may hold beyond its claim.
        values = np.fromiter((number(line) for line in islice(lines, wanted + 1)), kind)
    if len(values) != wanted:
        has = "more" if len(values) > wanted else len(values)
        raise InputError(f"{path}: claims {wanted} values and has {has}: damaged")
    if symmetry == "general":
        return values.reshape((rows, columns), order="F")
    whole = np.zeros((rows, rows), values.dtype)
    upper = np.triu_indices(rows)  # by rows what the lower triangle is by columns
    whole[upper] = values.conj() if symmetry == "hermitian" else values
    whole.T[upper] = values
    return whole


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
