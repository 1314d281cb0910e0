# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Compiled kernels of the error model: sums over the entries of local rows, without an array of their length."""
from libc.math cimport fabs
from libc.stdint cimport int32_t, int64_t

ctypedef fused index_t:
    int32_t
    int64_t


def scaled_square(const index_t[::1] indptr, const int32_t[::1] columns, const double[::1] values,
                  const double[::1] scale):
    """Return the sum of the squares of the entries, each times the scale (n_local + ghosts,) of its column."""
    cdef Py_ssize_t rows = indptr.shape[0] - 1, i, e
    cdef double row, part, total = 0.0
    with nogil:
        for i in range(rows):
            row = 0.0
            for e in range(indptr[i], indptr[i + 1]):
                part = values[e] * scale[columns[e]]
                row += part * part
            total += row
    return total


def mean_squares(const index_t[::1] indptr, const int32_t[::1] columns, const double[::1] x, double[::1] out):
    """Fill out (rows,) with the mean square of x (n_local + ghosts,) over each row's entries where it is not 0."""
    cdef Py_ssize_t rows = indptr.shape[0] - 1, i, e, many
    cdef double total, here
    with nogil:
        for i in range(rows):
            total = 0.0
            many = 0
            for e in range(indptr[i], indptr[i + 1]):
                here = x[columns[e]]
                total += here * here
                many += here != 0.0
            out[i] = total / many if many else 0.0


def largest_of_rows(const index_t[::1] indptr, const double[::1] values, double[::1] out):
    """Fill out (rows,) with the largest size of each row's entries, NaN where one is NaN."""
    cdef Py_ssize_t rows = indptr.shape[0] - 1, i, e
    cdef double largest, here
    with nogil:
        for i in range(rows):
            largest = 0.0
            for e in range(indptr[i], indptr[i + 1]):
                here = fabs(values[e])
                if here > largest or here != here:
                    largest = here
            out[i] = largest
