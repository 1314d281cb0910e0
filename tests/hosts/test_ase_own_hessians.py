"""Calculators that have second derivatives themselves: taken, compared with forces, refused where they differ."""

import numpy as np
import pytest
import scipy.sparse as sp

import sparsehess as sh
from sparsehess.errors import CheckError, EvaluationError, InputError

pytest.importorskip("ase")

from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.calculators.ff import ForceField
from ase.constraints import FixAtoms, FixCartesian
from ase.utils.ff import Morse, get_morse_potential_hessian

pytestmark = [
    pytest.mark.parallel([1, 2, 3]),
    pytest.mark.filterwarnings("ignore:Setting the shape on a NumPy array:DeprecationWarning:ase.atoms"),
]

DEPTH, WIDTH, LENGTH = 4.0, 1.9, 1.2
EV = sh.Units.of("eV", "angstrom", "amu")


class OwnForceField(ForceField):
    """ASE's force field, which puts the blocks of its bonds together wrongly (3.29): here they are put rightly."""

    def get_hessian(self, atoms=None):
        return get_morse_potential_hessian(atoms, self.morses[0])[2]


class WrongForceField(ForceField):
    """ASE's force field has a Hessian that it does not list among its properties; now it does."""

    implemented_properties = ("energy", "forces", "hessian")


def dimer(kind=OwnForceField):
    calculator = kind(morses=[Morse(0, 1, D=DEPTH, alpha=WIDTH, r0=LENGTH)])
    return Atoms("N2", [[0, 0, 0], [0, 0, LENGTH]], cell=[20, 20, 20], calculator=calculator)


class Springs(Calculator):
    """Atoms in a chain, joined by springs, each tied to its place; counts what it is asked."""

    implemented_properties = ("energy", "forces")

    def __init__(self, many, factor=1.0):
        super().__init__()
        chain = 2 * np.eye(many) - np.eye(many, k=1) - np.eye(many, k=-1)
        self.matrix, self.factor = np.kron(chain, np.diag([1.0, 2.0, 3.0])), factor
        self.places = np.arange(many)[:, None] * [0.0, 0.0, 2.0]
        self.asked = []

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        away = (atoms.get_positions() - self.places).ravel()
        self.asked.append("forces")
        self.results = {"energy": away @ self.matrix @ away / 2, "forces": -(self.matrix @ away).reshape(-1, 3)}


class Whole(Springs):
    def get_hessian(self, atoms=None):
        self.asked.append("matrix")
        many = len(self.places)
        return self.factor * self.matrix.reshape(3 * many, many, 3)


class Sparse(Springs):
    def get_hessian(self, atoms, format="sparse"):
        return sp.bsr_matrix(self.factor * self.matrix, blocksize=(3, 3))


class Products(Springs):
    def hessian_vector_product(self, atoms, v):
        self.asked.append("product")
        return self.factor * (self.matrix @ v.ravel()).reshape(-1, 3)


def chain(kind, many=6, **how):
    calculator = kind(many, **how)
    return Atoms(numbers=[18] * many, positions=calculator.places, calculator=calculator)


def test_a_morse_dimer_has_its_closed_form_either_way(comm):
    atoms = dimer()
    exact = EV.of_eigenvalues(np.array([2 * DEPTH * WIDTH**2 / (atoms.get_masses()[0] / 2)]))
    for own in (True, False):
        with sh.normal_modes(atoms, own=own, comm=comm) as modes:
            calls = modes.hessian.evaluations
            assert (calls["hvp"] > 0) == own and (calls["gradient"] == 0) == own
            # Its gradient has ten digits: differences know that, and say how far they may be off.
            assert abs(modes.frequencies[0] - exact[0]) < max(3 * modes.errors[0], 1e-9 * exact[0])
            assert modes.minimum and modes.force_max < 1e-10


class Off(Springs):
    def get_hessian(self, atoms=None):
        change = np.random.default_rng(3).normal(size=self.matrix.shape)
        return self.matrix + self.factor * (change + change.T) / 2


@pytest.mark.parametrize("factor", (1e-7, 1e-5, 1e-3))
def test_error_bars_hold_what_the_second_derivatives_are_apart_from_forces(comm, factor):
    atoms = chain(Off, factor=factor)
    values, _ = np.linalg.eigh(atoms.calc.matrix / atoms.get_masses()[0])
    with sh.normal_modes(atoms, project=False, comm=comm) as modes:
        errors, apart = modes.spectrum.errors, np.abs(modes.spectrum.eigenvalues - values)
        assert (apart <= errors).all() and 0 < errors.max() < 100 * apart.max()
        assert (np.abs(modes.frequencies - EV.of_eigenvalues(values)) <= modes.errors).all()


