# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""A colour fewer by ejection: a vertex takes a colour, and those that then break the rule look for another.

The vertices of one class lose their colours. As long as some vertex has none, the one that lost its
colour last takes the colour whose conflicts weigh least: a vertex weighs one more for each time that
no colour was free for it. So vertices that are hard to place are ejected ever less, which carries the
search out of local minima; ties are broken at random. These are the partial colourings of Blöchliger
and Zufferey 2008 (section 2) with the guided ejections of Nagata and Bräysy 2009 (section 3.2).

A search goes chunk by chunk, like a greedy rule: it ejects vertices of the chunk at hand alone, looks
no further than three edges, and draws from the seed and the chunk's number. What it finds depends on
the work it is allowed, the seed, and the colours before, never on who else works elsewhere.
"""
from libc.stdint cimport int32_t, int64_t, uint16_t, uint64_t

import numpy as np

from sparsehess.runtime.random_numbers import hash_numbers

cdef int64_t _FIXED = <int64_t>1 << 40  # weighs more than all vertices that may be ejected
cdef enum:
    _REACH = 256  # vertices


cdef class Distance2:
    """No colour twice within two edges.

    Parameters
    ----------
    indptr, indices
        int64, int32: the graph by local numbers, the diagonal passed over.
    chunks
        (n,) int64 chunk of every vertex.
    color
        (n,) int32, a valid colouring.
    count
        Its number of colours.
    seed
        Of ties.
    alone
        Whether the graph is the whole pattern's, so that a rule may look further than three edges.

    Attributes
    ----------
    most
        Work spent on a chunk before it is given up: entries of the graph visited.
    color
        (n,) int32, -1 where a vertex has none.
    work
        Entries visited so far.
    """

    cdef const int64_t[::1] indptr
    cdef const int32_t[::1] indices
    cdef const int64_t[::1] chunks
    cdef int32_t[::1] color_
    cdef uint16_t[:, ::1] around     # how many neighbours of a vertex have a colour
    cdef int64_t[::1] weight         # of a vertex
    cdef int64_t[::1] cost           # of a colour
    cdef int64_t[::1] met            # the step in which a vertex was last found in conflict
    cdef int64_t[::1] waiting        # vertices without colour, the next one last
    cdef Py_ssize_t left
    cdef int64_t chunk
    cdef uint64_t random
    cdef bint alone
    cdef object seed
    cdef readonly object color
    cdef readonly int64_t work
    cdef public int64_t most
    cdef int64_t step

    def __init__(self, indptr, indices, chunks, color, int count, bint alone, seed):
        cdef Py_ssize_t v, n = len(indptr) - 1
        self.indptr, self.indices, self.chunks = indptr, indices, chunks
        self.color = np.array(color, np.int32)
        self.color_ = self.color
        self.around = np.zeros((n, count), np.uint16)
        self.weight = np.ones(n, np.int64)
        self.cost = np.zeros(count, np.int64)
        self.met = np.full(n, -1, np.int64)
        self.waiting = np.empty(n, np.int64)
        self.alone = alone
        self.seed = seed
        self.most = 0
        self.prepare(count)
        with nogil:
            for v in range(n):
                if self.color_[v] >= 0:
                    self.tell(v, self.color_[v], 1)

    cdef void prepare(self, int count):
        pass

    cdef void tell(self, Py_ssize_t v, int c, int change) noexcept nogil:
        cdef Py_ssize_t e
        for e in range(self.indptr[v], self.indptr[v + 1]):
            if self.indices[e] != v:
                self.around[self.indices[e], c] += change

    cdef inline void recolor(self, Py_ssize_t v, int c) noexcept nogil:
        if self.color_[v] >= 0:
            self.tell(v, self.color_[v], -1)
        self.color_[v] = c
        if c >= 0:
            self.tell(v, c, 1)

    cdef inline void meet(self, Py_ssize_t x) noexcept nogil:
        # The colour of x is not free as long as x has it.
        if self.met[x] != self.step:
            self.met[x] = self.step
            self.cost[self.color_[x]] += self.weight[x] if self.chunks[x] == self.chunk else _FIXED

    cdef inline void eject(self, Py_ssize_t x, int c) noexcept nogil:
        if self.color_[x] == c and self.met[x] == self.step:
            self.recolor(x, -1)
            self.waiting[self.left] = x
            self.left += 1

    cdef void weigh(self, Py_ssize_t v, int limit) noexcept nogil:
        # Meet vertices without which v could have a colour below the limit: for those that may be lightest.
        cdef Py_ssize_t e, f
        cdef int32_t w, x
        for e in range(self.indptr[v], self.indptr[v + 1]):
            w = self.indices[e]
            if w == v:
                continue
            if self.color_[w] >= 0:
                self.meet(w)
            self.work += self.indptr[w + 1] - self.indptr[w]
            for f in range(self.indptr[w], self.indptr[w + 1]):
                x = self.indices[f]
                if x != v and self.color_[x] >= 0:
                    self.meet(x)

    cdef inline int lightest(self, int limit) noexcept nogil:
        cdef int c, ties = 0, chosen = 0
        for c in range(limit):
            if c == 0 or self.cost[c] < self.cost[chosen]:
                chosen, ties = c, 1
            elif self.cost[c] == self.cost[chosen]:
                ties += 1
                self.random ^= self.random << 13   # Marsaglia 2003
                self.random ^= self.random >> 7
                self.random ^= self.random << 17
                if self.random % <uint64_t>ties == 0:
                    chosen = c
        return chosen

    cdef void settle(self, int limit) noexcept nogil:
        # Place vertices of this chunk until none is waiting, or the work is spent.
        cdef Py_ssize_t v, e, f
        cdef int32_t w
        cdef int c
        cdef int64_t end = self.work + self.most, cost
        while self.left > 0 and self.work < end:
            self.step += 1
            v = self.waiting[self.left - 1]
            self.work += self.indptr[v + 1] - self.indptr[v] + limit
            self.cost[:limit] = 0
            self.weigh(v, limit)
            c = self.lightest(limit)
            cost = self.cost[c]
            if cost >= _FIXED:
                break
            self.left -= 1
            if cost > 0:
                self.weight[v] += 1
                for e in range(self.indptr[v], self.indptr[v + 1]):
                    w = self.indices[e]
                    if w == v:
                        continue
                    self.eject(w, c)
                    self.work += self.indptr[w + 1] - self.indptr[w]
                    for f in range(self.indptr[w], self.indptr[w + 1]):
                        self.eject(self.indices[f], c)
            self.recolor(v, c)

    def release(self, int leaving, int last):
        """Take the colour `leaving` from all vertices that have it, and give its number to the class `last`."""
        cdef Py_ssize_t v
        with nogil:
            for v in range(self.color_.shape[0]):
                if self.color_[v] == leaving:
                    self.recolor(v, -1)
                elif self.color_[v] == last:
                    self.recolor(v, leaving)

    def take(self, const int64_t[::1] vertices, int limit):
        """Colour these vertices with colours below the limit; return how many of them, or ejected, have none.

        Consecutive vertices of one chunk are one search.
        """
        cdef Py_ssize_t k = 0, failed = 0
        while k < vertices.shape[0]:
            self.chunk = self.chunks[vertices[k]]
            self.random = int(hash_numbers(np.array([self.chunk]), self.seed)[0]) | 1
            self.left = 0
            while k < vertices.shape[0] and self.chunks[vertices[k]] == self.chunk:
                self.waiting[self.left] = vertices[k]
                self.left += 1
                k += 1
            with nogil:
                self.settle(limit)
            failed += self.left
        return failed

    def place(self, const int64_t[::1] vertices, const int32_t[::1] colors):
        """Take note that these vertices have these colours now, or none (-1)."""
        cdef Py_ssize_t k
        with nogil:
            for k in range(vertices.shape[0]):
                self.recolor(vertices[k], colors[k])


cdef class Star(Distance2):
    """No path on four vertices with two colours."""

    cdef void weigh(self, Py_ssize_t v, int limit) noexcept nogil:
        cdef Py_ssize_t e, f
        cdef int32_t w, x
        cdef int b
        cdef bint twice
        for e in range(self.indptr[v], self.indptr[v + 1]):
            w = self.indices[e]
            b = self.color_[w]
            if b < 0 or w == v:
                continue
            self.meet(w)
            twice = self.around[v, b] > 1
            self.work += self.indptr[w + 1] - self.indptr[w]
            for f in range(self.indptr[w], self.indptr[w + 1]):
                x = self.indices[f]
                # v would be inside a path that ends in x, or the end of one that goes on behind x.
                if x != v and self.color_[x] >= 0 and (twice or self.around[x, b] > 1):
                    self.meet(x)


cdef class Acyclic(Distance2):
    """No cycle with two colours.

    Before v takes c, of its neighbours of one colour b that are connected by vertices of colours b and
    c, all but one must lose their neighbours of colour c. Where all the graph is at hand the
    connections are followed, through as many as `_REACH` vertices; otherwise, and beyond those, two
    neighbours count as connected if both have a neighbour of colour c around which b stands twice:
    the rule of `greedy.Acyclic`.
    """

    cdef int64_t[::1] first          # of a colour: a neighbour of v
    cdef int64_t[::1] next           # of a neighbour of v: another of its colour
    cdef int64_t[::1] repeated       # colours that several neighbours of v have
    cdef int64_t[::1] behind_c       # of them, those behind which the colour stands that is looked at
    cdef int64_t[::1] judged         # the step in which a colour's conflicts were last found
    cdef int64_t[::1] reached        # the connection in which a vertex was last reached
    cdef int64_t[::1] queue
    cdef int64_t connection

    cdef void prepare(self, int count):
        n = len(self.color)
        self.first, self.judged, self.repeated = np.full((3, count), -1, np.int64)
        self.next, self.behind_c = np.empty((2, n), np.int64)
        self.reached = np.full(n, -1, np.int64)
        self.queue = np.empty(_REACH + 1, np.int64)

    cdef void weigh(self, Py_ssize_t v, int limit) noexcept nogil:
        # Conflicts with neighbours are found for all colours, those beyond while a colour may still be lightest.
        cdef Py_ssize_t e, i, several = 0
        cdef int32_t w
        cdef int b, c, chosen
        cdef int64_t best = -1
        for e in range(self.indptr[v], self.indptr[v + 1]):
            w = self.indices[e]
            b = self.color_[w]
            if b < 0 or w == v:
                continue
            self.meet(w)
            if self.around[v, b] > 1:
                if self.first[b] < 0:
                    self.repeated[several] = b
                    several += 1
                self.next[w] = self.first[b]
                self.first[b] = w
        while True:
            chosen = -1
            for c in range(limit):
                if self.judged[c] != self.step and (chosen < 0 or self.cost[c] < self.cost[chosen]):
                    chosen = c
            if chosen < 0 or (best >= 0 and self.cost[chosen] > best):
                break
            self.work += limit >> 2
            self.judged[chosen] = self.step
            for i in range(several):
                if self.repeated[i] != chosen:
                    self.part(self.repeated[i], chosen)
            if best < 0 or self.cost[chosen] < best:
                best = self.cost[chosen]
        for i in range(several):
            self.first[self.repeated[i]] = -1

    cdef void part(self, int b, int c) noexcept nogil:
        # Meet vertices of colour c until the neighbours of v of colour b are not connected by both colours.
        cdef int64_t w = self.first[b]
        cdef Py_ssize_t i, many = 0
        cdef bint far = not self.alone
        while w >= 0:
            self.work += 1
            if self.around[w, c] > 0 and self.behind(w, b, c, False):
                self.behind_c[many] = w
                many += 1
            w = self.next[w]
        if many < 2:
            return
        self.connection += 1
        for i in range(many):
            w = self.behind_c[i]
            if i > 0 and (far or self.reached[w] == self.connection):
                self.behind(w, b, c, True)
            elif not far and i + 1 < many:
                far = not self.follow(w, b, c)

    cdef bint behind(self, int64_t w, int b, int c, bint meet) noexcept nogil:
        # Whether w has neighbours of colour c around which b stands twice; they are met if wanted.
        cdef Py_ssize_t f = self.indptr[w], begin = f
        cdef int32_t x
        cdef int left = self.around[w, c]
        while left > 0:
            x = self.indices[f]
            f += 1
            if self.color_[x] == c:
                left -= 1
                if self.around[x, b] > 1:
                    if not meet:
                        self.work += f - begin
                        return True
                    self.meet(x)
        self.work += f - begin
        return meet

    cdef bint follow(self, int64_t w, int b, int c) noexcept nogil:
        # Mark all that colours b and c connect to w; False if they are too many.
        cdef Py_ssize_t f, at = 0, end = 1
        cdef int64_t u
        cdef int32_t x
        cdef int other, left
        self.queue[0] = w
        self.reached[w] = self.connection
        while at < end:
            u = self.queue[at]
            other = c if self.color_[u] == b else b
            left = self.around[u, other]
            if at > 0 and left == 1:   # a leaf: it was reached from its only neighbour
                left = 0
            at += 1
            f = self.indptr[u]
            self.work += 1
            while left > 0:
                x = self.indices[f]
                f += 1
                if self.color_[x] == other:
                    left -= 1
                    if self.reached[x] != self.connection:
                        if end > _REACH:
                            return False
                        self.reached[x] = self.connection
                        self.queue[end] = x
                        end += 1
            self.work += f - self.indptr[u]
        return True
