import itertools
import time

import networkx
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsehess.coloring.periodic_templates import KINDS, Template, find_template
from sparsehess.errors import InputError
from support.cases import is_column_partition, is_star_coloring
from support.grids import HEX, STENCILS, ball, box, stencil_pattern


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
    found = find_template(offsets, kind)
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
        template = find_template(STENCILS[name], kind)
        assert time.process_time() - began < 2
        assert (name, kind, template.colors) == (name, kind, count)
        assert condition(STENCILS[name], kind, template.coefficients, count)


def test_templates_colour_grids():
    grids = [("5", (7, 6)), ("9", (5, 8)), ("hex", (7, 7)), ("7", (5, 4, 5)), ("27", (5, 5, 4))]
    for (name, shape), (kind, valid) in itertools.product(grids, ORACLE.items()):
        matrix, at = stencil_pattern(shape, STENCILS[name])
        template = find_template(STENCILS[name], kind)
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
        template = find_template(offsets, kind, shape=shape, periodic=periodic)
        assert valid(matrix, template.color(at))


def test_periodic_and_thin_counts():
    assert find_template(ball(2, 1), "star", shape=(10, 10), periodic=(True, True)).colors == 5
    assert find_template(ball(2, 1), "star", shape=(11, 13), periodic=(True, True)) is None
    assert find_template(ball(2, 1), "acyclic", shape=(9, 9), periodic=(False, False)).colors == 3
    assert find_template(box(3, 1), "cpr", shape=(9, 9, 2)).colors == 18
    assert find_template(box(2, 2), "cpr", shape=(4, 20), periodic=(True, False)) is None


def test_search_is_remembered_bounded_and_refuses():
    assert find_template(box(3, 1), "acyclic") is find_template(box(3, 1).tolist(), "acyclic")
    assert find_template(box(3, 1), "distance2", effort=0).colors == 27
    assert find_template(ball(3, 1, 2), "distance2", effort=0) is None
    assert find_template(np.empty((0, 2), np.int64), "star").colors == 1
    with pytest.raises(InputError, match="kind 'plaid' is none of"):
        find_template(box(1, 1), "plaid")
    with pytest.raises(InputError, match="need a shape"):
        find_template(box(1, 1), "star", periodic=(True,))
