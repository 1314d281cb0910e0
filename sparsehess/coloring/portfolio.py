"""`best`: several rules and orders, then passes that remove colours, started anew, within a budget of work.

The work of an attempt is estimated from the size of the pattern before it is made, in nominal
seconds, and so the same attempts are made on every machine and every number of ranks.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import cached_property

from mpi4py import MPI

import numpy as np

from sparsehess.coloring import ejection_kernels, periodic, recoloring, vertex_orders
from sparsehess.coloring.coloring import Attempt
from sparsehess.coloring.distributed_greedy import Greedy, color_greedily, distinct_colors
from sparsehess.coloring.kinds import KINDS, ON_ONE_RANK
from sparsehess.coloring.local_graph import Region, spans
from sparsehess.coloring.vertex_orders import SQUARE_ENTRIES, square_is_sparse
from sparsehess.errors import InputError
from sparsehess.pattern import Pattern

BUDGET = 0.2

# Patterns of more entries have more budget in proportion.
_ENTRIES = 1_000_000

# Nominal seconds an entry of the pattern, of the rules and of the orders.
_COST = {"2007": 12e-9, "conservative": 12e-9, "local": 20e-9, "trees": 30e-9}
_PLAIN = 6e-9
_ORDER_COST = {"smallest-last": 10e-9, "hubs-first": 12e-9, "incidence-degree": 20e-9}
_SQUARE_COST = 4e-9  # an entry of the walk over the neighbours of neighbours

# Entries farther than this from the diagonal miss the caches: an entry costs so many times more, if it is far.
_NEAR = 32768
_FAR = 5
_FAR_SQUARE = 20
_SAMPLE = 4096  # rows
_SHUFFLED = 0.25

# Part of the budget that is spent on bettering a template.
_AFTER_TEMPLATE = 0.5

# What an attempt costs however small the pattern is: several exchanges where there are several ranks.
_EACH = 1.5e-3

# An attempt is given up when it needs so many times the colours of the best.
_HOPELESS = 2


def _columns(rule: str) -> tuple[tuple[str, str], ...]:
    orders = (
        "natural",
        "smallest-last",
        "distance2-smallest-last",
        "distance2-incidence-degree",
        "incidence-degree",
        "largest-first",
        "distance2-largest-first",
    )
    return tuple((rule, order) for order in orders)


# What to try, the most promising first.
_FIRST = {
    "star": (
        ("conservative", "smallest-last"),
        ("conservative", "largest-first"),
        ("2007", "incidence-degree"),
        ("distance2", "natural"),
        ("conservative", "hubs-first"),
        ("2007", "distance2-smallest-last"),
        ("conservative", "distance2-smallest-last"),
        ("2007", "smallest-last"),
        ("conservative", "incidence-degree"),
        ("2007", "natural"),
        ("conservative", "distance2-incidence-degree"),
        ("2007", "distance2-incidence-degree"),
    ),
    "acyclic": (
        ("trees", "smallest-last"),
        ("trees", "incidence-degree"),
        ("trees", "largest-first"),
        ("local", "smallest-last"),
        ("trees", "distance2-smallest-last"),
        ("trees", "hubs-first"),
        ("trees", "natural"),
        ("local", "incidence-degree"),
        ("local", "largest-first"),
        ("triangular", "smallest-last"),
        ("trees", "distance2-incidence-degree"),
        ("trees", "distance2-largest-first"),
        ("local", "natural"),
    ),
    "powell-toint": (
        ("triangular", "smallest-last"),
        ("triangular", "natural"),
        ("triangular", "incidence-degree"),
        ("triangular", "hubs-first"),
    ),
    "distance2": _columns("distance2"),
    "cpr": _columns("columns"),
}
# Kinds whose classes are taken in reverse order; where ejection meets no edges it gets further without.
_REVERSED = {"distance2", "cpr", "powell-toint"}
# Rules and orders that are shaken where no class can be ejected.
_RESTARTS = {"powell-toint": ("triangular", "smallest-last")}
_SPREAD = (0.005, 0.01, 0.02)

# Part of the budget that is kept for the passes, and part of what is left that the first search takes.
_PASSES = 0.5
_FIRST_SEARCH = 0.06
_DROP = 0.5e-3  # nominal seconds to take a class out, besides
_VISIT = 1.2e-9  # an entry of the graph in a search
_FEWEST_STEPS = 16
_COUNTED = 65535  # neighbours of one colour that a search can count
_STUCK = 64  # a search that spent so small a part of its work has met the edges of chunks

# A last colour of so small a part of the vertices is worth passes that take it ahead, at most so many.
_FEW = 1e-5
_AHEAD = 4

# Beyond this many chunks ranks work side by side, though that takes somewhat more colours.
_IN_TURN = 64


class _Search:
    """The best so far, what was tried, and what is left of the budget."""

    def __init__(self, pattern: Pattern, region: Region, kind: str, budget: float, bound: int):
        self.pattern, self.region, self.kind = pattern, region, KINDS[kind]
        self.budget, self.bound = budget, bound
        self.best, self.rule = distinct_colors(region), ""  # until the first attempt
        self.way: tuple[str, vertex_orders.Order] | None = None  # rule and order of the best, if it is greedy
        self.attempts: list[Attempt] = []
        self._orders: dict[str, vertex_orders.Order] = {}

    def cost(self, rule: str, order: str) -> float:
        entry, square = _COST.get(rule, _PLAIN), 0.0
        if order not in self._orders:
            if order.startswith("distance2"):
                square = self.square_cost
            entry += _ORDER_COST.get(order, 0.0)
        return _EACH + (1.0 + _FAR * self.far) * (entry * self.pattern.nnz + 10e-9 * self.pattern.n) + square

    def ways(self, listed: tuple[tuple[str, str], ...], allowed: set[str]) -> list[tuple[str, str]]:
        """Return what to try: not the order of numbers where they say nothing of who is near."""
        numbered = self.far < _SHUFFLED
        return [(rule, order) for rule, order in listed if rule in allowed and (numbered or order != "natural")]

    @property
    def kept(self) -> float:
        """Part of the budget that is kept for the passes: less where they meet the edges of chunks everywhere."""
        return _PASSES * (1.0 if self.region.one_chunk else 1.0 - self.far)

    @cached_property
    def far(self) -> float:
        """Part of the entries that are far from the diagonal, as a sample of rows tells."""
        pattern, layout = self.pattern, self.pattern.layout
        step = max(1, pattern.n // _SAMPLE)
        rows = np.arange(-(-layout.start // step) * step, layout.stop, step)
        begins = pattern.indptr[rows - layout.start]
        lengths = pattern.indptr[rows - layout.start + 1] - begins
        columns = pattern.indices[spans(begins.astype(np.int64), lengths.astype(np.int64))]
        away = int((np.abs(columns - np.repeat(rows, lengths)) > _NEAR).sum())
        seen = np.array(pattern.comm.allgather((away, len(columns)))).sum(axis=0)
        return float(seen[0] / max(seen[1], 1))

    @cached_property
    def square_cost(self) -> float:
        """Nominal seconds of an order of the graph's square, without end where it is dense."""
        if self.walk > SQUARE_ENTRIES or not square_is_sparse(self.region):
            return np.inf
        return _SQUARE_COST * (1.0 + _FAR_SQUARE * self.far) * self.walk

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
            self.best, self.rule, self.way = found, rule, None

    def run(self, rule: str, name: str, order: vertex_orders.Order) -> None:
        began = time.perf_counter()
        limit = _HOPELESS * self.best.count if self.rule else 0
        found = color_greedily(self.region, self.kind.rules[rule], order, limit=limit)
        self.note(f"{rule}, {name}", rule, found, began)
        if self.best is found:
            self.way = rule, order


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
    ways: list[tuple[str, str]] = []
    if search.rule:  # no greedy colouring has bettered a template, and ejection seldom
        search.budget *= _AFTER_TEMPLATE
    else:
        search.budget *= max(1.0, pattern.nnz / _ENTRIES)
        ways = search.ways(_FIRST[kind], allowed)
        ways = _attempt(search, ways, seed, search.kept * search.budget)
    if kind not in _REVERSED and not region.one_chunk:
        _put_ahead(search)
    if kind in _REVERSED and not (search.kind.ejection is not None and region.one_chunk):
        _reverse_classes(search, seed)
    if search.kind.ejection is not None:
        _eject(search, search.kind.ejection, seed)
        _attempt(search, ways, seed, 0.0)
    else:
        _restart(search, *_RESTARTS[kind], seed)
    return search.best, search.rule, tuple(search.attempts)


