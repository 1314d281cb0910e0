# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Greedy colouring rules that look no further than three edges: each vertex takes the least colour its rule allows.

The graph is a CSR of local numbers, the diagonal present and passed over. Colours are int32 from 0;
-1 is uncoloured. These rules keep bit sets of colours around every vertex, so that a neighbour costs
the union of a word instead of a walk over its neighbours: O(nnz k / 64) for k colours.

A rule is an object because the vertices need not come all at once: `take` colours some, `place`
is told of others that were coloured elsewhere (on other ranks, or before a class was dissolved).
What a rule allows depends on which vertices are coloured, never on when they were.
"""
from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

import numpy as np

cdef extern from *:
    """
    #define lowest_zero(word) __builtin_ctzll(~(word))
    """
    int lowest_zero(uint64_t word) nogil


cdef inline bint has(const uint64_t *a, int c) noexcept nogil:
    return (a[c >> 6] >> (c & 63)) & 1

cdef inline void add(uint64_t *a, int c) noexcept nogil:
    a[c >> 6] |= (<uint64_t>1) << (c & 63)

cdef inline void unite(uint64_t *a, const uint64_t *b, int words) noexcept nogil:
    cdef int i
    for i in range(words):
        a[i] |= b[i]


cdef class Rule:
    """What all rules share: the graph, the colours so far, and vertices taken one after another.

    Attributes
    ----------
    color
        (n,) int32, the colours so far.
    """

    def __init__(self, indptr, indices):
        self.indptr = indptr
        self.indices = indices
        self.n = len(indptr) - 1
        self.color = np.full(self.n, -1, np.int32)
        self.color_ = self.color

    cdef str subject(self):
        # What an error names.
        return f"colouring of {self.n} vertices"

    cdef bint widen(self, int width) noexcept nogil:
        # Make room for this many colours or more; False where there is no memory.
        return False

    cdef int least_allowed(self, Py_ssize_t v) noexcept nogil:
        # The least colour that v may take, `width` where it is beyond them; -1 where there is no memory.
        return -1

    cdef void note(self, Py_ssize_t v, int c) noexcept nogil:
        # Keep what the rule knows true after v has got colour c.
        pass

    def take(self, const int64_t[::1] vertices, int limit=0):
        """Colour these vertices, in this order; return how many were left uncoloured.

        With a `limit`, a vertex for which no colour below it is allowed stays uncoloured.
        """
        cdef Py_ssize_t k, v, left = 0
        cdef int c
        cdef bint enough = True
        with nogil:
            for k in range(vertices.shape[0]):
                v = vertices[k]
                c = self.least_allowed(v)
                if c < 0:
                    enough = False
                    break
                if limit > 0 and c >= limit:
                    left += 1
                    continue
                if c == self.width and not self.widen(2 * self.width):
                    enough = False
                    break
                self.color_[v] = c
                self.note(v, c)
        if not enough:
            raise MemoryError(f"{self.subject()} with more than {self.width} colours")
        return left

    def place(self, const int64_t[::1] vertices, const int32_t[::1] colors):
        """Take note that these vertices have got these colours."""
        cdef Py_ssize_t k
        cdef int most = 0, width = self.width
        for k in range(vertices.shape[0]):
            most = max(most, colors[k])
        while width <= most:
            width *= 2
        if width > self.width and not self.widen(width):
            raise MemoryError(f"{self.subject()} with more than {self.width} colours")
        with nogil:
            for k in range(vertices.shape[0]):
                self.color_[vertices[k]] = colors[k]
                self.note(vertices[k], colors[k])


cdef class SetRule(Rule):
    """A rule that keeps bit sets of colours around every vertex, all of one number of words."""

    cdef int words, sets
    cdef uint64_t *bits
    cdef uint64_t *forbidden

    def __init__(self, indptr, indices):
        super().__init__(indptr, indices)
        self.sets = self.sets_of_a_vertex()
        if not self.widen(64):
            raise MemoryError(self.subject())

    def __dealloc__(self):
        free(self.bits)
        free(self.forbidden)

    cdef int sets_of_a_vertex(self):
        return 1

    cdef inline uint64_t *seen(self, Py_ssize_t v) noexcept nogil:
        # Colours of the coloured neighbours of v.
        return self.bits + self.sets * self.words * v

    cdef bint widen(self, int width) noexcept nogil:
        cdef int words = (width + 63) >> 6
        cdef uint64_t *wide = <uint64_t *>calloc(self.sets * words * max(self.n, 1), sizeof(uint64_t))
        cdef uint64_t *scratch = <uint64_t *>calloc(words, sizeof(uint64_t))
        cdef Py_ssize_t i
        if wide == NULL or scratch == NULL:
            free(wide)
            free(scratch)
            return False
        for i in range(self.sets * self.n):
            memcpy(wide + words * i, self.bits + self.words * i, self.words * sizeof(uint64_t))
        free(self.bits)
        free(self.forbidden)
        self.bits = wide
        self.forbidden = scratch
        self.words = words
        self.width = 64 * words
        return True

    cdef inline int lowest(self) noexcept nogil:
        # The least colour that is not in `forbidden`.
        cdef int i
        for i in range(self.words):
            if ~self.forbidden[i]:
                return 64 * i + lowest_zero(self.forbidden[i])
        return self.width

    cdef void note(self, Py_ssize_t v, int c) noexcept nogil:
        cdef Py_ssize_t e
        for e in range(self.indptr[v], self.indptr[v + 1]):
            if self.indices[e] != v:
                add(self.seen(self.indices[e]), c)


cdef class Distance2(SetRule):
    """No two vertices of one colour within two edges: no row holds two columns of one colour.

    Curtis, Powell, Reid 1974; Coleman, Moré 1983 (the graph form).
    """

    cdef int least_allowed(self, Py_ssize_t v) noexcept nogil:
        cdef Py_ssize_t e
        cdef int c
        memset(self.forbidden, 0, self.words * sizeof(uint64_t))
        for e in range(self.indptr[v], self.indptr[v + 1]):
            c = self.color_[self.indices[e]]
            if c >= 0:
                add(self.forbidden, c)
            unite(self.forbidden, self.seen(self.indices[e]), self.words)
        return self.lowest()


cdef class Triangular(SetRule):
    """In every row, the columns taken no later than the row's own have different colours.

    Powell and Toint 1979 (substitution in the lower triangle); Coleman, Moré 1984, section 4
    (triangular colouring). The later vertices are those still uncoloured, so besides the colours
    around it a vertex avoids those around its uncoloured neighbours.
    """

    cdef int least_allowed(self, Py_ssize_t v) noexcept nogil:
        cdef Py_ssize_t e
        cdef int32_t w
        memcpy(self.forbidden, self.seen(v), self.words * sizeof(uint64_t))
        for e in range(self.indptr[v], self.indptr[v + 1]):
            w = self.indices[e]
            if self.color_[w] < 0:
                unite(self.forbidden, self.seen(w), self.words)
        return self.lowest()


cdef class Star(SetRule):
    """Star colouring that forbids exactly what would make a path on four vertices with two colours.

    Gebremedhin, Tarafdar, Manne, Pothen 2007, algorithm 4.1. Forbidden for v are the colours of its
    neighbours; those around a neighbour w whose colour v sees twice (v would be inside the path);
    those of a vertex x beyond w around which w's colour stands twice (v would be its end). The
    two-coloured stars of the paper are kept as three sets a vertex w: `seen`; `twice`, the colours
    that two or more of its neighbours have; `hubs`, the colours of neighbours around which w's own
    colour stands twice (w is a leaf of theirs).
    """

    cdef int sets_of_a_vertex(self):
        return 3

    cdef inline uint64_t *twice(self, Py_ssize_t v) noexcept nogil:
        return self.bits + self.words * (3 * v + 1)

    cdef inline uint64_t *hubs(self, Py_ssize_t v) noexcept nogil:
        return self.bits + self.words * (3 * v + 2)

    cdef int least_allowed(self, Py_ssize_t v) noexcept nogil:
        cdef Py_ssize_t e
        cdef int32_t w
        cdef int c
        cdef uint64_t *two = self.twice(v)
        memcpy(self.forbidden, self.seen(v), self.words * sizeof(uint64_t))
        for e in range(self.indptr[v], self.indptr[v + 1]):
            w = self.indices[e]
            c = self.color_[w]
            if c < 0:
                continue
            if has(two, c):
                unite(self.forbidden, self.seen(w), self.words)
            else:
                unite(self.forbidden, self.hubs(w), self.words)
        return self.lowest()

    cdef void note(self, Py_ssize_t v, int c) noexcept nogil:
        cdef Py_ssize_t e, f
        cdef int32_t w, u
        cdef int other
        cdef uint64_t *two = self.twice(v)
        for e in range(self.indptr[v], self.indptr[v + 1]):
            w = self.indices[e]
            if w == v:
                continue
            other = self.color_[w]
            if not has(self.seen(w), c):
                add(self.seen(w), c)
            else:
                if not has(self.twice(w), c):
                    add(self.twice(w), c)
                    if other >= 0:   # w becomes a hub: the neighbour that had c before is a leaf now
                        for f in range(self.indptr[w], self.indptr[w + 1]):
                            u = self.indices[f]
                            if self.color_[u] == c and u != v:
                                add(self.hubs(u), other)
                                break
                if other >= 0:
                    add(self.hubs(v), other)
            if other >= 0 and has(two, other):   # v is a hub of the neighbours whose colour it sees twice
                add(self.hubs(w), c)


cdef class ConservativeStar(Star):
    """Star colouring that also keeps apart whatever shares an uncoloured neighbour.

    Gebremedhin, Manne, Pothen 2005, algorithm 4.1. Around no vertex does a colour stand twice
    before it has its own, so a vertex can only become the end of a path, never its inside. Where the
    order takes vertices of many neighbours first, those become the hubs, and fewer colours do.
    """

    cdef int least_allowed(self, Py_ssize_t v) noexcept nogil:
        cdef Py_ssize_t e
        cdef int32_t w
        cdef int c
        cdef uint64_t *two = self.twice(v)
        memcpy(self.forbidden, self.seen(v), self.words * sizeof(uint64_t))
        for e in range(self.indptr[v], self.indptr[v + 1]):
            w = self.indices[e]
            c = self.color_[w]
            if c < 0 or has(two, c):
                unite(self.forbidden, self.seen(w), self.words)
            else:
                unite(self.forbidden, self.hubs(w), self.words)
        return self.lowest()


cdef class Acyclic(Star):
    """Acyclic colouring decided within three edges.

    The last vertex v of a two-coloured cycle has two neighbours w, w' of one colour b in it. The cycle
    goes on from w to a vertex x of v's colour c, and from x to another vertex of colour b: b stands
    twice around x, so c is among the `hubs` of w, and likewise of w'. The rule avoids every colour
    that is among the hubs of two neighbours of one colour. It forbids more than a cycle would
    (whether the two paths meet is not followed), and in return no vertex depends on one beyond
    three edges: unlike the trees of Gebremedhin et al. 2007 it can be decided on many ranks.
    """

    cdef uint64_t *around   # for each colour b, the hubs of the neighbours of colour b
    cdef int64_t *stamp     # the vertex that row of `around` belongs to
    cdef int64_t step

    def __dealloc__(self):
        free(self.around)
        free(self.stamp)

    cdef bint widen(self, int width) noexcept nogil:
        cdef int words = (width + 63) >> 6
        cdef uint64_t *around = <uint64_t *>calloc(64 * <int64_t>words * words, sizeof(uint64_t))
        cdef int64_t *stamp = <int64_t *>calloc(64 * words, sizeof(int64_t))
        if around == NULL or stamp == NULL:
            free(around)
            free(stamp)
            return False
        free(self.around)
        free(self.stamp)
        self.around = around
        self.stamp = stamp
        return Star.widen(self, width)

    cdef int least_allowed(self, Py_ssize_t v) noexcept nogil:
        cdef Py_ssize_t e
        cdef int32_t w
        cdef int b, i
        cdef uint64_t *sofar
        cdef uint64_t *hubs
        self.step += 1
        memcpy(self.forbidden, self.seen(v), self.words * sizeof(uint64_t))
        for e in range(self.indptr[v], self.indptr[v + 1]):
            w = self.indices[e]
            b = self.color_[w]
            if b < 0:
                continue
            sofar = self.around + b * self.words
            hubs = self.hubs(w)
            if self.stamp[b] == self.step:
                for i in range(self.words):
                    self.forbidden[i] |= sofar[i] & hubs[i]
                    sofar[i] |= hubs[i]
            else:
                self.stamp[b] = self.step
                memcpy(sofar, hubs, self.words * sizeof(uint64_t))
        return self.lowest()
