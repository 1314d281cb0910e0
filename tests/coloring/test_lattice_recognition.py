"""Lattices that crystals are recognised as."""

import itertools
import time

import numpy as np
import scipy.sparse as sp

import sparsehess as sh
from sparsehess.coloring import lattice_recognition
from sparsehess.coloring.local_graph import Region
from sparsehess.coloring.periodic_templates import find_template
from support.cases import is_column_partition
from support.grids import box


def lattice(points, first, second):
    """Return what the room of lattices makes of points and edges."""
    return lattice_recognition.recognize_lattice(
        Region.of_pattern(sh.Pattern.from_pairs(first, second, len(points))), np.asarray(points)
    )


BASES = {
    "chain": [[1]],
    "square": np.eye(2),
    "triangular": [[1, 0], [0.5, np.sqrt(0.75)]],
    "oblique": [[1, 0], [0.3, 1.1]],
    "sc": np.eye(3),
    "fcc": [[0, 1, 1], [1, 0, 1], [1, 1, 0]],
    "bcc": [[-1, 1, 1], [1, -1, 1], [1, 1, -1]],
    "hexagonal": [[1, 0, 0], [0.5, np.sqrt(0.75), 0], [0, 0, 1.1]],
    "triclinic": [[1, 0, 0], [0.2, 1.05, 0], [0.15, 0.3, 0.95]],
}


def crystal(basis, atoms, reach, radius, seed=0):
    """Return rotated, shuffled points of a ball of a crystal and the pairs that are close."""
    basis, rng = np.array(basis, float), np.random.default_rng(seed)
    d = len(basis)
    cells = np.array(list(itertools.product(range(-12, 13), repeat=d))) if d < 3 else box(3, 6)
    points = np.concatenate([cells @ basis + np.array(atom) for atom in atoms])
    points = points[np.linalg.norm(points, axis=1) < radius]
    points = rng.permutation(points)
    apart = np.linalg.norm(points[:, None] - points, axis=2)
    first, second = np.nonzero(np.triu(apart < reach, 1))
    rotation = np.linalg.qr(rng.normal(size=(d, d)))[0]
    return points @ rotation + rng.normal(scale=1e-8, size=points.shape) + 3, first, second


def checked(found, first, second, size):
    assert found is not None
    indices, offsets = found
    assert indices.dtype == offsets.dtype == np.int64
    assert len(np.unique(indices, axis=0)) == len(indices)
    assert len(offsets) == size
    steps = set(map(tuple, (indices[second] - indices[first]).tolist()))
    assert (
        steps <= set(map(tuple, offsets.tolist())) == {tuple(-x for x in o) for o in map(tuple, offsets.tolist())}
    )
    cells = [
        np.linalg.det(offsets[list(chosen)]) for chosen in itertools.combinations(range(size), offsets.shape[1])
    ]
    assert np.gcd.reduce(np.rint(cells).astype(int)) == 1  # the basis is primitive
    return indices, offsets


NEIGHBORS = {  # (reach, offsets within it)
    "chain": [(1.1, 2), (3.1, 6)],
    "square": [(1.1, 4), (1.5, 8)],
    "triangular": [(1.1, 6), (1.8, 12)],
    "oblique": [(1.31, 6)],
    "sc": [(1.1, 6), (1.8, 26)],
    "fcc": [(1.5, 12), (2.1, 18)],
    "bcc": [(1.8, 8), (2.1, 14)],
    "hexagonal": [(1.2, 8)],
    "triclinic": [(1.3, 8)],
}


def test_bravais_lattices():
    for name, reach, size in ((name, *pair) for name, pairs in NEIGHBORS.items() for pair in pairs):
        d = len(BASES[name])
        points, first, second = crystal(BASES[name], [np.zeros(d)], reach, {1: 12, 2: 9, 3: 4.2}[d])
        indices, offsets = checked(lattice(points, first, second), first, second, size)
        matrix = sp.coo_matrix((np.ones(len(first)), (first, second)), (len(points),) * 2)
        matrix = (matrix + matrix.T + sp.identity(len(points))).tocsr()
        assert is_column_partition(matrix, find_template(offsets, "star").color(indices))
        both = np.concatenate([first, second]), np.concatenate([second, first])
        checked(lattice(points, *both), first, second, size)


def test_lattices_in_a_plane_of_space_and_of_few_layers():
    points, first, second = crystal(BASES["triangular"], [np.zeros(2)], 1.1, 8)
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    points = np.column_stack([points, np.zeros(len(points))]) @ turn
    indices, _ = checked(lattice(points, first, second), first, second, 6)
    assert indices.shape[1] == 2
    at = np.array(list(itertools.product(range(8), range(8), range(2))))
    first, second = np.nonzero(np.triu(np.abs(at[:, None] - at).sum(2) == 1, 1))
    checked(lattice(at * 0.1, first, second), first, second, 6)


def test_knights_reach_the_whole_board():
    at = np.array(list(itertools.product(range(12), repeat=2)))
    first, second = np.nonzero(np.triu(((at[:, None] - at) ** 2).sum(2) == 5, 1))
    checked(lattice(at.astype(float), first, second), first, second, 8)


def test_a_large_crystal_far_from_the_origin():
    at = np.array(list(itertools.product(range(40), repeat=3)))
    first = [np.flatnonzero(at[:, axis] < 39) for axis in range(3)]
    second = np.concatenate([rows + 40 ** (2 - axis) for axis, rows in enumerate(first)])
    first = np.concatenate(first)
    noise = np.random.default_rng(0).normal(scale=1e-8, size=at.shape)
    began = time.process_time()
    checked(lattice(at @ np.array(BASES["triclinic"]) + noise + 1000, first, second), first, second, 6)
    assert time.process_time() - began < 2


def test_a_vacancy_and_a_stray_bond():
    points, first, second = crystal(BASES["fcc"], [np.zeros(3)], 1.5, 5.2)
    kept = (first != 17) & (second != 17)
    first, second = np.append(first[kept], 3), np.append(second[kept], 200)
    assert len(lattice(points, first, second)[1]) == 12


def test_two_atoms_a_cell_are_no_lattice():
    for reach in (0.5, 0.75):
        diamond = np.array(BASES["fcc"]) / 2
        assert lattice(*crystal(diamond, [np.zeros(3), np.full(3, 0.25)], reach, 2.6)) is None


def test_what_is_no_lattice():
    honeycomb = crystal(BASES["triangular"], [np.zeros(2), [0.5, np.sqrt(1 / 12)]], 0.6, 7)
    assert lattice(*honeycomb) is None
    rng = np.random.default_rng(0)
    for m in (10, 300):
        points = rng.uniform(size=(m, 3))
        first, second = np.nonzero(np.triu(np.linalg.norm(points[:, None] - points, axis=2) < 0.4, 1))
        assert lattice(points, first, second) is None
    points, first, second = crystal(BASES["fcc"], [np.zeros(3)], 1.5, 5.2)
    assert lattice(points + rng.normal(scale=1e-3, size=points.shape), first, second) is None
    assert lattice(points, first[:0], second[:0]) is None
    assert lattice(points[[0, 0]], np.array([0]), np.array([1])) is None
