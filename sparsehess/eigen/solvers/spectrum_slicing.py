"""All eigenvalues of an interval: subintervals of known inertia, each solved by shift-and-invert in its middle.

SLEPc's own slicing takes neither deflation nor a stopping test, aborts where the mass matrix is
singular, and gives up where inertia and eigenpairs disagree. Here a subinterval is halved until it
holds few eigenvalues (Grimes, Lewis, Simon 1994); the factorization that halves the last one solves it;
and what is missing is sought with the found pairs deflated, then nearer. A count is believed where that of
another shift agrees with it: the eigenvalues found in between are as many as the two differ by.
"""

from __future__ import annotations

import numpy as np

from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.problem.rayleigh_ritz import RitzPairs, rayleigh_ritz
from sparsehess.eigen.solvers.krylov_schur import KrylovSchur
from sparsehess.eigen.solvers.pairs_across import MOST as MOST_ACROSS
from sparsehess.eigen.solvers.solve_monitor import OnProgress, ignore_progress
from sparsehess.eigen.solvers.spectrum_targets import SAFE, separation
from sparsehess.eigen.solvers.subintervals import CountedSearch, Subinterval
from sparsehess.errors import InputError
from sparsehess.runtime import PETSc, destroy
from sparsehess.runtime.citations import cite

# A subinterval with more eigenvalues is halved: the basis of a solve grows with them.
MOST = 120

# Basis vectors beyond two for each wanted pair, as a part of those: so that most solves need no restart.
_ROOM = 5

# Halvings that leave all eigenvalues on one side before they are taken for one cluster.
_FRUITLESS = 4

# So many eigenvalues that are alike a Krylov space finds. A block is iterated so near to more, of their interval.
_FEW, _BESIDE = 30, 1e-5

# Further solves in a subinterval before it is halved, or given up.
_AGAIN = 3


