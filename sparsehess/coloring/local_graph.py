"""`Region`: the part of a pattern's graph that one rank colours, and as much around it as its rules look at.

The graph is cut into chunks of consecutive variables whose size does not depend on the number of
ranks, and a chunk is coloured by one rank, the one that has its first row. Around its own vertices
a rank holds three rings: everything within three edges, which is as far as any rule looks. Nothing
here is of global length; what other ranks hold is asked for once and then exchanged with them alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from mpi4py import MPI

import numpy as np

from sparsehess.coloring import graph_kernels, order_kernels
from sparsehess.pattern import Layout, Pattern
from sparsehess.pattern.halo_exchange import NeighborGraph
from sparsehess.runtime.row_layout import offsets, send_to_owners

CHUNK = 16384  # variables; the grain in which the work is dealt to ranks
WHOLE = 131072  # patterns of so many variables are one chunk: a rank has them done before two have agreed
RINGS = 3


class Requests:
    """Values of numbered things, fetched from the ranks that have them, planned once.

    Collective to make and to use; `free` releases its communicator.

    Parameters
    ----------
    layout
        Who has which number.
    wanted
        (m,) ascending numbers that this rank wants of other ranks.
    """

    def __init__(self, layout: Layout, wanted: np.ndarray):
        self.size = len(wanted)
        self.messages = 0
        self.bytes = 0
        asked, asker = send_to_owners(layout, wanted, np.full(len(wanted), layout.comm.rank, np.int64))
        order = np.lexsort((asked, asker))
        self._give = asked[order] - layout.start
        sources, self._into = np.unique(layout.owner(wanted), return_counts=True)
        targets, self._out = np.unique(asker, return_counts=True)
        self._graph = NeighborGraph(layout.comm, sources, targets)

    def fetch(self, values: np.ndarray) -> np.ndarray:
        """Return (m,) the wanted numbers' values; `values` are those of this rank's own numbers.

        Collective.
        """
        out = np.empty(self.size, values.dtype)
        given = np.ascontiguousarray(values[self._give])
        self._graph.swap(given, self._out, out, self._into)
        self.messages += len(self._out)
        self.bytes += given.nbytes
        return out

    def free(self) -> None:
        """Release the communicator.

        Collective.
        """
        self._graph.free()


@dataclass(frozen=True, eq=False)
class Region:
    """One rank's vertices and the rings around them, by local numbers: own first, ring vertices after.

    Attributes
    ----------
    layout
        Whole chunks of each rank.
    indptr, indices
        int64, int32: the graph. Rows of own vertices and of the first two rings are whole; those of
        the third ring hold their neighbours in the second.
    numbers
        (own + ring,) global numbers; those of the ring ascend.
    chunk
        Variables of a chunk.
    """

    layout: Layout
    indptr: np.ndarray
    indices: np.ndarray
    numbers: np.ndarray
    chunk: int

    @classmethod
    def of_pattern(cls, pattern: Pattern) -> Region:
        """Return this rank's region of the pattern's graph.

        Collective.
        """
        chunk = CHUNK if pattern.n > WHOLE else max(pattern.n, 1)
        if pattern.comm.size == 1:
            columns = pattern.indices if pattern.indices.dtype == np.int32 else pattern.columns
            indptr = pattern.indptr.astype(np.int64, copy=False)
            return cls(pattern.layout, indptr, columns, np.arange(pattern.n), chunk)
        starts = np.minimum(-(-pattern.layout.starts // chunk) * chunk, pattern.n)
        layout = Layout(pattern.comm, starts)
        kept, missing = _own_rows(pattern, layout)
        pieces = [missing]
        known = np.concatenate([missing.columns, kept.neighbors])
        known = np.unique(known[(known < layout.start) | (known >= layout.stop)])
        fresh = known
        for _ in range(RINGS - 1):
            pieces.append(_fetch_rows(pattern, fresh))
            columns = np.unique(pieces[-1].columns)
            columns = columns[(columns < layout.start) | (columns >= layout.stop)]
            fresh = np.setdiff1d(columns, known, assume_unique=True)
            known = np.union1d(known, fresh)
        pieces.append(pieces[-1].transposed(fresh))
        numbers = np.concatenate([np.arange(layout.start, layout.stop), known])
        return cls(layout, *_local_graph(layout, numbers, kept, pieces), numbers, chunk)

    @property
    def comm(self) -> MPI.Comm:
        """Communicator of all ranks."""
        return self.layout.comm

    @property
    def own(self) -> int:
        """Number of own vertices."""
        return self.layout.n_local

    @property
    def one_chunk(self) -> bool:
        """Whether all the graph is on one rank, whatever their number."""
        return int(self.layout.starts[-1]) <= self.chunk

    @property
    def alone(self) -> bool:
        """Whether no other rank has anything to say about this rank's vertices."""
        return self.comm.size == 1 or self.one_chunk

    @cached_property
    def ring(self) -> Requests:
        """What is known of the ring vertices. Collective the first time."""
        return Requests(self.layout, self.numbers[self.own :])

    @cached_property
    def chunks(self) -> np.ndarray:
        """(own + ring,) global number of each vertex's chunk."""
        return self.numbers // self.chunk

    @cached_property
    def chunk_layout(self) -> Layout:
        """Who has which chunk."""
        return Layout(self.comm, -(-self.layout.starts // self.chunk))

    @cached_property
    def chunk_graph(self) -> tuple[list[np.ndarray], np.ndarray]:
        """For each own chunk those within three edges, as positions in a list of chunks; and that list.

        Own chunks come first in the list, those of other ranks after them, ascending.
        """
        listed = np.unique(self.chunks)
        first, last = self.chunk_layout.start, self.chunk_layout.stop
        listed = np.concatenate([np.arange(first, last), listed[(listed < first) | (listed >= last)]])
        sorter = np.argsort(listed)
        local = sorter[np.searchsorted(listed, self.chunks, sorter=sorter)].astype(np.int32)
        around = self.own + np.argsort(local[self.own :], kind="stable")
        by_chunk = np.concatenate([np.arange(self.own), around])  # own vertices are so already
        a, b = order_kernels.chunk_pairs(self.indptr, self.indices, local, by_chunk, len(listed))
        near: list[set[int]] = [set() for _ in listed]
        for i, j in zip(a.tolist(), b.tolist(), strict=True):
            near[i].add(j)
        reach = [{i} for i in range(last - first)]
        for _ in range(RINGS):
            reach = [set().union(*(near[j] for j in found)) for found in reach]
        return [np.array(sorted(found - {i}), np.int64) for i, found in enumerate(reach)], listed

    def whole(self, values: np.ndarray) -> np.ndarray:
        """Return (own + ring,) values of own vertices followed by those of the ring.

        Collective.
        """
        return np.concatenate([values, self.ring.fetch(values)]) if self.comm.size > 1 else values

    def free(self) -> None:
        """Release the communicator of the exchanges.

        Collective.
        """
        if "ring" in self.__dict__:
            self.ring.free()


def redistribute(source: Layout, target: Layout, values: np.ndarray) -> np.ndarray:
    """Return (rows of target, ...) values of the rows that this rank has in another layout.

    Collective.
    """
    if source.same(target):
        return values
    columns = [values] if values.ndim == 1 else list(values.T)
    rows, *arrived = send_to_owners(target, np.arange(source.start, source.stop), *columns)
    out = np.empty((len(columns), target.n_local), values.dtype)
    for i, column in enumerate(arrived):
        out[i, rows - target.start] = column
    return out[0] if values.ndim == 1 else out.T


@dataclass(frozen=True, eq=False)
class _Rows:
    """Some rows of the pattern: their global numbers, lengths and columns."""

    rows: np.ndarray
    lengths: np.ndarray
    columns: np.ndarray

    def transposed(self, wanted: np.ndarray) -> _Rows:
        """Return the rows `wanted` (ascending), as far as these rows have them as columns."""
        sources = np.repeat(self.rows, self.lengths)
        back = np.isin(self.columns, wanted)
        order = np.lexsort((sources[back], self.columns[back]))
        columns = self.columns[back][order]
        lengths = np.searchsorted(columns, wanted, side="right") - np.searchsorted(columns, wanted)
        return _Rows(wanted, lengths, sources[back][order])


@dataclass(frozen=True, eq=False)
class _Kept:
    """The own rows that the pattern already has here: a range of it, by the pattern's local numbers."""

    first: int
    lengths: np.ndarray
    columns: np.ndarray  # (m,) int32
    used: np.ndarray  # the pattern's local numbers that occur among the columns
    neighbors: np.ndarray  # their global numbers


def _own_rows(pattern: Pattern, layout: Layout) -> tuple[_Kept, _Rows]:
    """Return the own rows: those kept from the pattern's, and those that other ranks had. Collective."""
    first = min(max(layout.start, pattern.layout.start), pattern.layout.stop)
    last = max(min(layout.stop, pattern.layout.stop), first)
    begin, end = pattern.indptr[[first - pattern.layout.start, last - pattern.layout.start]]
    columns = pattern.columns[begin:end]
    used = graph_kernels.distinct_below(columns, pattern.layout.n_local + len(pattern.ghosts))
    local = used < pattern.layout.n_local
    neighbors = np.concatenate(
        [used[local] + pattern.layout.start, pattern.ghosts[used[~local] - pattern.layout.n_local]]
    )
    lengths = np.diff(pattern.indptr[first - pattern.layout.start : last - pattern.layout.start + 1])
    missing = np.arange(layout.start, layout.stop)
    missing = missing[(missing < first) | (missing >= last)]
    return _Kept(first, lengths.astype(np.int64), columns, used, neighbors), _fetch_rows(pattern, missing)


def _fetch_rows(pattern: Pattern, rows: np.ndarray) -> _Rows:
    """Return these global rows (ascending), wherever they are. Collective."""
    comm, layout = pattern.comm, pattern.layout
    asked, asker = send_to_owners(layout, rows, np.full(len(rows), comm.rank, np.int64))
    order = np.lexsort((asked, asker))
    local = asked[order] - layout.start
    lengths = (pattern.indptr[local + 1] - pattern.indptr[local]).astype(np.int64)
    columns = pattern.indices[spans(pattern.indptr[local].astype(np.int64), lengths)].astype(np.int64)
    out = np.bincount(asker, minlength=comm.size).astype(np.int64)
    into = np.bincount(layout.owner(rows), minlength=comm.size).astype(np.int64)
    got = np.empty(len(rows), np.int64)
    comm.Alltoallv([lengths, (out, offsets(out))], [got, (into, offsets(into))])
    arrived = np.empty(got.sum(), np.int64)
    out, into = _sums(lengths, out), _sums(got, into)
    comm.Alltoallv([columns, (out, offsets(out))], [arrived, (into, offsets(into))])
    return _Rows(rows, got, arrived)


def _sums(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the sums of consecutive groups of these sizes."""
    ends = np.concatenate([[0], np.cumsum(values)])
    return np.diff(ends[np.concatenate([[0], np.cumsum(counts)])])


def spans(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return the numbers start, start + 1, ... of every span, one span after another.

    Not collective.
    """
    return np.repeat(starts - offsets(lengths), lengths) + np.arange(lengths.sum())


def _local_graph(
    layout: Layout, numbers: np.ndarray, kept: _Kept, pieces: list[_Rows]
) -> tuple[np.ndarray, np.ndarray]:
    """Return (indptr, indices) of the region: kept rows in the midst of own ones, the others around them."""
    own = layout.n_local

    def local(wanted: np.ndarray) -> np.ndarray:
        inside = (wanted >= layout.start) & (wanted < layout.stop)
        return np.where(inside, wanted - layout.start, own + np.searchsorted(numbers[own:], wanted))

    table = np.empty(int(kept.used.max(initial=-1)) + 1, np.int32)
    table[kept.used] = local(kept.neighbors)
    rows, lengths, columns = (
        np.concatenate([getattr(piece, name) for piece in pieces]) for name in ("rows", "lengths", "columns")
    )
    place = local(rows)
    order = np.argsort(place, kind="stable")
    columns = local(columns)[spans(offsets(lengths)[order], lengths[order])].astype(np.int32)
    lengths = lengths[order]
    before = np.searchsorted(place[order], kept.first - layout.start)  # rows ahead of those that are kept
    cut = lengths[:before].sum()
    indices = np.empty(len(columns) + len(kept.columns), np.int32)
    indices[:cut], indices[cut + len(kept.columns) :] = columns[:cut], columns[cut:]
    graph_kernels.rename(kept.columns, table, indices[cut : cut + len(kept.columns)])
    lengths = np.concatenate([lengths[:before], kept.lengths, lengths[before:]])
    return np.concatenate([[0], np.cumsum(lengths)]), indices
