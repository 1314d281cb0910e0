"""Normal modes of many structures: each as it has them alone, on any number of ranks, failures told of."""

import json

import numpy as np
import pytest

import sparsehess as sh
from sparsehess.errors import InputError, Interrupted, Stopped

pytest.importorskip("ase")

from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms

pytestmark = [
    pytest.mark.parallel([1, 2, 3]),
    pytest.mark.filterwarnings("ignore:Setting the shape on a NumPy array:DeprecationWarning:ase.atoms"),
]

MANY = 30
NAMES = ("frequencies", "errors", "eigenvalues", "residuals", "imaginary", "zero")


def clusters():
    """Return 30 structures of 1 to 7 atoms: one of an element that EMT has not, one of an atom alone, one held."""
    found = []
    for number in range(MANY):
        crystal = bulk(("Cu", "Ni", "Al", "Pt")[number % 4], cubic=True) * (2, 2, 1)
        cluster = crystal[: 2 + (number * 7) % 6]
        cluster.set_cell(None)
        cluster.pbc = False
        cluster.rattle(0.02, seed=number)
        found.append(cluster)
    found[11].symbols[0] = "Si"
    found[4] = Atoms("Cu", [[0, 0, 0]])
    found[17].set_constraint(FixAtoms([0]))
    return found


class Tires(EMT):
    """Raises when it is asked once too often."""

    left = 9

    def calculate(self, *given, **named):
        self.left -= 1
        if not self.left:
            raise RuntimeError("out of licences")
        super().calculate(*given, **named)


def same(one, other):
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in NAMES)


def test_each_is_as_it_is_alone_on_any_number_of_ranks(comm):
    structures = clusters()
    found = sh.normal_modes_of_each(structures, calculator=EMT, comm=comm)
    assert len(found) == MANY and [one.number for one in found] == list(range(MANY))
    assert [one.formula for one in found] == [one.get_chemical_formula() for one in structures]
    (failed,) = found.failed
    assert failed.number == 11 and failed.status == 2 and "No EMT-potential for Si" in failed.failure
    assert not len(failed.frequencies) and "failed" in str(found).splitlines()[11]
    assert not len(found[4].frequencies) and found[4].n == 3 and not found[4].failure
    assert found[17].n == structures[17].positions.size - 3
    everyone = comm.allgather([[getattr(one, name).tobytes() for name in NAMES] for one in found])
    assert all(theirs == everyone[0] for theirs in everyone)
    for number in (0, 3, 17, 29):  # to the last bit
        (alone,) = sh.normal_modes_of_each(structures[number : number + 1], calculator=EMT)
        assert same(found[number], alone) and alone.certified and alone.evaluations == found[number].evaluations
    atoms = structures[3].copy()
    atoms.calc = EMT()
    with sh.normal_modes(atoms, comm=comm) as modes:
        np.testing.assert_allclose(found[3].frequencies, modes.frequencies, rtol=1e-9, atol=1e-6)
        assert found[3].minimum == modes.minimum and found[3].force_atom == modes.force_atom
        for mine, theirs in zip(found.displacements(3)[-2:], (-2, -1), strict=True):
            other = modes.displacements(len(modes.frequencies) + theirs)
            assert abs(np.vdot(mine, other)) == pytest.approx(np.linalg.norm(mine) * np.linalg.norm(other))


def test_a_file_has_a_group_for_each(comm, folder):
    h5py = pytest.importorskip("h5py")
    structures = [*clusters()[:4], clusters()[11]]
    found = sh.normal_modes_of_each(structures, 2, calculator=EMT, comm=comm)
    found.write(folder / "each.h5", unit="meV")
    shapes = found.displacements(2)
    comm.Barrier()
    per = sh.Units.of("eV", "angstrom", "amu", "meV").factor / sh.Units.of("eV", "angstrom", "amu").factor
    with h5py.File(folder / "each.h5") as file:
        assert (
            list(file) == ["0", "1", "2", "3", "4"] and json.loads(file.attrs["json"])["frequency_unit"] == "meV"
        )
        np.testing.assert_allclose(file["2/frequencies"][:], per * found[2].frequencies)
        np.testing.assert_array_equal(file["2/vectors"][:], shapes.reshape(len(shapes), -1))
        np.testing.assert_array_equal(file["3/positions"][:], structures[3].positions)
        assert "Si" in json.loads(file["4"].attrs["json"])["failure"] and "vectors" not in file["4"]
    comm.Barrier()
    for path, words in (
        (folder / "gone" / "each.h5", "there is no folder"),
        (folder / "each.npz", "end with .h5"),
    ):
        with pytest.raises(InputError, match=words):
            found.write(path)
    assert [one.name for one in folder.iterdir()] == ["each.h5"]


def test_calculators_of_their_own_and_those_that_fail_on_the_way(comm):
    structures = clusters()[:6]
    for number, atoms in enumerate(structures):
        atoms.calc = Tires() if number == 2 else EMT()
    structures[5].calc = None
    found = sh.normal_modes_of_each(structures, comm=comm)
    assert [one.number for one in found.failed] == [2, 5]
    assert "out of licences" in found[2].failure and "has no calculator" in found[5].failure
    assert "rank" not in found[2].failure
    for number, words in ((2, "no modes: .*out of licences"), (6, "there are 6"), (-1, "there are 6")):
        with pytest.raises(InputError, match=words):
            found.displacements(number)
    found = sh.normal_modes_of_each(structures[:1], calculator=lambda: 1 / 0, comm=comm)
    assert "ZeroDivisionError" in found[0].failure


def test_what_ends_all_of_it(comm):
    with pytest.raises(InputError, match=r"structure 1: an ase\.Atoms is wanted, not str"):
        sh.normal_modes_of_each([clusters()[0], "Cu"], comm=comm)
    assert len(sh.normal_modes_of_each([], comm=comm)) == 0

    def stop(done, total):
        if comm.rank == comm.size - 1:
            raise Stopped("told to stop")

    with pytest.raises(Stopped, match="told to stop"):
        sh.normal_modes_of_each(clusters()[:6], calculator=EMT, comm=comm, progress=stop)

    class Broken(Calculator):
        def __init__(self):
            raise KeyboardInterrupt

    with pytest.raises((KeyboardInterrupt, Interrupted)):  # a rank that has not begun hears of another
        sh.normal_modes_of_each(clusters()[:6], calculator=Broken, comm=comm)
