"""Greedy colouring in a given order, on one rank or on many, with the same colours.

The order is a level for every vertex, and within a level a sequence of chunks (`orders`). All
vertices of one level and one chunk are a task; a chunk's tasks, and the tasks of all chunks, are
ordered by priority = (level, rank of the chunk, its number). Coloured in that order on one rank, the
colours are what the rule gives. On many ranks every chunk has a clock, the priority of its next task.

    repeat until no task is left anywhere
        run, in their order, all own tasks whose priority is less than the clock of every other chunk
            within three edges, as far as the clock is known or follows from what runs here
        tell the ranks around the colours and the clocks

*Validity and sameness.* A task runs when all tasks of higher priority within three edges have run
(their chunks' clocks are past it), and none of lower priority has: that would have needed the clock
of this task's chunk to be past it. A rule depends on vertices within three edges alone, and on which
of them are coloured, not on when; so every vertex finds just what it would find on one rank.

*Termination.* In each round the task of highest priority among those left can run: every clock is at
or past its priority, and no other task has that priority. So each round runs a task.

The number of rounds is the longest chain of tasks that changes rank from each to the next. With the
chunks in a random sequence it is small; by number it is the number of ranks times the levels.
No colour is ever taken back: there are no conflicts to resolve.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from sparsehess.coloring import order_kernels
from sparsehess.coloring.greedy_kernels import Rule
from sparsehess.coloring.local_graph import Region, Requests, spans
from sparsehess.coloring.vertex_orders import CHUNK_BITS, RANDOM_BITS, Order
from sparsehess.errors import InputError

_NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Traffic:
    """What a colouring on several ranks cost.

    Attributes
    ----------
    rounds
        Exchanges with the neighbours until every vertex had its colour.
    messages, bytes
        Sent by all ranks together in those rounds.
    """

    rounds: int = 0
    messages: int = 0
    bytes: int = 0

    def __add__(self, other: Traffic) -> Traffic:
        """Return the traffic of two colourings, one after the other."""
        return Traffic(self.rounds + other.rounds, self.messages + other.messages, self.bytes + other.bytes)


NO_TRAFFIC = Traffic()


@dataclass(frozen=True, eq=False)
class Greedy:
    """What a greedy colouring gave.

    Attributes
    ----------
    colors
        (own,) int32; -1 where no colour below the limit was allowed.
    count
        Number of colours over all ranks.
    left
        How many vertices over all ranks have none.
    traffic
        What it cost to agree.
    """

    colors: np.ndarray
    count: int
    left: int
    traffic: Traffic


class PartialColoring(Protocol):
    """The colours of a region so far, and a way to give a vertex its colour.

    Attributes
    ----------
    color
        (own + ring,) int32, -1 where a vertex has none.
    """

    color: np.ndarray

    def take(self, vertices: np.ndarray, limit: int) -> int:
        """Colour these vertices in order with colours below the limit (0: any); return how many were left."""
        ...

    def place(self, vertices: np.ndarray, colors: np.ndarray) -> None:
        """Take note of colours that other ranks gave to these vertices."""
        ...


def distinct_colors(region: Region) -> Greedy:
    """Return the colouring in which every vertex has a colour of its own.

    Not collective.
    """
    return Greedy(region.numbers[: region.own].astype(np.int32), region.layout.n, 0, NO_TRAFFIC)


def color_greedily(
    region: Region, rule: type[Rule], order: Order, *, fixed: np.ndarray | None = None, limit: int = 0
) -> Greedy:
    """Colour the vertices of a region in order by a rule.

    Collective. See `color_vertices`. With `fixed`, (own,) colours that stand, the vertices of -1 are coloured.
    """
    state = rule(region.indptr, region.indices)
    if fixed is None:
        return color_vertices(region, state, order, limit=limit)
    known = region.whole(fixed)
    placed = np.flatnonzero(known >= 0)
    state.place(placed, known[placed])
    return color_vertices(region, state, order, wanted=fixed < 0, limit=limit)


def color_vertices(
    region: Region, state: PartialColoring, order: Order, *, wanted: np.ndarray | None = None, limit: int = 0
) -> Greedy:
    """Colour vertices of a region in order.

    Collective.

    Parameters
    ----------
    state
        Of a greedy rule (`Trees` on one rank only) or of a search by ejection, over the region.
    wanted
        (own,) bool, the vertices to be coloured; default all.
    limit
        Colours below this one only, 0 for any number.
    """
    comm, own = region.comm, region.own
    sequence = _sequence(region, order, wanted)
    if comm.size == 1:
        left, traffic = state.take(sequence, limit), NO_TRAFFIC
    else:
        left, traffic = _in_rounds(region, state, sequence, order, limit)
    colors = np.array(state.color[:own])
    count, left = int(colors.max(initial=-1)) + 1, int(left)
    if comm.size > 1:
        counts = np.array(comm.allgather((count, left, traffic.messages, traffic.bytes)))
        count, left = int(counts[:, 0].max()), int(counts[:, 1].sum())
        traffic = Traffic(traffic.rounds, int(counts[:, 2].sum()), int(counts[:, 3].sum()))
    return Greedy(colors, count, left, traffic)


def _sequence(region: Region, order: Order, wanted: np.ndarray | None) -> np.ndarray:
    """Return the own vertices that are wanted, in order."""
    own = region.own
    numbers = np.arange(region.chunk_layout.start, region.chunk_layout.stop)
    sequence = np.arange(own) if order.vertices is None else order.vertices
    if order.scattered and len(numbers) > 1:
        begin = numbers * region.chunk - region.layout.start
        length = np.minimum(begin + region.chunk, own) - begin
        by_rank = np.argsort(order.rank_of_chunks(numbers), kind="stable")
        sequence = sequence[spans(begin[by_rank], length[by_rank])]
    if wanted is not None:
        sequence = sequence[wanted[sequence]]
    if order.level is not None:
        sequence = order_kernels.by_level(sequence, order.level, order.levels)
    return sequence


def _tasks(region: Region, order: Order, sequence: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where each task begins in the sequence, with its length as a last entry; each task's priority."""
    if order.levels >= 1 << 63 - RANDOM_BITS - CHUNK_BITS:
        raise InputError(
            f"{order.levels} waves are too many for several ranks: take the order natural or largest-first"
        )
    numbers = np.arange(region.chunk_layout.start, region.chunk_layout.stop)
    chunk, level = region.chunks[sequence] - region.chunk_layout.start, order.levels_of(sequence)
    new = np.flatnonzero((np.diff(chunk, prepend=-1) != 0) | (np.diff(level, prepend=-1) != 0))
    rank = order.rank_of_chunks(numbers)[chunk[new]]
    return np.append(new, len(sequence)), (level[new] << RANDOM_BITS + CHUNK_BITS) + rank


