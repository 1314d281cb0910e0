"""DMIG cards of Nastran, as `.pch` files of PARAM,EXTOUT,DMIGPCH and bulk data have them.

MSC Nastran Quick Reference Guide, "DMIG, Direct Matrix Input at Points": a header (name, 0, form, type in, type
out, …), and of each column the grid and component of the column, then grid, component, real and imaginary part of
each row, in fields of 8, of 16 (DMIG*), or between commas. Of form 6 (symmetric) one triangle is given.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse

from sparsehess.errors import InputError
from sparsehess.storage.dof_labels import assemble, check_labels, keys_of
from sparsehess.storage.found_matrix import Found, choose_matrix, is_completed, symmetric_of
from sparsehess.storage.matrix_market import with_other_triangle
from sparsehess.storage.memory_claims import require_memory
from sparsehess.storage.nastran_numbers import integers_of, reals_of

# Characters of a line that are looked at, and those of its fields; line numbers stand behind the 72nd.
_LINE, _SHORT, _LONG = 72, 8, 16

# Bytes in memory for one of a file.
_UNFOLDED = 8

_RECTANGULAR, _SYMMETRIC = (2, 9), 6


@dataclass(frozen=True)
class _Head:
    """The header of a matrix: its form, and the type of its entries."""

    form: int
    kind: int


def load_cards(path: Path, name: str | None) -> Found:
    """Return the matrix of DMIG cards of this name, or the only one there is.

    Not collective.

    Raises
    ------
    InputError
        There is none, it is complex or rectangular, or cards are damaged.
    """
    size = os.path.getsize(path)
    require_memory(path, "its cards", _UNFOLDED * size)
    fields, first = _fixed_fields(path.read_bytes())
    owner = _owners(fields, first)
    begins = np.flatnonzero(owner == np.arange(len(owner)))
    long = np.char.find(fields[:, 0], b"*") >= 0
    names = np.where(long, _joined(fields, 1), _wide(fields[:, 1]))
    names = np.char.upper(np.char.strip(names, b" \0"))
    column = np.where(long, _joined(fields, 3), _wide(fields[:, 2]))
    is_head = np.zeros(len(fields), bool)
    is_head[begins] = np.char.strip(column[begins], b" \0") == b"0"
    heads = {
        names[line].decode("ascii", "replace"): _head(path, fields[line], long[line])
        for line in np.flatnonzero(is_head)
    }
    chosen, head = choose_matrix(path, heads, name, " on DMIG cards")
    if sum(names[is_head] == chosen.encode()) > 1:
        raise InputError(f"{path}: {chosen} has several headers, so it stands there several times: leave one")
    if head.form in _RECTANGULAR:
        raise InputError(
            f"{path}: {chosen} is rectangular (form {head.form}): a stiffness or mass matrix is square"
        )
    if head.kind not in (1, 2):
        raise InputError(f"{path}: {chosen} is complex (type {head.kind}): real matrices of DMIG are read")
    kept = (owner >= 0) & ~is_head[np.maximum(owner, 0)] & (names[np.maximum(owner, 0)] == chosen.encode())
    parts = [
        _long_entries(path, fields, owner, column, kept & long),
        _short_entries(path, fields, owner, kept & ~long),
    ]
    node, component, grid, part, values = (np.concatenate(both) for both in zip(*parts, strict=True))
    if not len(values):
        raise InputError(f"{path}: {chosen} has a header, and no column")
    for points, components in ((node, component), (grid, part)):
        check_labels(path, points, components)
    _check_points(path, np.concatenate([node, grid]), np.concatenate([component, part]))
    entries, labels = assemble(path, keys_of(grid, part), keys_of(node, component), values)
    matrix, word, said = _completed(path, entries, head.form)
    precision = "single" if head.kind == 1 else "double"
    form = f"Nastran DMIG, {chosen}, {precision} precision, form {head.form}, {word}"
    return Found(matrix, form, said, labels, text=True, completed=is_completed(word))


def _check_points(path: Path, points: np.ndarray, components: np.ndarray) -> None:
    """Raise InputError for a blank grid, and for one with a component on one card and none on another."""
    scalar = np.intersect1d(points[components == 0], points[components > 0])
    if len(points) and points.min() < 1:
        raise InputError(f"{path}: a column or row of grid {points.min()}: a blank field, so damaged or truncated")
    if len(scalar):
        raise InputError(f"{path}: grid {scalar[0]} has a row without a component: damaged or truncated")


def _completed(
    path: Path, entries: scipy.sparse.coo_matrix, form: int
) -> tuple[scipy.sparse.csr_matrix, str, tuple[str, ...]]:
    """Return the matrix of one triangle or both, in words which, and what is to be said."""
    if form != _SYMMETRIC:
        return *symmetric_of(path, entries), ()
    whole, said = with_other_triangle(path, entries, "symmetric")
    return (
        scipy.sparse.csr_matrix(whole),
        "one triangle stored, and completed" if not said else "both stored",
        said,
    )


def _fixed_fields(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Return (lines, 9) fields of 8 bytes, and (lines,) the first bytes; of cards with commas as of others."""
    if b"$" in data:  # comments may stand between the lines of a card
        data = b"\n".join(line for line in data.split(b"\n") if not line.lstrip().startswith(b"$"))
    if b"\t" in data:
        data = data.expandtabs(_SHORT)
    if b"," in data:
        data = b"\n".join(_spaced(line) if b"," in line else line for line in data.split(b"\n"))
    lines = np.array([line[:_LINE] for line in data.replace(b"\r", b"").split(b"\n")] or [b""], f"S{_LINE}")
    fields = lines.view(f"S{_SHORT}").reshape(len(lines), -1)
    return np.char.upper(fields), lines.view("S1").reshape(len(lines), -1)[:, 0]


