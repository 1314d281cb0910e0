"""Atoms that are not at rest: rigid motions projected out, against LAPACK on what NumPy makes of ASE's forces."""

from collections import Counter

import numpy as np
import pytest
import scipy.linalg

import sparsehess as sh
from sparsehess.eigen.problem.solve_spec import METHODS, WHOLE
from sparsehess.errors import EvaluationError, InputError
from sparsehess.hosts.ase import normal_modes

pytest.importorskip("ase")

from ase import Atoms
from ase.build import fcc111, molecule
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator, SinglePointDFTCalculator
from ase.constraints import FixAtoms, FixCartesian
from ase.optimize import BFGS

pytestmark = [
    pytest.mark.parallel([1, 2, 3]),
    pytest.mark.filterwarnings("ignore:Setting the shape on a NumPy array:DeprecationWarning:ase.atoms"),
]

CM = 521.4708983725064  # cm^-1 of sqrt(eV / (Å² amu)): CODATA 2018
STEP = 1e-4
TRANSLATIONS = [f"translation {axis}" for axis in "xyz"]


def hessian_of(atoms, step=STEP):
    """Return the whole Hessian by central differences of the forces, one coordinate at a time."""
    moved = atoms.copy()
    moved.set_constraint()
    moved.calc = atoms.calc
    start, out = atoms.get_positions(), []
    for number in range(start.size):
        slopes = []
        for sign in (1, -1):
            positions = start.copy()
            positions.reshape(-1)[number] += sign * step
            moved.set_positions(positions)
            slopes.append(-moved.get_forces().ravel())
        out.append((slopes[0] - slopes[1]) / (2 * step))
    return (np.array(out) + np.array(out).T) / 2


def moves(atoms, rotations):
    """Return the mass-weighted translations, and rotations about axes through the centre of mass, as columns."""
    roots, away = np.sqrt(atoms.get_masses())[:, None], atoms.get_positions() - atoms.get_center_of_mass()
    columns = [(roots * axis).ravel() for axis in np.eye(3) * np.ones((len(atoms), 1, 1))[0]]
    return np.array(columns + [(roots * np.cross(axis, away)).ravel() for axis in rotations]).T


def truth(atoms, rigid=None, free=None):
    """Return the frequencies of the mass-weighted Hessian beside some columns, imaginary ones negative."""
    free = np.ones(3 * len(atoms), bool) if free is None else free
    masses = np.repeat(atoms.get_masses(), 3)[free]
    H = hessian_of(atoms)[np.ix_(free, free)] / np.sqrt(np.outer(masses, masses))
    if rigid is not None:
        Z = scipy.linalg.null_space(rigid.T)
        H = Z.T @ H @ Z
    values = np.linalg.eigvalsh(H)
    return CM * np.sign(values) * np.sqrt(np.abs(values))


def squares(frequencies):
    """Return what differences tell: near zero it is good for half a cm^-1 alone."""
    return frequencies * np.abs(frequencies)


def relaxed(atoms, fmax):
    BFGS(atoms, logfile=None).run(fmax=fmax, steps=500)
    return atoms


def line_of(atoms):
    """Return two axes across a line of atoms."""
    along = atoms.get_positions()[-1] - atoms.get_positions()[0]
    return scipy.linalg.null_space(along[None]).T


def carbon_dioxide(turn=0.0, about=(1, 2, 3), bend=0.0, stretch=1.2):
    atoms = Atoms("OCO", [[-stretch, 0, 0], [0, bend, 0], [stretch, 0, 0]], calculator=EMT())
    atoms.rotate(turn, about)
    return atoms


