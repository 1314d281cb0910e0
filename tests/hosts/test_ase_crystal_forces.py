"""Force constants of crystals by ASE's calculators: against ASE's own phonons and second derivatives of pairs."""

import itertools

from mpi4py import MPI

import numpy as np
import pytest

import sparsehess as sh
from sparsehess.errors import CheckError, InputError
from sparsehess.hosts.ase import hessian_function

pytest.importorskip("ase")

from ase import Atoms
from ase.build import bulk, fcc111
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.constraints import FixAtoms
from ase.phonons import Phonons

pytestmark = [
    pytest.mark.parallel([1, 2, 3]),
    pytest.mark.filterwarnings("ignore:Setting the shape on a NumPy array:DeprecationWarning:ase.atoms"),
]

SIGMA, EPSILON, REACH = 3.4, 0.0104, 5.8  # Å and eV; fourth neighbours lie beyond


class Uneven(EMT):
    """Copper whose atoms are not alike: by their numbers they are bound less and more."""

    def calculate(self, *args):
        super().calculate(*args)
        several = np.array([0.5, 1.0, 1.5])[np.arange(len(self.atoms)) % 3]
        apart = self.atoms.get_all_distances(mic=True, vector=True)
        r = np.linalg.norm(apart, axis=2)
        near = np.where(r < 3.0, np.exp(-((r / 2.0) ** 2)), 0.0) * np.outer(several, several)
        self.results["forces"] = self.results["forces"] + (near[:, :, None] * apart).sum(axis=1)
        for name in ("energy", "free_energy"):
            self.results[name] = self.results[name] - near.sum()


def argon(a=5.3):
    return bulk("Ar", "fcc", a=a, cubic=False), LennardJones(sigma=SIGMA, epsilon=EPSILON, rc=REACH)


def pair_curvature(way):
    r = np.linalg.norm(way)
    power = (SIGMA / r) ** 6
    slope = 24 * EPSILON * (power - 2 * power**2) / r
    bend = 24 * EPSILON * (26 * power**2 - 7 * power) / r**2
    along = np.outer(way, way) / r**2
    return bend * along + slope / r * (np.eye(3) - along)


@pytest.mark.essential
def test_lennard_jones_argon(comm):
    """D(q) = Σ_R V''(R) (1 − cos q·R) / m of the pairs within the cut-off, at any q."""
    atoms, atoms.calc = argon()
    constants = sh.force_constants(atoms, 4, comm=comm)
    assert constants.error < 1e-6 and constants.drift < 1e-7 and constants.evaluations < 25
    solid = sh.phonons(constants, comm=comm)
    points = np.random.default_rng(1).normal(size=(8, 3))
    q = points @ (2 * np.pi * np.linalg.inv(atoms.cell.array).T)
    steps = np.array([s for s in itertools.product(range(-3, 4), repeat=3) if any(s)]) @ atoms.cell.array
    ways = steps[np.linalg.norm(steps, axis=1) < REACH]
    exact = [
        np.linalg.eigvalsh(sum(pair_curvature(way) * (1 - np.cos(one @ way)) for way in ways))
        / atoms.get_masses()[0]
        for one in q
    ]
    found = solid.at(points)
    assert found.certified.all()
    assert np.abs(found.eigenvalues - exact).max() < 1e-6 * np.abs(exact).max()
    assert (np.abs(found.eigenvalues - exact) <= 10 * found.resolution[:, None]).all()


class OwnHessian(LennardJones):
    """Has second derivatives itself, times a factor."""

    factor = 1.0

    def get_hessian(self, atoms):
        plain = atoms.copy()
        plain.calc = LennardJones(**self.parameters)
        return self.factor * hessian_function(plain, comm=MPI.COMM_SELF)


class WrongHessian(OwnHessian):
    factor = 1.5


