"""Dipoles of polar crystals after Gonze and Lee: against sums in real space, differences, and phonopy."""

from dataclasses import replace

import numpy as np
import pytest

import sparsehess as sh
from sparsehess.crystals import Crystal
from sparsehess.crystals.bloch_sums import BlochSums
from sparsehess.crystals.cells import Images
from sparsehess.crystals.dipole_sums import DipoleSums
from sparsehess.crystals.polar import COULOMB, Polar
from sparsehess.errors import InputError
from support.lattices import chain

pytestmark = [pytest.mark.parallel([1, 2, 3]), pytest.mark.essential]

LATTICE = np.array([[4.1, 0.2, -0.1], [0.9, 4.6, 0.3], [-0.7, 0.5, 5.2]])


def salt(times=(2, 1, 2), seed=0):
    """Return random symmetric force constants of a crystal without symmetry, three atoms, with full tensors."""
    rng = np.random.default_rng(seed)
    charges = rng.normal(size=(3, 3, 3)) + np.eye(3) * np.array([1.0, 0.7, -1.7])[:, None, None]
    charges -= charges.mean(axis=0)
    skew = 0.3 * rng.normal(size=(3, 3))
    polar = Polar(charges, 2.5 * np.eye(3) + skew + skew.T)
    cell = Crystal(LATTICE, [[0, 0, 0], [1.1, 2.3, 0.7], [2.2, 0.9, 3.1]], [7.0, 16.0, 24.0], ("Li", "O", "Mg"))
    points = np.stack(np.meshgrid(*map(np.arange, times), indexing="ij"), axis=-1).reshape(-1, 3) @ LATTICE
    places = (cell.positions[:, None] + points[None]).reshape(-1, 3)  # atom by atom, as phonopy has them
    many = len(points)
    large = Crystal(
        LATTICE * np.array(times)[:, None],
        places,
        np.repeat(cell.masses, many),
        tuple(np.repeat(cell.symbols, many)),
    )
    values = 0.3 * rng.normal(size=(3, 3 * many, 3, 3))
    return sh.ForceConstants.of(values, cell, large, polar=polar).symmetrized()


def test_dipoles_in_real_space():
    """Of a large supercell, blocks of the sum are second derivatives of point dipoles, farther than they spread.

    In a dielectric ε a charge has the potential e²/sqrt(det ε) / sqrt(r·ε⁻¹·r). What copies of the supercell add,
    and the missing wave q = 0, is of the order of one over its volume.
    """
    dielectric, charge = np.diag([2.0, 2.5, 3.0]), np.array([np.eye(3), -np.eye(3)])
    cell = Crystal(3.0 * np.eye(3), [[0, 0, 0], [1.5, 1.5, 1.5]], [1, 1], "HH")
    times = 12
    points = np.stack(np.meshgrid(*[np.arange(times)] * 3, indexing="ij"), axis=-1).reshape(-1, 3) * 3.0
    places = np.concatenate([points, points + 1.5])
    large = Crystal(times * cell.lattice, places, np.ones(len(places)), "H" * len(places))
    found = DipoleSums(cell, Polar(charge, dielectric)).force_constants(Images.found(cell, large))[0]
    inverse = np.linalg.inv(dielectric)

    def exact(way):
        length = np.sqrt(way @ inverse @ way)
        turned = inverse @ way
        scale = COULOMB / np.sqrt(np.linalg.det(dielectric))
        return scale * (inverse / length**3 - 3 * np.outer(turned, turned) / length**5)

    near = np.array([9.0, 0, 0]), np.array([6.0, 6.0, 3.0])
    for way in near:
        atom = int(np.argmin(np.linalg.norm(places - way, axis=1)))
        assert np.abs(found[atom] - exact(way)).max() < 0.15 * np.abs(exact(way)).max()


def test_at_wave_vectors_that_fit(comm):
    """There nothing is added: D is that of the force constants, and both ways of interpolation agree at Γ."""
    constants = salt()
    plain = sh.phonons(constants, sum_rule=False, polar=False, comm=comm)
    gonze, wang = (sh.phonons(constants, sum_rule=False, nac=nac, comm=comm) for nac in ("gonze", "wang"))
    q = constants.images.fitting()
    assert len(q) == 4 and len(np.unique(q, axis=0)) == 4
    scale = gonze.at(q).scale
    assert np.abs(gonze.at(q).eigenvalues - plain.at(q).eigenvalues).max() < 1e-14 * scale
    ways = [[1.0, 0, 0], [1.0, 2.0, -3.0]]
    at_zero = [one.at(np.zeros((2, 3)), directions=ways).eigenvalues for one in (gonze, wang, plain)]
    assert np.abs(at_zero[0] - at_zero[1]).max() < 1e-14 * scale < np.abs(at_zero[0] - at_zero[2]).max()
    assert gonze.nac == "gonze" == sh.phonons(constants, comm=comm).nac and plain.nac is None


