"""Inside ASE: the forces of its calculators, against its own vibrations; any number of ranks."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.sparse import csr_matrix

import sparsehess as sh
from sparsehess.errors import EvaluationError, InputError
from sparsehess.hosts import ase as host
from sparsehess.hosts.ase import hessian_function, normal_modes, vibrations_data
from sparsehess.hosts.ase.couplings import _CALCULATORS
from support.cases import frobenius_error, run_example

pytest.importorskip("ase")

from ase import Atoms
from ase.build import bulk, fcc111
from ase.calculators.calculator import Calculator
from ase.calculators.eam import EAM
from ase.calculators.emt import EMT
from ase.calculators.harmonic import HarmonicCalculator, HarmonicForceField
from ase.calculators.lj import LennardJones
from ase.calculators.morse import MorsePotential
from ase.cluster import Icosahedron
from ase.constraints import FixAtoms, FixBondLength, FixCartesian
from ase.optimize import BFGSLineSearch
from ase.vibrations import Vibrations

import copper_cluster

pytestmark = [
    pytest.mark.parallel([1, 2]),
    # ASE 3.29 does so itself, and NumPy 2.5 wants no one to.
    pytest.mark.filterwarnings("ignore:Setting the shape on a NumPy array:DeprecationWarning:ase.atoms"),
]

ARGON = {"sigma": 3.4, "epsilon": 0.0104, "rc": 6.0, "ro": 4.5, "smooth": True}


def test_hessian_and_frequencies_are_those_of_ase(comm, folder):
    objective, calls = copper_cluster.rod(comm, length=12), []

    def gradient(x):
        calls.append(1)
        return objective.gradient(x)

    atoms = Atoms(numbers=[29] * (objective.n // 3), positions=objective.x.reshape(-1, 3), calculator=EMT())
    vibrations = Vibrations(atoms, name=str(folder / "vibrations"), delta=1e-4)
    vibrations.run()
    theirs = vibrations.get_vibrations().get_hessian_2d()
    with sh.assemble(replace(objective, gradient=gradient)) as hessian, sh.eigs(hessian, 8) as modes:
        spent = comm.allreduce(len(calls))
        assert spent <= 2 * hessian.coloring.count + 7 + 4  # noise; two to verify, and two beside the energy
        assert spent < 0.75 * len(list(vibrations.displacements()))  # 6 an atom and one
        assert frobenius_error(hessian.mat, csr_matrix(theirs), comm) < 1e-6
        # Their six lowest are the rigid modes, which are deflated here.
        frequencies = objective.units.of_eigenvalues(modes.eigenvalues)
        assert frequencies == pytest.approx(np.sort(vibrations.get_frequencies().real)[6:14], rel=1e-5)
        assert modes.count.certified
    layout = objective.layout
    outside = objective.pattern.to_scipy().toarray() == 0
    assert outside.mean() > 0.3
    assert not theirs[layout.start : layout.stop][outside].any()  # the pattern is all there is, to the last bit


def test_atoms_of_the_host_stay_where_they_are(comm):
    atoms = Icosahedron("Cu", 2)
    atoms.calc = calculator = EMT()
    before, energy = atoms.get_positions(), atoms.get_potential_energy()
    objective = copper_cluster.vibrations(atoms, comm)
    with sh.assemble(objective) as hessian, sh.eigs(hessian, 3) as modes:
        assert (modes.eigenvalues > 0).all()
        hessian.update(before.ravel())
    assert np.array_equal(atoms.get_positions(), before)
    assert atoms.calc is calculator and calculator.get_potential_energy(atoms) == energy
    assert objective.energy(objective.x) < energy


def of_ase(atoms, folder, **more):
    """Return the vibrations of ASE's own differences, one coordinate at a time."""
    vibrations = Vibrations(atoms, name=str(folder / "vibrations"), delta=1e-4, **more)
    vibrations.run()
    return vibrations.get_vibrations()


def at_rest(atoms):
    with BFGSLineSearch(atoms, logfile=None) as search:
        assert search.run(fmax=1e-9, steps=2000)
    return atoms


def crystal():
    atoms = bulk("Ar", "fcc", a=5.3, cubic=True).repeat((2, 2, 5))
    atoms.calc = LennardJones(**ARGON)
    return atoms


def test_example():
    run_example(host)


