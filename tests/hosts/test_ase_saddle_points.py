"""Saddle points of atoms, against LAPACK on the whole Hessian by differences of forces."""

import inspect

import numpy as np
import pytest

pytest.importorskip("ase")

from ase import Atoms, units
from ase.build import add_adsorbate, fcc100
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms, FixCartesian
from ase.optimize import BFGS

import sparsehess as sh
from sparsehess.errors import InputError
from support.command_line import batch

pytestmark = [pytest.mark.parallel([1, 2, 3]), pytest.mark.essential]

# Where the adatom is put, its height in Å, and the index that its energy has there.
SITES = {"hollow": (1.7, 0), "bridge": (2.0, 1), "ontop": (2.3, 2)}


def adatom(site, comm, fmax=1e-3):
    """Return a copper atom on Cu(100), relaxed on its site, the second layer held."""
    atoms = fcc100("Cu", (3, 3, 2), vacuum=6.0)
    add_adsorbate(atoms, "Cu", SITES[site][0], site)
    below = FixAtoms(mask=atoms.get_tags() == 2)
    atoms.calc = EMT()
    atoms.set_constraint([below, FixCartesian(len(atoms) - 1, (True, True, False))])  # it keeps to the site
    BFGS(atoms, logfile=None).run(fmax=fmax, steps=200)
    atoms.set_constraint(below)
    atoms.set_positions(comm.bcast(atoms.get_positions()))
    return atoms


def dense_hessian(atoms, step=1e-3):
    """Return the Hessian (3 atoms, 3 atoms) of all coordinates by central differences of forces."""
    moved = atoms.copy()
    moved.set_constraint()
    moved.calc = atoms.calc
    start, columns = atoms.get_positions(), []
    for unit in np.eye(start.size):
        forces = []
        for sign in (1, -1):
            moved.set_positions(start + sign * step * unit.reshape(-1, 3))
            forces.append(moved.get_forces().ravel())
        columns.append((forces[1] - forces[0]) / (2 * step))
    H = np.array(columns)
    return (H + H.T) / 2


def lapack(atoms, basis=None):
    """Return eigenvalues and vectors of the mass-weighted Hessian of what is free, on a basis if one is given."""
    free = np.ones(3 * len(atoms), bool)
    for constraint in atoms.constraints:
        free[np.repeat(3 * constraint.index, 3) + np.tile([0, 1, 2], len(constraint.index))] = False
    scale = np.repeat(atoms.get_masses(), 3)[free] ** -0.5
    H = scale[:, None] * dense_hessian(atoms)[np.ix_(free, free)] * scale
    if basis is not None:
        H = basis.T @ H @ basis
    return *np.linalg.eigh(H), scale, free


@pytest.mark.parametrize("site", SITES)
def test_an_adatom_hops_over_the_bridge(site, comm):
    atoms, index = adatom(site, comm), SITES[site][1]
    values, vectors, scale, free = lapack(atoms)
    hertz = np.sign(values) * np.sqrt(np.abs(values)) * 1e10 * np.sqrt(units._e / units._amu) / (2 * np.pi)
    with sh.saddle_point(atoms, step_tol=0.01, comm=comm) as found:
        assert found.index == index == np.count_nonzero(values < 0)
        assert found.certified and found.stationary and found.is_saddle(index) and found.point.margin > 100
        np.testing.assert_allclose(found.point.eigenvalues, values[: index + 1], atol=1e-6)
        np.testing.assert_allclose(found.frequencies, hertz[: index + 1] / units._c / 100, atol=0.05)
        assert found.point.nearest == pytest.approx(values[np.abs(values).argmin()], abs=1e-6)
        g = -atoms.get_forces().ravel()[free]
        H = vectors @ np.diag(values) @ vectors.T / np.outer(scale, scale)
        step = -np.linalg.solve(H, g)
        np.testing.assert_allclose(found.point.step_max, np.abs(step).max(), rtol=1e-3)
        np.testing.assert_allclose(found.point.energy_change, g @ step / 2, rtol=1e-3)
        if index == 1:
            mode = (scale * vectors[:, 0]).reshape(-1, 3)
            told = found.displacements()[free.reshape(-1, 3)[:, 0]]
            assert abs(np.vdot(told, mode)) / np.vdot(mode, mode) == pytest.approx(1.0, abs=1e-4)
            assert np.linalg.norm(told[-1]) == np.linalg.norm(told, axis=1).max()  # the adatom goes
        assert "proven of the Hessian here; stationary to 0.01" in str(found) and ("i ±" in str(found)) == (
            index > 0
        )
        with pytest.raises(InputError, match=f"there are {index} of negative"):
            found.displacements(index)


def test_atoms_on_their_way_are_not_called_a_saddle_point(comm):
    atoms = adatom("bridge", comm)
    atoms.positions[-1, 1] += 0.3  # on its way down, where the Hessian still has one negative eigenvalue
    with sh.saddle_point(atoms, step_tol=0.01, comm=comm) as found:
        assert found.index == 1 and found.certified and found.stationary is False and not found.is_saddle()
        assert "NOT STATIONARY to 0.01: the Newton step is" in str(found)
    with sh.saddle_point(atoms, comm=comm) as found:
        assert found.stationary is None and "no stationary point is claimed" in str(found)


class Rounded(EMT):
    """Forces of so many decimals."""

    decimals = 6

    def calculate(self, *arguments, **more):
        super().calculate(*arguments, **more)
        self.results["forces"] = np.round(self.results["forces"], self.decimals)


