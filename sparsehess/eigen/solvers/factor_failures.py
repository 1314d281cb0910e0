"""What MUMPS says of a factorization that has failed: its users' guide, section 8."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from mpi4py import MPI

from sparsehess.runtime import PETSc

# INFO(1) on a rank that could not allocate.
_NO_MEMORY = (-13, -19, -22)

# INFOG(1) of a matrix that cannot be factorized: singular, or no room for its delayed pivots; 0 is not known.
BY_NUMBERS = (0, -8, -9, -10, -14, -15, -17, -20)


def failure_of(factor: Callable[[], PETSc.Mat]) -> int:
    """Return INFOG(1), 0 where that cannot be told. Collective.

    Parameters
    ----------
    factor
        Returns the factor, or raises where the failure came before there was one.
    """
    with suppress(PETSc.Error, SystemError):
        return int(factor().getMumpsInfog(1))
    return 0


def ranks_without_memory(comm: MPI.Comm, factor: Callable[[], PETSc.Mat]) -> list[str]:
    """Return the ranks on which it has failed for want of memory. Collective."""
    code = 0
    with suppress(PETSc.Error, SystemError):
        code = factor().getMumpsInfo(1)
    return [str(rank) for rank, theirs in enumerate(comm.allgather(code)) if theirs in _NO_MEMORY]
