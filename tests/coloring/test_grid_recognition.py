"""Grids and stencils that patterns are recognised as."""

import time

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsehess.coloring.grid_recognition import recognize_grid
from sparsehess.coloring.periodic_templates import find_template
from support.cases import band, grid, is_star_coloring, random_pattern
from support.grids import STENCILS, ball, box, stencil_pattern


def recognized(matrix):
    matrix = matrix.tocoo()
    return recognize_grid(*np.unique(matrix.col - matrix.row, return_counts=True), matrix.shape[0])


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
        both, find_template(found.offsets, "star", shape=found.shape).color(found.indices(range(216)))
    )
    apart = sp.kron(grid(9, 12), np.eye(3)).tocsr()
    found = recognized(apart)
    assert (found.shape, found.strides) == ((12, 9), (3, 36))
    assert is_star_coloring(apart, find_template(found.offsets, "star").color(found.indices(np.arange(324))))
    three = sp.kron(grid(9, 12), np.ones((3, 3))).tocsr()  # three coupled in a ring are all coupled
    found = recognized(three)
    assert (found.shape, found.periodic) == ((3, 12, 9), (True, False, False))
    template = find_template(found.offsets, "star", shape=found.shape, periodic=found.periodic)
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
