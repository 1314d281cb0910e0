"""Force constants and cells: what is symmetric, what is nearest, which way is shortest."""

import itertools

import numpy as np
import pytest

import sparsehess as sh
from sparsehess.crystals import Crystal
from sparsehess.crystals.cells import Images, reduced, shortest_ways
from sparsehess.errors import InputError
from support.lattices import chain, fcc


def noisy(constants, size, seed):
    blocks = constants.blocks + size * np.random.default_rng(seed).normal(size=constants.blocks.shape)
    return sh.ForceConstants.of_pairs(
        constants.first, constants.second, blocks, constants.primitive, constants.supercell
    )


@pytest.mark.parametrize(
    "made", [lambda: fcc([3, 3, 3]), lambda: fcc([2, 3, 4]), lambda: chain(4, (1, 0.3), (1, 2))]
)
def test_the_nearest_ones_that_are_symmetric(made):
    exact = made()
    assert exact.drift < 1e-14 and exact.asymmetry < 1e-14
    rough = noisy(exact, 0.01, 1)
    assert rough.drift > 1e-3 and rough.asymmetry > 1e-3
    found = rough.symmetrized()
    assert found.drift < 1e-13 and found.asymmetry < 1e-15 and len(found.first) == len(exact.first)
    again = found.symmetrized()
    assert np.abs(again.blocks - found.blocks).max() < 1e-13
    # The way to it is orthogonal to all differences of such force constants, on these pairs.
    for seed in (2, 3):
        other = noisy(exact, 1.0, seed).symmetrized()
        left = np.sum((rough.blocks - found.blocks) * (other.blocks - found.blocks))
        assert abs(left) < 1e-11


def test_symmetry_of_a_whole_supercell():
    """Φ_ij of all pairs of the supercell, by translations, is a symmetric matrix with rows that sum to zero."""
    found = noisy(chain(3, (1, 0.3), (1, 2), across=0.1), 0.01, 5).symmetrized()
    many = len(found.supercell)
    whole = np.zeros((many, 3, many, 3))
    inverse = np.linalg.inv(found.supercell.lattice)
    for i, j, block in zip(found.first, found.second, found.blocks, strict=True):
        for cell in range(found.images.count):
            move = [cell * 4.0, 0, 0]
            ends = []
            for atom in (found.images.first[i], j):
                away = (found.supercell.positions - found.supercell.positions[atom] - move) @ inverse
                ends.append(int(np.argmin(np.linalg.norm(away - np.rint(away), axis=1))))
            whole[ends[0], :, ends[1]] += block
    matrix = whole.reshape(3 * many, 3 * many)
    assert np.abs(matrix - matrix.T).max() < 1e-14
    assert np.abs(matrix.reshape(3 * many, many, 3).sum(axis=1)).max() < 1e-13


def test_shortest_ways():
    rng = np.random.default_rng(0)
    for _ in range(5):
        lattice = rng.normal(size=(3, 3)) + np.array([[3, 0, 0], [4, 1, 0], [-5, 2, 1.0]])
        basis = reduced(lattice)
        assert abs(np.linalg.det(basis)) == pytest.approx(abs(np.linalg.det(lattice)))
        away = rng.normal(size=(30, 3)) * 5
        pair, ways, shares = shortest_ways(lattice, away)
        steps = np.array(list(itertools.product(range(-4, 5), repeat=3))) @ basis
        rounded = away - np.rint(away @ np.linalg.inv(basis)) @ basis
        brute = np.linalg.norm(rounded[:, None] + steps, axis=2).min(axis=1)
        assert np.abs(np.linalg.norm(ways, axis=1) - brute[pair]).max() < 1e-9
        assert np.bincount(pair, shares) == pytest.approx(np.ones(30))
        whole = (ways - away[pair]) @ np.linalg.inv(lattice)
        assert np.abs(whole - np.rint(whole)).max() < 1e-9
    ways = shortest_ways(2 * np.eye(3), np.array([[1.0, 1, 0], [1, 0, 0.5], [0, 0, 0]]))
    assert np.bincount(ways[0]).tolist() == [4, 2, 1]


def test_images_of_a_skew_supercell():
    cell = Crystal(np.diag([2.0, 3.0, 4.0]), [[0, 0, 0], [1, 1, 1]], [1, 2], ["H", "He"])
    matrix = np.array([[1, 1, 0], [-1, 2, 0], [0, 1, 2]])
    lattice = matrix @ cell.lattice
    inside = [
        np.array(point)
        for point in itertools.product(range(-3, 4), repeat=3)
        if ((np.array(point) @ np.linalg.inv(matrix) % 1.0 + 1e-9) % 1.0 < 1).all()
    ]
    kept = {tuple(np.round(point @ np.linalg.inv(matrix) % 1.0, 6) % 1.0): point for point in inside}
    points = np.array(list(kept.values()))
    assert len(points) == 6
    places = np.concatenate([points @ cell.lattice + place for place in cell.positions])
    names = ["H"] * 6 + ["He"] * 6
    large = Crystal(lattice, places, np.repeat([1.0, 2.0], 6), names)
    images = Images.found(cell, large)
    assert images.count == 6 and images.of.tolist() == [0] * 6 + [1] * 6
    first, second = (one.ravel() for one in np.indices((2, 12)))
    there, back = images.partner(first, second)
    again = images.partner(there, back)
    assert np.array_equal(again[0], first) and np.array_equal(again[1], second)
    forth = large.positions[second] - large.positions[images.first[first]]
    turned = large.positions[back] - large.positions[images.first[there]]
    left = (forth + turned) @ np.linalg.inv(lattice)
    assert np.abs(left - np.rint(left)).max() < 1e-9


def test_what_is_refused():
    cell, large = fcc([2, 2, 2]).primitive, fcc([2, 2, 2]).supercell
    moved = Crystal(large.lattice, large.positions + np.eye(8, 3) * 0.1, large.masses, large.symbols)
    skew = Crystal(large.lattice * 1.1, large.positions, large.masses, large.symbols)
    other = Crystal(large.lattice, large.positions, large.masses, ["Kr"] + ["Ar"] * 7)
    for values, super_, word in (
        (np.zeros((1, 7, 3, 3)), large, "supercell of 8"),
        (np.full((1, 8, 3, 3), np.nan), large, "finite"),
        (np.zeros((1, 8, 3, 3)), moved, "at no image"),
        (np.zeros((1, 8, 3, 3)), skew, "no repetition"),
        (np.zeros((1, 8, 3, 3)), other, "Kr"),
    ):
        with pytest.raises(InputError, match=word):
            sh.ForceConstants.of(values, cell, super_)