def test_atoms_that_are_held_are_removed(comm, folder):
    slab = fcc111("Cu", (2, 2, 4), vacuum=8.0)
    slab.set_constraint(FixAtoms(mask=slab.get_tags() > 2))
    slab.calc = EMT()
    slab.rattle(0.02, seed=3)
    theirs = of_ase(slab, folder)  # of the free atoms, as it finds them itself
    with normal_modes(slab, 24, comm=comm, method="dense") as modes:
        assert modes.hessian.pattern.n == 3 * 8 and modes.hessian.objective.null_vectors is None
        ours = vibrations_data(modes.hessian, slab)
        assert ours.get_indices().tolist() == theirs.get_indices().tolist()
        scale = np.abs(theirs.get_hessian_2d()).max()
        np.testing.assert_allclose(ours.get_hessian_2d(), theirs.get_hessian_2d(), atol=2e-6 * scale)
        known = theirs.get_frequencies()
        expected = np.sort(known.real - known.imag)
        np.testing.assert_allclose(modes.frequencies, expected, atol=1e-3)
        np.testing.assert_array_equal(modes.imaginary, expected < 0)
        moved = modes.displacements(23)
        assert moved.shape == (16, 3) and not moved[slab.get_tags() > 2].any()
        assert (slab.get_masses()[:, None] * moved**2).sum() == pytest.approx(1)


def test_crystals_have_translations_alone(comm):
    atoms = crystal()
    objective = sh.from_atoms(atoms, comm=comm)
    assert objective.null_names == ("translation x", "translation y", "translation z")
    with normal_modes(atoms, 3, comm=comm) as modes:
        assert (
            repr(modes).startswith(f"<NormalModes: {len(atoms)} atoms, 3 modes from ") and len(repr(modes)) <= 100
        )
        hessian = modes.hessian
        assert hessian.repaired == 0 and hessian.coloring.count < 0.8 * objective.n
        assert modes.spectrum.count.certified and not (modes.imaginary | modes.zero).any()
        assert set(modes.rigid) == set(objective.null_names)
        assert np.abs(list(modes.rigid.values())).max() < 1e-2 < modes.frequencies[0]
        columns = np.zeros(objective.n)
        columns[[5, 201]] = [1, -2]
        v, product = hessian.mat.createVecs()
        v.setArray(objective.local(columns))
        hessian.mat.mult(v, product)
        ahead, back = (objective.gradient(objective.x + step * columns) for step in (1e-4, -1e-4))
        slopes = (ahead - back) / 2e-4
        assert product.getArray() == pytest.approx(objective.local(slopes), abs=1e-5 * np.abs(slopes).max())
        v.destroy()
        product.destroy()


def test_saddles_of_lines_and_rotations_of_wires(comm):
    """Three atoms in a line are pressed to bend, both ways alike: their stretches have closed forms."""
    potential = MorsePotential(epsilon=1.0, r0=1.0, rho0=6.0, rcut1=10, rcut2=12)

    def line(apart):
        return Atoms("H3", np.outer([-1, 0, 1], [0, 0.6, 0.8]) * apart, calculator=potential)

    apart = minimize_scalar(lambda d: line(d).get_potential_energy(), (0.9, 1.0), tol=1e-14).x

    def curvature(r):
        far = np.exp(-6.0 * (r - 1))
        return 2 * 36.0 * (2 * far**2 - far)

    with normal_modes(line(apart), 4, comm=comm) as modes:
        assert sorted(modes.rigid) == ["rotation 1", "rotation 2"] + [f"translation {axis}" for axis in "xyz"]
        assert modes.imaginary.tolist() == [True, True, False, False]
        assert modes.frequencies[0] == pytest.approx(modes.frequencies[1], rel=1e-5)
        near, far, mass = curvature(apart), curvature(2 * apart), line(1).get_masses()[0]
        exact = np.sort([3 * near / mass, (near + 2 * far) / mass])
        units = modes.hessian.objective.units
        assert modes.frequencies[2:] == pytest.approx(units.of_eigenvalues(exact), rel=1e-5)

    corners = 2.1 * np.exp(2j * np.pi * np.arange(3) / 3)
    wire = Atoms("Ar3", np.stack([corners.real, corners.imag, 0 * corners.real], axis=1), cell=[20, 20, 3.6])
    wire.pbc = [False, False, True]
    wire = wire.repeat((1, 1, 6))
    wire.calc = LennardJones(**ARGON)
    with normal_modes(at_rest(wire), 2, comm=comm) as modes:
        assert list(modes.rigid)[3:] == ["rotation about the wire"]
        assert np.abs(list(modes.rigid.values())).max() < 1e-2 < np.abs(modes.frequencies).min()


