"""Molecules in boxes: atoms whose cell repeats, and that are alone all the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sparsehess.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms

# Å beyond twice the largest van der Waals radius: what is farther apart touches in no solid and no liquid.
_BEYOND = 1.0

# Å: the radius of an element of which none is known.
_UNKNOWN = 2.5

HINT = (
    "a molecule in a box, as it seems: there is vacuum in every periodic direction, so that it turns freely, and "
    "its rotations are among the modes, as periodic atoms have none; molecule=True, on a command line --molecule, "
    "projects them out"
)


class Vacuum(NamedTuple):
    """The empty layers between atoms and their images.

    Attributes
    ----------
    widths
        (3,) in Å, of the widest layer across each vector of the cell; infinite where it is not periodic.
    limit
        In Å: atoms that wider layers part do not touch.
    shifts
        (atoms, 3) in Å: by which vectors of the cell atoms go to be on one side of these layers.
    """

    widths: np.ndarray
    limit: float
    shifts: np.ndarray


def vacuum(atoms: Atoms) -> Vacuum:
    """Return the widest empty layer in each periodic direction.

    Not collective. Radii are those of Alvarez, Dalton Trans. 42, 8617 (2013), as ASE has them.
    """
    from ase.data.vdw_alvarez import vdw_radii

    numbers = np.unique(atoms.get_atomic_numbers())
    radii = np.array([vdw_radii[one] if one < len(vdw_radii) else np.nan for one in numbers])
    limit = 2 * float(np.where(np.isfinite(radii), radii, _UNKNOWN).max()) + _BEYOND
    cell = atoms.cell.complete().array
    widths, shifts = np.full(3, np.inf), np.zeros((len(atoms), 3))
    across = np.linalg.inv(cell)  # columns
    for number in np.flatnonzero(atoms.get_pbc()):
        at = atoms.get_positions() @ across[:, number]
        places = np.sort(at % 1.0)
        gaps = np.diff(places, append=places[0] + 1.0)
        widest = int(gaps.argmax())
        widths[number] = gaps[widest] / np.linalg.norm(across[:, number])
        side = np.floor(at - (places[widest] + gaps[widest] / 2))
        shifts += np.outer(np.median(side) // 1 - side, cell[number])
    return Vacuum(widths, limit, shifts)


def is_alone(atoms: Atoms) -> bool:
    """Return whether atoms of a cell that repeats are far from all of their images.

    Not collective.
    """
    if not atoms.get_pbc().any():
        return False
    found = vacuum(atoms)
    return bool((found.widths > found.limit).all())


def shifts_of_molecule(atoms: Atoms) -> np.ndarray:
    """Return (atoms, 3) by which vectors of the cell the atoms of a molecule go to be together.

    Not collective.

    Raises
    ------
    InputError
        They are not far from their images.
    """
    if not atoms.get_pbc().any():
        return np.zeros((len(atoms), 3))
    found = vacuum(atoms)
    for number in np.flatnonzero(~(found.widths > found.limit)):
        raise InputError(
            f"molecule=True, but {atoms.get_chemical_formula()} is not alone in its box: across vector {number} "
            f"of the cell the widest empty layer is {found.widths[number]:.3g} Å, and atoms that do not touch "
            f"their images have more than {found.limit:.3g}: leave it out, or take a larger box"
        )
    return found.shifts


def as_molecule(atoms: Atoms) -> Atoms:
    """Return a copy of a molecule without periods, its atoms together, and without a calculator.

    Not collective.

    Raises
    ------
    InputError
        They are not far from their images.
    """
    alone = atoms.copy()
    alone.set_positions(atoms.get_positions() + shifts_of_molecule(atoms), apply_constraint=False)
    alone.set_pbc(False)
    return alone
