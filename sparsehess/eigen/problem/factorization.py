"""How MUMPS factorizes A - shift M: by LDLᵀ, whose pivots count eigenvalues, or by LU where scalars are complex.

MUMPS has no LDLᴴ of Hermitian matrices; its complex LDLᵀ is for symmetric ones, and tells no inertia either.
"""

from __future__ import annotations

from typing import ClassVar

from sparsehess.runtime import PETSc, complex_scalars
from sparsehess.runtime.citations import cite

# MUMPS's INFOG(28): how many pivots it took for zeros (Users' guide, section 6.2).
_NULL_PIVOTS = 28


class Counting:
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

    def pivots(self, factor: PETSc.Mat) -> tuple[int | None, int, int | None]:
        """Return how many are negative, zero and positive. Collective."""
        cite("inertia")
        return tuple(int(number) for number in factor.getInertia())

    def analyzed(self, library, factor, matrix, info) -> int:
        """Have PETSc's library, by ctypes, make the symbolic factorization; return its error code. Collective."""
        return library.MatCholeskyFactorSymbolic(factor, matrix, None, info)


class General(Counting):
    """LU of a matrix of complex numbers, whose pivots tell no inertia: of negative and positive ones, None."""

    kind = 1
    options: ClassVar[dict] = {**Counting.options, "pc_type": "lu"}

    def pivots(self, factor):
        return None, int(factor.getMumpsInfog(_NULL_PIVOTS)), None

    def analyzed(self, library, factor, matrix, info):
        return library.MatLUFactorSymbolic(factor, matrix, None, None, info)


FACTORIZATION: Counting = General() if complex_scalars() else Counting()

# For the spectral transformation of SLEPc.
TRANSFORMED = {"st_" + name: value for name, value in FACTORIZATION.options.items()}
