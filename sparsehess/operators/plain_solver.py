"""Solves with a matrix whose structure does not help: by a factorization, or by iterations of a shell."""

from __future__ import annotations

from collections.abc import Callable

from mpi4py import MPI

import numpy as np

from sparsehess.errors import NotConverged
from sparsehess.operators.petsc_shells import ShiftedShell
from sparsehess.operators.solutions import refusal
from sparsehess.runtime import PETSc, destroy, has_package, held_errors, readable_errors
from sparsehess.runtime.petsc_matrices import is_assembled
from sparsehess.runtime.row_layout import Layout

# Iterations are ended at the first of these, relative to the right-hand side, and accepted up to the second.
_AIM, _ACCEPT = 1e-12, 1e-10


class PlainSolver:
    """Solves with A + shift I, and keeps the solver of the last shift; `close()` destroys it.

    Collective to use.

    Parameters
    ----------
    mat
        A, assembled or a shell.
    layout
        Its rows.
    condition_of
        Returns what x (n_local, 1) and b (n_local, 1) show of the condition, as condition_of(shift, x, b).
    """

    def __init__(
        self, mat: PETSc.Mat, layout: Layout, condition_of: Callable[[float, np.ndarray, np.ndarray], float]
    ):
        self._mat, self._layout, self._condition_of = mat, layout, condition_of
        self._kept: tuple[tuple[float, str], PETSc.KSP] | None = None

    @property
    def factorizes(self) -> bool:
        """Whether by a factorization."""
        return is_assembled(self._mat) and has_package("mumps")

    def solve(self, b: np.ndarray, shift: float) -> np.ndarray:
        """Return a solution (n_local, m) that nobody has judged, not finite where the system is singular.

        Collective.

        Raises
        ------
        InputError
            The matrix is singular, to a factorization.
        NotConverged
            Iterations did not reach a relative residual of 1e-10.
        """
        if self.factorizes:
            return self._each_column(self.factorized(shift), b)
        return self._each_column(self._iterative(shift, "minres"), b, self._check)

    def least_squares(self, b: np.ndarray, shift: float) -> np.ndarray:
        """Return the solution of least norm (n_local, m) of those with the least residual, by LSQR.

        Collective.

        Raises
        ------
        NotConverged
            No least residual was found.
        """
        return self._each_column(self._iterative(shift, "lsqr"), b, self._check_least_squares)

    def factorized(self, shift: float) -> PETSc.KSP:
        """Return a solver that has factorized, by MUMPS, which has the determinant too. Collective.

        Raises
        ------
        InputError
            The matrix is singular.
        """

        def make() -> PETSc.KSP:
            matrix = self._mat.duplicate(copy=True)
            matrix.setOption(PETSc.Mat.Option.NEW_NONZERO_ALLOCATION_ERR, False)  # a diagonal may not be stored
            matrix.shift(shift)
            matrix.setOption(PETSc.Mat.Option.SYMMETRIC, True)
            solver = self._new("preonly", matrix)
            pc = solver.getPC()
            pc.setType("cholesky")
            pc.setFactorSolverType("mumps")
            pc.setFactorSetUpSolverType()
            pc.getFactorMatrix().setMumpsIcntl(33, 1)  # the determinant, which costs nothing
            return solver

        solver = self._keep((shift, "cholesky"), make)
        if solver.getPC().getFactorMatrix().getMumpsInfog(1) < 0:
            self.close()
            raise refusal(shift, np.inf)
        return solver

    def _each_column(
        self,
        solver: PETSc.KSP,
        b: np.ndarray,
        check: Callable[[PETSc.KSP, PETSc.Vec, PETSc.Vec], None] = lambda *_: None,
    ) -> np.ndarray:
        out, largest = np.empty_like(b), np.empty(b.shape[1])
        self._layout.comm.Allreduce(np.abs(b).max(axis=0, initial=0.0), largest, op=MPI.MAX)
        powers = np.frexp(np.where(np.isfinite(largest), largest, 0.0))[
            1
        ]  # after which squares are numbers, not zero
        for j, power in enumerate(powers.tolist()):
            right, x = self._mat.createVecRight(), self._mat.createVecRight()
            right.setArray(np.ldexp(b[:, j], -power))
            with readable_errors("solving with a structured Hessian"), held_errors():
                solver.solve(right, x)
            check(solver, right, x)
            out[:, j] = np.ldexp(x.getArray(), power)
            destroy(right, x)
        return out

    def _iterative(self, shift: float, kind: str) -> PETSc.KSP:
        def make() -> PETSc.KSP:
            size = ((self._layout.n_local, self._layout.n),) * 2
            matrix = PETSc.Mat().createPython(size, ShiftedShell(self._mat, shift), comm=self._layout.comm)
            matrix.setOption(PETSc.Mat.Option.SYMMETRIC, True)
            matrix.setUp()
            solver = self._new(kind, matrix)
            solver.getPC().setType("none")
            solver.setTolerances(rtol=_AIM, atol=0.0, max_it=max(1000, 10 * self._layout.n))
            return solver

        return self._keep((shift, kind), make)

    def _new(self, kind: str, matrix: PETSc.Mat) -> PETSc.KSP:
        solver = PETSc.KSP().create(self._layout.comm)
        solver.setType(kind)
        solver.setOperators(matrix)
        destroy(matrix)  # the solver holds it
        return solver

    def _keep(self, which: tuple[float, str], make: Callable[[], PETSc.KSP]) -> PETSc.KSP:
        """Return the solver of a kind for a shift: the last one, if it was that."""
        if self._kept is not None and self._kept[0] == which:
            return self._kept[1]
        self.close()
        solver = make()
        self._kept = which, solver
        with readable_errors("factorizing a structured Hessian"):
            solver.setUp()
        return solver

    def _check(self, solver: PETSc.KSP, right: PETSc.Vec, x: PETSc.Vec) -> None:
        residual = right.duplicate()
        solver.getOperators()[0].mult(x, residual)
        residual.aypx(-1.0, right)
        size, error = right.norm(), residual.norm()
        destroy(residual)
        if not error <= _ACCEPT * size:
            raise NotConverged(
                f"MINRES reached a relative residual of {error / size:.1e} in {solver.getIterationNumber()} "
                f"steps; the condition is at least {self._shown_condition(right, x):.0e}: a larger shift, "
                'an assembled matrix, or singular="least-squares" would help'
            )

    def _check_least_squares(self, solver: PETSc.KSP, right: PETSc.Vec, x: PETSc.Vec) -> None:
        if solver.getConvergedReason() <= 0:
            raise NotConverged(
                f"LSQR found no least residual in {solver.getIterationNumber()} steps; the condition beside null "
                f"vectors is at least {self._shown_condition(right, x):.0e}: a structure that tells its "
                "eigenvectors, or a shift, would help"
            )

    def _shown_condition(self, right: PETSc.Vec, x: PETSc.Vec) -> float:
        shift = self._kept[0][0] if self._kept else 0.0
        return self._condition_of(shift, x.getArray()[:, None], right.getArray()[:, None])

    def close(self) -> None:
        """Destroy the solver. Collective."""
        if self._kept is not None:
            destroy(self._kept[1])
        self._kept = None