@pytest.mark.parametrize("fmax", [0.05, 1e-6])
def test_water_has_its_three_vibrations_however_well_it_is_relaxed(fmax, comm):
    atoms = relaxed(molecule("H2O", calculator=EMT()), fmax)
    rigid = moves(atoms, np.eye(3))
    exact, raw = truth(atoms, rigid), truth(atoms)
    there = truth(atoms, scipy.linalg.null_space(rigid.T))
    resisted = there[np.abs(there).argmax()]
    with normal_modes(atoms, comm=comm) as modes:
        assert modes.frequencies == pytest.approx(exact, abs=1e-3) and len(exact) == 3
        assert not (modes.imaginary | modes.zero).any()
        assert modes.spectrum.count.certified and modes.spectrum.count.inertia == 9
        assert list(modes.rigid) == [*TRANSLATIONS, "rotation x", "rotation y", "rotation z"]
        forces = np.linalg.norm(atoms.get_forces(), axis=1)
        assert modes.force_max == pytest.approx(forces.max()) and modes.force_max <= fmax
        assert modes.force_rms == pytest.approx(np.sqrt(np.mean(forces**2) / 3))
        # What the Hessian itself has, and by how much it differs: all of its eigenvalues.
        assert modes.spectrum.projection.whole
        assert modes.frequencies + modes.moved == pytest.approx(raw[6:], abs=1e-3)
        assert squares(modes.resisted) == pytest.approx(squares(resisted), rel=1e-3, abs=0.25)
        assert "not linear" in modes.shape and f"{modes.force_max:.2g} eV/Å at most" in str(modes)
    with normal_modes(atoms, project=False, comm=comm) as modes:
        assert squares(modes.frequencies) == pytest.approx(squares(raw), rel=1e-6, abs=0.25) and not modes.rigid
        assert modes.resisted == 0 and not modes.moved.any()


@pytest.mark.parametrize(("turn", "about"), [(0, (0, 0, 1)), (90, (0, 1, 0)), (37, (1, 2, 3)), (113, (3, -1, 2))])
@pytest.mark.parametrize("stretch", [1.2, 1.3, 1.1])
def test_lines_have_the_same_modes_however_they_are_turned(turn, about, stretch, comm):
    atoms, straight = (carbon_dioxide(angle, about, stretch=stretch) for angle in (turn, 0.0))
    assert np.abs(atoms.get_forces()).max() > 0.05
    exact = truth(atoms, moves(atoms, line_of(atoms)))
    with normal_modes(atoms, comm=comm) as modes, normal_modes(straight, comm=comm) as others:
        assert modes.frequencies == pytest.approx(exact, abs=1e-3) and len(exact) == 4
        assert modes.frequencies == pytest.approx(others.frequencies, abs=1e-4)
        assert modes.imaginary.sum() == others.imaginary.sum() == np.count_nonzero(exact < 0)
        assert not modes.zero.any() and not others.zero.any()
        assert list(modes.rigid) == [*TRANSLATIONS, "rotation 1", "rotation 2"]
        assert modes.resisted == pytest.approx(others.resisted, rel=1e-4)
        assert modes.shape.startswith("linear")


def test_lines_that_are_a_little_bent_are_lines(comm):
    """To 3° or so; beyond, one of the bends becomes a rotation: the answer says which was taken."""
    for bend, kept in ((1e-9, 4), (1e-3, 4), (0.02, 4), (0.1, 3), (0.6, 3)):
        atoms = carbon_dioxide(37, bend=bend)
        turns = line_of(atoms) if kept == 4 else np.eye(3)
        with normal_modes(atoms, comm=comm) as modes:
            assert modes.frequencies == pytest.approx(truth(atoms, moves(atoms, turns)), abs=2e-3)
            assert len(modes.frequencies) == kept
            assert modes.shape.startswith("linear" if kept == 4 else "not linear") and "limit" in modes.shape
            lost = abs(modes.resisted)
        if bend == 0.1:
            assert lost > 200  # the bend, among the rotations
    chain = Atoms("HC8H", [[1.2 * i, 0, 0] for i in range(10)], calculator=EMT())
    assert len(sh.from_atoms(chain, comm=comm).null_names) == 5
    chain.positions[0] += [0.6, 1.0, 0]  # one atom off a long line: what matters is not the sum over all
    assert len(sh.from_atoms(chain, comm=comm).null_names) == 6


@pytest.mark.parametrize("name", ["C2H6", "C6H6", "CH4", "C2H2", "NH3"])
def test_molecules_as_they_come_have_3n_less_6_or_5(name, comm):
    atoms = molecule(name, calculator=EMT())
    linear = name == "C2H2"
    rigid = moves(atoms, line_of(atoms) if linear else np.eye(3))
    with normal_modes(atoms, comm=comm) as modes:
        exact = truth(atoms, rigid)
        assert len(modes.frequencies) == 3 * len(atoms) - (5 if linear else 6)
        assert modes.frequencies == pytest.approx(exact, abs=2e-3)
        assert modes.imaginary.sum() == np.count_nonzero(exact < 0)
        assert modes.spectrum.count.certified
        moved = modes.displacements(len(exact) - 1)
        assert np.abs(rigid.T @ (np.sqrt(atoms.get_masses())[:, None] * moved).ravel()).max() < 1e-8
    with normal_modes(atoms, 2, which="largest", comm=comm) as modes:
        assert modes.frequencies == pytest.approx(exact[-2:], abs=2e-3)


