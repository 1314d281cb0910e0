"""Layers and wires by ASE's calculators: against dense second derivatives of large cells, by LAPACK."""

import itertools

import numpy as np
import pytest

import sparsehess as sh

pytest.importorskip("ase")

from ase import Atoms
from ase.build import fcc111
from ase.calculators.emt import EMT

pytestmark = [
    pytest.mark.parallel([1, 2, 3]),
    pytest.mark.filterwarnings("ignore:Setting the shape on a NumPy array:DeprecationWarning:ase.atoms"),
]

STEP = 1e-4  # Å


def folded(atoms):
    """Return all eigenvalues of a large cell, in eV/Å²/amu, of central differences of its forces."""
    many, at = 3 * len(atoms), atoms.positions.copy()
    rows = np.empty((many, many))
    for number in range(many):
        forces = []
        for step in (STEP, -STEP):
            moved = at.copy()
            moved.ravel()[number] += step
            atoms.positions = moved
            forces.append(atoms.get_forces().ravel())
        rows[number] = (forces[1] - forces[0]) / (2 * STEP)
    atoms.positions = at
    roots = np.sqrt(np.repeat(atoms.get_masses(), 3))
    return np.linalg.eigvalsh((rows + rows.T) / 2 / np.outer(roots, roots))


def chain():
    """One atom in the cell, and no vectors across."""
    return Atoms("Cu", cell=[2.3, 0, 0], pbc=[True, False, False]), (8, 1, 1)


def zigzag():
    return Atoms("Cu2", [[0, 0, 0], [1.2, 1.8, 0.3]], cell=[2.5, 0, 0], pbc=[True, False, False]), (5, 1, 1)


def slab():
    """Two layers, without vacuum."""
    return fcc111("Cu", (1, 1, 2), a=3.6), (3, 4, 1)


def tight_slab():
    """In so little vacuum that the next one would be a neighbour."""
    return fcc111("Cu", (1, 1, 2), a=3.6, vacuum=1.0), (3, 4, 1)


@pytest.mark.parametrize("made", [chain, zigzag, slab, tight_slab])
@pytest.mark.essential
def test_folded(made, comm):
    """Modes at the wave vectors that fit a large cell are all of its modes."""
    atoms, times = made()
    atoms.calc = EMT()
    constants = sh.force_constants(atoms, times, comm=comm)
    assert constants.primitive.periodic == tuple(atoms.pbc) and constants.error < 1e-5
    q = np.array(list(itertools.product(*map(range, times)))) / times
    modes = sh.phonons(constants, comm=comm).at(q)
    large = atoms.repeat(times)
    large.calc = EMT()
    exact = folded(large)
    assert np.abs(np.sort(modes.eigenvalues.ravel()) - exact).max() < 1e-6 * np.abs(exact).max()
    assert modes.certified.all()


def test_vacuum_does_not_matter(comm):
    found = []
    for made in (slab, tight_slab):
        atoms, times = made()
        atoms.calc = EMT()
        solid = sh.phonons(sh.force_constants(atoms, times, comm=comm), comm=comm)
        bands = solid.bands("GMKG", 20)
        assert [name for _, name in bands.path.labels] == ["G", "M", "K", "G"] and bands.certified
        assert np.abs(bands.modes.velocities[5:, 3:, 2]).max() < 1e-9
        found.append(bands.modes.eigenvalues)
    assert np.abs(found[0] - found[1]).max() < 1e-6 * found[0].max()


@pytest.mark.parametrize("digits", [6, 5])
def test_rounded_positions(digits, comm):
    """Forces of positions as a file has them, in an orientation in which all numbers are rounded."""
    found = []
    for rounded in (None, digits):
        atoms, times = slab()
        atoms.rotate(17, (1, 2, 3), rotate_cell=True)
        if rounded is not None:
            atoms.set_cell(np.round(atoms.cell.array, digits))
            atoms.set_positions(np.round(atoms.positions, digits))
        atoms.calc = EMT()
        solid = sh.phonons(sh.force_constants(atoms, times, comm=comm), comm=comm)
        found.append(solid.at([[0.13, 0.21, 0], [0.5, 0.37, 0]]))
    off = np.abs(found[0].eigenvalues - found[1].eigenvalues).max()
    assert off < 20 * 10.0**-digits * found[0].eigenvalues.max()