class Slicing:
    """Finds all eigenvalues of intervals of a problem; `close()` destroys its factorization.

    Parameters
    ----------
    problem
        What is solved.
    options
        PETSc options of the solves, without a prefix.
    tol
        Tolerance of SLEPc.
    accepts
        Backward error up to which a pair is one.
    seed
        Of the starting vectors.
    on_progress
        Called on every rank as on_progress(found, wanted).

    Attributes
    ----------
    elsewhere
        Iterations of the groups of ranks that solved subintervals.
    """

    def __init__(
        self,
        problem: EigenProblem,
        options: dict,
        *,
        tol: float,
        accepts: float = 1e-8,
        seed: int = 0,
        on_progress: OnProgress = ignore_progress,
    ):
        self.problem, self.tol, self.accepts, self.seed = problem, tol, accepts, seed
        self._solver = KrylovSchur(problem, True, options, tol=tol)
        self._on_progress = on_progress
        self.elsewhere = 0

    @property
    def seconds(self) -> dict[str, float]:
        """Time in factorizations and in solves."""
        return self._solver.seconds

    @property
    def iterations(self) -> int:
        """Iterations of all solves."""
        return self._solver.iterations + self.elsewhere

    def used_defaults(self) -> dict:
        """Return the options of the solves. Not collective."""
        return self._solver.used_defaults()

    def ends(self, low: float, high: float, confirm: bool) -> Subinterval:
        """Return the subinterval from just below `low` to just above `high`; see `_end`. Collective."""
        if high == np.inf:
            high, below_high, above = self._beyond(low, 1.0)
        else:
            high, below_high, above = self._end(high, 1.0, confirm)
        if below_high == 0 and low == -np.inf:
            return Subinterval(low, high, 0, 0, margin=above)
        low, below_low, below = self._beyond(high, -1.0) if low == -np.inf else self._end(low, -1.0, confirm)
        return Subinterval(low, high, below_low, below_high, margin=min(below, above))

    def _end(self, wanted: float, outward: float, confirm: bool) -> tuple[float, int, float]:
        """Return a shift just outside an end of an interval, how many eigenvalues lie below it, and the margin.

        Collective. An eigenvalue at the end itself is inside. Pivots that vanish are no count, nor are those that
        rounding can change: the shift moves outward then, as it does until two shifts agree if they are to
        `confirm` each other.

        Parameters
        ----------
        wanted
            The end.
        outward
            -1 for the lower end, 1 for the upper.
        """
        problem = self.problem
        step, last = separation(problem, wanted) or 1.0, None
        for rung in range(12):
            shift = wanted + outward * step * 4.0**rung
            below, zero, _ = self._solver.shift_to(shift)
            margin = 0.0 if zero else self._solver.margin()
            if margin > SAFE and (last == below or not confirm):
                return shift, below, margin
            last = below if margin > SAFE else None
        raise InputError(
            f"the inertia at {wanted:.12g} cannot be told: factorizations nearby do not agree; choose another end"
        )

    def _beyond(self, other: float, outward: float) -> tuple[float, int, float]:
        """Return what `_end` does, beyond all eigenvalues on one side, not much farther out than need be.

        Collective.
        """
        problem = self.problem
        scale, start = problem.scale or 1.0, other if np.isfinite(other) else 0.0
        step = 1.1 * max(abs(start), 1e-6 * scale) if np.isfinite(other) else scale
        for _ in range(40):
            shift = start + outward * step
            below, zero, _ = self._solver.shift_to(shift)
            if not zero and below == (0 if outward < 0 else problem.sought):
                return shift, below, self._solver.margin()
            step *= 8
        side = "below the spectrum" if outward < 0 else "above the finite eigenvalues"
        raise InputError(f"no shift {'down' if outward < 0 else 'up'} to {shift:.3g} is {side}")

    def find(self, search: CountedSearch) -> None:
        """Find the eigenvectors in the subintervals that wait; `search.unresolved` says where some lack.

        Collective. Before anything is said to be missing, the counts at the ends are confirmed by a second shift
        each; where they are not, all is done again with those that are.
        """
        cite("slicing")
        sure, resolved = False, len(search.unresolved)
        while search.waiting:
            subinterval, whole = search.waiting[-1], search.whole
            vectors, halves, agrees = self._solve(subinterval, search)
            search.waiting.pop()
            search.vectors += vectors
            search.waiting += halves[::-1]  # from below
            if not (agrees or sure):
                sure, confirmed = True, self.ends(whole.low, whole.high, True)
                if confirmed.inertia != whole.inertia or confirmed.below_low != whole.below_low:
                    destroy(*search.vectors)
                    search.vectors.clear()
                    del search.unresolved[resolved:]
                    search.whole, search.waiting = confirmed, [confirmed]
                    continue
            self._on_progress(min(len(search.vectors), whole.inertia), whole.inertia)
            search.pause()

    def cut(self, whole: Subinterval, most: float) -> list[Subinterval]:
        """Return parts of a subinterval, from below, each with some eigenvalues to be found, and at most so many.

        Collective. A part that halving leaves as it is, a multiple eigenvalue, may have more.
        """
        done, waiting = [], [whole]
        while waiting:
            part = waiting.pop()
            expected = part.inertia
            if expected > most and part.fruitless < _FRUITLESS:
                waiting += part.halves(*self._middle(part))[::-1]
            elif expected:
                done.append(part)
        return done

    def _solve(self, part: Subinterval, search: CountedSearch) -> tuple[list[PETSc.Vec], list[Subinterval], bool]:
        """Return (vectors, []) of a subinterval or ([], its halves), and whether nothing contradicts its counts.

        Collective.
        """
        expected = part.inertia
        if not expected:
            return [], [], True
        middle, below = self._middle(part)
        narrow = part.high - part.low <= 16 * separation(self.problem, middle)
        if expected > MOST and not narrow and part.fruitless < _FRUITLESS:
            return [], part.halves(middle, below), True
        pairs = RitzPairs.none()
        vectors: list[PETSc.Vec] = []
        for attempt in range(1 + _AGAIN):
            missing = min(expected, self.problem.sought) - len(vectors)
            if missing <= 0:
                break
            search.repairs += attempt > 0
            new = self._search(part, missing, vectors, attempt, search)
            pairs = self.inside(part, [*vectors, *new])
            vectors = pairs.vectors
        halves = part.halves(middle, below)
        if self._agrees(part, pairs.values, pairs.blur):
            return vectors, [], narrow or all(self._agrees(half, pairs.values, pairs.blur) for half in halves)
        if not narrow:
            destroy(*vectors)
            return [], halves, False
        search.unresolved.append((part, len(vectors)))
        return vectors, [], False

    def _search(
        self, part: Subinterval, missing: int, deflate: list[PETSc.Vec], attempt: int, search: CountedSearch
    ) -> list[PETSc.Vec]:
        """Return vectors that an attempt finds beside those to deflate. Collective.

        What halving has not split is alike: a block, from very near, goes into its space at once.
        """
        alike = part.fruitless >= _FRUITLESS and missing > _FEW and attempt < _AGAIN
        vectors = self._solver.solve(
            "nearest",
            1 if alike else missing,
            deflate=deflate,
            seed=self.seed + attempt,
            wider=missing // _ROOM + 20 * attempt,
            on_restart=search.save_if_due,
        )
        if not (alike and vectors):
            return vectors
        first = rayleigh_ritz(self.problem, vectors)
        destroy(*first.vectors)
        beside = max(_BESIDE * (part.high - part.low), 16 * separation(self.problem, float(first.values[0])))
        self._solver.shift_to(float(first.values[0]) - beside)
        more = missing + missing // 8 + 2  # some of a random block are weak
        number = min(more, self.problem.finite - len(deflate))
        return self._solver.iterate(number, deflate=deflate, seed=self.seed + attempt, steps=2)

    def _middle(self, part: Subinterval) -> tuple[float, int]:
        """Factorize near the middle of a part; return where, and how many eigenvalues lie below."""
        step = separation(self.problem, 0.5 * (part.low + part.high))
        for rung in range(12):
            # To both sides in turn, and never out of the part.
            away = min(step * 2.0**rung, 0.2 * (part.high - part.low)) * (-1) ** rung if rung else 0.0
            middle = 0.5 * (part.low + part.high) + away
            below, zero, _ = self._solver.shift_to(middle)
            if not zero:
                break
        # Pivots that vanish everywhere tried make a count that may be out of order: no part has fewer than none.
        return middle, min(max(below, part.below_low), part.below_high)

    def inside(self, part: Subinterval, vectors: list[PETSc.Vec]) -> RitzPairs:
        """Return the Ritz pairs of some vectors that may belong to a subinterval.

        Collective. Takes over the vectors. An eigenvalue within rounding of an end may be counted at either side.
        """
        pairs = rayleigh_ritz(self.problem, vectors)
        inside = (pairs.values > part.low - pairs.blur) & (pairs.values < part.high + pairs.blur)
        return pairs.select(inside & (pairs.residuals <= self.accepts))

    def across(self, whole: Subinterval, pairs: RitzPairs) -> float:
        """Return how much of the pairs inside a counted interval may lie beyond its ends; see `share_across`.

        Collective. By the factors that there are, and by those at an end where these do not tell.
        """
        solver, shares = self._solver, [0.0]
        inside = (pairs.values > whole.low) & (pairs.values < whole.high)
        for end, beyond in ((whole.low, whole.below_low), (whole.high, self.problem.sought - whole.below_high)):
            if beyond <= 0 or not inside.any():
                continue
            share = np.inf if solver.shift is None else solver.across(pairs, inside, end)
            if not share < 0.5 * MOST_ACROSS:
                solver.shift_to(end)
                share = solver.across(pairs, inside)
            shares.append(share)
        return float(np.linalg.norm(shares))

    def _agrees(self, part: Subinterval, values: np.ndarray, blur: np.ndarray) -> bool:
        """Return whether the counts at a part's ends differ by as many as these values in between."""
        surely = np.count_nonzero((values > part.low + blur) & (values < part.high - blur))
        maybe = np.count_nonzero((values > part.low - blur) & (values < part.high + blur))
        return surely <= part.inertia <= maybe

    def close(self) -> None:
        """Destroy the solver. Collective."""
        self._solver.close()
