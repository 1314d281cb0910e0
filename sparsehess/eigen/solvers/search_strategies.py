"""How a search for the outermost or nearest pairs goes on until nothing is missing.

A strategy asks a search for one attempt after the other, looks at what each has brought, and ends when it has
nothing more to ask for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from sparsehess.eigen.solvers.counts import compare_with_count, count_past, covers
from sparsehess.eigen.solvers.extremal_search import Attempt, ExtremalSearch, ShiftedSearch
from sparsehess.eigen.solvers.krylov_schur import KrylovSchur
from sparsehess.eigen.solvers.spectrum_targets import separation

Strategy = Callable[[ExtremalSearch], Iterator[Attempt]]

# Repairs until count and pairs must agree, and searches for further copies.
_REPAIRS = 5

# Repairs one after the other that may bring nothing: the next would only search in a wider space.
_IDLE = 2

# Times that the shift may move nearer to a cluster.
_NEARER = 3

# Times that a search goes on from outside of what is left.
_ROUNDS = 2

# Restarts after which a solve from outside may stop for a shift nearer to a cluster.
_RESTARTS = 6

# How far past the pairs found a shift lies, over the size of an eigenvalue.
_BESIDE = (1e-6, 1e-3, 1e-1)

# So many that are missing are all sought, even where fewer are wanted.
_FEW = 20

# Tries of inverse iteration with a block.
_BLOCKS = 2

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
    """Search from nearer to a cluster, where a solve has stopped because the shift was too far from it.

    A solve that has found only some is asked once more for the others: they may be a cluster.
    """
    if not isinstance(search, ShiftedSearch) or not search.target.side:
        return
    for attempt in range(_NEARER + 1):
        cluster = search.solver.cluster
        if search.missing <= 0 or (cluster is None and attempt > 0):
            return
        nearer = cluster is None or search.move_to_cluster(*cluster)
        again = search.target.cluster_after if nearer and attempt < _NEARER else None
        yield Attempt(search.missing, search.spec.seed + attempt, wider=_WIDER, cluster_after=again)


def search_past_gap(search: ExtremalSearch) -> Iterator[Attempt]:
    """Search from past those found, where a gap beside which all others look alike parts them from the rest."""
    if not isinstance(search, ShiftedSearch) or search.problem.uncounted:
        return
    before = -1
    while search.missing > 0 and len(search.values) > before:
        before = len(search.values)
        shift = search.target.shift_past_gap(search.values, search.solver)
        if shift is None:
            return
        search.apart = search.apart or before
        yield Attempt(search.missing, search.spec.seed + 501, wider=_WIDER, shift=shift)


def search_from_outside(search: ExtremalSearch) -> Iterator[Attempt]:
    """Search by shift-and-invert from outside of the spectrum, where products have not found a dense end."""
    problem, chosen = search.problem, bool(search.spec.options)  # how to search, by the caller
    if search.missing <= 0 or chosen or not problem.factorizes or problem.uncounted:
        return
    for _ in range(_ROUNDS):
        solver = search.solvers.shifted()
        for shift in search.target.find_outer_shifts(solver, search.values):
            yield from _search_from(search, solver, shift)
        if search.missing <= 0:
            return


def _search_from(search: ExtremalSearch, solver: KrylovSchur, shift: float) -> Iterator[Attempt]:
    """Search at a shift outside of the spectrum, then from nearer where a cluster is far from it."""
    yield Attempt(search.wanted, search.spec.seed, shift=shift, cluster_after=_RESTARTS)
    for _ in range(_NEARER):
        nearer = None if solver.cluster is None else _nearer(search, solver, shift)
        if nearer is None:
            return
        yield Attempt(search.wanted, search.spec.seed, wider=_WIDER, shift=nearer, cluster_after=_RESTARTS)


def _nearer(search: ExtremalSearch, solver: KrylovSchur, shift: float) -> float | None:
    """Factorize nearer to the cluster that a solve has stopped for, and return where.

    Collective. On the shift's side of the cluster, where nothing but what was found lies beyond.
    """
    low, high = solver.cluster or (shift, shift)
    above = shift > high
    step = max(4 * (high - low), 10 * separation(solver.problem, high if above else low))
    while step < 0.5 * min(abs(shift - low), abs(shift - high)):
        nearer = high + step if above else low - step
        counts, values = solver.shift_to(nearer), search.values
        beyond = counts.positive if above else counts.negative
        if beyond == np.count_nonzero(values > nearer if above else values < nearer):
            return nearer
        step *= 8
    return None


def return_from_gap(search: ExtremalSearch) -> Iterator[Attempt]:
    """Give up what lies past a wide gap where no count of it is certain; what lies before it is counted."""
    count = search.count
    if count is None or count.certified or not 0 < search.apart < len(search.values):
        return
    near = np.zeros(len(search.values), bool)
    near[search.target.nearest_first(search.values)[: search.apart]] = True
    first = search.pairs._replace(
        values=search.values[near],
        vectors=[vector for vector, kept in zip(search.pairs.vectors, near, strict=True) if kept],
        residuals=search.pairs.residuals[near],
        resolutions=search.pairs.resolutions[near],
    )
    counted = compare_with_count(search.target, first, search.apart, search.solvers.counter())
    if counted.certified:
        search.pairs, search.count = search.pairs.select(near), counted
    yield from ()


def search_by_blocks(search: ExtremalSearch) -> Iterator[Attempt]:
    """Search by inverse iteration with a block, where a Krylov space has not found as many alike as are wanted."""
    for attempt in range(_BLOCKS):
        if search.missing <= 0 or not isinstance(search, ShiftedSearch):
            return
        yield Attempt(search.missing + 2, search.spec.seed + 201 + attempt, shift=search.shift, block=True)


def search_by_bisection(search: ExtremalSearch) -> Iterator[Attempt]:
    """Search from where counts say that the nearest eigenvalues begin, where the target is too far to see them.

    From a target in a gap far wider than all that is wanted, shift-and-invert sees one eigenvalue.
    """
    problem = search.problem
    if not isinstance(search, ShiftedSearch) or search.target.side or len(search.values) or problem.uncounted:
        return
    for shift in search.target.bisect_nearest(search.solver) if search.missing > 0 else ():
        if search.missing > 0:
            yield Attempt(search.missing, search.spec.seed + 401, wider=_WIDER, shift=shift)


def search_beside(search: ExtremalSearch) -> Iterator[Attempt]:
    """Search from just past the pairs found, where the others are too far from the shift to be told apart."""
    if not isinstance(search, ShiftedSearch):
        return
    for factor in _BESIDE:
        for shift in search.target.shifts_past(search.values, factor * (search.problem.scale or 1.0)):
            if search.missing <= 0:
                return
            yield Attempt(search.missing, search.spec.seed + 301, wider=_WIDER, shift=shift)


def search_for_copies(search: ExtremalSearch) -> Iterator[Attempt]:
    """Search beside what was found, as nothing counts it: a Krylov space has one copy of each eigenvalue.

    A solve follows where some Lanczos steps have seen an eigenvalue beyond, or cannot tell.
    """
    target = search.target
    for attempt in range(_REPAIRS):
        if search.missing > 0:
            return  # what did not converge tells enough
        if not search.look_beyond(search.spec.seed + 401 + attempt):
            return
        last = float(np.sort(target.distance(search.values))[search.wanted - 1])
        last += separation(search.problem, last)  # what is equal to the last one stays within
        before = target.found(last, search.values)
        yield Attempt(1, search.spec.seed + 101 + attempt)
        if target.found(last, search.values) == before:
            return


def repair_by_count(search: ExtremalSearch) -> Iterator[Attempt]:
    """Count what was found; while eigenvalues are missing, search beside the found pairs.

    The edge past the last pair stays where it is while pairs are added before it. Where a repair brings nothing a
    somewhat wider gap is looked for, in case rounding put an eigenvalue astride; where far more than the wanted
    are missing, as in a large kernel, some are sought and the edge moves in. Eigenvalues that no count tells
    from the last wanted one need not all be found: it is enough that none is missing before them.
    """
    if not len(search.values):
        return
    target, counter, wanted = search.target, search.solvers.counter(), search.wanted
    past = count_past(target, search.pairs, wanted, counter)
    before, idle, many, unsafe = len(search.values), 0, False, False
    for attempt in range(_REPAIRS + 1):
        if attempt:
            idle = 0 if len(search.values) > before else idle + 1
            if idle or many or unsafe or not covers(target, search.pairs, wanted, past[0]):
                past = count_past(target, search.pairs, wanted, counter, 30.0 if idle else 1.0)
        search.count = count = compare_with_count(target, search.pairs, wanted, counter, past, attempt)
        if count.certified or attempt == _REPAIRS or idle == _IDLE or (unsafe and not past[1].safe):
            return
        unsafe = not past[1].safe  # an eigenvalue that was not found may lie at the edge
        before = len(search.values)
        missing = 1 if unsafe else max(count.inertia - count.found, 1)
        many = missing > max(wanted, _FEW)  # most of them alike, and not wanted
        yield Attempt(
            max(wanted, _FEW) if many else missing, search.spec.seed + 1 + attempt, wider=_WIDER * (attempt + 1)
        )


# What every search does, in this order; then what one does whose pairs are counted, and one whose are not.
ALWAYS: tuple[Strategy, ...] = (
    find_first,
    search_from_below,
    search_near_cluster,
    search_past_gap,
    search_from_outside,
    search_by_blocks,
    search_by_bisection,
    search_beside,
)
COUNTED: tuple[Strategy, ...] = (repair_by_count, return_from_gap)
UNCOUNTED: tuple[Strategy, ...] = (search_for_copies,)


def carry_out(strategies: tuple[Strategy, ...], search: ExtremalSearch) -> None:
    """Make the attempts that strategies ask for, one strategy after the other. Collective."""
    for strategy in strategies:
        for attempt in strategy(search):
            search.carry_out(attempt)
