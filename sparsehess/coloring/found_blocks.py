"""Groups of variables that nobody declared: consecutive ones that are coupled with the same variables.

The unknowns of a node, the coordinates of an atom: their rows are alike. Colouring one of each group is
less work by the square of its size, and more can be tried within a budget.
"""

from __future__ import annotations

import math

import numpy as np

from sparsehess.coloring import graph_kernels
from sparsehess.pattern import Layout, Pattern

_PEEP = 64  # rows that tell most patterns without groups


def find_blocks(pattern: Pattern) -> tuple[Pattern | None, int]:
    """Return the structure of groups of consecutive variables and their size; None and 1 where there are none.

    Collective. All blocks are full, and the largest size is taken. A block is full if each of its rows is:
    the pattern is symmetric, so where every row consists of whole groups, all rows of a group are alike. A
    group belongs to the rank of its first variable, so the ranks' rows need not be whole groups.
    """
    comm, layout, indptr, indices = pattern.comm, pattern.layout, pattern.indptr, pattern.indices
    common = int(np.gcd.reduce(np.diff(indptr[: _PEEP + 1]), initial=0))
    if common != 1:
        common = int(np.gcd.reduce(np.diff(indptr), initial=0))
    common = math.gcd(pattern.n, *comm.allgather(common))
    for size in range(common, 1, -1):
        if common % size:
            continue
        if not all(comm.allgather(graph_kernels.in_full_blocks(indptr, indices, size))):
            continue
        starts = -(-layout.starts // size)
        heads = np.arange(starts[comm.rank] * size - layout.start, layout.n_local, size)
        lengths = (indptr[heads + 1] - indptr[heads]) // size
        ends = np.concatenate([[0], np.cumsum(lengths)]).astype(indptr.dtype)
        columns = np.empty(int(ends[-1]), indices.dtype)
        graph_kernels.columns_of_blocks(indptr, indices, heads, size, columns)
        return Pattern(Layout(comm, starts), ends, columns, pattern.source), size
    return None, 1
