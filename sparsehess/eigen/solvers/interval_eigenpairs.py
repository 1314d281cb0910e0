"""`solve` for an interval: all of its eigenpairs by any method, with the inertia at its ends if there is one."""

from __future__ import annotations

import time

import numpy as np

from sparsehess.eigen.problem.lanczos_bounds import measure
from sparsehess.eigen.problem.problem import EigenProblem, tight
from sparsehess.eigen.problem.rayleigh_ritz import rayleigh_ritz
from sparsehess.eigen.problem.spectrum import Count, SolveSpec, Spectrum
from sparsehess.eigen.solvers.lapack import Dense
from sparsehess.eigen.solvers.method_choice import Choice
from sparsehess.eigen.solvers.search_checkpoint import Search
from sparsehess.eigen.solvers.spectrum_slicing import Slicing
from sparsehess.eigen.solvers.spectrum_targets import separation
from sparsehess.eigen.solvers.subintervals import Found, Piece
from sparsehess.errors import InputError
from sparsehess.runtime import complex_scalars, destroy
from sparsehess.runtime.random_numbers import signed

# Up to this size the counts at the ends are confirmed by a second shift each without being asked.
_CHEAP = 20_000

# Contour points of FEAST in the upper half plane: more take longer than the iterations that they save.
_POINTS = 4

# Searches in a subinterval beyond the first, for what is missing.
_AGAIN = 3

# Searches without a count to say that nothing is missing: the last one finds nothing more.
_BLIND = 12

# Random vectors, and products with each, that tell how many a search without a count is to expect.
_SAMPLES, _STEPS = 4, 40

# How many a later search is prepared for; twice as many as before where it finds so many.
_LATER = 5

# A search for more eigenvalues at a time than this is split, where counts tell how.
_MOST = 100


def solve_interval(
    problem: EigenProblem, spec: SolveSpec, choice: Choice, progress, search: Search | None = None
) -> Spectrum:
    """Return all eigenpairs of the spec's interval, its ends included to the accuracy of a count.

    Collective. Never raises for pairs that are missing: the count tells.
    """
    counts = not problem.uncounted
    slices = choice.method == "slicing"
    counter = finder = None
    so_far = Found(search)
    vectors = so_far.vectors
    try:
        if counts or slices:  # slicing says itself what it lacks
            options = spec.options if slices else {}  # the caller's are for the solver that finds the pairs
            counter = Slicing(
                problem,
                options,
                tol=tight(problem, spec.tol),
                seed=spec.seed,
                on_progress=progress,
                on_restart=so_far.on_restart,
            )
        finder = counter if slices else _FINDERS[choice.method](problem, spec, progress, so_far.on_restart)
        solvers = [counter, finder] if counts and not slices else [finder]
        if counts:
            alone = slices and (spec.groups or 1) == 1  # confirms counts where the pairs do not agree with them
            confirm = spec.count == "yes" or (spec.count == "auto" and problem.n <= _CHEAP and not alone)
            so_far.whole = so_far.whole or counter.ends(*spec.interval, confirm)
            counter.unresolved, counter.repairs = so_far.unresolved, so_far.repairs
            if not slices:
                _counted_search(finder, counter, so_far, spec)
            elif not alone:
                from sparsehess.eigen.solvers.parallel_slices import find_in_groups

                find_in_groups(counter, so_far, spec.groups, spec.options)
            else:
                so_far.waiting = [so_far.whole] if so_far.waiting is None else so_far.waiting
                counter.find(so_far)
            whole = so_far.whole
            ends = whole.low, whole.high
        else:
            ends = _widened(problem, *spec.interval)
            _blind_search(finder, ends, problem, spec, so_far)
        spent = {name: sum(solver.seconds[name] for solver in solvers) for name in ("factorization", "solve")}
        began = time.perf_counter()
        values, vectors, errors, orthogonality = rayleigh_ritz(problem, vectors)
        keep = (errors <= spec.tol) & (values >= ends[0]) & (values <= ends[1])
        destroy(*(vector for vector, kept in zip(vectors, keep, strict=True) if not kept))
        vectors = [vector for vector, kept in zip(vectors, keep, strict=True) if kept]
        values, errors = values[keep], errors[keep]
        count = _compared(counter, whole, problem, len(values)) if counts else None
        spent["certificate"] = time.perf_counter() - began
        return Spectrum(
            eigenvalues=values,
            vectors=vectors,
            residuals=errors,
            orthogonality=orthogonality,
            count=count,
            uncounted=problem.uncounted,
            zeros=int(np.count_nonzero(np.abs(values) <= problem.zero)),
            asked=len(values) + (max(count.inertia - count.found, 0) if counts else 0),
            advice="",
            iterations=finder.iterations,
            method=choice.method,
            reason=choice.reason,
            timings=spent,
            options=finder.used_defaults(),
        )
    except Exception:
        destroy(*vectors)
        raise
    finally:
        for solver in {id(solver): solver for solver in (counter, finder) if solver is not None}.values():
            solver.close()


def _widened(problem: EigenProblem, low: float, high: float) -> tuple[float, float]:
    """Return ends that have an eigenvalue at an end inside, whatever its rounding."""
    below, above = (separation(problem, end) if np.isfinite(end) else 0.0 for end in (low, high))
    return low - below, high + above


def _raising(progress, on_restart):
    """Return what a method of our own calls between its iterations, which can be left at any of them."""
    if on_restart is None:
        return progress

    def watched(done: int, total: int) -> None:
        progress(done, total)
        error = on_restart(list)
        if error is not None:
            raise error

    return watched


# --- the methods, each imported when it is asked for ---


