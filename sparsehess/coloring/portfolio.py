"""`best`: several rules and orders, passes that remove colours, and restarts, within a budget of work.

The work of an attempt is estimated from the size of the pattern before it is made, in nominal
seconds, and so the same attempts are made on every machine and every number of ranks.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import cached_property

from sparsehess.coloring import improve, orders, stencils
from sparsehess.coloring import region as regions
from sparsehess.coloring.kinds import KINDS, ON_ONE_RANK
from sparsehess.coloring.region import Region
from sparsehess.coloring.schedule import Greedy, greedy
from sparsehess.errors import InputError
from sparsehess.pattern import Pattern

BUDGET = 0.2

# Nominal seconds an entry of the pattern, of the rules and of the orders.
_COST = {"2007": 25e-9, "conservative": 25e-9, "local": 40e-9, "trees": 70e-9}
_PLAIN = 10e-9
_ORDER_COST = {"smallest-last": 15e-9, "hubs-first": 20e-9, "incidence-degree": 60e-9}
_SQUARE_COST = 8e-9  # an entry of the walk over the neighbours of neighbours

# What an attempt costs however small the pattern is: several exchanges where there are several ranks.
_EACH = 4e-3

# An attempt is given up when it needs so many times the colours of the best.
_HOPELESS = 2

# What to try, the most promising first.
_FIRST = {
    "star": (
        ("conservative", "largest-first"),
        ("conservative", "hubs-first"),
        ("2007", "smallest-last"),
        ("conservative", "smallest-last"),
        ("conservative", "incidence-degree"),
        ("distance2", "natural"),
        ("2007", "incidence-degree"),
        ("2007", "natural"),
        ("2007", "distance2-smallest-last"),
        ("conservative", "distance2-smallest-last"),
    ),
    "acyclic": (
        ("trees", "smallest-last"),
        ("local", "smallest-last"),
        ("triangular", "smallest-last"),
        ("local", "natural"),
        ("local", "largest-first"),
        ("local", "incidence-degree"),
        ("triangular", "natural"),
        ("trees", "natural"),
        ("trees", "incidence-degree"),
        ("trees", "largest-first"),
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
# The rule that moves single vertices to other classes: it must be exact whatever the colouring was.
_MOVES = {"star": "2007", "acyclic": "local", "distance2": "distance2", "cpr": "columns"}
# Rules and orders that restarts shake.
_RESTARTS = {
    "star": (("conservative", "hubs-first"), ("2007", "smallest-last"), ("conservative", "smallest-last")),
    "acyclic": (("trees", "smallest-last"), ("local", "smallest-last"), ("trees", "random"), ("local", "random")),
    "powell-toint": (("triangular", "smallest-last"),),
    "distance2": (("distance2", "smallest-last"), ("distance2", "largest-first")),
    "cpr": (("columns", "smallest-last"), ("columns", "largest-first")),
}
_SPREAD = (0.005, 0.01, 0.02)

# Beyond this many chunks ranks work side by side, though that takes somewhat more colours.
_IN_TURN = 64


@dataclass(frozen=True)
class Attempt:
    """What one way of colouring gave.

    Attributes
    ----------
    name
        Rule and order, or the pass.
    count
        Colours.
    seconds
        Measured.
    """

    name: str
    count: int
    seconds: float


class _Search:
    """The best so far, what was tried, and what is left of the budget."""

    def __init__(self, pattern: Pattern, region: Region, kind: str, budget: float, bound: int):
        self.pattern, self.region, self.kind = pattern, region, KINDS[kind]
        self.budget, self.bound = budget, bound
        self.best: Greedy | None = None
        self.rule = ""
        self.attempts: list[Attempt] = []
        self._orders: dict[str, orders.Order] = {}

    def cost(self, rule: str, order: str) -> float:
        spent = _EACH + _COST.get(rule, _PLAIN) * self.pattern.nnz + 30e-9 * self.pattern.n
        if order in self._orders:
            return spent
        if order.startswith("distance2"):
            return spent + _SQUARE_COST * self._walk
        return spent + _ORDER_COST.get(order, 0.0) * self.pattern.nnz

    @cached_property
    def _walk(self) -> int:
        return int(self.region.comm.allreduce(orders.walk(self.region)))

    def affords(self, cost: float) -> bool:
        if self.best is not None and (cost > self.budget or self.best.count <= self.bound):
            return False
        self.budget -= cost
        return True

    def order(self, name: str, seed: int) -> orders.Order:
        if name not in self._orders:
            order = orders.ORDERS[name](self.region, seed)
            self._orders[name] = replace(
                order, scattered=order.scattered or self.pattern.n > _IN_TURN * regions.CHUNK
            )
        return self._orders[name]

    def note(self, name: str, rule: str, found: Greedy, began: float) -> None:
        spent = time.perf_counter() - began
        if found.left:
            self.attempts.append(Attempt(f"{name}, given up", found.count, spent))
            return
        self.attempts.append(Attempt(name, found.count, spent))
        if self.best is None or found.count < self.best.count:
            self.best, self.rule = found, rule

    def run(self, rule: str, name: str, order: orders.Order) -> None:
        began = time.perf_counter()
        limit = 0 if self.best is None else _HOPELESS * self.best.count
        self.note(f"{rule}, {name}", rule, greedy(self.region, self.kind.rules[rule], order, limit=limit), began)


def best(
    pattern: Pattern,
    region: Region,
    kind: str,
    rule: str | None,
    *,
    seed: int,
    budget: float,
    bound: int,
    lattice,
) -> tuple[Greedy, str, tuple[Attempt, ...]]:
    """Return the best colouring found, the rule that made it, and all attempts.

    Collective.

    Parameters
    ----------
    rule
        If given, this rule alone, without templates; `trees`: all rules of the kind, that one included.
    budget
        Nominal seconds; the first attempt is made in any case.
    bound
        A number of colours that cannot be bettered.
    lattice
        Coordinates for a template, or None.
    """
    search = _Search(pattern, region, kind, budget, bound)
    if rule is None:
        allowed = set(KINDS[kind].rules) - ON_ONE_RANK
    else:
        allowed = set(KINDS[kind].rules) if rule in ON_ONE_RANK else {rule}
    if rule is None or rule in ON_ONE_RANK or lattice is not None:
        began = time.perf_counter()
        found = stencils.periodic(pattern, region, kind, lattice)
        if found is not None:
            search.note("periodic template", "template", found, began)
        elif lattice is not None:
            raise InputError(
                "lattice: no periodic colouring was found: either the points are not those of one lattice where "
                "all have the same neighbours, or the stencil is too large: leave the coordinates out"
            )
    for name, order in _FIRST[kind]:
        if name in allowed and search.affords(search.cost(name, order)):
            search.run(name, order, search.order(order, seed))
    _passes(search, kind, allowed, seed)
    restarts = [pair for pair in _RESTARTS[kind] if pair[0] in allowed]
    draw = 0
    while restarts:
        draw += 1
        name, order = restarts[draw % len(restarts)]
        if not search.affords(search.cost(name, order)):
            break
        if order == "random":
            shaken = orders.random(region, seed + draw)
        else:
            spread = _SPREAD[draw // len(restarts) % len(_SPREAD)]
            shaken = orders.perturbed(region, search.order(order, seed), spread, seed + draw)
        before = search.best.count
        search.run(name, f"{order}, restart {draw}", shaken)
        if search.best.count < before:
            _passes(search, kind, allowed, seed)
    return search.best, search.rule, tuple(search.attempts)


def _passes(search: _Search, kind: str, allowed: set[str], seed: int) -> None:
    """Recolour in reverse class order and dissolve small classes while that removes colours."""
    moves = "trees" if kind == "acyclic" and "trees" in allowed else _MOVES.get(kind)
    if moves not in allowed:
        return
    rule = search.kind.rules[moves]
    cost = search.cost(moves, "natural")
    while search.affords(cost):
        began, before = time.perf_counter(), search.best.count
        search.note("reverse classes", moves, improve.recolored(search.region, rule, search.best, seed), began)
        if search.best.count == before:
            break
    gone = True
    while gone and search.affords(3 * cost):
        began = time.perf_counter()
        found, gone = improve.without_a_class(search.region, rule, search.best)
        search.note("class dissolved", moves, found, began)
