"""Forces that a file has rounded: the bars of eigenvalues hold what that does, of bonds and of rare gases."""

import numpy as np
import pytest

import sparsehess as sh

pytest.importorskip("ase")

from ase.build import molecule
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.cluster import Icosahedron
from ase.optimize import BFGS

pytestmark = pytest.mark.filterwarnings("ignore:Setting the shape on a NumPy array:DeprecationWarning:ase.atoms")


class RoundedGas(LennardJones):
    digits = 5

    def calculate(self, *given, **named):
        super().calculate(*given, **named)
        self.results["forces"] = np.round(self.results["forces"], self.digits)


class RoundedBonds(EMT):
    digits = 3

    def calculate(self, *given, **named):
        super().calculate(*given, **named)
        self.results["forces"] = np.round(self.results["forces"], self.digits)


def gas(kind):
    return kind(sigma=3.4, epsilon=0.0104, rc=20)


def largest(atoms, calculator):
    atoms.calc = calculator
    with sh.assemble(sh.from_atoms(atoms)) as H, sh.eigs(H, 5, which="largest", count="no") as found:
        return found.eigenvalues, found.total_errors


@pytest.mark.parametrize("digits", [5, 6])
def test_rare_gas(digits):
    over = []
    for seed in range(3):
        atoms = Icosahedron("Ar", 2, 5.4)
        atoms.rattle(1e-3, seed=seed)
        atoms.rotate(40 * seed + 10, (1, 2, 3))
        atoms.calc = gas(LennardJones)
        BFGS(atoms, logfile=None).run(fmax=1e-4, steps=200)
        exact, _ = largest(atoms, gas(LennardJones))
        rounded = gas(RoundedGas)
        rounded.digits = digits
        found, bars = largest(atoms, rounded)
        over.append(np.abs(found - exact) / bars)
    assert np.max(over) < 2 and np.sqrt(np.mean(np.square(over))) < 1


def test_bonds():
    over = []
    for seed in range(3):
        atoms = molecule("C6H6", calculator=EMT())
        atoms.rattle(1e-3, seed=seed)
        atoms.rotate(40 * seed + 10, (1, 2, 3))
        BFGS(atoms, logfile=None).run(fmax=1e-4, steps=200)
        exact, _ = largest(atoms, EMT())
        found, bars = largest(atoms, RoundedBonds())
        over.append(np.abs(found - exact) / bars)
    assert np.max(over) < 2 and np.sqrt(np.mean(np.square(over))) < 1
