"""Assembly: from an objective to a distributed Hessian that was checked.

The composer of the road: pattern, colouring, differences and recovery meet only here and in `Hessian`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, overload

from sparsehess.coloring import Coloring, color
from sparsehess.coloring import fingerprint as structure_of
from sparsehess.derivatives.finite_differences import scheme_of
from sparsehess.derivatives.objective import Objective
from sparsehess.errors import InputError, none_of
from sparsehess.hessian.assembly_strategies import AllColumns, ElementByElement, SomeColumns, Source
from sparsehess.hessian.coloring_choice import choose_coloring, default_budget
from sparsehess.hessian.element_assembly import ElementAssembly
from sparsehess.hessian.evaluation_journal import NoJournal, open_journal
from sparsehess.hessian.hessian import Hessian
from sparsehess.hessian.pattern_detection import detect_pattern
from sparsehess.hessian.recovery import Direct, plan
from sparsehess.hessian.saved_hessian import describe_hessian, restore_hessian
from sparsehess.pattern import Pattern
from sparsehess.runtime.validation import whole_number
from sparsehess.storage.checkpoint import Checkpoint

# What is returned beside a `Hessian`.
_ARRAYS = ("scipy", "jax")


@overload
def assemble(objective: Objective, *, to: None = None, **options: Any) -> Hessian: ...


@overload
def assemble(objective: Objective, *, to: str, **options: Any) -> Any: ...


def assemble(  # type: ignore[misc]  # which takes the options by name
    objective: Objective,
    *,
    pattern: Pattern | str | None = None,
    derivative: str = "auto",
    coloring: str | Coloring | None = None,
    order: str = "best",
    budget: float | None = None,
    columns: int | None = None,
    verify: bool = True,
    repair: bool = True,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    checkpoint: Checkpoint | NoJournal | None = None,
    to: str | None = None,
) -> Hessian:
    """Assemble the Hessian of an objective at its x.

    Collective on the objective's communicator.

    Parameters
    ----------
    objective
        What is differentiated.
    pattern
        Default the objective's own, or where it has none the one that tracing its function tells (`from_jax`,
        `from_casadi`); `detect`: found by probing, see `detect_pattern`.
    derivative
        `central` (2 gradients a colour), `forward` (1, and the base), `extrapolated` (4), `complex` (1, of
        complex arrays), `ad` (1 product), `auto` (products where there are any, else central). Steps of
        differences follow from the noise of the gradient, measured with 7 more, and 6 each time that the length
        over which some variable matters turns out to be another.
    coloring
        A kind (`star`, `acyclic`, `cpr`, `distance2`, `powell-toint`), or a colouring made before for
        this pattern. Default `star`; for exact products that are not compiled `acyclic` where that takes three
        products and a quarter of them less, and no entry is the sum of more than a thousand compressed ones; for a
        sum over elements none: their own Hessians are taken. Where a check of what is read by substitution fails
        and does not show what the pattern misses, `star` takes its place.
    order, budget
        Of a colouring that is made here, see `color`. Default a budget of 0.2 nominal seconds; where products are
        compiled for the colouring, as those of `from_jax`, no more than half a microsecond an entry.
    columns
        How many compressed columns are held in memory at a time, for direct recovery; 1 takes the least
        memory. Default all.
    verify
        Compare with a fresh random product, and check the symmetry: 2 gradients more (4 where differences are
        extrapolated; or 1 product), for each size of steps where these differ by more than a hundred. Before
        that, whether gradient, products and energy belong together, of what the objective has: two calls of
        each.
    repair
        Whether entries that verification finds missing in the pattern are added.
    seed
        Of that product's direction.
    progress
        Called as progress(colours begun, colours) on every rank.
    checkpoint
        Where pattern, colouring, every gradient or product, and at last the Hessian are saved, and taken from
        where it resumes; on any number of ranks. Of `summed` objectives the gradient at x is evaluated anew.

    to
        `scipy`: return a CSR array of SciPy's, of this rank's rows. `jax`: a BCOO array on the device, of
        objectives of `from_jax` on one rank; for more than one point see `jax_hessian`. Default a `Hessian`,
        on any number of ranks.

    Returns
    -------
    Hessian
        The caller closes it. Or the array that `to` names.

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

    References
    ----------
    .. [1] A. R. Curtis, M. J. D. Powell, J. K. Reid, On the estimation of sparse Jacobian matrices, IMA Journal of
       Applied Mathematics 13 (1974), 117-119.
    .. [2] M. J. D. Powell, Ph. L. Toint, On the estimation of sparse Hessian matrices, SIAM Journal on
       Numerical Analysis 16 (1979), 1060-1074.
    .. [3] T. F. Coleman, J. J. Moré, Estimation of sparse Hessian matrices and graph coloring problems,
       Mathematical Programming 28 (1984), 243-270.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> def gradient(x):  # of Σ (x_{i+1} - x_i)² / 2
    ...     g, stretch = np.zeros_like(x), np.diff(x)
    ...     g[1:] += stretch
    ...     g[:-1] -= stretch
    ...     return g
    >>> pattern = sh.Pattern.from_edges([[i, i + 1] for i in range(999)], 1000)
    >>> objective = sh.Objective(x=np.zeros(1000), gradient=gradient, pattern=pattern)
    >>> with sh.assemble(objective) as H:
    ...     print(H.coloring.count, H.evaluations["gradient"], H.verification.passed)
    3 6 True
    """
    began = time.perf_counter()

    def decided() -> dict:
        given = objective.pattern if pattern is None else pattern
        return {
            "structure": structure_of(given) if isinstance(given, Pattern) else given,
            "derivative": derivative,
            "coloring": coloring.kind if isinstance(coloring, Coloring) else coloring,
            "order": order,
            "columns": columns,
            "verify": verify,
            "seed": seed,
        }

    _check_choice(pattern)
    if to not in (None, *_ARRAYS):
        raise none_of(f"to {to!r}", str(to), _ARRAYS)
    if to == "jax" and (objective.compressed is None or objective.comm.size > 1):
        raise InputError(
            f"to='jax': {objective.name} is not an objective of from_jax with products, on one rank; to='scipy' "
            "gives any Hessian's rows"
        )
    journal = open_journal(checkpoint, objective, decided)
    known, calls = _known_pattern(objective, pattern, journal, seed)
    scheme = scheme_of(derivative, objective)
    budget = default_budget(objective, known, scheme) if budget is None else budget
    known.exchange  # noqa: B018 - planned here, so that its time is the pattern's
    timings = {"pattern": time.perf_counter() - began}

    def prepare(pattern: Pattern, coloring: str | Coloring | None) -> Hessian:
        source = _source(objective, pattern, coloring, order, budget, columns, timings, journal, scheme)
        return Hessian(objective, source, scheme, timings, seed=seed, budget=budget, repair=repair)

    saved = journal.load_hessian()
    if saved is not None:
        return _converted(restore_hessian(saved, known, coloring, prepare), to)
    hessian = prepare(known, coloring)
    hessian.evaluations["pattern"] = calls
    try:
        hessian.take(None, verify=verify, progress=progress, journal=journal)
        journal.save_hessian(partial(describe_hessian, hessian))
    except BaseException:
        hessian.close()  # every rank is here: what is raised is raised on all
        raise
    return _converted(hessian, to)


def _converted(hessian: Hessian, to: str | None) -> Any:
    """Return the Hessian, or the array that is asked for. Collective."""
    if to is None:
        return hessian
    with hessian:
        if to == "scipy":
            return hessian.to_scipy()
        made: Any = hessian.compressed
        if not hasattr(made, "sparse_array"):
            raise InputError(
                f"to='jax': the Hessian of {hessian.objective.name} was not made by products of JAX in one batch: "
                "leave out columns= and derivative=, or give from_jax more memory="
            )
        return made.sparse_array(hessian.pattern.indptr, hessian.pattern.columns, hessian.to_scipy().data)


def detect_with_journal(
    objective: Objective, journal: NoJournal, *, seed: int, points: int = 1
) -> tuple[Pattern, dict[str, int]]:
    """Return (pattern, calls of the user's functions) as `detect_pattern` finds it, or as it was saved.

    Collective.
    """
    calls: dict[str, int] = {}

    def probe() -> tuple[Pattern, dict[str, int]]:
        return detect_pattern(objective, counts=calls, journal=journal, seed=seed, points=points), calls

    return journal.pattern(probe)


def _check_choice(pattern: Pattern | str | None) -> None:
    if isinstance(pattern, str) and pattern != "detect":
        raise InputError(f"pattern {pattern!r}: give a Pattern, or 'detect'")
    if not isinstance(pattern, Pattern | str | None):
        raise InputError(
            f"pattern must be a Pattern or 'detect', not {type(pattern).__name__}: make one, for example by "
            "Pattern.from_scipy"
        )


def _known_pattern(
    objective: Objective, pattern: Pattern | str | None, journal: NoJournal, seed: int
) -> tuple[Pattern, int]:
    """Return the pattern that is given or detected, and how many calls that took. Collective."""
    calls: dict[str, int] = {}
    if isinstance(pattern, str):
        pattern, calls = detect_with_journal(objective, journal, seed=seed)
    if pattern is None:
        pattern = objective.pattern or objective.traced_pattern()
    if pattern is None:
        raise InputError(f"{objective.name} has no pattern: give one, or ask for pattern='detect'")
    if pattern.n != objective.n or not pattern.layout.same(objective.layout):
        raise InputError(
            f"the pattern ({pattern.n} variables) and {objective.name} ({objective.n}) do not have the same "
            "rows on each rank"
        )
    if pattern.n == 0:
        raise InputError(f"{objective.name} has no variables")
    return pattern, sum(calls.values())


def _source(
    objective: Objective,
    pattern: Pattern,
    coloring: str | Coloring | None,
    order: str,
    budget: float,
    columns: int | None,
    timings: dict[str, float],
    journal: NoJournal,
    scheme: str,
) -> Source:
    """Return where the entries come from. Collective."""
    began = time.perf_counter()
    if objective.elements is not None and coloring is None:
        if columns is not None:
            raise InputError(f"columns={columns}: a sum over elements has no compressed columns")
        sums = ElementAssembly(pattern, objective.elements)
        timings["coloring"] = time.perf_counter() - began
        return ElementByElement(sums)
    if not isinstance(coloring, Coloring):
        make = partial(color, pattern, kind=coloring or "star", order=order, budget=budget)
        if coloring is None and columns is None:
            make = partial(choose_coloring, objective, pattern, order, budget, scheme)
        coloring = journal.coloring(pattern, make)
    began = time.perf_counter()
    recovery = plan(pattern, coloring)
    timings["coloring"] = coloring.seconds + time.perf_counter() - began
    if columns is None:
        return AllColumns.of(objective, recovery, scheme)
    whole_number(columns, "columns", 1)
    if not isinstance(recovery, Direct):
        raise InputError(
            f"columns={columns}: only direct recovery (star, cpr, distance2) takes a few columns "
            f"at a time; {coloring.kind} needs them all together"
        )
    return SomeColumns(recovery, columns)