def _in_rounds(
    region: Region, state: PartialColoring, sequence: np.ndarray, order: Order, limit: int
) -> tuple[int, Traffic]:
    """Run the tasks as the clocks allow; return how many vertices were left without colour here."""
    comm, own = region.comm, region.own
    starts, priority = _tasks(region, order, sequence)
    near, listed = region.chunk_graph
    chunk = region.chunks[sequence[starts[:-1]]] - region.chunk_layout.start
    # Tasks of each chunk, in order: by_chunk[begin[c] : begin[c + 1]].
    by_chunk = np.argsort(chunk, kind="stable")
    begin = np.searchsorted(chunk[by_chunk], np.arange(len(near) + 1))
    priorities = priority[by_chunk]
    at = begin[:-1].copy()  # the next task of each chunk
    clocks = Requests(region.chunk_layout, listed[len(near) :])
    outside = [found[found >= len(near)] - len(near) for found in near]
    inside = [found[found < len(near)].tolist() for found in near]
    others = clocks.fetch(_next_priorities(priorities, at, begin))
    sent = region.ring.messages, region.ring.bytes
    left, rounds = 0, 0
    while comm.allreduce(int((at < begin[1:]).any())):
        bound = _bounds(priorities, at, begin, outside, inside, others)
        ends = np.array(
            [at[c] + np.searchsorted(priorities[at[c] : begin[c + 1]], bound[c]) for c in range(len(near))],
            np.int64,
        )
        tasks = np.sort(by_chunk[spans(at, ends - at)])  # they are numbered by priority
        left += state.take(sequence[spans(starts[tasks], starts[tasks + 1] - starts[tasks])], limit)
        at = ends
        arrived = region.ring.fetch(np.asarray(state.color[:own]))
        others = clocks.fetch(_next_priorities(priorities, at, begin))
        fresh = np.flatnonzero(arrived != state.color[own:])
        state.place(own + fresh, arrived[fresh])
        rounds += 1
    traffic = Traffic(
        rounds,
        region.ring.messages - sent[0] + clocks.messages,
        region.ring.bytes - sent[1] + clocks.bytes,
    )
    clocks.free()
    return left, traffic


def _next_priorities(priorities: np.ndarray, at: np.ndarray, begin: np.ndarray) -> np.ndarray:
    """Return each chunk's clock."""
    done = at >= begin[1:]
    return np.where(done, _NEVER, np.append(priorities, _NEVER)[np.where(done, 0, at)])


def _bounds(
    priorities: np.ndarray,
    at: np.ndarray,
    begin: np.ndarray,
    outside: list[np.ndarray],
    inside: list[list[int]],
    others: np.ndarray,
) -> list[int]:
    """Return for each own chunk the priority that its tasks must be ahead of to run now.

    A chunk is bound by the clocks of other ranks' chunks near it, and by the first task that is
    itself held up in an own chunk near it: the earliest held-up task settles its neighbours first.
    """
    bound = [int(others[found].min()) if len(found) else _NEVER for found in outside]

    def held_up(c: int) -> int:
        first = at[c] + np.searchsorted(priorities[at[c] : begin[c + 1]], bound[c])
        return int(priorities[first]) if first < begin[c + 1] else _NEVER

    queue = [(held_up(c), c) for c in range(len(bound)) if bound[c] < _NEVER]
    heapq.heapify(queue)
    while queue:
        clock, c = heapq.heappop(queue)
        if clock == _NEVER or clock != held_up(c):
            continue
        for near in inside[c]:
            if clock < bound[near]:
                bound[near] = clock
                heapq.heappush(queue, (held_up(near), near))
    return bound
