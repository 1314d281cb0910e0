import itertools
import time

import networkx
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

import sparsehess as sh
from sparsehess.coloring import lattice_recognition
from sparsehess.coloring.grid_recognition import recognize
from sparsehess.coloring.local_graph import Region
from sparsehess.coloring.periodic_templates import KINDS, Template, search
from sparsehess.errors import InputError
from support.cases import band, grid, is_column_partition, is_star_coloring, random_pattern


def lattice(points, first, second):
    """Return what the room of lattices makes of points and edges."""
    return lattice_recognition.lattice(
        Region.around(sh.Pattern.from_pairs(first, second, len(points))), np.asarray(points)
    )


def box(d, radius):
    return np.array([o for o in itertools.product(range(-radius, radius + 1), repeat=d) if any(o)])


def ball(d, radius, squared=None):
    """Return the offsets of a box with |o|_1 <= radius, or with |o|_2^2 <= squared."""
    offsets = box(d, radius)
    return offsets[np.abs(offsets).sum(1) <= radius if squared is None else (offsets**2).sum(1) <= squared]


HEX = np.array([(1, 0), (0, 1), (1, 1), (-1, 0), (0, -1), (-1, -1)])
STENCILS = {
    "3": box(1, 1),
    "5": ball(2, 1),
    "9": box(2, 1),
    "13": ball(2, 2),
    "hex": HEX,
    "7": ball(3, 1),
    "19": ball(3, 1, 2),
    "27": box(3, 1),
    "25": box(2, 2),
    "125": box(3, 2),
    "9 in 4-d": ball(4, 1),
    "bcc": np.array(list(itertools.product((-1, 1), repeat=3))),
}


def stencil_pattern(shape, offsets, periodic=None):
    """Return the pattern, with its diagonal, of a stencil on a grid numbered with the first coordinate fastest."""
    shape = np.array(shape)
    periodic = np.zeros(len(shape), bool) if periodic is None else np.array(periodic)
    strides = np.concatenate([[1], np.cumprod(shape[:-1])])
    rows = np.arange(shape.prod())
    at = rows[:, None] // strides % shape
    i, j = [rows], [rows]
    for offset in offsets:
        to = np.where(periodic, (at + offset) % shape, at + offset)
        there = ((to >= 0) & (to < shape)).all(axis=1)
        i.append(rows[there])
        j.append(to[there] @ strides)
    i, j = np.concatenate(i), np.concatenate(j)
    matrix = sp.coo_matrix((np.ones(len(i)), (i, j))).tocsr()
    matrix.data[:] = 1
    return matrix, at


def recognized(matrix):
    matrix = matrix.tocoo()
    return recognize(*np.unique(matrix.col - matrix.row, return_counts=True), matrix.shape[0])


def is_acyclic_coloring(matrix, colors):
    graph = networkx.from_scipy_sparse_array(matrix)
    graph.remove_edges_from(networkx.selfloop_edges(graph))
    if any(colors[v] == colors[w] for v, w in graph.edges):
        return False
    classes = [np.flatnonzero(colors == c).tolist() for c in np.unique(colors)]
    return all(networkx.is_forest(graph.subgraph(a + b)) for a, b in itertools.combinations(classes, 2))


def is_triangular_coloring(matrix, colors):
    return is_column_partition(sp.tril(matrix, format="csr"), colors)


ORACLE = {
    "distance2": is_column_partition,
    "star": is_star_coloring,
    "acyclic": is_acyclic_coloring,
    "powell-toint": is_triangular_coloring,
}


def condition(offsets, kind, a, k):
    """The conditions on residues, as they stand."""
    residues = (offsets @ a % k).tolist()
    if kind == "acyclic":
        return 0 not in residues and max(map(residues.count, residues)) <= 2
    if kind == "powell-toint":
        residues = [r for o, r in zip(offsets.tolist(), residues, strict=True) if o[::-1] < [0] * len(o)]
    return len({0, *residues}) == len(residues) + 1


