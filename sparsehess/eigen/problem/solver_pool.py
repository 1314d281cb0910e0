"""Where solvers that factorize come from: made anew, unless who solves with one pattern often keeps them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from sparsehess.runtime import SLEPc, destroy

if TYPE_CHECKING:
    from mpi4py import MPI
    from petsc4py import PETSc


class Pencil(Protocol):
    """What a pool asks of an eigenproblem: its matrices, n, and how many eigenvalues are finite."""

    A: PETSc.Mat
    M: PETSc.Mat | None

    @property
    def comm(self) -> MPI.Comm:
        """Communicator of the matrices."""

    @property
    def n(self) -> int:
        """Rows."""

    @property
    def finite(self) -> int:
        """Eigenvalues that are finite."""


class SolverPool:
    """Every solver is made for its matrix, and destroyed with its factorization.

    An `EigenProblem` may be given another pool, which keeps solvers for the next matrix with the same nonzeros:
    what a factorization finds out about those it then need not find out again.
    """

    def take(self, problem: Pencil, package: str) -> SLEPc.EPS:
        """Return a solver of SLEPc for the matrices of a problem, to factorize with a package.

        Collective. It goes to `give_back` afterwards.
        """
        eps = SLEPc.EPS().create(problem.A.comm)
        eps.setOperators(problem.A, problem.M)
        return eps

    def give_back(self, eps: SLEPc.EPS, sound: bool) -> None:
        """Take back a solver; `sound` if all that it did went well. Collective."""
        destroy(eps)