def test_saddles_far_from_rest_do_not_depend_on_how_they_are_turned(comm):
    """Lines of three that want to bend, a square, and a molecule whose rotations are far within its vibrations."""
    for bond in (0.9, 1.0):
        line = Atoms("HOH", [[0, 0, -bond], [0, 0, 0], [0, 0, bond]], calculator=EMT())
        exact = truth(line, moves(line, line_of(line)))
        for turn in (0, 33, 90):
            line.rotate(turn, (1, 2, 3))
            with normal_modes(line, comm=comm) as modes:
                assert modes.frequencies == pytest.approx(exact, abs=0.01)
                assert modes.imaginary.sum() == 2 and abs(modes.resisted) > 1000
    for atoms in (Atoms("Cu4", [[0, 0, 0], [2.4, 0, 0], [2.4, 2.4, 0], [0, 2.4, 0]]), molecule("CH4")):
        atoms.rattle(0.15 if len(atoms) == 5 else 0.0, seed=1)
        atoms.calc = EMT()
        exact, raw = truth(atoms, moves(atoms, np.eye(3))), truth(atoms)
        for turn in (0, 50):
            atoms.rotate(turn, (1, 1, 3))
            with normal_modes(atoms, comm=comm) as modes:
                assert modes.frequencies == pytest.approx(exact, abs=0.01)
                assert modes.imaginary.sum() == np.count_nonzero(exact < 0) and modes.spectrum.count.certified
                ours = modes.frequencies + modes.moved
                assert np.abs(ours[:, None] - raw).min(axis=1).max() < 0.05


def test_energies_that_are_not_the_same_everywhere_show_in_what_is_told(comm):
    class Trap(EMT):
        def calculate(self, atoms=None, properties=(), changes=()):
            super().calculate(atoms, properties, changes)
            self.results["energy"] += (atoms.positions**2).sum()
            self.results["forces"] = self.results["forces"] - 2 * atoms.positions

    atoms = molecule("H2O", calculator=Trap())
    with normal_modes(atoms, comm=comm) as modes:
        held = CM * np.sqrt(2 * 3 / atoms.get_masses().sum())  # three springs on the whole
        assert [modes.rigid[name] for name in TRANSLATIONS] == pytest.approx(3 * [held], rel=1e-5)
        assert modes.frequencies == pytest.approx(truth(atoms, moves(atoms, np.eye(3))), abs=2e-3)
        ours = modes.frequencies + modes.moved
        assert np.abs(ours[:, None] - truth(atoms)).min(axis=1).max() < 0.05
        assert f"translation x ({held:.2g})" in str(modes)
        assert "translation" in modes.outside and modes.outside in str(modes) and "saddle point" not in str(modes)


@pytest.mark.parametrize("method", [one for one in METHODS if one != "structure"])
def test_every_method_solves_and_counts_the_projected_problem(method, comm):
    atoms = molecule("CH3CH2OH", calculator=EMT())
    exact = truth(atoms, moves(atoms, np.eye(3)))
    part = exact[(exact > 100) & (exact < 500)]
    wanted = {"interval": ((100 / CM) ** 2, (500 / CM) ** 2)} if method in WHOLE else {"k": 3}
    expected = part if method in WHOLE else exact[:3]
    if method == "power":
        wanted, expected = {"k": 3, "which": "magnitude"}, exact[-3:]
    with (
        sh.assemble(sh.from_atoms(atoms, comm=comm)) as hessian,
        sh.eigs(hessian, method=method, **wanted) as found,
    ):
        assert hessian.objective.units.of_eigenvalues(found.eigenvalues) == pytest.approx(expected, abs=2e-3)
        assert found.count.certified
        assert sh.certify(hessian, found).passed
        assert found.projection is not None and len(found.projection.resisted) == 6


