"""Orders in which a greedy colouring takes the vertices.

An order is a level for every vertex, lower levels first, and a way to settle who comes first within
a level: by number, or by chunks of consecutive vertices in a random sequence. The random sequence
lets ranks work side by side (a chunk waits only for the chunks before it that it can see, and
such chains are short); by number, each rank waits for the one before it. Levels and sequences
depend on the pattern and the seed alone, never on the number of ranks.
"""

from __future__ import annotations

from dataclasses import dataclass

from mpi4py import MPI

import numpy as np

from sparsehess.coloring import order_kernels
from sparsehess.coloring.local_graph import Region
from sparsehess.errors import InputError
from sparsehess.runtime.random_numbers import hash_numbers

# A task's priority is one 64-bit number: its level, random bits, the number of its chunk.
RANDOM_BITS = 17
CHUNK_BITS = 25

# A square of the graph beyond this many entries a rank, and this many times the graph, is not made.
SQUARE_ENTRIES = 2**28
_SQUARE_GROWTH = 200


@dataclass(frozen=True, eq=False)
class Order:
    """An order, as far as this rank's own vertices go.

    Attributes
    ----------
    level
        (own,) int64 from 0, or None where all are alike.
    levels
        Number of levels over all ranks.
    vertices
        (own,) own vertices, chunk by chunk, in their order within the chunk; None as numbered.
    scattered
        Whether chunks come in a random sequence, else by number.
    seed
        Of that sequence.
    """

    level: np.ndarray | None
    levels: int
    vertices: np.ndarray | None = None
    scattered: bool = False
    seed: int = 0

    def levels_of(self, vertices: np.ndarray) -> np.ndarray:
        """Return (m,) int64 levels of own vertices.

        Not collective.
        """
        return np.zeros(len(vertices), np.int64) if self.level is None else self.level[vertices]

    def rank_of_chunks(self, chunks: np.ndarray) -> np.ndarray:
        """Return (m,) int64 by which chunks, given by number, follow one another within a level.

        Not collective.
        """
        if not self.scattered:
            return chunks
        # Random bits ahead of the number, which settles ties.
        return (hash_numbers(chunks, self.seed) >> np.uint64(64 - RANDOM_BITS)).astype(
            np.int64
        ) << CHUNK_BITS | chunks


def natural(region: Region, seed: int = 0) -> Order:
    """Return the order in which the vertices are numbered.

    Not collective. Ranks colour one after another.
    """
    return Order(None, 1)


def chunks(region: Region, seed: int = 0) -> Order:
    """Return the natural order within chunks, the chunks in a random sequence.

    Not collective.
    """
    return Order(None, 1, scattered=True, seed=seed)


