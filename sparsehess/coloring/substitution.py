"""In which order entries are read by substitution, on all ranks: part after part, with news between them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsehess.coloring.coloring import Coloring
from sparsehess.coloring.elimination_kernels import Elimination, Leaves, SmallerSides, mirror_positions
from sparsehess.pattern import Pattern


@dataclass(frozen=True, eq=False)
class Stage:
    """A part of an elimination that needs nothing of other ranks.

    Attributes
    ----------
    entries, rows, twice, mirror
        (steps,) entries in the order they are read, their local rows, whether they are the mean of their
        and their mirror's reading, and where that stands (-1: on another rank).
    both, heard, heard_rows
        Remote entries (positions among the pattern's) that both ranks have read by now, and those
        that the other rank alone has, with their local rows.
    """

    entries: np.ndarray
    rows: np.ndarray
    twice: np.ndarray
    mirror: np.ndarray
    both: np.ndarray
    heard: np.ndarray
    heard_rows: np.ndarray


@dataclass(frozen=True, eq=False)
class SubstitutionOrder:
    """How all entries are read by substitution.

    Attributes
    ----------
    stages
        In order; the same number on every rank.
    terms
        (nnz_local,) number of compressed entries that each value is made of; of a mean, that of either reading.
    unread
        Local entries that cannot be read; where any rank has some there are no stages.
    """

    stages: list[Stage]
    terms: np.ndarray
    unread: np.ndarray


def unreachable(pattern: Pattern, coloring: Coloring, elimination: type[Elimination]) -> np.ndarray:
    """Return the local entries that an elimination of this kind does not come to.

    Collective.
    """
    run = elimination(*_slots(pattern, coloring))
    _eliminate(pattern, run, np.zeros(len(pattern.exchange.remote), bool))
    return _unread(pattern, run)


def order_substitution(pattern: Pattern, coloring: Coloring) -> SubstitutionOrder:
    """Order the entries, each on the side of its two-coloured tree that has fewer compressed entries.

    Collective. A triangular colouring is acyclic: of a cycle of two colours, the row that goes first would have
    two unknown entries of one colour. So this reads both kinds.
    """
    comm, exchange = pattern.comm, pattern.exchange
    remote = exchange.remote
    slots = _slots(pattern, coloring)
    leaves = Leaves(*slots)
    stages = _eliminate(pattern, leaves, np.zeros(len(remote), bool))
    unread = _unread(pattern, leaves)
    if comm.allreduce(len(unread)):
        return SubstitutionOrder([], leaves.terms, unread)
    for stage in reversed(stages):
        there = stage.entries[stage.mirror < 0]
        told = exchange.mirror(leaves.sizes(remote)) if comm.size > 1 else np.empty(0)
        leaves.settle(stage.entries, told[np.searchsorted(remote, there)])
    sides = leaves.sides()
    del leaves, stages
    run = SmallerSides(*slots, sides)
    return SubstitutionOrder(_eliminate(pattern, run, sides[remote] == 2), run.terms, unread)


def _slots(
    pattern: Pattern, coloring: Coloring
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int, np.ndarray]:
    """Return what an elimination is made of. Collective."""
    indptr = pattern.indptr.astype(np.int64, copy=False)
    mirror = mirror_positions(indptr, pattern.columns)
    return indptr, pattern.columns, mirror, coloring.with_ghosts, coloring.count, pattern.hollow_rows


def _unread(pattern: Pattern, run: Elimination) -> np.ndarray:
    unread = np.flatnonzero(run.terms == 0)
    return unread[~pattern.structural_zeros(unread)]


def _eliminate(pattern: Pattern, run: Elimination, apart: np.ndarray) -> list[Stage]:
    """Read all entries that can be read.

    Collective. A rank reads all that it can, then tells its neighbours; the number of stages is the most often
    that a chain of substitutions changes rank.

    Parameters
    ----------
    run
        What reads.
    apart
        (remote,) remote entries that both ranks read for themselves, whoever is first.
    """
    comm, exchange = pattern.comm, pattern.exchange
    remote = exchange.remote
    rows = (np.searchsorted(pattern.indptr, remote, side="right") - 1).astype(np.int32)
    stages: list[Stage] = []
    told = np.zeros(len(remote), bool)
    while True:
        left = run.left
        entries, own_rows, twice = run.run()
        heard = both = np.empty(0, np.int64)
        if comm.size > 1:
            mine = run.terms[remote]
            theirs = exchange.mirror(mine)
            news = (theirs > 0) & ~told & ~(apart & (mine == 0))
            # Both have read an entry if each did before it could hear of the other.
            both = np.flatnonzero(news & (mine > 0))
            heard = np.flatnonzero(news & (mine == 0))
            told |= news | ((mine > 0) & ~apart)
            run.arrive(remote[heard], theirs[heard])
            run.meet(remote[both], theirs[both])
        stages.append(Stage(entries, own_rows, twice, run.mirrors(entries), both, heard, rows[heard]))
        moved, unknown = comm.allreduce(np.array([left - run.left, run.left]))
        if unknown == 0 or moved == 0:
            return stages
