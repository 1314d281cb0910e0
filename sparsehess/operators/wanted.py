"""`Wanted`: which eigenvalues are wanted, in an order in which the first come first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsehess.operators.eigenvalues import ORDERS, Eigenvalues


@dataclass(frozen=True)
class Wanted:
    """The first eigenvalues in an order, or all of an interval.

    Not collective to use; the same on every rank.

    Attributes
    ----------
    k
        How many.
    which
        `smallest`, `largest`, `magnitude`, `negative`, `nearest` or `interval`.
    target
        To which the nearest are wanted.
    low, high
        Ends of the interval.
    """

    k: int
    which: str = "smallest"
    target: float = 0.0
    low: float = -np.inf
    high: float = np.inf

    def rank(self, values: np.ndarray) -> np.ndarray:
        """Return (m,) numbers by which eigenvalues come first; infinite for those that are not wanted."""
        if self.which == "nearest":
            return np.abs(values - self.target)
        if self.which == "interval":
            return np.where((values >= self.low) & (values <= self.high), 0.0, np.inf)
        return ORDERS[self.which](values)

    def first(self, values: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Return which of some eigenvalues are wanted, ascending; of equal ones those of the first labels."""
        rank = self.rank(values)
        order = np.lexsort((labels, rank))[: self.k]
        order = order[rank[order] < np.inf]
        return order[np.lexsort((labels[order], values[order]))]


@dataclass(frozen=True, eq=False)
class Chosen:
    """Eigenvalues that are wanted, ascending, the same on every rank.

    Attributes
    ----------
    values
        (m,).
    labels
        (m,) what tells each of them from the others; those of copies are the same.
    """

    values: np.ndarray
    labels: np.ndarray


def choose(every: Eigenvalues, labels: np.ndarray, wanted: Wanted) -> Chosen:
    """Return those of all eigenvalues that are wanted.

    Collective.

    Parameters
    ----------
    labels
        (m,) a number for each of this rank's, no two of all ranks alike.
    """
    own = wanted.first(every.values, labels)
    copies = np.minimum(every.counts[own], wanted.k)
    parts = every.comm.allgather((np.repeat(every.values[own], copies), np.repeat(labels[own], copies)))
    values, names = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    order = wanted.first(values, names)
    return Chosen(values[order], names[order])
