"""Solvers for the ends of a spectrum that need a preconditioner and no factorization: what they share."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from sparsehess.eigen.problem.petsc_options import PREFIX, Options
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.problem.rayleigh_ritz import rayleigh_ritz
from sparsehess.eigen.problem.whole_matrix import LARGEST
from sparsehess.eigen.solvers.lapack import LIMIT, LapackSolver
from sparsehess.eigen.solvers.preconditioners import Preconditioner, preconditioner
from sparsehess.eigen.solvers.solve_monitor import OnProgress, OnRestart, ignore_progress, ignore_restart
from sparsehess.errors import InputError
from sparsehess.runtime import PETSc, destroy, readable_errors
from sparsehess.runtime.petsc_matrices import is_assembled
from sparsehess.runtime.random_numbers import draw_uniform

# No residual below this part of the tolerance, relative to a typical eigenvalue, is waited for: where an
# eigenvalue is zero nothing else ends the waiting, and a preconditioner amplifies rounding.
_FLOOR = 1e-2


@dataclass
class PreconditionedSolver(ABC):
    """A preconditioned solver for a problem, kept for several solves; `close()` destroys it.

    Either end is preconditioned by the matrix near the Hessian if the problem has one: a factorization, or the
    solves of a structure. Otherwise assembled Hessians are by algebraic multigrid, shells by their diagonal, and
    for the largest eigenvalues the mass is inverted by its diagonal.

    Attributes
    ----------
    problem
        What is solved; its mass must be positive definite.
    method
        Its name.
    options
        PETSc options, defaults overridden by the caller's.
    tol
        Backward error that every vector reaches that is returned.
    on_progress
        Called on every rank as on_progress(converged, wanted).
    seconds
        Time in setting up preconditioners ("factorization") and in solves.
    iterations
        Of all solves.
    """

    _in_mass: ClassVar[bool] = False  # whether its vectors have norm 1 in the mass
    _attempts: ClassVar[int] = 5  # that may be made of one solve

    problem: EigenProblem
    method: str
    options: dict
    tol: float = field(kw_only=True)
    on_progress: OnProgress = field(default=ignore_progress, kw_only=True)
    seconds: dict[str, float] = field(default_factory=lambda: {"factorization": 0.0, "solve": 0.0}, init=False)
    iterations: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        """Refuse a mass that is not positive definite."""
        problem = self.problem
        if problem.finite < problem.n:
            raise InputError(
                f"method {self.method} needs a mass matrix that is positive definite, this one has "
                f"{problem.n - problem.finite} zero rows: use method krylovschur, or remove the massless dofs"
            )
        self._preconditioners: dict[str, Preconditioner] = {}  # by the end that they serve
        self._defaults: dict = {}  # of the one in use
        self._broke = False  # whether the last solve ended early
        self._chosen: dict = {}
        self._given = Options(PREFIX, self.options)

    @property
    def products(self) -> int:
        """About how many products all solves took."""
        return self.iterations

    def used_defaults(self) -> dict:
        """Return the options of this solver: the defaults that apply, overridden by the caller's.

        Not collective.
        """
        return {**self._settings(), **self._defaults, **self._chosen, **self.options}

    def solve(
        self,
        which: str,
        k: int,
        *,
        deflate: Sequence[PETSc.Vec] = (),
        wider: int = 0,
        seed: int = 0,
        guess: Sequence[PETSc.Vec] = (),
        on_restart: OnRestart = ignore_restart,
    ) -> list[PETSc.Vec]:
        """Return the converged eigenvectors: at least k of them if all went well, maybe more.

        Collective. The caller destroys them.

        Parameters
        ----------
        which
            `smallest` or `largest`, algebraic.
        k
            How many are wanted.
        deflate
            Eigenvectors to stay away from, Vecs, beside the problem's null vectors.
        wider
            So many more vectors in the block or in the basis.
        seed
            Of the starting vectors.
        guess
            Vecs to start from, with random ones where they are fewer than the block.
        on_restart
            Called between iterations; what it returns ends the solve.
        """
        if which not in ("smallest", "largest"):
            raise InputError(f"method {self.method} finds the smallest or the largest, not {which!r}")
        away = [*self.problem.null, *deflate]
        k = min(k, self.problem.n - len(away))
        if k <= 0:
            return []
        small = self.problem.n <= LIMIT and not self.options
        if small and self._fills_space(k, len(away), wider, len(guess)):
            return self._solve_whole(which, k, deflate)
        found: list[PETSc.Vec] = []
        for attempt in range(self._attempts):
            start = found or list(guess)
            fresh = self._attempt(which, k, away, wider, seed + 7919 * attempt, start, on_restart)
            pairs = rayleigh_ritz(self.problem, fresh)
            destroy(*found)
            found, good = pairs.vectors, pairs.residuals <= self.problem.held_to(self.tol)
            changed = self._preconditioners[which].adapt(pairs.values, self._broke)
            if not changed and (np.count_nonzero(good) >= k or (attempt and not len(found))):
                break
        found = pairs.select(good).vectors
        if self._broke and len(found) < k and self.problem.n <= LARGEST and not self.options:
            destroy(*found)
            return self._solve_whole(which, k, deflate)
        self._given.refuse_unused()
        return found

    def _solve_whole(self, which: str, k: int, deflate: Sequence[PETSc.Vec]) -> list[PETSc.Vec]:
        """Return the eigenvectors of a small problem by LAPACK, where there is nothing to iterate. Collective."""
        whole = LapackSolver(self.problem)
        found = whole.solve(which, k, deflate=deflate)
        self.seconds["solve"] += whole.seconds["solve"]
        self.iterations += whole.iterations
        return found

    def close(self) -> None:
        """Destroy what preconditioners were made from.

        Collective.
        """
        for one in self._preconditioners.values():
            one.close()
        self._preconditioners.clear()

    # --- one solve ---

    @abstractmethod
    def _settings(self) -> dict:
        """Return the method's own options. Not collective."""

    @abstractmethod
    def _sizes(self, k: int, deflated: int, wider: int, guesses: int) -> dict:
        """Return the sizes of block or basis, as options. Not collective."""

    def _fills_space(self, k: int, deflated: int, wider: int, guesses: int) -> bool:
        """Return whether a basis is as large as the space, and nothing is left to iterate. Not collective."""
        return False

    @abstractmethod
    def _starts(self) -> int:
        """Return how many vectors a solve begins with. Not collective."""

    @abstractmethod
    def _iterate(
        self,
        which: str,
        k: int,
        away: list[PETSc.Vec],
        guess: list[PETSc.Vec],
        fresh: list[PETSc.Vec],
        on_restart: OnRestart,
    ) -> list[PETSc.Vec]:
        """Return what has converged, or come near; say in `_broke` whether it ended early.

        Collective.

        Parameters
        ----------
        away
            What to deflate.
        guess, fresh
            What to start from: the caller's vectors, and random ones.
        on_restart
            See `solve`.
        """

    def _attempt(
        self,
        which: str,
        k: int,
        away: list[PETSc.Vec],
        wider: int,
        seed: int,
        guess: list[PETSc.Vec],
        on_restart: OnRestart,
    ) -> list[PETSc.Vec]:
        if which not in self._preconditioners:
            began = time.perf_counter()
            self._preconditioners[which] = self._preconditioner(which)
            self.seconds["factorization"] += time.perf_counter() - began
        self._defaults = self._preconditioners[which].defaults
        self._chosen = self._sizes(k, len(away), wider, len(guess))
        starts = self._starts()
        given = guess[:starts]
        fresh = [self._random(seed + 104729 * j) for j in range(starts - len(given))]
        try:
            with self._given.inserted(self.used_defaults()), readable_errors("solving for eigenpairs"):
                return self._iterate(which, k, away, given, fresh, on_restart)
        finally:
            destroy(*fresh)

    def _preconditioner(self, which: str) -> Preconditioner:
        """Return what preconditions one end of the spectrum; it is closed with the solver. Collective."""
        return preconditioner(self.problem, which, self.options)

    def _random(self, seed: int) -> PETSc.Vec:
        """Return a random vector; it does not depend on the number of ranks."""
        vector = self.problem.A.createVecRight()
        vector.setArray(draw_uniform(self.problem.layout, seed))
        return vector

    # --- when a pair has converged ---

    def _allowed(self, value: float) -> float:
        """Return the residual norm that suffices for an eigenvalue.

        Of a vector of norm 1, in the mass or in the 2-norm.
        Two bounds hold: the backward error, and a relative residual of 0.1 sqrt(tol), for which the
        eigenvalue is good to tol (its error is quadratic in the residual: Parlett 1998, theorem 11.7.1).
        For the smallest eigenvalues of a large matrix a backward error alone says nothing.
        """
        problem, tol = self.problem, self.problem.held_to(self.tol)
        norm_a, _ = problem.norms
        mean, heaviest = self._masses
        size, least = (mean**-0.5, heaviest**-0.5) if self._in_mass else (1.0, 1.0)
        if tol > self.tol:  # the error of products, which every vector feels
            return 0.9 * tol * norm_a * least
        backward = 0.5 * tol * norm_a * least
        relative = 0.1 * math.sqrt(tol) * abs(value) * mean * size
        typical = norm_a / math.sqrt(problem.n)
        floor = max(_FLOOR * tol, problem.relative_error) * typical * size
        return max(min(backward, relative), min(floor, backward))

    @property
    def _masses(self) -> tuple[float, float]:
        problem = self.problem
        if problem.M is None:
            return 1.0, 1.0
        if not hasattr(self, "_heaviest"):
            self._heaviest = problem.M.norm(PETSc.NormType.INFINITY) if is_assembled(problem.M) else 0.0
        mean = problem.masses[0]
        return mean, max(self._heaviest, mean)
