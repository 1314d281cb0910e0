"""Molecules in boxes: told of, taken for molecules when it is said; and crystals, which are none."""

import numpy as np
import pytest

import sparsehess as sh
from sparsehess.errors import InputError
from sparsehess.hosts.ase.boxes import as_molecule, is_alone, vacuum

pytest.importorskip("ase")

from ase import Atoms
from ase.build import bulk, fcc111, graphene, molecule, nanotube
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.optimize import BFGS
from ase.thermochemistry import IdealGasThermo

pytestmark = [
    pytest.mark.parallel([1, 2, 3]),
    pytest.mark.filterwarnings("ignore:Setting the shape on a NumPy array:DeprecationWarning:ase.atoms"),
]

CELLS = {"cubic": [11, 12, 13], "skew": [[11, 0, 0], [4, 12, 0], [-3, 5, 13]]}


@pytest.fixture(scope="module")
def water():
    """Water at rest, and its frequencies as a molecule without a box."""
    atoms = molecule("H2O", calculator=EMT())
    BFGS(atoms, logfile=None).run(fmax=1e-5)
    with sh.normal_modes(atoms) as modes:
        return atoms, modes.frequencies


def boxed(atoms, cell="cubic", wrapped=False, pbc=True):
    """Return atoms in a box, over its corner and wrapped into it if asked, with a calculator."""
    found = atoms.copy()
    found.set_cell(CELLS[cell])
    found.set_pbc(pbc)
    found.center()
    if wrapped:
        found.positions -= found.positions[0]
        found.wrap()
        assert np.ptp(found.positions, axis=0).max() > 5
    found.calc = EMT()
    return found


@pytest.mark.essential
@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_a_molecule_in_a_box_has_the_modes_and_the_gibbs_energy_of_a_molecule(water, cell, wrapped, comm):
    free, frequencies = water
    atoms = boxed(free, cell, wrapped)
    with sh.normal_modes(atoms, molecule=True, comm=comm) as modes:
        np.testing.assert_allclose(modes.frequencies, frequencies, atol=1e-2)
        assert len(modes.rigid) == 6 and modes.minimum and not modes.hint and not modes.outside
        gas = sh.thermochemistry(modes, symmetry_number=2, spin=0)
        quanta = gas.frequencies * 1.239841984e-4  # eV of cm⁻¹
    theirs = IdealGasThermo(quanta, "nonlinear", free.get_potential_energy(), free, symmetrynumber=2, spin=0)
    assert gas.model == "ideal-gas" and gas.geometry == "nonlinear"
    assert gas.gibbs.value == pytest.approx(theirs.get_gibbs_energy(298.15, 101325, verbose=False), abs=1e-6)
    np.testing.assert_allclose(
        as_molecule(atoms).get_all_distances(), free.get_all_distances(), rtol=0, atol=1e-12
    )


def test_without_that_it_is_told_and_thermochemistry_is_refused(water, comm):
    atoms = boxed(water[0], pbc=[True, True, False])
    with sh.normal_modes(atoms, comm=comm) as modes:
        assert len(modes.frequencies) == 6 and "molecule=True" in modes.hint and modes.hint in str(modes)
        with pytest.raises(InputError, match="a molecule in a box as it seems: compute the modes with mol"):
            sh.thermochemistry(modes)
        with pytest.raises(InputError, match=r"no ideal gas: these atoms are periodic: .* molecule=True"):
            sh.thermochemistry(modes, model="ideal-gas")
        assert sh.thermochemistry(modes, model="harmonic", imaginary="omit").gibbs is None
    with sh.normal_modes(atoms, project=False, comm=comm) as modes:
        assert not modes.hint
    with sh.saddle_point(atoms, comm=comm) as found:
        assert found.hint in str(found) and "molecule=True" in found.hint
    with sh.saddle_point(atoms, molecule=True, comm=comm) as found:
        assert found.certified and found.index == 0 and not found.hint and len(found.rigid) == 6
    (found,) = sh.normal_modes_of_each([atoms], calculator=EMT, comm=comm)
    assert "molecule=True" in found.hint
    (found,) = sh.normal_modes_of_each([atoms], calculator=EMT, molecule=True, comm=comm)
    assert not found.hint and len(found.frequencies) == 3


def test_what_touches_its_images_is_no_molecule(comm):
    for solid in (
        bulk("Ar", a=5.26),
        bulk("Xe", a=6.13, cubic=True) * 2,
        bulk("Cs", a=6.1),
        bulk("NaCl", "rocksalt", a=5.64),
        fcc111("Cu", (2, 2, 2), vacuum=8.0),
        graphene(vacuum=8.0),
        nanotube(3, 3, vacuum=8.0),
        Atoms("H2O", molecule("H2O").positions, cell=[3.2, 3.2, 3.2], pbc=True),
    ):
        assert not is_alone(solid), solid
    slab = fcc111("Cu", (2, 2, 2), vacuum=8.0)
    slab.calc = EMT()
    with pytest.raises(InputError, match=r"Cu8 is not alone in its box: across vector 0 of the cell .* 1\.47 Å"):
        sh.normal_modes(slab, molecule=True, comm=comm)
    slab.set_constraint(FixAtoms(mask=slab.get_tags() > 1))
    with sh.normal_modes(slab, 1, comm=comm) as modes:
        assert not modes.hint
    with pytest.raises(InputError, match="molecule=1 is neither True nor False"):
        sh.normal_modes(slab, molecule=1, comm=comm)


def test_layers_are_as_wide_as_they_are():
    atoms = Atoms("Ar2", [[0, 0, 0.5], [0, 0, 9.5]], cell=[[9, 0, 0], [3, 9, 0], [0, 0, 10]], pbc=True)
    found = vacuum(atoms)
    assert found.widths == pytest.approx([9 * np.sin(np.arctan2(9, 3)), 9, 9])
    assert found.limit == pytest.approx(2 * 1.83 + 1) or found.limit > 4
    together = atoms.positions + found.shifts
    assert abs(together[1, 2] - together[0, 2]) == pytest.approx(1.0)
    atoms.pbc = False
    assert not is_alone(atoms) and not vacuum(atoms).shifts.any()
