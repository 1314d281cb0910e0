# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Compiled kernels of the pattern: one pass each over local CSR rows, without the GIL."""
from libc.stdint cimport int32_t, int64_t, uint8_t

import numpy as np

ctypedef fused index_t:
    int32_t
    int64_t

ctypedef fused stored_t:
    int32_t
    int64_t

ctypedef fused item_t:
    uint8_t
    double


def check_rows(const index_t[::1] indptr, const index_t[::1] indices, int64_t n, int64_t start):
    """Return (in range, rows strictly ascending, diagonal present in every row)."""
    cdef Py_ssize_t rows = indptr.shape[0] - 1, i, e
    cdef bint inside = True, ascending = True, diagonal = True, here
    with nogil:
        for i in range(rows):
            here = False
            for e in range(indptr[i], indptr[i + 1]):
                if indices[e] < 0 or indices[e] >= n:
                    inside = False
                    break
                if e > indptr[i] and indices[e] <= indices[e - 1]:
                    ascending = False
                if indices[e] == i + start:
                    here = True
            if not here:
                diagonal = False
            if not inside:
                break
    return inside, ascending, diagonal


def mirror_values(const index_t[::1] indptr, const index_t[::1] columns, const item_t[::1] values,
             item_t absent):
    """Return (nnz,) the value at (j, i) for each entry (i, j), by local numbers.

    Entries with a ghost column (number >= rows), and those whose mirror is not there, get `absent`.
    One cursor a row: rows are walked upwards, so the mirrors of a column come in its order.
    """
    cdef Py_ssize_t rows = indptr.shape[0] - 1, i, e
    cdef index_t j
    cdef int64_t at
    out_ = np.full(columns.shape[0], absent, np.asarray(values).dtype)
    cdef item_t[::1] out = out_
    cursor_ = np.array(indptr[:rows], dtype=np.int64)
    cdef int64_t[::1] cursor = cursor_
    with nogil:
        for i in range(rows):
            for e in range(indptr[i], indptr[i + 1]):
                j = columns[e]
                if j >= rows:
                    continue
                at = cursor[j]
                while at < indptr[j + 1] and (columns[at] < i or columns[at] >= rows):
                    at += 1
                cursor[j] = at
                if at < indptr[j + 1] and columns[at] == i:
                    out[e] = values[at]
    return out_


def contains_pairs(const index_t[::1] indptr, const index_t[::1] indices,
              const int64_t[::1] rows, const int64_t[::1] cols):
    """Return (m,) uint8: 1 where the pair (local row, global column) is in the pattern."""
    cdef Py_ssize_t k, low, high, middle, end
    found_ = np.zeros(rows.shape[0], np.uint8)
    cdef uint8_t[::1] found = found_
    with nogil:
        for k in range(rows.shape[0]):
            low = indptr[rows[k]]
            end = indptr[rows[k] + 1]
            high = end
            while low < high:
                middle = (low + high) // 2
                if indices[middle] < cols[k]:
                    low = middle + 1
                else:
                    high = middle
            found[k] = low < end and indices[low] == cols[k]
    return found_


def expand(const index_t[::1] indptr, const index_t[::1] indices, int block):
    """Return (indptr, indices) with every entry replaced by a full block x block square."""
    cdef Py_ssize_t rows = indptr.shape[0] - 1, i, e, out = 0
    cdef int a, b
    dtype = np.asarray(indptr).dtype
    wide_ = np.empty(rows * block + 1, dtype)
    columns_ = np.empty(indices.shape[0] * block * block, dtype)
    cdef index_t[::1] wide = wide_, columns = columns_
    with nogil:
        wide[0] = 0
        for i in range(rows):
            for a in range(block):
                for e in range(indptr[i], indptr[i + 1]):
                    for b in range(block):
                        columns[out] = indices[e] * block + b
                        out += 1
                wide[i * block + a + 1] = out
    return wide_, columns_


def count_pairs(int64_t[::1] counts, uint8_t[::1] diagonal, const index_t[::1] rows, const index_t[::1] cols,
                int64_t start):
    """Add to counts (n_local,) the entries off the diagonal that pairs and their mirrors bring to each local row.

    Pairs are of global numbers; what lies in rows of other ranks is passed over. `diagonal` (n_local,) becomes 1
    where a pair names a row twice.
    """
    cdef Py_ssize_t k, own = counts.shape[0]
    cdef int64_t row, col
    with nogil:
        for k in range(rows.shape[0]):
            row = rows[k] - start
            col = cols[k] - start
            if row == col:
                if 0 <= row < own:
                    diagonal[row] = 1
                continue
            if 0 <= row < own:
                counts[row] += 1
            if 0 <= col < own:
                counts[col] += 1


def place_pairs(stored_t[::1] indices, int64_t[::1] cursor, const index_t[::1] rows, const index_t[::1] cols,
                int64_t start):
    """Write the entries that `count_pairs` has counted, each at the cursor of its row, which moves on."""
    cdef Py_ssize_t k, own = cursor.shape[0]
    cdef int64_t row, col
    with nogil:
        for k in range(rows.shape[0]):
            row = rows[k] - start
            col = cols[k] - start
            if row == col:
                continue
            if 0 <= row < own:
                indices[cursor[row]] = <stored_t>cols[k]
                cursor[row] += 1
            if 0 <= col < own:
                indices[cursor[col]] = <stored_t>rows[k]
                cursor[col] += 1
