"""`Hessian`: a distributed Hessian that was checked, and can follow x."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse

from sparsehess.coloring import BEST, BUDGET, Coloring, color
from sparsehess.derivatives.compressed_products import CompressedProducts
from sparsehess.derivatives.consistency import check_consistency
from sparsehess.derivatives.evaluations import Evaluations
from sparsehess.derivatives.finite_differences import DIFFERENCES, Steps, group_by_size, plan_check, plan_steps
from sparsehess.derivatives.gradient_noise import Noise, estimate_noise
from sparsehess.derivatives.objective import Objective
from sparsehess.derivatives.scales import Scales
from sparsehess.errors import CheckError, MissingEntries
from sparsehess.hessian.assembled import EPS, Assembled
from sparsehess.hessian.assembly_strategies import AllColumns, Source, replan
from sparsehess.hessian.entry_errors import EntryErrors
from sparsehess.hessian.error_model import ErrorModel, unsure
from sparsehess.hessian.evaluation_journal import NO_JOURNAL, NoJournal
from sparsehess.hessian.failed_checks import PROBES
from sparsehess.hessian.pattern_detection import detect_pattern
from sparsehess.hessian.quick_update import QuickUpdate
from sparsehess.hessian.recovery import Direct, Recovered, Substitution, plan
from sparsehess.hessian.verification import Verification, verify
from sparsehess.pattern import Following, Pattern
from sparsehess.runtime import PETSc, agreement, destroy
from sparsehess.runtime.linear_operator import linear_operator
from sparsehess.runtime.petsc_matrices import refill
from sparsehess.runtime.random_numbers import draw_signed
from sparsehess.runtime.short_repr import ShortRepr, number_of

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator

# How often a pattern is repaired at most.
_REPAIRS = 5

# What is known of a Hessian beside its entries.
_FACTS = ("evaluations", "error", "rebuilds", "repaired", "timings")

Progress = Callable[[int, int], None]


class Hessian(ShortRepr):
    """A distributed Hessian that owns its matrix and can follow x.

    Collective to make, by `assemble`, and to use. A context manager; `close()` destroys what it owns.

    Attributes
    ----------
    mat
        The PETSc AIJ matrix, symmetric, owned by this object. A new one after a rebuild.
    objective, pattern, coloring
        What it was made from; kept for updates, until a rebuild.
    error
        Estimate of the relative error of the matrix, in the Frobenius norm: from the noise of the gradient,
        and from the difference to the fresh product where that was asked for.
    noise
        What was measured of the gradient's noise, or None for exact products.
    verification
        Of the last assembly, or None if it was not asked for.
    evaluations
        Calls of the user's functions so far, over all ranks: `gradient`, `hvp`, `energy` for the
        derivatives, `noise` for its estimate, `pattern` for probing it, and `verification` for the checks and
        what they found out.
    rebuilds
        How often pattern, colouring and matrix were made anew because the pattern had moved or was too small.
    repaired
        How many entries verification has found missing and added.
    point
        (n_local,) where it was taken.
    amplification
        How many times the error of a compressed entry a recovered one may have: 1 for direct recovery.
    timings
        Seconds of the stages: `pattern`, `coloring`, `derivatives`, `assembly`, `verification`.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> pattern = sh.Pattern.from_edges(np.zeros((0, 2), int), 3)
    >>> objective = sh.Objective(x=np.ones(3), gradient=lambda x: x**3, pattern=pattern)
    >>> with sh.assemble(objective) as H:
    ...     print(np.round(H.mat.getDiagonal().getArray(), 6), H.coloring.count)
    ...     H.update(np.array([0.0, 1.0, 2.0]))
    ...     print(np.round(H.mat.getDiagonal().getArray(), 6))
    [3. 3. 3.] 1
    [ 0.  3. 12.]
    """

    mat: PETSc.Mat

    def __init__(
        self,
        objective: Objective,
        source: Source,
        scheme: str,
        timings: dict[str, float],
        *,
        seed: int = 0,
        budget: float = BUDGET,
        repair: bool = True,
    ) -> None:
        self.objective = objective
        self.scheme = scheme
        self.seed = seed  # of the directions of the checks
        self.evaluations = {"gradient": 0, "hvp": 0, "energy": 0, "noise": 0, "pattern": 0, "verification": 0}
        self.verification: Verification | None = None
        self.error = np.nan
        self.noise: Noise | None = None
        self.rebuilds = 0
        self.repaired = 0
        self.timings = timings
        self.mat = None
        self.point = np.empty(0)
        self._budget = budget
        self._repair = repair
        follows = source.plan.pattern is objective.pattern
        self._following = objective.following if follows else None
        self._followed = source.plan.pattern
        self._take_from(source)

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        yield repr(self.objective.name)
        yield number_of(self.pattern.n, "variable")
        yield self.pattern.entries_in_words
        if self.coloring is not None:
            yield number_of(self.coloring.count, "color")
        yield f"error {self.error:.1e}"
        yield "verified" if self.verification is not None and self.verification.passed else "not verified"
        if self.mat is None:
            yield "closed"

    def _take_from(self, source: Source) -> None:
        """Take the entries from this source from now on."""
        self._source = source
        self.pattern: Pattern = source.plan.pattern
        self.coloring: Coloring | None = source.plan.coloring
        self.amplification = source.plan.amplification
        self._values = np.empty(self.pattern.nnz_local)
        self._error_model: ErrorModel | None = None
        self._taken: Assembled | None = None
        self._quick: QuickUpdate | None = None
        made, plan = self.compressed, source.plan
        if made is not None and self._following is None and isinstance(plan, Direct) and len(plan.reads):
            self._quick = QuickUpdate(self.pattern.comm, made, self.pattern.n)

    # --- the road: differences, recovery, verification ---

    def update(
        self, x: np.ndarray | PETSc.Vec | None = None, *, verify: bool = True, progress: Progress | None = None
    ) -> None:
        """Take the Hessian at x; pattern, colouring, plan, matrix and the noise measured are reused.

        Collective. Costs the evaluations of the scheme, and two gradients (or a product) to verify; the
        first time for differences also 7 gradients for their noise. Where verification finds that the
        pattern misses entries, and repair was not declined, they are added and all is made anew.

        Parameters
        ----------
        x
            Of the kind of the objective's x; default that x.
        verify
            Whether to compare with a fresh random product and to check the symmetry.
        progress
            Called as progress(colours begun, colours) on every rank.

        Raises
        ------
        CheckError
            Derivatives are not finite, not symmetric, or the pattern misses an entry and was not repaired.
        EvaluationError
            The user's function raised.
        """
        if self._quick is not None and not verify and progress is None and self.mat is not None:
            seconds = self._quick.take(self.objective.x if x is None else x, self._values, self._move)
            if seconds is not None:
                self.timings["derivatives"], self.timings["assembly"] = seconds, 0.0
                return
        self.take(x, verify=verify, progress=progress)

    def _move(self, point: np.ndarray) -> None:
        """Note that the values become those at another point. Not collective."""
        self.point = point
        self.mat.stateIncrease()  # its values are ours
        self.evaluations["hvp"] += 0 if self.coloring is None else self.coloring.count
        self.error, self._taken = EPS, None

    def take(
        self,
        x: np.ndarray | PETSc.Vec | None,
        *,
        verify: bool,
        progress: Progress | None,
        journal: NoJournal = NO_JOURNAL,
    ) -> None:
        """Take the Hessian at x, as `update` does; what is evaluated goes into a journal.

        Collective.
        """
        x = self.objective.x if x is None else x
        if self._following is not None:
            self._follow(self._following, x)
        if verify:
            self.evaluations["verification"] += check_consistency(self.objective, x, seed=self.seed)
        if self.noise is not None:  # of another point: where it does not hold here, it is measured anew
            try:
                self._evaluate(x, verify, progress, journal)
                return
            except CheckError:
                self.noise = None
        for left in reversed(range(_REPAIRS)):
            try:
                self._evaluate(x, verify, progress, journal)
                return
            except MissingEntries as missing:
                if left and not len(missing.rows) and isinstance(self._source.plan, Substitution):
                    # It takes what is wrong to entries far from there: direct recovery tells where that is.
                    self._rebuild(self.pattern, kind="star")
                    continue
                if not (self._repair and left and len(missing.rows)) or self.coloring is None:
                    raise
                if missing.spoilt > PROBES:  # too many to step one by one
                    self._grow(*self._probe(x, journal))
                else:
                    self._grow(np.asarray(missing.rows), np.asarray(missing.columns))

    def _evaluate(
        self, x: np.ndarray | PETSc.Vec, verified: bool, progress: Progress | None, journal: NoJournal
    ) -> None:
        """Take the entries at x from differences or products, and verify them."""
        began = time.perf_counter()
        evaluations = Evaluations(self.objective, x)
        self.point = evaluations.x
        evaluations.recorder = journal
        scales, steps = self._steps(evaluations, journal)
        silent = evaluations.on_color
        if progress is not None:
            evaluations.on_color = progress
        recovered = self._source.take(evaluations, steps, self._values)
        evaluations.on_color = silent
        self._count(evaluations)
        self._fill()
        assembled = time.perf_counter()
        self.timings["derivatives"] = evaluations.seconds
        self.timings["assembly"] = assembled - began - evaluations.seconds
        judged = self._judged(recovered, scales, steps)
        self.error, self._taken = judged.error, judged
        self._level, self._felt = judged.felt(np.ones(self.pattern.layout.n_local))
        if verified:
            before = sum(evaluations.counts.values())
            try:
                self.verification, self.error, times = verify(judged, evaluations)
                self._level, self._felt = judged.felt(times)
            finally:
                self.evaluations["verification"] += sum(evaluations.counts.values()) - before
            self.timings["verification"] = time.perf_counter() - assembled

    def _steps(self, evaluations: Evaluations, journal: NoJournal) -> tuple[Scales, Steps]:
        """Return the scales of the variables and the steps of the scheme; the noise is measured the first time."""
        scales = Scales.of(evaluations)
        if self.objective.bounds is not None:
            with agreement(evaluations.comm):
                scales.check_room(evaluations.layout)

        if self.scheme in DIFFERENCES and not (self.noise is not None and self.noise.lasting):
            self.noise = journal.measure(evaluations, lambda: estimate_noise(evaluations, scales))
            self._error_model = None
        self.evaluations["noise"] += sum(evaluations.counts.values())
        evaluations.counts.update(gradient=0, energy=0)
        scales = scales if self.noise is None else dataclasses.replace(scales, length=self.noise.length)
        return scales, plan_steps(scales, self.noise, self.scheme)

    def _judged(self, recovered: Recovered, scales: Scales, steps: Steps) -> Assembled:
        """Return the Hessian as verification takes it, with the error that noise and steps make."""
        layout = self.pattern.layout
        check = plan_check(scales, self.noise, self.scheme, draw_signed(layout, self.seed))
        groups, count = group_by_size(check.taken, layout.comm)
        if self._error_model is None or self._error_model.of_product.shape[0] != count:
            self._error_model = ErrorModel.of(
                self._source.plan, steps, self.noise, scales.length, check, _directions(check, groups, count)
            )
        model = self._error_model
        norm = float(np.sqrt(layout.comm.allreduce(float(np.dot(self._values, self._values)))))
        error = float(np.hypot(model.noise, model.truncation(self._values))) * unsure(layout.n)
        return Assembled(
            self.objective.name,
            self.pattern,
            self.mat,
            self._values,
            steps,
            recovered,
            model,
            self.noise,
            check,
            groups,
            _directions(check, groups, count),
            norm,
            max(error / norm, EPS * self.amplification) if norm > 0 else 0.0,
        )

    @property
    def compressed(self) -> CompressedProducts | None:
        """What the host has made for the colouring, None where there is nothing. Not collective."""
        return self._source.made if isinstance(self._source, AllColumns) else None

    def to_scipy(self) -> scipy.sparse.csr_array:
        """Return this rank's rows as a SciPy matrix of its own, (n_local, n).

        Not collective.

        Examples
        --------
        >>> import numpy as np
        >>> import sparsehess as sh
        >>> objective = sh.Objective(x=np.ones(3), gradient=lambda x: x**3, hvp=lambda x, v: 3 * x**2 * v)
        >>> with sh.assemble(objective, pattern="detect") as H:
        ...     print(H.to_scipy().diagonal())
        [3. 3. 3.]
        """
        pattern = self.pattern
        arrays = self._values.copy(), pattern.indices.copy(), pattern.indptr.copy()
        return scipy.sparse.csr_array(arrays, (pattern.layout.n_local, pattern.n))

    @property
    def entry_errors(self) -> EntryErrors | None:
        """Estimates of the errors of the entries, None before there are any. Not collective."""
        if self._taken is None and self._quick is not None and self.error > 0:  # after what was quick
            scales, steps = self._steps(Evaluations(self.objective, self.point), NO_JOURNAL)
            self._taken = self._judged(Recovered(0.0, None, float(np.abs(self._values).max())), scales, steps)
        if self._taken is None or not self.error > 0:
            return None
        norm, steps, model = self._taken.norm, self._taken.steps, self._taken.model
        weights = sum(weight**2 for _, weight in steps.nodes)
        common = sum(weight**2 for values, weight in steps.nodes if values is None)
        known = self.noise is not None and model.noise > 0
        # What entries of a column have in common: of products what was seen, of differences what the bend tells.
        left = np.full(self.pattern.layout.n_local, self.error)
        if known and self.noise is not None:
            left = model.left if self.noise.measured else np.where(self.noise.moves > 0, 0.0, model.left)
        return EntryErrors(
            self._source.plan,
            self._values,
            self._level**2 * weights,
            self._level**2 * common,
            steps.taken**-2.0,
            (self.error * norm / self._felt) ** 2 if known else 0.0,
            left,
            self.error * norm,
        )

    def _count(self, evaluations: Evaluations) -> None:
        for name, calls in evaluations.counts.items():
            self.evaluations[name] += calls

    # --- patterns that move, or were too small ---

    def _follow(self, following: Following, x: np.ndarray | PETSc.Vec) -> None:
        """Take the pattern that holds at x, if it is another than the last one."""
        began = time.perf_counter()
        pattern = following.at(x)
        if pattern is not self._followed:
            self._followed = pattern
            self._rebuild(pattern)
            self.timings["coloring"] += time.perf_counter() - began

    def _probe(self, x: np.ndarray | PETSc.Vec, journal: NoJournal) -> tuple[np.ndarray, np.ndarray]:
        """Return all entries that probing finds, on each rank those of its rows."""
        calls: dict[str, int] = {}
        found = detect_pattern(self.objective, x=x, seed=self.seed, counts=calls, journal=journal)
        self.evaluations["pattern"] += sum(calls.values())
        rows = np.repeat(np.arange(found.layout.start, found.layout.stop), np.diff(found.indptr))
        found.free()
        return rows, found.indices

    def _grow(self, rows: np.ndarray, columns: np.ndarray) -> None:
        """Add entries, of which each rank brings some, to the pattern, and colour and plan anew."""
        began = time.perf_counter()
        rows, columns = np.asarray(rows, np.int64), np.asarray(columns, np.int64)
        old, quotient = self.pattern, self.pattern.quotient
        size = 1 if quotient is None else old.n // quotient.n
        if size > 1:  # whole blocks, so that groups stay groups
            rows, columns = rows // size, columns // size
        base = old if quotient is None else quotient
        own = np.repeat(np.arange(base.layout.start, base.layout.stop), np.diff(base.indptr))
        grown = Pattern.from_pairs(
            np.concatenate([own, rows]), np.concatenate([base.indices, columns]), base.n, layout=base.layout,
            source=f"{old.source}, repaired",
        )  # fmt: skip
        grown = grown.with_dofs(size)
        self.repaired += grown.nnz - old.nnz
        self._rebuild(grown)
        self.timings["coloring"] += time.perf_counter() - began

    def _rebuild(self, pattern: Pattern, kind: str | None = None) -> None:
        """Colour and plan anew for another pattern, as before or by another kind; the matrix is made anew too."""
        destroy(self.mat)
        self.mat = None
        last = self.coloring
        if last is not None:
            rule = None if last.order == BEST or kind is not None else last.rule
            kind, order, seed = kind or last.kind, last.order, last.seed
            made = color(pattern, kind=kind, order=order, rule=rule, seed=seed, budget=self._budget)
            self._take_from(replan(self._source, self.objective, plan(pattern, made), self.scheme))
        self.rebuilds += 1

    # --- what is stored ---

    def facts(self) -> dict:
        """Return what is known of the entries beside themselves, as JSON; `restore` takes it.

        Not collective.
        """
        known = {name: getattr(self, name) for name in _FACTS}
        checked = None if self.verification is None else dataclasses.asdict(self.verification)
        return {**known, "verification": checked}

    def restore(self, values: np.ndarray, noise: Noise | None, facts: dict) -> None:
        """Take entries (nnz_local,) that were computed before, without a call of the user's functions.

        Collective.
        """
        for name in _FACTS:
            setattr(self, name, facts[name])
        checked = facts["verification"]
        self.verification = None if checked is None else Verification(**checked)
        self.noise = noise
        self._values[:] = values
        self._fill()

    def _fill(self) -> None:
        """Put the values into the matrix, which is made the first time."""
        pattern = self.pattern
        indptr, indices = (part.astype(PETSc.IntType, copy=False) for part in (pattern.indptr, pattern.indices))
        csr = indptr, indices, self._values
        if self.mat is None:
            # Our rows are the matrix's arrays where PETSc can use them as they are (one rank).
            size = ((pattern.layout.n_local, pattern.n),) * 2
            self.mat = PETSc.Mat().createAIJWithArrays(size, csr, comm=pattern.comm)
            self.mat.setOption(PETSc.Mat.Option.SYMMETRIC, True)
            self.mat.setOption(PETSc.Mat.Option.SYMMETRY_ETERNAL, True)
            self.mat.setOption(PETSc.Mat.Option.NEW_NONZERO_LOCATION_ERR, True)
            return
        if pattern.comm.size == 1:
            self.mat.stateIncrease()  # its values are ours, and have changed
            return
        refill(self.mat, *csr)

    def aslinearoperator(self) -> LinearOperator:
        """Return it as a SciPy `LinearOperator`, for as long as this is not closed; after a rebuild take it anew.

        Not collective; its products are. On several ranks they take and give whole vectors (n,), the same on
        every rank: iterations that begin at random must be given the same start everywhere (`v0` of `eigsh`).

        Raises
        ------
        InputError
            It is closed.

        Examples
        --------
        >>> import numpy as np
        >>> import scipy.sparse.linalg
        >>> import sparsehess as sh
        >>> objective = sh.Objective(x=np.ones(50), gradient=lambda x: x**3, hvp=lambda x, v: 3 * x**2 * v)
        >>> with sh.assemble(objective, pattern="detect") as H:
        ...     solution, status = scipy.sparse.linalg.cg(H.aslinearoperator(), np.ones(50), atol=1e-10)
        >>> print(np.allclose(solution, 1 / 3), status)
        True 0
        """
        return linear_operator(self.mat, "Hessian")

    def close(self) -> None:
        """Destroy the matrix and the plan.

        Collective. Using the object afterwards is an error.
        """
        destroy(self.mat)
        self.mat = None

    def __enter__(self) -> Hessian:
        """Return the object itself."""
        return self

    def __exit__(self, *reason: object) -> None:
        """Close the object. Collective."""
        self.close()


def _directions(check: Steps, groups: np.ndarray, count: int) -> np.ndarray:
    """Return (count, n_local) what the variables of each group take together. Not collective."""
    return np.where(groups == np.arange(count)[:, None], check.taken, 0.0)