def _attempt(search: _Search, ways: list[tuple[str, str]], seed: int, keep: float) -> list[tuple[str, str]]:
    """Colour by the rules and orders that the budget affords; return those that it does not."""
    left = []
    for rule, order in ways:
        if search.affords(search.cost(rule, order), keep):
            search.run(rule, order, search.order(order, seed))
        else:
            left.append((rule, order))
    return left


def _put_ahead(search: _Search) -> None:
    """Take the last colour's vertices, where they are very few, ahead of all others, as long as they get fewer.

    Blame what was hard, and do it first: Joslin and Clements 1999. Where chunks have edges everywhere this gets
    further than ejection, and the few passes are made whatever is left of the budget.
    """
    region, found = search.region, search.best
    if search.way is None:
        return
    rule, order = search.way
    ahead = np.zeros(region.own, bool)
    least = int(_FEW * search.pattern.n) + 1
    for draw in range(_AHEAD):
        size = int(recoloring.class_sizes(region, found.colors, found.count)[-1])
        if size >= least or search.best.count <= search.bound:
            break
        least = size
        began = time.perf_counter()
        ahead |= found.colors == found.count - 1
        level = np.where(ahead, 0, 1 + order.levels_of(np.arange(region.own)))
        first = replace(order, level=level, levels=order.levels + 1)
        before = search.best.count
        found = color_greedily(region, search.kind.rules[rule], first)
        search.note(f"{rule}, {draw + 1} times the last ahead", rule, found, began)
        if found.count != before:
            break


