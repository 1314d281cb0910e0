"""Lower bounds on the number of colours, from counts alone."""

from __future__ import annotations

from mpi4py import MPI

import numpy as np

from sparsehess.pattern import Pattern


def star(pattern: Pattern) -> int:
    """Return a lower bound on the colours of any star colouring.

    Collective. Two classes A, B of a star colouring span a forest, so at most |A| + |B| - 1 edges
    lie between them; over all pairs of k classes m <= (k - 1) n - k (k - 1) / 2.
    """
    n = pattern.n
    if n == 0:
        return 0
    edges = (pattern.nnz - n) // 2
    # The smallest such k: the root of the quadratic, from below, then exactly in whole numbers.
    k = max(int(n + 0.5 - np.sqrt(max((n - 0.5) ** 2 - 2 * edges, 0.0))) - 1, 1 + (edges > 0))
    while (k - 1) * n - k * (k - 1) // 2 < edges:
        k += 1
    return k


def columns(pattern: Pattern) -> int:
    """Return a lower bound on the colours of any column partition: the fullest row.

    Collective.
    """
    fullest = int(np.diff(pattern.indptr).max(initial=0))
    return int(pattern.comm.allreduce(fullest, op=MPI.MAX))
