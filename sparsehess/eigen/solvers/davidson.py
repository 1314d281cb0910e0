"""SLEPc's Davidson solvers: the ends of a spectrum by a preconditioner, without a factorization."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from typing import Any

from sparsehess.eigen.problem.null_space import projected
from sparsehess.eigen.problem.petsc_options import PREFIX
from sparsehess.eigen.solvers.preconditioned_solver import PreconditionedSolver
from sparsehess.eigen.solvers.solve_monitor import OnRestart, SolveMonitor
from sparsehess.errors import StackError
from sparsehess.runtime import FAILED, PETSc, SLEPc, complex_scalars, destroy, error_code, held_errors

# JD solves its correction equations loosely, and two at a time: with ten steps of BiCGStab(l), one at a time,
# it found one copy of a double eigenvalue of a cube and then crept for thousands of steps.
DEFAULTS = {
    "gd": {"eps_type": "gd", "st_type": "precond", "st_ksp_type": "preonly", "eps_max_it": 5000},
    "jd": {
        "eps_type": "jd",
        "st_type": "precond",
        "st_ksp_type": "minres",
        "st_ksp_max_it": 5,
        "st_ksp_rtol": 1e-2,
        "eps_jd_blocksize": 2,
        "eps_max_it": 2000,
    },
}


# SLEPc's error where all of a space has converged, as of a matrix with few different eigenvalues.
_NOTHING_LEFT = 58


class Davidson(PreconditionedSolver):
    """Generalised Davidson (`gd`) or Jacobi-Davidson (`jd`).

    Davidson 1975, as Romero and Roman 2014 do it; Sleijpen and van der Vorst 1996.
    """

    def _settings(self) -> dict:
        return DEFAULTS[self.method]

    def _sizes(self, k: int, deflated: int, wider: int, guesses: int) -> dict:
        ncv = min(max(2 * k, k + 15) + wider, self.problem.n - deflated)
        # Random vectors beside the guess: SLEPc's Davidson solvers stop with error 58 where all of their
        # space has converged at once.
        return {"eps_ncv": ncv, f"eps_{self.method}_initial_size": min(guesses + 5, ncv)}

    def _fills_space(self, k: int, deflated: int, wider: int, guesses: int) -> bool:
        """Return whether the basis is the whole space, which SLEPc's Davidson solvers cannot expand.

        Not collective.
        """
        return self._sizes(k, deflated, wider, guesses)["eps_ncv"] >= self.problem.n - deflated

    def _starts(self) -> int:
        return int(self.used_defaults()[f"eps_{self.method}_initial_size"])

    def _iterate(
        self,
        which: str,
        k: int,
        away: list[PETSc.Vec],
        guess: list[PETSc.Vec],
        fresh: list[PETSc.Vec],
        on_restart: OnRestart,
    ) -> list[PETSc.Vec]:
        eps = SLEPc.EPS().create(self.problem.A.comm)
        matrix = projected(self.problem.A, self.problem.null_space)
        try:
            self._configure(eps, matrix, which, k)
            if away:
                eps.setDeflationSpace(away)
            eps.setInitialSpace([*guess, *fresh])
            eps.setFromOptions()
            monitor = SolveMonitor(self.on_progress, on_restart, k)
            monitor.attach(eps)
            began = time.perf_counter()
            with held_errors():
                eps.setUp()
                eps.getST().getKSP().getPC().setUp()
            set_up = time.perf_counter()
            self._run(eps)
            monitor.raise_error()
            self.seconds["factorization"] += set_up - began
            self.seconds["solve"] += time.perf_counter() - set_up
            self.iterations += eps.getIterationNumber()
            return self._vectors(eps)
        finally:
            eps.cancelMonitor()
            destroy(eps, None if matrix is self.problem.A else matrix)

    def _configure(self, eps: SLEPc.EPS, matrix: PETSc.Mat, which: str, k: int) -> None:
        problem, kinds, ends = self.problem, SLEPc.EPS.ProblemType, SLEPc.EPS.Which
        eps.setOptionsPrefix(PREFIX)
        eps.setOperators(matrix, problem.M)
        eps.setProblemType(kinds.HEP if problem.M is None else kinds.GHEP)
        eps.setType(self.method)
        eps.setWhichEigenpairs(ends.SMALLEST_REAL if which == "smallest" else ends.LARGEST_REAL)
        eps.setDimensions(nev=k)
        eps.setTolerances(tol=self.tol)
        self._test = _convergence_test(eps, self._allowed, self.tol)  # held for as long as it is called
        st = eps.getST()
        st.setType("precond")
        st.setPreconditionerMat(self._preconditioners[which].matrix)

    def _run(self, eps: SLEPc.EPS) -> None:
        self._broke = False
        try:
            with held_errors():
                eps.solve()
        except (PETSc.Error, SystemError) as error:
            # A Gram matrix that lost its definiteness to rounding, or a space that nothing expands: on all alike.
            if error_code(error) not in (FAILED, _NOTHING_LEFT):
                raise
            self._broke = True
        else:
            self._broke = eps.getConvergedReason() == SLEPc.EPS.ConvergedReason.DIVERGED_BREAKDOWN

    def _vectors(self, eps: SLEPc.EPS) -> list[PETSc.Vec]:
        vectors = []
        try:
            for i in range(eps.getConverged()):
                vector = self.problem.A.createVecRight()
                eps.getEigenvector(i, vector)
                vectors.append(vector)
        except (PETSc.Error, SystemError) as error:  # after a breakdown SLEPc has none to give, on all ranks alike
            if error_code(error) is None:
                raise
        return vectors


# Two scalars, the residual's norm; the ABIs of x86-64 and AArch64 pass a complex number as two real ones.
_NUMBERS = 5 if complex_scalars() else 3
_SIGNATURE = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_void_p,
    *[ctypes.c_double] * _NUMBERS,
    ctypes.POINTER(ctypes.c_double),
    ctypes.c_void_p,
)


def _convergence_test(eps: SLEPc.EPS, allowed: Callable[[float], float], tol: float) -> object:
    """Have SLEPc test a residual against allowed(eigenvalue); return what must be held meanwhile.

    slepc4py does not expose EPSSetConvergenceTestFunction, and SLEPc's own tests fit neither an eigenvalue
    of zero (relative) nor small ones (by norm).
    """

    def test(handle: int, *arguments: Any) -> int:
        numbers, (estimate, _) = arguments[:_NUMBERS], arguments[_NUMBERS:]
        estimate[0] = tol * numbers[-1] / allowed(numbers[0])  # residual and eigenvalue
        return 0

    held = _SIGNATURE(test)
    function = ctypes.CDLL(SLEPc.__file__).EPSSetConvergenceTestFunction
    if function(ctypes.c_void_p(eps.handle), held, None, None):
        raise StackError("SLEPc did not take a convergence test")
    return held
