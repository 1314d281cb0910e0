# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Compiled product of a sparse matrix with many vectors that lie side by side.

An entry is multiplied with a whole row of vectors, 16 sums at a time in registers. Where the compiler can, the
code is there for several instruction sets, and the processor at hand has its own.
"""
from libc.stdint cimport int32_t, int64_t

ctypedef fused index_t:
    int32_t
    int64_t

ctypedef fused real_t:
    float
    double

cdef extern from *:
    """
    #include <stddef.h>
    #include <stdint.h>

    #if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12
    #define FOR_EACH_PROCESSOR __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
    #else
    #define FOR_EACH_PROCESSOR
    #endif

    /* y[0:WIDTH] (+)= the entries of one row times as many of the vectors. */
    #define ONE_ROW(NAME, INDEX, REAL, WIDTH) \\
    static inline __attribute__((always_inline)) void NAME(ptrdiff_t entries, const INDEX *columns, \\
            const REAL *values, ptrdiff_t vectors, const REAL *x, REAL *y, int add) { \\
        REAL sums[WIDTH]; \\
        for (int v = 0; v < WIDTH; v++) sums[v] = add ? y[v] : 0; \\
        for (ptrdiff_t e = 0; e < entries; e++) { \\
            const REAL value = values[e], *from = x + (ptrdiff_t)columns[e] * vectors; \\
            for (int v = 0; v < WIDTH; v++) sums[v] += value * from[v]; \\
        } \\
        for (int v = 0; v < WIDTH; v++) y[v] = sums[v]; \\
    }

    #define ALL_ROWS(NAME, INDEX, REAL) \\
    ONE_ROW(NAME##_16, INDEX, REAL, 16) \\
    ONE_ROW(NAME##_8, INDEX, REAL, 8) \\
    ONE_ROW(NAME##_4, INDEX, REAL, 4) \\
    ONE_ROW(NAME##_1, INDEX, REAL, 1) \\
    FOR_EACH_PROCESSOR \\
    static void NAME(ptrdiff_t rows, const INDEX *indptr, const INDEX *columns, const REAL *values, \\
            ptrdiff_t vectors, const REAL *x, REAL *y, int add) { \\
        for (ptrdiff_t i = 0; i < rows; i++) { \\
            const ptrdiff_t first = indptr[i], entries = indptr[i + 1] - indptr[i]; \\
            REAL *out = y + i * vectors; \\
            ptrdiff_t v = 0; \\
            for (; v + 16 <= vectors; v += 16) \\
                NAME##_16(entries, columns + first, values + first, vectors, x + v, out + v, add); \\
            for (; v + 8 <= vectors; v += 8) \\
                NAME##_8(entries, columns + first, values + first, vectors, x + v, out + v, add); \\
            for (; v + 4 <= vectors; v += 4) \\
                NAME##_4(entries, columns + first, values + first, vectors, x + v, out + v, add); \\
            for (; v < vectors; v++) \\
                NAME##_1(entries, columns + first, values + first, vectors, x + v, out + v, add); \\
        } \\
    }

    ALL_ROWS(sparsehess_panel_32f, int32_t, float)
    ALL_ROWS(sparsehess_panel_64f, int64_t, float)
    ALL_ROWS(sparsehess_panel_32d, int32_t, double)
    ALL_ROWS(sparsehess_panel_64d, int64_t, double)
    """
    void sparsehess_panel_32f(Py_ssize_t, const int32_t *, const int32_t *, const float *, Py_ssize_t,
                              const float *, float *, int) noexcept nogil
    void sparsehess_panel_64f(Py_ssize_t, const int64_t *, const int64_t *, const float *, Py_ssize_t,
                              const float *, float *, int) noexcept nogil
    void sparsehess_panel_32d(Py_ssize_t, const int32_t *, const int32_t *, const double *, Py_ssize_t,
                              const double *, double *, int) noexcept nogil
    void sparsehess_panel_64d(Py_ssize_t, const int64_t *, const int64_t *, const double *, Py_ssize_t,
                              const double *, double *, int) noexcept nogil


def multiply_rows(const index_t[::1] indptr, const index_t[::1] columns, const real_t[::1] values,
                  const real_t[:, ::1] x, real_t[:, ::1] y, bint add):
    """Have y (rows, m) be the product of CSR rows with x (columns, m), or add that product to it."""
    cdef Py_ssize_t rows = indptr.shape[0] - 1, vectors = x.shape[1]
    if rows == 0 or vectors == 0:
        return
    if columns.shape[0] == 0:  # there may be no x either
        if not add:
            y[:, :] = 0.0
        return
    with nogil:
        if index_t is int32_t and real_t is float:
            sparsehess_panel_32f(rows, &indptr[0], &columns[0], &values[0], vectors, &x[0, 0], &y[0, 0], add)
        elif real_t is float:
            sparsehess_panel_64f(rows, &indptr[0], &columns[0], &values[0], vectors, &x[0, 0], &y[0, 0], add)
        elif index_t is int32_t:
            sparsehess_panel_32d(rows, &indptr[0], &columns[0], &values[0], vectors, &x[0, 0], &y[0, 0], add)
        else:
            sparsehess_panel_64d(rows, &indptr[0], &columns[0], &values[0], vectors, &x[0, 0], &y[0, 0], add)
