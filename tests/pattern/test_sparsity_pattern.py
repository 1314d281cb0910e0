import tracemalloc

import networkx
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

import sparsehess as sh
from sparsehess.errors import InputError
from support.cases import grid, random_pattern


def dense(pattern):
    return pattern.to_scipy().toarray().astype(bool)


def oracle(rows, cols, n):
    matrix = np.eye(n, dtype=bool)
    matrix[rows, cols] = matrix[cols, rows] = True
    return matrix


pairs = st.integers(1, 12).flatmap(
    lambda n: st.tuples(st.just(n), st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=30))
)


@settings(max_examples=200, deadline=None)
@given(pairs)
def test_pairs_are_symmetrised_with_their_diagonal(case):
    n, entries = case
    rows, cols = np.array(entries, int).reshape(-1, 2).T
    pattern = sh.Pattern.from_pairs(rows, cols, n)
    assert np.array_equal(dense(pattern), oracle(rows, cols, n))
    for i in range(n):
        row = pattern.indices[pattern.indptr[i] : pattern.indptr[i + 1]]
        assert (np.diff(row) > 0).all()


@settings(max_examples=100, deadline=None)
@given(pairs)
def test_csr_equals_pairs(case):
    n, entries = case
    rows, cols = np.array(entries, int).reshape(-1, 2).T
    matrix = sp.coo_matrix((np.ones(len(rows)), (rows, cols)), (n, n)).tocsr()
    assert np.array_equal(dense(sh.Pattern.from_scipy(matrix)), oracle(rows, cols, n))


def test_a_complete_csr_is_taken_without_a_copy():
    matrix = grid(5, 4)
    matrix.sort_indices()
    pattern = sh.Pattern.from_scipy(matrix)
    assert np.shares_memory(pattern.indices, matrix.indices)


def test_elements_couple_all_their_nodes():
    elements = np.array([[0, 1, 2], [2, 3, -1]])
    pattern = sh.Pattern.from_elements(elements, 4, dofs=2)
    nodes = oracle([0, 0, 1, 2], [1, 2, 2, 3], 4)
    assert np.array_equal(dense(pattern), np.kron(nodes, np.ones((2, 2), bool)))


def test_edges_and_networkx_agree():
    graph = networkx.random_regular_graph(4, 30, seed=1)
    edges = np.array(graph.edges())
    nodelist = sorted(graph)
    one = sh.Pattern.from_edges(edges, 30, dofs=3)
    two = sh.Pattern.from_networkx(graph, nodelist=nodelist, dofs=3)
    assert np.array_equal(one.indices, two.indices)
    assert one.nnz == 9 * (30 + 2 * len(edges))


def test_directed_multigraphs_are_patterns_too():
    graph = networkx.MultiDiGraph([("a", "b"), ("b", "a"), ("b", "c"), ("c", "c")])
    assert np.array_equal(dense(sh.Pattern.from_networkx(graph)), oracle([0, 1], [1, 2], 3))


def test_wide_indices_give_the_same_pattern():
    matrix = random_pattern(40, 100, 0)
    wide = sh.Pattern.from_csr(matrix.indptr.astype(np.int64), matrix.indices.astype(np.int64))
    assert np.array_equal(wide.indices, sh.Pattern.from_scipy(matrix).indices)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: sh.Pattern.from_pairs([0, 5], [1, 1], 3), "0 to 5"),
        (lambda: sh.Pattern.from_pairs([0], [1, 2], 3), "one length"),
        (lambda: sh.Pattern.from_pairs([0.5], [1.0], 3), "whole numbers"),
        (lambda: sh.Pattern.from_scipy(sp.csr_matrix((3, 4))), "3 x 4"),
        (lambda: sh.Pattern.from_csr([0, 2, 1], [0, 1]), "rise"),
        (lambda: sh.Pattern.from_csr([0, 1, 2], [0, 7]), "outside"),
        (lambda: sh.Pattern.from_networkx(networkx.path_graph(3), nodelist=[0, 1]), "nodelist"),
    ],
)
def test_what_is_no_pattern_is_refused(call, says):
    with pytest.raises(InputError, match=says):
        call()


def test_entry_numbers():
    pattern = sh.Pattern.from_pairs([0, 2], [1, 2], 3)
    found = [pattern.entry(k) for k in range(pattern.nnz_local)]
    assert found == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 2)]


@pytest.mark.parallel([1, 2, 3])
@pytest.mark.parametrize("brought", ["pairs", "pairs of 64 bits", "one triangle", "rows"])
def test_memory_of_a_pattern_is_a_few_bytes_an_entry(comm, brought):
    n, steps = 300_000, (1, 40, 1600)
    mine = np.array_split(np.arange(n, dtype=np.int32), comm.size)[comm.rank]
    rows = np.concatenate([mine[mine + step < n] for step in steps])
    cols = np.concatenate([mine[mine + step < n] + np.int32(step) for step in steps])
    layout = sh.Layout.from_size(n, comm)
    upper = sp.diags([1] * 4, [0, *steps], (n, n), "csr", np.int8)
    whole = upper if brought == "one triangle" else (upper + upper.T).tocsr()
    part = whole[layout.start : layout.stop]
    part.sort_indices()
    indptr, indices = part.indptr.copy(), part.indices.copy()
    if brought == "pairs of 64 bits":
        rows, cols = rows.astype(np.int64), cols.astype(np.int64)
    del upper, whole, part
    tracemalloc.start()
    try:
        if brought.startswith("pairs"):
            pattern = sh.Pattern.from_pairs(rows, cols, n, comm=comm)
        else:
            pattern = sh.Pattern.from_csr(indptr, indices, comm=comm)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert pattern.nnz == n + 2 * sum(n - step for step in steps)
    assert peak < 24 * pattern.nnz_local