def test_signs_and_sums_are_those_of_the_projected_problem(comm):
    atoms = relaxed(molecule("H2O", calculator=EMT()), 0.05)
    exact, raw = truth(atoms, moves(atoms, np.eye(3))), truth(atoms)
    assert (raw < -50).sum() == 3 and (exact > 0).all()
    for project, signs, values in ((True, (0, 6, 3), exact), (False, (3, 3, 3), raw)):
        with sh.assemble(sh.from_atoms(atoms, project=project, comm=comm)) as hessian:
            found = sh.inertia(hessian)
            assert (found.negative, found.zero, found.positive) == signs and found.certified
            total = np.sum(np.sign(values) * (values / CM) ** 2)
            assert sh.trace(hessian).trace == pytest.approx(total, abs=1e-6)
    shell = sh.MatrixFree(sh.from_atoms(atoms, comm=comm))
    with shell, sh.eigs(shell, 3) as found:
        assert CM * np.sqrt(found.eigenvalues) == pytest.approx(exact, abs=1e-2)
        assert sh.inertia(shell).definite == "positive semidefinite"


def test_rigid_motions_follow_the_atoms(comm):
    atoms = carbon_dioxide(37)
    bent = carbon_dioxide(80, (1, 0, 2), bend=0.5)
    with sh.assemble(sh.from_atoms(atoms, comm=comm)) as hessian:
        for there, turns in ((bent, np.eye(3)), (atoms, line_of(atoms))):
            hessian.update(there.get_positions().ravel())
            with sh.eigs(hessian) as found:
                values = hessian.objective.units.of_eigenvalues(found.eigenvalues)
                assert values == pytest.approx(truth(there, moves(there, turns)), abs=2e-3)


def test_small_molecules_are_ordinary(comm):
    with normal_modes(Atoms("Cu", calculator=EMT()), comm=comm) as modes:
        assert modes.frequencies.shape == (0,) and list(modes.rigid) == TRANSLATIONS
        assert modes.spectrum.count.certified and modes.spectrum.count.inertia == 3
        assert "single atom" in modes.shape and str(modes)
    for formula in ("N2", "CO"):
        atoms = molecule(formula, calculator=EMT())
        with normal_modes(atoms, comm=comm) as modes:
            assert modes.frequencies == pytest.approx(truth(atoms, moves(atoms, line_of(atoms))), abs=1e-3)
        with pytest.raises(InputError, match="k=2, but of 6 coordinates 1 vibrate; linear"):
            normal_modes(atoms, 2, comm=comm)
    with normal_modes(atoms, 6, project=False, comm=comm) as modes:
        assert len(modes.frequencies) == 6
    with normal_modes(Atoms("Cu", calculator=EMT()), which="negative", comm=comm) as modes:
        assert len(modes.frequencies) == 0


def ring(calculator, many=3):
    """Return argon in corners about the z axis, repeated along it, a little off."""
    corners = 2.1 * np.exp(2j * np.pi * np.arange(3) / 3)
    wire = Atoms("Ar3", np.stack([corners.real, corners.imag, 0 * corners.real], axis=1), cell=[20, 20, 3.6])
    wire.pbc = [False, False, True]
    wire = wire.repeat((1, 1, many))
    wire.rattle(0.02, seed=2)
    wire.calc = calculator
    return wire


def test_cells_leave_translations_and_wires_a_rotation(comm):
    argon = LennardJones(sigma=3.4, epsilon=0.0104, rc=6.0, ro=4.5, smooth=True)
    wire = ring(argon)
    with normal_modes(wire, comm=comm) as modes:
        exact = truth(wire, moves(wire, [np.array([0, 0, 1.0])]))
        assert list(modes.rigid) == [*TRANSLATIONS, "rotation about the wire"]
        assert modes.frequencies == pytest.approx(exact, abs=1e-3) and len(exact) == 27 - 4
        assert modes.shape.startswith("a wire: 3 translations, 1 rotation")
    straight = Atoms(
        "Ar3", [[0, 0, 3.7 * i] for i in range(3)], cell=[20, 20, 11.1], pbc=[0, 0, 1], calculator=argon
    )
    assert list(sh.from_atoms(straight, comm=comm).null_names) == TRANSLATIONS
    slab = fcc111("Cu", (2, 2, 2), vacuum=8.0)
    slab.rattle(0.03, seed=1)
    slab.calc = EMT()
    with normal_modes(slab, comm=comm) as modes:
        exact = truth(slab, moves(slab, []))
        assert list(modes.rigid) == TRANSLATIONS and modes.frequencies == pytest.approx(exact, abs=2e-3)
        assert abs(modes.resisted) < 0.1  # translations are null vectors of any cell, at rest or not
    slab.set_constraint(FixAtoms(mask=slab.get_tags() > 1))
    with normal_modes(slab, comm=comm) as modes:
        free = np.repeat(slab.get_tags() <= 1, 3)
        assert not modes.rigid and modes.frequencies == pytest.approx(truth(slab, free=free), abs=2e-3)


