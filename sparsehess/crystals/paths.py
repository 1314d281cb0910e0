"""Paths through the zone of wave vectors, between points of high symmetry."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sparsehess.crystals.cells import Crystal
from sparsehess.errors import InputError, words_of
from sparsehess.runtime import optional
from sparsehess.runtime.short_repr import ShortRepr
from sparsehess.runtime.validation import reals, whole_number


@dataclass(frozen=True, eq=False, repr=False)
class Path(ShortRepr):
    """Wave vectors along straight lines; a corner belongs to both lines that meet there, and stands twice.

    Not collective.

    Attributes
    ----------
    q
        (m, 3) in reciprocal vectors.
    distances
        (m,) along the path in 1/Å, 2π included; a jump has no length.
    directions
        (m, 3) Cartesian, along the line that a point belongs to.
    labels
        (distance, name) of each end of a line, ascending; at a jump two names, as `U|K`.
    """

    q: np.ndarray
    distances: np.ndarray
    directions: np.ndarray
    labels: tuple[tuple[float, str], ...]

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        yield "".join(name for _, name in self.labels)
        yield f"{len(self.q)} wave vectors"


def unit_directions(directions: Sequence | np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return directions (3,) or (m, 3) as (m, 3) unit vectors; those that are 0 stay: a line without length.

    Not collective.

    Raises
    ------
    InputError
        Another shape, or numbers that are not finite.
    """
    given = reals(directions, "directions")
    if given.shape not in ((3,), shape) or not np.isfinite(given).all():
        raise InputError(f"directions: give (3,) or {shape} finite numbers, Cartesian, not {given.shape}")
    largest = np.abs(given).max(axis=-1, keepdims=True)
    given = given / np.where(largest > 0, largest, 1.0)
    length = np.linalg.norm(given, axis=-1, keepdims=True)
    return np.broadcast_to(given / np.where(length > 0, length, 1.0), shape)


def path_of(crystal: Crystal, path: str | Sequence | None, points: int) -> Path:
    """Return a path.

    Not collective.

    Parameters
    ----------
    path
        Names of special points as ASE knows them for the lattice, such as `GXWKGL` or `GX,KL` where it jumps; or
        the points themselves, (corners, 3) in reciprocal vectors, or a list of such arrays with jumps between;
        None is the path that ASE proposes.
    points
        How many wave vectors there are in all, about; each line has its ends.

    Raises
    ------
    InputError
        A point has no such name here, or there is no line.
    StackError
        Names are given, and ASE is not installed.
    """
    points = whole_number(points, "points", 2)
    parts = _named(crystal, path) if path is None or isinstance(path, str) else _numbered(path)
    lengths = [
        np.linalg.norm((end - begin) @ crystal.reciprocal)
        for corners, _ in parts
        for begin, end in itertools.pairwise(corners)
    ]
    total = sum(lengths)
    if not total > 0:
        raise InputError(f"path {path!r}: a path has two points or more that are not one")
    q, distances, directions, labels, done = [], [], [], [], 0.0
    for corners, names in parts:
        for number in range(len(corners) - 1):
            begin, end = corners[number], corners[number + 1]
            line = (end - begin) @ crystal.reciprocal
            length = float(np.linalg.norm(line))
            steps = max(round((points - len(lengths)) * length / total), 1)
            along = np.arange(steps + 1)[:, None] / steps
            q.append(begin + along * (end - begin))
            distances.append(done + along[:, 0] * length)
            directions.append(np.tile(line / length if length > 0 else line, (steps + 1, 1)))
            labels += [(done, names[number]), (done + length, names[number + 1])]
            done += length
    return Path(np.concatenate(q), np.concatenate(distances), np.concatenate(directions), _merged(labels))


def _merged(labels: list[tuple[float, str]]) -> tuple[tuple[float, str], ...]:
    """Return labels, those at one distance together."""
    merged: list[tuple[float, str]] = []
    for place, name in labels:
        if merged and merged[-1][0] == place:
            if merged[-1][1].split("|")[-1] != name:
                merged[-1] = (place, f"{merged[-1][1]}|{name}")
        else:
            merged.append((place, name))
    return tuple(merged)


def _named(crystal: Crystal, path: str | None) -> list[tuple[np.ndarray, list[str]]]:
    """Return corners and names of the parts of a path of ASE's special points."""
    optional("ase", "a path by names", "ase")
    from ase.cell import Cell

    try:
        proposed = Cell(crystal.lattice).bandpath(npoints=0, pbc=crystal.periodic)
    except Exception as error:  # a lattice that ASE puts in none of its classes
        raise InputError(f"path: ASE knows no special points of this lattice: {words_of(error)}") from error
    known, told = proposed.special_points, proposed.path if path is None else path
    parts = []
    for part in told.split(","):
        names = re.findall(r"[A-Z][0-9]*", part.strip().replace("Γ", "G"))
        if "".join(names) != part.strip().replace("Γ", "G") or len(names) < 2:
            raise InputError(f"path {told!r}: write two or more names of points, as GXWKGL, or GX,KL with a jump")
        for name in names:
            if name not in known:
                raise InputError(f"path {told!r}: {name} is no special point of this lattice: {', '.join(known)}")
        parts.append((np.array([known[name] for name in names]), names))
    return parts


def _numbered(path: Sequence) -> list[tuple[np.ndarray, list[str]]]:
    """Return corners and names of parts that are given as numbers."""
    several = np.ndim(path[0]) == 2 if len(path) else False
    parts = []
    for part in path if several else [path]:
        corners = reals(part, "path")
        if corners.ndim != 2 or corners.shape[1] != 3 or len(corners) < 2 or not np.isfinite(corners).all():
            raise InputError("a path is (corners, 3) finite numbers, two corners or more, or a list of these")
        parts.append((corners, ["(" + " ".join(f"{one:.3g}" for one in corner) + ")" for corner in corners]))
    return parts
