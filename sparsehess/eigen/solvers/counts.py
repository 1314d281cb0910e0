"""Pairs that were found against an inertia count past the last of them."""

from __future__ import annotations

import numpy as np

from sparsehess.eigen.problem.count import Count, finite_or_none
from sparsehess.eigen.problem.rayleigh_ritz import RitzPairs
from sparsehess.eigen.solvers.pairs_across import bars
from sparsehess.eigen.solvers.spectrum_targets import Counter, Edge, EdgeCount, SpectrumTarget

# How far apart eigenvalues may be that are as good as each other: relative to themselves, and to a middle one.
_WIDTH, _WIDTH_OF_ZERO = 1e-6, 1e-10

# Zeros of a matrix of low rank lie within so many times of what rounding moves the least well known of them.
_SPREAD = 8.0

# Gaps that are tried for a count, each wider by the same factor, until one is safe.
_RUNGS, _RUNG = 5, 16.0


def count_past(
    target: SpectrumTarget, pairs: RitzPairs, wanted: int, counter: Counter, wider: float = 1.0
) -> tuple[Edge, EdgeCount]:
    """Count past the wanted pairs; where the count is not safe, again in wider gaps.

    Collective. No factorization is made where the last one lies past the wanted pairs, and has counted all that
    was found before it.
    """
    if wider == 1.0:
        made = _count_made(target, pairs, wanted, counter)
        if made is not None:
            return made
    blur = pairs.blur
    for rung in range(_RUNGS):
        edge = target.edge(pairs.values, blur, min(wanted, len(pairs.values)), wider * _RUNG**rung)
        counted = target.count(counter, edge.past, pairs)
        if counted.safe:
            break
        blur = np.maximum(blur, bars(target.problem, pairs))
    return edge, counted


def _count_made(
    target: SpectrumTarget, pairs: RitzPairs, wanted: int, counter: Counter
) -> tuple[Edge, EdgeCount] | None:
    """Return what the last factorization has counted, if it serves as an edge. Collective."""
    past = None if counter.shift is None else target.edge_at(counter.shift)
    if past is None or len(pairs.values) < wanted or not target.found(past, pairs.values) >= wanted:
        return None
    usual = target.edge(pairs.values, pairs.blur, wanted)
    away = np.abs(target.distance(pairs.values) - past)
    if not (usual.begin < past and (away > 2 * target.least(pairs.blur)).all()):
        return None
    counted = target.count(counter, past, pairs)
    if counted.inertia != target.found(past, pairs.values) or not counted.safe:
        return None
    return Edge(past, usual.begin), counted


def covers(target: SpectrumTarget, pairs: RitzPairs, wanted: int, edge: Edge) -> bool:
    """Return whether all pairs that are to be returned are within an edge. Not collective."""
    return bool((np.sort(target.distance(pairs.values))[:wanted] < edge.past).all())


def _last_group(target: SpectrumTarget, pairs: RitzPairs, wanted: int) -> tuple[float, bool]:
    """Return where the last pairs begin that no count tells from each other, and whether they are alike.

    Not collective. Any eigenvalue that is missing there is then as good as those returned. Zeros beside far larger
    eigenvalues, as of a matrix of low rank, are known to the rounding of the least well known of them: a solve
    returns any vectors of their space.
    """
    begin, values = target.edge(pairs.values, pairs.blur, wanted).begin, pairs.values
    last = values[target.nearest_first(values)[wanted - 1]]
    far = float(target.distance(np.array([last]))[0])
    if far - begin <= _WIDTH * abs(last) + _WIDTH_OF_ZERO * (target.problem.scale or 1.0):
        return begin, True
    faint = np.abs(values) <= _WIDTH_OF_ZERO * np.abs(values).max()
    reach = float(np.maximum(pairs.blur, bars(target.problem, pairs))[faint].max(initial=0.0))
    zeros = faint & (np.abs(values) <= _SPREAD * reach)
    if not zeros.any() or abs(last) > _SPREAD * reach:
        return begin, False
    return min(begin, float(target.distance(values[zeros]).min()) - 2 * reach), True


def compare_with_count(
    target: SpectrumTarget,
    pairs: RitzPairs,
    wanted: int,
    counter: Counter,
    past: tuple[Edge, EdgeCount] | None = None,
    repairs: int = 0,
) -> Count:
    """Return what a count says of pairs.

    Collective. Eigenvalues from the last wanted one on, such as its copies, need not all be found: it is enough
    that none is missing before it, which a second count tells. How far past it they lie is not told.

    Parameters
    ----------
    target
        The part of the spectrum.
    pairs
        Those found.
    wanted
        How many of them are to be returned.
    counter
        Counts.
    past
        What `count_past` returned, of these pairs or when they were fewer; None to call it.
    repairs
        Solves that it took so far.
    """
    edge, counted = past or count_past(target, pairs, wanted, counter)
    found, group = target.found(edge.past, pairs.values), 0
    if wanted <= len(pairs.values) and found < counted.inertia:
        begin, alike = _last_group(target, pairs, wanted)  # what came since may have moved it inwards
        before = target.count(counter, begin, pairs) if alike else None
        if before is not None and before.safe and before.inertia == target.found(begin, pairs.values):
            group = counted.inertia - found  # not before the last ones wanted, all of them
            counted = counted._replace(margin=min(counted.margin, before.margin))
    agree = found + group == counted.inertia and covers(target, pairs, wanted, edge)
    if agree and counted.of is not pairs.values:  # those that came since have bars of their own
        again = target.count(counter, edge.past, pairs)
        counted = again._replace(margin=min(counted.margin, again.margin))
        agree = found + group == again.inertia
    return Count.beside(
        len(target.problem.null) if target.holds(edge.past, 0.0) else 0,
        target.interval(edge.past),
        counted.inertia,
        found,
        agree and counted.safe,
        repairs=repairs,
        margin=finite_or_none(counted.margin),
        group=group,
        across=counted.across if counted.across < 1 else 1.0,
    )
