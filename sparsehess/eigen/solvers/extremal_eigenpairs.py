"""`solve` for the outermost or nearest pairs: searched for, counted, and repaired until count and pairs agree."""

from __future__ import annotations

import time
from contextlib import closing

import numpy as np

from sparsehess.eigen.problem.count import Count
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.problem.rayleigh_ritz import RitzPairs
from sparsehess.eigen.problem.solve_spec import SolveSpec
from sparsehess.eigen.problem.solver_errors import solver_errors
from sparsehess.eigen.problem.spectrum import Spectrum
from sparsehess.eigen.solvers.end_solvers import EndSolvers
from sparsehess.eigen.solvers.extremal_search import ExtremalSearch, OneShiftSearch, ShiftedSearch
from sparsehess.eigen.solvers.method_choice import GENERAL, Choice
from sparsehess.eigen.solvers.one_shift import find_start
from sparsehess.eigen.solvers.search_store import SearchStore
from sparsehess.eigen.solvers.search_strategies import ALWAYS, COUNTED, UNCOUNTED, carry_out
from sparsehess.eigen.solvers.solve_monitor import OnProgress
from sparsehess.eigen.solvers.spectrum_targets import ShiftedTarget
from sparsehess.eigen.solvers.target_choice import solved_target

# Where one factorization does not serve.
_FROM_BELOW = "shift-and-invert from below: coarse levels do not tell where the wanted eigenvalues end"

# Where it has served, but what it found is not what it counted.
_ONCE_MORE = "shift-and-invert from below: from past the wanted eigenvalues not all of them were found"

# Up to this size a factorization costs little beside anything else, and the largest are counted too.
CHEAP = 20_000


def solve_extremal(
    problem: EigenProblem, spec: SolveSpec, choice: Choice, progress: OnProgress, store: SearchStore
) -> Spectrum:
    """Return the pairs at an end of the spectrum, or nearest to a target.

    Collective. Never raises for pairs that are missing: the count tells.
    """
    target = solved_target(problem, spec)
    # Whether the pairs themselves are found by shift-and-invert.
    inverts = isinstance(target, ShiftedTarget) and choice.method == "krylovschur" and problem.assembled
    uncounted = _why_uncounted(problem, spec, inverts)
    wanted, count, advice = max(0, min(spec.number, problem.sought)), None, ""
    with closing(EndSolvers(problem, spec, choice, progress, inverts)) as solvers:
        if spec.which == "negative" and spec.target is None:
            wanted = min(wanted, solvers.counter().shift_to(-problem.zero).negative)
            if wanted == 0:
                count = Count((-np.inf, -problem.zero), 0, 0, True)
        elif wanted < spec.number:
            advice = (
                f"no more exist: {problem.n - problem.finite} of {problem.n} are infinite "
                f"and {len(problem.null)} deflated"
            )
        search: ExtremalSearch | None
        if choice.method == "oneshift" and isinstance(target, ShiftedTarget) and wanted:
            start = find_start(problem, wanted, solvers.shifted())
            search = start and OneShiftSearch(problem, spec, target, wanted, solvers, store, start)
        else:
            kind = ShiftedSearch if inverts else ExtremalSearch
            search = kind(problem, spec, target, wanted, solvers, store)
        why = _FROM_BELOW
        if search is not None:
            with closing(search):
                if wanted == 0:
                    search.count = count
                    return _spectrum(
                        search,
                        choice,
                        {**solvers.seconds(), "certificate": 0.0},
                        uncounted or "nothing was asked for",
                        advice,
                    )
                found = _searched(search, choice, uncounted, advice)
                if choice.method != "oneshift" or _is_whole(found):
                    return found
                found.close()
                why = _ONCE_MORE
    return solve_extremal(problem, spec, Choice("krylovschur", why), progress, store)


def _is_whole(found: Spectrum) -> bool:
    """Return whether a spectrum has all that was asked for, and its count agrees. Not collective."""
    return found.converged == found.asked and (found.count is None or found.count.certified)


def _searched(search: ExtremalSearch, choice: Choice, uncounted: str, advice: str) -> Spectrum:
    """Return the spectrum that a search comes to. Collective."""
    search.resume()
    carry_out(ALWAYS, search)
    if uncounted and search.spec.count == "auto" and search.solvers.factorized and not search.problem.uncounted:
        uncounted = ""  # it was a matter of price, and that is paid
    if uncounted and search.spec.count == "auto":
        carry_out(UNCOUNTED, search)
    seconds = search.solvers.seconds()  # of the solve, before any count
    began = time.perf_counter()
    if not uncounted:
        carry_out(COUNTED, search)
    seconds["certificate"] = time.perf_counter() - began
    if not advice and search.missing > 0:
        advice = _advice(search)
    return _spectrum(search, choice, seconds, uncounted or "no pair converged", advice)


def _why_uncounted(problem: EigenProblem, spec: SolveSpec, inverts: bool) -> str:
    """Return why the pairs are not to be counted; empty where they are. Not collective."""
    if spec.count == "no":
        return "no count was asked for"
    if problem.structure.knows_counts:
        return ""
    if problem.uncounted:
        return problem.uncounted
    if spec.count == "auto" and not inverts and problem.n > CHEAP:
        return f"no factorization was made and n > {CHEAP}; --count yes makes one"
    return ""


def _spectrum(
    search: ExtremalSearch, choice: Choice, seconds: dict[str, float], uncounted: str, advice: str
) -> Spectrum:
    """Return the wanted ones of the pairs that a search has found, and destroy the others. Collective."""
    problem, found = search.problem, search.pairs
    wanted = np.zeros(len(found.values), bool)
    wanted[search.target.nearest_first(found.values)[: search.wanted]] = True
    others = found.values[~wanted]
    errors = solver_errors(found.values, found.leftovers, search.count, len(problem.null))
    pairs = found.select(wanted)
    search.pairs = RitzPairs.none()  # the vectors are the spectrum's
    by_target = choice.method == "krylovschur" and problem.assembled and choice.reason in GENERAL
    return Spectrum(
        eigenvalues=pairs.values,
        vectors=pairs.vectors,
        residuals=pairs.residuals,
        orthogonality=pairs.orthogonality,
        count=search.count,
        uncounted="" if search.count else uncounted,
        search=search.search,
        zeros=0,
        asked=search.wanted,
        advice=advice,
        iterations=search.solvers.iterations,
        method=choice.method,
        reason=search.target.reason if by_target else choice.reason,
        timings=seconds,
        options=search.solvers.used_defaults(),
        held_to=problem.held_to(search.spec.tol),
        others=others,
        solver_errors=errors[wanted],
    )


def _advice(search: ExtremalSearch) -> str:
    """Return what to do where fewer converged than were asked for. Not collective."""
    error, tol = search.problem.relative_error, search.spec.tol
    if search.apart == len(search.values) > 0:
        return (
            "the others lie beyond a gap so wide that no count of them is certain, or none was found there: "
            f"ask for k={search.apart}, or for an interval or a target beyond"
        )
    if search.stale and error > 0.1 * tol and not search.problem.assembled:
        return (
            f"products are exact to about {error:.0e} of the Hessian's norm only: "
            f"ask for a tolerance of {2 * max(error, tol):.0e}"
        )
    if search.stale:
        return f"{search.stale} more did not reach the tolerance {tol:g}: loosen it, or give -eps_ncv"
    return "give SLEPc a wider subspace (-eps_ncv) or more iterations (-eps_max_it)"
