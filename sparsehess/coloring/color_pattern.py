"""`color()`: a pattern becomes a colouring of one kind, by one rule and order or by the best of many."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from sparsehess.coloring import lower_bounds, portfolio, recoloring
from sparsehess.coloring.coloring import Attempt, Coloring
from sparsehess.coloring.definitions import directly_readable
from sparsehess.coloring.distributed_greedy import color_greedily, distinct_colors
from sparsehess.coloring.found_blocks import find_blocks
from sparsehess.coloring.kinds import KINDS, ON_ONE_RANK
from sparsehess.coloring.local_graph import WHOLE, Region, redistribute
from sparsehess.coloring.vertex_orders import ORDERS
from sparsehess.errors import InputError, none_of
from sparsehess.pattern import Layout, Pattern
from sparsehess.runtime.citations import cite

BEST = "best"


def color(
    pattern: Pattern,
    *,
    kind: str = "star",
    order: str = BEST,
    rule: str | None = None,
    seed: int = 0,
    budget: float = portfolio.BUDGET,
    lattice: np.ndarray | None = None,
) -> Coloring:
    """Return a colouring of a pattern.

    Collective. The colours do not depend on the number of ranks.

    Parameters
    ----------
    pattern
        What may be coupled. Where groups of variables are declared (`dofs`, `Pattern.in_blocks`), the
        groups are coloured and every group's colour stands for as many as it has variables; with `best` also
        where groups of consecutive variables are found whose rows are alike.
    kind
        `star`: direct recovery by symmetry [1]_.
        `acyclic`: substitution in two-coloured trees [2]_; fewer colours, errors add up along the trees.
        `cpr`, `distance2`: no row holds a colour twice [3]_.
        `powell-toint`: triangular substitution [4]_.
    order
        A key of `ORDERS`, or `best`: periodic templates, several rules and orders, then passes that
        remove colours, started anew, within the budget. On several ranks `natural` and the orders by
        degree let one rank wait for another; `chunks` and `random` let them work side by side.
    rule
        A key of the kind's rules in `KINDS`. Star: `2007` ([5]_, algorithm 4.1) or `conservative` ([6]_,
        algorithm 4.1). Acyclic: `local`, `triangular`, or `trees` ([5]_, algorithm 5.1; larger patterns on
        one rank only). Default the first of its kind; with `best` all, but `trees` only for patterns of up
        to 131,072 variables or groups.
    seed
        Of random orders and restarts.
    budget
        Nominal seconds for `best`, in proportion more for patterns of over a million entries (blocks count
        as one): work that takes as long on one core of a plain machine. It is counted, not measured, so
        that the result does not depend on the machine. Half of it is for bettering a periodic template.
    lattice
        (n_local, d) coordinates of the variables (of the groups, where there are any), whole numbers
        or real ones of a lattice, for templates where the numbering is not that of a grid.

    Returns
    -------
    Coloring
        Colours of own and ghost variables, their number and a lower bound of it.

    Raises
    ------
    InputError
        Unknown kind, order or rule, a rule for one rank on several, or coordinates of no lattice.

    References
    ----------
    .. [1] T. F. Coleman, J. J. Moré, Estimation of sparse Hessian matrices and graph coloring problems,
       Mathematical Programming 28 (1984), 243-270.
    .. [2] T. F. Coleman, J.-Y. Cai, The cyclic coloring problem and estimation of sparse Hessian matrices,
       SIAM Journal on Algebraic and Discrete Methods 7 (1986), 221-235.
    .. [3] A. R. Curtis, M. J. D. Powell, J. K. Reid, On the estimation of sparse Jacobian matrices,
       IMA Journal of Applied Mathematics 13 (1974), 117-119.
    .. [4] M. J. D. Powell, P. L. Toint, On the estimation of sparse Hessian matrices,
       SIAM Journal on Numerical Analysis 16 (1979), 1060-1074.
    .. [5] A. H. Gebremedhin, A. Tarafdar, F. Manne, A. Pothen, New acyclic and star coloring algorithms with
       application to computing Hessians, SIAM Journal on Scientific Computing 29 (2007), 1042-1072.
    .. [6] A. H. Gebremedhin, F. Manne, A. Pothen, What color is your Jacobian? Graph coloring for computing
       derivatives, SIAM Review 47 (2005), 629-705.

    Examples
    --------
    >>> import sparsehess as sh
    >>> chain = sh.Pattern.from_pairs(range(99), range(1, 100), 100)
    >>> star, acyclic = sh.color(chain), sh.color(chain, kind="acyclic")
    >>> star.count, acyclic.count
    (3, 2)
    >>> sh.verify_coloring(chain, star) is None
    True
    """
    if kind not in KINDS:
        raise none_of(f"kind {kind!r}", kind, KINDS)
    if order != BEST and order not in ORDERS:
        raise none_of(f"order {order!r}", order, (BEST, *ORDERS))
    rules = KINDS[kind].rules
    if rule is not None and rule not in rules:
        raise none_of(f"rule {rule!r}", rule, rules, f", the rules of kind {kind}")
    comm = pattern.comm
    began = time.perf_counter()
    bound = KINDS[kind].bound(pattern)
    target, size, found_target = pattern, 1, None
    if pattern.quotient is not None:
        target, size = pattern.quotient, pattern.n // max(pattern.quotient.n, 1)
    elif order == BEST and lattice is None and bound < pattern.n:
        found_target, size = find_blocks(pattern)
        target = pattern if found_target is None else found_target
    attempts: tuple[Attempt, ...] = ()
    region = Region.of_pattern(target)
    try:
        if rule in ON_ONE_RANK and comm.size > 1 and not region.one_chunk:
            raise InputError(
                f"rule {rule!r} needs the whole graph on one rank: with more than {WHOLE} variables or groups, "
                "run on one rank or leave the rule out"
            )
        if order == BEST:
            bound = max(bound, lower_bounds.dense_parts(pattern, region, size))
        if bound == pattern.n:  # no two variables can share a colour
            found, rule = distinct_colors(region), rule or next(iter(rules))
        elif order == BEST:
            found, rule, attempts = portfolio.color_best(
                target, region, kind, rule, seed=seed, budget=budget, bound=-(-bound // size), lattice=lattice
            )
        else:
            rule = rule or next(iter(rules))
            found = color_greedily(region, rules[rule], ORDERS[order](region, seed))
            attempts = (Attempt(f"{rule}, {order}", found.count, time.perf_counter() - began),)
        cite(f"{kind} coloring")
        if attempts:
            cite(f"rule {rule}")
        colors = redistribute(region.layout, target.layout, found.colors)
        if size > 1:
            attempts = tuple(replace(one, count=one.count * size) for one in attempts)
            whole = Layout(comm, np.minimum(target.layout.starts * size, pattern.n))
            colors = (colors[:, None] * size + np.arange(size, dtype=np.int32)).ravel()
            colors = redistribute(whole, pattern.layout, colors)
    finally:
        region.free()
        if found_target is not None:
            found_target.free()
    ghosts = pattern.exchange.halo(colors)[pattern.layout.n_local :]
    spent = time.perf_counter() - began
    made = Coloring(
        pattern.layout,
        colors,
        ghosts,
        found.count * size,
        kind,
        order,
        rule,
        seed,
        bound,
        spent,
        attempts,
        found.traffic,
    )
    return _without_neutral(pattern, made) if comm.allreduce(pattern.hollow is not None) else made


def _without_neutral(pattern: Pattern, coloring: Coloring) -> Coloring:
    """Return the colouring without the classes that no recovery needs. Collective."""
    if KINDS[coloring.kind].elimination is not None:
        return coloring
    own, other = directly_readable(pattern, coloring)
    free = recoloring.neutral_classes(pattern, coloring.with_ghosts, own, other, coloring.count)
    names = np.where(free, -1, np.cumsum(~free) - 1).astype(np.int32)
    return replace(
        coloring,
        colors=names[coloring.colors],
        ghost_colors=names[coloring.ghost_colors],
        count=int((~free).sum()),
        lower_bound=min(coloring.lower_bound, int((~free).sum())) if free.any() else coloring.lower_bound,
    )
