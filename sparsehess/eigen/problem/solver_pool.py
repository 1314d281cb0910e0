"""Where solvers that factorize come from: made anew, unless who solves with one pattern often has kept them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparsehess.runtime import SLEPc

if TYPE_CHECKING:
    from sparsehess.eigen.problem.problem import EigenProblem


class Supply:
    """Every solver is made for its matrix, and destroyed with its factorization.

    An `EigenProblem` may be given another supply, which keeps solvers for the next matrix with the same nonzeros:
    what a factorization finds out about those it then need not find out again.
    """

    def take(self, problem: EigenProblem, package: str) -> SLEPc.EPS:
        """Return a solver of SLEPc for the matrices of a problem, to factorize with a package. Collective.

        It goes to `give` afterwards.
        """
        eps = SLEPc.EPS().create(problem.A.comm)
        eps.setOperators(problem.A, problem.M)
        return eps

    def give(self, eps: SLEPc.EPS, sound: bool) -> None:
        """Take back a solver; `sound` if all that it did went well. Collective."""
        eps.destroy()
