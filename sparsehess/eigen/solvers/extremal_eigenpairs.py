"""One `solve` for the outermost or nearest pairs: its solvers, what they have found, and the count of that."""

from __future__ import annotations

import time

import numpy as np

from sparsehess.eigen.problem.problem import EigenProblem, tight
from sparsehess.eigen.problem.rayleigh_ritz import rayleigh_ritz
from sparsehess.eigen.problem.spectrum import Count, SolveSpec, Spectrum
from sparsehess.eigen.solvers.davidson import Davidson
from sparsehess.eigen.solvers.krylov_schur import KrylovSchur
from sparsehess.eigen.solvers.lapack import Dense
from sparsehess.eigen.solvers.lobpcg import Lobpcg
from sparsehess.eigen.solvers.method_choice import KRYLOV, Choice
from sparsehess.eigen.solvers.preconditioned_solver import Preconditioned
from sparsehess.eigen.solvers.search_checkpoint import Search
from sparsehess.eigen.solvers.spectrum_targets import Window, window_of
from sparsehess.operators.operator import Operator
from sparsehess.runtime import destroy

# Solves more until count and pairs must agree.
_REPAIRS = 5

# Times that the shift may move nearer to a cluster.
_NEARER = 3

# Up to this size a factorization costs little beside anything else, and the largest are counted too.
_CHEAP = 20_000

# What SLEPc wants said: without reorthogonalisation it would return copies.
_COMPARED = {"lanczos": {"eps_lanczos_reorthog": "full"}}


class ByStructure:
    """Counts of a structured Hessian, asked for as those of a factorization are."""

    def __init__(self, structure: Operator):
        self._structure = structure

    def shift_to(self, shift: float) -> tuple[int, int, int]:
        """Return how many eigenvalues are below, at (none) and above a shift. Collective."""
        below = self._structure.count(shift)
        return below, 0, self._structure.n - below


