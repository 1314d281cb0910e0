"""SLEPc's Krylov-Schur: with products for the largest, with shift-and-invert near a shift."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from sparsehess.eigen.problem.factorization import FACTORIZATION, UNKNOWN, Pivots
from sparsehess.eigen.problem.panel_products import Preconditioning
from sparsehess.eigen.problem.petsc_options import PREFIX, Options
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.problem.rayleigh_ritz import RitzPairs, project_out, rayleigh_ritz
from sparsehess.eigen.problem.solver_pool import SolverPool
from sparsehess.eigen.solvers.cluster_monitor import ClusterMonitor
from sparsehess.eigen.solvers.count_margin import measure_margin
from sparsehess.eigen.solvers.factor_failures import BY_NUMBERS, failure_of, ranks_without_memory
from sparsehess.eigen.solvers.factor_packages import (
    DEFAULTS,
    DEFINITE,
    ON_DISK,
    folder_of_factors,
    has_cholmod,
    options_on_disk,
    upper_half,
)
from sparsehess.eigen.solvers.kept_state import aim, forget_null_space, give_new_basis
from sparsehess.eigen.solvers.pairs_across import share_across
from sparsehess.eigen.solvers.product_monitor import (
    PLAIN,
    PRODUCTS,
    ProductMonitor,
    basis_size,
    hold_to,
    most_restarts,
)
from sparsehess.eigen.solvers.projected_inverse import ProjectedInverse
from sparsehess.eigen.solvers.solve_monitor import (
    OnProgress,
    OnRestart,
    ignore_progress,
    ignore_restart,
)
from sparsehess.errors import StackError
from sparsehess.runtime import (
    FAILED,
    PETSc,
    SLEPc,
    destroy,
    error_code,
    has_package,
    held_errors,
    readable_errors,
)
from sparsehess.runtime.random_numbers import draw_normal, draw_uniform

# Part of a random vector beside guessed ones, which are as many as are wanted, or fewer.
_UNSEEN, _UNKNOWN = 1e-2, 1.0

# Percent of room for pivoting that are tried where the first does not suffice.
_ROOM = (200, 1000, 10000)

_EPS = float(np.finfo(float).eps)

# Of products alone, pairs past those wanted that are smaller than this part of the largest: rounding of zero.
_ROUNDING_OF_ZERO = 1e3 * _EPS


@dataclass
class KrylovSchur:
    """One SLEPc solver for a problem, kept for several solves and counts; `close()` gives it up.

    Attributes
    ----------
    problem
        What is solved.
    invert
        Whether with shift-and-invert.
    options
        PETSc options, defaults overridden by the caller's.
    tol
        Relative tolerance of SLEPc's own test, on the transformed problem.
    cluster
        Estimates of the lowest and of the last wanted eigenvalue, where the last solve stopped for them.
    held
        Backward error to which pairs are solved by products alone, instead of SLEPc's test; None for that.
    on_progress
        Called on every rank as on_progress(converged, wanted).
    restarts
        After which a solve gives up; None for SLEPc's own number.
    seconds
        Time in factorizations and in solves.
    """

    problem: EigenProblem
    invert: bool
    options: dict
    tol: float
    held: float | None = None
    on_progress: OnProgress = ignore_progress
    restarts: int | None = None
    seconds: dict[str, float] = field(default_factory=lambda: {"factorization": 0.0, "solve": 0.0})
    iterations: int = 0
    products: int = 0
    cluster: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        """Refuse a PETSc that cannot factorize where that is needed."""
        problem = self.problem
        if (self.invert or problem.M is not None) and not has_package("mumps"):
            raise StackError(
                "this PETSc has no MUMPS, which shift-and-invert and inertia counts need: install a PETSc with "
                "MUMPS (Debian's has it), or ask for --which largest without a mass matrix"
            )
        self._factors = self.invert or problem.M is not None
        self._definite = False  # whether what is factorized is known to be, and by CHOLMOD
        self._projected: ProjectedInverse | None = None  # where there are null vectors
        self._solved_with: dict | None = None
        self._room: dict = {}
        self._placed = False  # whether it is known where factors go
        self._given = Options(PREFIX, self.options)
        # What was made by a caller's options is not for others.
        self._solver_pool = problem.solver_pool if self.invert and not self.options else SolverPool()
        self._eps: SLEPc.EPS | None = None  # made when there is something to do
        self.shift: float | None = None

    def _solver(self) -> SLEPc.EPS:
        if self._eps is not None:
            return self._eps
        problem = self.problem
        self._eps = eps = self._solver_pool.take(problem, "cholmod" if self._definite else "mumps")
        eps.setOptionsPrefix(PREFIX)
        kind = SLEPc.EPS.ProblemType
        eps.setProblemType(kind.HEP if problem.M is None else kind.GHEP)
        eps.setTolerances(tol=self.tol)
        # Purification matters where masses are none or far apart; near null vectors it brings them back.
        eps.setPurify(problem.massless > 0 or problem.scaled_by is not None)
        eps.getST().setType("sinvert" if self.invert else "shift")
        self._sound = True  # whether all that it did went well
        return eps

    def used_defaults(self) -> dict:
        """Return the options of this solver's last solve: the defaults that apply, overridden by the caller's.

        Not collective.
        """
        return self._solved_with or self._applying()

    def _applying(self) -> dict:
        if not self._factors:
            return {**(PLAIN if self.held is None else PRODUCTS), **self.options}
        return {**(DEFINITE if self._definite else DEFAULTS), **self._room, **self.options}

    def shift_below(self, shift: float) -> bool:
        """Factorize A - shift M, and say whether it is positive definite, the shift below the spectrum.

        Collective. For many solves with few right-hand sides better than `shift_to`; as there, without the known
        null vectors.
        """
        own = any(key.startswith(("st_", "eps_type")) for key in self.options)
        if (
            self._place_factors()
            and has_cholmod(self.problem.comm)
            and not own
            and self.problem.infinite.below == 0
        ):
            self._renewed(definite=True)
            began = time.perf_counter()
            try:
                self._factorize(shift)
            except (PETSc.Error, SystemError):  # not definite, or no memory: MUMPS says which
                self._renewed(definite=False)
            self.seconds["factorization"] += time.perf_counter() - began
        return self.shift_to(shift).negative == 0

    def shift_to(self, shift: float) -> Pivots:
        """Factorize A - shift M, and return how many finite eigenvalues are below, at and above the shift.

        Collective. By Sylvester's law, from the signs of pivots; those of infinite eigenvalues and of known null
        vectors are left out. Where MUMPS cannot factorize, an eigenvalue of many vectors being too near, all three
        are n: such a shift has eigenvalues on both sides and on it, and serves nobody.
        """
        self._place_factors()
        if self._definite:
            if shift == self.shift:
                return Pivots(0, 0, self.problem.sought)
            self._renewed(definite=False)
        began = time.perf_counter()
        for room in _ROOM:
            try:
                counts = self._factorized(shift)
                break
            except (PETSc.Error, SystemError) as error:  # the same on every rank
                if error_code(error) != FAILED:
                    with readable_errors(f"factorizing at {shift:.6g}"):
                        raise
                if failure_of(self._factor) == ON_DISK:
                    with readable_errors(f"factorizing at {shift:.6g}", folder_of_factors(self.problem.comm)):
                        raise
                # MUMPS has not room for all the pivots that are delayed near a multiple eigenvalue, and after a
                # failure it does nothing more.
                self._give()
                self._room["st_mat_mumps_icntl_14"] = room
        else:
            try:
                counts = self._factorized(shift)
            except (PETSc.Error, SystemError):
                short = ranks_without_memory(self.problem.comm, self._factor)
                if short:
                    blamed = f"give it more memory or more ranks (out of memory on rank {', '.join(short)})"
                    with readable_errors(f"factorizing at {shift:.6g}", blamed):
                        raise
                failure = failure_of(self._factor)
                if failure not in BY_NUMBERS:
                    blamed = f"its INFOG(1) is {failure}, which its users' guide explains: look at its options"
                    with readable_errors(f"factorizing at {shift:.6g}", blamed):
                        raise
                self._give()
                counts = Pivots(*(self.problem.n,) * 3)  # an eigenvalue of many vectors is too near
        self.seconds["factorization"] += time.perf_counter() - began
        return counts

    def _place_factors(self) -> bool:
        """Have factors that no rank has room for go to disk; return whether they stay in memory. Collective."""
        if not self._placed:
            self._placed = True
            self._room |= options_on_disk(self.problem)
        return "st_mat_mumps_icntl_22" not in self._room

    def _renewed(self, definite: bool) -> None:
        """Have the solver factorize anew, with the package for definite matrices or with MUMPS."""
        if definite != self._definite or self.shift is not None:
            self._give()
            self._definite = definite

    def _factorized(self, shift: float) -> Pivots:
        self._factorize(shift)
        counts, infinite = FACTORIZATION.pivots(self._factor()), self.problem.infinite
        if self._projected is not None:
            counts = self._projected.pivots(counts)
        if not infinite.number or counts.negative == UNKNOWN:
            return counts
        return Pivots(counts.negative - infinite.below, counts.zero, counts.positive - infinite.above)

    def _factor(self) -> PETSc.Mat:
        ksp = self._solver().getST().getKSP() if self._projected is None else self._projected.inner
        return ksp.getPC().getFactorMatrix()

    def _factorize(self, shift: float) -> None:
        if shift == self.shift:
            return
        eps = self._solver()
        self._sound = False
        self._forget_projection()
        with self._given.inserted(self._applying()):
            st = eps.getST()
            if self.shift is None:
                eps.setWhichEigenpairs(SLEPc.EPS.Which.TARGET_MAGNITUDE)
                aim(eps, shift)
                eps.setFromOptions()
                if self._definite:
                    half = upper_half(self.problem, shift, st.getPreconditionerMat())
                    st.setPreconditionerMat(half)
                    destroy(half)  # but for the transformation's reference
                st.setShift(shift)
                eps.setUp()
            else:
                st.setShift(shift)
                st.setUp()
            self.shift = shift
        if self.problem.null:
            self._projected = ProjectedInverse(self.problem, eps.getST(), shift)
        self._sound = True

    def _forget_projection(self) -> None:
        """Have the transformation solve with the factors alone. Collective."""
        if self._projected is not None:
            self._projected.close()
        self._projected = None

    def solve(
        self,
        which: str,
        k: int,
        *,
        deflate: Sequence[PETSc.Vec] = (),
        wider: int = 0,
        seed: int = 0,
        cluster_after: int | None = None,
        guess: Sequence[PETSc.Vec] = (),
        on_restart: OnRestart = ignore_restart,
    ) -> list[PETSc.Vec]:
        """Return the converged eigenvectors: at least k of them if all went well, maybe more.

        Collective. The caller destroys them.

        Parameters
        ----------
        which
            `nearest` to the shift of `shift_to`, or `largest`, `smallest` (algebraic), `magnitude`.
        k
            How many are wanted.
        deflate
            Vecs to stay away from, beside the problem's null vectors.
        wider
            So many more basis vectors than SLEPc would take.
        seed
            Of the starting vector.
        cluster_after
            Restarts after which to stop when the wanted eigenvalues lie so close together, seen from a shift
            below them, that a nearer shift serves better; `cluster` then says where. None to go on.
        guess
            Vecs whose sum to start from, instead of a random vector.
        on_restart
            Called between restarts; its basis is what converged and the best of what did not, as many as are
            wanted.
        """
        eps, problem = self._solver(), self.problem
        self._sound = False
        away = [*problem.null, *deflate]
        give_new_basis(eps)
        self._solved_with = self._applying()
        choice = SLEPc.EPS.Which
        eps.setWhichEigenpairs(
            {
                "nearest": choice.TARGET_MAGNITUDE,
                "largest": choice.LARGEST_REAL,
                "smallest": choice.SMALLEST_REAL,
                "magnitude": choice.LARGEST_MAGNITUDE,
            }[which]
        )
        if self.shift is not None and which == "nearest":
            aim(eps, self.shift)
        # SLEPc's own choice, said: left to it, the sizes of an earlier solve would stay.
        # No more than the space has beside what is deflated: a fuller basis is not orthogonal.
        room = basis_size(k, self.held is not None) + wider
        room = min(room, max(problem.n - len(away), k + 1), problem.n)
        largest = max(room, int(self.options.get("eps_ncv", 0)))  # the caller's, set further down
        eps.setConvergenceTest(SLEPc.EPS.Conv.REL)
        eps.setTolerances(self.held or self.tol, self._restarts(room))
        if self.held is not None and problem.seen_reach is not None:
            hold_to(eps, self.held, problem.seen_reach)
        eps.setDimensions(nev=k, ncv=room, mpd=largest if k < 500 else 500 + wider)
        if away:
            eps.setDeflationSpace(away)
        start = problem.A.createVecRight()
        start.setArray(0.5 + 0.5 * draw_uniform(problem.layout, seed))  # in (0, 1), as SLEPc's own
        if guess:
            unseen = _UNSEEN if len(guess) >= k else _UNKNOWN  # so that none is out of reach
            start.scale(unseen / start.norm())
            for vector in guess:
                start.axpy(1 / vector.norm(), vector)
        eps.setInitialSpace([start])
        try:
            with self._given.inserted(self._applying()), readable_errors("solving for eigenpairs"):
                eps.cancelMonitor()  # else those of the options would be added once more
                if self.shift is None or self.options:  # else they were taken with the first shift
                    eps.setFromOptions()
                monitor = self._monitor(on_restart, k, cluster_after)
                monitor.attach(eps)
                began = time.perf_counter()
                with held_errors():
                    eps.setUp()
                    set_up = time.perf_counter()
                    eps.solve()
                self.seconds["factorization"] += set_up - began
                self.seconds["solve"] += time.perf_counter() - set_up
                self.cluster = monitor.cluster
        finally:
            eps.cancelMonitor()
            eps.setStoppingTest(None)
            destroy(start)
        monitor.raise_error()
        self.refuse_unused()
        restarts = eps.getIterationNumber()
        self.iterations += restarts
        self.products += monitor.products or room + max(restarts - 1, 0) * (room // 2)  # half of it is kept
        if monitor.reach is not None:
            problem.note_reach(monitor.reach)
        vectors = []
        for i in range(_worth(eps, which, k)):
            vector = problem.A.createVecRight()
            eps.getEigenvector(i, vector)
            vectors.append(vector)
        if away:
            forget_null_space(eps)
        self._sound = True
        return vectors

    def _restarts(self, room: int) -> int:
        """Return after how many restarts a solve gives up. Not collective."""
        if self.restarts is not None or self.held is None:
            return PETSc.DEFAULT if self.restarts is None else self.restarts
        return most_restarts(self.problem.n, room)

    def _monitor(self, on_restart: OnRestart, k: int, cluster_after: int | None) -> ClusterMonitor:
        if self._factors:
            return ClusterMonitor(self.on_progress, on_restart, k, self.shift, cluster_after)
        return ProductMonitor(self.on_progress, on_restart, k, self.held)

    def iterate(
        self, number: int, *, deflate: Sequence[PETSc.Vec] = (), seed: int = 0, steps: int = 3
    ) -> list[PETSc.Vec]:
        """Return vectors of some steps of inverse iteration at the shift with a random block.

        Collective. The caller destroys them. Where more eigenvalues than that are alike, all of the block goes
        into their space at once, which a Krylov space enters one vector after another.

        Parameters
        ----------
        number
            Of vectors.
        deflate
            Vecs to stay away from.
        seed
            Of the starting vectors.
        steps
            Of the iteration.
        """
        problem, st = self.problem, self._solver().getST()
        vectors = []
        for column in range(number):
            vectors.append(problem.A.createVecRight())
            vectors[-1].setArray(draw_normal(problem.layout, seed + 7919 * (column + 1)))
        image = problem.A.createVecRight()
        try:
            for _ in range(steps):
                for vector in vectors:
                    with readable_errors("inverse iteration"):
                        st.apply(vector, image)
                    image.copy(vector)
                vectors = rayleigh_ritz(problem, project_out(problem, vectors, deflate)).vectors
        finally:
            destroy(image)
        self.iterations += steps
        self.products += steps * number
        return vectors

    def on_panels(self) -> Preconditioning:
        """Return what solves with the last factorization for all vectors of a panel at once.

        Collective. Known null vectors are not projected out. The caller closes it, before the next factorization.
        """
        ksp = self._solver().getST().getKSP() if self._projected is None else self._projected.inner
        return Preconditioning(ksp.getPC())

    def margin(self) -> float:
        """Return how safe the count of the last factorization is; see `measure_margin`. Collective."""
        return measure_margin(self.problem, self._solver().getST().getKSP(), self.shift or 0.0)

    def across(self, pairs: RitzPairs, inside: np.ndarray, end: float | None = None) -> float:
        """Return how much of pairs may lie beyond an end, by itself the last shift; `share_across`. Collective."""
        at, ksp = self.shift or 0.0, self._solver().getST().getKSP()
        return share_across(self.problem, pairs, inside, at if end is None else end, ksp, at)

    def refuse_unused(self) -> None:
        """Raise InputError for options of the caller that nothing has used. Not collective."""
        self._given.refuse_unused()

    def close(self) -> None:
        """Give up the solver and its factorization. Collective."""
        self._give()

    def _give(self) -> None:
        self._forget_projection()
        if self._eps is not None:
            self._solver_pool.give_back(self._eps, self._sound and not self._room)
        self._eps = self.shift = None


def _worth(eps: SLEPc.EPS, which: str, k: int) -> int:
    """Return how many converged vectors are told: of the largest, no zeros past the k wanted. Not collective.

    Vectors of zero are copies of each other to rounding, and would spoil the others in a Rayleigh-Ritz step.
    """
    found = eps.getConverged()
    if which not in ("largest", "magnitude") or found <= k:
        return found
    sizes = np.abs([eps.getEigenvalue(i) for i in range(found)])
    return max(k, int(np.flatnonzero(sizes >= _ROUNDING_OF_ZERO * sizes.max())[-1]) + 1)