class Flipped(Springs):
    """Its softest motion of the inner atoms has a curvature of 1e-3; its own Hessian says less by a factor."""

    def __init__(self, many, factor):
        super().__init__(many, factor)
        inner = slice(3, 3 * many - 3)
        values, vectors = np.linalg.eigh(self.matrix[inner, inner])
        self.softest = np.zeros((3 * many, 3 * many))
        self.softest[inner, inner] = np.outer(vectors[:, 0], vectors[:, 0])
        self.matrix = self.matrix - (values[0] - 1e-3) * self.softest

    def get_hessian(self, atoms=None):
        return self.matrix - self.factor * self.softest


@pytest.mark.parametrize(("factor", "index", "proven"), [(0.0, 0, True), (2e-3, 1, False)])
def test_an_index_is_not_proven_by_second_derivatives_that_forces_do_not_bear_out(comm, factor, index, proven):
    atoms = chain(Flipped, factor=factor)
    atoms.set_constraint(FixAtoms([0, len(atoms) - 1]))
    with sh.saddle_point(atoms, step_tol=0.01, comm=comm) as found:
        assert (found.index, found.certified, found.is_saddle(index)) == (index, proven, proven)
        assert ("apart from differences of its forces" in str(found)) != proven


def test_what_is_only_inherited_is_passed_over(comm):
    with sh.normal_modes(dimer(ForceField), comm=comm) as modes:
        assert modes.hessian.objective.hvp is None and modes.hessian.evaluations["gradient"] > 0


def pair_hessian(x):
    """The Hessian of Morse bonds between all atoms, of unlike lengths, in the precision of x."""
    kind = x.dtype.type
    n = len(x)
    out = np.zeros((n, 3, n, 3), kind)
    for i in range(n):
        for j in range(i):
            d = x[i] - x[j]
            r = np.sqrt((d * d).sum())
            e = np.exp(-kind(WIDTH) * (r - kind(LENGTH * (1 + 0.3 * (i == 2)))))
            slope = 2 * kind(WIDTH) * kind(DEPTH) * (e - e * e)
            bend = 2 * kind(WIDTH) ** 2 * kind(DEPTH) * (2 * e * e - e)
            along = np.outer(d, d) / r**2
            block = bend * along + slope / r * (np.eye(3, dtype=kind) - along)
            for a, b, sign in ((i, i, 1), (j, j, 1), (i, j, -1), (j, i, -1)):
                out[a, :, b] += kind(sign) * block
    return out.reshape(3 * n, 3 * n)


class InSingle(Calculator):
    """Morse bonds with forces in double, and a Hessian that is computed in single precision, then changed."""

    implemented_properties = ("energy", "forces")

    def __init__(self, change=lambda h: h):
        super().__init__()
        self.change = change

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        x = atoms.get_positions()
        self.results = {"energy": 0.0, "forces": np.zeros(x.shape)}
        for i in range(len(x)):
            for j in range(i):
                d = x[i] - x[j]
                r = np.linalg.norm(d)
                e = np.exp(-WIDTH * (r - LENGTH * (1 + 0.3 * (i == 2))))
                self.results["energy"] += DEPTH * (e * e - 2 * e)
                pull = 2 * WIDTH * DEPTH * (e - e * e) * d / r
                self.results["forces"][i] -= pull
                self.results["forces"][j] += pull

    def get_hessian(self, atoms):
        return self.change(pair_hessian(atoms.get_positions().astype(np.float32)))


def planar(change=lambda h: h):
    """A triangle whose bonds have nearly their lengths: next to nothing holds its atoms in their plane."""
    long = 1.3 * LENGTH
    places = [[0, 0, 0], [LENGTH, 0, 0], [LENGTH / 2, np.sqrt(long**2 - LENGTH**2 / 4), 0]]
    return Atoms("N3", (1 + 1e-7) * np.array(places), calculator=InSingle(change))


def test_single_precision_in_rows_that_vanish_is_no_contradiction(comm):
    for many, turn in ((3, 0), (2, 90)):
        atoms = planar()[:many]
        atoms.calc = InSingle()
        atoms.rotate(turn, "y")
        with sh.normal_modes(atoms, project=False, comm=comm) as modes:
            exact = np.linalg.eigvalsh(pair_hessian(atoms.get_positions()) / atoms.get_masses()[0])
            assert (np.abs(modes.spectrum.eigenvalues - exact) <= modes.spectrum.errors).all()


def flipped(h):
    h[:3, 3:6] *= -1
    h[3:6, :3] *= -1
    return h


def transposed(h):
    h[:3, 3:6] = h[:3, 3:6][[1, 0, 2]][:, [1, 0, 2]]
    h[3:6, :3] = h[:3, 3:6].T
    return h


def by_a_factor(h):
    h[4] *= np.float32(1.01)
    return h


def emptied(h):
    h[4] = h[:, 4] = 0
    return h


