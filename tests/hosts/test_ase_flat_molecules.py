"""Atoms that lie in a plane or on a line, and move across it: rows that nearly vanish are those of forces."""

import numpy as np
import pytest

import sparsehess as sh
from sparsehess.errors import InputError

pytest.importorskip("ase")

from ase import Atoms
from ase.build import molecule
from ase.calculators.emt import EMT
from ase.constraints import FixBondLength, FixCartesian, FixedLine, FixedPlane
from ase.optimize import BFGS

pytestmark = [
    pytest.mark.parallel([1, 2, 3]),
    pytest.mark.filterwarnings("ignore:Setting the shape on a NumPy array:DeprecationWarning:ase.atoms"),
]

ACROSS, ALONG_TOO = (False, True, True), (False, False, True)
STEP = 1e-4


def relaxed(name, fmax):
    atoms = molecule(name, calculator=EMT())
    BFGS(atoms, logfile=None).run(fmax=fmax, steps=100)
    return atoms


def held(atoms, mask):
    atoms.set_constraint(FixCartesian(list(range(len(atoms))), mask=mask))
    return atoms


def by_differences(atoms, mask):
    """Return eigenvalues by differences of fourth order of one coordinate at a time, and LAPACK."""
    free = np.flatnonzero(np.tile(~np.array(mask), len(atoms)))
    moving = Atoms(atoms.symbols, atoms.positions, calculator=EMT())

    def slope(i, step):
        x = atoms.get_positions()
        x.flat[i] += step
        moving.positions = x
        return -moving.get_forces().ravel()[free]

    parts = ((8, 1), (-8, -1), (-1, 2), (1, -2))
    matrix = np.array([sum(w * slope(i, k * STEP) for w, k in parts) / (12 * STEP) for i in free])
    root = np.repeat(atoms.get_masses(), 3)[free] ** 0.5
    return np.linalg.eigvalsh((matrix + matrix.T) / 2 / np.outer(root, root))


@pytest.mark.parametrize("height", [0.0, 7.0])
@pytest.mark.parametrize("mask", [ACROSS, ALONG_TOO])
@pytest.mark.parametrize(("name", "fmax"), [("H2O", 1e-3), ("C2H4", 1e-3), ("H2O", 0.05)])
def test_atoms_of_a_plane_that_move_across_it(comm, name, fmax, mask, height):
    atoms = relaxed(name, fmax)
    atoms.positions += [height, 0, 0]
    values = by_differences(atoms, mask)
    with sh.normal_modes(held(atoms, mask), project=False, comm=comm) as modes:
        errors, off = modes.spectrum.errors, np.abs(modes.spectrum.eigenvalues - values)
        assert (off <= errors + 1e-10 * np.abs(values).max() + 1e-12).all()
        assert errors.max() < 1e-4 * np.abs(values).max()


@pytest.mark.parametrize("fmax", [0.05, 1e-3])
def test_a_dimer_turns_as_its_force_says(comm, fmax):
    """Across a bond the second derivative is the slope of its energy over its length."""
    atoms = relaxed("N2", fmax)
    length = atoms.get_distance(0, 1)
    across = -atoms.get_forces()[0] @ (atoms.positions[0] - atoms.positions[1]) / length**2
    with sh.normal_modes(held(atoms, ACROSS), project=False, comm=comm) as modes:
        exact = 2 * across / atoms.get_masses()[0]
        found, errors = modes.spectrum.eigenvalues, modes.spectrum.errors
        assert np.abs(found - np.sort([0.0, exact])).max() <= errors.max() < 1e-6 * abs(exact)


@pytest.mark.parametrize("kind", [FixedPlane, FixedLine])
def test_constraints_on_what_is_no_single_coordinate_are_refused(comm, kind):
    atoms = relaxed("H2O", 1e-3)
    for constraint in (kind([0, 1, 2], (1, 0, 0)), FixBondLength(0, 1)):
        atoms.set_constraint(constraint)
        name = type(constraint).__name__
        with pytest.raises(InputError, match=f"{name} is no constraint on single coordinates"):
            sh.normal_modes(atoms, comm=comm)
