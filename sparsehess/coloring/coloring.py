"""`Coloring`: a colour for every variable, and how it was made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sparsehess.coloring.distributed_greedy import NO_TRAFFIC, Traffic
from sparsehess.pattern import Layout
from sparsehess.runtime.html_fragments import bars, fragment, note, table
from sparsehess.runtime.short_repr import ShortRepr, number_of


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


@dataclass(frozen=True, eq=False, repr=False)
class Coloring(ShortRepr):
    """A colour for every variable.

    Not collective. Made by `color`, or read from a file by `sparsehess.coloring.load`.

    Attributes
    ----------
    layout
        Rows of each rank.
    colors
        (n_local,) int32, from 0; -1 for neutral variables, which no recovery needs to step.
    ghost_colors
        (ghosts,) int32, of the pattern's ghost columns.
    count
        Number of colours, the same on every rank.
    kind, order, rule
        Keys of `KINDS`, of `ORDERS` (or `best`), and of the kind's rules; how it was made.
    seed
        Of what was drawn at random.
    lower_bound
        No colouring of this kind has fewer colours. Looked for harder with `best`.
    seconds
        Time of the colouring alone.
    attempts
        What was tried, with the colours each gave.
    traffic
        What ranks exchanged to agree on the colours.

    Examples
    --------
    >>> import sparsehess as sh
    >>> chain = sh.Pattern.from_pairs(range(9), range(1, 10), 10)
    >>> coloring = sh.color(chain)
    >>> coloring.count, coloring.optimal, coloring.colors.tolist()
    (3, True, [0, 1, 2, 0, 1, 2, 0, 1, 2, 0])
    """

    layout: Layout
    colors: np.ndarray
    ghost_colors: np.ndarray
    count: int
    kind: str
    order: str
    rule: str
    seed: int
    lower_bound: int
    seconds: float
    attempts: tuple[Attempt, ...] = ()
    traffic: Traffic = NO_TRAFFIC

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        least = "proven least" if self.optimal else f"no fewer than {self.lower_bound}"
        yield f"{number_of(self.count, 'color')} ({least})"
        yield f"of {number_of(self.layout.n, 'variable')}"
        yield f"{self.kind}"
        yield f"by {self.rule}"

    def _repr_html_(self) -> str:
        """Return a small table for notebooks, and how many local variables have each color. Not collective."""
        own = np.bincount(self.colors[self.colors >= 0], minlength=max(self.count, 1))
        least = "proven least" if self.optimal else f"no fewer than {self.lower_bound}"
        facts = [
            ("colors", f"{self.count} ({least})"),
            ("variables", f"{self.layout.n:,}"),
            ("kind", self.kind),
            ("order", self.order),
            ("made by", self.rule),
            ("seconds", f"{self.seconds:.3f}"),
        ]
        where = "" if len(self.layout.starts) == 2 else " of this rank"
        told = note(f"variables{where} of each color: {own.min():,} to {own.max():,}")
        return fragment("Coloring", table(facts), bars(own, "variables of each color"), told)

    @cached_property
    def with_ghosts(self) -> np.ndarray:
        """(n_local + ghosts,) colours by local column number."""
        return np.concatenate([self.colors, self.ghost_colors]) if len(self.ghost_colors) else self.colors

    @property
    def optimal(self) -> bool:
        """Whether the number of colours is proven least."""
        return self.count == self.lower_bound