kinds = pytest.mark.parametrize("kind", list(ORACLE))


@kinds
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_conditions_are_the_definitions_on_a_grid(kind, data):
    half = data.draw(st.sets(st.sampled_from([(1, 0), (0, 1), (1, 1), (-1, 1), (2, 0), (0, 2)]), min_size=1))
    offsets = np.array([*half, *((-x, -y) for x, y in half)])
    k = data.draw(st.integers(1, 9))
    a = np.array(data.draw(st.tuples(st.integers(0, k - 1), st.integers(0, k - 1))))
    matrix, at = stencil_pattern((9, 9), offsets)  # every path and cycle of the proofs fits in
    assert ORACLE[kind](matrix, Template(a, k).color(at)) == condition(offsets, kind, a, k)


@kinds
@settings(max_examples=40, deadline=None)
@given(st.sets(st.sampled_from([(1, 0), (0, 1), (1, 1), (-1, 1), (2, 0), (0, 2), (2, 1), (-1, 2)]), min_size=1))
def test_no_template_has_fewer_colours(kind, half):
    offsets = np.array([*half, *((-x, -y) for x, y in half)])
    found = search(offsets, kind)
    least = next(
        k
        for k in range(1, found.colors + 1)
        if any(condition(offsets, kind, np.array(a), k) for a in itertools.product(range(k), repeat=2))
    )
    assert least == found.colors
    assert condition(offsets, kind, found.coefficients, found.colors)


OPTIMA = {  # colours for distance2, and for acyclic and powell-toint
    **{"3": (3, 2), "5": (5, 3), "9": (9, 5), "13": (13, 7), "25": (25, 13), "hex": (7, 4), "bcc": (9, 5)},
    **{"7": (7, 4), "19": (20, 10), "27": (27, 14), "125": (125, 63), "9 in 4-d": (9, 5)},
}


def test_known_optima():
    for (name, (full, half)), kind in itertools.product(OPTIMA.items(), KINDS):
        count = half if kind in ("acyclic", "powell-toint") else full
        began = time.process_time()
        template = search(STENCILS[name], kind)
        assert time.process_time() - began < 2
        assert (name, kind, template.colors) == (name, kind, count)
        assert condition(STENCILS[name], kind, template.coefficients, count)


def test_templates_colour_grids():
    grids = [("5", (7, 6)), ("9", (5, 8)), ("hex", (7, 7)), ("7", (5, 4, 5)), ("27", (5, 5, 4))]
    for (name, shape), (kind, valid) in itertools.product(grids, ORACLE.items()):
        matrix, at = stencil_pattern(shape, STENCILS[name])
        template = search(STENCILS[name], kind)
        colors = template.color(at)
        assert colors.dtype == np.int32
        assert set(colors) <= set(range(template.colors))
        assert valid(matrix, colors)


CLOSED_OR_THIN = [
    (box(1, 1), (12,), (True,)),
    (box(1, 2), (10,), (True,)),
    (ball(2, 1), (10, 7), (True, False)),
    (ball(2, 1), (7, 10), (False, True)),
    (ball(2, 1), (10, 10), (True, True)),
    (box(2, 1), (9, 9), (True, True)),
    (box(2, 1), (5, 9), (False, True)),
    (HEX, (7, 14), (True, True)),
    (ball(3, 1), (6, 4, 6), (True, False, True)),
    (ball(2, 1), (8, 2), None),
    (box(2, 1), (8, 2), (False, False)),
    (box(3, 1), (4, 4, 2), None),
]


def test_templates_of_periodic_and_thin_grids():
    for (offsets, shape, periodic), (kind, valid) in itertools.product(CLOSED_OR_THIN, ORACLE.items()):
        matrix, at = stencil_pattern(shape, offsets, periodic)
        template = search(offsets, kind, shape=shape, periodic=periodic)
        assert valid(matrix, template.color(at))


