"""How MUMPS factorizes A - shift M: by LDLᵀ, whose pivots count eigenvalues, or by LU where scalars are complex.

MUMPS has no LDLᴴ of Hermitian matrices; its complex LDLᵀ is for symmetric ones, and tells no inertia either.
"""

from __future__ import annotations

import ctypes
from typing import ClassVar, NamedTuple

from sparsehess.runtime import PETSc, complex_scalars
from sparsehess.runtime.citations import cite

# MUMPS's INFOG(28): how many pivots it took for zeros (Users' guide, section 6.2).
_NULL_PIVOTS = 28


# The number of negative or positive pivots where a factorization does not tell it.
UNKNOWN = -1


class Pivots(NamedTuple):
    """How many pivots of A - shift M are negative, zero and positive.

    By Sylvester's law these are the eigenvalues below, at and above the shift, infinite ones among them. Where
    scalars are complex those that are zero alone are known; the others are `UNKNOWN`.
    """

    negative: int
    zero: int
    positive: int


class SymmetricFactorization:
    """LDLᵀ of a symmetric matrix, with its inertia.

    Attributes
    ----------
    kind
        PETSc's number of this kind of factorization, MatFactorType.
    options
        PETSc options, without the prefix of the solver.
    """

    kind = 2
    options: ClassVar[dict] = {
        "pc_type": "cholesky",
        "pc_factor_mat_solver_type": "mumps",
        "mat_mumps_icntl_13": 1,  # the root front on one rank: ScaLAPACK's would hide its negative pivots
        "mat_mumps_icntl_14": 50,  # room for pivoting, in percent
        "mat_mumps_icntl_24": 1,  # null pivots are found and counted
    }

    def pivots(self, factor: PETSc.Mat) -> Pivots:
        """Return how many are negative, zero and positive. Collective."""
        cite("inertia")
        negative, zero, positive = factor.getInertia()
        return Pivots(int(negative), int(zero), int(positive))

    def analyze(
        self, library: ctypes.CDLL, factor: ctypes.c_void_p, matrix: ctypes.c_void_p, info: ctypes.Array
    ) -> int:
        """Make the symbolic factorization by PETSc's library, and return its error code. Collective."""
        return library.MatCholeskyFactorSymbolic(factor, matrix, None, info)


class GeneralFactorization(SymmetricFactorization):
    """LU of a matrix of complex numbers; the signs of its pivots are unknown."""

    kind = 1
    options: ClassVar[dict] = {**SymmetricFactorization.options, "pc_type": "lu"}

    def pivots(self, factor: PETSc.Mat) -> Pivots:
        """Return how many are zero. Collective."""
        return Pivots(UNKNOWN, int(factor.getMumpsInfog(_NULL_PIVOTS)), UNKNOWN)

    def analyze(
        self, library: ctypes.CDLL, factor: ctypes.c_void_p, matrix: ctypes.c_void_p, info: ctypes.Array
    ) -> int:
        """Make the symbolic factorization; see `SymmetricFactorization.analyze`. Collective."""
        return library.MatLUFactorSymbolic(factor, matrix, None, None, info)


FACTORIZATION = GeneralFactorization() if complex_scalars() else SymmetricFactorization()

# For the spectral transformation of SLEPc.
TRANSFORMED = {"st_" + name: value for name, value in FACTORIZATION.options.items()}