def _spaced(line: bytes) -> bytes:
    """Return a card with commas in fields of a fixed width."""
    words = [word.strip() for word in line.split(b",")]
    width = _LONG if words[0].endswith(b"*") else _SHORT
    return words[0].ljust(_SHORT) + b"".join(word[:width].ljust(width) for word in words[1:])


def _owners(fields: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Return (lines,) the line of the DMIG card that a line belongs to, -1 where it belongs to none."""
    lines = np.arange(len(fields))
    continued = np.isin(first, (b"*", b"+", b" "))
    blank = (fields == b"").all(axis=1)
    card = np.char.startswith(np.char.strip(fields[:, 0]), b"DMIG") & np.isin(
        np.char.strip(fields[:, 0]), (b"DMIG", b"DMIG*")
    )
    begin = np.maximum.accumulate(np.where(continued | blank, -1, lines))
    return np.where((begin >= 0) & card[np.maximum(begin, 0)] & ~blank, begin, -1)


def _joined(fields: np.ndarray, number: int) -> np.ndarray:
    """Return the long fields that begin with this short one."""
    return np.ascontiguousarray(_padded(fields[:, number : number + 2])).view(f"S{_LONG}").ravel()


def _padded(fields: np.ndarray) -> np.ndarray:
    """Return fields with spaces up to their width, so that long ones can be joined."""
    return np.char.ljust(fields, _SHORT, b" ")


def _wide(fields: np.ndarray) -> np.ndarray:
    return fields.astype(f"S{_LONG}")


def _head(path: Path, fields: np.ndarray, long: bool) -> _Head:
    """Return what a header says."""
    row = fields[None, :]
    form, kind = (_joined(row, 5), _joined(row, 7)) if long else (row[:, 3], row[:, 4])
    return _Head(int(integers_of(path, form)[0]), int(integers_of(path, kind)[0]))


def _long_entries(
    path: Path, fields: np.ndarray, owner: np.ndarray, column: np.ndarray, here: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Return columns' nodes and components, rows' ones, and values of lines of long fields, an entry each."""
    lines = np.flatnonzero(here & (owner != np.arange(len(owner))))
    own = owner[lines]
    return (
        integers_of(path, column[own]),
        integers_of(path, _joined(fields[own], 5)),
        integers_of(path, _joined(fields[lines], 1)),
        integers_of(path, _joined(fields[lines], 3)),
        reals_of(path, _joined(fields[lines], 5)),
    )


def _short_entries(path: Path, fields: np.ndarray, owner: np.ndarray, here: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return the same of lines of short fields: one entry on the first of a column, two on the others."""
    lines = np.flatnonzero(here)
    first = owner[lines] == lines
    halves = []
    for at, some in ((1, lines[~first]), (5, lines)):
        there = some[np.char.strip(fields[some, at]) != b""]
        halves.append((there, at))
    own = np.concatenate([owner[some] for some, _ in halves])
    parts = [np.concatenate([fields[some, at + place] for some, at in halves]) for place in range(3)]
    return (
        integers_of(path, fields[own, 2]),
        integers_of(path, fields[own, 3]),
        *(integers_of(path, part) for part in parts[:2]),
        reals_of(path, parts[2]),
    )
