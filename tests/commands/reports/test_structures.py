"""What is drawn of structures: the right nodes, moved by the right variables, whichever rank has them."""

from petsc4py import PETSc

import numpy as np
import pytest

import sparsehess as sh
from sparsehess.commands.reports import structures
from sparsehess.commands.reports.structure_figure import collectivity
from sparsehess.commands.reports.structures import gather_modes, gather_structure, read_modes, structure_of


def lattice(many, comm):
    """Some nodes in space of which each third is held, and two vectors of their variables."""
    random = np.random.default_rng(7)
    at = random.normal(size=(many, 3))
    free = np.arange(many) % 3 > 0
    variables = np.full((many, 3), -1)
    variables[free] = random.permutation(3 * free.sum()).reshape(-1, 3)
    rows = random.normal(size=(2, 3 * free.sum()))
    vectors = []
    for row in rows:
        vector = PETSc.Vec().createMPI(len(row), comm=comm)
        first, last = vector.getOwnershipRange()
        vector.setArray(row[first:last])
        vectors.append(vector)
    return at, variables, rows, vectors


@pytest.mark.parallel([1, 2, 3])
def test_modes_move_the_nodes_that_they_are_of(comm):
    at, variables, rows, vectors = lattice(60, comm)
    moved = np.where((variables < 0)[None], 0.0, rows[:, variables])
    moved /= np.linalg.norm(moved, axis=2).max(axis=1)[:, None, None]
    own = slice(comm.rank * 60 // comm.size, (comm.rank + 1) * 60 // comm.size)
    for geometry, spread in (
        (sh.Geometry(at, variables), False),
        (sh.Geometry(at[own], variables[own]), True),
    ):
        structure = gather_structure(geometry, spread, comm)
        modes = gather_modes(structure, vectors, comm)
        assert (structure is None) == (comm.rank > 0)
        if structure is not None:
            assert np.allclose(structure.positions, at, atol=1e-6) and np.allclose(modes, moved, atol=1e-6)
            assert structure.told == 60 and np.allclose(read_modes(structure, rows), modes)
            again = structure_of(structure.arrays(), structure.facts(), rows.shape[1])
            assert np.allclose(read_modes(again, rows), modes)
    for vector in vectors:
        vector.destroy()


@pytest.mark.parallel([1, 2, 3])
def test_ranks_without_a_part_and_nothing_at_all(comm):
    at, variables, _, vectors = lattice(12, comm)
    part = sh.Geometry(at, variables) if comm.rank == comm.size - 1 else None
    structure = gather_structure(part, True, comm)
    assert (structure is not None) == (comm.rank == 0)
    assert gather_structure(None, False, comm) is None
    assert gather_modes(None, vectors, comm).size == 0
    for vector in vectors:
        vector.destroy()


@pytest.mark.parallel([1, 2, 3])
def test_nodes_that_several_ranks_tell_are_drawn_once(comm):
    """Each rank has a stretch of a line with the first node of the next one."""
    line = np.arange(3 * comm.size + 1)
    own = line[3 * comm.rank : 3 * comm.rank + 4]
    at = np.stack([own + 1e-9 * comm.rank, 0.0 * own], axis=1)
    edges = np.array([[0, 1], [1, 2], [2, 3]])
    structure = gather_structure(sh.Geometry(at, 2 * own[:, None] + [0, 1], edges=edges), True, comm)
    if structure is not None:
        assert np.allclose(structure.positions[:, 0], line) and structure.told == len(line)
        assert structure.edges.tolist() == [[i, i + 1] for i in line[:-1]]
        assert np.array_equal(structure.variables[:, 1], 2 * line + 1)


def test_large_structures_are_thinned_and_say_so(comm):

    many = 3 * structures.NODES
    at = np.stack([np.arange(many), np.zeros(many), np.zeros(many)], axis=1)
    structure = gather_structure(sh.Geometry(at), False, comm)
    assert len(structure.positions) == structures.NODES and structure.told == many
    assert np.array_equal(structure.variables[1], [9, 10, 11])
    # Of a mesh the nodes of the surface are drawn, with faces that name them anew.
    faces = np.array([[5, 900, 17], [900, 17, 33]])
    structure = gather_structure(sh.Geometry(at, faces=[faces]), False, comm)
    assert len(structure.positions) == 4
    assert np.allclose(structure.positions[structure.faces[:, :3]][..., 0], faces)


def test_bonds(comm):
    water = [[0, 0, 0.12], [0, 0.76, -0.48], [0, -0.76, -0.48]]
    structure = gather_structure(sh.Geometry(water, species=["O", "H", "H"]), False, comm)
    assert sorted(map(sorted, structure.edges.tolist())) == [[0, 1], [0, 2]]
    assert structure.names == ("H", "O") and structure.species.tolist() == [1, 0, 0]


def test_values_at_nodes_are_drawn_upright(comm):
    flat = sh.Geometry([[0.0, 0.0], [1.0, 0.0]], [[1], [0]])
    structure = gather_structure(flat, False, comm)
    assert np.allclose(read_modes(structure, np.array([[1.0, -2.0]])), [[[0, 0, -1], [0, 0, 0.5]]])


def test_collectivity():
    assert collectivity(np.ones((9, 3))) == pytest.approx(1.0)
    one = np.zeros((10, 3))
    assert collectivity(one) == pytest.approx(0.1)  # nothing moves
    one[3, 1] = -2.0
    assert collectivity(one) == pytest.approx(0.1)