def test_second_derivatives_of_the_calculator(comm):
    """They are taken, one product a coordinate, and compared with the forces."""
    atoms, plain = argon()
    atoms.calc = plain
    by_forces = sh.force_constants(atoms, 3, comm=comm)
    atoms.calc = OwnHessian(**plain.parameters)
    own = sh.force_constants(atoms, 3, comm=comm)
    assert own.evaluations < by_forces.evaluations
    q = [[0.1, 0.2, 0.3]]
    values = [sh.phonons(one, comm=comm).at(q).eigenvalues for one in (own, by_forces)]
    assert np.abs(values[0] - values[1]).max() < 1e-6 * np.abs(values[1]).max()
    atoms.calc = WrongHessian(**plain.parameters)
    with pytest.raises(CheckError, match="product"):
        sh.force_constants(atoms, 3, comm=comm)


@pytest.mark.parallel([1])  # ASE's phonons share work by MPI themselves
def test_copper_beside_ase(comm, tmp_path):
    """ASE's own finite differences, at wave vectors that fit the supercell."""
    atoms = bulk("Cu", a=3.6)
    atoms.calc = EMT()
    constants = sh.force_constants(atoms, (2, 2, 3), comm=comm)
    theirs = Phonons(atoms, EMT(), supercell=(2, 2, 3), delta=0.005, name=str(tmp_path / "phonon"))
    theirs.run()
    theirs.read(acoustic=True)
    q = [[0.5, 0, 0], [0.5, 0.5, 1 / 3], [0, 0, 1 / 3]]
    energies = theirs.band_structure(np.array(q), verbose=False)
    per = sh.Units.of("eV", "angstrom", "amu", "meV").factor
    found = sh.phonons(constants, comm=comm).at(q)
    assert found.certified.all() and not found.imaginary.any()
    assert np.abs(per * np.sqrt(found.eigenvalues) - 1e3 * energies).max() < 1e-3 * 1e3 * energies.max()


def test_atoms_that_move_together(comm):
    """With a short cut-off atoms in several cells move at once, and the answer is the same."""
    cell = Atoms(
        "ArKrArKr", [[0.1, 0, 0], [3.9, 0.3, 0], [7.6, 0, 0.2], [11.3, 0, 0]], cell=[15, 15, 15], pbc=True
    )
    cell.calc = LennardJones(sigma=SIGMA, epsilon=EPSILON, rc=4.5)
    few = sh.force_constants(cell, (5, 1, 1), comm=comm)
    every = sh.force_constants(cell, (5, 1, 1), cutoff=np.inf, comm=comm)
    assert few.evaluations < every.evaluations
    q = [[0.3, 0, 0], [0.1, 0.2, 0.3]]
    values = [sh.phonons(one, comm=comm).at(q).eigenvalues for one in (few, every)]
    assert np.abs(values[0] - values[1]).max() < 1e-6 * np.abs(values[1]).max()


def test_one_cell_is_assembled(comm):
    """A cell that is not repeated has a Hessian, by colours: the same as that of a supercell of few cells."""
    one, calc = argon()
    large = one.repeat((3, 3, 3))
    one.calc, large.calc = calc, LennardJones(sigma=SIGMA, epsilon=EPSILON, rc=REACH)
    whole = sh.force_constants(large, 1, comm=comm)
    assert whole.images.count == 1 and whole.error < 1e-6
    at_zero = sh.phonons(whole, comm=comm).at([[0, 0, 0]])
    points = np.array(list(itertools.product(range(3), repeat=3))) / 3
    folded = np.sort(sh.phonons(sh.force_constants(one, 3, comm=comm), comm=comm).at(points).eigenvalues.ravel())
    assert np.abs(at_zero.eigenvalues[0] - folded).max() < 1e-6 * folded.max()


