# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Compiled parts of the stencils: which differences a pattern has, and which entries are off a stencil."""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

import numpy as np

ctypedef fused index_t:
    int32_t
    int64_t


def differences(const index_t[::1] indptr, const index_t[::1] indices, int64_t start,
                const int64_t[::1] rows, int room):
    """Return (differences, counts) of column minus row in these local rows; None if more than `room`.

    Rows of a grid have the same differences at the same places, so the one found last at a place is
    looked at first.
    """
    cdef int64_t capacity = 1024
    while capacity < 4 * room:
        capacity *= 2
    cdef int64_t[::1] keys = np.zeros(capacity, np.int64)
    cdef int64_t[::1] counts = np.zeros(capacity, np.int64)
    cdef int64_t[::1] last = np.zeros(256, np.int64)
    cdef Py_ssize_t i, e, place
    cdef int64_t v, d, at
    cdef int found = 0
    with nogil:
        for i in range(rows.shape[0]):
            v = rows[i]
            for e in range(indptr[v], indptr[v + 1]):
                d = indices[e] - v - start
                place = (e - indptr[v]) & 255
                at = last[place]
                if counts[at] == 0 or keys[at] != d:
                    at = ((<uint64_t>d * <uint64_t>0x9E3779B97F4A7C15) >> 40) & (capacity - 1)
                    while counts[at] and keys[at] != d:
                        at = (at + 1) & (capacity - 1)
                    if counts[at] == 0:
                        keys[at] = d
                        found += 1
                    last[place] = at
                counts[at] += 1
            if found > room:
                break
    if found > room:
        return None
    there = np.flatnonzero(counts)
    return np.asarray(keys)[there], np.asarray(counts)[there]


def off_stencil(const int64_t[::1] indptr, const int32_t[::1] indices, Py_ssize_t own,
              const int32_t[:, ::1] places, const int32_t[::1] sides, const int32_t[::1] reach,
              const uint8_t[::1] inside):
    """Return (own,) uint8: 1 for vertices with a neighbour that is not at an offset of the stencil.

    `places` are the coordinates; `sides` the lengths of directions that close, 0 for others; `inside`
    says which vectors of the box |o| <= reach, numbered with the first direction fastest, are offsets.
    """
    cdef Py_ssize_t v, e, i, d = places.shape[1]
    cdef int32_t u, o
    cdef int64_t code, radix
    out_ = np.zeros(own, np.uint8)
    cdef uint8_t[::1] out = out_
    with nogil:
        for v in range(own):
            for e in range(indptr[v], indptr[v + 1]):
                u = indices[e]
                code = 0
                radix = 1
                for i in range(d):
                    o = places[u, i] - places[v, i]
                    if sides[i] > 0:
                        if 2 * o > sides[i]:
                            o -= sides[i]
                        elif 2 * o < -sides[i]:
                            o += sides[i]
                    if o > reach[i] or o < -reach[i]:
                        code = -1
                        break
                    code += radix * (o + reach[i])
                    radix *= 2 * reach[i] + 1
                if code < 0 or not inside[code]:
                    out[v] = 1
                    break
    return out_
