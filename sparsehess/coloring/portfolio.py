"""`best`: several rules and orders, then passes that remove colours, started anew, within a budget of work.

The work of an attempt is estimated from the size of the pattern before it is made, in nominal
seconds, and so the same attempts are made on every machine and every number of ranks.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import cached_property

import numpy as np

from sparsehess.coloring import ejection_kernels, periodic, recoloring, vertex_orders
from sparsehess.coloring.coloring import Attempt
from sparsehess.coloring.distributed_greedy import Greedy, color_greedily, distinct_colors
from sparsehess.coloring.kinds import KINDS, ON_ONE_RANK
from sparsehess.coloring.local_graph import Region
from sparsehess.errors import InputError
from sparsehess.pattern import Pattern

BUDGET = 0.2

# Nominal seconds an entry of the pattern, of the rules and of the orders.
_COST = {"2007": 18e-9, "conservative": 18e-9, "local": 25e-9, "trees": 50e-9}
_PLAIN = 10e-9
_ORDER_COST = {"smallest-last": 15e-9, "hubs-first": 20e-9, "incidence-degree": 60e-9}
_SQUARE_COST = 8e-9  # an entry of the walk over the neighbours of neighbours

# What an attempt costs however small the pattern is: several exchanges where there are several ranks.
_EACH = 1.5e-3

# An attempt is given up when it needs so many times the colours of the best.
_HOPELESS = 2

# What to try, the most promising first.
_FIRST = {
    "star": (
        ("conservative", "largest-first"),
        ("conservative", "smallest-last"),
        ("conservative", "hubs-first"),
        ("2007", "smallest-last"),
        ("conservative", "incidence-degree"),
        ("distance2", "natural"),
        ("2007", "incidence-degree"),
        ("2007", "natural"),
        ("2007", "distance2-smallest-last"),
        ("conservative", "distance2-smallest-last"),
    ),
    "acyclic": (
        ("trees", "smallest-last"),
        ("trees", "largest-first"),
        ("trees", "incidence-degree"),
        ("trees", "natural"),
        ("local", "smallest-last"),
        ("triangular", "smallest-last"),
        ("local", "natural"),
        ("local", "largest-first"),
        ("local", "incidence-degree"),
        ("triangular", "natural"),
    ),
    "powell-toint": (
        ("triangular", "smallest-last"),
        ("triangular", "natural"),
        ("triangular", "incidence-degree"),
        ("triangular", "hubs-first"),
    ),
    "distance2": (
        ("distance2", "natural"),
        ("distance2", "smallest-last"),
        ("distance2", "distance2-smallest-last"),
        ("distance2", "largest-first"),
        ("distance2", "incidence-degree"),
    ),
    "cpr": (
        ("columns", "natural"),
        ("columns", "smallest-last"),
        ("columns", "distance2-smallest-last"),
        ("columns", "largest-first"),
        ("columns", "incidence-degree"),
    ),
}
# Rules and orders that are shaken where no class can be ejected.
_RESTARTS = {"powell-toint": ("triangular", "smallest-last")}
_SPREAD = (0.005, 0.01, 0.02)

# Part of the budget that is kept for the passes, and part of what is left that the first search takes.
_PASSES = 0.5
_FIRST_SEARCH = 0.06
_DROP = 0.5e-3  # nominal seconds to take a class out, besides
_VISIT = 1.2e-9  # an entry of the graph in a search
_FEWEST_STEPS = 16

# Beyond this many chunks ranks work side by side, though that takes somewhat more colours.
_IN_TURN = 64


class _Search:
    """The best so far, what was tried, and what is left of the budget."""

    def __init__(self, pattern: Pattern, region: Region, kind: str, budget: float, bound: int):
        self.pattern, self.region, self.kind = pattern, region, KINDS[kind]
        self.budget, self.bound = budget, bound
        self.best, self.rule = distinct_colors(region), ""  # until the first attempt
        self.attempts: list[Attempt] = []
        self._orders: dict[str, vertex_orders.Order] = {}

    def cost(self, rule: str, order: str) -> float:
        spent = _EACH + _COST.get(rule, _PLAIN) * self.pattern.nnz + 30e-9 * self.pattern.n
        if order in self._orders:
            return spent
        if order.startswith("distance2"):
            return spent + _SQUARE_COST * self.walk
        return spent + _ORDER_COST.get(order, 0.0) * self.pattern.nnz

    @cached_property
    def walk(self) -> int:
        return int(self.region.comm.allreduce(vertex_orders.walk(self.region)))

    def affords(self, cost: float, keep: float = 0.0) -> bool:
        if self.rule and (cost > self.budget - keep or self.best.count <= self.bound):
            return False
        self.budget -= cost
        return True

    def order(self, name: str, seed: int) -> vertex_orders.Order:
        if name not in self._orders:
            order = vertex_orders.ORDERS[name](self.region, seed)
            self._orders[name] = replace(
                order, scattered=order.scattered or self.pattern.n > _IN_TURN * self.region.chunk
            )
        return self._orders[name]

    def note(self, name: str, rule: str, found: Greedy, began: float) -> None:
        spent = time.perf_counter() - began
        if found.left:
            self.attempts.append(Attempt(f"{name}, given up", found.count, spent))
            return
        self.attempts.append(Attempt(name, found.count, spent))
        if not self.rule or found.count < self.best.count:
            self.best, self.rule = found, rule

    def run(self, rule: str, name: str, order: vertex_orders.Order) -> None:
        began = time.perf_counter()
        limit = _HOPELESS * self.best.count if self.rule else 0
        found = color_greedily(self.region, self.kind.rules[rule], order, limit=limit)
        self.note(f"{rule}, {name}", rule, found, began)


def color_best(
    pattern: Pattern,
    region: Region,
    kind: str,
    rule: str | None,
    *,
    seed: int,
    budget: float,
    bound: int,
    lattice: np.ndarray | None,
) -> tuple[Greedy, str, tuple[Attempt, ...]]:
    """Return the best colouring found, the rule that made it, and all attempts.

    Collective.

    Parameters
    ----------
    rule
        If given, greedy attempts by this rule alone, and no templates.
    budget
        Nominal seconds; the first attempt is made in any case.
    bound
        A number of colours that cannot be bettered.
    lattice
        Coordinates for a template, or None.
    """
    search = _Search(pattern, region, kind, budget, bound)
    allowed = set(KINDS[kind].rules) if rule is None else {rule}
    if rule is None and not region.one_chunk:
        allowed -= ON_ONE_RANK
    if rule is None or lattice is not None:
        began = time.perf_counter()
        found = periodic.color_periodically(pattern, region, kind, lattice)
        if found is not None:
            search.note("periodic template", "template", found, began)
        elif lattice is not None:
            raise InputError(
                "lattice: no periodic colouring was found: either the points are not those of one lattice where "
                "all have the same neighbours, or the stencil is too large: leave the coordinates out"
            )
    for name, order in _FIRST[kind]:
        if name in allowed and search.affords(search.cost(name, order), _PASSES * budget):
            search.run(name, order, search.order(order, seed))
    _reverse_classes(search, seed)
    if search.kind.ejection is not None:
        _eject(search, search.kind.ejection, seed)
    else:
        _restart(search, *_RESTARTS[kind], seed)
    return search.best, search.rule, tuple(search.attempts)


def _reverse_classes(search: _Search, seed: int) -> None:
    """Recolour in reverse class order while that removes colours."""
    moves = next(iter(search.kind.rules))
    while search.affords(search.cost(moves, "natural"), _PASSES * search.budget):
        began, before = time.perf_counter(), search.best.count
        found = recoloring.reverse_classes(search.region, search.kind.rules[moves], search.best, seed)
        search.note("reverse classes", moves, found, began)
        if search.best.count == before:
            break


def _eject(search: _Search, ejection: type[ejection_kernels.Distance2], seed: int) -> None:
    """Take out class after class by ejection; where that fails, start anew with twice the work."""
    region, pattern, size = search.region, search.pattern, search.pattern.n
    chunks = -(-size // region.chunk)
    most = int(_FIRST_SEARCH * search.budget / (_VISIT * max(chunks, 1)))
    state = None
    while most * size >= _FEWEST_STEPS * search.walk:
        fixed = _DROP + (_PLAIN * pattern.nnz + 1e-9 * size * search.best.count if state is None else 3e-9 * size)
        if not search.affords(fixed + _VISIT * most * chunks):
            break
        began = time.perf_counter()
        if state is None:
            state = ejection(
                region.indptr,
                region.indices,
                region.chunks,
                region.whole(search.best.colors),
                search.best.count,
                region.one_chunk,
                seed,
                most,
            )
            before = 0
        found = recoloring.dissolve_class(region, state, search.best.count)
        work = int(region.comm.allreduce(state.work))
        search.budget += _VISIT * (most * chunks - (work - before))
        before = work
        search.note("class ejected", search.rule, found, began)
        if found.left:
            state, most, seed = None, 2 * most, seed + 1


def _restart(search: _Search, rule: str, order: str, seed: int) -> None:
    """Colour in orders that are shaken ever anew."""
    draw = 0
    while search.affords(search.cost(rule, order)):
        shaken = vertex_orders.perturb(
            search.region, search.order(order, seed), _SPREAD[draw % len(_SPREAD)], seed + draw + 1
        )
        draw += 1
        search.run(rule, f"{order}, restart {draw}", shaken)