def test_a_calculator_that_knows_its_cutoff_late(comm):
    """EMT has none before it has evaluated forces; the cell of four atoms has the modes of supercells of four."""
    one, four = bulk("Cu", a=3.6), bulk("Cu", a=3.6, cubic=True)
    one.calc, four.calc = EMT(), EMT()
    small = sh.force_constants(one, [[-1, 1, 1], [1, -1, 1], [1, 1, -1]], comm=comm)
    large = sh.force_constants(four, 1, comm=comm)
    folded = sh.phonons(small, comm=comm).at([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
    found = sh.phonons(large, comm=comm).at([[0, 0, 0]])
    assert (
        np.abs(np.sort(folded.eigenvalues.ravel()) - found.eigenvalues[0]).max() < 1e-6 * found.eigenvalues.max()
    )


def test_what_does_not_repeat(comm):
    """Copies beyond an end of the crystal are refused; a layer, with vacuum or without, is one far from copies."""
    slab = fcc111("Cu", (1, 1, 2), a=3.6, vacuum=8.0)
    slab.calc = EMT()
    assert slab.pbc.tolist() == [True, True, False]
    for supercell in (2, (2, 2, 2), [[2, 0, 0], [0, 2, 0], [1, 0, 1]]):
        with pytest.raises(InputError, match="do not repeat along axis 2"):
            sh.force_constants(slab, supercell, comm=comm)
    flat = fcc111("Cu", (1, 1, 1), a=3.6)
    flat.calc = EMT()
    assert sh.force_constants(flat, (2, 2, 1), comm=comm).primitive.periodic == (True, True, False)
    flat.pbc = True
    with pytest.raises(InputError, match="is periodic in direction 2, where"):
        sh.force_constants(flat, (2, 2, 1), comm=comm)
    far = slab.copy()
    far.calc, far.pbc = EMT(), True
    found = [sh.phonons(sh.force_constants(one, (3, 3, 1), comm=comm), comm=comm) for one in (slab, far)]
    q = [[0.2, 0.1, 0], [0.5, 0, 0]]
    values = [one.at(q).eigenvalues for one in found]
    assert np.abs(values[0] - values[1]).max() < 1e-6 * np.abs(values[1]).max()


class Chosen(LennardJones):
    """Lennard-Jones atoms whose energy is as many times larger as `info` of the atoms says."""

    def calculate(self, *args):
        super().calculate(*args)
        for name in ("energy", "free_energy", "forces"):
            self.results[name] = self.results[name] * self.atoms.info.get("times", 1.0)


def test_what_a_calculator_reads_of_the_atoms_reaches_it(comm):
    values = []
    for times in (1.0, 4.0):
        atoms, _ = argon()
        atoms.calc, atoms.info["times"] = Chosen(sigma=SIGMA, epsilon=EPSILON, rc=REACH), times
        constants = sh.force_constants(atoms, 2, comm=comm)
        values.append(sh.phonons(constants, comm=comm).at([[0.5, 0, 0]]).eigenvalues)
    assert np.abs(values[1] - 4 * values[0]).max() < 1e-6 * values[1].max()


def test_what_depends_on_the_place(comm):
    """Forces that do not follow the translations of the crystal are told: their columns are not symmetric."""
    cell = bulk("Cu", a=3.6)
    cell.calc = Uneven()
    with pytest.raises(CheckError, match="translations"):
        sh.force_constants(cell, 3, cutoff=np.inf, comm=comm)


def test_what_is_refused(comm):
    atoms = bulk("Cu", a=3.6)
    with pytest.raises(InputError, match="no calculator"):
        sh.force_constants(atoms, comm=comm)
    atoms.calc = EMT()
    for supercell in (0, 1.5, (1, 2), np.zeros((3, 3)), 1, 10**9, np.nan):
        with pytest.raises(InputError, match="supercell="):
            sh.force_constants(atoms, supercell, comm=comm)
    held = atoms.copy()
    held.calc = EMT()
    held.set_constraint(FixAtoms([0]))
    with pytest.raises(InputError, match="constraints"):
        sh.force_constants(held, comm=comm)
    argon_atoms, argon_atoms.calc = argon()
    with pytest.raises(CheckError, match="fresh product"):
        sh.force_constants(argon_atoms, 5, cutoff=3.0, reach="pair", comm=comm)
