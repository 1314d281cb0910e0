"""`Coloring`: a colour for every variable, and how it was made."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sparsehess.coloring.distributed_greedy import NO_TRAFFIC, Traffic
from sparsehess.pattern import Layout


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


@dataclass(frozen=True, eq=False)
class Coloring:
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

    @cached_property
    def with_ghosts(self) -> np.ndarray:
        """(n_local + ghosts,) colours by local column number."""
        return np.concatenate([self.colors, self.ghost_colors]) if len(self.ghost_colors) else self.colors

    @property
    def optimal(self) -> bool:
        """Whether the number of colours is proven least."""
        return self.count == self.lower_bound
