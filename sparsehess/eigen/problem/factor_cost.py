"""What a factorization would take, before it is made."""

from __future__ import annotations

import ctypes
from typing import NamedTuple

from sparsehess.eigen.problem.factorization import FACTORIZATION
from sparsehess.errors import StackError
from sparsehess.runtime import PETSc, has_package
from sparsehess.runtime.petsc_matrices import is_assembled

# MUMPS's INFOG(16) and INFOG(17): megabytes (10^6 bytes) that the factorization will take, on the rank
# that needs most and on all together (Users' guide, section 6.2).
_MOST, _ALL = 16, 17

# Its RINFOG(1) and INFOG(20): operations of the elimination, and entries of the factor.
_OPERATIONS, _ENTRIES = 1, 20


class FactorCost(NamedTuple):
    """What a factorization is expected to take.

    Attributes
    ----------
    most, total
        Bytes on the fullest rank, and on all.
    operations
        Floating-point operations.
    entries
        Of the factor.
    """

    most: int
    total: int
    operations: float
    entries: int


def analyze(A: PETSc.Mat) -> FactorCost:
    """Return what a factorization of A - shift M would take; an `EigenProblem` keeps it as `factor_cost`.

    Collective. From MUMPS's analysis alone, which takes a few percent of the time of a factorization and
    none of its memory. Where M has entries that A has not, the estimate is too low by what they would fill.

    Raises
    ------
    StackError
        No MUMPS, a shell matrix, or an analysis that failed.
    """
    if not has_package("mumps"):
        raise StackError("this PETSc has no MUMPS, whose analysis tells what a factorization would take")
    if not is_assembled(A):
        raise StackError(f"a matrix of type {A.getType()} cannot be factorized")
    library = ctypes.CDLL(PETSc.__file__)  # petsc4py has no symbolic factorization that stops there
    factor, info = ctypes.c_void_p(), (ctypes.c_double * 64)()
    handle = ctypes.c_void_p(A.handle)
    try:
        _check(library.MatGetFactor(handle, b"mumps", FACTORIZATION.kind, ctypes.byref(factor)))
        for key, value in FACTORIZATION.options.items():
            if key.startswith("mat_mumps_icntl_"):
                _check(library.MatMumpsSetIcntl(factor, _int(int(key.rsplit("_", 1)[1])), _int(value)))
        _check(library.MatFactorInfoInitialize(info))
        _check(FACTORIZATION.analyze(library, factor, handle, info))
        told = []
        for number in (_MOST, _ALL, _ENTRIES):
            value = _int(0)
            _check(library.MatMumpsGetInfog(factor, _int(number), ctypes.byref(value)))
            told.append(value.value)
        operations = ctypes.c_double()
        _check(library.MatMumpsGetRinfog(factor, _int(_OPERATIONS), ctypes.byref(operations)))
    finally:
        library.MatDestroy(ctypes.byref(factor))
    most, total, entries = told
    # Beyond 2^31 - 1 they are told in millions, as a negative number.
    entries = entries if entries >= 0 else -entries * 10**6
    return FactorCost(most * 10**6, total * 10**6, operations.value, entries)


def _int(value: int) -> ctypes.c_int | ctypes.c_int64:
    return (ctypes.c_int64 if PETSc.IntType().itemsize == 8 else ctypes.c_int)(value)


def _check(code: int) -> None:
    if code:
        raise StackError(f"MUMPS's analysis failed with PETSc's error {code}")
