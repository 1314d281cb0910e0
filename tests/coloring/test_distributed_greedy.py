"""Colourings on any number of ranks: the same colours, valid, and recoveries that are exact."""

import itertools
import random

from mpi4py import MPI

import numpy as np
import pytest
import scipy.sparse as sp

import sparsehess as sh
from sparsehess.coloring import BEST, KINDS, ORDERS, portfolio
from sparsehess.coloring.kinds import ON_ONE_RANK
from sparsehess.errors import CheckError, InputError
from sparsehess.hessian.recovery import plan
from support import DATA
from support.cases import DEFINITIONS, arrow, band, grid, random_pattern, random_symmetric
from support.colorings import both, in_chunks

pytestmark = pytest.mark.parallel([1, 2, 3])

WAYS = [
    (kind, rule, order)
    for kind in KINDS
    for rule in KINDS[kind].rules
    if rule not in ON_ONE_RANK
    for order in ORDERS
] + [(kind, None, BEST) for kind in KINDS]


@pytest.fixture
def small_chunks(monkeypatch):
    """Deal the graph to ranks in grains of three vertices, so that small graphs are spread over all."""
    in_chunks(monkeypatch, 3)


def gathered(coloring, comm):
    return np.concatenate(comm.allgather(coloring.colors))


def recovered(pattern, coloring, exact):
    """Return the largest error of the recovered matrix, and what the recovery saw."""
    layout = pattern.layout
    n = layout.n
    steps = np.random.default_rng(n).uniform(0.5, 2.0, n)
    colors = np.concatenate(pattern.comm.allgather(coloring.colors))
    seeds = np.zeros((n, coloring.count))
    stepped = np.flatnonzero(colors >= 0)
    seeds[stepped, colors[stepped]] = steps[stepped]
    own = slice(layout.start, layout.stop)
    changes = np.ascontiguousarray((exact @ seeds)[own].T)
    values = np.full(pattern.nnz_local, np.nan)
    recovery = plan(pattern, coloring)
    recovery.recover(changes, steps[own], values)
    rows = pattern.to_scipy().astype(float)
    rows.data = values
    error = abs(rows - exact[own]).max() if layout.n_local else 0.0
    return pattern.comm.allreduce(error, op=MPI.MAX), recovery


@pytest.mark.parametrize("many", [100, pytest.param(1700, marks=pytest.mark.slow)])
def test_random_patterns_are_coloured_alike_and_recovered_exactly(many, small_chunks, comm):
    """Every kind, rule and order in turn."""
    ways = random.Random(comm.size).sample(WAYS, len(WAYS))
    for seed, (kind, rule, order) in zip(range(many), itertools.cycle(ways), strict=False):
        rng = np.random.default_rng(seed)
        n, pairs = int(rng.integers(1, 40)), int(rng.integers(0, 100))
        matrix = random_pattern(n, pairs, seed)
        pattern, coloring, alone = both(matrix, kind, rule, order, comm, budget=0.01)
        colors = gathered(coloring, comm)
        case = (seed, kind, rule, order)
        assert np.array_equal(colors, alone.colors), case
        assert coloring.lower_bound == alone.lower_bound <= coloring.count == alone.count, case
        assert DEFINITIONS[kind](matrix, colors), case
        assert sh.verify_coloring(pattern, coloring) is None, case
        error, recovery = recovered(pattern, coloring, random_symmetric(matrix, seed))
        assert error <= 1e-13 * recovery.amplification, case
        pattern.free()


@pytest.mark.thorough
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", ["chunks", "smallest-last", BEST])
def test_larger_patterns_are_coloured_alike(kind, order, comm, monkeypatch):
    in_chunks(monkeypatch, 256)
    for matrix in (grid(11, 12, 9, full=True), random_pattern(1500, 5000, 4), arrow(900)):
        pattern, coloring, alone = both(matrix, kind, None, order, comm, budget=0.02)
        assert np.array_equal(gathered(coloring, comm), alone.colors)
        assert coloring.optimal == alone.optimal
        assert sh.verify_coloring(pattern, coloring) is None
        if comm.size > 1 and order != BEST and coloring.attempts:
            assert coloring.traffic.rounds > 0
        pattern.free()


def test_the_last_colours_vertices_go_ahead_alike(comm, monkeypatch):
    """Where they are few: colours are valid, and those of one rank, on any number of them."""
    in_chunks(monkeypatch, 64)
    monkeypatch.setattr(portfolio, "_FEW", 0.05)
    matrix = random_pattern(700, 2800, 9)
    pattern, coloring, alone = both(matrix, "acyclic", None, BEST, comm, budget=0.02)
    colors = gathered(coloring, comm)
    assert np.array_equal(colors, alone.colors)
    assert DEFINITIONS["acyclic"](matrix, colors)
    tried = [one for one in coloring.attempts if "ahead" in one.name]
    assert tried
    assert min(one.count for one in coloring.attempts if "given up" not in one.name) == coloring.count
    pattern.free()


