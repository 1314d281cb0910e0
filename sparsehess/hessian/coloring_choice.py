"""Which kind of colouring is taken for products that are exact, where nobody has said one."""

from __future__ import annotations

from sparsehess.coloring import BUDGET, Coloring, color
from sparsehess.derivatives.objective import Objective
from sparsehess.hessian.recovery import plan
from sparsehess.pattern import Pattern

# Nominal seconds for an entry that a colouring may take whose products are compiled: a hundred of these or so.
_PER_ENTRY = 5e-7

# Trees are taken where they save so many products, this part of all at least, and where no entry is the sum of
# more compressed ones than these: so many times rounding is what exact products may lose.
_SAVED, _PART, _TERMS = 3, 0.25, 1000.0


def default_budget(objective: Objective, pattern: Pattern, scheme: str) -> float:
    """Return the nominal seconds that a search for colours is worth. Not collective."""
    if objective.compiled and scheme == "product":
        return min(BUDGET, _PER_ENTRY * pattern.nnz)
    return BUDGET


def choose_coloring(objective: Objective, pattern: Pattern, order: str, budget: float, scheme: str) -> Coloring:
    """Return a star colouring, or an acyclic one where that saves enough of exact products.

    Collective. Substitution loses digits, at most as many times rounding as a tree has edges. It takes longer than
    products that are compiled, which are not counted: those are for star colourings.
    """
    direct = color(pattern, kind="star", order=order, budget=budget)
    worth = max(_SAVED, _PART * direct.count)
    if scheme != "product" or objective.compiled or direct.count - worth < 2:
        return direct
    trees = color(pattern, kind="acyclic", order=order, budget=budget)
    if direct.count - trees.count < worth or plan(pattern, trees).amplification > _TERMS:
        return direct
    return trees