def _reverse_classes(search: _Search, seed: int) -> None:
    """Recolour in reverse class order while that removes colours."""
    moves = next(iter(search.kind.rules))
    while search.affords(search.cost(moves, "natural"), search.kept * search.budget):
        began, before = time.perf_counter(), search.best.count
        found = recoloring.reverse_classes(search.region, search.kind.rules[moves], search.best, seed)
        search.note("reverse classes", moves, found, began)
        if search.best.count == before:
            break


def _eject(search: _Search, ejection: type[ejection_kernels.Distance2], seed: int) -> None:
    """Take out class after class by ejection; where it fails go on with twice the work, at last with the rest."""
    region, size = search.region, search.pattern.n
    fullest = int(np.diff(region.indptr).max(initial=0))
    if region.comm.allreduce(fullest, op=MPI.MAX) > _COUNTED:
        return
    chunks = max(-(-size // region.chunk), 1)
    most = int(_FIRST_SEARCH * search.budget / (_VISIT * chunks))
    fixed = _DROP + _PLAIN * search.pattern.nnz + 1e-9 * size * search.best.count
    state, before, found = None, 0, None
    while True:
        rest = int((search.budget - fixed) / (_VISIT * chunks))
        most = min(most, rest)
        if most * size < _FEWEST_STEPS * search.walk or not search.affords(fixed + _VISIT * most * chunks):
            break
        began = time.perf_counter()
        if state is None:
            colors = region.whole(search.best.colors)
            state = ejection(
                region.indptr, region.indices, region.chunks, colors, search.best.count, region.one_chunk, seed
            )
            fixed = 3e-9 * size
        state.most = most
        again = found is not None and found.left > 0
        found = (recoloring.resume_ejection if again else recoloring.dissolve_class)(
            region, state, search.best.count
        )
        work = int(region.comm.allreduce(state.work)) - before
        before += work
        search.budget += _VISIT * (most * chunks - work)
        search.note("class ejected", search.rule, found, began)
        if found.left and (most == rest or work * _STUCK < most * chunks):
            break
        if found.left:
            most *= 2


def _restart(search: _Search, rule: str, order: str, seed: int) -> None:
    """Colour in orders that are shaken ever anew."""
    draw = 0
    while search.affords(search.cost(rule, order)):
        shaken = vertex_orders.perturb(
            search.region, search.order(order, seed), _SPREAD[draw % len(_SPREAD)], seed + draw + 1
        )
        draw += 1
        search.run(rule, f"{order}, restart {draw}", shaken)
