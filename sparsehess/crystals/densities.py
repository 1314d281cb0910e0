"""Densities of states of phonons: wave vectors on a mesh, their frequencies smeared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.special

from sparsehess.crystals.modes import PhononModes
from sparsehess.errors import InputError
from sparsehess.runtime.short_repr import ShortRepr
from sparsehess.runtime.validation import positive_number, reals, whole_number

# Of the range of frequencies, the width of a mode where none is given; and how many widths the ends lie beyond.
_WIDTH, _BEYOND = 0.01, 5.0


@dataclass(frozen=True, eq=False, repr=False)
class PhononDensity(ShortRepr):
    """Density of states, made by `Phonons.density`; the same on every rank.

    Not collective.

    Attributes
    ----------
    frequencies
        (p,) in THz, ascending; imaginary ones are negative.
    states
        (p,) modes of a primitive cell per THz; their integral is three times its atoms.
    below
        (p,) modes of a primitive cell below each frequency, smeared alike.
    width
        Standard deviation of the Gaussian that each mode is smeared by, in THz.
    mesh
        Along each reciprocal vector.
    modes
        Phonons at wave vectors of the mesh, of q and −q one.
    weights
        (m,) share of each of them, of sum 1.
    """

    frequencies: np.ndarray
    states: np.ndarray
    below: np.ndarray
    width: float
    mesh: tuple[int, int, int]
    modes: PhononModes
    weights: np.ndarray

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        yield "x".join(map(str, self.mesh)) + " mesh"
        yield f"{self.frequencies[0]:.6g} to {self.frequencies[-1]:.6g} THz"

    @property
    def imaginary(self) -> float:
        """Which part of all modes is imaginary, from 0 to 1."""
        return float(self.weights @ self.modes.imaginary.mean(axis=1))


def mesh_points(
    mesh: int | Sequence[int], shift: Sequence[float], periodic: Sequence[bool] = (True, True, True)
) -> tuple[tuple, np.ndarray, np.ndarray]:
    """Return the mesh, wave vectors (m, 3) of it, of q and −q one, and their weights (m,), of sum 1.

    Not collective. D(−q) is the conjugate of D(q), so that both have the same eigenvalues. One number is that
    along each vector along which the crystal repeats.

    Raises
    ------
    InputError
        A number of points that is none, or several along a vector that does not repeat.
    """
    counts: Any = [mesh if along else 1 for along in periodic] if np.ndim(mesh) == 0 else mesh
    if len(counts) != 3 or len(shift) != 3:
        raise InputError(f"mesh {mesh!r}: a mesh has a number of points along each of three reciprocal vectors")
    sizes = tuple(whole_number(one, "mesh", 1) for one in counts)
    numbers = np.stack(np.meshgrid(*map(np.arange, sizes), indexing="ij"), axis=-1).reshape(-1, 3)
    moved = 2 * reals(shift, "shift")
    halves = np.rint(np.where(np.abs(moved) <= 2, moved, 0.5)).astype(np.int64)  # NaN is none
    if not (np.abs(halves - moved) <= 1e-12).all():
        raise InputError(f"shift {shift!r}: a mesh is shifted by 0 or by 0.5 of its spacing")
    for axis in np.flatnonzero(((np.array(sizes) > 1) | (halves != 0)) & ~np.array(periodic)):
        raise InputError(
            f"mesh {mesh!r}, shift {shift!r}: the crystal does not repeat along vector {axis + 1} of its cell: "
            "give 1 point there, and no shift"
        )
    doubled = 2 * numbers + halves
    mirrored = ((-doubled - halves) // 2) % sizes
    own = np.ravel_multi_index(tuple(numbers.T), sizes)
    other = np.ravel_multi_index(tuple(mirrored.T), sizes)
    kept = own <= other
    weights = np.where(own == other, 1.0, 2.0)[kept] / len(own)
    q = doubled[kept] / (2.0 * np.array(sizes))
    return sizes, q - np.rint(q), weights


def density_of(
    modes: PhononModes,
    weights: np.ndarray,
    mesh: tuple[int, int, int],
    width: float | None,
    points: int,
    span: tuple[float, float] | None,
) -> PhononDensity:
    """Return the density of states of phonons on a mesh; see `Phonons.density`. Not collective."""
    points = whole_number(points, "points", 2)
    found = modes.frequencies
    low, high = float(found.min()), float(found.max())
    across = max(high - low, abs(high), 1e-300)
    wide = _WIDTH * across if width is None else positive_number(width, "width")
    ends = (low - _BEYOND * wide, high + _BEYOND * wide) if span is None else span
    if len(ends) != 2 or not (np.isfinite(ends).all() and ends[0] < ends[1]):
        raise InputError(f"span {span!r}: give two finite frequencies in THz that go up")
    grid = np.linspace(*ends, points)
    states, below = np.zeros(points), np.zeros(points)
    for row, weight in zip(found, weights, strict=True):
        away = (grid[:, None] - row) / wide
        states += weight * np.exp(-0.5 * away**2).sum(axis=1) / (wide * np.sqrt(2 * np.pi))
        below += weight * scipy.special.ndtr(away).sum(axis=1)
    return PhononDensity(grid, states, below, float(wide), mesh, modes, weights)
