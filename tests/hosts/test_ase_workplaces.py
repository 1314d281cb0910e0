"""Calculators that write fixed files: on several ranks each is called in a folder of its own."""

import os
import time
from pathlib import Path

import numpy as np
import pytest

import sparsehess as sh
from sparsehess.errors import EvaluationError

pytest.importorskip("ase")

from ase import Atoms
from ase.calculators.calculator import Calculator, FileIOCalculator, all_changes
from ase.calculators.emt import EMT

pytestmark = [pytest.mark.parallel([1, 2, 3]), pytest.mark.essential]


def springs(positions):
    """Return energy and forces of springs between all atoms, at rest 1 Å apart."""
    energy, forces = 0.0, np.zeros(positions.shape)
    for i in range(len(positions)):
        for j in range(i):
            apart = positions[i] - positions[j]
            length = np.linalg.norm(apart)
            energy += 12 * (length - 1) ** 2
            forces[i] -= 24 * (length - 1) * apart / length
            forces[j] += 24 * (length - 1) * apart / length
    return energy, forces


class Written(Calculator):
    """Writes positions to a file where the process works, sleeps, and reads them back."""

    implemented_properties = ("energy", "forces")
    removes = False

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        place = Path("in.txt")
        place.write_text("\n".join(one.hex() for one in atoms.positions.ravel()))
        time.sleep(0.002)
        positions = np.array([float.fromhex(one) for one in place.read_text().split()]).reshape(-1, 3)
        if self.removes:
            place.unlink()
        energy, forces = springs(positions)
        self.results = {"energy": energy, "forces": forces}


class Removed(Written):
    removes = True


class Scripted(FileIOCalculator):
    """Works in its `directory`, as programs that ASE starts."""

    implemented_properties = ("energy", "forces")

    def __init__(self, directory="."):
        super().__init__(directory=directory, command="none")

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        Calculator.calculate(self, atoms, properties, system_changes)
        place = Path(self.directory) / "in.txt"
        np.savetxt(place, atoms.positions, fmt="%.17e")
        time.sleep(0.002)
        energy, forces = springs(np.loadtxt(place).reshape(-1, 3))
        self.results = {"energy": energy, "forces": forces}


class Silent(Calculator):
    """The same in memory."""

    implemented_properties = ("energy", "forces")

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        energy, forces = springs(atoms.positions)
        self.results = {"energy": energy, "forces": forces}


class Reading(Written):
    """Reads a file by a relative path each time."""

    def calculate(self, *given, **named):
        super().calculate(*given, **named)
        Path("parameters.txt").read_text()


def triangle(number=0):
    return Atoms("CHO", [[0, 0, 0], [1.0 + 0.01 * number, 0, 0], [0.5, 0.9, 0]])


@pytest.fixture
def there(folder, comm, monkeypatch):
    """Work in a folder of all ranks."""
    monkeypatch.chdir(folder)
    comm.Barrier()
    yield folder
    comm.Barrier()


def frequencies(calculator, comm):
    atoms = triangle()
    atoms.calc = calculator
    with sh.normal_modes(atoms, comm=comm) as modes:
        return modes.frequencies


@pytest.mark.parametrize("kind", [Written, Removed, Scripted])
def test_gradients_that_are_shared_out_do_not_meet(kind, there, comm):
    calculator = kind()
    before = str(calculator.directory)
    exact = frequencies(Silent(), comm)
    np.testing.assert_allclose(frequencies(calculator, comm), exact, rtol=1e-6)
    comm.Barrier()
    folders = sorted(one.name for one in there.iterdir() if one.is_dir())
    assert folders == ([] if comm.size == 1 else [f"rank_{rank}" for rank in range(comm.size)])
    assert Path.cwd() == there.resolve() and str(calculator.directory) == before


@pytest.mark.parametrize("kind", [Written, Scripted])
def test_structures_that_are_shared_out_do_not_meet(kind, there, comm):
    structures = [triangle(number) for number in range(7)]
    exact = sh.normal_modes_of_each(structures, calculator=Silent, comm=comm)
    same = kind()  # one object for all
    for atoms in structures:
        atoms.calc = kind()
    for calculator in (kind, lambda: same, None):
        found = sh.normal_modes_of_each(structures, calculator=calculator, comm=comm)
        assert not found.failed
        for one, other in zip(found, exact, strict=True):
            np.testing.assert_allclose(one.frequencies, other.frequencies, rtol=1e-6)
    comm.Barrier()
    assert not [one for one in there.glob("*/*") if one.is_dir()] and Path.cwd() == there.resolve()
    assert str(same.directory) == "."


def test_what_reads_relative_paths_is_told_where_it_works(there, comm):
    atoms = triangle()
    if comm.rank == 0:
        Path("parameters.txt").write_text("1")
    comm.Barrier()
    atoms.calc = Reading()
    if comm.size == 1:
        assert len(frequencies(Reading(), comm)) == 3
    else:
        with pytest.raises(EvaluationError, match=r"it is called in rank_., as it writes files: give it absolute"):
            sh.normal_modes(atoms, comm=comm)
    assert Path.cwd() == there.resolve()


def test_what_writes_nothing_stays_where_it_is(there, comm):
    class Named(EMT):
        places = ()

        def calculate(self, *given, **named):
            self.places = {*self.places, os.getcwd()}
            super().calculate(*given, **named)

    atoms = Atoms("Cu3", [[0, 0, 2.3 * i] for i in range(3)], calculator=Named())
    with sh.normal_modes(atoms, comm=comm):
        pass
    assert atoms.calc.places == {os.getcwd()}
    comm.Barrier()
    assert not list(there.iterdir())
