"""The state of a search for the outermost or nearest pairs: what is found, and the next attempt to find more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sparsehess.eigen.problem.count import Count
from sparsehess.eigen.problem.krylov_pairs import krylov_pairs, pays
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.problem.rayleigh_ritz import RitzPairs, rayleigh_ritz, without_copies
from sparsehess.eigen.problem.search import Search
from sparsehess.eigen.problem.solve_spec import SolveSpec
from sparsehess.eigen.solvers.end_solvers import EndSolvers
from sparsehess.eigen.solvers.krylov_schur import KrylovSchur
from sparsehess.eigen.solvers.one_shift import Start
from sparsehess.eigen.solvers.search_beyond import look_beyond
from sparsehess.eigen.solvers.search_store import SearchStore
from sparsehess.eigen.solvers.spectrum_targets import ShiftedTarget, SpectrumTarget, separation
from sparsehess.runtime import PETSc, complex_scalars, destroy

# Signs of the ends beyond which others may lie, by what is searched for.
_SIDES = {"smallest": (-1,), "largest": (1,), "magnitude": (1, -1)}


@dataclass(frozen=True)
class Attempt:
    """One solve that a search is to make.

    Attributes
    ----------
    number
        How many pairs to find beside those found.
    seed
        Of the starting vectors.
    wider
        So many more basis vectors than the solver would take.
    cluster_after
        See `KrylovSchur.solve`.
    guess
        Vecs to start from.
    shift
        Where to solve by shift-and-invert, at which the solver has been factorized; None to solve as always.
    block
        Whether by inverse iteration with a block, instead of a Krylov space.
    """

    number: int
    seed: int
    wider: int = 0
    cluster_after: int | None = None
    guess: Sequence[PETSc.Vec] = ()
    shift: float | None = None
    block: bool = False


class ExtremalSearch:
    """A search for pairs by products, or by a preconditioner; `close()` destroys what it has found.

    Collective to use.

    Parameters
    ----------
    problem, spec, target
        What is solved, what is asked for, and the part of the spectrum that this is.
    wanted
        How many pairs.
    solvers
        Those that may be used.
    store
        Where what is found is saved.

    Attributes
    ----------
    pairs
        Those found that reach the tolerance.
    stale
        Vectors that came last with a residual above the tolerance.
    unfinished
        Vectors of a saved search that do not reach the tolerance: to start from.
    count
        What the last count says, if there was one.
    search
        What looking beyond the pairs found has shown, if that was done.
    apart
        How many pairs were found before the first wide gap that was passed; 0 where none was.
    """

    def __init__(
        self,
        problem: EigenProblem,
        spec: SolveSpec,
        target: SpectrumTarget,
        wanted: int,
        solvers: EndSolvers,
        store: SearchStore,
    ):
        self.problem, self.spec, self.target, self.wanted = problem, spec, target, wanted
        self.solvers, self.store = solvers, store
        self.pairs = RitzPairs.none()
        self.stale = 0
        self.unfinished: list[PETSc.Vec] = []
        self.count: Count | None = None
        self.search: Search | None = None
        self.apart = 0

    @property
    def values(self) -> np.ndarray:
        """Eigenvalues found."""
        return self.pairs.values

    @property
    def missing(self) -> int:
        """How many of the wanted pairs are not found."""
        return self.wanted - len(self.values)

    def resume(self) -> None:
        """Take the eigenvectors that were saved, and prepare the solvers. Collective."""
        facts, vectors = self.store.load()
        if vectors:
            saved = rayleigh_ritz(self.problem, vectors)
            good = saved.residuals <= self.problem.held_to(self.spec.tol)
            self.unfinished = [vector for vector, done in zip(saved.vectors, good, strict=True) if not done]
            self.take([vector for vector, done in zip(saved.vectors, good, strict=True) if done])
        self._prepare(facts)

    def _prepare(self, facts: dict) -> None:
        """Prepare the solvers, from what was saved. Collective."""

    def carry_out(self, attempt: Attempt) -> None:
        """Solve, add what is found, and save that where it is due. Collective."""
        deflate = self.pairs.vectors
        number = min(attempt.number, self.problem.sought - len(deflate))
        if number <= 0:
            found = []
        elif attempt.shift is not None:
            found = self._solve_at(attempt.shift, attempt, number, deflate)
        else:
            found = self._solve(attempt, number, deflate)
        self._take_solved(found)
        self.store.pause(lambda: (self._facts(), self.pairs.vectors, []))

    def _solve(self, attempt: Attempt, number: int, deflate: list[PETSc.Vec]) -> list[PETSc.Vec]:
        """Return converged eigenvectors of an attempt. Collective."""
        return self.solvers.main().solve(
            self.target.which,
            number,
            deflate=deflate,
            wider=attempt.wider,
            seed=attempt.seed,
            guess=attempt.guess,
            on_restart=self._save_if_due,
        )

    def _solve_at(self, shift: float, attempt: Attempt, number: int, deflate: list[PETSc.Vec]) -> list[PETSc.Vec]:
        """Return eigenvectors of an attempt by shift-and-invert. Collective."""
        solver = self.solvers.shifted()
        solver.shift_to(shift)
        if attempt.block:
            return solver.iterate(number, deflate=deflate, seed=attempt.seed)
        return solver.solve(
            "nearest",
            number,
            deflate=deflate,
            wider=attempt.wider,
            seed=attempt.seed,
            cluster_after=attempt.cluster_after,
            guess=attempt.guess,
            on_restart=self._save_if_due,
        )

    def take(self, vectors: list[PETSc.Vec]) -> None:
        """Add vectors to what is found; keep the pairs that reach the tolerance. Collective."""
        new = without_copies(self.problem, vectors, self.pairs.vectors)
        self._keep(rayleigh_ritz(self.problem, self.pairs.vectors + new))

    def _take_solved(self, vectors: list[PETSc.Vec]) -> None:
        """Add what a solver has found; where that is all, and of one Krylov space, few products verify it.

        Collective.
        """
        problem, tol = self.problem, self.problem.held_to(self.spec.tol)
        alone = self.solvers.of_one_space and not self.pairs.vectors and not complex_scalars()
        pairs = None
        if alone and pays(problem, len(vectors), tol):
            pairs = krylov_pairs(problem, vectors, tol, self.spec.seed + 601)
        if pairs is None:
            self.take(vectors)
        else:
            self._keep(pairs)

    def _keep(self, pairs: RitzPairs) -> None:
        """Have those of some pairs that reach the tolerance be what is found. Collective."""
        good = pairs.residuals <= self.problem.held_to(self.spec.tol)
        self.stale = int(np.count_nonzero(~good))
        self.pairs = pairs.select(good)

    def look_beyond(self, seed: int) -> bool:
        """Return whether an eigenvalue may lie beyond the wanted ones, unfound.

        Collective. Lanczos steps tell, at most half as many as the solves took, or one; with a mass, and for
        Hermitian matrices, nothing is known of the start vectors, and another solve has to tell.
        """
        problem, sides = self.problem, _SIDES.get(self.target.which)
        if problem.M is not None or complex_scalars() or sides is None:
            return True
        wanted = self.values[self.target.nearest_first(self.values)[: self.wanted]]
        end = float(min(max(side * value for side in sides) for value in wanted))
        end += separation(problem, end)
        before = 0 if self.search is None else self.search.products
        most = max(self.solvers.products // 2, 1) - before
        if most < 1:
            self.search = Search(before, 1.0)
            return False
        look = look_beyond(problem, self.pairs.vectors, [(side, end) for side in sides], most, seed)
        self.search = Search(before + look.products, look.probability, look.beyond)
        return look.beyond

    def _facts(self) -> dict:
        """Return what is saved beside the vectors, as JSON. Not collective."""
        return {"shift": None}

    def _save_if_due(self, basis: Callable[[], list[PETSc.Vec]]) -> BaseException | None:
        return self.store.save_if_due(lambda: (self._facts(), self.pairs.vectors, basis()))

    def forget_unfinished(self) -> None:
        """Destroy the vectors of a saved search that do not reach the tolerance. Collective."""
        destroy(*self.unfinished)
        self.unfinished = []

    def close(self) -> None:
        """Destroy what was found. Collective."""
        self.forget_unfinished()
        destroy(*self.pairs.vectors)


class ShiftedSearch(ExtremalSearch):
    """A search by shift-and-invert; see `ExtremalSearch`.

    Attributes
    ----------
    shift
        From which the wanted eigenvalues are the nearest; known from `resume` on.
    """

    target: ShiftedTarget
    shift: float

    def _prepare(self, facts: dict) -> None:
        saved = facts.get("shift")
        self.shift = self.target.find_shift(self.solver, self._estimate_lowest) if saved is None else saved

    @property
    def solver(self) -> KrylovSchur:
        """The solver that factorizes at the shift."""
        return self.solvers.shifted()

    def _solve(self, attempt: Attempt, number: int, deflate: list[PETSc.Vec]) -> list[PETSc.Vec]:
        return self._solve_at(self.shift, attempt, number, deflate)

    def _facts(self) -> dict:
        return {"shift": self.shift}

    def move_below(self) -> bool:
        """Move a shift that lies among the wanted eigenvalues below them; say whether it moved. Collective."""
        shift = self.target.shift_below(self.values, self.shift, self.solver)
        if shift is None:
            return False
        self.shift = shift
        return True

    def move_to_cluster(self, low: float, high: float) -> bool:
        """Move the shift nearer to a cluster from `low` to `high`, on its side; say whether it moved.

        Collective. Nothing but what was found may be left on the other side.
        """
        side = self.target.side
        end = high if side > 0 else low
        step = max(2 * (high - low), 1e-9 * abs(end), 10 * separation(self.problem, end))
        while side * (self.shift - (end + side * step)) > 0:
            shift = end + side * step
            counts = self.solver.shift_to(shift)
            passed = int(np.count_nonzero(side * (self.values - shift) > 0))
            if (counts.negative if side < 0 else counts.positive) == passed:
                self.shift = shift
                return True
            step *= 8  # an eigenvalue lies farther out: the estimate was too far in
        return False

    def _estimate_lowest(
        self, below: KrylovSchur | None = None, options: dict[str, None] | None = None
    ) -> tuple[float, float]:
        """Return the lowest eigenvalue, roughly, and how far it may be; see `LowestEstimate`. Collective."""
        problem, seed = self.problem, self.spec.seed
        if below is None:
            rough = KrylovSchur(problem, False, options or {}, tol=1e-3)
            try:
                vectors = rough.solve("smallest", 1, seed=seed)
            finally:
                rough.close()
        else:
            vectors = below.solve("nearest", 1, seed=seed)
        pairs = rayleigh_ritz(problem, vectors)
        destroy(*pairs.vectors)
        if not len(pairs.values):
            return -problem.scale, 0.0
        value, residual = float(pairs.values[0]), float(pairs.residuals[0])
        norm_a, norm_m = problem.norms
        typical, least = problem.masses
        return value, residual * (norm_a + abs(value) * norm_m) / (least or typical)


class OneShiftSearch(ShiftedSearch):
    """A search with one factorization past all that is wanted, and from below for what it has not found.

    Parameters
    ----------
    start
        Where that is, and what is begun with; the search destroys the vectors.
    """

    def __init__(
        self,
        problem: EigenProblem,
        spec: SolveSpec,
        target: ShiftedTarget,
        wanted: int,
        solvers: EndSolvers,
        store: SearchStore,
        start: Start,
    ):
        super().__init__(problem, spec, target, wanted, solvers, store)
        self.start, self.shift = start, start.shift

    def _prepare(self, facts: dict) -> None:
        """Do nothing: the factorization is made."""

    def _solve(self, attempt: Attempt, number: int, deflate: list[PETSc.Vec]) -> list[PETSc.Vec]:
        if not self.start.vectors:
            if self.shift == self.start.shift:
                self.shift = self.target.find_shift(self.solver, self._estimate_lowest)
            return super()._solve(attempt, number, deflate)
        # All below the shift, so that its inertia counts them; a saved search has vectors of its own.
        inside = min(self.start.inside, self.problem.sought) - len(deflate)
        try:
            return self.solvers.main().solve(
                self.target.which,
                max(number, inside),
                deflate=deflate,
                wider=attempt.wider,
                seed=attempt.seed,
                guess=attempt.guess or self.start.vectors,
                on_restart=self._save_if_due,
            )
        finally:
            self._forget_start()

    def _facts(self) -> dict:
        return {"shift": None}

    def _forget_start(self) -> None:
        destroy(*self.start.vectors)
        self.start = self.start._replace(vectors=[])

    def close(self) -> None:
        """Destroy what was found, and what was begun with. Collective."""
        super().close()
        self._forget_start()
