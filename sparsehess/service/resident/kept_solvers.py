"""Solvers that a service keeps: what their factorizations found out about the nonzeros serves the next job.

Elimination order, tree and structure of a factor are the same for all matrices with the same nonzeros. PETSc keeps
them with the Mat that was factorized: a kept solver has matrices of its own, which take the values of the next.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from mpi4py import MPI

from sparsehess.eigen.problem.solver_pool import Pencil, SolverPool
from sparsehess.runtime import PETSc, SLEPc, destroy
from sparsehess.service.resident.kept_values import KeptValues

# MUMPS's INFOG(19): megabytes of all ranks for a factorization (Users' guide, section 6.2).
_MEGABYTES = 19

# Bytes on each rank of a solver and its factorization beside their arrays, as measured: tables, buffers, options.
_OBJECTS = 2**18


@dataclass(frozen=True, eq=False)
class KeptSolver:
    """A solver, and the matrices that it has for itself.

    Attributes
    ----------
    eps
        The solver.
    matrices
        Copies of the Hessian and, if there is one, of the mass matrix.
    """

    eps: SLEPc.EPS
    matrices: list[PETSc.Mat]

    def free(self) -> None:
        """Destroy them. Collective."""
        destroy(self.eps, *self.matrices)

    def size(self) -> int:
        """Return the bytes that it takes on all ranks: objects, factor, basis and matrices. Collective."""
        factor = self.eps.getST().getKSP().getPC().getFactorMatrix()
        if factor.getType() == "mumps":
            factored = 10**6 * factor.getMumpsInfog(_MEGABYTES)
        else:
            factored = int(factor.getInfo()["memory"])
        (_, n), columns = self.eps.getBV().getSizes()
        basis = PETSc.ScalarType().itemsize * n * columns
        return _OBJECTS * self.eps.comm.size + factored + basis + sum(_bytes(one) for one in self.matrices)


class KeptSolvers(SolverPool):
    """Lends kept solvers for one problem, and keeps those that it gets back.

    Parameters
    ----------
    kept
        The owner of those that are not lent.
    """

    def __init__(self, kept: KeptValues):
        self._kept = kept
        self._nonzeros = b""
        self._lent: dict[int, tuple[tuple[Any, ...], KeptSolver]] = {}

    def take(self, problem: Pencil, package: str) -> SLEPc.EPS:
        """Return a solver for a problem, with a symbolic factorization if there is one for its nonzeros.

        Collective.
        """
        theirs = [problem.A] if problem.M is None else [problem.A, problem.M]
        if sum(_bytes(matrix) for matrix in theirs) > self._kept.largest:
            return super().take(problem, package)  # with its factor it could not be kept
        self._nonzeros = self._nonzeros or _digest(theirs, problem.comm)
        key = ("solver", package, self._nonzeros, problem.finite < problem.n)
        solver = self._kept.hand_out(key)  # nobody else may have it, nor destroy it
        if solver is None:
            own = [matrix.duplicate(copy=True) for matrix in theirs]
            solver = KeptSolver(SLEPc.EPS().create(problem.A.comm), own)
        else:
            for mine, matrix in zip(solver.matrices, theirs, strict=True):
                matrix.copy(mine, PETSc.Mat.Structure.SAME_NONZERO_PATTERN)
        solver.eps.setOperators(*solver.matrices)
        self._lent[solver.eps.handle] = (key, solver)
        return solver.eps

    def give_back(self, eps: SLEPc.EPS, sound: bool) -> None:
        """Keep a solver for the next problem, if all that it did went well and there is room for it.

        Collective.
        """
        if eps.handle not in self._lent:
            super().give_back(eps, sound)
            return
        key, solver = self._lent.pop(eps.handle)
        everywhere = eps.comm.tompi4py().allreduce(sound, op=MPI.MIN)
        if not (everywhere and self._kept.keep(key, solver, solver.size(), solver.free)):
            solver.free()


def _digest(matrices: list[PETSc.Mat], comm: MPI.Comm) -> bytes:
    """Return a digest of the places of all nonzeros and their ranks, the same on every rank. Collective."""
    mine = hashlib.blake2b(digest_size=24)
    for matrix in matrices:
        indptr, indices, _ = matrix.getValuesCSR()
        mine.update(indptr)
        mine.update(indices)
    return hashlib.blake2b(b"".join(comm.allgather(mine.digest())), digest_size=24).digest()


def _bytes(matrix: PETSc.Mat) -> int:
    """Return the bytes of a matrix on all ranks. Collective."""
    rows, index = matrix.getSize()[0], PETSc.IntType().itemsize
    nonzeros = int(matrix.getInfo(PETSc.Mat.InfoType.GLOBAL_SUM)["nz_used"])
    return (PETSc.ScalarType().itemsize + index) * nonzeros + 2 * index * rows
