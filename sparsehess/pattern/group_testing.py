"""Patterns nobody wrote down: which rows respond when groups of variables move.

A group test asks: moving all variables of a set, which components of the gradient change? A component
that does not change is coupled with none of them (unless changes cancel to the last bit, which steps of
random size rule out), so every test only takes candidates away and what is coupled is never lost.
Blocks of consecutive variables are split again and again; at each level the blocks that may be coupled
with a row are drawn into buckets, so few that a row meets about one of its own in two, and a block stays
a candidate if its bucket responded in every drawing. For rows of at most d entries this takes some
2 d log₂ n tests (Dorfman 1943; combinatorial group testing, Du and Hwang 2000, chapter 4). In the end
symmetry and a colouring settle what remains.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sparsehess.pattern.sparsity_pattern import Pattern
from sparsehess.runtime.random_numbers import hash_numbers
from sparsehess.runtime.row_layout import Layout, send_to_owners

# Blocks at first; into how many each is split; buckets for each block that a row may be coupled with.
_FIRST = 64
_SPLIT = 8
_BUCKETS = 2
_ROUNDS = 3
_FEWEST_BUCKETS = 16

# The rows that have the most candidates are left out when buckets are counted: dense rows are settled by symmetry.
_DENSE_ROWS = 0.001
_FEW = 8

# Pairs of row and block that are looked at together.
_PIECE = 2**21

Respond = Callable[[np.ndarray, int], np.ndarray]


def find_candidates(respond: Respond, layout: Layout, seed: int = 0) -> tuple[Pattern, bool]:
    """Return a pattern that holds every coupling and few besides, and whether it has none besides.

    Collective.

    Parameters
    ----------
    respond
        respond(colors, count) -> (count, n_local) bool: which local rows respond when the variables of a
        colour move; colors (n_local,) from 0. Collective.
    layout
        Rows of each rank.
    seed
        Of the drawings.
    """
    n, own = layout.n, np.arange(layout.start, layout.stop)
    size = 1
    while -(-n // size) > _FIRST:
        size *= _SPLIT
    blocks = -(-n // size)
    rows, found = np.nonzero(respond(own // size, blocks).T)
    tests, draw, single = blocks, 0, size == 1
    while size > 1:
        size //= _SPLIT
        blocks = -(-n // size)
        parents, split = (rows, found), False
        buckets = max(_FEWEST_BUCKETS, _BUCKETS * _usual(np.bincount(parents[0], minlength=len(own)), layout))
        left = _ROUNDS
        if tests + left * buckets >= n:  # each variable by itself is no dearer
            return _mutual(*_one_by_one(respond, layout), layout), True
        while left:
            draw += 1
            if left * buckets >= blocks:  # each block by itself is no dearer
                bucket, count, left = np.arange(blocks), blocks, 1
                single = size == 1
            else:
                drawn = hash_numbers(np.arange(blocks), seed * 1009 + draw) >> np.uint64(11)
                bucket, count = (drawn % np.uint64(buckets)).astype(np.int64), buckets
            responded = respond(bucket[own // size], count)
            tests += count
            left -= 1
            if split:
                stays = responded[bucket[found], rows]
                rows, found = rows[stays], found[stays]
            else:
                (rows, found), split = _split(*parents, responded, bucket, blocks), True
            # Where most buckets respond there were too few of them.
            if count == buckets and _usual(responded.sum(axis=0), layout) > 0.7 * count:
                buckets, left = 2 * buckets, max(left, _ROUNDS - 1)
    return _mutual(rows + layout.start, found, layout), single


def settle_candidates(
    respond: Respond, wide: Pattern, colors: np.ndarray, count: int, readable: np.ndarray, source: str
) -> Pattern:
    """Return the pattern of those entries that respond by themselves.

    Collective. Costs `count` tests.

    Parameters
    ----------
    wide
        Holds every coupling.
    colors
        (n_local + ghosts,) of a direct colouring of `wide`.
    readable
        (nnz_local,) bool: entries that stand alone of their column's colour in their row; of every entry
        and its mirror one at least does.
    """
    responded = respond(colors[: wide.layout.n_local], count)
    rows = np.repeat(np.arange(wide.layout.n_local), np.diff(wide.indptr))
    there = readable & responded[colors[wide.columns], rows]
    return Pattern.from_pairs(
        rows[there] + wide.layout.start, wide.indices[there], wide.n, layout=wide.layout, source=source
    )


def _one_by_one(respond: Respond, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Return (rows, columns) that respond when each variable moves alone. Collective."""
    own = np.arange(layout.start, layout.stop)
    rows, columns = [], []
    for first in range(0, layout.n, _FIRST):
        last = min(first + _FIRST, layout.n)
        colors = np.where((own >= first) & (own < last), own - first, -1)
        column, row = np.nonzero(respond(colors, last - first))
        rows.append(row + layout.start)
        columns.append(column + first)
    return np.concatenate(rows), np.concatenate(columns)


def _usual(counts: np.ndarray, layout: Layout) -> int:
    """Return a count that all rows but the densest few do not exceed. Collective."""
    most = int(max(layout.comm.allgather(int(counts.max(initial=0)))))
    spread = np.bincount(counts, minlength=most + 1).astype(np.int64)
    total = np.empty_like(spread)
    layout.comm.Allreduce(spread, total)
    dense = max(_DENSE_ROWS * layout.n, min(_FEW, layout.n // 10))
    return int(np.searchsorted(np.cumsum(total), layout.n - dense))


def _split(
    rows: np.ndarray, parents: np.ndarray, responded: np.ndarray, bucket: np.ndarray, blocks: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the parts of the blocks `parents` whose bucket responded, row by row."""
    kept = []
    for begin in range(0, len(rows), _PIECE // _SPLIT):
        part = slice(begin, begin + _PIECE // _SPLIT)
        children = (parents[part, None] * _SPLIT + np.arange(_SPLIT)).ravel()
        theirs = np.repeat(rows[part], _SPLIT)
        inside = children < blocks
        children, theirs = children[inside], theirs[inside]
        stays = responded[bucket[children], theirs]
        kept.append((theirs[stays], children[stays]))
    if not kept:
        return rows, parents
    return tuple(np.concatenate(arrays) for arrays in zip(*kept, strict=True))


def _mutual(rows: np.ndarray, columns: np.ndarray, layout: Layout) -> Pattern:
    """Return the pattern of the pairs that are there both ways. Collective."""
    mirrored_rows, mirrored_columns = send_to_owners(layout, columns, rows)
    ours, theirs = rows * layout.n + columns, mirrored_rows * layout.n + mirrored_columns
    both = np.intersect1d(ours, theirs)
    return Pattern.from_pairs(both // layout.n, both % layout.n, layout.n, layout=layout)
