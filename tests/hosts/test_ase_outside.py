"""What holds atoms from outside, beside the forces that are left: closed forms of dipoles in fields."""

from typing import ClassVar

import numpy as np
import pytest

pytest.importorskip("ase")

from ase import Atoms
from ase.build import molecule
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms, FixCartesian

from sparsehess.errors import InputError
from sparsehess.hosts.ase import normal_modes, saddle_point

pytestmark = [pytest.mark.parallel([1, 2, 3]), pytest.mark.essential]

CM = 521.4708983725064  # cm^-1 of sqrt(eV / (Å² amu)): CODATA 2018


class DipoleInField(Calculator):
    """A bond of charges 1 and -1 in a field along z."""

    implemented_properties: ClassVar = ["energy", "forces"]

    def __init__(self, field):
        super().__init__()
        self.field = np.array([0.0, 0.0, field])

    def calculate(self, atoms=None, properties=(), changes=()):
        super().calculate(atoms, properties, changes)
        bond = atoms.positions[0] - atoms.positions[1]
        length = np.linalg.norm(bond)
        pull = 30.0 * (length - 1.1) * bond / length - self.field
        energy = 15.0 * (length - 1.1) ** 2 - bond @ self.field
        self.results = {"energy": energy, "forces": np.array([-pull, pull])}


@pytest.mark.parametrize("field", (0.5, -0.5))
def test_a_dipole_against_a_field_is_no_minimum_though_nothing_pulls(field, comm):
    length = 1.1 + field / 30.0
    atoms = Atoms("CO", [[0, 0, length], [0, 0, 0]], calculator=DipoleInField(field))
    assert np.abs(atoms.get_forces()).max() < 1e-12
    # Its energy grows by field * length / 2 times the square of the angle that it turns by.
    masses = atoms.get_masses()
    inertia = masses.prod() / masses.sum() * length**2
    turning = np.sign(field) * CM * np.sqrt(abs(field) * length / inertia)
    with normal_modes(atoms, comm=comm) as modes:
        assert modes.resisted == pytest.approx(turning, abs=1e-3)
        assert modes.minimum is None and "minimum      not told" in str(modes)
        shown = f"{abs(turning):.2g}{'i' if field < 0 else ''} cm^-1"
        assert "rotation" in modes.outside and shown in modes.outside
    with saddle_point(atoms, step_tol=0.01, comm=comm) as found:
        assert not found.certified and not found.is_saddle(0) and "NOT PROVEN: rotation" in str(found)


@pytest.mark.parametrize(
    "held", ((), FixAtoms([0]), FixAtoms([0, 1]), FixCartesian(0, (True, False, False)), "wire", "slab")
)
def test_forces_that_are_left_are_not_taken_for_something_outside(held, comm):
    atoms = molecule("H2O", calculator=EMT())
    atoms.rotate(33, (1, 2, 3))
    atoms.positions += 0.05 * np.random.default_rng(1).normal(size=(3, 3))
    if isinstance(held, str):
        atoms.cell, atoms.pbc = [4.0, 3.1, 3.3], (True, held == "slab", False)
    else:
        atoms.set_constraint(held)
    with normal_modes(atoms, comm=comm) as modes:
        assert modes.force_max > 1 and modes.rigid and modes.outside == ""
    with saddle_point(atoms, comm=comm) as found:
        assert found.certified


def test_where_nothing_vibrates_there_is_no_index(comm):
    with pytest.raises(InputError, match="nothing vibrates, so no index is to be proven; a single atom"):
        saddle_point(Atoms("H", calculator=EMT()), comm=comm)
