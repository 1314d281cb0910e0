"""Lines of numbers, such as codes write them: read by pieces, and never line by line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sparsehess.errors import InputError
from sparsehess.storage.memory_claims import require_memory

# Bytes that are read at a time, and those that a line may have.
_PIECE, _LINE = 2**22, 2**26

# What stands at the beginning of a comment or a keyword.
_COMMENTS = (b"*", b"#", b"%", b"$", b"!")

# Separators become spaces, exponents of Fortran those of C, zero bytes what no number has.
_AS_READ = bytes.maketrans(b",;\tDd\0", b"   Ee?")


def read_number_lines(path: Path, columns: int | None = None) -> np.ndarray:
    """Return (lines, columns) numbers of a text; lines that begin with one of * # % $ ! are left out.

    Not collective. Numbers are separated by spaces, commas or semicolons.

    Parameters
    ----------
    columns
        Numbers that a line must have; None for as many as the first has.

    Raises
    ------
    InputError
        Lines have different lengths, or what is no number.
    """
    parts: list[np.ndarray] = []
    before = 0
    for text in _pieces(path):
        if not parts:
            first = next((line for line in text.split(b"\n") if line.strip()), b"")
            count = len(first.split())
            if columns is not None and count != columns:
                raise InputError(f"{path}: {count} numbers in the first line, not {columns}")
            columns = count
            lines = os.path.getsize(path) // max(1, len(text) // max(1, text.count(b"\n")))
            require_memory(path, "its numbers", 24 * columns * max(1, lines))
        parts.append(_numbers_of(path, text, columns or 1, before))
        before += len(parts[-1])
    if not parts:
        raise InputError(f"{path}: no lines of numbers in it")
    return np.concatenate(parts)


def _numbers_of(path: Path, text: bytes, columns: int, before: int) -> np.ndarray:
    """Return the numbers (lines, columns) of whole lines."""
    words = text.split()
    lines = [line for line in text.split(b"\n") if line.strip()]
    if len(words) != columns * len(lines):
        bad = next((i for i, line in enumerate(lines) if len(line.split()) != columns), 0)
        raise InputError(
            f"{path}: line {before + bad + 1} of its numbers has {len(lines[bad].split())} of them, the first has "
            f"{columns}: damaged, or of another format"
        )
    try:
        return np.array(words, dtype=np.bytes_).astype(np.float64).reshape(-1, columns)
    except ValueError as error:
        raise InputError(f"{path}: a word that is no number: {str(error)[:80]}") from error


def _pieces(path: Path) -> Iterator[bytes]:
    """Yield whole lines without comments, about so many bytes as a piece has."""
    left = b""
    with open(path, "rb") as stream:
        while data := stream.read(_PIECE):
            data = left + data
            end = data.rfind(b"\n") + 1
            if not end and len(data) > _LINE:
                raise InputError(f"{path}: a line of more than {_LINE} bytes: damaged, or no text")
            left = data[end:]
            if end and (text := _without_comments(data[:end])).strip():
                yield text
    if (text := _without_comments(left)).strip():
        yield text


def _without_comments(text: bytes) -> bytes:
    if any(mark in text for mark in _COMMENTS):
        lines = text.split(b"\n")
        text = b"\n".join(line for line in lines if not line.lstrip().startswith(_COMMENTS))
    return text.translate(_AS_READ)


def whole_numbers(path: Path, values: np.ndarray, what: str) -> np.ndarray:
    """Return numbers as whole ones.

    Not collective.

    Raises
    ------
    InputError
        One is not whole.
    """
    found = np.rint(values)
    bad = np.flatnonzero(~(np.abs(values) < 2**53) | (found != values))
    if len(bad):
        raise InputError(f"{path}: {what} that is no whole number: {values.ravel()[bad[0]]:g}")
    return found.astype(np.int64)