def test_single_coordinates_can_be_held(comm):
    atoms = crystal()[:12]
    atoms.set_constraint([FixCartesian([0, 3], mask=(True, False, True)), FixAtoms([7])])
    atoms.calc = LennardJones(**ARGON)
    objective = sh.from_atoms(atoms, comm=comm)
    held = [0, 2, 9, 11, 21, 22, 23]
    assert objective.n == 36 - len(held) and objective.null_vectors is None
    free = np.setdiff1d(np.arange(36), held)
    whole = hessian_function(atoms, comm=comm)
    assert abs(whole[held]).max() > 0.01
    with sh.assemble(objective) as hessian:
        assert hessian.repaired == 0
        assert frobenius_error(hessian.mat, csr_matrix(whole[np.ix_(free, free)]), comm) < 1e-7
        with pytest.raises(InputError, match="whole atoms only"):
            vibrations_data(hessian, atoms)


def test_hessians_for_sella(comm, folder):
    atoms = at_rest(Atoms(copper_cluster.Icosahedron("Cu", 2), calculator=EMT()))
    before, calculator = atoms.get_positions(), atoms.calc
    atoms.set_constraint(FixAtoms([0]))
    found = hessian_function(atoms, comm=comm)
    assert np.array_equal(atoms.get_positions(), before) and atoms.calc is calculator and atoms.constraints
    atoms.set_constraint()
    theirs = of_ase(atoms, folder).get_hessian_2d()
    np.testing.assert_allclose(found, theirs, atol=2e-6 * np.abs(theirs).max())


def test_sella_takes_them(comm):
    sella = pytest.importorskip("sella")
    atoms = at_rest(Atoms(copper_cluster.Icosahedron("Cu", 2), calculator=EMT()))
    calls = []

    def hessian(moved):
        calls.append(1)
        return hessian_function(moved, comm=comm)

    atoms.rattle(0.01, seed=1)
    search = sella.Sella(atoms, order=0, eig=True, hessian_function=hessian, logfile=None)
    search.run(fmax=1e-3, steps=30)
    assert calls and np.abs(atoms.get_forces()).max() < 1e-3


def test_reach_beyond_a_pair(comm):
    """Of one potential, taken for longer and longer ranged: what is not there is found to be zero."""
    atoms = crystal()
    sizes = [sh.from_atoms(atoms, reach=reach, comm=comm).pattern.nnz for reach in ("pair", "many-body", 3)]
    assert sizes[0] < sizes[1] <= sizes[2]
    few = Atoms("Ar4", [[4.0 * i, 0, 0] for i in range(4)], calculator=LennardJones(**ARGON))
    patterns = {
        c: sh.from_atoms(few, cutoff=c, reach="pair", comm=comm).pattern.nnz for c in (3.0, 5.0, 9.0, np.inf)
    }
    assert patterns == {3.0: 9 * 4, 5.0: 9 * 10, 9.0: 9 * 14, np.inf: 9 * 16}
    probed = sh.from_atoms(few, pattern="detect", comm=comm)
    assert probed.pattern is None
    with sh.assemble(probed, pattern="detect") as hessian:
        assert hessian.pattern.nnz <= 9 * 14


def embedded():
    """Return an EAM of pairs that repel each other and of the square root of a density."""

    def near(power, factor):
        return lambda r: factor * (4.0 - r) ** power

    return EAM(
        elements=["Cu"],
        form="alloy",
        cutoff=4.0,
        Z=np.array([29]),
        nr=1,
        nrho=1,
        embedded_energy=np.array([lambda density: -np.sqrt(density)]),
        d_embedded_energy=np.array([lambda density: -0.5 / np.sqrt(density)]),
        electron_density=np.array([near(4, 1.0)]),
        d_electron_density=np.array([near(3, -4.0)]),
        phi=np.array([[near(4, 0.3)]]),
        d_phi=np.array([[near(3, -1.2)]]),
    )


def bonded():
    """Return silicon's bonds that weaken each other, by Tersoff 1988."""
    tersoff = pytest.importorskip("ase.calculators.tersoff")
    third = {"m": 3.0, "gamma": 1.0, "lambda3": 0.0, "c": 1.0039e5, "d": 16.217, "h": -0.59825, "n": 0.78734}
    pair = {"beta": 1.1e-6, "A": 1830.8, "B": 471.18, "lambda1": 2.4799, "lambda2": 1.7322, "R": 2.85, "D": 0.15}
    return tersoff.Tersoff({("Si",) * 3: tersoff.TersoffParameters(**third, **pair)})