def left(atoms, held):
    """Return the mass-weighted rigid motions that move nothing that is held, on what is free, as columns."""
    roots = np.sqrt(np.repeat(atoms.get_masses(), 3))
    shapes = moves(atoms, np.eye(3)) / roots[:, None]
    return (roots[:, None] * (shapes @ scipy.linalg.null_space(shapes[held], rcond=1e-10)))[~held]


@pytest.mark.parametrize(
    ("constraints", "names"),
    [
        ([FixAtoms([0])], ["rotation 1", "rotation 2", "rotation 3"]),
        ([FixAtoms([0, 1])], ["rotation 1"]),
        ([FixAtoms([0, 1, 2])], []),
        ([FixCartesian(range(8), mask=(False, False, True))], ["translation x", "translation y", "rotation z"]),
        ([FixCartesian([3], mask=(True, False, False))], ["translation y", "translation z", *3 * ["rotation"]]),
    ],
)
def test_constraints_leave_what_moves_nothing_that_is_held(constraints, names, comm):
    atoms = molecule("C2H6", calculator=EMT())
    atoms.rattle(0.05, seed=1)
    atoms.set_constraint(constraints)
    held = np.ones((8, 3))
    for constraint in constraints:
        constraint.adjust_forces(atoms, held)
    held = held.ravel() == 0
    with normal_modes(atoms, comm=comm) as modes:
        ours = list(modes.rigid)
        assert len(ours) == len(names) and all(one.startswith(name) for one, name in zip(ours, names, strict=True))
        rigid = left(atoms, held)
        assert rigid.shape[1] == len(names)
        exact = truth(atoms, rigid if names else None, ~held)
        assert modes.frequencies == pytest.approx(exact, abs=2e-3) and modes.spectrum.count.certified
        assert "left by the constraints" in modes.shape


class EnergyAlone(Calculator):
    """EMT without its forces."""

    implemented_properties = ("energy",)

    def __init__(self):
        super().__init__()
        self.rc_list = None

    def calculate(self, atoms=None, properties=("energy",), changes=()):
        super().calculate(atoms, properties, changes)
        copy = atoms.copy()
        copy.calc = EMT()
        self.results["energy"] = copy.get_potential_energy()


def test_calculators_with_energies_alone_are_differentiated_twice(comm):
    atoms = relaxed(molecule("H2O", calculator=EMT()), 0.05)
    forces = np.linalg.norm(atoms.get_forces(), axis=1).max()
    exact = truth(atoms, moves(atoms, np.eye(3)))
    atoms.calc = EnergyAlone()
    with normal_modes(atoms, cutoff=np.inf, comm=comm) as modes:
        assert modes.frequencies == pytest.approx(exact, rel=5e-3)
        assert np.abs(modes.frequencies - exact).max() <= 10 * modes.errors.max()
        assert modes.force_max == pytest.approx(forces, rel=1e-2)


