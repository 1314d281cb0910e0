"""Lower bounds on the number of colours."""

from __future__ import annotations

from mpi4py import MPI

import numpy as np

from sparsehess.coloring import graph_kernels, vertex_orders
from sparsehess.coloring.local_graph import Region
from sparsehess.pattern import Pattern
from sparsehess.runtime.random_numbers import hash_numbers

# Entries up to which dense parts of the graph are looked for, and vertices that cliques grow from.
_SEARCHED = 4_000_000
_SEEDS = 2_000


def acyclic(pattern: Pattern) -> int:
    """Return a lower bound on the colours of any acyclic colouring, star and triangular ones included.

    Collective. Two classes A, B span a forest, so at most |A| + |B| - 1 edges lie between them; over
    all pairs of k classes m <= (k - 1) n - k (k - 1) / 2.
    """
    return _forests(pattern.n, (pattern.nnz - pattern.n) // 2)


def star(pattern: Pattern) -> int:
    """Return a lower bound on the colours of any star colouring.

    Collective. Besides the bound for acyclic ones: direct every edge of a two-coloured star from leaf
    to hub. A vertex of degree d has at most one edge out per other colour; if it has an edge in as
    well, from a star of which it is the hub with two leaves or more, that star's colour gives none
    out. (In a star of one edge either end may be called the hub; the edge then still counts once, and
    its other end sees that colour once.) So at most d edges leave it if d < k, else k - 2, as then a
    colour stands twice around it; and m is at most the sum of that.
    """
    degree = np.diff(pattern.indptr) - 1
    edges = (pattern.nnz - pattern.n) // 2
    k = acyclic(pattern)
    counts = np.bincount(degree, minlength=1)
    most = int(pattern.comm.allreduce(len(counts), op=MPI.MAX))
    counts = np.append(counts, np.zeros(most - len(counts), counts.dtype)).astype(np.int64)
    total = np.empty_like(counts)
    pattern.comm.Allreduce(counts, total)
    d = np.arange(most)
    while int((total * np.where(d < k, d, k - 2)).sum()) < edges:
        k += 1
    return k


def dense_parts(pattern: Pattern, region: Region, block: int) -> int:
    """Return a lower bound on the colours of star, acyclic and triangular colourings from parts of the graph.

    Collective. The bound for acyclic colourings holds for any part of the graph: it is tried on what is
    left after each wave of peeling off the vertices of least degree, where the densest parts are.
    A clique needs as many colours as it has vertices. Large patterns are not searched.

    Parameters
    ----------
    region
        Of the pattern, or of its quotient by blocks of this size.
    """
    if pattern.n == 0 or pattern.nnz > _SEARCHED:
        return 0
    comm, own, best = pattern.comm, region.own, 0
    level = vertex_orders.smallest_last(region).levels_of(np.arange(own))
    whole = region.whole(level)
    # An edge is gone when its first end is; levels fall with the waves.
    rows = np.repeat(np.arange(own), np.diff(region.indptr[: own + 1]))
    columns = region.indices[: region.indptr[own]]
    most = int(comm.allreduce(int(level.max(initial=0)), op=MPI.MAX)) + 1
    counts = np.zeros((2, most), np.int64)
    counts[0] = np.bincount(level, minlength=most)
    counts[1] = np.bincount(np.maximum(whole[rows], whole[columns])[rows != columns], minlength=most)
    total = np.empty_like(counts)
    comm.Allreduce(counts, total)
    vertices, edges = np.cumsum(total[0]), np.cumsum(total[1]) // 2
    edges = edges * block**2 + vertices * (block * (block - 1) // 2)
    vertices = vertices * block
    for wave in range(most):
        if best == 0 or edges[wave] > (best - 1) * vertices[wave] - best * (best - 1) // 2:
            best = max(best, _forests(int(vertices[wave]), int(edges[wave])))
    drawn = hash_numbers(region.numbers[:own], 0) % np.uint64(max(pattern.n // _SEEDS, 1)) == 0
    # A seed of very large degree would cost the square of it; its cliques are found from its neighbours.
    drawn &= np.diff(region.indptr[: own + 1]) <= 64 * max(pattern.nnz // pattern.n, 1)
    clique = graph_kernels.largest_clique(region.indptr, region.indices, np.flatnonzero(drawn))
    return max(best, block * int(comm.allreduce(clique, op=MPI.MAX)))


def columns(pattern: Pattern) -> int:
    """Return a lower bound on the colours of any column partition: the fullest row.

    Collective.
    """
    fullest = int((np.diff(pattern.indptr) - pattern.hollow_rows).max(initial=0))
    return int(pattern.comm.allreduce(fullest, op=MPI.MAX))


def _forests(n: int, edges: int) -> int:
    """Return the least k for which k classes of n vertices can hold so many edges between them."""
    if n == 0:
        return 0
    # The root of the quadratic, from below, then exactly in whole numbers.
    k = max(int(n + 0.5 - np.sqrt(max((n - 0.5) ** 2 - 2 * edges, 0.0))) - 1, 1 + (edges > 0))
    while (k - 1) * n - k * (k - 1) // 2 < edges:
        k += 1
    return k
