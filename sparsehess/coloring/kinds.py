"""The kinds of colourings, and the rules that make each: one row a kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sparsehess.coloring import bicolored_trees, greedy_kernels, lower_bounds
from sparsehess.coloring import ejection_kernels as ejection
from sparsehess.coloring import elimination_kernels as elimination
from sparsehess.pattern import Pattern


@dataclass(frozen=True)
class Kind:
    """A kind of colouring.

    Attributes
    ----------
    meaning
        For help texts.
    rules
        Greedy rules that make one, the default first.
    ejection
        The search that makes do with a colour fewer, None where there is none.
    bound
        Pattern -> no colouring of this kind has fewer colours.
    elimination
        What comes to an end where the colouring is of this kind, None where all entries are read directly.
    template
        Condition on a periodic colouring of a stencil, a key of `templates`.
    """

    meaning: str
    rules: dict[str, type[greedy_kernels.Rule]]
    ejection: type[ejection.Distance2] | None
    bound: Callable[[Pattern], int]
    elimination: type[elimination.Elimination] | None
    template: str


KINDS = {
    "star": Kind(
        "star colouring, direct recovery by symmetry",
        {
            "2007": greedy_kernels.Star,
            "conservative": greedy_kernels.ConservativeStar,
            "distance2": greedy_kernels.Distance2,
        },
        ejection.Star,
        lower_bounds.star,
        None,
        "distance2",
    ),
    "acyclic": Kind(
        "acyclic colouring, recovery by substitution in two-coloured trees",
        {"local": greedy_kernels.Acyclic, "triangular": greedy_kernels.Triangular, "trees": bicolored_trees.Trees},
        ejection.Acyclic,
        lower_bounds.acyclic,
        elimination.Leaves,
        "acyclic",
    ),
    "cpr": Kind(
        "Curtis-Powell-Reid column partition, direct recovery without symmetry",
        {"columns": greedy_kernels.Distance2},
        ejection.Distance2,
        lower_bounds.columns,
        None,
        "distance2",
    ),
    "distance2": Kind(
        "no colour twice within two edges, direct recovery without symmetry",
        {"distance2": greedy_kernels.Distance2},
        ejection.Distance2,
        lower_bounds.columns,
        None,
        "distance2",
    ),
    "powell-toint": Kind(
        "Powell-Toint triangular partition, recovery by substitution in two-coloured trees",
        {"triangular": greedy_kernels.Triangular},
        None,
        lower_bounds.acyclic,
        elimination.Rows,
        "powell-toint",
    ),
}

# Rules that follow trees through the whole graph: on one rank only.
ON_ONE_RANK = {"trees"}
