"""Assembly: from an objective to a distributed Hessian that was checked.

The composer of the road: pattern, colouring, differences and recovery meet only here.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from sparsehess.coloring import BEST, BUDGET, Coloring, color
from sparsehess.coloring import fingerprint as structure_of
from sparsehess.derivatives import finite_differences
from sparsehess.derivatives import gradient_noise as noises
from sparsehess.derivatives.elements import Gathering
from sparsehess.derivatives.objective import Objective
from sparsehess.errors import InputError, MissingEntries
from sparsehess.hessian.assembly_strategies import AllColumns, ElementByElement, SomeColumns, Source, with_plan
from sparsehess.hessian.evaluation_journal import Journal
from sparsehess.hessian.pattern_detection import detect
from sparsehess.hessian.recovery import Direct, plan
from sparsehess.hessian.saved_hessian import keep, restored
from sparsehess.hessian.verification import EPS, PROBES, Assembled, Doubt, Verification, verify
from sparsehess.pattern import Pattern
from sparsehess.runtime import PETSc, agreement, destroy
from sparsehess.runtime.random_numbers import signed
from sparsehess.runtime.validation import whole_number

if TYPE_CHECKING:
    from sparsehess.storage.checkpoint import Checkpoint

# How often a pattern is repaired at most.
_REPAIRS = 5

# What is known of a Hessian beside its entries.
_FACTS = ("evaluations", "error", "rebuilds", "repaired", "timings")


class Hessian:
    """A distributed Hessian that owns its matrix and can follow x.

    Made by `assemble`. A context manager; `close()` destroys what it owns, collectively.

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
    amplification
        How many times the error of a compressed entry a recovered one may have: 1 for direct recovery.
    timings
        Seconds of the stages: `pattern`, `coloring`, `derivatives`, `assembly`, `verification`.
    """

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
    ):
        self.objective = objective
        self.scheme = scheme
        self.seed = seed  # of the directions of the checks
        self.evaluations = {"gradient": 0, "hvp": 0, "energy": 0, "noise": 0, "pattern": 0, "verification": 0}
        self.verification: Verification | None = None
        self.error = np.nan
        self.noise: noises.Noise | None = None
        self.rebuilds = 0
        self.repaired = 0
        self.timings = timings
        self.mat = None
        self._signs: np.ndarray | None = None  # of the direction of the check
        self._budget = budget
        self._repair = repair
        self._journal: Journal | None = None  # of the first assembly
        follows = objective.following is not None and source.plan.pattern is objective.pattern
        self._followed = source.plan.pattern if follows else None
        self._take_from(source)

    def _take_from(self, source: Source) -> None:
        """Take the entries from this source from now on."""
        self._source = source
        self.pattern: Pattern = source.plan.pattern
        self.coloring: Coloring | None = source.plan.coloring
        self.amplification = source.plan.amplification
        self._values = np.empty(self.pattern.nnz_local)
        self._doubt: Doubt | None = None

    def update(self, x=None, *, verify: bool = True, progress: Callable[[int, int], None] | None = None) -> None:
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
        if self._followed is not None:
            self._follow(self.objective.x if x is None else x)
        for left in reversed(range(_REPAIRS)):
            try:
                self._update(x, verify, progress)
                return
            except MissingEntries as missing:
                if not (self._repair and left and len(missing.rows)) or self.coloring is None:
                    raise
                if missing.spoilt > PROBES:  # too many to step one by one
                    self._grow(*self._probed(x))
                else:
                    self._grow(missing.rows, missing.columns)

    def _follow(self, x) -> None:
        """Take the pattern that holds at x, if it is another than the last one."""
        began = time.perf_counter()
        pattern = self.objective.following.at(x)
        if pattern is not self._followed:
            self._followed = pattern
            self._rebuild(pattern)
            self.timings["coloring"] += time.perf_counter() - began

    def _colored(self, pattern: Pattern) -> Coloring:
        """Return a colouring made as the last one was."""
        last = self.coloring
        rule = None if last.order == BEST else last.rule
        return color(pattern, kind=last.kind, order=last.order, rule=rule, seed=last.seed, budget=self._budget)

    def _probed(self, x) -> tuple[np.ndarray, np.ndarray]:
        """Return all entries that probing finds, on each rank those of its rows."""
        calls = {}
        found = detect(self.objective, x=x, seed=self.seed, counts=calls, journal=self._journal)
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

    def _rebuild(self, pattern: Pattern) -> None:
        destroy(self.mat)
        self.mat = None
        self._take_from(with_plan(self._source, plan(pattern, self._colored(pattern))))
        self.rebuilds += 1

    def _update(self, x, verified: bool, progress) -> None:
        began = time.perf_counter()
        objective, layout = self.objective, self.pattern.layout
        evaluations = objective.at(objective.x if x is None else x)
        evaluations.journal = self._journal
        with agreement(layout.comm):
            typical = objective.typical
            limits = objective.limits
            if objective.bounds is not None:
                _check_room(evaluations.x, *limits, layout)

        def measured():
            length = finite_differences.lengths(evaluations.x, typical, layout)
            if self.noise is not None or self.scheme not in ("forward", "central", "extrapolated"):
                return length, self.noise
            room = np.minimum(limits[1] - evaluations.x, evaluations.x - limits[0])
            return length, noises.estimate(evaluations, length, room)

        journal = self._journal
        length, self.noise = measured() if journal is None else journal.measured(evaluations, measured)
        self.evaluations["noise"] += sum(evaluations.counts.values())
        evaluations.counts.update(gradient=0, energy=0)
        steps = finite_differences.steps(
            evaluations.x, length, self.noise, self.scheme, limits, typical is not None
        )
        if progress is not None:
            evaluations.on_color = progress
        recovered = self._source.take(evaluations, steps, self._values)
        for name, calls in evaluations.counts.items():
            self.evaluations[name] += calls
        self._fill()
        assembled = time.perf_counter()
        self.timings["derivatives"] = evaluations.seconds
        self.timings["assembly"] = assembled - began - evaluations.seconds
        if self._signs is None:
            self._signs = signed(layout, self.seed)
        aim = steps.wanted * self._signs  # of the check
        if self._doubt is None:
            self._doubt = Doubt.of(self._source.plan, steps, self.noise, length, aim)
        doubt = self._doubt
        norm = np.sqrt(layout.comm.allreduce(float(np.dot(self._values, self._values))))
        self.error = max(float(np.hypot(doubt.noise / norm, doubt.truncation)), EPS) if norm > 0 else 0.0
        if verified:
            before = sum(evaluations.counts.values())
            evaluations.on_color = lambda done, total: None
            level = np.zeros(layout.n_local) if self.noise is None else self.noise.level
            taken = Assembled(
                objective.name,
                self.pattern,
                self.mat,
                self._values,
                steps,
                recovered,
                doubt,
                level,
                norm,
                self.error,
            )
            try:
                self.verification, self.error = verify(taken, evaluations, aim)
            finally:
                self.evaluations["verification"] += sum(evaluations.counts.values()) - before
            self.timings["verification"] = time.perf_counter() - assembled

    def begin(self, journal: Journal | None, **first) -> None:
        """Take the Hessian for the first time, as `update` does: what it evaluates goes into a journal.

        Collective.
        """
        self._journal = journal
        try:
            self.update(**first)
        finally:
            self._journal = None

    def facts(self) -> dict:
        """Return what is known of the entries beside themselves, as JSON; `restore` takes it.

        Not collective.
        """
        known = {name: getattr(self, name) for name in _FACTS}
        checked = None if self.verification is None else dataclasses.asdict(self.verification)
        return {**known, "verification": checked}

    def restore(self, values: np.ndarray, noise: noises.Noise | None, facts: dict) -> None:
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
        index = PETSc.IntType
        csr = (
            pattern.indptr.astype(index, copy=False),
            pattern.indices.astype(index, copy=False),
            self._values,
        )
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
        self.mat.setValuesCSR(*csr)
        self.mat.assemble()

    def close(self) -> None:
        """Destroy the matrix and the plan.

        Collective. Using the object afterwards is an error.
        """
        destroy(self.mat)
        self.mat = None

    def __enter__(self) -> Hessian:
        return self

    def __exit__(self, *reason) -> None:
        self.close()


def _check_room(x: np.ndarray, lower: np.ndarray, upper: np.ndarray, layout) -> None:
    bad = np.flatnonzero(~((lower <= x) & (x <= upper) & (lower < upper)))
    if len(bad):
        i = bad[0]
        raise InputError(
            f"variable {layout.start + i} is {x[i]:g}, its bounds are {lower[i]:g} and {upper[i]:g}: x must lie "
            "between them, and a variable without room does not belong to the problem"
        )


def assemble(
    objective: Objective,
    *,
    pattern: Pattern | str | None = None,
    derivative: str = "auto",
    coloring: str | Coloring | None = None,
    order: str = "best",
    budget: float = BUDGET,
    columns: int | None = None,
    verify: bool = True,
    repair: bool = True,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    checkpoint: Checkpoint | Journal | None = None,
) -> Hessian:
    """Assemble the Hessian of an objective at its x.

    Collective on the objective's communicator.

    Parameters
    ----------
    objective
        What is differentiated.
    pattern
        Default the objective's own; `detect`: probed, see `detect`.
    derivative
        `central` (2 gradients a colour), `forward` (1, and the base), `extrapolated` (4), `complex` (1, of
        complex arrays), `ad` (1 product), `auto` (products where there are any, else central). Steps of
        differences follow from the noise of the gradient, measured with 7 more.
    coloring
        A kind (`star`, `acyclic`, `cpr`, `distance2`, `powell-toint`), or a colouring made before for
        this pattern. Default `star`; for a sum over elements none: their own Hessians are taken.
    order, budget
        Of a colouring that is made here, see `color`.
    columns
        How many compressed columns are held in memory at a time, for direct recovery; 1 takes the least
        memory. Default all.
    verify
        Compare with a fresh random product, and check the symmetry: 2 gradients more (or 1 product).
    repair
        Whether entries that verification finds missing in the pattern are added.
    seed
        Of that product's direction.
    progress
        Called as progress(colours begun, colours) on every rank.
    checkpoint
        Where pattern, colouring, every gradient or product, and at last the Hessian are saved, and taken from
        where it resumes; on any number of ranks. Of `summed` objectives the gradient at x is evaluated anew.

    Returns
    -------
    Hessian
        The caller closes it.

    Raises
    ------
    InputError
        The objective has no pattern, or layouts differ.
    CheckError
        A check failed; the message says at which variables.
    EvaluationError
        The user's function raised or returned something unusable.
    Stopped
        A signal came, and the checkpoint is saved.
    """
    probing, timings = {}, {}
    began = time.perf_counter()
    if isinstance(pattern, str) and pattern != "detect":
        raise InputError(f"pattern {pattern!r}: give a Pattern, or 'detect'")
    if checkpoint is not None:
        given = objective.pattern if pattern is None else pattern
        asked = {
            "structure": given if given is None or isinstance(given, str) else structure_of(given),
            "derivative": derivative,
            "coloring": coloring.kind if isinstance(coloring, Coloring) else coloring,
            "order": order,
            "columns": columns,
            "verify": verify,
            "seed": seed,
        }
        checkpoint = Journal.of(checkpoint, objective, asked)
    if isinstance(pattern, str):
        pattern, probing = detected(objective, checkpoint, seed=seed)
    pattern = pattern or objective.pattern
    if pattern is None:
        raise InputError(f"{objective.name} has no pattern: give one, or ask for pattern='detect'")
    if pattern.n != objective.n or not pattern.layout.same(objective.layout):
        raise InputError(
            f"the pattern ({pattern.n} variables) and {objective.name} ({objective.n}) do not have the same "
            "rows on each rank"
        )
    if pattern.n == 0:
        raise InputError(f"{objective.name} has no variables")
    scheme = finite_differences.scheme_of(derivative, objective)
    pattern.exchange  # noqa: B018 - planned here, so that its time is the pattern's
    timings["pattern"] = time.perf_counter() - began

    def prepared(pattern, coloring) -> Hessian:
        source = _source(objective, pattern, coloring, order, budget, columns, timings, checkpoint)
        return Hessian(objective, source, scheme, timings, seed=seed, budget=budget, repair=repair)

    before = None if checkpoint is None else restored(checkpoint, pattern, coloring, prepared)
    if before is not None:
        return before
    hessian = prepared(pattern, coloring)
    hessian.evaluations["pattern"] = sum(probing.values())
    try:
        hessian.begin(checkpoint, verify=verify, progress=progress)
        if checkpoint is not None:
            keep(checkpoint, hessian)
    except Exception:
        hessian.close()  # every rank is here: update raises on all or on none
        raise
    return hessian


def detected(objective: Objective, journal: Journal | None, **more) -> tuple[Pattern, dict[str, int]]:
    """Return (pattern, calls of the user's functions) as `detect` finds it, or as it was saved.

    Collective. `more` are arguments of `detect`.
    """
    calls: dict[str, int] = {}

    def probed():
        return detect(objective, counts=calls, journal=journal, **more), calls

    return probed() if journal is None else journal.pattern(probed)


def _source(objective, pattern, coloring, order, budget, columns, timings, journal) -> Source:
    """Return where the entries come from. Collective."""
    began = time.perf_counter()
    if objective.elements is not None and coloring is None:
        if columns is not None:
            raise InputError(f"columns={columns}: a sum over elements has no compressed columns")
        gathering = Gathering(pattern, objective.elements)
        timings["coloring"] = time.perf_counter() - began
        return ElementByElement(gathering)
    if not isinstance(coloring, Coloring):
        make = partial(color, pattern, kind=coloring or "star", order=order, budget=budget)
        coloring = make() if journal is None else journal.coloring(pattern, make)
    began = time.perf_counter()
    recovery = plan(pattern, coloring)
    timings["coloring"] = coloring.seconds + time.perf_counter() - began
    if columns is None:
        return AllColumns(recovery)
    whole_number(columns, "columns", 1)
    if not isinstance(recovery, Direct):
        raise InputError(
            f"columns={columns}: only direct recovery (star, cpr, distance2) takes a few columns "
            f"at a time; {coloring.kind} needs them all together"
        )
    return SomeColumns(recovery, columns)
