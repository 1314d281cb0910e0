from libc.stdint cimport int32_t, int64_t


cdef class Rule:
    cdef const int64_t[::1] indptr
    cdef const int32_t[::1] indices
    cdef int32_t[::1] color_
    cdef Py_ssize_t n
    cdef int width   # colours that there is room for
    cdef public object color

    cdef str subject(self)
    cdef bint widen(self, int width) noexcept nogil
    cdef int least_allowed(self, Py_ssize_t v) noexcept nogil
    cdef void note(self, Py_ssize_t v, int c) noexcept nogil
