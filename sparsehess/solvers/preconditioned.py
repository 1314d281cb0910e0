"""SLEPc's LOBPCG and Davidson solvers: the ends of a spectrum by a preconditioner, without a factorization."""

from __future__ import annotations

import ctypes
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from sparsehess.errors import InputError, StackError
from sparsehess.reproducible import uniform
from sparsehess.runtime import (
    FAILED,
    PETSc,
    SLEPc,
    complex_scalars,
    destroy,
    error_code,
    readable_errors,
)
from sparsehess.solvers.krylovschur import PREFIX
from sparsehess.solvers.options import Options
from sparsehess.solvers.preconditioners import Diagonal, Multigrid, Near, preconditioner
from sparsehess.solvers.problem import EigenProblem, is_assembled
from sparsehess.solvers.refine import rayleigh_ritz
from sparsehess.solvers.watch import Watch

# No residual below this part of the tolerance, relative to a typical eigenvalue, is waited for: where an
# eigenvalue is zero nothing else ends the waiting, and a preconditioner amplifies rounding.
_FLOOR = 1e-2

# `preonly`: left to itself SLEPc wraps the preconditioner of LOBPCG in five steps of GMRES, which is no
# symmetric operator and costs four times as much for half the iterations.
# `svqb` (Stathopoulos and Wu 2002): vector by vector a fifth more time goes to orthogonalisation in the mass.
# JD solves its correction equations loosely, and two at a time: with ten steps of BiCGStab(l), one at a time,
# it found one copy of a double eigenvalue of a cube and then crept for thousands of steps.
DEFAULTS = {
    "lobpcg": {
        "eps_type": "lobpcg",
        "st_type": "precond",
        "st_ksp_type": "preonly",
        "bv_orthog_block": "svqb",
        "eps_max_it": 2000,
    },
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

# Solves that may be made of one.
_AGAIN = 5

# More vectors than this in a block cost more in dense algebra than they save in iterations.
_BLOCK = 64


@dataclass
class Preconditioned:
    """One of SLEPc's preconditioned solvers for a problem, kept for several solves; `close()` destroys it.

    Assembled Hessians are preconditioned with algebraic multigrid, shells by their diagonal, either by a
    factorization of a matrix near them if the problem has one; for the largest eigenvalues the mass is inverted by
    its diagonal.

    Attributes
    ----------
    problem
        What is solved; its mass must be positive definite.
    method
        `lobpcg` (Knyazev 2001), `gd` (Davidson 1975, as Romero and Roman 2014 do it) or `jd` (Sleijpen and
        van der Vorst 1996).
    options
        PETSc options, defaults overridden by the caller's.
    tol
        Backward error that every vector reaches that is returned.
    on_progress
        Called on every rank as on_progress(converged, wanted).
    on_restart
        As for `KrylovSchur`, called between iterations.
    seconds
        Time in setting up preconditioners ("factorization") and in solves.
    iterations
        Of all solves.
    """

    problem: EigenProblem
    method: str
    options: dict
    tol: float = field(kw_only=True)
    on_progress: Callable[[int, int], None] = field(default=lambda done, total: None, kw_only=True)
    on_restart: Callable[[Callable[[], list]], Exception | None] | None = field(default=None, kw_only=True)
    seconds: dict[str, float] = field(default_factory=lambda: {"factorization": 0.0, "solve": 0.0}, init=False)
    iterations: int = field(default=0, init=False)

    def __post_init__(self):
        problem = self.problem
        if self.method not in DEFAULTS:
            raise InputError(f"method={self.method!r} is none of {', '.join(DEFAULTS)}")
        if problem.finite < problem.n:
            raise InputError(
                f"method {self.method} needs a mass matrix that is positive definite, this one has "
                f"{problem.n - problem.finite} zero rows: use method krylovschur, or remove the massless dofs"
            )
        self._preconditioners: dict[str, Diagonal | Near | Multigrid] = {}  # by the end that they serve
        self._defaults: dict = {}  # of the one in use
        self._broke = False  # whether the last solve ended early
        self._chosen: dict = {}
        self._given = Options(PREFIX, self.options)

    def used_defaults(self) -> dict:
        """Return the options of this solver: the defaults that apply, overridden by the caller's.

        Not collective.
        """
        return {**DEFAULTS[self.method], **self._defaults, **self._chosen, **self.options}

    def solve(self, which: str, k: int, *, deflate=(), wider: int = 0, seed: int = 0, guess=()) -> list[PETSc.Vec]:
        """Return the converged eigenvectors: at least k of them if all went well, maybe more.

        Collective. The caller destroys them.

        Parameters
        ----------
        which
            `smallest` or `largest`, algebraic.
        k
            How many are wanted.
        deflate
            Eigenvectors to stay away from, Vecs; the problem's null vectors need not be among them.
        wider
            So many more vectors in the block or in the basis.
        seed
            Of the starting vectors.
        guess
            Vecs to start from, with random ones where they are fewer than the block.
        """
        if which not in ("smallest", "largest"):
            raise InputError(f"method {self.method} finds the smallest or the largest, not {which!r}")
        away = [*self.problem.null, *(v for v in deflate if v not in self.problem.null)]
        k = min(k, self.problem.n - len(away))
        if k <= 0:
            return []
        found: list[PETSc.Vec] = []
        for attempt in range(_AGAIN):
            start = found or list(guess)
            fresh = self._attempt(which, k, away, wider, seed + 7919 * attempt, start)
            values, fresh, errors, _ = rayleigh_ritz(self.problem, fresh)
            destroy(*found)
            found = fresh
            changed = self._preconditioners[which].farther(values, self._broke)
            if not changed and (np.count_nonzero(errors <= self.tol) >= k or (attempt and not len(found))):
                break
        good = errors <= self.tol
        destroy(*(v for v, keep in zip(found, good, strict=True) if not keep))
        self._given.refuse_unused()
        return [v for v, keep in zip(found, good, strict=True) if keep]

    def close(self) -> None:
        """Destroy what preconditioners were made from.

        Collective.
        """
        for one in self._preconditioners.values():
            one.close()
        self._preconditioners.clear()

    # --- one solve ---

    def _attempt(self, which, k, away, wider, seed, guess) -> list[PETSc.Vec]:
        if which not in self._preconditioners:
            self._preconditioners[which] = preconditioner(self.problem, which, self.options)
        self._defaults = self._preconditioners[which].defaults
        self._chosen = self._sizes(k, len(away), wider, len(guess))
        problem, made = self.problem, []
        eps = SLEPc.EPS().create(problem.A.comm)
        try:
            with self._given.inserted(self.used_defaults()), readable_errors("solving for eigenpairs"):
                self._configure(eps, which, k)
                if away:
                    eps.setDeflationSpace(away)
                start = guess[: self._starts()]
                made = self._starting(self._starts() - len(start), seed)
                eps.setInitialSpace([*start, *made])
                eps.setFromOptions()
                watch = Watch(self.on_progress, self.on_restart, k)
                watch.set_on(eps)
                began = time.perf_counter()
                eps.setUp()
                eps.getST().getKSP().getPC().setUp()
                set_up = time.perf_counter()
                self._run(eps)
                watch.settle()
                self.seconds["factorization"] += set_up - began
                self.seconds["solve"] += time.perf_counter() - set_up
            self.iterations += eps.getIterationNumber()
            return self._vectors(eps)
        finally:
            eps.cancelMonitor()
            destroy(*made, eps)

    def _configure(self, eps, which: str, k: int) -> None:
        problem, kinds, ends = self.problem, SLEPc.EPS.ProblemType, SLEPc.EPS.Which
        eps.setOptionsPrefix(PREFIX)
        eps.setOperators(problem.A, problem.M)
        eps.setProblemType(kinds.HEP if problem.M is None else kinds.GHEP)
        eps.setType(self.method)
        eps.setWhichEigenpairs(ends.SMALLEST_REAL if which == "smallest" else ends.LARGEST_REAL)
        eps.setDimensions(nev=k)
        eps.setTolerances(tol=self.tol)
        self._test = _convergence_test(eps, self._allowed, self.tol)  # held for as long as it is called
        st = eps.getST()
        st.setType("precond")
        st.setPreconditionerMat(self._preconditioners[which].matrix)

    def _run(self, eps) -> None:
        self._broke = False
        try:
            eps.solve()
        except (PETSc.Error, SystemError) as error:
            # A Gram matrix that lost its definiteness to rounding, on all ranks alike.
            if error_code(error) != FAILED:
                raise
            self._broke = True
        else:
            self._broke = eps.getConvergedReason() == SLEPc.EPS.ConvergedReason.DIVERGED_BREAKDOWN

    def _vectors(self, eps) -> list[PETSc.Vec]:
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

    def _sizes(self, k: int, deflated: int, wider: int, guesses: int) -> dict:
        """Return the sizes of block or basis, as options.

        Guard vectors beyond the wanted ones take part in the block: it converges as the gap behind the last
        of them allows. With fewer vectors than are wanted SLEPc locks them portion by portion.
        """
        room = self.problem.n - deflated
        if self.method == "lobpcg":
            block = min(k + max(3, k // 4) + wider, max(_BLOCK, k if k <= _BLOCK else 0) + wider, room // 5)
            if block < 1:
                raise InputError(f"n = {self.problem.n} is too small for lobpcg: use method dense")
            return {"eps_lobpcg_blocksize": block, "eps_lobpcg_restart": 0.9 if block > k + block // 10 else 0.7}
        ncv = min(max(2 * k, k + 15) + wider, room)
        # Random vectors beside the guess: SLEPc's Davidson solvers stop with error 58 where all of their
        # space has converged at once.
        return {"eps_ncv": ncv, f"eps_{self.method}_initial_size": min(guesses + 5, ncv)}

    def _starts(self) -> int:
        """Return how many vectors a solve begins with."""
        name = "eps_lobpcg_blocksize" if self.method == "lobpcg" else f"eps_{self.method}_initial_size"
        return int(self.used_defaults()[name])

    def _starting(self, number: int, seed: int) -> list[PETSc.Vec]:
        """Return random vectors; they do not depend on the number of ranks."""
        vectors = []
        for j in range(number):
            vector = self.problem.A.createVecRight()
            vector.setArray(uniform(self.problem.layout, seed + 104729 * j))
            vectors.append(vector)
        return vectors

    # --- when a pair has converged ---

    def _allowed(self, value: float) -> float:
        """Return the residual norm that suffices for an eigenvalue.

        Of a vector of norm 1: in the mass for LOBPCG, in the 2-norm for Davidson's (so SLEPc normalises).
        Two bounds hold: the backward error, and a relative residual of 0.1 sqrt(tol), for which the
        eigenvalue is good to tol (its error is quadratic in the residual: Parlett 1998, theorem 11.7.1).
        For the smallest eigenvalues of a large matrix a backward error alone says nothing.
        """
        norm_a, _ = self.problem.norms
        mean, heaviest = self._masses
        size, least = (mean**-0.5, heaviest**-0.5) if self.method == "lobpcg" else (1.0, 1.0)
        backward = 0.5 * self.tol * norm_a * least
        relative = 0.1 * math.sqrt(self.tol) * abs(value) * mean * size
        typical = norm_a / math.sqrt(self.problem.n)
        floor = max(_FLOOR * self.tol, self.problem.relative_error) * typical * size
        return max(min(backward, relative), min(floor, backward))

    @property
    def _masses(self) -> tuple[float, float]:
        problem = self.problem
        if problem.M is None:
            return 1.0, 1.0
        if not hasattr(self, "_heaviest"):
            self._heaviest = problem.M.norm(PETSc.NormType.INFINITY) if is_assembled(problem.M) else 0.0
        mean = problem.mass_diagonal[0]
        return mean, max(self._heaviest, mean)


# Two scalars, the residual's norm; the ABIs of x86-64 and AArch64 pass a complex number as two real ones.
_NUMBERS = 5 if complex_scalars() else 3
_SIGNATURE = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_void_p,
    *[ctypes.c_double] * _NUMBERS,
    ctypes.POINTER(ctypes.c_double),
    ctypes.c_void_p,
)


def _convergence_test(eps, allowed: Callable[[float], float], tol: float):
    """Have SLEPc test a residual against allowed(eigenvalue); return what must be held meanwhile.

    slepc4py does not expose EPSSetConvergenceTestFunction, and SLEPc's own tests fit neither an eigenvalue
    of zero (relative) nor small ones (by norm).
    """

    def test(handle, *told):
        numbers, (estimate, _) = told[:_NUMBERS], told[_NUMBERS:]
        estimate[0] = tol * numbers[-1] / allowed(numbers[0])  # residual and eigenvalue
        return 0

    held = _SIGNATURE(test)
    function = ctypes.CDLL(SLEPc.__file__).EPSSetConvergenceTestFunction
    if function(ctypes.c_void_p(eps.handle), held, None, None):
        raise StackError("SLEPc did not take a convergence test")
    return held
