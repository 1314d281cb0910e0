"""What SLEPc's solvers keep from one solve to the next, and how it is set without losing a factorization."""

from __future__ import annotations

from sparsehess.eigen.problem.petsc_options import PREFIX
from sparsehess.runtime import PETSc, SLEPc, destroy


def give_new_basis(eps: SLEPc.EPS) -> None:
    """Have a solver allocate its basis and its arrays anew. Collective.

    After a solve SLEPc counts what was deflated as columns of the basis. Where the next solve wants just so many
    more, it takes the arrays of eigenvalues for large enough, which they are not, and writes past their ends.
    """
    basis = SLEPc.BV().create(eps.comm)
    basis.setOptionsPrefix(PREFIX)
    eps.setBV(basis)
    destroy(basis)  # but for the solver's reference


def forget_null_space(eps: SLEPc.EPS) -> None:
    """Take from the matrix of a transformation the null space that SLEPc has told it. Collective.

    SLEPc gives one to it for vectors that are deflated, and PETSc loses it with the first change of the matrix.
    """
    none, (matrix, preconditioned) = PETSc.NullSpace(), eps.getST().getKSP().getOperators()
    for one in (matrix, preconditioned):
        one.setNullSpace(none)
        one.setTransposeNullSpace(none)


def aim(eps: SLEPc.EPS, target: float) -> None:
    """Set the target of a solver, and leave what its transformation has factorized alone. Collective.

    A new target is a new shift to a transformation, which then begins with nothing: another one hears of it.
    """
    st = eps.getST()
    other = SLEPc.ST().create(eps.comm)
    eps.setST(other)
    eps.setTarget(target)
    eps.setST(st)
    destroy(other)
