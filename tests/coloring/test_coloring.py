import dataclasses

import networkx
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

import sparsehess as sh
from sparsehess.coloring import BEST, KINDS, ORDERS
from sparsehess.coloring.local_graph import Region
from sparsehess.errors import InputError
from support import DATA
from support.cases import DEFINITIONS, arrow, band, grid, random_pattern

every = pytest.mark.parametrize(("kind", "order"), [(kind, order) for kind in KINDS for order in [*ORDERS, BEST]])


@every
@settings(max_examples=8, deadline=None)
@given(st.integers(0, 14), st.integers(0, 40), st.integers(0, 10**6))
def test_the_definition_holds_by_listing_paths(kind, order, n, pairs, seed):
    matrix = random_pattern(max(n, 1), pairs, seed)
    pattern = sh.Pattern.from_scipy(matrix)
    coloring = sh.color(pattern, kind=kind, order=order, budget=0.01)
    assert DEFINITIONS[kind](matrix, coloring.colors)
    assert sh.verify_coloring(pattern, coloring) is None
    assert coloring.lower_bound <= coloring.count == coloring.colors.max() + 1


@every
def test_more_than_64_colours(kind, order):
    matrix = random_pattern(150, 4000, 3)
    coloring = sh.color(sh.Pattern.from_scipy(matrix), kind=kind, order=order, budget=0.01)
    assert coloring.count > (64 if kind in ("cpr", "distance2", "star") else 32)
    assert sh.verify_coloring(sh.Pattern.from_scipy(matrix), coloring) is None


@settings(max_examples=150, deadline=None)
@given(st.integers(2, 12), st.integers(1, 40), st.integers(0, 10**6), st.data())
def test_the_check_agrees_with_the_oracle_on_any_colours(n, pairs, seed, data):
    matrix = random_pattern(n, pairs, seed)
    pattern = sh.Pattern.from_scipy(matrix)
    for kind in KINDS:
        made = sh.color(pattern, kind=kind, order="natural")
        colors = np.array(data.draw(st.lists(st.integers(0, 5), min_size=n, max_size=n)), np.int32)
        coloring = dataclasses.replace(made, colors=colors, count=6)
        assert (sh.verify_coloring(pattern, coloring) is None) == DEFINITIONS[kind](matrix, colors)


@every
def test_a_mutated_colouring_is_refused(kind, order):
    matrix = random_pattern(60, 150, 5)
    pattern = sh.Pattern.from_scipy(matrix)
    made = sh.color(pattern, kind=kind, order=order, budget=0.01)
    for v in range(60):
        neighbors = [w for w in matrix[v].indices if w != v]
        if neighbors:
            colors = made.colors.copy()
            colors[v] = colors[neighbors[0]]
            assert sh.verify_coloring(pattern, dataclasses.replace(made, colors=colors)) is not None


def test_colours_out_of_range_are_refused():
    pattern = sh.Pattern.from_scipy(band(5, 1))
    made = sh.color(pattern)
    assert sh.verify_coloring(pattern, dataclasses.replace(made, colors=made.colors - 1)) is not None
    assert sh.verify_coloring(pattern, dataclasses.replace(made, count=1)) is not None


@pytest.mark.parametrize("w", [1, 2, 3, 5])
def test_bands_have_their_closed_form(w):
    pattern = sh.Pattern.from_scipy(band(60, w))
    assert sh.color(pattern, kind="cpr", order="natural").count == 2 * w + 1
    assert sh.color(pattern, kind="star", order="natural").count <= 2 * w + 1
    assert sh.color(pattern, kind="acyclic").count == w + 1
    assert sh.color(pattern, kind="powell-toint").count == w + 1


@pytest.mark.parametrize("n", [0, 1, 2])
@every
def test_tiny(kind, order, n):
    pattern = sh.Pattern.from_pairs([0] * (n == 2), [1] * (n == 2), n)
    assert sh.color(pattern, kind=kind, order=order, budget=0.01).count == n


# Counts that other programs reach on the same patterns with the same rule and one of the orders.
@pytest.mark.parametrize(
    ("matrix", "kind", "order", "most"),
    [
        (grid(22, 22, 22), "star", "natural", 11),
        (grid(22, 22, 22, full=True), "cpr", "natural", 27),
        (grid(100, 100), "star", "natural", 7),
        (grid(100, 100, full=True), "cpr", "natural", 9),
        (arrow(2000), "star", "largest-first", 8),
    ],
)
def test_known_counts(matrix, kind, order, most):
    assert sh.color(sh.Pattern.from_scipy(matrix), kind=kind, order=order).count <= most


# The best of ColPack, CasADi and asdex in all their orders reach, for star, 38, 9, 11, 20 and, for acyclic,
# 24, 6, 7, 14.
@pytest.mark.parametrize(
    ("name", "star", "acyclic", "distance2"),
    [("evslA", 36, 23, 122), ("4elt", 8, 5, 11), ("CVXQP1_L_P", 9, 5, 11), ("rgg_n_2_15_s0", 18, 14, 25)],
)
def test_real_patterns(name, star, acyclic, distance2):
    path = DATA / "patterns" / f"{name}.npz"
    if not path.exists():
        pytest.skip("no patterns beside the project")
    pattern = sh.Pattern.from_scipy(sp.load_npz(path))
    assert sh.color(pattern).count <= star
    assert sh.color(pattern, kind="acyclic").count <= acyclic
    assert sh.color(pattern, kind="distance2").count <= distance2


@pytest.mark.parametrize("kind", ["star", "acyclic", "cpr", "distance2"])
def test_classes_are_ejected(kind):
    """The search goes below what any greedy order gives, and every step of it is a colouring."""
    pattern = sh.Pattern.from_scipy(random_pattern(800, 8000, 1))
    coloring = sh.color(pattern, kind=kind, budget=0.3)
    greedy = [one.count for one in coloring.attempts if "ejected" not in one.name and "given up" not in one.name]
    fewer = [one.count for one in coloring.attempts if one.name == "class ejected"]
    assert fewer == list(range(min(greedy) - 1, coloring.count - 1, -1))
    assert coloring.count < min(greedy)
    assert sh.verify_coloring(pattern, coloring) is None


def test_dense_rows_do_not_blow_up():
    coloring = sh.color(sh.Pattern.from_scipy(arrow(100_000)), order="largest-first")
    assert coloring.count <= 8
    assert coloring.seconds < 1.0


def test_smallest_last_has_the_degeneracy_of_the_graph():
    matrix = random_pattern(300, 900, 7)
    region = Region.of_pattern(sh.Pattern.from_scipy(matrix))
    level = ORDERS["smallest-last"](region).level
    graph = networkx.from_scipy_sparse_array(matrix)
    graph.remove_edges_from(networkx.selfloop_edges(graph))
    # Waves take equals at once, so vertices of one wave are counted as not before one another.
    before = max(sum(level[w] < level[v] for w in graph[v]) for v in graph)
    assert before <= max(networkx.core_number(graph).values())


def test_star_bound_is_exact_on_complete_graphs():
    n = 9
    rows, cols = np.triu_indices(n, 1)
    assert sh.color(sh.Pattern.from_pairs(rows, cols, n)).lower_bound == n


def test_unknown_names_are_refused():
    pattern = sh.Pattern.from_scipy(band(5, 1))
    with pytest.raises(InputError, match="kind 'plaid' is none of"):
        sh.color(pattern, kind="plaid")
    with pytest.raises(InputError, match="order 'chaotic' is none of"):
        sh.color(pattern, order="chaotic")