def test_periodic_and_thin_counts():
    assert search(ball(2, 1), "star", shape=(10, 10), periodic=(True, True)).colors == 5
    assert search(ball(2, 1), "star", shape=(11, 13), periodic=(True, True)) is None
    assert search(ball(2, 1), "acyclic", shape=(9, 9), periodic=(False, False)).colors == 3
    assert search(box(3, 1), "cpr", shape=(9, 9, 2)).colors == 18
    assert search(box(2, 2), "cpr", shape=(4, 20), periodic=(True, False)) is None


def test_search_is_remembered_bounded_and_refuses():
    assert search(box(3, 1), "acyclic") is search(box(3, 1).tolist(), "acyclic")
    assert search(box(3, 1), "distance2", effort=0).colors == 27
    assert search(ball(3, 1, 2), "distance2", effort=0) is None
    assert search(np.empty((0, 2), np.int64), "star").colors == 1
    with pytest.raises(InputError, match="kind 'plaid' is none of"):
        search(box(1, 1), "plaid")
    with pytest.raises(InputError, match="need a shape"):
        search(box(1, 1), "star", periodic=(True,))


# --- recognition -----------------------------------------------------------------------


def same(grid, shape, offsets, periodic=None):
    assert grid is not None
    assert grid.shape == tuple(shape)
    assert grid.strides == tuple(np.concatenate([[1], np.cumprod(shape[:-1])]).tolist())
    assert set(map(tuple, grid.offsets.tolist())) == set(map(tuple, np.asarray(offsets).tolist()))
    assert len(grid.offsets) == len(offsets)
    assert grid.periodic == (tuple(periodic) if periodic else (False,) * len(shape))
    return grid


SHAPES = {
    "5": [(4, 4), (30, 30), (5, 6), (6, 5), (10, 12), (17, 100), (100, 4)],
    "9": [(4, 4), (12, 12), (5, 40), (64, 32)],
    "13": [(6, 6), (7, 30), (30, 7)],
    "25": [(6, 6), (20, 8)],
    "hex": [(4, 4), (20, 20), (9, 31)],
    "7": [(4, 4, 4), (10, 10, 10), (5, 6, 7), (4, 30, 4), (12, 18, 24)],
    "19": [(4, 4, 4), (8, 9, 10)],
    "27": [(4, 4, 4), (10, 10, 10), (12, 4, 9)],
    "125": [(6, 6, 6), (8, 7, 9)],
    "9 in 4-d": [(4, 4, 4, 4), (5, 6, 7, 4)],
}


@pytest.mark.parametrize("name", SHAPES)
def test_grids_are_recognized(name):
    offsets = STENCILS[name]
    for shape in SHAPES[name]:
        for closed in range(len(shape) + 1):
            periodic = tuple(i < closed for i in range(len(shape)))
            matrix, at = stencil_pattern(shape, offsets, periodic)
            found = same(recognized(matrix), shape, offsets, periodic)
            assert np.array_equal(found.indices(np.arange(len(at))), at)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3), st.integers(0, 10**6), st.booleans())
def test_any_stencil_on_any_grid(d, seed, closed):
    rng = np.random.default_rng(seed)
    half = box(d, rng.integers(1, 3))
    half = np.concatenate([np.eye(d, dtype=np.int64), half[rng.uniform(size=len(half)) < rng.uniform()]])
    offsets = np.unique(np.concatenate([half, -half]), axis=0)
    periodic = tuple((closed & (rng.uniform(size=d) < 0.5)).tolist())
    shape = 2 * np.abs(offsets).max(axis=0) + 2 + 2 * np.array(periodic) + rng.integers(0, 6, d)
    same(recognized(stencil_pattern(shape, offsets, periodic)[0]), shape.tolist(), offsets, periodic)


def test_chains_are_recognized():
    for w in (1, 2, 5, 20):
        same(recognized(band(200, w)), (200,), box(1, w))
        same(recognized(stencil_pattern((200,), box(1, w), (True,))[0]), (200,), box(1, w), (True,))
    helix = np.array([(1,), (-1,), (20,), (-20,)])
    same(recognized(stencil_pattern((400,), helix)[0]), (400,), helix)


