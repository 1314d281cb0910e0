"""Phonons at wave vectors: frequencies with error bars, what is imaginary, vectors, group velocities."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sparsehess.derivatives.units import Units
from sparsehess.runtime.short_repr import ShortRepr

UNITS = Units.of("eV", "angstrom", "amu", "THz")

# A bound of this part of the scale of the matrices, or less, is called a proof.
PROVEN = 1e-8

# Eigenvalues that lie within this part of the scale of the matrices turn together.
TOGETHER = 1e-7

# km/s of a derivative of ω by q in rad/ps Å.
_KM_PER_S = 0.1

# A direction that no symmetry holds: what turns degenerate modes where none is given.
NO_SYMMETRY = np.array([1.0, 2.0, 3.0]) / np.sqrt(14.0)


@dataclass(frozen=True, eq=False, repr=False)
class PhononModes(ShortRepr):
    """Phonons at some wave vectors, made by `Phonons.at`; the same on every rank.

    Not collective.

    Attributes
    ----------
    q
        (m, 3) in reciprocal vectors of the primitive cell.
    eigenvalues
        (m, k) ω² in eV/Å²/amu, ascending.
    bounds
        (m,) how far these may be from the eigenvalues of the matrix of the same number.
    certified
        (m,) bool: all are there, each within its bound, which is below 1e-8 of `scale`; proven of the matrix as it
        was built.
    resolution
        (m,) the bound, and how far rounding in making the matrix, and the error of the force constants where it is
        known, may move eigenvalues.
    scale
        A bound of the size of the eigenvalues at all q, in eV/Å²/amu.
    vectors
        (m, 3 atoms, k) eigenvectors as columns, complex; None where they were not asked for.
    velocities
        (m, k, 3) group velocities in km/s, NaN where a mode is not above zero, and of cells with more than 500
        atoms where it is degenerate with some that were not asked for; None where velocities were not asked for.
    how
        By what the matrices were solved.

    Notes
    -----
    Velocities are dω/dq = xᴴ(∂D/∂q)x / 2ω, of degenerate modes the eigenvalues of the derivative along a direction
    within their space, and xᴴ(∂D/∂q)x of the vectors that belong to these.
    """

    q: np.ndarray
    eigenvalues: np.ndarray
    bounds: np.ndarray
    certified: np.ndarray
    resolution: np.ndarray
    scale: float
    vectors: np.ndarray | None
    velocities: np.ndarray | None
    how: str

    @property
    def frequencies(self) -> np.ndarray:
        """(m, k) in THz; imaginary ones are given as negative."""
        return UNITS.of_eigenvalues(self.eigenvalues)

    @property
    def errors(self) -> np.ndarray:
        """(m, k) how far the frequencies may be, in THz, by `resolution`."""
        return UNITS.of_errors(self.eigenvalues, self.resolution[:, None])

    @property
    def imaginary(self) -> np.ndarray:
        """(m, k) bool: below zero by more than `resolution`."""
        return self.eigenvalues < -self.resolution[:, None]

    @property
    def zero(self) -> np.ndarray:
        """(m, k) bool: not told from zero at this resolution."""
        return ~(np.abs(self.eigenvalues) > self.resolution[:, None])

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        yield f"{self.eigenvalues.shape[0]} wave vectors"
        yield f"{self.eigenvalues.shape[1]} modes each"
        yield f"{int(self.certified.sum())} certified"


def velocities(
    values: np.ndarray,
    vectors: np.ndarray,
    slopes: np.ndarray,
    directions: np.ndarray,
    scale: float,
    least: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return (m, n, 3) group velocities in km/s, and vectors (m, n, n) that turn degenerate modes as they need.

    Not collective.

    Parameters
    ----------
    values, vectors
        (m, n) and (m, n, n) of the matrices.
    slopes
        (3, m, n, n) their derivatives by q.
    directions
        (m, 3) along which degenerate modes are told apart.
    scale
        By which it is told which are degenerate.
    least
        (m,) eigenvalues that are no larger have no velocity.
    """
    turned = _turned(values, vectors, slopes, directions, scale)
    rates = np.stack([(turned.conj() * (slope @ turned)).sum(axis=1).real for slope in slopes], axis=2)
    moving = values > least[:, None]
    roots = np.sqrt(np.where(moving, values, 1.0))
    per = _KM_PER_S * 2 * np.pi * UNITS.factor
    return np.where(moving[:, :, None], per * rates / (2 * roots[:, :, None]), np.nan), turned


def _turned(
    values: np.ndarray, vectors: np.ndarray, slopes: np.ndarray, directions: np.ndarray, scale: float
) -> np.ndarray:
    """Return (m, n, n) vectors in which the derivative along a direction is diagonal among equal eigenvalues."""
    close = np.diff(values, axis=1) <= TOGETHER * scale
    found = vectors.copy()
    for number in np.flatnonzero(close.any(axis=1)):
        ends = np.flatnonzero(np.concatenate([[True], ~close[number], [True]]))
        for first, last in itertools.pairwise(ends):
            if last - first > 1:
                space = vectors[number][:, first:last]
                along = sum(directions[number, axis] * slopes[axis, number] for axis in range(3))
                within = space.conj().T @ along @ space
                found[number][:, first:last] = space @ np.linalg.eigh(0.5 * (within + within.conj().T))[1]
    return found