def held_down(h):
    """It has a spring across the plane, a thousandth of its bonds, which its forces do not know."""
    h[2, 2] += np.float32(1e-3 * np.abs(h).max())
    return h


def jumping(h):
    """The spring is there at every other of some close points."""
    h[2, 2] += np.float32(0.02 * np.abs(h).max()) * (int(1e6 * h[0, 0]) % 2 + 1)
    return h


@pytest.mark.parametrize("change", [flipped, transposed, by_a_factor, emptied, held_down, jumping])
def test_single_precision_excuses_nothing_else(comm, change):
    with pytest.raises(CheckError):
        sh.normal_modes(planar(change), comm=comm)


@pytest.mark.parametrize("kind", [Whole, Sparse, Products])
def test_whole_sparse_and_products(comm, kind):
    atoms = chain(kind)
    values, _ = np.linalg.eigh(atoms.calc.matrix / atoms.get_masses()[0])
    known = {"cutoff": 2.5, "reach": "pair"} if kind is Products else {}
    with sh.assemble(sh.from_atoms(atoms, project=False, comm=comm, **known)) as hessian:
        assert hessian.objective.hvp is not None and hessian.evaluations["gradient"] == 0
        if kind is not Products:
            assert hessian.pattern.nnz == np.count_nonzero(atoms.calc.matrix)
            assert "get_hessian" in hessian.pattern.source
    with sh.normal_modes(atoms, project=False, comm=comm, **known) as modes:
        np.testing.assert_allclose(modes.spectrum.eigenvalues, values, rtol=1e-10)
        assert modes.hessian.evaluations["hvp"] < 18 + 5
    if kind is Whole:
        assert atoms.calc.asked.count("matrix") <= 3  # kept while atoms stay where they are


def test_held_coordinates_are_left_out(comm):
    atoms = chain(Whole)
    atoms.set_constraint([FixAtoms([0]), FixCartesian(3, mask=[True, False, False])])
    free = np.ones(18, bool)
    free[[0, 1, 2, 9]] = False
    values = np.linalg.eigvalsh(atoms.calc.matrix[np.ix_(free, free)] / atoms.get_masses()[0])
    with sh.normal_modes(atoms, project=False, comm=comm) as modes:
        np.testing.assert_allclose(modes.spectrum.eigenvalues, values, rtol=1e-10)
        assert not modes.displacements(0)[0].any()


def test_one_that_is_put_together_wrongly_is_refused(comm):
    """Its upper right corner alone is filled."""
    with pytest.raises(CheckError, match=r"contradict its gradient.*WrongForceField itself.*--differences"):
        sh.normal_modes(dimer(WrongForceField), comm=comm)


@pytest.mark.parametrize("kind", [Whole, Sparse, Products])
def test_a_wrong_one_is_refused(comm, kind):
    atoms = chain(kind, factor=1.05)
    with pytest.raises(CheckError, match="hvp"):
        sh.normal_modes(atoms, comm=comm)
    with sh.normal_modes(atoms, own=False, project=False, comm=comm) as modes:
        values = np.linalg.eigvalsh(atoms.calc.matrix / atoms.get_masses()[0])
        np.testing.assert_allclose(modes.spectrum.eigenvalues, values, rtol=1e-6)


def test_what_is_no_hessian_is_told(comm):
    class Short(Springs):
        def get_hessian(self, atoms):
            return np.eye(3)

    class Lost(Springs):
        def get_hessian(self, atoms):
            return np.full((18, 18), np.nan)

    class Bad(Springs):
        def hessian_vector_product(self, atoms, v):
            raise RuntimeError("bad luck")

    for kind, error, words in (
        (Short, InputError, "not a Hessian of 18 coordinates.*own=False"),
        (Lost, InputError, "get_hessian is not finite"),
        (Bad, EvaluationError, "raised RuntimeError.*bad luck.*own=False"),
    ):
        with pytest.raises(error, match=words):
            sh.normal_modes(chain(kind), comm=comm)
    with pytest.raises(InputError, match="own=1 is neither"):
        sh.from_atoms(chain(Whole), own=1, comm=comm)


def test_without_a_cut_off_all_are_coupled_where_they_are_few(comm):
    atoms = chain(Springs)
    with pytest.raises(InputError, match="cut-off of Springs is not known"):
        sh.from_atoms(atoms, comm=comm)
    with sh.normal_modes(atoms, project=False, comm=comm) as modes:
        assert modes.hessian.pattern.nnz == 18**2


def test_on_which_atom_the_largest_force_is(comm):
    atoms = Atoms("Cu3", [[0, 0, 0], [0, 0, 2.3], [0.4, 0.3, 4.9]], calculator=EMT())
    largest = np.linalg.norm(atoms.get_forces(), axis=1)
    with sh.normal_modes(atoms, comm=comm) as modes:
        assert modes.force_atom == largest.argmax() and modes.force_max == pytest.approx(largest.max())