def test_mistakes_get_a_sentence(comm):
    def ask(atoms, kind, says, **more):
        with pytest.raises(kind, match=says):
            normal_modes(atoms, comm=comm, **more)

    water = molecule("H2O", calculator=EMT())
    for single in (SinglePointCalculator, SinglePointDFTCalculator):
        atoms = water.copy()
        atoms.calc = single(atoms, energy=0.0, forces=np.zeros((3, 3)))
        ask(atoms, InputError, "attach the calculator that made them")
    ask(Atoms(calculator=EMT()), InputError, "there are no atoms")
    ask("H2O", InputError, "takes ase.Atoms, not str")
    ask(water, InputError, "project='no' is neither", project="no")
    atoms = Atoms("ArX", [[0, 0, 0], [0, 0, 3.8]], masses=[40.0, 0.0], calculator=LennardJones(sigma=3.4))
    ask(atoms, InputError, r"atom 1 \(X\) has the mass 0: give it one")
    atoms.set_constraint(FixAtoms([1]))
    with normal_modes(atoms, comm=comm) as modes:
        assert len(modes.frequencies) == 1 and len(modes.rigid) == 2
    atoms.set_masses([np.nan, 1.0])
    ask(atoms, InputError, r"atom 0 \(Ar\) has the mass nan")
    for calculator in (EMT(), LennardJones()):
        for apart in (0.0, 1e-9, 5e-4):
            pair = Atoms("Cu3", [[0, 0, 0], [2, 0, 0], [apart, 0, 0]], calculator=calculator)
            ask(pair, InputError, rf"atoms 0 \(Cu\) and 2 \(Cu\) are at one place, {apart:.2g} Å apart")
    images = Atoms("Cu2", [[0, 0, 0], [0, 0, 4]], cell=[0, 0, 4], pbc=[0, 0, 1], calculator=EMT())
    ask(images, InputError, "are at one place")

    class Infinite(EMT):
        def calculate(self, *arguments, **more):
            super().calculate(*arguments, **more)
            self.results["forces"] = np.where(self.results["forces"] > 0, np.inf, 0.0)

    ask(molecule("H2O", calculator=Infinite()), InputError, r"force of Infinite on atom \d \(.\) is not finite")
    ask(Atoms("X2", [[0, 0, 0], [1, 0, 0]], calculator=EMT()), EvaluationError, "No EMT-potential for X")

    class Nothing(EMT):
        def get_property(self, name, *arguments):
            return None if name == "forces" else super().get_property(name, *arguments)

    ask(molecule("H2O", calculator=Nothing()), InputError, r"forces of Nothing are None, not \(3, 3\) numbers")
    atoms = water.copy()
    atoms.positions[1, 1] = np.nan
    atoms.calc = EMT()
    ask(atoms, InputError, "positions of H2O are not finite")
    flat = Atoms("Cu2", [[0, 0, 0], [2.5, 0, 0]], pbc=[True, False, False], calculator=LennardJones())
    ask(flat, InputError, "cell|vector")


@pytest.mark.parametrize(
    "make, minimum, says",
    [
        (
            lambda: relaxed(molecule("N2", calculator=EMT()), 1e-3),
            True,
            "minimum      yes if at rest: no imaginary mode",
        ),
        (lambda: relaxed(carbon_dioxide(), 0.01), False, "minimum      no: 2 imaginary modes"),
        (lambda: molecule("CH3CH2OH", calculator=EMT()), False, "minimum      no: 13 imaginary modes"),
    ],
)
def test_modes_say_whether_this_is_a_minimum(make, minimum, says, comm):
    atoms = make()
    with normal_modes(atoms, comm=comm) as modes:
        assert modes.minimum is minimum and says in str(modes)
        at_rest = abs(modes.resisted) <= np.abs(modes.frequencies).min()
        assert at_rest == ("at rest      no" not in str(modes)) and at_rest == (modes.force_max < 0.1)
    with normal_modes(atoms, 1, comm=comm) as modes:
        assert modes.minimum is minimum and ("at least 1" in str(modes)) is not minimum


def test_modes_that_are_not_the_lowest_say_nothing_of_a_minimum(comm):
    atoms = relaxed(molecule("H2O", calculator=EMT()), 1e-3)
    calls = []
    with normal_modes(atoms, 1, which="largest", comm=comm, progress=lambda *done: calls.append(done)) as modes:
        assert modes.minimum is None and "minimum      not told" in str(modes)
    assert calls


def test_the_name_says_what_forces_are_left(comm):
    atoms = relaxed(molecule("H2O", calculator=EMT()), 0.05)
    assert sh.from_atoms(atoms, comm=comm).name.startswith("H2O by EMT, forces up to 0.0")
    names = Counter(name.split()[0] for name in sh.from_atoms(atoms, comm=comm).null_names)
    assert names == {"translation": 3, "rotation": 3}
    assert sh.from_atoms(atoms, project=False, comm=comm).null_vectors is None
    given = sh.from_atoms(atoms, null_vectors=np.tile(np.eye(3), 3)[:1], null_names=("mine",), comm=comm)
    assert given.projected is None and given.null_names == ("mine",)
