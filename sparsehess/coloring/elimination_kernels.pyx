# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""In which order the entries of a compressed symmetric matrix can be read, by substitution.

Row v of the compressed column of colour c is the sum of the entries (v, w) with color(w) = c: one
equation, called a slot. A slot with one unknown entry gives that entry, and by symmetry the entry is
then known in row w as well, where another slot loses an unknown. An elimination repeats this.

The unknown entries of two colours form a graph: its vertices are slots, an entry and its mirror are
an edge. `Leaves` takes any slot with one unknown: leaf after leaf is removed from the trees. It comes
to an end if and only if no two colours have a cycle: this is the definition of an acyclic colouring.

An edge cuts its tree in two. The entry can be read on either side, from as many compressed entries as
that side has slots, whatever was removed first. `SmallerSides` reads it where they are fewer, and as
the mean of both where they are as many: errors add up over half a tree at most, and what is read does
not depend on where rows are. `Leaves` finds the sides: `settle` tells each slot the size of its tree.

`Rows` takes whole rows: a row can go if all its slots have at most one unknown, as in the
substitution of Powell and Toint from the last row of a triangular colouring to the first. It comes
to an end if and only if there is an order of the rows for which the colouring is triangular: rows
that can go stay so while others go, so any sequence finds that order backwards.
"""
from libc.math cimport INFINITY
from libc.stdint cimport int32_t, int64_t, uint8_t

import numpy as np


cdef class Elimination:
    """State shared by both: the slots of local rows, and what was read so far.

    Attributes
    ----------
    left
        Unknown entries of local rows.
    terms
        (nnz,) for each entry, how many compressed entries its value is made of, 0 while unknown.
    """

    cdef const int64_t[::1] indptr
    cdef const int32_t[::1] columns
    cdef const int64_t[::1] mirror
    cdef int64_t[::1] slot
    cdef int32_t[::1] unknown      # in each slot
    cdef int64_t[::1] remaining    # exclusive or of the slot's unknown entries: the entry, if it is one
    cdef double[::1] sums          # terms of what was subtracted from each slot
    cdef double[::1] terms_
    cdef int32_t[::1] row_of_slot
    cdef int64_t[::1] steps_
    cdef int32_t[::1] rows_
    cdef uint8_t[::1] twice_
    cdef Py_ssize_t made
    cdef object steps, rows, twice
    cdef public Py_ssize_t left
    cdef public object terms

    def __init__(self, indptr, columns, mirror, color, int colors, hollow):
        cdef Py_ssize_t rows = len(indptr) - 1, v, e, slots = 0
        cdef int b
        cdef const int32_t[::1] c = color
        cdef const uint8_t[::1] skip = hollow
        cdef int64_t[::1] where = np.full(colors, -1, np.int64)
        cdef int64_t[::1] lives = np.full(colors, -1, np.int64)
        self.indptr, self.columns, self.mirror = indptr, columns, mirror
        nnz = len(columns)
        self.slot = np.full(nnz, -1, np.int64)
        self.terms = np.zeros(nnz)
        self.terms_ = self.terms
        self.steps, self.rows = np.empty(nnz, np.int64), np.empty(nnz, np.int32)
        self.twice = np.zeros(nnz, np.uint8)
        self.steps_, self.rows_, self.twice_ = self.steps, self.rows, self.twice
        with nogil:
            for v in range(rows):
                for e in range(self.indptr[v], self.indptr[v + 1]):
                    if self.columns[e] == v and skip[v]:
                        continue
                    b = c[self.columns[e]]
                    if lives[b] != v:
                        lives[b] = v
                        where[b] = slots
                        slots += 1
                    self.slot[e] = where[b]
        self.unknown = np.zeros(slots, np.int32)
        self.remaining = np.zeros(slots, np.int64)
        self.sums = np.zeros(slots)
        self.row_of_slot = np.empty(slots, np.int32)
        self.left = 0
        with nogil:
            for v in range(rows):
                for e in range(self.indptr[v], self.indptr[v + 1]):
                    if self.slot[e] >= 0:
                        self.row_of_slot[self.slot[e]] = v
                        self.unknown[self.slot[e]] += 1
                        self.remaining[self.slot[e]] ^= e
                        self.left += 1
        self.start(slots)

    cdef void start(self, Py_ssize_t slots):
        pass

    cdef void freed(self, int64_t slot) noexcept nogil:
        # A slot lost an unknown.
        pass

    cdef bint read_twice(self, int64_t e, int64_t m) noexcept nogil:
        # Whether entry e, which is about to be read, is the mean of its and its mirror's reading.
        return False

    cdef void told(self, int64_t e, double terms) noexcept nogil:
        # Another rank has read entry e, which is unknown here.
        pass

    cdef void strike(self, int64_t e, double terms) noexcept nogil:
        # Entry e is known now: subtract it from its slot.
        cdef int64_t s = self.slot[e]
        self.unknown[s] -= 1
        self.remaining[s] ^= e
        self.sums[s] += terms
        self.terms_[e] = terms
        self.left -= 1

    cdef void read(self, int64_t e) noexcept nogil:
        # Read entry e, the last unknown of its slot, and strike it and its mirror.
        cdef int64_t m = self.mirror[e]
        cdef double terms = 1.0 + self.sums[self.slot[e]]
        self.steps_[self.made] = e
        self.rows_[self.made] = self.row_of_slot[self.slot[e]]
        self.twice_[self.made] = m >= 0 and m != e and self.read_twice(e, m)
        self.made += 1
        self.strike(e, terms)
        if m >= 0 and m != e:
            self.strike(m, terms)
            self.freed(self.slot[m])

    def arrive(self, const int64_t[::1] entries, const double[::1] terms):
        """Strike entries that other ranks have read."""
        cdef Py_ssize_t i
        with nogil:
            for i in range(entries.shape[0]):
                if self.terms_[entries[i]] == 0:
                    self.told(entries[i], terms[i])
                    self.strike(entries[i], terms[i])
                    self.freed(self.slot[entries[i]])

    def run(self):
        """Read what can be read; return (entries, their rows, twice) in order, those of this call alone.

        `twice` marks entries that are the mean of their and their mirror's reading.
        """
        cdef Py_ssize_t before = self.made
        with nogil:
            self.advance()
        return tuple(np.array(made[before : self.made]) for made in (self.steps, self.rows, self.twice))

    def mirrors(self, const int64_t[::1] entries):
        """Return (m,) where the mirrors of these entries stand, -1 on another rank."""
        return np.asarray(self.mirror)[np.asarray(entries)]

    def meet(self, const int64_t[::1] entries, const double[::1] terms):
        """Know of entries that another rank has read as well, of how many terms."""

    cdef void advance(self) noexcept nogil:
        pass


cdef class Leaves(Elimination):
    """Entry by entry, wherever a slot has one unknown left: for acyclic colourings."""

    cdef int64_t[::1] queue
    cdef Py_ssize_t head, tail
    cdef uint8_t[::1] here         # entries that were read in their own row
    cdef double[::1] size          # slots in the tree of each slot, 0 as long as nobody knows

    cdef void start(self, Py_ssize_t slots):
        cdef Py_ssize_t s
        self.queue = np.empty(slots, np.int64)
        self.here = np.zeros(self.slot.shape[0], np.uint8)
        self.size = np.zeros(slots)
        for s in range(slots):
            self.freed(s)

    cdef void freed(self, int64_t slot) noexcept nogil:
        if self.unknown[slot] == 1:
            self.queue[self.tail] = slot
            self.tail += 1

    cdef bint read_twice(self, int64_t e, int64_t m) noexcept nogil:
        return self.unknown[self.slot[m]] == 1

    cdef void told(self, int64_t e, double terms) noexcept nogil:
        # The last entry of a tree: both of its sides are known.
        cdef int64_t s = self.slot[e]
        if self.unknown[s] == 1:
            self.size[s] = terms + 1.0 + self.sums[s]

    cdef void advance(self) noexcept nogil:
        cdef int64_t s, e, m
        while self.head < self.tail:
            s = self.queue[self.head]
            self.head += 1
            if self.unknown[s] != 1:
                continue
            e = self.remaining[s]
            m = self.mirror[e]
            self.here[e] = 1
            if m == e:
                self.size[s] = INFINITY  # a diagonal among others: nothing beyond it is read before it
            elif m >= 0 and self.unknown[self.slot[m]] == 1:
                self.size[s] = self.size[self.slot[m]] = 2.0 + self.sums[s] + self.sums[self.slot[m]]
            self.read(e)

    def meet(self, const int64_t[::1] entries, const double[::1] terms):
        """Know of entries that another rank has read as well, of how many terms."""
        cdef Py_ssize_t i
        for i in range(entries.shape[0]):
            self.size[self.slot[entries[i]]] = self.terms_[entries[i]] + terms[i]

    def sizes(self, const int64_t[::1] entries):
        """Return (m,) how many slots the trees of these entries have, 0 where nobody knows."""
        cdef Py_ssize_t i
        out_ = np.zeros(entries.shape[0])
        cdef double[::1] out = out_
        for i in range(entries.shape[0]):
            if self.slot[entries[i]] >= 0:
                out[i] = self.size[self.slot[entries[i]]]
        return out_

    def settle(self, const int64_t[::1] entries, const double[::1] remote):
        """Tell the slots in which these entries were read, the last one first, the size of their trees.

        `remote` has, in the order of the entries, the sizes where the mirror is on another rank.
        """
        cdef Py_ssize_t k, at = remote.shape[0]
        cdef int64_t e, m
        with nogil:
            for k in range(entries.shape[0] - 1, -1, -1):
                e = entries[k]
                m = self.mirror[e]
                if m < 0:
                    at -= 1
                if self.size[self.slot[e]] == 0:
                    self.size[self.slot[e]] = self.size[self.slot[m]] if m >= 0 else remote[at]

    def sides(self):
        """Return (nnz,) uint8 on which side of its edge each entry's tree is smaller.

        1, on that of its own row; 0, on its mirror's; 2, they are as large.
        """
        cdef Py_ssize_t e
        cdef int64_t s
        cdef double size, side
        out_ = np.zeros(self.slot.shape[0], np.uint8)
        cdef uint8_t[::1] out = out_
        with nogil:
            for e in range(self.slot.shape[0]):
                s = self.slot[e]
                if s < 0:
                    continue
                size = self.size[s]
                if self.mirror[e] == e or size == INFINITY:
                    out[e] = self.here[e]
                    continue
                side = self.terms_[e] if self.here[e] else size - self.terms_[e]
                out[e] = 1 if 2.0 * side < size else 2 if 2.0 * side == size else 0
        return out_


cdef class SmallerSides(Leaves):
    """Entry by entry, on the side given: for acyclic colourings.

    Parameters
    ----------
    sides
        (nnz,) as `Leaves.sides` has it, the last one.
    """

    cdef const uint8_t[::1] side

    def __init__(self, indptr, columns, mirror, color, int colors, hollow, sides):
        self.side = sides
        super().__init__(indptr, columns, mirror, color, colors, hollow)

    cdef bint read_twice(self, int64_t e, int64_t m) noexcept nogil:
        return self.side[e] == 2

    cdef void advance(self) noexcept nogil:
        cdef int64_t s, e, m
        while self.head < self.tail:
            s = self.queue[self.head]
            self.head += 1
            if self.unknown[s] != 1:
                continue
            e = self.remaining[s]
            m = self.mirror[e]
            if self.side[e] == 1 or (self.side[e] == 2 and (m < 0 or self.unknown[self.slot[m]] == 1)):
                self.read(e)


cdef class Rows(Elimination):
    """Row by row, wherever no slot of a row has more than one unknown: for triangular colourings."""

    cdef int32_t[::1] crowded      # slots of each row with more than one unknown
    cdef int32_t[::1] queue
    cdef Py_ssize_t head, tail

    cdef void start(self, Py_ssize_t slots):
        cdef Py_ssize_t s, v, rows = self.indptr.shape[0] - 1
        self.crowded = np.zeros(rows, np.int32)
        self.queue = np.empty(rows, np.int32)
        for s in range(slots):
            if self.unknown[s] > 1:
                self.crowded[self.row_of_slot[s]] += 1
        for v in range(rows - 1, -1, -1):
            if self.crowded[v] == 0:
                self.queue[self.tail] = v
                self.tail += 1

    cdef void freed(self, int64_t slot) noexcept nogil:
        cdef int32_t v = self.row_of_slot[slot]
        if self.unknown[slot] == 1:
            self.crowded[v] -= 1
            if self.crowded[v] == 0:
                self.queue[self.tail] = v
                self.tail += 1

    cdef void advance(self) noexcept nogil:
        cdef int32_t v
        cdef int64_t e
        while self.head < self.tail:
            v = self.queue[self.head]
            self.head += 1
            for e in range(self.indptr[v], self.indptr[v + 1]):
                if self.slot[e] >= 0 and self.terms_[e] == 0:
                    self.read(e)


def mirror_positions(const int64_t[::1] indptr, const int32_t[::1] columns):
    """Return (nnz,) int64 where the mirror of each entry stands; -1 if its column is a ghost.

    One cursor a row: rows are walked upwards, so the mirrors of a column come in its order.
    """
    cdef Py_ssize_t rows = indptr.shape[0] - 1, i, e
    cdef int32_t j
    cdef int64_t at
    out_ = np.full(columns.shape[0], -1, np.int64)
    cdef int64_t[::1] out = out_
    cdef int64_t[::1] cursor = np.array(indptr[:rows], dtype=np.int64)
    with nogil:
        for i in range(rows):
            for e in range(indptr[i], indptr[i + 1]):
                j = columns[e]
                if j >= rows:
                    continue
                at = cursor[j]
                while columns[at] < i or columns[at] >= rows:
                    at += 1
                cursor[j] = at
                out[e] = at
    return out_
