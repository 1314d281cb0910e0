# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Compiled parts of the orders: waves of peeling and growing, degrees two edges away, sorting by level.

Orders come as levels, and a level is a set that does not depend on how the graph is dealt to ranks.
Graphs are CSRs of local numbers: the rows of this rank's own vertices are whole; those of the
others after them hold at least their own neighbours here.
"""
from libc.stdint cimport int32_t, int64_t, uint8_t

import numpy as np


def by_level(const int64_t[::1] vertices, const int64_t[::1] level, int64_t levels):
    """Return `vertices` sorted by their level, ties in the order given. Linear in both."""
    cdef Py_ssize_t i, v
    cdef int64_t at
    sorted_ = np.empty(vertices.shape[0], np.int64)
    cdef int64_t[::1] out = sorted_
    cdef int64_t[::1] start = np.zeros(levels + 1, np.int64)
    with nogil:
        for i in range(vertices.shape[0]):
            start[level[vertices[i]] + 1] += 1
        for i in range(levels):
            start[i + 1] += start[i]
        for i in range(vertices.shape[0]):
            v = vertices[i]
            at = start[level[v]]
            start[level[v]] = at + 1
            out[at] = v
    return sorted_


cdef class Peeling:
    """Remove, wave by wave, all vertices with few neighbours left.

    Smallest-last (Matula, Beck 1983), all that may be next at once: a wave removes every vertex whose
    remaining degree is at most the threshold, which rises to the least degree where none is left.
    `level` (own,) is the wave that removed a vertex.
    """

    cdef const int64_t[::1] indptr
    cdef const int32_t[::1] indices
    cdef int64_t[::1] degree
    cdef int64_t[::1] level_
    cdef int32_t[::1] queue
    cdef Py_ssize_t own, head, tail
    cdef public object level

    def __init__(self, indptr, indices, own):
        self.indptr, self.indices, self.own = indptr, indices, own
        self.degree = np.diff(indptr[: own + 1])
        self.level = np.full(own, -1, np.int64)
        self.level_ = self.level
        self.queue = np.empty(own, np.int32)

    @property
    def left(self):
        """How many own vertices are not removed yet."""
        return self.own - self.head

    def least(self):
        """Return the least remaining degree of an own vertex that is left, -1 if none is."""
        cdef Py_ssize_t v
        cdef int64_t lowest = -1
        for v in range(self.own):
            if self.level_[v] < 0 and (lowest < 0 or self.degree[v] < lowest):
                lowest = self.degree[v]
        return lowest

    def gather(self, int64_t threshold, int64_t wave):
        """Put all own vertices of at most this degree into the next wave."""
        cdef Py_ssize_t v
        for v in range(self.own):
            if self.level_[v] < 0 and self.degree[v] <= threshold:
                self.level_[v] = wave
                self.queue[self.tail] = v
                self.tail += 1

    def peel(self, int64_t threshold, int64_t wave, bint all_waves):
        """Remove this wave, or all that follow at this threshold; return the number of the next wave."""
        cdef Py_ssize_t end
        with nogil:
            while self.head < self.tail:
                end = self.tail
                while self.head < end:
                    self.remove(self.queue[self.head], threshold, wave + 1)
                    self.head += 1
                wave += 1
                if not all_waves:
                    break
        return wave

    def note_removed(self, const int64_t[::1] removed, int64_t threshold, int64_t wave):
        """Take note of vertices that are not own and left in the last wave."""
        cdef Py_ssize_t i
        for i in range(removed.shape[0]):
            self.remove(removed[i], threshold, wave)

    @property
    def waiting(self):
        """How many own vertices are in the next wave."""
        return self.tail - self.head

    cdef void remove(self, Py_ssize_t v, int64_t threshold, int64_t wave) noexcept nogil:
        cdef Py_ssize_t e
        cdef int32_t u
        for e in range(self.indptr[v], self.indptr[v + 1]):
            u = self.indices[e]
            if u < self.own and self.level_[u] < 0:
                self.degree[u] -= 1
                if self.degree[u] <= threshold:
                    self.level_[u] = wave
                    self.queue[self.tail] = u
                    self.tail += 1


cdef class Growing:
    """Take, wave by wave, all vertices with most neighbours taken.

    Incidence degree (Coleman, Moré 1983), all that may be next at once. `level` (own,) is the wave
    that took a vertex. Vertices are kept in lists by incidence, as in a bucket queue.
    """

    cdef const int64_t[::1] indptr
    cdef const int32_t[::1] indices
    cdef int64_t[::1] incidence
    cdef int64_t[::1] level_
    cdef int32_t[::1] first, next_, previous
    cdef Py_ssize_t own
    cdef int64_t top
    cdef public object level
    cdef public Py_ssize_t left

    def __init__(self, indptr, indices, own):
        cdef Py_ssize_t v
        self.indptr, self.indices, self.own = indptr, indices, own
        self.left = own
        self.incidence = np.zeros(own, np.int64)
        self.level = np.full(own, -1, np.int64)
        self.level_ = self.level
        self.first = np.full(int(np.diff(indptr[: own + 1]).max(initial=0)) + 2, -1, np.int32)
        self.next_ = np.full(own, -1, np.int32)
        self.previous = np.full(own, -1, np.int32)
        for v in range(own):
            self.insert(v)

    cdef void insert(self, Py_ssize_t v) noexcept nogil:
        cdef int64_t i = self.incidence[v]
        self.next_[v] = self.first[i]
        self.previous[v] = -1
        if self.first[i] >= 0:
            self.previous[self.first[i]] = v
        self.first[i] = v
        if i > self.top:
            self.top = i

    cdef void withdraw(self, Py_ssize_t v) noexcept nogil:
        if self.previous[v] >= 0:
            self.next_[self.previous[v]] = self.next_[v]
        else:
            self.first[self.incidence[v]] = self.next_[v]
        if self.next_[v] >= 0:
            self.previous[self.next_[v]] = self.previous[v]

    def most(self):
        """Return the highest incidence of an own vertex that is left, -1 if none is."""
        return self.highest() if self.left else -1

    cdef int64_t highest(self) noexcept nogil:
        while self.top > 0 and self.first[self.top] < 0:
            self.top -= 1
        return self.top

    def wave_of(self, int64_t incidence):
        """Return the own vertices of this incidence that are left."""
        cdef int32_t v
        cdef Py_ssize_t many = 0
        cdef int64_t[::1] out
        if incidence > self.top:
            return np.empty(0, np.int64)
        v = self.first[incidence]
        while v >= 0:
            many += 1
            v = self.next_[v]
        found = np.empty(many, np.int64)
        out = found
        v = self.first[incidence]
        for many in range(many):
            out[many] = v
            v = self.next_[v]
        return found

    def take(self, const int64_t[::1] vertices, int64_t wave):
        """Take vertices, own and others, in one wave."""
        cdef Py_ssize_t i
        with nogil:
            for i in range(vertices.shape[0]):
                if vertices[i] < self.own:
                    self.enter(vertices[i], wave)
            for i in range(vertices.shape[0]):
                self.spread(vertices[i])

    def take_all(self, int64_t wave):
        """Take wave after wave as long as some vertex left has a neighbour taken; return the next wave's number.

        For a graph that is on this rank alone.
        """
        cdef int32_t[::1] taken = np.empty(self.own, np.int32)
        cdef Py_ssize_t i, many
        with nogil:
            while self.left and self.highest() > 0:
                many = 0
                while self.first[self.top] >= 0:
                    taken[many] = self.first[self.top]
                    self.enter(taken[many], wave)
                    many += 1
                for i in range(many):
                    self.spread(taken[i])
                wave += 1
        return wave

    cdef void enter(self, Py_ssize_t v, int64_t wave) noexcept nogil:
        self.withdraw(v)
        self.level_[v] = wave
        self.left -= 1

    cdef void spread(self, Py_ssize_t v) noexcept nogil:
        cdef Py_ssize_t e
        cdef int32_t u
        for e in range(self.indptr[v], self.indptr[v + 1]):
            u = self.indices[e]
            if u < self.own and self.level_[u] < 0:
                self.withdraw(u)
                self.incidence[u] += 1
                self.insert(u)


def degree_peaks(const int64_t[::1] indptr, const int32_t[::1] indices, const int64_t[::1] vertices,
          const int64_t[::1] numbers):
    """Return those of `vertices` that no neighbour exceeds in degree, equal degrees by global number."""
    cdef Py_ssize_t i, v, e
    cdef int64_t degree, other
    keep_ = np.ones(vertices.shape[0], bool)
    cdef uint8_t[::1] keep = keep_.view(np.uint8)
    with nogil:
        for i in range(vertices.shape[0]):
            v = vertices[i]
            degree = indptr[v + 1] - indptr[v]
            for e in range(indptr[v], indptr[v + 1]):
                other = indptr[indices[e] + 1] - indptr[indices[e]]
                if other > degree or (other == degree and numbers[indices[e]] < numbers[v]):
                    keep[i] = 0
                    break
    return np.asarray(vertices)[keep_]


def square_lengths(const int64_t[::1] indptr, const int32_t[::1] indices, Py_ssize_t own):
    """Return (own,) how many entries the walk over the neighbours of neighbours of a vertex has."""
    cdef Py_ssize_t v, e
    out_ = np.zeros(own, np.int64)
    cdef int64_t[::1] out = out_
    with nogil:
        for v in range(own):
            for e in range(indptr[v], indptr[v + 1]):
                out[v] += indptr[indices[e] + 1] - indptr[indices[e]]
    return out_


def square(const int64_t[::1] indptr, const int32_t[::1] indices, Py_ssize_t own, int64_t[::1] wide,
           int32_t[::1] columns):
    """Fill the rows of own vertices of the square of the graph; the first call, with no columns, counts.

    `wide` (own + 1,) receives the row ends; `columns` the neighbours within two edges, themselves included.
    """
    cdef Py_ssize_t v, e, f
    cdef int32_t u
    cdef int64_t at = 0
    cdef bint fill = columns.shape[0] > 0
    cdef int32_t[::1] stamp = np.full(indptr.shape[0] - 1, -1, np.int32)
    with nogil:
        wide[0] = 0
        for v in range(own):
            for e in range(indptr[v], indptr[v + 1]):
                for f in range(indptr[indices[e]], indptr[indices[e] + 1]):
                    u = indices[f]
                    if stamp[u] != v:
                        stamp[u] = v
                        if fill:
                            columns[at] = u
                        at += 1
            wide[v + 1] = at


def chunk_pairs(const int64_t[::1] indptr, const int32_t[::1] indices, const int32_t[::1] chunk,
                const int64_t[::1] by_chunk, int32_t chunks):
    """Return (2, m) pairs of chunks that an edge joins; `by_chunk` lists the vertices chunk by chunk."""
    cdef Py_ssize_t i, v, e
    cdef int32_t a, b
    cdef int32_t[::1] stamp = np.full(chunks, -1, np.int32)
    pairs = []
    for i in range(by_chunk.shape[0]):
        v = by_chunk[i]
        a = chunk[v]
        for e in range(indptr[v], indptr[v + 1]):
            b = chunk[indices[e]]
            if stamp[b] != a:
                stamp[b] = a
                pairs.append((a, b))
    return np.array(pairs, np.int32).reshape(-1, 2).T
