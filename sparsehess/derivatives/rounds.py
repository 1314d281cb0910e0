"""Rounds: the units of a request, dealt to groups of ranks, and their rows sent to the ranks that own them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from mpi4py import MPI

import numpy as np

from sparsehess.derivatives.recorder import NO_RECORDER, Record, Recorder
from sparsehess.derivatives.row_delivery import MOST_TASKS, Delivery, Task, divide
from sparsehess.derivatives.row_transfer import RowTransfer
from sparsehess.runtime import agreement, raise_together
from sparsehess.runtime.work_stealing import Work


class Evaluate(Protocol):
    """Evaluates units."""

    def __call__(self, units: np.ndarray, rows: np.ndarray, piece: int = -1) -> None:
        """Fill in the rows (m, held) of these units, as far as this rank holds them in its group.

        Collective on the group. Of one unit that is a sum of several pieces, only the piece of this number; -1 is
        all of them.
        """
        ...


def _nothing() -> None:
    """Do nothing."""


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
    groups
        How many there are.
    """

    def __init__(self, comm: MPI.Comm, group: MPI.Comm, transfer: RowTransfer, summed: bool) -> None:
        self.recorder: Recorder = NO_RECORDER
        self._comm, self._group, self._transfer, self._summed = comm, group, transfer, summed
        self._together = group.size == comm.size and not (summed and comm.size > 1)
        self.groups = comm.allreduce(int(group.rank == 0))

    def run(
        self,
        request: dict,
        count: int,
        parts: int,
        evaluate: Evaluate,
        batch: int,
        on_row: Callable[[int, int], None],
        pieces: int = 1,
    ) -> np.ndarray:
        """Return (count, n_local) rows, each the sum of `parts` units, `batch` units at a time.

        Collective.

        Parameters
        ----------
        request
            What the recorder calls it.
        on_row
            Called as on_row(rows begun, rows); may raise, on any rank.
        pieces
            How many pieces the sum of a unit has, which `evaluate` takes one by one: the sum is the same.
        """

        def tell(unit: int) -> None:
            on_row(int(unit) // parts + 1, count)

        record = self.recorder.begin(request, count, parts, self._transfer.layout.n_local)
        while len(missing := record.missing):
            if self._together or self._summed:
                missing = missing[: self.recorder.step(batch, len(missing))]
                record.add(missing, self._run_together(missing, evaluate, batch, tell))
            else:
                missing = missing[: MOST_TASKS // pieces]
                record.add(*self._run_shared(record, missing, pieces, evaluate, batch, tell))
            self.recorder.save_due()
        return self.recorder.finish(record)

    def _run_together(
        self, units: np.ndarray, evaluate: Evaluate, batch: int, tell: Callable[[int], None]
    ) -> np.ndarray:
        """Return the rows of units that every group evaluates."""
        if self._summed and self._comm.size > 1:
            vectors: list[np.ndarray] = []

            def hold(number: int, units: np.ndarray, rows: np.ndarray) -> bool:
                vectors.extend(rows)
                return False  # the ranks meet after each batch

            self._evaluate_dealt(divide(len(units), batch, 1, 1), units, evaluate, tell, hold)
            return self._transfer.sum(vectors)
        rows = np.empty((len(units), self._transfer.layout.n_local))
        for first in range(0, len(units), batch):
            some = units[first : first + batch]
            evaluate(some, rows[first : first + len(some)])
            with agreement(self._comm):  # it may end the work, on all ranks then
                tell(some[-1])
        return rows

    def _run_shared(
        self,
        record: Record,
        units: np.ndarray,
        pieces: int,
        evaluate: Evaluate,
        batch: int,
        tell: Callable[[int], None],
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return (units, rows) that were evaluated, each by one group, until all are or all are to save."""
        tasks = divide(len(units), batch, pieces, self.groups)
        delivery = Delivery(self._transfer, tasks, len(units), pieces)

        def send(number: int, units: np.ndarray, rows: np.ndarray) -> bool:
            delivery.send(number, rows)
            return record.keep(units, rows, self._group)

        numbers = self._evaluate_dealt(tasks, units, evaluate, tell, send, delivery.drop)
        places, rows = delivery.finish(self._comm.allgather(numbers))
        return units[places], rows

    def _evaluate_dealt(
        self,
        tasks: Sequence[Task],
        units: np.ndarray,
        evaluate: Evaluate,
        tell: Callable[[int], None],
        take: Callable[[int, np.ndarray, np.ndarray], bool],
        drop: Callable[[], None] = _nothing,
    ) -> list[int]:
        """Return the numbers of the tasks that this rank's group evaluates until take() says stop.

        take(number, units, rows) is given what was evaluated; drop() is called on all ranks where one has failed.
        """
        numbers: list[int] = []
        error = None
        work = Work(self._comm, self._group, len(tasks), self._summed)
        try:
            for number in work:
                task = tasks[number]
                some = units[task.first : task.last]
                rows = np.empty((len(some), self._transfer.held))
                evaluate(some, rows, task.piece)
                numbers.append(number)
                stop = take(number, some, rows)
                tell(some[-1])  # it may end the work
                if stop:
                    work.stop()
        except BaseException as caught:  # the others must hear of it, and stop
            error = caught
        work.finish(error)
        try:
            raise_together(self._comm, error)
        except BaseException as raised:
            if raised is error or not isinstance(
                raised, KeyboardInterrupt
            ):  # of one that came here all do not know
                drop()
            raise
        return numbers
