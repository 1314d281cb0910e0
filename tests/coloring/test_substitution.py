"""Orders of substitution: sides of trees against networkx, on any number of ranks."""

from mpi4py import MPI

import networkx as nx
import numpy as np
import pytest

import sparsehess as sh
from sparsehess.coloring.substitution import order_substitution
from sparsehess.hessian.recovery import plan
from support.cases import random_pattern

COMM = MPI.COMM_WORLD


def smaller_sides(structure, colors):
    """Return (n, n) how many vertices the smaller side of each edge's two-coloured tree has, 1 on the diagonal."""
    sides = np.diag(np.ones(len(colors)))
    graph = nx.Graph(structure)
    for a in range(colors.max() + 1):
        for b in range(a):
            two = graph.subgraph(np.flatnonzero((colors == a) | (colors == b)).tolist())
            for tree in nx.connected_components(two):
                rooted = nx.bfs_tree(two.subgraph(tree), min(tree))
                below = {}
                for vertex in reversed(list(nx.topological_sort(rooted))):
                    below[vertex] = 1 + sum(below[child] for child in rooted.successors(vertex))
                for parent, child in rooted.edges:
                    fewer = min(below[child], len(tree) - below[child])
                    sides[parent, child] = sides[child, parent] = fewer
    return sides


@pytest.mark.parallel([1, 2, 3, 4])
@pytest.mark.parametrize("kind", ["acyclic", "powell-toint"])
@pytest.mark.parametrize("seed", range(6))
def test_entries_are_read_on_the_smaller_side_of_their_tree_whatever_the_ranks(kind, seed):
    n = 25 * (seed + 1)
    structure = random_pattern(n, (seed + 1) * n // 2, seed)
    pairs = structure.tocoo()
    pattern = sh.Pattern.from_pairs(pairs.row, pairs.col, n, comm=COMM)
    coloring = sh.color(pattern, kind=kind, budget=0.01)
    wanted = smaller_sides(structure, np.concatenate(COMM.allgather(coloring.colors)))
    order = order_substitution(pattern, coloring)
    entries = [pattern.entry(position) for position in range(pattern.nnz_local)]
    assert order.terms.tolist() == [wanted[entry] for entry in entries]
    recovery = plan(pattern, coloring)
    assert recovery.amplification == wanted[structure.nonzero()].max()
    assert recovery.mean_amplification == pytest.approx(wanted[structure.nonzero()].mean(), rel=1e-14)


def test_no_order_reads_the_entries_of_a_cycle():
    square = sh.Pattern.from_pairs([0, 1, 2, 3], [1, 2, 3, 0], 4)
    coloring = sh.color(square, kind="acyclic")
    two_colors = sh.Coloring(**{**vars(coloring), "colors": np.array([0, 1, 0, 1], np.int32), "count": 2})
    order = order_substitution(square, two_colors)
    assert {square.entry(position) for position in order.unread} == {
        (i, (i + step) % 4) for i in range(4) for step in (1, -1)
    }