@pytest.mark.parametrize(("decimals", "proven"), [(6, True), (4, True), (2, False)])
def test_digits_of_forces_make_the_margin(decimals, proven, comm):
    atoms = adatom("bridge", comm)
    atoms.calc = Rounded()
    atoms.calc.decimals = decimals
    with sh.saddle_point(atoms, step_tol=0.01, comm=comm) as found:
        assert found.certified == proven and (found.point.margin > 4) == proven
        assert found.is_saddle(1) == proven and ("NOT PROVEN" in str(found)) == (not proven)


def test_rigid_motions_are_projected_out(comm):
    atoms = Atoms("Cu3", [[0, 0, 2.3 * i] for i in range(3)], calculator=EMT())
    atoms.set_constraint([FixCartesian(i, (True, True, False)) for i in range(3)])
    BFGS(atoms, logfile=None).run(fmax=1e-4, steps=100)
    atoms.set_constraint()
    atoms.set_positions(comm.bcast(atoms.get_positions()))
    rigid = np.zeros((9, 5))
    for axis in range(3):
        rigid[axis::3, axis] = 1.0
    rigid[0::3, 3] = rigid[1::3, 4] = [-1.0, 0.0, 1.0]
    basis = np.linalg.svd(rigid)[0][:, 5:]
    values = lapack(atoms, basis)[0]
    with sh.saddle_point(atoms, step_tol=1e-3, comm=comm) as found:
        assert found.certified and found.index == np.count_nonzero(values < 0) > 0 and found.is_saddle(found.index)
        np.testing.assert_allclose(found.point.eigenvalues, values[: found.index + 1], atol=1e-6)
        assert len(found.rigid) == 5 and "translation x" in str(found)


class Inverting(Calculator):
    """Three atoms about one, springs between all: those from the middle are too long to lie in a plane."""

    implemented_properties = ("energy", "forces")
    PAIRS = ((0, 1), (0, 2), (0, 3), (1, 2), (2, 3), (3, 1))
    K, REST = np.array([30.0, 30, 30, 20, 20, 20]), np.array([1.1, 1.1, 1.1, 1.7, 1.7, 1.7])

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        forces, energy = np.zeros((4, 3)), 0.0
        for (i, j), k, rest in zip(self.PAIRS, self.K, self.REST, strict=True):
            apart = atoms.positions[i] - atoms.positions[j]
            length = np.linalg.norm(apart)
            energy += k * (length - rest) ** 2 / 2
            forces[i] -= k * (length - rest) * apart / length
            forces[j] += k * (length - rest) * apart / length
        self.results = {"energy": energy, "forces": forces}


PROBLEM = """
import numpy as np
import sparsehess as sh
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes


{calculator}

{atoms}

def problem(comm, project=True):
    return sh.from_atoms(planar()[0], cutoff=np.inf, reach="pair", project=project, comm=comm)
"""


def planar():
    """Return NH3 in a plane, at rest there, turned."""
    (near, across), (long, wide) = Inverting.K[[0, 3]], Inverting.REST[[0, 3]]
    bond = (near * long + np.sqrt(3) * across * wide) / (near + 3 * across)
    corners = bond * np.exp(2j * np.pi * np.arange(3) / 3)
    places = np.vstack([[0, 0, 0], np.stack([corners.real, corners.imag, 0 * corners.real], axis=1)])
    atoms = Atoms("NH3", places, calculator=Inverting())
    atoms.rotate(37, (1, 2, 3))
    return atoms, bond


def test_a_molecule_inverts_through_a_saddle_of_index_1(comm):
    atoms, bond = planar()
    rigid = [np.tile(axis, (4, 1)) for axis in np.eye(3)]
    rigid += [np.cross(axis, atoms.positions - atoms.get_center_of_mass()) for axis in np.eye(3)]
    columns = np.array([(np.sqrt(atoms.get_masses())[:, None] * one).ravel() for one in rigid]).T
    values = lapack(atoms, np.linalg.svd(columns)[0][:, 6:])[0]
    m = atoms.get_masses()
    through = 3 * Inverting.K[0] * (1 - Inverting.REST[0] / bond) * (1 / m[0] + 1 / m[1:].sum())
    assert values[0] == pytest.approx(through, abs=1e-4) and values[1] > 0
    with sh.saddle_point(atoms, step_tol=1e-3, comm=comm) as found:
        assert found.is_saddle(1) and found.point.margin > 100 and len(found.rigid) == 6
        np.testing.assert_allclose(found.point.eigenvalues, values[:2], atol=1e-4)
        assert found.point.eigenvalues[0] == pytest.approx(through, abs=1e-6)
        mode = found.displacements()
    normal = np.cross(*(atoms.positions[[1, 2]] - atoms.positions[0]))
    assert abs(mode[0] @ normal) == pytest.approx(np.linalg.norm(mode[0]) * np.linalg.norm(normal))
    with sh.saddle_point(atoms, step_tol=1e-3, project=False, comm=comm) as found:
        assert (
            not found.certified and not found.is_saddle(1) and not found.rigid and "as it was asked" in str(found)
        )
    atoms.set_cell([9, 9, 9])
    atoms.set_pbc(True)
    with sh.saddle_point(atoms, step_tol=1e-3, molecule=True, comm=comm) as found:
        assert found.is_saddle(1) and len(found.rigid) == 6


@pytest.mark.parallel([1])
@pytest.mark.parametrize("ranks", [1, 2])
def test_the_command_line_proves_it_of_a_problem(folder, ranks):
    (folder / "ammonia.py").write_text(
        PROBLEM.format(calculator=inspect.getsource(Inverting), atoms=inspect.getsource(planar))
    )
    command = "inertia ammonia.py:problem --stationary 1e-3"
    proven, left_in = batch(folder, [command, f"{command} --set project=False"], ranks)
    assert proven[0] == [0] and "saddle point of index 1, proven of the Hessian here; stationary" in proven[1], (
        proven
    )
    assert left_in[0] == [4] and "no stationary point is proven" in left_in[2], left_in
