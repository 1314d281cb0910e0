"""Pairs that were found against an inertia count past the last of them."""

from __future__ import annotations

import numpy as np

from sparsehess.eigen.problem.count import Count
from sparsehess.eigen.problem.rayleigh_ritz import RitzPairs
from sparsehess.eigen.solvers.spectrum_targets import SAFE, Counter, Edge, EdgeCount, SpectrumTarget

# How far apart eigenvalues may be that are as good as each other: relative to themselves, and to a middle one.
_WIDTH, _WIDTH_OF_ZERO = 1e-6, 1e-10

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
    for rung in range(_RUNGS):
        edge = target.edge(pairs.values, pairs.blur, min(wanted, len(pairs.values)), wider * _RUNG**rung)
        counted = target.count(counter, edge.past)
        if counted.margin > SAFE:
            break
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
    counted = target.count(counter, past)
    if counted.inertia != target.found(past, pairs.values) or not counted.margin > SAFE:
        return None
    return Edge(past, usual.begin), counted


def covers(target: SpectrumTarget, pairs: RitzPairs, wanted: int, edge: Edge) -> bool:
    """Return whether all pairs that are to be returned are within an edge. Not collective."""
    return bool((np.sort(target.distance(pairs.values))[:wanted] < edge.past).all())


def _alike(target: SpectrumTarget, pairs: RitzPairs, wanted: int, edge: Edge) -> bool:
    """Return whether the last pairs that are to be returned, back to where the edge begins, are hardly apart.

    Not collective. Any eigenvalue that is missing there is then as good as those returned.
    """
    last = pairs.values[target.nearest_first(pairs.values)[wanted - 1]]
    width = float(target.distance(np.array([last]))[0]) - edge.begin
    return bool(width <= _WIDTH * abs(last) + _WIDTH_OF_ZERO * (target.problem.scale or 1.0))


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
    if wanted <= len(pairs.values):  # what came since has moved the last wanted one inwards
        edge = Edge(edge.past, target.edge(pairs.values, pairs.blur, wanted).begin)
    found, group, margin = target.found(edge.past, pairs.values), 0, counted.margin
    if wanted <= len(pairs.values) and found < counted.inertia and _alike(target, pairs, wanted, edge):
        before = target.count(counter, edge.begin)
        if before.margin > SAFE and before.inertia == target.found(edge.begin, pairs.values):
            group = counted.inertia - found  # not before the last ones wanted, all of them
            margin = min(margin, before.margin)
    return Count.beside(
        len(target.problem.null) if target.holds(edge.past, 0.0) else 0,
        target.interval(edge.past),
        counted.inertia,
        found,
        found + group == counted.inertia and margin > SAFE and covers(target, pairs, wanted, edge),
        repairs=repairs,
        margin=margin if np.isfinite(margin) else None,
        group=group,
    )
