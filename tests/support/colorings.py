"""Colourings of one pattern on all ranks and on one, as a whole and in chunks."""

from mpi4py import MPI

import numpy as np

import sparsehess as sh
from sparsehess.coloring import local_graph as regions
from sparsehess.pattern import Layout


def in_chunks(monkeypatch, size):
    monkeypatch.setattr(regions, "CHUNK", size)
    monkeypatch.setattr(regions, "WHOLE", 0)


def uneven(n, comm):
    """Return a layout that is not the even one, nor cut between chunks."""
    cuts = np.sort(np.random.default_rng(n).integers(0, n + 1, comm.size - 1))
    return Layout(sh.Pattern.from_pairs([], [], n, comm=comm).comm, np.concatenate([[0], cuts, [n]]))


def both(matrix, kind, rule, order, comm, **more):
    """Return pattern and colouring over all ranks, and the colours that one rank alone gives."""
    pattern = sh.Pattern.from_scipy(matrix, layout=uneven(matrix.shape[0], comm))
    coloring = sh.color(pattern, kind=kind, rule=rule, order=order, **more)
    alone = sh.Pattern.from_scipy(matrix, comm=MPI.COMM_SELF)
    return pattern, coloring, sh.color(alone, kind=kind, rule=rule, order=order, **more)