@pytest.mark.thorough
@pytest.mark.parametrize("kind", KINDS)
def test_a_mutated_colouring_is_refused(kind, comm):
    matrix = random_pattern(60, 150, 5)
    pattern = sh.Pattern.from_scipy(matrix, comm=comm)
    made = sh.color(pattern, kind=kind, order="smallest-last")
    colors = gathered(made, comm)
    for v in range(60):
        neighbors = [w for w in matrix[v].indices if w != v]
        if neighbors:
            changed = colors.copy()
            changed[v] = colors[neighbors[0]]
            assert sh.verify_coloring(pattern, with_colors(pattern, made, changed)) is not None
            with pytest.raises(CheckError, match="not valid"):
                plan(pattern, with_colors(pattern, made, changed))


def with_colors(pattern, coloring, colors):
    import dataclasses

    own = colors[pattern.layout.start : pattern.layout.stop].astype(np.int32)
    ghosts = colors[pattern.ghosts].astype(np.int32)
    return dataclasses.replace(coloring, colors=own, ghost_colors=ghosts, count=int(colors.max()) + 1)


def test_two_colours_are_no_acyclic_colouring_of_a_ring(comm):
    """A two-coloured cycle has no leaf to begin with; recoveries that do not look for one return nonsense."""
    ring = np.arange(6)
    pattern = sh.Pattern.from_pairs(ring, (ring + 1) % 6, 6, comm=comm)
    made = sh.color(pattern, kind="acyclic")
    assert made.count == 3 and made.optimal
    assert sh.verify_coloring(pattern, made) is None
    broken = with_colors(pattern, made, ring % 2)
    assert sh.verify_coloring(pattern, broken) is not None
    with pytest.raises(CheckError, match="cannot be recovered"):
        plan(pattern, broken)


@pytest.mark.thorough
@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_blocks_take_no_more_colours(kind, size, comm, monkeypatch):
    in_chunks(monkeypatch, 16)
    edges = np.argwhere(np.triu(random_pattern(120, 300, 2).toarray(), 1))
    whole = sh.Pattern.from_edges(edges, 120, dofs=size, comm=comm)
    coloring = sh.color(whole, kind=kind, order="smallest-last")
    assert sh.verify_coloring(whole, coloring) is None
    plain = sh.Pattern.from_csr(whole.indptr, whole.indices, comm=comm)
    assert coloring.count <= sh.color(plain, kind=kind, order="smallest-last").count
    declared = sh.color(plain.in_blocks(size), kind=kind, order="smallest-last")
    assert np.array_equal(declared.colors, coloring.colors)


def test_blocks_that_are_none_are_refused(comm):
    pattern = sh.Pattern.from_scipy(band(30, 1), comm=comm)
    with pytest.raises(InputError, match="blocks of 3"):
        pattern.in_blocks(3)


def test_hollow_rows_leave_colours_that_nobody_needs(comm):
    """A saddle-point matrix: multipliers have no diagonal, and their columns are read from the others' rows."""
    n, m = 60, 20
    rows, cols = np.repeat(np.arange(m), 3) + n, np.arange(n)  # every multiplier has three variables of its own
    rows, cols = np.concatenate([np.arange(n), rows]), np.concatenate([np.arange(n), cols])
    full = sh.Pattern.from_pairs(rows, cols, n + m, comm=comm)
    given = sh.Pattern.from_pairs(rows, cols, n + m, comm=comm, diagonal="given")
    before, after = (sh.color(one, kind="cpr", order="largest-first") for one in (full, given))
    assert after.count < before.count
    assert gathered(after, comm).min() == -1
    assert sh.verify_coloring(given, after) is None
    assert sh.verify_coloring(full, after) is not None
    lower = sp.coo_matrix((np.ones(len(rows), np.int8), (rows, cols)), (n + m, n + m)).tocsr()
    structure = ((lower + lower.T) != 0).astype(np.int8).tocsr()
    error, _ = recovered(given, after, random_symmetric(structure, 1))
    assert error < 1e-14


@pytest.mark.parametrize("kind", KINDS)
def test_patterns_that_are_one_chunk_are_coloured_alike(kind, comm):
    """All rules and passes may be used there: one rank has the graph, and the others have nothing."""
    for matrix in (random_pattern(1500, 5000, 4), arrow(900), random_pattern(2, 1, 0), band(1, 0)):
        pattern, coloring, alone = both(matrix, kind, None, BEST, comm, budget=0.05)
        assert np.array_equal(gathered(coloring, comm), alone.colors)
        assert [one.name for one in coloring.attempts] == [one.name for one in alone.attempts]
        assert sh.verify_coloring(pattern, coloring) is None
        pattern.free()


def test_a_rule_for_one_rank_says_so(comm, monkeypatch):
    pattern = sh.Pattern.from_scipy(band(30, 2), comm=comm)
    assert sh.color(pattern, kind="acyclic", rule="trees", order="natural").count == 3
    in_chunks(monkeypatch, 3)
    if comm.size > 1:
        with pytest.raises(InputError, match="one rank"):
            sh.color(pattern, kind="acyclic", rule="trees")
    else:
        assert sh.color(pattern, kind="acyclic", rule="trees", order="natural").count == 3


def test_real_patterns_are_coloured_alike(comm):
    path = DATA / "patterns" / "delaunay_n15.npz"
    if not path.exists():
        pytest.skip("no patterns beside the project")
    pattern, coloring, alone = both(sp.load_npz(path), "star", None, BEST, comm)
    assert np.array_equal(gathered(coloring, comm), alone.colors)
    assert coloring.count <= 8
    pattern.free()
