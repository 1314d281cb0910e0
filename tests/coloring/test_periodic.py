"""Grids and crystals are coloured by templates, and repaired at defects."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

import sparsehess as sh
from sparsehess.errors import InputError
from support.cases import band, grid
from support.colorings import in_chunks

pytestmark = pytest.mark.parallel([1, 2, 3])


def lattice_of(basis, cells, reach):
    """Return points of a Bravais lattice in random sequence, and the pairs within reach."""
    at = np.stack(np.meshgrid(*[np.arange(cells)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    points = np.random.default_rng(0).permutation(at @ np.array(basis, float))
    return points, cKDTree(points).query_pairs(reach, output_type="ndarray")


@pytest.mark.parametrize(("kind", "most"), [("star", 13), ("acyclic", 7)])
def test_a_crystal_is_coloured_by_its_lattice(kind, most, comm, monkeypatch):
    """Twelve neighbours in a face-centred lattice whose points come in no sequence."""
    in_chunks(monkeypatch, 32)
    points, pairs = lattice_of([(0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0)], 6, 0.75)
    pattern = sh.Pattern.from_edges(pairs, len(points), dofs=3, comm=comm)
    groups = pattern.quotient.layout
    turned = points @ np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    coloring = sh.color(pattern, kind=kind, lattice=turned[groups.start : groups.stop])
    assert coloring.count <= 3 * most
    assert sh.verify_coloring(pattern, coloring) is None
    assert any(attempt.name == "periodic template" for attempt in coloring.attempts)


def test_coordinates_of_the_wrong_shape_are_refused(comm):
    pattern = sh.Pattern.from_scipy(band(30, 1), comm=comm)
    with pytest.raises(InputError, match="lattice: coordinates must be"):
        sh.color(pattern, lattice=np.zeros((pattern.layout.n_local + 1, 3)))


@pytest.mark.thorough
def test_defects_of_a_grid_are_repaired(comm, monkeypatch):
    """A few long bonds across a grid: the template stands, and their ends get colours of their own."""
    in_chunks(monkeypatch, 256)
    matrix = grid(24, 25, 26)
    strange = np.random.default_rng(2).integers(0, matrix.shape[0], (12, 2))
    rows, cols = matrix.nonzero()
    pattern = sh.Pattern.from_pairs(
        np.concatenate([rows, strange[:, 0]]), np.concatenate([cols, strange[:, 1]]), matrix.shape[0], comm=comm
    )
    for kind, most in (("star", 9), ("acyclic", 6), ("distance2", 9)):
        coloring = sh.color(pattern, kind=kind)
        assert coloring.attempts[0].name == "periodic template"
        assert coloring.count <= most
        assert sh.verify_coloring(pattern, coloring) is None


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("kind", "most"), [("star", 27), ("acyclic", 14), ("distance2", 27), ("powell-toint", 14)]
)
def test_a_grid_gets_its_template_on_any_number_of_ranks(kind, most, comm):
    pattern = sh.Pattern.from_scipy(grid(30, 31, 32, full=True), comm=comm)
    coloring = sh.color(pattern, kind=kind)
    assert coloring.count == most
    assert sh.verify_coloring(pattern, coloring) is None
    pattern.free()
