"""The solvers of one call of `solve` for the outermost or nearest pairs, each made when it is first asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from sparsehess.eigen.problem.factorization import Pivots
from sparsehess.eigen.problem.problem import EigenProblem, slepc_tolerance
from sparsehess.eigen.problem.rayleigh_ritz import RitzPairs
from sparsehess.eigen.problem.solve_spec import SolveSpec
from sparsehess.eigen.solvers.davidson import Davidson
from sparsehess.eigen.solvers.krylov_schur import KrylovSchur
from sparsehess.eigen.solvers.lapack import LapackSolver
from sparsehess.eigen.solvers.lobpcg import Lobpcg
from sparsehess.eigen.solvers.method_choice import KRYLOV, Choice
from sparsehess.eigen.solvers.one_shift import OneShift
from sparsehess.eigen.solvers.pairs_across import share_across
from sparsehess.eigen.solvers.solve_monitor import OnProgress, OnRestart
from sparsehess.eigen.solvers.spectrum_targets import Counter
from sparsehess.operators.structure import Structure
from sparsehess.runtime import PETSc, destroy

# Options without which SLEPc returns copies: its Lanczos does not reorthogonalise by itself.
_AGAINST_COPIES = {"lanczos": {"eps_lanczos_reorthog": "full"}}

# Restarts by products alone, where shift-and-invert from outside of the spectrum is another way.
_RESTARTS = 15

# Options of a caller who says himself when a pair has converged, or by what.
_TESTS = ("eps_tol", "eps_conv", "eps_type")

# No residual of a basis that is orthogonal to rounding is smaller.
_LEAST = 2e-14


class PairSolver(Protocol):
    """Finds eigenpairs at an end of a spectrum.

    Attributes
    ----------
    seconds
        Time in factorizations and in solves.
    iterations, products
        Of all solves; products with the matrix or its inverse, about.
    """

    seconds: dict[str, float]
    iterations: int

    @property
    def products(self) -> int:
        """About how many products all solves took."""

    def solve(
        self,
        which: str,
        k: int,
        *,
        deflate: Sequence[PETSc.Vec],
        wider: int,
        seed: int,
        guess: Sequence[PETSc.Vec],
        on_restart: OnRestart,
    ) -> list[PETSc.Vec]:
        """Return the converged eigenvectors; the caller destroys them. Collective."""

    def used_defaults(self) -> dict:
        """Return the PETSc options of the last solve. Not collective."""

    def close(self) -> None:
        """Destroy what is kept between solves. Collective."""


class StructureCounter:
    """Counts the eigenvalues of a structured Hessian as a factorization does, but for known zeros."""

    shift: float | None = None  # there is no factorization

    def __init__(self, problem: EigenProblem, structure: Structure):
        self._structure, self._zeros, self._n = structure, len(problem.null), problem.n
        self._coupled = _coupling(problem)
        self._problem, self._last = problem, 0.0

    def shift_to(self, shift: float) -> Pivots:
        """Return how many eigenvalues are below, at and above a shift.

        Collective. The structure counts A, what is asked for is PᵀAP: without what couples A to the null vectors,
        of norm ρ at most, no eigenvalue moves by more than 2 ρ (Weyl). Those so near to the shift are taken to be
        at it, zeros of the null vectors too.
        """
        near, self._last = 2 * self._coupled, shift
        below, upto = self._structure.count(shift - near), self._structure.count(shift + near)
        known = self._zeros if shift > 0 else 0
        at = upto - below if near else 0
        if self._zeros and abs(shift) <= near:
            return Pivots(below, max(at, 1), self._n - self._zeros - below - max(at, 1))
        return Pivots(below - known, at, self._n - self._zeros - (below - known) - at)

    def margin(self) -> float:
        """Return that a structure counts exactly. Not collective."""
        return np.inf

    def across(self, pairs: RitzPairs, inside: np.ndarray) -> float:
        """Return how much of some pairs may lie beyond the last shift; see `share_across`. Collective."""
        return share_across(self._problem, pairs, inside, self._last, None)


def _coupling(problem: EigenProblem) -> float:
    """Return a bound on the norm of A on the span of the known null vectors. Collective."""
    image, squares = problem.A.createVecLeft(), 0.0
    for vector in problem.null:
        problem.A.mult(vector, image)
        squares += (image.norm() / vector.norm()) ** 2
    destroy(image)
    return squares**0.5


class EndSolvers:
    """The solvers for one problem; `close()` destroys those that were made.

    Parameters
    ----------
    problem, spec, choice
        What is solved, what is asked for, and by which method.
    on_progress
        Called on every rank as on_progress(converged, wanted).
    inverts
        Whether the pairs are found by shift-and-invert.
    """

    def __init__(
        self, problem: EigenProblem, spec: SolveSpec, choice: Choice, on_progress: OnProgress, inverts: bool
    ):
        self.problem, self.spec, self.choice = problem, spec, choice
        self._on_progress, self._inverts = on_progress, inverts
        self._krylov: dict[bool, KrylovSchur] = {}  # with and without shift-and-invert
        self._others: list[PairSolver] = []

    def shifted(self) -> KrylovSchur:
        """Return the solver that factorizes. Not collective."""
        return self._krylov_schur(True)

    def main(self) -> PairSolver:
        """Return the solver that finds the pairs. Not collective."""
        if self.choice.method in KRYLOV:
            return self._krylov_schur(self._inverts)
        if not self._others:
            self._others.append(self._other(self.choice.method))
        return self._others[0]

    @property
    def of_one_space(self) -> bool:
        """Whether the pairs of a solve are those of one Krylov space, with residuals along one vector."""
        return any(solver.held is not None for solver in self._krylov.values())

    @property
    def factorized(self) -> bool:
        """Whether a factorization has been made."""
        return True in self._krylov

    def counter(self) -> Counter:
        """Return what counts eigenvalues: the structure of the problem, else factorizations. Not collective."""
        structure = self.problem.structure
        return StructureCounter(self.problem, structure) if structure.knows_counts else self.shifted()

    def _krylov_schur(self, invert: bool) -> KrylovSchur:
        if invert not in self._krylov:
            method = self.choice.method
            # Options of the caller belong to the solver that does the work, not to one that counts.
            works = method in KRYLOV and invert == self._inverts
            options = self.spec.options if works else {}
            if works and method != "krylovschur":
                options = {"eps_type": method, **_AGAINST_COPIES.get(method, {}), **options}
            another = (
                self.problem.factorizes and not self.problem.uncounted
            )  # a way, where products do not find them
            self._krylov[invert] = KrylovSchur(
                self.problem,
                invert,
                options,
                tol=slepc_tolerance(self.problem, self.spec.tol),
                held=None if invert else self._held(options),
                on_progress=self._on_progress,
                restarts=_RESTARTS if another and not invert and method == "krylovschur" else None,
            )
        return self._krylov[invert]

    def _held(self, options: dict) -> float | None:
        """Return the backward error at which a solve by products ends, None where SLEPc's test decides."""
        problem = self.problem
        if problem.assembled or problem.M is not None or any(key.startswith(_TESTS) for key in options):
            return None
        return max(self.spec.tol, _LEAST, problem.relative_error)

    def _other(self, method: str) -> PairSolver:
        problem, spec = self.problem, self.spec
        if method == "dense":
            return LapackSolver(problem, spec.options, target=spec.target or 0.0, on_progress=self._on_progress)
        if method == "oneshift":
            return OneShift(
                problem, method, spec.options, tol=spec.tol, on_progress=self._on_progress, factors=self.shifted()
            )
        kind = Lobpcg if method == "lobpcg" else Davidson
        return kind(problem, method, spec.options, tol=spec.tol, on_progress=self._on_progress)

    def _made(self) -> list[PairSolver]:
        return [*(self._krylov[key] for key in (True, False) if key in self._krylov), *self._others]

    @property
    def iterations(self) -> int:
        """Iterations of all solvers."""
        return sum(solver.iterations for solver in self._made())

    @property
    def products(self) -> int:
        """About how many products all solvers took."""
        return sum(solver.products for solver in self._made())

    def seconds(self) -> dict[str, float]:
        """Return the time of all solvers in factorizations and in solves. Not collective."""
        names = ("factorization", "solve")
        return {name: sum(solver.seconds[name] for solver in self._made()) for name in names}

    def used_defaults(self) -> dict:
        """Return the PETSc options of the solver that finds the pairs, none before a solver was made.

        Not collective.
        """
        return self.main().used_defaults() if self._made() else {}

    def close(self) -> None:
        """Destroy the solvers. Collective."""
        for solver in self._made():
            solver.close()