class Session:
    """The solvers of one call of `solve`, and what they have found so far."""

    def __init__(self, problem: EigenProblem, spec: SolveSpec, choice: Choice, progress, search: Search | None):
        self.problem, self.spec, self.progress, self.search = problem, spec, progress, search
        self.choice = choice
        self.window: Window = window_of(problem, spec)
        self.asked = max(0, min(spec.k, problem.finite - len(problem.null)))
        # Whether the pairs themselves are found by shift-and-invert.
        self.inverts = self.window.inverts and choice.method == "krylovschur" and problem.assembled
        self.inverted: KrylovSchur | None = None
        self.products: KrylovSchur | None = None
        self.other: Preconditioned | Dense | None = None
        self.sigma: float | None = None
        self.values, self.vectors, self.errors, self.orthogonality = np.empty(0), [], np.empty(0), 0.0
        self.seconds: dict[str, float] = {}  # of the solve, before any count
        self.stale = 0  # vectors that came with a residual above the tolerance

    def run(self) -> Spectrum:
        counting, uncounted = self._counting()
        advice = ""
        if self.spec.which == "negative" and self.spec.target is None:
            below = self._counter().shift_to(-self.problem.zero)[0]
            if below == 0:
                return self._spectrum(0, Count((-np.inf, -self.problem.zero), 0, 0, True), "", "")
            self.asked = min(self.asked, below)
        elif self.asked < self.spec.k:
            advice = (
                f"no more exist: {self.problem.n - self.problem.finite} of {self.problem.n} are infinite "
                f"and {len(self.problem.null)} deflated"
            )
        if self.asked == 0:
            return self._spectrum(0, None, uncounted or "nothing was asked for", advice)
        facts, guess = ({}, []) if self.search is None else self._resumed()
        try:
            if self.inverts:
                self.sigma = facts.get("shift")
                if self.sigma is None:
                    self.sigma = self.window.find_shift(self._solver(True), self._lowest)
            first = self._solve(
                self.asked - len(self.values),
                seed=self.spec.seed,
                stop_in_cluster=self.window.nears_clusters,
                guess=guess or self.problem.guess,
            )
        finally:
            destroy(*guess)
        self._take(first)
        self._pause()
        while self._moved_below():
            self._take(self._solve(self.asked, seed=self.spec.seed))
            self._pause()
        for attempt in range(_NEARER):
            if not self._stopped_in_cluster():
                break
            nearer = self._move_to_cluster() and attempt + 1 < _NEARER
            left = self.asked - len(self.values)
            self._take(self._solve(left, seed=self.spec.seed, wider=20, stop_in_cluster=nearer))
            self._pause()
        count = None
        if not counting and self.spec.count == "auto":
            self._search_again()
        self.seconds = self._spent()
        began = time.perf_counter()
        if counting and len(self.values):
            count = self._count_and_repair()
        self.seconds["certificate"] = time.perf_counter() - began
        if not advice and len(self.values) < self.asked:
            advice = self._advice()
        return self._spectrum(self.asked, count, "" if count else uncounted or "no pair converged", advice)

    # --- what was found before, and is to be found again ---

    def _resumed(self) -> tuple[dict, list]:
        """Take the eigenvectors that a checkpoint has; return what it says, and vectors to go on from."""
        facts, vectors = self.search.load()
        if vectors:
            _, vectors, errors, _ = rayleigh_ritz(self.problem, vectors)
            good = errors <= self.spec.tol
            guess = [vector for vector, keep in zip(vectors, good, strict=True) if not keep]
            self._take([vector for vector, keep in zip(vectors, good, strict=True) if keep])
            return facts, guess
        return facts, []

    def _pause(self) -> None:
        """Save what was found, where that is due."""
        if self.search is not None:
            self.search.pause(lambda: (self._facts(), self.vectors, []))

    def _facts(self) -> dict:
        return {"shift": self.sigma}

    @property
    def _watched(self):
        return None if self.search is None else self._on_restart

    def _on_restart(self, basis) -> Exception | None:
        return self.search.look(lambda: (self._facts(), self.vectors, basis()))

    # --- solving ---

    def _solver(self, invert: bool) -> KrylovSchur:
        solver = self.inverted if invert else self.products
        if solver is None:
            # Options of the caller belong to the solver that does the work, not to one that counts.
            mine = self.choice.method in KRYLOV and invert == self.inverts
            options = self.spec.options if mine else {}
            if mine and self.choice.method != "krylovschur":
                options = {"eps_type": self.choice.method, **_COMPARED.get(self.choice.method, {}), **options}
            solver = KrylovSchur(
                self.problem,
                invert,
                options,
                tol=tight(self.problem, self.spec.tol),
                on_progress=self.progress,
                on_restart=self._watched,
            )
            if invert:
                self.inverted = solver
            else:
                self.products = solver
        return solver

    def _solve(self, k: int, *, seed: int, wider: int = 0, stop_in_cluster: bool = False, guess=()) -> list:
        deflate = [*self.problem.null, *self.vectors]
        k = min(k, self.problem.finite - len(deflate))
        if k <= 0:
            return []
        if self.inverts:
            solver = self._solver(True)
            solver.shift_to(self.sigma)
            return solver.solve(
                "nearest",
                k,
                deflate=deflate,
                seed=seed,
                wider=wider,
                stop_in_cluster=stop_in_cluster,
                guess=guess,
            )
        solver, more = self._main(), {"guess": guess}
        if self.choice.method == "dense":
            more = {} if self.spec.target is None else {"target": self.spec.target}
        return solver.solve(self.window.direct, k, deflate=deflate, seed=seed, wider=wider, **more)

    def _main(self) -> KrylovSchur | Preconditioned | Dense:
        """Return the solver that finds the pairs."""
        method = self.choice.method
        if method in KRYLOV:
            return self._solver(self.inverts)
        if self.other is None:
            if method == "dense":
                self.other = Dense(self.problem, self.spec.options, on_progress=self.progress)
            else:
                self.other = (Lobpcg if method == "lobpcg" else Davidson)(
                    self.problem,
                    method,
                    self.spec.options,
                    tol=self.spec.tol,
                    on_progress=self.progress,
                    on_restart=self._watched,
                )
        return self.other

    def _search_again(self) -> None:
        """Search beside what was found, as nothing counts it: a Krylov space has one copy of each eigenvalue."""
        for attempt in range(_REPAIRS):
            if len(self.values) < self.asked:
                return  # what did not converge tells enough
            last = np.sort(self.window.distance(self.values))[self.asked - 1]
            before = self.window.found(last, self.values)
            self._take(self._solve(1, seed=self.spec.seed + 101 + attempt))
            self._pause()
            if self.window.found(last, self.values) == before:
                return

    def _stopped_in_cluster(self) -> bool:
        return self.inverted is not None and self.inverted.cluster is not None and len(self.values) < self.asked

    def _move_to_cluster(self) -> bool:
        """Move the shift to just below the cluster that the last solve stopped for; say whether it moved."""
        solver = self.inverted
        low, high = solver.cluster
        step = max(2 * (high - low), 1e-9 * abs(low))
        while low - step > self.sigma:
            if solver.shift_to(low - step)[0] == 0:
                self.sigma = low - step
                return True
            step *= 8  # an eigenvalue lies below: the estimate of the lowest was too high
        return False

    def _moved_below(self) -> bool:
        """Move a shift that lies among the smallest, as only a count would have told, below those found.

        Collective. Says whether it moved.
        """
        if not (self.inverts and self.window.may_lie_within and len(self.values)):
            return False
        low = float(self.values.min())
        if low >= self.sigma:
            return False
        self.sigma = self.window.below(low, self._solver(True))
        return True

    def _take(self, vectors: list) -> None:
        """Add vectors to what is found; keep the pairs that reach the tolerance."""
        values, vectors, errors, self.orthogonality = rayleigh_ritz(self.problem, self.vectors + vectors)
        good = errors <= self.spec.tol
        destroy(*(vector for vector, keep in zip(vectors, good, strict=True) if not keep))
        self.stale = int(np.count_nonzero(~good))
        self.values, self.errors = values[good], errors[good]
        self.vectors = [vector for vector, keep in zip(vectors, good, strict=True) if keep]

    def _lowest(self, below: KrylovSchur | None = None) -> tuple[float, float]:
        """Return the lowest eigenvalue, roughly by products or from a shift `below` it, and how far it may be."""
        rough = below or KrylovSchur(self.problem, False, dict.fromkeys(self.window.roughly), tol=1e-3)
        try:
            vectors = rough.solve("nearest" if below else "smallest", 1, seed=self.spec.seed)
            values, vectors, errors, _ = rayleigh_ritz(self.problem, vectors)
            destroy(*vectors)
            if not len(values):
                return -self.problem.scale, 0.0
            norm_a, norm_m = self.problem.norms
            return float(values[0]), float(errors[0] * (norm_a + abs(values[0]) * norm_m)) / self._least_mass()
        finally:
            if rough is not below:
                rough.close()

    def _least_mass(self) -> float:
        mean, least, _ = self.problem.mass_diagonal
        return least or mean

    # --- counting ---

    def _counting(self) -> tuple[bool, str]:
        """Return whether to count, and if not, why."""
        if self.spec.count == "no":
            return False, "no count was asked for"
        if self.problem.structure is not None:
            return True, ""
        if self.problem.uncounted:
            return False, self.problem.uncounted
        if self.spec.count == "auto" and not self.inverts and self.problem.n > _CHEAP:
            return False, f"no factorization was made and n > {_CHEAP}; --count yes makes one"
        return True, ""

    def _counter(self) -> KrylovSchur | ByStructure:
        structure = self.problem.structure
        return self._solver(True) if structure is None else ByStructure(structure)

    def _count_and_repair(self) -> Count:
        """Count; while eigenvalues are missing, go on with the found pairs deflated.

        The edge past the last pair stays where it is while pairs are added before it; when a repair
        brings nothing a somewhat wider gap is looked for, in case rounding put an eigenvalue astride.
        """
        brought = False
        for attempt in range(_REPAIRS + 1):
            if not brought:
                interval = self.window.edge(
                    self.values, min(self.asked, len(self.values)), wider=30.0 if attempt else 1.0
                )
                inertia = self.window.inertia(self._counter(), interval)
            found = self.window.found(interval, self.values) + (
                len(self.problem.null) if self.window.holds(interval, 0.0) else 0
            )
            if found == inertia:
                return Count(self.window.reported(interval), inertia, found, True, attempt)
            if attempt == _REPAIRS:
                break
            before = len(self.values)
            missing = max(inertia - found, 1)
            self._take(self._solve(missing, seed=self.spec.seed + 1 + attempt, wider=20 * (attempt + 1)))
            self._pause()
            brought = len(self.values) > before
        return Count(self.window.reported(interval), inertia, found, False, _REPAIRS)

    # --- the answer ---

    def _spectrum(self, asked: int, count: Count | None, uncounted: str, advice: str) -> Spectrum:
        chosen = self.window.nearest_first(self.values)[:asked]
        chosen = np.sort(chosen)
        rest = np.ones(len(self.values), bool)
        rest[chosen] = False
        destroy(*(self.vectors[i] for i in np.flatnonzero(rest)))
        vectors, self.vectors = [self.vectors[i] for i in chosen], []
        values, errors = self.values[chosen], self.errors[chosen]
        return Spectrum(
            eigenvalues=values,
            vectors=vectors,
            residuals=errors,
            orthogonality=self.orthogonality,
            count=count,
            uncounted=uncounted,
            zeros=int(np.count_nonzero(np.abs(values) <= self.problem.zero)),
            asked=asked,
            advice=advice,
            iterations=sum(solver.iterations for solver in self._solvers()),
            method=self.choice.method,
            reason=self.window.reason if self._by_window() else self.choice.reason,
            timings=self.seconds or self._spent(),
            options=self._main().used_defaults() if self._solvers() else {},
        )

    def _by_window(self) -> bool:
        return self.choice.method == "krylovschur" and self.problem.assembled

    def _solvers(self) -> list[KrylovSchur | Preconditioned | Dense]:
        return [solver for solver in (self.inverted, self.products, self.other) if solver is not None]

    def _spent(self) -> dict[str, float]:
        names = ("factorization", "solve")
        return {name: sum(solver.seconds[name] for solver in self._solvers()) for name in names} | {
            "certificate": 0.0
        }

    def _advice(self) -> str:
        if self.stale and self.problem.relative_error > 0.1 * self.spec.tol and not self.problem.assembled:
            return (
                f"products are exact to about {self.problem.relative_error:.0e} of the Hessian's norm only: "
                f"ask for a tolerance of {2 * self.problem.relative_error:.0e}"
            )
        if self.stale:
            return f"{self.stale} more did not reach the tolerance {self.spec.tol:g}: loosen it, or give -eps_ncv"
        return "give SLEPc a wider subspace (-eps_ncv) or more iterations (-eps_max_it)"

    def close(self) -> None:
        destroy(*self.vectors)
        for solver in self._solvers():
            solver.close()