# A calculator, atoms of it in a rod, the edge of their cubic cell and how many there are in a row.
RODS = {
    "LennardJones": (lambda: LennardJones(**ARGON), "Ar", "fcc", 5.3, 8),
    "MorsePotential": (lambda: MorsePotential(r0=3.7, rcut1=1.2, rcut2=1.6), "Ar", "fcc", 5.3, 8),
    "EMT": (EMT, "Cu", "fcc", 3.6, 9),
    "EAM": (embedded, "Cu", "fcc", 3.6, 8),
    "Tersoff": (bonded, "Si", "diamond", 5.43, 5),
}


@pytest.mark.parametrize("name", _CALCULATORS)
def test_forces_reach_as_far_as_the_pattern(name, comm):
    make, element, structure, edge, many = RODS[name]
    atoms = bulk(element, structure, a=edge, cubic=True).repeat((1, 1, many))
    atoms.pbc = [name == "Tersoff", name == "Tersoff", False]  # ASE's fails where an atom has one bond alone
    atoms.rattle(0.05, seed=1)
    atoms.calc = make()
    before = atoms.get_forces()
    reaches = {
        reach: sh.from_atoms(atoms, reach=reach).pattern.to_scipy()[::3, ::3].toarray() != 0
        for reach in (None, "pair")
    }
    assert reaches[None].mean() < 0.7
    beyond = 0
    for moved in (0, len(atoms) // 2, len(atoms) - 1):
        other = atoms.copy()
        other.calc = make()
        other.positions[moved] += [0.03, -0.02, 0.01]
        changed = np.abs(other.get_forces() - before).max(axis=1) > 1e-12
        assert not changed[~reaches[None][moved]].any()
        beyond += changed[~reaches["pair"][moved]].sum()
    assert (beyond > 0) == (_CALCULATORS[name](atoms.calc)[1] == "many-body")


def test_what_cannot_be_used_is_named(comm):
    class Fails(Calculator):
        implemented_properties = ("energy", "forces")

        def calculate(self, *arguments):
            raise RuntimeError("no such basis set")

    atoms = Atoms("Ar2", [[0, 0, 0], [3.8, 0, 0]])
    with pytest.raises(InputError, match="Ar2 has no calculator"):
        sh.from_atoms(atoms, comm=comm)
    atoms.calc = Fails()
    with pytest.raises(EvaluationError, match="Fails raised RuntimeError on rank 0: no such basis set"):
        sh.from_atoms(atoms, cutoff=3.0, comm=comm)
    springs = HarmonicForceField(ref_atoms=atoms, ref_energy=0.0, hessian_x=np.eye(6))
    atoms.calc = HarmonicCalculator(springs)
    with pytest.raises(InputError, match="cut-off of HarmonicCalculator is not known"):
        sh.from_atoms(atoms, comm=comm)
    atoms.calc = LennardJones(**ARGON)
    for constraint, message in (
        (FixBondLength(0, 1), "FixBondLengths is no"),
        (FixAtoms([0, 1]), "nothing vibrates"),
    ):
        atoms.set_constraint(constraint)
        with pytest.raises(InputError, match=message):
            sh.from_atoms(atoms, comm=comm)
    atoms.set_constraint()
    for arguments, message in (
        ({"reach": "long"}, "reach='long'"),
        ({"cutoff": -1.0}, "above 0"),
        ({"pattern": "detect", "cutoff": 3.0}, "leave out cutoff"),
        ({"pattern": "all"}, "give a Pattern"),
        ({"pattern": 3}, "give a Pattern"),
        ({"cutoff": "far"}, "cutoff must be real"),
        ({"reach": [1]}, "neither pair nor"),
    ):
        with pytest.raises(InputError, match=message):
            sh.from_atoms(atoms, comm=comm, **arguments)


def test_atoms_are_drawn_where_they_are(comm):
    atoms = fcc111("Cu", (2, 2, 2), vacuum=5.0)
    atoms.calc = EMT()
    atoms.set_constraint([FixAtoms([0, 3]), FixCartesian(5, (True, False, False))])
    objective = sh.from_atoms(atoms, comm=comm)
    drawn = objective.geometry
    assert np.array_equal(drawn.positions, atoms.get_positions()) and drawn.species == ("Cu",) * 8
    held = drawn.variables < 0
    assert held.sum() == 7 and held[[0, 3]].all() and held[5].tolist() == [True, False, False]
    assert np.array_equal(objective.x[drawn.variables[~held]], drawn.positions[~held])
