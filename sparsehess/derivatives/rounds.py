"""Rounds: the units of a request, dealt to groups of ranks, and their rows sent to the ranks that own them."""

from __future__ import annotations

from collections.abc import Callable

from mpi4py import MPI

import numpy as np

from sparsehess.derivatives.recorder import NO_RECORDER, Record, Recorder
from sparsehess.derivatives.row_transfer import RowTransfer
from sparsehess.runtime import agreement, raise_together
from sparsehess.runtime.work_stealing import Work

# evaluate(units, rows) fills in the rows (m, held) of these units, as far as this rank holds them in its group.
Evaluate = Callable[[np.ndarray, np.ndarray], None]


class Rounds:
    """Evaluates requests on all ranks of a communicator.

    Collective to use.

    Parameters
    ----------
    comm
        Of all ranks.
    group
        Of the ranks that evaluate one unit together.
    transfer
        Between what a rank holds in its group and the rows that it owns.
    summed
        Whether the rows of all ranks are parts of a sum.

    Attributes
    ----------
    recorder
        Saves what was evaluated.
    """

    def __init__(self, comm: MPI.Comm, group: MPI.Comm, transfer: RowTransfer, summed: bool) -> None:
        self.recorder: Recorder = NO_RECORDER
        self._comm, self._group, self._transfer, self._summed = comm, group, transfer, summed
        self._together = group.size == comm.size and not (summed and comm.size > 1)

    def run(
        self,
        request: dict,
        count: int,
        parts: int,
        evaluate: Evaluate,
        batch: int,
        on_row: Callable[[int, int], None],
    ) -> np.ndarray:
        """Return (count, n_local) rows, each the sum of `parts` units, `batch` units at a time.

        Collective.

        Parameters
        ----------
        request
            What the recorder calls it.
        on_row
            Called as on_row(rows begun, rows); may raise, on any rank.
        """

        def tell(unit: int) -> None:
            on_row(int(unit) // parts + 1, count)

        record = self.recorder.begin(request, count, parts, self._transfer.layout.n_local)
        while len(missing := record.missing):
            if self._together or self._summed:
                missing = missing[: self.recorder.step(batch, len(missing))]
                record.add(missing, self._run_together(missing, evaluate, batch, tell))
            else:
                record.add(*self._run_shared(record, missing, evaluate, batch, tell))
            self.recorder.save_due()
        return self.recorder.finish(record)

    def _run_together(
        self, units: np.ndarray, evaluate: Evaluate, batch: int, tell: Callable[[int], None]
    ) -> np.ndarray:
        """Return the rows of units that every group evaluates."""
        if self._summed and self._comm.size > 1:
            vectors = self._evaluate_dealt(units, evaluate, batch, tell, _go_on)[1]
            return self._transfer.sum(vectors)
        rows = np.empty((len(units), self._transfer.layout.n_local))
        for first in range(0, len(units), batch):
            some = units[first : first + batch]
            evaluate(some, rows[first : first + len(some)])
            with agreement(self._comm):  # it may end the work, on all ranks then
                tell(some[-1])
        return rows

    def _run_shared(
        self, record: Record, units: np.ndarray, evaluate: Evaluate, batch: int, tell: Callable[[int], None]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return (units, rows) that were evaluated, each by one group, until all are or all are to save."""

        def keep(units: np.ndarray, rows: np.ndarray) -> bool:
            return record.keep(units, rows, self._group)

        numbers, vectors = self._evaluate_dealt(units, evaluate, batch, tell, keep)
        dealt = self._comm.allgather(numbers)
        done = np.zeros(len(units), bool)
        for some in dealt:
            done[some] = True
        rows = self._transfer.to_owners(dealt, vectors, len(units))
        return (units, rows) if done.all() else (units[done], rows[done])

    def _evaluate_dealt(
        self,
        units: np.ndarray,
        evaluate: Evaluate,
        batch: int,
        tell: Callable[[int], None],
        keep: Callable[[np.ndarray, np.ndarray], bool],
    ) -> tuple[list[int], list[np.ndarray]]:
        """Return (places among the units, rows) of what this rank's group evaluates until keep() says stop."""
        numbers: list[int] = []
        vectors: list[np.ndarray] = []
        error = None
        work = Work(self._comm, self._group, -(-len(units) // batch), self._summed)
        try:
            for task in work:
                some = units[task * batch : (task + 1) * batch]
                rows = np.empty((len(some), self._transfer.held))
                evaluate(some, rows)
                numbers += range(task * batch, task * batch + len(some))
                vectors += list(rows)
                stop = keep(some, rows)
                tell(some[-1])  # it may end the work
                if stop:
                    work.stop()
        except BaseException as caught:  # the others must hear of it, and stop
            error = caught
        work.finish(error)
        raise_together(self._comm, error)
        return numbers, vectors


def _go_on(units: np.ndarray, rows: np.ndarray) -> bool:
    """Say that nothing stops the ranks: they meet after each batch."""
    return False
