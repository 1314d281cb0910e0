"""`solve` for an interval: all of its eigenpairs by any method, with the inertia at its ends if there is one."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from functools import partial

import numpy as np

from sparsehess.eigen.estimates.spectral_density import density
from sparsehess.eigen.problem.count import Count
from sparsehess.eigen.problem.lanczos_bounds import measure
from sparsehess.eigen.problem.problem import EigenProblem, slepc_tolerance
from sparsehess.eigen.problem.rayleigh_ritz import RitzPairs, rayleigh_ritz
from sparsehess.eigen.problem.solve_spec import SolveSpec
from sparsehess.eigen.problem.solver_errors import solver_errors
from sparsehess.eigen.problem.spectrum import Spectrum
from sparsehess.eigen.solvers.interval_method import Finder
from sparsehess.eigen.solvers.lapack import LapackSolver
from sparsehess.eigen.solvers.method_choice import Choice
from sparsehess.eigen.solvers.search_store import SearchStore
from sparsehess.eigen.solvers.solve_monitor import OnProgress, ignore_progress
from sparsehess.eigen.solvers.spectrum_slicing import Slicing
from sparsehess.eigen.solvers.spectrum_targets import separation
from sparsehess.eigen.solvers.subintervals import CountedSearch, Subinterval, UncountedSearch
from sparsehess.errors import InputError
from sparsehess.runtime import PETSc, complex_scalars, destroy, log
from sparsehess.runtime.random_numbers import draw_signed

# Up to this size the counts at the ends are confirmed by a second shift each without being asked.
_CHEAP = 20_000

# Contour points of FEAST in the upper half plane: more take longer than the iterations that they save.
_POINTS = 4

# Searches in a subinterval beyond the first, for what is missing.
_AGAIN = 3

# Searches in a subinterval that bring nothing before the rest is given up.
_IDLE = 2

# Searches without a count to say that nothing is missing: the last one finds nothing more.
_UNCOUNTED = 12

# Random vectors, and products with each, that tell how many a search without a count is to expect.
_SAMPLES, _STEPS = 4, 40

# How many a later search is prepared for; twice as many as before where it finds so many.
_LATER = 5

# So many times what the last digits of entries move it by, an eigenvalue is surely beyond an end.
_UNSURE = 100.0

_EPS = float(np.finfo(float).eps)

# Products that are told beforehand, and how many for each row are too many.
_MANY, HOPELESS = 10_000, 20

# A search for more eigenvalues at a time than this is split, where counts tell how.
_MOST = 100


def solve_interval(
    problem: EigenProblem, spec: SolveSpec, choice: Choice, progress: OnProgress, store: SearchStore
) -> Spectrum:
    """Return all eigenpairs of the spec's interval, its ends included to the accuracy of a count.

    Collective. Never raises for pairs that are missing: the count tells.
    """
    if choice.method == "slicing":
        return _solve_by_slicing(problem, spec, choice, progress, store)
    solve = _solve_without_count if problem.uncounted else _solve_with_count
    with closing(_METHODS[choice.method](problem, spec, progress)) as finder:
        return solve(problem, spec, choice, finder, store)


def _solve_by_slicing(
    problem: EigenProblem, spec: SolveSpec, choice: Choice, progress: OnProgress, store: SearchStore
) -> Spectrum:
    """Return the eigenpairs of an interval by slices, on all ranks together or by groups of them. Collective."""
    groups = spec.groups or 1
    find: Callable[[Slicing, CountedSearch], None] = Slicing.find
    cut: Callable[[Slicing, Subinterval], list[Subinterval]] = _leave_whole
    if groups > 1:
        from sparsehess.eigen.solvers.parallel_slices import cut_for_groups, find_in_groups

        find = partial(find_in_groups, groups=groups, options=spec.options)
        cut = partial(cut_for_groups, groups=groups)
    # Alone slicing confirms counts where the pairs do not agree with them.
    confirm = spec.count == "yes" or (spec.count == "auto" and problem.n <= _CHEAP and groups > 1)
    with (
        closing(_slicing(problem, spec, spec.options, progress)) as slicing,
        CountedSearch(store, partial(slicing.ends, *spec.ends, confirm), partial(cut, slicing)) as search,
    ):
        find(slicing, search)
        return _counted_spectrum(problem, spec, choice, search, slicing, slicing, slicing.seconds)


def _solve_with_count(
    problem: EigenProblem, spec: SolveSpec, choice: Choice, finder: Finder, store: SearchStore
) -> Spectrum:
    """Return the eigenpairs of an interval by a method, with the inertia at its ends. Collective."""
    most = np.inf if isinstance(finder, LapackSolver) else _MOST
    confirm = spec.count == "yes" or (spec.count == "auto" and problem.n <= _CHEAP)
    with (
        closing(_slicing(problem, spec, {}, ignore_progress)) as counter,
        CountedSearch(
            store,
            partial(counter.ends, *spec.ends, confirm),
            lambda whole: counter.cut(whole, most)[::-1],
        ) as search,
    ):
        while search.waiting:
            _search_subinterval(search.waiting[-1], finder, counter, search, spec.seed)
            search.waiting.pop()
            search.pause()
        seconds = {name: counter.seconds[name] + finder.seconds[name] for name in counter.seconds}
        return _counted_spectrum(problem, spec, choice, search, counter, finder, seconds)


def _solve_without_count(
    problem: EigenProblem, spec: SolveSpec, choice: Choice, finder: Finder, store: SearchStore
) -> Spectrum:
    """Return the eigenpairs of an interval by a method, which searches until it finds nothing more. Collective."""
    low, high = _widened(problem, *spec.ends)
    with UncountedSearch(store, lambda: _estimate_number(problem, low, high, spec.seed)) as search:
        _weigh(problem, spec, search.expected, finder.predict_products(low, high, search.expected))
        _search_until_nothing_is_new(problem, search, finder, low, high, spec)
        seconds = dict(finder.seconds)
        began = time.perf_counter()
        pairs = _pairs_inside(problem, search.vectors, low, high, spec.tol)
        search.vectors = pairs.vectors
        seconds["certificate"] = time.perf_counter() - began
        return _spectrum(problem, spec, choice, finder, pairs, seconds, None)


def _weigh(problem: EigenProblem, spec: SolveSpec, expected: int, products: float) -> None:
    """Tell what many products will cost beforehand; refuse, unless the method was asked for, what is hopeless.

    Not collective; the same on every rank.
    """
    low, high = spec.ends
    cost = f"the interval [{low:.6g}, {high:.6g}] has up to {expected} eigenvalues, and takes about {products:.2g}"
    if spec.method == "auto" and products > HOPELESS * problem.n:
        raise InputError(
            f"{cost} products, where {problem.n} give the whole matrix: assemble it, ask for the outermost ones "
            "(k), or for a wider interval in which eigenvalues are less crowded; method filter tries all the same"
        )
    if products > _MANY and problem.comm.rank == 0:
        log.warning("%s products", cost)


def _slicing(problem: EigenProblem, spec: SolveSpec, options: dict, progress: OnProgress) -> Slicing:
    tol = slepc_tolerance(problem, spec.tol)
    return Slicing(problem, options, tol=tol, accepts=spec.tol, seed=spec.seed, on_progress=progress)


def _leave_whole(slicing: Slicing, whole: Subinterval) -> list[Subinterval]:
    return [whole]


# --- searches ---


def _search_subinterval(
    subinterval: Subinterval, finder: Finder, counter: Slicing, search: CountedSearch, seed: int
) -> None:
    """Find what lies in a subinterval, again where its inertia says that some are missing. Collective."""
    expected = subinterval.inertia
    found: list[PETSc.Vec] = []
    idle = 0
    for attempt in range(1 + _AGAIN):
        if len(found) >= expected or idle == _IDLE:
            break
        new = finder.find(
            subinterval.low,
            subinterval.high,
            expected - len(found),
            deflate=[*search.vectors, *found],
            seed=seed + attempt,
            on_restart=search.save_if_due,
        )
        before = len(found)
        found = counter.inside(subinterval, [*found, *new]).vectors
        idle = 0 if len(found) > before else idle + 1
        search.repairs += attempt > 0
    if len(found) < expected:
        found = _search_by_slices(subinterval, found, counter, search)
    search.vectors += found


def _search_by_slices(
    subinterval: Subinterval, found: list[PETSc.Vec], counter: Slicing, search: CountedSearch
) -> list[PETSc.Vec]:
    """Return the eigenvectors of a subinterval, by slices of it: those found so far where slices find no more.

    Collective.
    """
    sliced = CountedSearch.of(subinterval)
    counter.find(sliced)
    search.repairs += 1 + sliced.repairs
    better, worse = (sliced.vectors, found) if len(sliced.vectors) > len(found) else (found, sliced.vectors)
    destroy(*worse)
    if len(better) < subinterval.inertia:
        search.unresolved.append((subinterval, len(better)))
    return better


def _search_until_nothing_is_new(
    problem: EigenProblem, search: UncountedSearch, finder: Finder, low: float, high: float, spec: SolveSpec
) -> None:
    """Find what lies in an interval, until an attempt finds nothing beside what there is. Collective."""
    for attempt in range(search.attempt, _UNCOUNTED):
        new = finder.find(
            low,
            high,
            search.expected,
            deflate=search.vectors,
            seed=spec.seed + attempt,
            on_restart=search.save_if_due,
        )
        before = len(search.vectors)
        search.expected = 2 * search.expected if len(new) >= search.expected else _LATER
        search.vectors = _pairs_inside(problem, [*search.vectors, *new], low, high, spec.tol).vectors
        if len(search.vectors) == before:
            return
        search.attempt = attempt + 1
        search.pause()
    raise InputError(
        f"{len(search.vectors)} eigenvalues were found in [{low:.6g}, {high:.6g}], the last search found more "
        "still: take a narrower interval"
    )


def _pairs_inside(
    problem: EigenProblem, vectors: list[PETSc.Vec], low: float, high: float, tol: float
) -> RitzPairs:
    """Return the Ritz pairs of some vectors, which it takes over, that are in an interval and good. Collective."""
    pairs = rayleigh_ritz(problem, vectors)
    return pairs.select((pairs.residuals <= problem.held_to(tol)) & (pairs.values >= low) & (pairs.values <= high))


def _widened(problem: EigenProblem, low: float, high: float) -> tuple[float, float]:
    """Return ends that have an eigenvalue at an end inside, whatever its rounding. Not collective."""
    below, above = (separation(problem, end) if np.isfinite(end) else 0.0 for end in (low, high))
    return low - below, high + above


# --- answers ---


def _counted_spectrum(
    problem: EigenProblem,
    spec: SolveSpec,
    choice: Choice,
    search: CountedSearch,
    counter: Slicing,
    finder: Slicing | Finder,
    seconds: dict[str, float],
) -> Spectrum:
    """Return what a search has found, compared with the inertia of its interval. Collective."""
    whole, seconds = search.whole, dict(seconds)
    began = time.perf_counter()
    pairs = _pairs_inside(problem, search.vectors, whole.low, whole.high, spec.tol)
    found = len(pairs.values)
    across = counter.across(whole, pairs)
    low, high = spec.ends
    unsure = _UNSURE * max(1.0, problem.relative_error / _EPS) * pairs.resolutions
    # Nor is it surely beyond within its residual: no last digits move one of rows without entries.
    apart = pairs.residuals * (problem.norms[0] / problem.masses[0] + np.abs(pairs.values))
    unsure = np.maximum(unsure, apart)
    pairs = pairs.select((pairs.values >= low - unsure) & (pairs.values <= high + unsure))
    search.vectors = pairs.vectors
    unresolved = tuple((one.low, one.high, one.inertia, number) for one, number in search.unresolved)
    count = whole.count(len(problem.null), found, across, search.repairs, unresolved)
    seconds["certificate"] = time.perf_counter() - began
    return _spectrum(problem, spec, choice, finder, pairs, seconds, count)


def _spectrum(
    problem: EigenProblem,
    spec: SolveSpec,
    choice: Choice,
    finder: Slicing | Finder,
    pairs: RitzPairs,
    seconds: dict[str, float],
    count: Count | None,
) -> Spectrum:
    return Spectrum(
        eigenvalues=pairs.values,
        vectors=pairs.vectors,
        residuals=pairs.residuals,
        orthogonality=pairs.orthogonality,
        count=count,
        uncounted=problem.uncounted,
        zeros=0,
        asked=len(pairs.values) + (max(count.inertia - count.found, 0) if count else 0),
        advice="",
        iterations=finder.iterations,
        method=choice.method,
        reason=choice.reason,
        timings=seconds,
        options=finder.used_defaults(),
        held_to=problem.held_to(spec.tol),
        solver_errors=solver_errors(pairs.values, pairs.leftovers, count, len(problem.null)),
    )


# --- the methods, each imported when it is asked for ---


def _feast(problem: EigenProblem, spec: SolveSpec, progress: OnProgress) -> Finder:
    from sparsehess.eigen.solvers.feast import Feast

    most = min(problem.comm.size, _POINTS) if problem.assembled else 1
    groups = most if spec.groups is None else spec.groups
    return Feast(problem, spec.options, spec.tol, groups=groups, points=_POINTS, on_progress=progress)


def _ciss(problem: EigenProblem, spec: SolveSpec, progress: OnProgress) -> Finder:
    from sparsehess.eigen.solvers.ciss import ContourIntegral

    return ContourIntegral(problem, spec.options, slepc_tolerance(problem, spec.tol), on_progress=progress)


def _filter(problem: EigenProblem, spec: SolveSpec, progress: OnProgress) -> Finder:
    from sparsehess.eigen.solvers.polynomial_filter import PolynomialFilter

    return PolynomialFilter(problem, spec.options, slepc_tolerance(problem, spec.tol), on_progress=progress)


def _dense(problem: EigenProblem, spec: SolveSpec, progress: OnProgress) -> Finder:
    return LapackSolver(problem, spec.options, on_progress=progress)


_METHODS: dict[str, Callable[[EigenProblem, SolveSpec, OnProgress], Finder]] = {
    "feast": _feast,
    "ciss": _ciss,
    "filter": _filter,
    "dense": _dense,
}


# --- how many a search without a count is to expect ---


def _estimate_number(problem: EigenProblem, low: float, high: float, seed: int) -> int:
    """Return about how many eigenvalues an interval has, rather more, from a few products with random vectors."""
    known = len(problem.null) if low < 0 < high else 0
    count = _count_by_quadratures if complex_scalars() else _count_by_density
    value, error = count(problem, low, high, seed)
    return int(np.clip(np.ceil(value + 2 * error) - known, _LATER, problem.finite))


def _count_by_density(problem: EigenProblem, low: float, high: float, seed: int) -> tuple[float, float]:
    number, error = density(problem, samples=_SAMPLES, steps=_STEPS, seed=seed).count(low, high)
    return problem.copies * number, problem.copies * error


def _count_by_quadratures(problem: EigenProblem, low: float, high: float, seed: int) -> tuple[float, float]:
    """Return an estimate and its error from Gauss quadratures of random vectors, the mass taken for its diagonal.

    Collective. A first size for a search that goes on until it finds nothing new: no more.
    """
    from sparsehess.eigen.solvers.polynomial_filter import scaled_by_mass

    shares = []
    with scaled_by_mass(problem) as matrix:
        for sample in range(_SAMPLES):
            start = draw_signed(problem.layout, seed + 7919 * (sample + 1))
            nodes, weights = measure(matrix, start, min(_STEPS, problem.n))
            shares.append(weights[(nodes >= low) & (nodes <= high)].sum())
    return problem.n * float(np.mean(shares)), problem.n * float(np.std(shares)) / (_SAMPLES - 1) ** 0.5
