# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Compiled kernel of the recovery: compressed columns to the values of local rows."""
from libc.math cimport fabs
from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.string cimport memcpy

ctypedef fused index_t:
    int32_t
    int64_t


def direct(const index_t[::1] indptr, const int32_t[::1] columns, const int32_t[::1] color,
           const double[:, ::1] compressed, const double[::1] weight, const uint8_t[::1] source,
           const double[::1] remote, double[::1] values):
    """Fill `values` (nnz,) and return (largest asymmetry, its entry, largest value).

    `compressed` is (colors, rows): differences along each colour. `weight` (rows + ghosts,)
    turns a difference along a variable into a derivative. `source` says which readings an entry
    (i, j) has: bit 1, its own, row i of colour c(j); bit 2, its mirror's, row j of colour c(i);
    where there are both, their mean is taken and their difference is the asymmetry. `remote`
    holds the mirrors' readings for entries with a ghost column, in the order of the entries.
    """
    cdef Py_ssize_t rows = indptr.shape[0] - 1, i, e, next_remote = 0, worst = -1
    cdef int32_t j
    cdef double own, other, largest = 0.0, difference, value, top = 0.0
    cdef uint8_t kind
    with nogil:
        for i in range(rows):
            for e in range(indptr[i], indptr[i + 1]):
                j = columns[e]
                kind = source[e]
                own = 0.0
                other = 0.0
                if kind & 1:
                    own = compressed[color[j], i] * weight[j]
                if j >= rows:
                    other = remote[next_remote]
                    next_remote += 1
                elif kind & 2:
                    other = compressed[color[i], j] * weight[i]
                if kind == 3:
                    difference = fabs(own - other)
                    if difference > largest:
                        largest = difference
                        worst = e
                    value = 0.5 * (own + other)
                else:
                    value = own if kind == 1 else other
                values[e] = value
                if fabs(value) > top:
                    top = fabs(value)
    return largest, worst, top


cdef double _read(const double *compressed, const index_t *reads, double *values, Py_ssize_t many) noexcept nogil:
    """Fill `values` with the compressed entries at these places; return the sum of their squares."""
    cdef Py_ssize_t e
    cdef double a, b, c, d, first = 0.0, second = 0.0, third = 0.0, fourth = 0.0
    for e in range(0, many - 3, 4):  # sums that do not wait for each other
        a, b = compressed[reads[e]], compressed[reads[e + 1]]
        c, d = compressed[reads[e + 2]], compressed[reads[e + 3]]
        values[e], values[e + 1] = a, b
        values[e + 2], values[e + 3] = c, d
        first += a * a
        second += b * b
        third += c * c
        fourth += d * d
    for e in range(many - many % 4, many):
        a = compressed[reads[e]]
        values[e] = a
        first += a * a
    return (first + second) + (third + fourth)


cdef double _copy(const double *compressed, double *values, Py_ssize_t many) noexcept nogil:
    """Fill `values` with the first compressed entries; return the sum of their squares."""
    cdef Py_ssize_t e
    cdef double first = 0.0, second = 0.0, third = 0.0, fourth = 0.0
    memcpy(values, compressed, many * sizeof(double))
    for e in range(0, many - 3, 4):
        first += values[e] * values[e]
        second += values[e + 1] * values[e + 1]
        third += values[e + 2] * values[e + 2]
        fourth += values[e + 3] * values[e + 3]
    for e in range(many - many % 4, many):
        first += values[e] * values[e]
    return (first + second) + (third + fourth)


cdef class Reader:
    """Reads entries of compressed columns into one array, again and again.

    Parameters
    ----------
    reads
        (nnz,) int32 or int64: where each entry stands in the columns, color * n + row.
    values
        (nnz,) that are filled.
    """

    cdef readonly object values
    cdef const int32_t[::1] _small
    cdef const int64_t[::1] _large
    cdef double[::1] _values
    cdef Py_ssize_t _last
    cdef bint _in_order

    def __init__(self, reads, values):
        self.values = self._values = values
        if len(reads) != len(values):
            raise ValueError(f"{len(values)} entries are read at {len(reads)} places")
        self._last = -1 if len(reads) == 0 else reads.max()
        if self._last >= 0 and reads.min() < 0:
            raise ValueError("there are no places before the first")
        self._in_order = len(reads) > 0 and self._last == len(reads) - 1 and bool((reads[1:] - reads[:len(reads) - 1] == 1).all())
        if reads.dtype.itemsize == 4:
            self._small = reads
        else:
            self._large = reads

    def take(self, const double[:, ::1] columns):
        """Fill the values from columns (colors, n); return the sum of their squares."""
        cdef Py_ssize_t many = self._values.shape[0]
        cdef double squares
        if self._last >= columns.shape[0] * columns.shape[1]:
            raise ValueError(f"{columns.shape[0]} columns of {columns.shape[1]} rows have no place {self._last}")
        if many == 0:
            return 0.0
        with nogil:
            if self._in_order:
                squares = _copy(&columns[0, 0], &self._values[0], many)
            elif self._small is not None:
                squares = _read(&columns[0, 0], &self._small[0], &self._values[0], many)
            else:
                squares = _read(&columns[0, 0], &self._large[0], &self._values[0], many)
        return squares


