"""Layers, wires and molecules: images, waves and meshes along what repeats alone."""

import numpy as np
import pytest

import sparsehess as sh
from sparsehess.crystals import Crystal
from sparsehess.crystals.cells import Images, reduced, shortest_ways
from sparsehess.crystals.polar import Polar
from sparsehess.errors import InputError

pytestmark = [pytest.mark.parallel([1, 2, 3]), pytest.mark.essential]


def wire(cells, across, periodic=(True, False, False), vacuum=0.5):
    """A ladder of two rows along x, rungs of springs K = 1, sides of 0.6, with copies `vacuum` away across."""
    cell = Crystal(np.diag([2.0, 1.0 + vacuum, vacuum]), [[0, 0, 0], [0.0, 1.0, 0.0]], [1, 1], "HH", periodic)
    places = np.concatenate([cell.positions + np.array([2.0 * number, 0, 0]) for number in range(cells)])
    lattice = cell.lattice * [[cells], [1], [1]]
    large = Crystal(lattice, places, [1] * 2 * cells, "HH" * cells, periodic)
    values = np.zeros((2, 2 * cells, 3, 3))
    for row in range(2):
        rung, side = np.diag([across, 1.0, across]), np.diag([0.6, across, across])
        values[row, row] += rung + 2 * side
        values[row, 1 - row] -= rung
        for step in (1, -1):
            values[row, (row + 2 * step) % (2 * cells)] -= side
    return sh.ForceConstants.of(values, cell, large)


@pytest.mark.parametrize("cells", [2, 3, 6])
def test_a_ladder_in_tight_vacuum(cells, comm):
    """ω² = 2 k (1 − cos 2πq) of the sides, and 2 K more where the rows move against each other: a closed form."""
    across, q = 0.25, np.linspace(-0.7, 0.7, 15)
    modes = sh.phonons(wire(cells, across), comm=comm).at(np.outer(q, [1, 0, 0]), group_velocities=True)
    turn = 2 * (1 - np.cos(2 * np.pi * q))
    each = [turn * side + rung for side, rung in ((0.6, 0.0), (0.6, 2 * across))]
    each += [turn * across + rung for rung in (0.0, 2.0, 0.0, 2 * across)]
    assert np.abs(modes.eigenvalues - np.sort(np.array(each).T, axis=1)).max() < 1e-13
    assert modes.certified.all() and not modes.imaginary.any()
    assert np.nanmax(np.abs(modes.velocities[..., 1:])) < 1e-12 < np.nanmax(np.abs(modes.velocities[..., 0]))


def test_copies_across_would_be_another_crystal(comm):
    """At half a wave between rows and their copies, a crystal that repeats across has other modes."""
    closed = sh.phonons(wire(3, 0.25, (True, True, True), vacuum=1.0), comm=comm)
    assert np.abs(closed.at([[0, 0, 0]]).eigenvalues - closed.at([[0, 0.5, 0]]).eigenvalues).max() > 0.1
    apart = sh.phonons(wire(3, 0.25, vacuum=1.0), comm=comm)
    ways = apart._sums._ways
    assert (np.abs(ways[:, 1]) <= 1.0).all() and (ways[:, 2] == 0).all()


def test_a_molecule(comm):
    """Nothing repeats: one wave vector, of all masses and springs."""
    pair = Crystal(np.zeros((3, 3)), [[0, 0, 0], [1, 0, 0]], [1.0, 3.0], ("H", "He"), (False,) * 3)
    spring = np.diag([2.0, 0, 0])
    solid = sh.phonons(sh.ForceConstants.of([[spring, -spring], [-spring, spring]], pair, pair), comm=comm)
    assert solid.at([0, 0, 0]).eigenvalues[0, 5] == pytest.approx(2.0 * (1 + 1 / 3), rel=1e-13)
    assert solid.density(5).mesh == (1, 1, 1) and np.isfinite(solid.density(5).states).all()


def test_meshes_and_paths(comm):
    solid = sh.phonons(wire(3, 0.25), comm=comm)
    density = solid.density(8)
    assert density.mesh == (8, 1, 1) and density.below[-1] == pytest.approx(6)
    bands = solid.bands([[0, 0, 0], [0.5, 0, 0]], 11)
    assert bands.certified and bands.path.distances[-1] == pytest.approx(np.pi / 2)


def test_what_is_refused(comm):
    solid = sh.phonons(wire(3, 0.25), comm=comm)
    polar = Polar(np.array([np.eye(3), -np.eye(3)]), np.eye(3))
    charged = sh.ForceConstants.of(
        solid.constants.dense(), solid.constants.primitive, solid.constants.supercell, polar=polar
    )
    for call, word in (
        (lambda: solid.at([[0, 0.1, 0]]), "no wave goes there"),
        (lambda: solid.spectrum([0, 0, 0.1]), "no wave goes there"),
        (lambda: solid.bands([[0, 0, 0], [0, 0.5, 0]]), "two points"),
        (lambda: solid.bands([[0, 0, 0], [0.5, 0.5, 0]]), "no wave goes there"),
        (lambda: solid.density((4, 2, 1)), "vector 2"),
        (lambda: solid.density(4, shift=(0.5, 0, 0.5)), "vector 3"),
        (lambda: sh.phonons(charged, comm=comm), "three directions"),
        (lambda: Crystal(np.diag([1.0, 0, 0]), [[0, 0, 0]], [1.0], "H", (True, True, False)), "one line"),
        (lambda: Crystal(np.eye(3), [[0, 0, 0]], [1.0], "H", (True, True)), "three vectors"),
        (
            lambda: Images.found(wire(2, 0.1).primitive, wire(2, 0.1, (True, True, False)).supercell),
            "both alike",
        ),
    ):
        with pytest.raises(InputError, match=word):
            call()
    assert np.isfinite(sh.phonons(charged, polar=False, comm=comm).at([[0.1, 0, 0]]).eigenvalues).all()


@pytest.mark.parametrize("repeats", [0, 1, 2])
def test_shortest_ways_along_fewer_directions(repeats):
    rng = np.random.default_rng(repeats)
    lattice = rng.normal(size=(repeats, 3)) + 3 * np.eye(3)[:repeats] + [4.0, 0, 0]
    away = rng.normal(size=(20, 3)) * 6
    pair, ways, _ = shortest_ways(lattice, away)
    assert len(reduced(lattice)) == repeats
    steps = np.zeros((1, 3))
    for vector in lattice:
        steps = (steps[:, None] + np.arange(-40, 41)[:, None] * vector).reshape(-1, 3)
    brute = np.linalg.norm(away[:, None] + steps, axis=2).min(axis=1)
    assert np.abs(np.linalg.norm(ways, axis=1) - brute[pair]).max() < 1e-9