def test_patterns_of_other_tests_are_recognized():
    same(recognized(grid(22, 22, 22, full=True)), (22, 22, 22), box(3, 1))
    same(recognized(grid(100, 100)), (100, 100), ball(2, 1))


def test_fields_after_each_other_and_interleaved():
    both = sp.kron(np.ones((2, 2)), grid(9, 12)).tocsr()  # two fields, coupled
    found = recognized(both)
    assert (found.shape, found.strides) == ((12, 9, 2), (1, 12, 108))
    assert is_star_coloring(
        both, search(found.offsets, "star", shape=found.shape).color(found.indices(range(216)))
    )
    apart = sp.kron(grid(9, 12), np.eye(3)).tocsr()
    found = recognized(apart)
    assert (found.shape, found.strides) == ((12, 9), (3, 36))
    assert is_star_coloring(apart, search(found.offsets, "star").color(found.indices(np.arange(324))))
    three = sp.kron(grid(9, 12), np.ones((3, 3))).tocsr()  # three coupled in a ring are all coupled
    found = recognized(three)
    assert (found.shape, found.periodic) == ((3, 12, 9), (True, False, False))
    template = search(found.offsets, "star", shape=found.shape, periodic=found.periodic)
    assert template.colors == 15
    assert is_star_coloring(three, template.color(found.indices(np.arange(324))))
    assert recognized(sp.kron(grid(9, 12), np.ones((2, 2)))) is None


def shuffled(matrix, seed=0):
    order = np.random.default_rng(seed).permutation(matrix.shape[0])
    return matrix[order][:, order]


def quadratic_elements(m):
    """Return the pattern of m x m biquadratic elements."""
    line = sp.lil_matrix((2 * m + 1, 2 * m + 1))
    for e in range(m):
        line[2 * e : 2 * e + 3, 2 * e : 2 * e + 3] = 1
    return sp.kron(line, line).tocsr()


def test_others_are_not():
    others = [random_pattern(n, 4 * n, n) for n in (30, 200, 1000, 50_000)]
    others += [
        shuffled(grid(20, 20)),
        shuffled(band(300, 3)),
        sp.identity(40, format="csr"),
        sp.csr_matrix((0, 0)),
    ]
    others += [quadratic_elements(12), grid(10, 12) + random_pattern(120, 30, 1), band(3000, 900)]
    for matrix in others:
        began = time.process_time()
        assert recognized(matrix) is None
        assert time.process_time() - began < 2


@pytest.mark.parametrize(
    ("name", "closed"), [("5", True), ("9", False), ("7", False), ("27", True), ("hex", False)]
)
def test_defects_are_tolerated(name, closed):
    offsets, rng = STENCILS[name], np.random.default_rng(1)
    shape = (30, 40) if offsets.shape[1] == 2 else (10, 12, 14)
    periodic = (closed,) * len(shape)
    matrix = stencil_pattern(shape, offsets, periodic)[0].tolil()
    n = matrix.shape[0]
    for i, j in rng.integers(0, n, (n // 50, 2)):  # couplings too many
        matrix[i, j] = matrix[j, i] = 1
    for i in rng.integers(0, n, n // 50):  # variables that are held
        matrix[i, :] = matrix[:, i] = 0
        matrix[i, i] = 1
    same(recognized(matrix.tocsr()), shape, offsets, periodic)


def test_a_frame_that_is_held():
    matrix, at = stencil_pattern((30, 32), ball(2, 1))
    inner = ((at > 0) & (at < [29, 31])).all(axis=1)
    mask = sp.diags(inner.astype(float))
    same(recognized((mask @ matrix @ mask + sp.identity(960)).tocsr()), (30, 32), ball(2, 1))


# --- lattices --------------------------------------------------------------------------

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
        assert is_column_partition(matrix, search(offsets, "star").color(indices))
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