def own_readings(const index_t[::1] indptr, const int32_t[::1] columns, const int32_t[::1] color,
                 const double[:, ::1] compressed, int first, const double[::1] weight,
                 const uint8_t[::1] source, double[::1] values):
    """Write to `values` the own readings of entries whose column has one of some colours.

    `compressed` (some colors, rows) holds those from `first` on.
    """
    cdef Py_ssize_t rows = indptr.shape[0] - 1, i, e
    cdef int c, some = compressed.shape[0]
    with nogil:
        for i in range(rows):
            for e in range(indptr[i], indptr[i + 1]):
                c = color[columns[e]] - first
                if 0 <= c < some and source[e] & 1:
                    values[e] = compressed[c, i] * weight[columns[e]]


def substitute(const int64_t[::1] entries, const int32_t[::1] rows, const uint8_t[::1] twice,
               const int64_t[::1] mirror, const int32_t[::1] columns, const int32_t[::1] color,
               double[:, ::1] compressed, const double[::1] weight, double[::1] values):
    """Read these entries in order and return (largest asymmetry, its entry).

    What is read is written to the entry and its mirror, and subtracted in the mirror's row from the
    compressed entry it is part of. `compressed` (colors, rows) is used up. `weight` as in `direct`.
    `mirror` (m,) belongs to the steps; -1 where the mirror is on another rank. An entry marked
    `twice` is the mean of both readings.
    """
    cdef Py_ssize_t k, worst = -1
    cdef int64_t e, m
    cdef int32_t v, w
    cdef double value, other, largest = 0.0, difference
    with nogil:
        for k in range(entries.shape[0]):
            e = entries[k]
            v = rows[k]
            w = columns[e]
            m = mirror[k]
            value = compressed[color[w], v] * weight[w]
            if m >= 0 and m != e:
                if twice[k]:
                    other = compressed[color[v], w] * weight[v]
                    difference = fabs(value - other)
                    if difference > largest:
                        largest = difference
                        worst = e
                    value = 0.5 * (value + other)
                values[m] = value
                compressed[color[v], w] -= value / weight[v]
            values[e] = value
    return largest, worst


def readings(const index_t[::1] indptr, const int32_t[::1] columns, const int32_t[::1] color,
             const double[:, ::1] compressed, const double[::1] weight, const uint8_t[::1] alone,
             double[::1] out):
    """Fill `out` with the own readings of the entries that have a ghost column, in their order."""
    cdef Py_ssize_t rows = indptr.shape[0] - 1, i, e, at = 0
    cdef int32_t j
    with nogil:
        for i in range(rows):
            for e in range(indptr[i], indptr[i + 1]):
                j = columns[e]
                if j >= rows:
                    out[at] = compressed[color[j], i] * weight[j] if alone[e] & 1 else 0.0
                    at += 1


def absolute_product(const index_t[::1] indptr, const int32_t[::1] columns,
                     const double[::1] values, const double[::1] x, double[::1] y):
    """Fill y (rows,) with |A| |x|; x holds ghosts too. The scale of rounding and of errors in A x."""
    cdef Py_ssize_t rows = indptr.shape[0] - 1, i, e
    cdef double total
    with nogil:
        for i in range(rows):
            total = 0.0
            for e in range(indptr[i], indptr[i + 1]):
                total += fabs(values[e] * x[columns[e]])
            y[i] = total


def variances(const index_t[::1] indptr, const int32_t[::1] columns, const uint8_t[::1] source, double amplification,
              const double[::1] level, const double[::1] weight, const double[::1] squares, double[::1] rows):
    """Return (sum, largest) of the variances of the entries; `rows` receives those of the products of rows.

    Parameters
    ----------
    source
        (nnz_local,) as in `Direct`, or none at all for substitutions: an entry is then taken as if it were
        read where that is quieter, and `amplification` times.
    level, weight, squares
        (n_local + ghosts,) variance of each component of a gradient change, 1 / step² of each variable, and square of
        each component of the vector that rows are multiplied with.
    """
    cdef Py_ssize_t i, e
    cdef int32_t j
    cdef double own, other, one, row, total = 0.0, largest = 0.0
    cdef bint direct = source.shape[0] > 0
    with nogil:
        for i in range(indptr.shape[0] - 1):
            row = 0.0
            for e in range(indptr[i], indptr[i + 1]):
                j = columns[e]
                own, other = level[i] * weight[j], level[j] * weight[i]
                if not direct:
                    one = amplification * min(own, other)
                elif source[e] == 3:
                    one = 0.25 * (own + other)
                elif source[e] == 1:
                    one = own
                else:
                    one = other if source[e] == 2 else 0.0
                row += one * squares[j]
                total += one
                if one > largest:
                    largest = one
            rows[i] = row
    return total, largest


def add_at(double[::1] sums, const index_t[::1] slots, const double[::1] values):
    """Add values to the sums at these slots, some of which may be the same."""
    cdef Py_ssize_t i
    with nogil:
        for i in range(slots.shape[0]):
            sums[slots[i]] += values[i]