def test_near_zero_is_along_its_direction(comm):
    solid = sh.phonons(salt(), comm=comm)
    way = np.array([0.3, -0.5, 0.8])
    near = solid.at(1e-6 * way @ np.linalg.inv(solid.constants.primitive.reciprocal)).eigenvalues
    split = solid.at([0, 0, 0], directions=way).eigenvalues
    assert np.abs(near - split).max() < 1e-6 * np.abs(split).max()
    assert np.abs(np.sort(np.abs(split[0]))[:3]).max() < 1e-12 * np.abs(split).max()  # they resist no translation


def test_beyond_the_first_zone(comm):
    solid = sh.phonons(salt(), comm=comm)
    for q in ([0.21, 0.13, -0.3], [0.0, 0.01, 0.0], [0.0, 0.0, 0.0], [0.5, 0.0, 0.5]):
        moved = np.add(q, [[0, 0, 0], [1, 0, 0], [0, -2, 1], [3, 1, -4]])
        found = solid.at(moved, group_velocities=True, directions=[1, 2, 3])
        assert np.abs(found.eigenvalues - found.eigenvalues[0]).max() < 1e-12 * found.scale, q
        assert found.certified.all()
    mirrored = solid.at([[0.21, 0.13, -0.3], [-0.21, -0.13, 0.3]]).eigenvalues
    assert np.abs(mirrored[0] - mirrored[1]).max() < 1e-12 * np.abs(mirrored).max()


def test_slopes_are_central_differences():
    sums = BlochSums(salt())
    q, step = np.array([0.31, -0.12, 0.2]), 1e-5
    for at in (q, q + sums._reciprocal[0] - 2 * sums._reciprocal[2]):
        slopes = sums.slopes(at[None])[:, 0]
        for axis in range(3):
            away = step * np.eye(3)[axis]
            ends = sums.matrices(np.array([at - away, at + away]))
            off = np.abs((ends[1] - ends[0]) / (2 * step) - slopes[axis]).max()
            assert off < 1e-7 * np.abs(slopes[axis]).max()


def test_group_velocities(comm):
    solid = sh.phonons(replace(chain(3, (1.0, 1.0), (1.0, 3.0), across=1.0), polar=salt_charges()), comm=comm)
    q, step = np.array([0.21, 0.13, -0.3]), 1e-5
    found = solid.at([q], group_velocities=True).velocities[0]
    for axis in range(3):
        away = step * np.linalg.inv(solid.constants.primitive.reciprocal)[axis]
        ends = solid.at([q - away, q + away]).frequencies
        assert np.nanmax(np.abs(0.2 * np.pi * (ends[1] - ends[0]) / (2 * step) - found[:, axis])) < 1e-4


def salt_charges():
    return Polar(0.4 * np.array([np.eye(3), -np.eye(3)]), 4.0 * np.eye(3))


def test_what_is_refused(comm):
    for given, more in ((salt(), {"nac": "ewald"}), (chain(3), {"nac": "wang"}), (salt(), {"polar": False})):
        with pytest.raises(InputError, match="nac="):
            sh.phonons(given, **{"nac": "gonze", **more}, comm=comm)


@pytest.mark.thorough
@pytest.mark.parallel([1])
@pytest.mark.parametrize("times", [(2, 1, 2), (1, 1, 1), (1, 3, 2)])
def test_phonopy_says_the_same(times):
    """Its default, summed as far as ours at the same spread of dipoles, and less closely as far as its own."""
    phonopy = pytest.importorskip("phonopy")
    atoms = pytest.importorskip("phonopy.structure.atoms").PhonopyAtoms
    ours = salt(times)
    cell, polar = ours.primitive, ours.polar
    theirs = phonopy.Phonopy(
        atoms(symbols=list(cell.symbols), cell=cell.lattice, positions=cell.positions, masses=cell.masses),
        supercell_matrix=np.diag(times),
        primitive_matrix=np.eye(3),
        is_symmetry=False,
        log_level=0,
    )
    away = (theirs.supercell.positions[:, None] - ours.supercell.positions) @ np.linalg.inv(ours.supercell.lattice)
    order = np.abs(away - np.rint(away)).max(axis=2).argmin(axis=1)
    theirs.force_constants = np.ascontiguousarray(ours.dense()[:, order])
    radius = (3 * 300 / (4 * np.pi * cell.volume)) ** (1 / 3)
    spread = np.sqrt(radius**2 * np.trace(polar.dielectric) / 3 / 4 / np.log(1e10))
    q = np.concatenate([np.random.default_rng(1).random((12, 3)) - 0.5, [[0.5, 0, 0.5], [1e-3, 0, 0]]])
    found = sh.phonons(ours, sum_rule=False).at(q).eigenvalues
    for more, close in (({"G_cutoff": 1.9 * radius, "Lambda": spread}, 1e-12), ({}, 1e-5)):
        told = {"born": polar.charges, "dielectric": polar.dielectric, "factor": polar.coulomb}
        theirs.nac_params = {**told, "method": "gonze", **more}
        values = []
        for one in q:
            theirs.dynamical_matrix.run(one)
            values.append(np.linalg.eigvalsh(theirs.dynamical_matrix.dynamical_matrix))
        off = np.abs(found - values).max() / np.abs(values).max()
        assert off < close
