"""Rigid motions of atoms, from where they are: what is left of them by cells and by constraints.

What is orthogonal to them in the masses has neither momentum nor angular momentum: the frame of Eckart, Phys. Rev.
47, 552 (1935); Wilson, Decius and Cross, "Molecular Vibrations" (1955), chapter 2. How programs project them out
tells Ochterski, "Vibrational Analysis in Gaussian" (1999).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sparsehess.eigen.problem.rigid_body_modes import AXES

# Atoms are on a line where none is farther from it than this part of their mean spacing along it: a bend of
# 3° of three atoms, as a relaxation that ended early leaves it.
LINE = 0.02

# A motion moves coordinates that are held where they move by more than this part of the others.
_STILL = 1e-8

# A rotation about a line on which atoms are is none where it moves them by no more than this part of others.
_FLAT = 1e-6


class RigidMotions(NamedTuple):
    """Rigid motions of some atoms.

    Attributes
    ----------
    vectors
        (m, free coordinates) orthonormal rows.
    names
        Of these.
    shape
        What decided how many there are, in words.
    """

    vectors: np.ndarray
    names: tuple[str, ...]
    shape: str


class Surroundings(NamedTuple):
    """What decides beside the positions which rigid motions atoms have.

    Attributes
    ----------
    masses
        (atoms,)
    cell
        (3, 3) rows are the vectors of the cell.
    pbc
        (3,) bool: the directions in which it is repeated.
    free
        (3 atoms,) bool: the coordinates that are not held.
    """

    masses: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray
    free: np.ndarray


def rigid_motions(positions: np.ndarray, around: Surroundings) -> RigidMotions:
    """Return the rigid motions of atoms in a cell, of which some coordinates may be held.

    Not collective. Without periods there are six, five if all atoms are on a line and three of a single one; with
    one period the translations and, if not all atoms are on its axis, the rotation about it; with more the
    translations. Of these are left the combinations that move nothing that is held.

    Parameters
    ----------
    positions
        (atoms, 3).
    """
    away = positions - around.masses @ positions / around.masses.sum()
    turns, names, shape = _rotations(away, around)
    shifts = np.tile(np.eye(3), len(positions))
    motions = np.vstack([shifts, turns.reshape(len(turns), shifts.shape[1])])
    names = [*(f"translation {axis}" for axis in AXES), *names]
    if not around.free.all():
        motions, names = _left_by_constraints(motions, names, ~around.free)
        shape += f"; {len(names)} rigid motions are left by the constraints"
    motions = motions[:, around.free]
    if len(names):
        motions = np.linalg.qr(motions.T)[0].T  # in turn: each keeps its name
    return RigidMotions(motions, tuple(names), shape)


def turned(motions: np.ndarray, positions: np.ndarray, free: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """Return (m, free coordinates) what a Hessian makes of rigid motions where only places of atoms count.

    Not collective. An energy that does not change as all atoms turn has a gradient that turns with them: the
    Hessian takes a rotation to the gradient so turned, and a translation to zero, atoms at rest or not.

    Parameters
    ----------
    motions
        (m, free coordinates), of `rigid_motions`.
    positions, slope
        (atoms, 3) where the atoms are, and the gradient there.
    free
        (3 atoms,) bool: the coordinates that are not held.
    """
    away = positions - positions.mean(axis=0)
    turns = np.stack([np.cross(axis, away).ravel() for axis in np.eye(3)])
    generators = np.vstack([np.tile(np.eye(3), len(positions)), turns])
    whole = np.zeros((len(motions), len(free)))
    whole[:, free] = motions
    mixed = np.linalg.lstsq(generators.T, whole.T, rcond=_FLAT)[0]
    return np.cross(mixed[3:].T[:, None], slope[None]).reshape(len(motions), len(free))[:, free]


def _rotations(away: np.ndarray, around: Surroundings) -> tuple[np.ndarray, list[str], str]:
    """Return the rotations (m, atoms, 3) about the origin, the centre of mass, their names, and why these."""
    many, periods = len(away), np.flatnonzero(around.pbc)
    none: np.ndarray = np.empty((0, many, 3))
    if len(periods) > 1:
        return none, [], f"periodic in {len(periods)} directions: 3 translations"
    if len(periods) == 1:
        axis = around.cell[periods[0]]
        length = float(np.linalg.norm(axis))
        axis = axis / length
        off = _distance(away, axis)
        if off <= LINE * length / many:
            return none, [], "a wire with all atoms on its axis: 3 translations"
        return np.cross(axis, away)[None], ["rotation about the wire"], "a wire: 3 translations, 1 rotation"
    if many == 1:
        return none, [], "a single atom: 3 translations"
    axes = np.linalg.eigh((around.masses[:, None] * away).T @ away)[1]  # the last has the least moment of inertia
    off, spacing = _distance(away, axes[:, 2]), float(np.ptp(away @ axes[:, 2])) / (many - 1)
    told = f"no atom is farther than {off:.2g} Å from a line, {LINE * spacing:.2g} is the limit"
    if off <= LINE * spacing:
        turns = np.stack([np.cross(axes[:, number], away) for number in (0, 1)])
        return turns, ["rotation 1", "rotation 2"], f"linear: 3 translations, 2 rotations ({told})"
    turns = np.stack([np.cross(axis, away) for axis in np.eye(3)])
    told = f"an atom is {off:.2g} Å from a line, {LINE * spacing:.2g} is the limit"
    return turns, [f"rotation {axis}" for axis in AXES], f"not linear: 3 translations, 3 rotations ({told})"


def _distance(away: np.ndarray, axis: np.ndarray) -> float:
    """Return how far the farthest point is from an axis through the origin."""
    return float(np.linalg.norm(away - np.outer(away @ axis, axis), axis=1).max())


def _left_by_constraints(motions: np.ndarray, names: list[str], held: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Return the combinations of motions that move nothing that is held, and their names.

    Those that do so themselves keep their names.
    """
    basis = np.linalg.qr(motions.T)[0].T
    _, sizes, combinations = np.linalg.svd(np.linalg.qr(basis[:, held].T, "r"))
    moved = np.zeros(len(basis))
    moved[: len(sizes)] = sizes
    still = combinations[moved <= _STILL * np.abs(basis).max()] @ basis
    own = np.flatnonzero(np.abs(motions[:, held]).max(axis=1) <= _STILL * np.abs(motions).max(axis=1))
    known = np.linalg.qr(motions[own].T)[0]
    _, sizes, mixed = np.linalg.svd(still - still @ known @ known.T, full_matrices=False)
    mixed = mixed[sizes > 0.5]  # they are 1 or 0: `known` is within `still`
    named = [names[j] for j in own] + [f"rotation {number + 1}" for number in range(len(mixed))]
    return np.vstack([motions[own], mixed]), named