def random(region: Region, seed: int = 0) -> Order:
    """Return a random order: a random sequence of chunks, each in random order.

    Not collective.
    """
    own = region.numbers[: region.own]
    return Order(
        None, 1, np.lexsort((hash_numbers(own, seed + 1), own // region.chunk)), scattered=True, seed=seed
    )


def largest_first(region: Region, seed: int = 0) -> Order:
    """Return the vertices by falling degree (Welsh and Powell 1967).

    Collective.
    """
    return _falling(region, np.diff(region.indptr[: region.own + 1]), seed)


def smallest_last(region: Region, seed: int = 0) -> Order:
    """Return the reverse of repeatedly removing all vertices of least degree (Matula and Beck 1983).

    Collective.
    """
    return _peeled(region, region.indptr, region.indices, seed)


def incidence_degree(region: Region, seed: int = 0) -> Order:
    """Return the order that takes next all that have most neighbours taken (Coleman and Moré 1983).

    Collective.
    """
    return _grown(region, region.indptr, region.indices, seed)


def distance2_largest_first(region: Region, seed: int = 0) -> Order:
    """Return the vertices by the falling number of vertices within two edges.

    Collective.
    """
    _refuse_dense_squares(region)
    wide = np.empty(region.own + 1, np.int64)
    order_kernels.square(region.indptr, region.indices, region.own, wide, np.empty(0, np.int32))
    return _falling(region, np.diff(wide), seed)


def distance2_smallest_last(region: Region, seed: int = 0) -> Order:
    """Return the smallest-last order of the graph that joins vertices within two edges.

    Collective.
    """
    return _peeled(region, *_square(region), seed)


def distance2_incidence_degree(region: Region, seed: int = 0) -> Order:
    """Return the incidence-degree order of the graph that joins vertices within two edges.

    Collective.
    """
    return _grown(region, *_square(region), seed)


def hubs_first(region: Region, seed: int = 0) -> Order:
    """Return the vertices by falling degree, equal degrees in smallest-last order.

    Collective. With the conservative star rule the vertices of many neighbours become the hubs.
    """
    return _by_keys(region, np.diff(region.indptr[: region.own + 1]), smallest_last(region, seed), seed)


def perturb(region: Region, order: Order, spread: float, seed: int) -> Order:
    """Return an order with every vertex moved at random by up to this part of all levels.

    Collective only in that all ranks must ask alike.
    """
    noise = (hash_numbers(region.numbers[: region.own], seed) >> np.uint64(11)).astype(float) * 2.0**-52 - 1.0
    level = order.levels_of(np.arange(region.own))
    moved = np.clip(np.rint(level + spread * order.levels * noise), 0, order.levels - 1)
    return Order(moved.astype(np.int64), order.levels, seed=seed)


ORDERS = {
    "natural": natural,
    "chunks": chunks,
    "largest-first": largest_first,
    "smallest-last": smallest_last,
    "incidence-degree": incidence_degree,
    "distance2-largest-first": distance2_largest_first,
    "distance2-smallest-last": distance2_smallest_last,
    "distance2-incidence-degree": distance2_incidence_degree,
    "hubs-first": hubs_first,
    "random": random,
}


def walk(region: Region) -> int:
    """Return how many steps lead from own vertices to the neighbours of their neighbours.

    Not collective.
    """
    return int(order_kernels.square_lengths(region.indptr, region.indices, region.own).sum())


def _falling(region: Region, key: np.ndarray, seed: int) -> Order:
    most = int(region.comm.allreduce(int(key.max(initial=0)), op=MPI.MAX))
    return Order(most - key, most + 1, seed=seed)


def _by_keys(region: Region, key: np.ndarray, ties: Order, seed: int) -> Order:
    """Return the order by falling key, then by the levels of another order, without empty levels."""
    combined = -key * ties.levels + ties.levels_of(np.arange(region.own))
    there = np.unique(combined)
    there = np.unique(np.concatenate(region.comm.allgather(there))) if region.comm.size > 1 else there
    return Order(np.searchsorted(there, combined), max(len(there), 1), seed=seed)


def _peeled(region: Region, indptr: np.ndarray, indices: np.ndarray, seed: int) -> Order:
    comm, alone = region.comm, region.alone
    peeling = order_kernels.Peeling(indptr, indices, region.own)
    wave = threshold = 0
    while True:
        if not (peeling.waiting if alone else comm.allreduce(peeling.waiting)):
            least = peeling.least() if alone else _least(comm, peeling.least())
            if least < 0:
                break
            threshold = max(threshold, least)
            peeling.gather(threshold, wave)
        if alone:
            wave = peeling.peel(threshold, wave, True)
            continue
        peeling.peel(threshold, wave, False)
        removed = np.flatnonzero(region.ring.fetch(peeling.level) == wave)
        wave += 1
        peeling.note_removed(region.own + removed, threshold, wave)
    wave = comm.allreduce(wave, op=MPI.MAX)
    return Order(wave - 1 - peeling.level, max(wave, 1), seed=seed)


def _grown(region: Region, indptr: np.ndarray, indices: np.ndarray, seed: int) -> Order:
    comm, own, alone = region.comm, region.own, region.alone
    growing = order_kernels.Growing(indptr, indices, own)
    wave = 0
    while growing.left if alone else comm.allreduce(growing.left):
        if alone and growing.most() > 0:
            wave = growing.take_all(wave)
            continue
        most = growing.most() if alone else comm.allreduce(growing.most(), op=MPI.MAX)
        taken = growing.wave_of(most)
        if most == 0:
            taken = _seeds(region, indptr, indices, np.sort(taken), first=wave == 0)
        growing.take(taken, wave)
        if not alone:
            growing.take(own + np.flatnonzero(region.ring.fetch(growing.level) == wave), wave)
        wave += 1
    wave = comm.allreduce(wave, op=MPI.MAX)
    return Order(growing.level, max(wave, 1), seed=seed)


def _seeds(
    region: Region, indptr: np.ndarray, indices: np.ndarray, untouched: np.ndarray, first: bool
) -> np.ndarray:
    """Return where to grow from: the vertex of largest degree in each chunk, later every peak of the degree.

    Vertices without neighbours go along with the peaks, all at once.
    """
    if not first:
        return order_kernels.degree_peaks(indptr, indices, untouched, region.numbers)
    degree = np.diff(indptr[: region.own + 1])[untouched]
    chunk = region.chunks[untouched]
    order = np.lexsort((untouched, -degree, chunk))
    return untouched[order[np.unique(chunk[order], return_index=True)[1]]]


def _least(comm: MPI.Comm, value: int) -> int:
    """Return the least of the values over the ranks, -1 standing for none."""
    least = comm.allreduce(value if value >= 0 else np.iinfo(np.int64).max, op=MPI.MIN)
    return -1 if least == np.iinfo(np.int64).max else least


def _square(region: Region) -> tuple[np.ndarray, np.ndarray]:
    """Return the graph that joins vertices within two edges, in the form of the region's graph. Collective."""
    indptr, indices, own = region.indptr, region.indices, region.own
    _refuse_dense_squares(region)
    wide = np.empty(own + 1, np.int64)
    order_kernels.square(indptr, indices, own, wide, np.empty(0, np.int32))
    columns = np.empty(int(wide[-1]), np.int32)
    order_kernels.square(indptr, indices, own, wide, columns)
    ring = len(region.numbers) - own
    outside = np.flatnonzero(columns >= own)
    rows = np.searchsorted(wide, outside, side="right") - 1
    back = np.argsort(columns[outside], kind="stable")
    lengths = np.bincount(columns[outside] - own, minlength=ring)
    return (
        np.concatenate([wide, wide[-1] + np.cumsum(lengths)]),
        np.concatenate([columns, rows[back].astype(np.int32)]),
    )


def square_is_sparse(region: Region) -> bool:
    """Return whether the distance-2 orders take this graph.

    Collective. It depends on the graph alone, but for a bound on what one rank holds.
    """
    comm, steps = region.comm, walk(region)
    all_steps, entries = comm.allreduce(np.array([steps, int(region.indptr[region.own])]))
    grows = all_steps > max(_SQUARE_GROWTH * entries, 1000)
    return not comm.allreduce(bool(grows or steps > SQUARE_ENTRIES), op=MPI.LOR)


def _refuse_dense_squares(region: Region) -> None:
    if not square_is_sparse(region):
        most = region.comm.allreduce(walk(region), op=MPI.MAX)
        raise InputError(
            f"a distance-2 order needs the square of the graph, up to {most:.1e} "
            "entries on a rank: take an order of the graph itself (dense rows make the square dense)"
        )
