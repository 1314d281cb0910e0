"""Colourings and their recoveries on any number of ranks: the same colours, valid, and exact."""

import itertools
import random

from mpi4py import MPI

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.spatial import cKDTree

import sparsehess as sh
from sparsehess.coloring import BEST, KINDS, ORDERS, load, save
from sparsehess.coloring import local_graph as regions
from sparsehess.coloring.kinds import ON_ONE_RANK
from sparsehess.errors import CheckError, InputError
from sparsehess.hessian.recovery import plan
from sparsehess.pattern import Layout
from support import DATA
from support.cases import DEFINITIONS, arrow, band, grid, random_pattern, random_symmetric

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


def in_chunks(monkeypatch, size):
    monkeypatch.setattr(regions, "CHUNK", size)
    monkeypatch.setattr(regions, "WHOLE", 0)


def gathered(coloring, comm):
    return np.concatenate(comm.allgather(coloring.colors))


def uneven(n, comm):
    """Return a layout that is not the even one, nor cut between chunks."""
    cuts = np.sort(np.random.default_rng(n).integers(0, n + 1, comm.size - 1))
    return Layout(sh.Pattern.from_pairs([], [], n, comm=comm).comm, np.concatenate([[0], cuts, [n]]))


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


def both(matrix, kind, rule, order, comm, **more):
    """Return pattern and colouring over all ranks, and the colours that one rank alone gives."""
    pattern = sh.Pattern.from_scipy(matrix, layout=uneven(matrix.shape[0], comm))
    coloring = sh.color(pattern, kind=kind, rule=rule, order=order, **more)
    alone = sh.Pattern.from_scipy(matrix, comm=MPI.COMM_SELF)
    return pattern, coloring, sh.color(alone, kind=kind, rule=rule, order=order, **more)


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


def test_the_ring_of_six_in_two_colours_is_no_acyclic_colouring(comm):
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


def test_a_colouring_that_cannot_be_written_keeps_nobody_waiting(comm, folder):
    n = 100_000  # more colours than a message takes along before it is received
    pattern = sh.Pattern.from_scipy(sp.identity(n, format="csr"), comm=comm)
    made = sh.color(pattern, order="natural")
    with pytest.raises(InputError, match="cannot be written"):
        save(folder / "nowhere" / "c.npz", pattern, made)
    pattern.free()


@pytest.mark.thorough
@pytest.mark.parametrize("suffix", [".npz", ".h5"])
def test_a_stored_colouring_is_read_on_any_number_of_ranks(suffix, comm, folder):
    matrix = random_pattern(400, 900, 6)
    pattern, made, alone = both(matrix, "acyclic", None, "smallest-last", comm)
    save(folder / f"together{suffix}", pattern, made)
    if comm.rank == 0:
        save(folder / f"alone{suffix}", sh.Pattern.from_scipy(matrix, comm=MPI.COMM_SELF), alone)
    comm.Barrier()
    for name in ("together", "alone"):
        read = load(folder / f"{name}{suffix}", pattern)
        assert np.array_equal(read.colors, made.colors)
        assert np.array_equal(read.ghost_colors, made.ghost_colors)
        assert (read.count, read.kind, read.rule) == (made.count, made.kind, made.rule)
        assert sh.verify_coloring(pattern, read) is None
    other = sh.Pattern.from_scipy(random_pattern(400, 900, 7), comm=comm)
    with pytest.raises(InputError, match="of another pattern"):
        load(folder / f"alone{suffix}", other)


def test_files_that_are_no_colourings_are_refused(comm, folder):
    pattern = sh.Pattern.from_scipy(band(30, 1), comm=comm)
    made = sh.color(pattern)
    save(folder / "whole.npz", pattern, made)
    if comm.rank == 0:
        (folder / "cut.npz").write_bytes((folder / "whole.npz").read_bytes()[:300])
        np.savez(folder / "foreign.npz", data=np.arange(3))
    comm.Barrier()
    for name in ("cut.npz", "foreign.npz"):
        with pytest.raises(InputError, match="is no stored colouring"):
            load(folder / name, pattern)
    with pytest.raises(InputError, match="no such file"):
        load(folder / "absent.npz", pattern)
    with pytest.raises(InputError, match=r"ends with .npz or .h5"):
        save(folder / "colors.txt", pattern, made)


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


def test_real_patterns_are_coloured_alike(comm):
    path = DATA / "patterns" / "delaunay_n15.npz"
    if not path.exists():
        pytest.skip("no patterns beside the project")
    pattern, coloring, alone = both(sp.load_npz(path), "star", None, BEST, comm)
    assert np.array_equal(gathered(coloring, comm), alone.colors)
    assert coloring.count <= 8
    pattern.free()
