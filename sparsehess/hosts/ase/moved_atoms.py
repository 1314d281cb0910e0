"""Which atoms of a supercell move together, so that each row of forces feels one of them alone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sparsehess.crystals.cells import Crystal, Images, shortest_ways


class Moved(NamedTuple):
    """Atoms that move, one image of each atom of the primitive cell.

    Not collective.

    Attributes
    ----------
    atoms
        (primitive atoms,) of the supercell.
    colors
        (primitive atoms,) those of one colour move together.
    colored
        How many colours there are.
    near
        (primitive atoms, supercell atoms) bool: which atoms feel it.
    """

    atoms: np.ndarray
    colors: np.ndarray
    colored: int
    near: np.ndarray

    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Return (pairs,) numbers of the atoms that move, and (pairs,) the atoms that feel them."""
        first, second = np.nonzero(self.near)
        return first, second


def moved_atoms(supercell: Crystal, images: Images, far: float) -> Moved:
    """Return an image of each atom of the primitive cell, and colours, one after the other, as few as fit.

    Not collective.

    Parameters
    ----------
    far
        Distance in Å past which no two atoms are coupled; infinite where all are.
    """
    many = len(images.first)
    everywhere = Moved(images.first, np.arange(many), many, np.ones((many, len(images.of)), bool))
    if not np.isfinite(far):
        return everywhere
    atoms, colors, near = np.zeros(many, np.int64), np.zeros(many, np.int64), []
    felt: list[np.ndarray] = []  # of each colour, the atoms that feel one already
    for number in range(many):
        for place in np.flatnonzero(images.of == number):
            reached = _within(supercell, place, far)
            color = next((one for one, taken in enumerate(felt) if not (taken & reached).any()), None)
            if color is not None:
                break
        else:
            place, color = images.first[number], len(felt)
            reached = _within(supercell, place, far)
            felt.append(np.zeros(len(supercell), bool))
        felt[color] |= reached
        atoms[number], colors[number] = place, color
        near.append(reached)
    return Moved(atoms, colors, len(felt), np.array(near))


def _within(supercell: Crystal, atom: int, far: float) -> np.ndarray:
    """Return (atoms,) bool: those whose nearest image is no farther than this."""
    away = supercell.positions - supercell.positions[atom]
    pair, ways, _ = shortest_ways(supercell.periods, away)
    near = np.zeros(len(supercell), bool)
    near[pair[np.linalg.norm(ways, axis=1) <= far]] = True
    return near
