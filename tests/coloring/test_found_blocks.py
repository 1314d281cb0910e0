"""Groups of variables that nobody declared."""

import numpy as np
import pytest
import scipy.sparse as sp

import sparsehess as sh
from sparsehess.coloring import KINDS
from sparsehess.coloring.found_blocks import find_blocks
from support.cases import DEFINITIONS, band, random_pattern
from support.colorings import both, in_chunks, uneven

pytestmark = pytest.mark.parallel([1, 2, 3])


def blown_up(nodes, size):
    return sp.csr_matrix(sp.kron(nodes, np.ones((size, size), np.int8)))


@pytest.mark.parametrize("size", [2, 3, 6])
def test_groups_are_found_wherever_ranks_cut_them(size, comm):
    for seed in range(6):
        nodes = random_pattern(11, 20, seed)
        matrix = blown_up(nodes, size)
        quotient, found = find_blocks(sh.Pattern.from_scipy(matrix, layout=uneven(11 * size, comm)))
        assert found == size
        rows = quotient.comm.allgather(quotient.to_scipy())
        assert (sp.vstack(rows) != (nodes != 0)).nnz == 0
        quotient.free()


def test_blocks_that_are_not_full_are_none(comm):
    matrix = blown_up(random_pattern(12, 30, 1), 3).tolil()
    row, column = (part[-1] for part in sp.triu(matrix, 3).nonzero())
    matrix[row, column] = matrix[column, row] = 0
    for given in (matrix.tocsr(), band(30, 2), sp.csr_matrix(np.roll(np.eye(9), 3, axis=1) + np.eye(9))):
        pattern = sh.Pattern.from_scipy(given, layout=uneven(given.shape[0], comm))
        assert find_blocks(pattern) == (None, 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunk", [0, 3])
def test_colours_of_groups_are_those_of_declared_ones(kind, chunk, comm, monkeypatch):
    if chunk:
        in_chunks(monkeypatch, chunk)
    nodes = random_pattern(40, 90, 5)
    matrix = blown_up(nodes, 3)
    pattern, coloring, alone = both(matrix, kind, None, "best", comm, budget=0.02)
    colors = np.concatenate(comm.allgather(coloring.colors))
    assert np.array_equal(colors, alone.colors)
    assert DEFINITIONS[kind](matrix, colors)
    assert sh.verify_coloring(pattern, coloring) is None
    declared = sh.color(sh.Pattern.from_scipy(nodes, comm=comm).with_dofs(3), kind=kind, budget=0.02)
    assert coloring.count == declared.count == colors.max() + 1
    assert all(one.count % 3 == 0 for one in coloring.attempts)


def test_an_order_that_is_asked_for_is_of_the_variables(comm):
    matrix = blown_up(random_pattern(40, 90, 5), 3)
    pattern, coloring, _ = both(matrix, "star", "2007", "natural", comm)
    whole = np.concatenate(comm.allgather(coloring.colors))
    first = sh.color(sh.Pattern.from_scipy(matrix), order="natural", rule="2007").colors
    assert np.array_equal(whole, first)
    pattern.free()
