# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Compiled parts of the check, the bounds and the regions: one pass over rows, without the GIL."""
from libc.stdint cimport int32_t, int64_t, uint8_t

import numpy as np

ctypedef fused index_t:
    int32_t
    int64_t


def alone_in_row(const index_t[::1] indptr, const int32_t[::1] columns, const int32_t[::1] color,
                 int colors, const uint8_t[::1] hollow):
    """Return (nnz,) uint8: 1 where an entry's column is the only one of its colour in its row.

    `columns` are local numbers, ghosts included; `color` holds the colours of both. Such an entry
    stands alone in the compressed Hessian and is read directly. Columns without a colour, and the
    diagonal of a row that is marked hollow, do not count and are not alone.
    """
    cdef Py_ssize_t n = indptr.shape[0] - 1, v, e, first
    cdef int c
    alone_ = np.zeros(columns.shape[0], np.uint8)
    cdef uint8_t[::1] alone = alone_
    cdef int64_t[::1] where = np.full(colors, -1, np.int64)
    with nogil:
        for v in range(n):
            for e in range(indptr[v], indptr[v + 1]):
                c = color[columns[e]]
                if c < 0 or (hollow[v] and columns[e] == v):
                    continue
                first = where[c]
                if first >= indptr[v]:   # `where` grows with e, so older rows are below
                    alone[first] = 0
                else:
                    where[c] = e
                    alone[e] = 1
    return alone_


def largest_clique(const int64_t[::1] indptr, const int32_t[::1] indices, const int64_t[::1] seeds):
    """Return the size of the largest clique found by growing one greedily from each of these vertices.

    A clique takes, among the neighbours of its seed in the order they stand, each that is adjacent
    to all taken before; neighbours with 64 times the seed's degree are passed over, so that the work
    stays in proportion to the seeds' neighbourhoods.
    """
    cdef Py_ssize_t n = indptr.shape[0] - 1, i, v, e, f
    cdef int32_t u, size, best = 0
    cdef int64_t stamp = 0
    cdef int64_t[::1] seen = np.full(n, -1, np.int64)     # the clique that `adjacent` speaks of
    cdef int32_t[::1] adjacent = np.zeros(n, np.int32)    # members it is adjacent to, itself included
    with nogil:
        for i in range(seeds.shape[0]):
            v = seeds[i]
            size = 1
            for f in range(indptr[v], indptr[v + 1]):
                seen[indices[f]] = i
                adjacent[indices[f]] = 1
            for e in range(indptr[v], indptr[v + 1]):
                u = indices[e]
                if u == v or adjacent[u] < size or indptr[u + 1] - indptr[u] > 64 * (indptr[v + 1] - indptr[v]):
                    continue
                size += 1
                for f in range(indptr[u], indptr[u + 1]):
                    if seen[indices[f]] == i:
                        adjacent[indices[f]] += 1
            best = max(best, size)
    return best


def distinct_below(const int32_t[::1] columns, Py_ssize_t most):
    """Return which of the numbers below `most` occur, ascending."""
    cdef Py_ssize_t e
    there_ = np.zeros(most, bool)
    cdef uint8_t[::1] there = there_.view(np.uint8)
    with nogil:
        for e in range(columns.shape[0]):
            there[columns[e]] = 1
    return np.flatnonzero(there_)


def rename(const int32_t[::1] columns, const int32_t[::1] names, int32_t[::1] out):
    """Fill `out` with the names of the columns."""
    cdef Py_ssize_t e
    with nogil:
        for e in range(columns.shape[0]):
            out[e] = names[columns[e]]


def in_full_blocks(const index_t[::1] indptr, const index_t[::1] indices, int64_t size):
    """Return whether every row consists of whole groups of `size` consecutive columns; they ascend in each row."""
    cdef Py_ssize_t v, e
    cdef int64_t i
    for v in range(indptr.shape[0] - 1):
        if (indptr[v + 1] - indptr[v]) % size:
            return False
        e = indptr[v]
        while e < indptr[v + 1]:
            if indices[e] % size:
                return False
            for i in range(1, size):
                if indices[e + i] != indices[e] + i:
                    return False
            e += size
    return True


def columns_of_blocks(const index_t[::1] indptr, const index_t[::1] indices, const int64_t[::1] heads,
                      int64_t size, index_t[::1] columns):
    """Fill `columns` with the groups, by number, that the rows `heads` consist of."""
    cdef Py_ssize_t i, e, at = 0
    with nogil:
        for i in range(heads.shape[0]):
            e = indptr[heads[i]]
            while e < indptr[heads[i] + 1]:
                columns[at] = <index_t>(indices[e] // size)
                at += 1
                e += size