def _feast(problem: EigenProblem, spec: SolveSpec, progress, on_restart):
    from sparsehess.eigen.solvers.feast import Feast

    most = min(problem.comm.size, _POINTS) if problem.assembled else 1
    groups = most if spec.groups is None else spec.groups
    watched = _raising(progress, on_restart)
    return Feast(problem, spec.options, spec.tol, groups=groups, points=_POINTS, on_progress=watched)


def _ciss(problem: EigenProblem, spec: SolveSpec, progress, on_restart):
    from sparsehess.eigen.solvers.ciss import ContourIntegral

    return ContourIntegral(problem, spec.options, tight(problem, spec.tol), progress)  # not to be interrupted


def _filter(problem: EigenProblem, spec: SolveSpec, progress, on_restart):
    from sparsehess.eigen.solvers.polynomial_filter import PolynomialFilter

    return PolynomialFilter(problem, spec.options, tight(problem, spec.tol), progress, on_restart)


def _dense(problem: EigenProblem, spec: SolveSpec, progress, on_restart) -> Dense:
    return Dense(problem, spec.options, on_progress=progress)


_FINDERS = {"feast": _feast, "ciss": _ciss, "filter": _filter, "dense": _dense}


def _counted_search(finder, counter: Slicing, so_far: Found, spec: SolveSpec) -> None:
    """Find by a method what lies in pieces of known inertia; again, where the count says that some are missing."""
    most = np.inf if isinstance(finder, Dense) else _MOST
    if so_far.waiting is None:
        so_far.waiting = counter.pieces(so_far.whole, most)[::-1]
    while so_far.waiting:
        piece = so_far.waiting[-1]
        expected, found, idle = counter.expected(piece), [], 0
        for attempt in range(1 + _AGAIN):
            if len(found) >= expected or idle == 2:
                break
            new = finder.find(
                piece.low,
                piece.high,
                expected - len(found),
                deflate=[*so_far.vectors, *found],
                seed=spec.seed + attempt,
            )
            before = len(found)
            _, found = counter.inside(piece, [*found, *new])
            idle = 0 if len(found) > before else idle + 1
            counter.repairs += attempt > 0
        if len(found) < expected:
            counter.unresolved.append((piece, len(found)))
        so_far.waiting.pop()
        so_far.vectors += found
        so_far.unresolved, so_far.repairs = counter.unresolved, counter.repairs
        so_far.pause()


def _blind_search(
    finder, ends: tuple[float, float], problem: EigenProblem, spec: SolveSpec, so_far: Found
) -> None:
    """Find by a method without a count: it searches until it finds nothing beside what it has."""
    low, high = ends
    if so_far.expected is None:
        so_far.expected = _estimated(problem, low, high, spec.seed)
    for attempt in range(so_far.attempt, _BLIND):
        new = finder.find(low, high, so_far.expected, deflate=so_far.vectors, seed=spec.seed + attempt)
        before = len(so_far.vectors)
        so_far.expected = 2 * so_far.expected if len(new) >= so_far.expected else _LATER
        values, found, errors, _ = rayleigh_ritz(problem, [*so_far.vectors, *new])
        keep = (errors <= spec.tol) & (values >= low) & (values <= high)
        destroy(*(vector for vector, kept in zip(found, keep, strict=True) if not kept))
        so_far.vectors[:] = [vector for vector, kept in zip(found, keep, strict=True) if kept]
        if len(so_far.vectors) == before:
            return
        so_far.attempt = attempt + 1
        so_far.pause()
    raise InputError(
        f"{len(so_far.vectors)} eigenvalues were found in [{low:.6g}, {high:.6g}], the last search found more "
        "still: take a narrower interval"
    )


def _estimated(problem: EigenProblem, low: float, high: float, seed: int) -> int:
    """Return about how many eigenvalues an interval has, rather more, from a few products with random vectors."""
    known = len(problem.null) if low < 0 < high else 0
    count = _by_measures if complex_scalars() else _by_density
    value, error = count(problem, low, high, seed)
    return int(np.clip(np.ceil(value + 2 * error) - known, _LATER, problem.finite))


def _by_density(problem: EigenProblem, low: float, high: float, seed: int) -> tuple[float, float]:
    from sparsehess.eigen.estimates.spectral_density import density

    return density(problem, samples=_SAMPLES, steps=_STEPS, seed=seed).count(low, high)


def _by_measures(problem: EigenProblem, low: float, high: float, seed: int) -> tuple[float, float]:
    """Return an estimate and its error from Gauss quadratures of random vectors, the mass taken for its diagonal.

    Collective. A first size for a search that goes on until it finds nothing new: no more.
    """
    from sparsehess.eigen.solvers.polynomial_filter import scaled

    matrix, release = scaled(problem)
    shares = []
    try:
        for sample in range(_SAMPLES):
            start = signed(problem.layout, seed + 7919 * (sample + 1))
            nodes, weights = measure(matrix, start, min(_STEPS, problem.n))
            shares.append(weights[(nodes >= low) & (nodes <= high)].sum())
    finally:
        release()
    return problem.n * float(np.mean(shares)), problem.n * float(np.std(shares)) / (_SAMPLES - 1) ** 0.5


def _compared(counter: Slicing, whole: Piece, problem: EigenProblem, found: int) -> Count:
    found += len(problem.null) if whole.low < 0 < whole.high else 0
    pieces = ((piece.low, piece.high, piece.inertia, many) for piece, many in counter.unresolved)
    return Count(
        (whole.low, whole.high), whole.inertia, found, found == whole.inertia, counter.repairs, tuple(pieces)
    )
