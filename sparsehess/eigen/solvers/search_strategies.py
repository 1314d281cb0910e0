"""How a search for the outermost or nearest pairs goes on until nothing is missing.

A strategy asks a search for one attempt after the other, looks at what each has brought, and ends when it has
nothing more to ask for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from sparsehess.eigen.problem.spectrum import Count
from sparsehess.eigen.solvers.extremal_search import Attempt, ExtremalSearch, ShiftedSearch

Strategy = Callable[[ExtremalSearch], Iterator[Attempt]]

# Repairs until count and pairs must agree, and searches for further copies.
_REPAIRS = 5

# Repairs one after the other that may bring nothing: the next would only search in a wider space.
_IDLE = 2

# Times that the shift may move nearer to a cluster.
_NEARER = 3

# Further basis vectors of a solve that goes on where another has ended.
_WIDER = 20


def find_first(search: ExtremalSearch) -> Iterator[Attempt]:
    """Search for all wanted pairs, from what was saved or from the caller's guess."""
    cluster_after = search.target.cluster_after if isinstance(search, ShiftedSearch) else None
    yield Attempt(
        search.missing,
        search.spec.seed,
        cluster_after=cluster_after,
        guess=search.unfinished or search.problem.guess,
    )
    search.forget_unfinished()


def search_from_below(search: ExtremalSearch) -> Iterator[Attempt]:
    """Search again from below the smallest, where the shift has turned out to lie among them."""
    while isinstance(search, ShiftedSearch) and search.move_below():
        yield Attempt(search.wanted, search.spec.seed)


def search_near_cluster(search: ExtremalSearch) -> Iterator[Attempt]:
    """Search from nearer to a cluster, where a solve has stopped because the shift was too far from it."""
    for attempt in range(_NEARER):
        cluster = search.solver.cluster if isinstance(search, ShiftedSearch) else None
        if cluster is None or search.missing <= 0 or not isinstance(search, ShiftedSearch):
            return
        nearer = search.move_to_cluster(*cluster) and attempt + 1 < _NEARER
        cluster_after = search.target.cluster_after if nearer else None
        yield Attempt(search.missing, search.spec.seed, wider=_WIDER, cluster_after=cluster_after)


def search_for_copies(search: ExtremalSearch) -> Iterator[Attempt]:
    """Search beside what was found, as nothing counts it: a Krylov space has one copy of each eigenvalue."""
    target = search.target
    for attempt in range(_REPAIRS):
        if search.missing > 0:
            return  # what did not converge tells enough
        last = float(np.sort(target.distance(search.values))[search.wanted - 1])
        before = target.found(last, search.values)
        yield Attempt(1, search.spec.seed + 101 + attempt)
        if target.found(last, search.values) == before:
            return


def repair_by_count(search: ExtremalSearch) -> Iterator[Attempt]:
    """Count what was found; while eigenvalues are missing, search beside the found pairs.

    The edge past the last pair stays where it is while pairs are added before it. Where a repair brings nothing a
    somewhat wider gap is looked for, in case rounding put an eigenvalue astride.
    """
    if not len(search.values):
        return
    target, counter = search.target, search.solvers.counter()
    before, edge, inertia, idle = -1, 0.0, 0, 0
    for attempt in range(_REPAIRS + 1):
        if attempt == 0 or len(search.values) <= before:
            number = min(search.wanted, len(search.values))
            edge = target.edge(search.values, number, wider=30.0 if attempt else 1.0)
            inertia = target.inertia(counter, edge)
        known = len(search.problem.null) if target.holds(edge, 0.0) else 0
        found = target.found(edge, search.values) + known
        search.count = Count(target.interval(edge), inertia, found, found == inertia, attempt)
        idle = idle + 1 if attempt and len(search.values) <= before else 0
        if found == inertia or attempt == _REPAIRS or idle == _IDLE:
            return
        before = len(search.values)
        missing = max(inertia - found, 1)
        yield Attempt(missing, search.spec.seed + 1 + attempt, wider=_WIDER * (attempt + 1))


# What every search does, in this order; then what one does whose pairs are counted, and one whose are not.
ALWAYS: tuple[Strategy, ...] = (find_first, search_from_below, search_near_cluster)
COUNTED: tuple[Strategy, ...] = (repair_by_count,)
UNCOUNTED: tuple[Strategy, ...] = (search_for_copies,)


def carry_out(strategies: tuple[Strategy, ...], search: ExtremalSearch) -> None:
    """Make the attempts that strategies ask for, one strategy after the other. Collective."""
    for strategy in strategies:
        for attempt in strategy(search):
            search.carry_out(attempt)
