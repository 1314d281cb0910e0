"""What is evaluated, request by request: an interface for those who save it, and one that saves nothing.

A request asks for rows; each row is the sum of one or several evaluations, its parts. Unit u is part u % parts of
row u // parts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from mpi4py import MPI

    from sparsehess.runtime.row_layout import Layout


class Record:
    """What one request has brought so far.

    Attributes
    ----------
    rows
        (count, n_local) sums of what was evaluated.
    done
        (count, parts) bool, the same on every rank: the evaluations that are in each row.
    """

    def __init__(self, count: int, parts: int, n_local: int) -> None:
        self.done = np.zeros((count, parts), bool)
        self._n_local = n_local
        self._rows: np.ndarray | None = None

    @property
    def rows(self) -> np.ndarray:
        """See the class."""
        if self._rows is None:
            self._rows = np.zeros((len(self.done), self._n_local))
        return self._rows

    @property
    def missing(self) -> np.ndarray:
        """The units that are still to be evaluated, ascending."""
        return np.flatnonzero(~self.done)

    def add(self, units: np.ndarray, rows: np.ndarray) -> None:
        """Add what was evaluated: rows (m, n_local) of these units. Not collective."""
        if self._rows is None and len(units) == self.done.size == len(self.done):
            self._rows = rows  # all at once, one part each
        else:
            for unit, row in zip(units, rows, strict=True):
                self.rows[unit // self.done.shape[1]] += row
        self.done.flat[units] = True

    def keep(self, units: np.ndarray, rows: np.ndarray, group: MPI.Comm) -> bool:
        """Note what a group of ranks has evaluated, before all ranks meet: rows (m, held) of these units.

        Return whether the group should stop here, so that all meet. Collective on the group.
        """
        return False


class ElementSums(Protocol):
    """Where second derivatives of elements are summed."""

    def add(self, kind: int, variable: int, columns: np.ndarray) -> None:
        """Add columns (m, k) of the Hessians of all elements of a kind. Not collective."""
        ...


class Recorder(Protocol):
    """Saves what is evaluated, and knows what was evaluated before.

    All but `parts` and `step` are collective.

    Attributes
    ----------
    saves
        Whether it saves anything.
    """

    saves: bool

    def parts(self, nodes: int) -> int:
        """Return into how many units a row is divided that is the sum of so many gradients."""
        ...

    def step(self, batch: int, missing: int) -> int:
        """Return after how many units all ranks meet, where they evaluate together."""
        ...

    def describe(self, layout: Layout, kind: str, colors: np.ndarray | None, **more: Any) -> dict:
        """Return what tells a request from others, as JSON."""
        ...

    def begin(self, request: dict, count: int, parts: int, n_local: int) -> Record:
        """Return the record of the next request: with what is known of it, or with nothing."""
        ...

    def save_due(self) -> None:
        """Save where it is due; after a signal raise `Stopped`."""
        ...

    def finish(self, record: Record) -> np.ndarray:
        """Return the rows of a record for whoever asked, to do with them as they please."""
        ...

    def begin_sweeps(self, sums: Any) -> int:
        """Return how many sweeps over the elements were done before: the sums have been given them."""
        ...

    def end_sweep(self, done: int, last: bool, sums: Any) -> None:
        """Note that so many sweeps are in the sums; save where it is due."""
        ...


class NoRecorder:
    """Saves nothing."""

    saves = False

    def parts(self, nodes: int) -> int:
        """See `Recorder`. A row is one unit, whatever it is the sum of."""
        return 1

    def step(self, batch: int, missing: int) -> int:
        """See `Recorder`. Nobody need meet before all is done."""
        return missing

    def describe(self, layout: Layout, kind: str, colors: np.ndarray | None, **more: Any) -> dict:
        """See `Recorder`. Nothing is looked up."""
        return {}

    def begin(self, request: dict, count: int, parts: int, n_local: int) -> Record:
        """See `Recorder`."""
        return Record(count, parts, n_local)

    def save_due(self) -> None:
        """See `Recorder`."""

    def finish(self, record: Record) -> np.ndarray:
        """See `Recorder`."""
        return record.rows

    def begin_sweeps(self, sums: Any) -> int:
        """See `Recorder`."""
        return 0

    def end_sweep(self, done: int, last: bool, sums: Any) -> None:
        """See `Recorder`."""


NO_RECORDER = NoRecorder()
