# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Compiled kernels of the colouring: orders, star, column partition, the check of the definition.

All take the adjacency of one rank as CSR (`indptr`, `indices`, 32- or 64-bit, the same type),
columns sorted, the diagonal present and passed over. Colours are int32 from 0; -1 is uncoloured.
Linear in the edges walked; nothing here is collective, all of it runs without the GIL.
"""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

import numpy as np

ctypedef fused index_t:
    int32_t
    int64_t

cdef extern from *:
    """
    #define lowest_zero(word) __builtin_ctzll(~(word))
    """
    int lowest_zero(uint64_t word) nogil


def smallest_last(const index_t[::1] indptr, const index_t[::1] indices):
    """Return the smallest-last order (n,): repeatedly remove a vertex of least degree, reversed.

    Matula and Beck, "Smallest-last ordering and clustering and graph coloring algorithms",
    J. ACM 30 (1983). Bucket queue in one array, O(n + nnz).
    """
    cdef Py_ssize_t n = indptr.shape[0] - 1, v, e, i, most = 0, d
    cdef int64_t u, w, at, front
    degree_ = np.empty(n, np.int64)
    cdef int64_t[::1] degree = degree_
    for v in range(n):
        degree[v] = indptr[v + 1] - indptr[v]
        most = max(most, degree[v])
    # `sorted_` lists the vertices by degree; start[d] is where degree d begins. Removing the front
    # vertex and moving each neighbour one bucket down keeps it sorted (Batagelj, Zaversnik 2003).
    cdef int64_t[::1] start = np.zeros(most + 2, np.int64)
    sorted_ = np.argsort(degree_, kind="stable").astype(np.int64)
    cdef int64_t[::1] order = sorted_
    cdef int64_t[::1] place = np.empty(n, np.int64)
    with nogil:
        for v in range(n):
            start[degree[v] + 1] += 1
            place[order[v]] = v
        for d in range(most + 1):
            start[d + 1] += start[d]
        for i in range(n):
            v = order[i]
            for e in range(indptr[v], indptr[v + 1]):
                u = indices[e]
                if u != v and degree[u] > degree[v]:
                    front = max(start[degree[u]], i + 1)
                    w = order[front]
                    at = place[u]
                    order[front] = u
                    order[at] = w
                    place[u] = front
                    place[w] = at
                    start[degree[u]] = front + 1
                    degree[u] -= 1
    return np.ascontiguousarray(sorted_[::-1])


cdef struct Sets:
    # Three bit sets of colours for each vertex w, `words` 64-bit words each, side by side:
    # seen: colours of its coloured neighbours; twice: those that two or more of them have;
    # hubs: colours of neighbours x around which w's own colour stands twice (w is a leaf of x).
    uint64_t *bits
    Py_ssize_t n
    int words


cdef inline uint64_t *seen_of(Sets *s, Py_ssize_t v) noexcept nogil:
    return s.bits + 3 * s.words * v

cdef inline uint64_t *twice_of(Sets *s, Py_ssize_t v) noexcept nogil:
    return s.bits + 3 * s.words * v + s.words

cdef inline uint64_t *hubs_of(Sets *s, Py_ssize_t v) noexcept nogil:
    return s.bits + 3 * s.words * v + 2 * s.words

cdef inline bint has(uint64_t *a, int c) noexcept nogil:
    return (a[c >> 6] >> (c & 63)) & 1

cdef inline void add(uint64_t *a, int c) noexcept nogil:
    a[c >> 6] |= (<uint64_t>1) << (c & 63)

cdef inline void unite(uint64_t *a, uint64_t *b, int words) noexcept nogil:
    cdef int i
    for i in range(words):
        a[i] |= b[i]


cdef bint widen(Sets *s) noexcept nogil:
    """Double the words of every set; False when there is no memory."""
    cdef uint64_t *wide = <uint64_t *>calloc(6 * s.words * s.n, sizeof(uint64_t))
    cdef Py_ssize_t i
    if wide == NULL:
        return False
    for i in range(3 * s.n):
        memcpy(wide + 2 * s.words * i, s.bits + s.words * i, s.words * sizeof(uint64_t))
    free(s.bits)
    s.bits = wide
    s.words *= 2
    return True


def star(const index_t[::1] indptr, const index_t[::1] indices, const int64_t[::1] order):
    """Return star colours (n,) by the greedy rule of Gebremedhin et al. 2007, algorithm 4.1.

    A star colouring is proper and leaves no path on four vertices with two colours (Coleman and
    Moré 1984, theorem 3.3). The rule forbids vertex v exactly the colours that would make such a
    path: those of its neighbours; those around a neighbour w whose colour v sees twice (v would
    be inside the path); those of a vertex x beyond w around which w's colour stands twice (v
    would be its end). The two-coloured stars of the paper are kept as three bit sets a vertex,
    so that a neighbour costs a word's OR instead of a walk over its neighbours.
    """
    cdef Py_ssize_t n = indptr.shape[0] - 1, k, v, e, f
    cdef index_t w, u
    cdef int c, cw, i
    cdef Sets s
    colors_ = np.full(n, -1, np.int32)
    cdef int32_t[::1] color = colors_
    cdef uint64_t *forbidden
    cdef uint64_t *tv
    cdef bint enough = True
    if n == 0:
        return colors_
    s.n = n
    s.words = 1
    s.bits = <uint64_t *>calloc(3 * n, sizeof(uint64_t))
    forbidden = <uint64_t *>malloc(n // 4 + 128)
    if s.bits == NULL or forbidden == NULL:
        free(s.bits)
        free(forbidden)
        raise MemoryError(f"star colouring of {n} vertices")
    with nogil:
        for k in range(n):
            v = order[k]
            memcpy(forbidden, seen_of(&s, v), s.words * sizeof(uint64_t))
            tv = twice_of(&s, v)
            for e in range(indptr[v], indptr[v + 1]):
                w = indices[e]
                cw = color[w]
                if cw < 0:
                    continue
                if has(tv, cw):
                    unite(forbidden, seen_of(&s, w), s.words)
                else:
                    unite(forbidden, hubs_of(&s, w), s.words)
            c = -1
            for i in range(s.words):
                if ~forbidden[i]:
                    c = 64 * i + lowest_zero(forbidden[i])
                    break
            if c < 0:
                c = 64 * s.words
                enough = widen(&s)
                if not enough:
                    break
                tv = twice_of(&s, v)
            color[v] = c
            for e in range(indptr[v], indptr[v + 1]):
                w = indices[e]
                if w == v:
                    continue
                cw = color[w]
                if not has(seen_of(&s, w), c):
                    add(seen_of(&s, w), c)
                else:
                    if not has(twice_of(&s, w), c):
                        add(twice_of(&s, w), c)
                        if cw >= 0:   # w becomes a hub: the neighbour that had c before is a leaf now
                            for f in range(indptr[w], indptr[w + 1]):
                                u = indices[f]
                                if color[u] == c and u != v:
                                    add(hubs_of(&s, u), cw)
                                    break
                    if cw >= 0:
                        add(hubs_of(&s, v), cw)
                if cw >= 0 and has(tv, cw):   # v is a hub of the neighbours whose colour it sees twice
                    add(hubs_of(&s, w), c)
    free(s.bits)
    free(forbidden)
    if not enough:
        raise MemoryError(f"star colouring of {n} vertices with more than {c} colours")
    return colors_


def distance2(const index_t[::1] indptr, const index_t[::1] indices, const int64_t[::1] order):
    """Return colours (n,) such that no row holds two columns of one colour.

    Curtis, Powell, Reid 1974; for a structurally symmetric matrix with its diagonal this is a
    distance-2 colouring of the graph. Each row keeps the set of colours it holds; a column takes
    the least colour that none of its rows has.
    """
    cdef Py_ssize_t n = indptr.shape[0] - 1, k, v, e
    cdef int c, i
    cdef Sets s
    colors_ = np.full(n, -1, np.int32)
    cdef int32_t[::1] color = colors_
    cdef uint64_t *forbidden
    cdef bint enough = True
    if n == 0:
        return colors_
    s.n = n
    s.words = 1
    s.bits = <uint64_t *>calloc(3 * n, sizeof(uint64_t))
    forbidden = <uint64_t *>malloc(n // 4 + 128)
    if s.bits == NULL or forbidden == NULL:
        free(s.bits)
        free(forbidden)
        raise MemoryError(f"colouring of {n} columns")
    with nogil:
        for k in range(n):
            v = order[k]
            memset(forbidden, 0, s.words * sizeof(uint64_t))
            for e in range(indptr[v], indptr[v + 1]):
                unite(forbidden, seen_of(&s, indices[e]), s.words)
            c = -1
            for i in range(s.words):
                if ~forbidden[i]:
                    c = 64 * i + lowest_zero(forbidden[i])
                    break
            if c < 0:
                c = 64 * s.words
                enough = widen(&s)
                if not enough:
                    break
            color[v] = c
            for e in range(indptr[v], indptr[v + 1]):
                add(seen_of(&s, indices[e]), c)
    free(s.bits)
    free(forbidden)
    if not enough:
        raise MemoryError(f"colouring of {n} columns with more than {c} colours")
    return colors_


def alone_in_row(const index_t[::1] indptr, const int32_t[::1] columns,
                 const int32_t[::1] color, int colors):
    """Return (nnz,) uint8: 1 where an entry's column is the only one of its colour in its row.

    `columns` are local numbers, ghosts included; `color` holds the colours of both.
    Such an entry stands alone in the compressed Hessian and is read directly.
    """
    cdef Py_ssize_t n = indptr.shape[0] - 1, v, e, first
    cdef int c
    alone_ = np.ones(columns.shape[0], np.uint8)
    cdef uint8_t[::1] alone = alone_
    cdef int64_t[::1] where = np.full(colors, -1, np.int64)
    with nogil:
        for v in range(n):
            for e in range(indptr[v], indptr[v + 1]):
                c = color[columns[e]]
                first = where[c]
                if first >= indptr[v]:   # `where` grows with e, so older rows are below
                    alone[first] = 0
                    alone[e] = 0
                else:
                    where[c] = e
    return alone_
