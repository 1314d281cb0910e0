"""Files of finite-element codes and of MATLAB: which reader a file takes, by suffix and by what it begins with."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

from sparsehess.storage.coordinate_text import load_calculix, load_plain_text
from sparsehess.storage.found_matrix import Found
from sparsehess.storage.matlab_files import load_matlab
from sparsehess.storage.matrix_address import CALCULIX, CARDS, LINES
from sparsehess.storage.nastran_cards import load_cards
from sparsehess.storage.nastran_op2 import load_op2
from sparsehess.storage.nastran_op4 import load_op4

# What a file of Matrix Market begins with, and where numbers of one without begin: Abaqus writes such.
_BANNER, _HEAD = b"%%matrixmarket", 2**16

# Bytes in memory for one of a file: a line of a text is a triple, and its numbers beside it.
_UNFOLDED = 6


def lacks_banner(path: Path) -> bool:
    """Return whether a `.mtx` file has no banner of Matrix Market, and lines of three or five numbers.

    Not collective.
    """
    if path.suffix == ".gz":
        with gzip.open(path, "rb") as stream:
            text = stream.read(_HEAD)
    else:
        with open(path, "rb") as stream:
            text = stream.read(_HEAD)
    if text.lstrip(b"\xef\xbb\xbf").lower().startswith(_BANNER):
        return False
    lines = [line.replace(b",", b" ").split() for line in text.split(b"\n")[:-1] if line[:1] not in b"*"]
    lines = [words for words in lines if words]
    return bool(lines) and len(lines[0]) in (3, 5) and path.suffix != ".gz" and all(map(_is_number, lines[0]))


def _is_number(word: bytes) -> bool:
    try:
        float(word.upper().replace(b"D", b"E"))
    except ValueError:
        return False
    return True


def load_of_code(path: Path, suffix: str, name: str | None) -> Found:
    """Return the matrix of a file of a code, or of this name in it.

    Not collective.

    Raises
    ------
    InputError
        It holds no such matrix, or is damaged.
    """
    if suffix == ".mat":
        return load_matlab(path, name)
    if suffix in CALCULIX:
        return load_calculix(path)
    if suffix in (*LINES, ".mtx"):
        return load_plain_text(path, abaqus=suffix == ".mtx")
    if suffix in CARDS:
        return load_cards(path, name)
    return load_op4(path, name) if suffix == ".op4" else load_op2(path, name)


def claimed_bytes(path: Path) -> int:
    """Return about the bytes that a file takes in memory. Not collective."""
    return _UNFOLDED * os.path.getsize(path)
