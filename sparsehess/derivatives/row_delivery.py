"""Rows on their way from the ranks that evaluate them to the ranks that own them, while others are evaluated."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from mpi4py import MPI

import numpy as np

from sparsehess.derivatives.row_transfer import RowTransfer
from sparsehess.runtime.communicators import child

# The number of a task is the tag of its messages, of which MPI promises so many at least.
MOST_TASKS = 2**14

# Numbers of a message at least, and messages of a task between two ranks at most. Where a process cannot read the
# memory of another, MPI sends so much without a call of both ranks at the same time.
_SHORT, _MANY = 2**14, 16


class Task(NamedTuple):
    """What a group of ranks evaluates at a time: the rows first to last - 1, or a piece of the sum that is a row.

    `piece` is -1 for all of the sum.
    """

    first: int
    last: int
    piece: int = -1


def divide(count: int, batch: int, pieces: int, groups: int) -> list[Task]:
    """Return the tasks of so many rows, in the order in which they are dealt to so many groups.

    Not collective. The last rows are divided into their pieces, where there are some: so that no group is left
    with a whole row while others are through.

    Parameters
    ----------
    batch
        How many rows are evaluated at once; 1 where there are several pieces.
    """
    left = count % groups
    divided = left if pieces > 1 and -(-left * pieces // groups) < pieces else 0
    if pieces > 1 and count - left >= groups:
        divided = left + groups
    whole = count - divided
    tasks = [Task(first, min(first + batch, whole)) for first in range(0, whole, batch)]
    return tasks + [Task(row, row + 1, piece) for row in range(whole, count) for piece in range(pieces)]


def _cuts(size: int) -> range:
    """Return where so many numbers are cut into messages."""
    length = max(_SHORT, -(-size // _MANY))
    return range(length, size, length)


class _Arrival:
    """The numbers of a task that one rank sends, in the order in which they come.

    Parameters
    ----------
    place
        (m, k) where they are to stand.
    """

    def __init__(self, place: np.ndarray) -> None:
        self._place = place
        self._apart = None if place.flags.c_contiguous else np.empty(place.shape)
        self._flat = (place if self._apart is None else self._apart).reshape(-1)
        self._begun = 0

    def room(self, count: int) -> np.ndarray:
        """Return where the next so many numbers are received. Not collective."""
        self._begun += count
        return self._flat[self._begun - count : self._begun]

    def end(self) -> None:
        """Put them in their place, once all have come. Not collective."""
        if self._apart is not None:
            self._place[:] = self._apart


class Delivery:
    """The rows of some tasks, sent as they are evaluated, and received between evaluations.

    Collective to make; `finish`, or after an error `drop`, is called by all ranks at the end.

    Parameters
    ----------
    transfer
        Between what a rank holds in its group and the rows that it owns.
    tasks
        As `divide` returns them; no more than `MOST_TASKS`.
    count
        How many rows there are.
    pieces
        How many pieces the sum of a row has.
    """

    def __init__(self, transfer: RowTransfer, tasks: Sequence[Task], count: int, pieces: int) -> None:
        self._transfer, self._tasks = transfer, tasks
        self._comm = child(transfer.comm, "rows", transfer.comm.Dup)  # work stealing has the messages of the other
        self._rows = np.empty((count, transfer.layout.n_local))
        divided = {task.first for task in tasks if task.piece >= 0}
        self._pieces = {row: np.empty((pieces, transfer.layout.n_local)) for row in sorted(divided)}
        self._under_way: deque[MPI.Request] = deque()
        self._sent_to = np.zeros(self._comm.size, np.int64)
        self._received = 0
        self._arriving: dict[tuple[int, int], _Arrival] = {}  # by the rank that sends, and the task

    def send(self, number: int, rows: np.ndarray) -> None:
        """Send the rows (m, held) of a task of this rank's group to their owners, and take what has come.

        Not collective. The rows must stay as they are until they were received.
        """
        transfer, here = self._transfer, self._comm.rank
        for rank in np.roll(np.arange(self._comm.size), -here)[1:].tolist():  # not all to the same one at first
            a, b = transfer.gives[rank] - transfer.first
            if b > a:
                flat = np.ascontiguousarray(rows[:, a:b]).ravel()
                for part in np.split(flat, _cuts(len(flat))):
                    self._under_way.append(self._comm.Isend(part, rank, number))
                    self._sent_to[rank] += 1
        a, b = transfer.gives[here]
        if b > a:
            own = slice(a - transfer.layout.start, b - transfer.layout.start)
            self._place(number)[:, own] = rows[:, a - transfer.first : b - transfer.first]
        while self._receive():
            pass
        while self._under_way and self._under_way[0].Test():
            self._under_way.popleft()

    def finish(self, dealt: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
        """Return (places, rows (m, n_local)) of the rows that are complete, ascending.

        Collective.

        Parameters
        ----------
        dealt
            Numbers of the tasks that were done, by rank.
        """
        expected = 0
        for rank, (a, b) in enumerate(self._transfer.gets.tolist()):
            if b > a and rank != self._comm.rank:
                sizes = [(task.last - task.first) * (b - a) for task in map(self._tasks.__getitem__, dealt[rank])]
                expected += sum(len(_cuts(size)) + 1 for size in sizes)
        self._receive_all(expected)
        done = np.zeros(len(self._rows), np.int64)
        for number in {number for theirs in dealt for number in theirs}:
            task = self._tasks[number]
            done[task.first : task.last] += 1
        for row, pieces in self._pieces.items():
            np.copyto(self._rows[row], pieces[0])
            for piece in pieces[1:]:
                self._rows[row] += piece  # in their order, whoever was first
            done[row] = done[row] == len(pieces)
        places = np.flatnonzero(done)
        return places, self._rows if len(places) == len(done) else self._rows[places]

    def drop(self) -> None:
        """Take all that was sent, for nobody. Collective: after an error, of which all ranks know."""
        expected = np.empty_like(self._sent_to)
        self._comm.Alltoall(self._sent_to, expected)
        self._receive_all(int(expected.sum()))

    def _receive_all(self, count: int) -> None:
        """Wait for so many messages in all, and until one's own have arrived."""
        while self._received < count:
            self._receive(wait=True)
        MPI.Request.Waitall(list(self._under_way))
        for arrival in self._arriving.values():
            arrival.end()
        self._under_way.clear()
        self._arriving.clear()

    def _receive(self, wait: bool = False) -> bool:
        """Begin to receive a message, if one has come, or once it has; return whether there was one.

        Nobody waits for its numbers: who sends them may be in a gradient.
        """
        status = MPI.Status()
        message = self._comm.Mprobe(status=status) if wait else self._comm.Improbe(status=status)
        if message is None:
            return False
        key = status.source, status.tag
        if key not in self._arriving:
            a, b = self._transfer.gets[status.source] - self._transfer.layout.start
            self._arriving[key] = _Arrival(self._place(status.tag)[:, a:b])
        self._under_way.append(message.Irecv(self._arriving[key].room(status.Get_count(MPI.DOUBLE))))
        self._received += 1
        return True

    def _place(self, number: int) -> np.ndarray:
        """Return (m, n_local) where the rows of a task stand, or a piece of one row."""
        task = self._tasks[number]
        if task.piece < 0:
            return self._rows[task.first : task.last]
        return self._pieces[task.first][task.piece : task.piece + 1]
