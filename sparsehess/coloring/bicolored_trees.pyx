# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Greedy acyclic colouring: no cycle with two colours, decided by the two-coloured trees.

Kept apart from the rules of `greedy` because a tree may reach across the whole graph, so that a
vertex depends on vertices at any distance: this rule is for graphs that are whole on one rank.
"""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

from sparsehess.coloring.greedy_kernels cimport Rule


cdef class Trees(Rule):
    """Acyclic colouring by the least colour that closes no two-coloured cycle.

    Gebremedhin, Tarafdar, Manne, Pothen 2007, algorithm 5.1: v must not take colour c if two of its
    neighbours have one colour b and are in one tree of colours {b, c}. The trees are kept as disjoint
    sets of slots: slot (v, c) is the tree of colours {color(v), c} that v is in, so a tree is found
    without any search for an edge. Only neighbours whose colour repeats around v can close a cycle,
    and only their slots are looked up.
    """

    # -1 where v has no neighbour of colour c; else the parent slot; at a root, -2 - size of the tree.
    cdef int32_t *slots
    cdef int64_t *colored_at     # (width,) the last vertex around which a colour was seen ...
    cdef int32_t *times          # ... and how often; one entry more is never read
    cdef uint8_t *forbidden
    # The roots met around the current vertex, by open addressing; an entry counts if its stamp is
    # the vertex's.
    cdef int32_t *roots
    cdef int64_t *stamps
    cdef int64_t capacity
    cdef int64_t stamp

    def __init__(self, indptr, indices):
        super().__init__(indptr, indices)
        self.capacity = 1024
        self.stamp = 0
        self.roots = <int32_t *>malloc(self.capacity * sizeof(int32_t))
        self.stamps = <int64_t *>calloc(self.capacity, sizeof(int64_t))
        if self.roots == NULL or self.stamps == NULL or not self.widen(8):
            raise MemoryError(self.subject())

    def __dealloc__(self):
        free(self.slots)
        free(self.colored_at)
        free(self.times)
        free(self.forbidden)
        free(self.roots)
        free(self.stamps)

    cdef str subject(self):
        return f"acyclic {Rule.subject(self)}"

    cdef bint widen(self, int width) noexcept nogil:
        # False also where no 32-bit number is left.
        cdef int32_t *slots
        cdef Py_ssize_t v
        cdef int c
        cdef int32_t slot
        if self.n * <int64_t>width >= 2147483647:
            return False
        slots = <int32_t *>malloc((self.n * width + 1) * sizeof(int32_t))
        if slots == NULL:
            return False
        memset(slots, 255, self.n * width * sizeof(int32_t))
        for v in range(self.n):
            for c in range(self.width):
                slot = self.slots[self.width * v + c]
                if slot >= 0:
                    slot = (slot // self.width) * width + slot % self.width
                slots[width * v + c] = slot
        free(self.slots)
        free(self.colored_at)
        free(self.times)
        free(self.forbidden)
        self.slots = slots
        self.width = width
        self.colored_at = <int64_t *>calloc(width, sizeof(int64_t))
        self.times = <int32_t *>calloc(width, sizeof(int32_t))
        self.forbidden = <uint8_t *>calloc(width, sizeof(uint8_t))
        return self.colored_at != NULL and self.times != NULL and self.forbidden != NULL

    cdef inline int32_t root(self, int32_t slot) noexcept nogil:
        cdef int32_t parent = self.slots[slot]
        cdef int32_t above
        while parent >= 0:
            above = self.slots[parent]
            if above < 0:
                return parent
            self.slots[slot] = above
            slot = above
            parent = self.slots[slot]
        return slot

    cdef inline void join(self, int32_t a, int32_t b) noexcept nogil:
        if self.slots[a] == -1:
            self.slots[a] = -3
        if self.slots[b] == -1:
            self.slots[b] = -3
        a = self.root(a)
        b = self.root(b)
        if a == b:
            return
        if self.slots[a] > self.slots[b]:   # a becomes the larger tree
            a, b = b, a
        self.slots[a] += self.slots[b] + 2
        self.slots[b] = a

    cdef bint met(self, int32_t root) noexcept nogil:
        # Whether this root was met around the current vertex before; remember it.
        cdef int64_t at = (<uint64_t>root * <uint64_t>0x9E3779B97F4A7C15) >> 33 & (self.capacity - 1)
        while self.stamps[at] == self.stamp:
            if self.roots[at] == root:
                return True
            at = (at + 1) & (self.capacity - 1)
        self.stamps[at] = self.stamp
        self.roots[at] = root
        return False

    cdef bint room_for(self, int64_t roots) noexcept nogil:
        # Make the table of roots twice as large as what may come; it is empty now.
        if 2 * roots <= self.capacity:
            return True
        while self.capacity < 2 * roots:
            self.capacity *= 2
        free(self.roots)
        free(self.stamps)
        self.roots = <int32_t *>malloc(self.capacity * sizeof(int32_t))
        self.stamps = <int64_t *>calloc(self.capacity, sizeof(int64_t))
        return self.roots != NULL and self.stamps != NULL

    cdef int least_allowed(self, Py_ssize_t v) noexcept nogil:
        cdef Py_ssize_t e
        cdef int32_t w, base, slot
        cdef int b, c
        cdef int64_t repeated = 0
        self.stamp += 1
        memset(self.forbidden, 0, self.width)
        for e in range(self.indptr[v], self.indptr[v + 1]):
            b = self.color_[self.indices[e]]
            if b < 0:
                continue
            self.forbidden[b] = 1
            if self.colored_at[b] == self.stamp:
                self.times[b] += 1
                repeated += 1
            else:
                self.colored_at[b] = self.stamp
                self.times[b] = 1
        if repeated > 0:
            if not self.room_for(2 * repeated * self.width):
                return -1
            for e in range(self.indptr[v], self.indptr[v + 1]):
                w = self.indices[e]
                b = self.color_[w]
                if b < 0 or self.times[b] < 2:
                    continue
                base = w * self.width
                for c in range(self.width):
                    slot = self.slots[base + c]
                    if slot != -1 and not self.forbidden[c] and self.met(self.root(base + c)):
                        self.forbidden[c] = 1
        for c in range(self.width):
            if not self.forbidden[c]:
                return c
        return self.width

    cdef void note(self, Py_ssize_t v, int c) noexcept nogil:
        # Join the trees that v of colour c makes one.
        cdef Py_ssize_t e
        cdef int32_t w
        cdef int b
        for e in range(self.indptr[v], self.indptr[v + 1]):
            w = self.indices[e]
            b = self.color_[w]
            if b >= 0 and w != v:
                self.join(v * self.width + b, w * self.width + c)
