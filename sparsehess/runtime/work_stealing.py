"""Pieces of work shared out between groups of ranks, so that nobody stays idle.

Every group is dealt an equal number of tasks. One that is through asks the others, in turn, for half
of what they have left; they answer between two tasks of their own. That balances evaluations of
unequal time at the cost of a few messages at the end, without a counter in shared memory: windows of
disjoint communicators share one file in Open MPI 4 (issue 9492 of open-mpi/ompi).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from mpi4py import MPI

import numpy as np

from sparsehess.runtime.error_agreement import wait_for_others

_ASK, _GIVE, _END = 1, 2, 3


class Work:
    """The tasks of this rank's group: an iterator over their numbers.

    Collective to make; whoever iterates calls `finish` afterwards, before anything else that is collective.

    Parameters
    ----------
    comm
        All ranks. Our own communicator: messages of any kind between its ranks are taken for this.
    group
        The ranks that do a task together.
    tasks
        How many there are, from 0.
    all_of_all
        Every group does all of them.
    """

    def __init__(self, comm: MPI.Comm, group: MPI.Comm, tasks: int, all_of_all: bool):
        self._comm, self._group = comm, group
        leaders = np.flatnonzero(comm.allgather(group.rank == 0)).tolist()
        number = group.bcast(int(np.searchsorted(leaders, comm.rank)))
        self._left = deque(range(tasks) if all_of_all else range(number, tasks, len(leaders)))
        # Tasks are only worth asking for where somebody has more than the one that is done first.
        shared = not all_of_all and tasks > len(leaders)
        self._led = shared and group.size > 1
        leads = shared and group.rank == 0
        others = leaders[number + 1 :] + leaders[:number] if leads else []
        self._others, self._willing, self._busy = others, deque(others), set(others)
        self._awaited = self._stopped = self._ended = False
        self._sent: list[MPI.Request] = []

    def __iter__(self) -> Iterator[int]:
        """Yield the numbers of tasks as they are to be done."""
        while (task := self._next()) >= 0:
            yield task

    def _next(self) -> int:
        """Return the task to do now, -1 for none. Collective on the group."""
        if not self._led or self._group.rank == 0:
            self._hear()
            while self._willing and not self._left:
                self._tell(self._willing.popleft(), _ASK, [])
                self._awaited = True
                while self._awaited:
                    self._answer()
            task = self._left.popleft() if self._left else -1
        else:
            task = -1
        return self._group.bcast(task) if self._led else task

    def stop(self) -> None:
        """Begin no further task, and with `finish` make the others stop after their present ones.

        Called by all ranks of a group, or by none. Tasks that nobody has begun are left to the caller.
        """
        self._ended = self._stopped = True
        self._left.clear()
        self._willing.clear()

    def finish(self, error: BaseException | None) -> None:
        """Answer the others until all are through; after an error, make them stop after their present task."""
        for other in self._others:
            self._tell(other, _END, [error is not None or self._ended])
        if error is None:
            while self._busy:
                self._answer()
        else:
            wait_for_others(self._comm, self._all_through, error)
        MPI.Request.Waitall(self._sent)

    def _all_through(self) -> bool:
        self._hear()
        return not self._busy

    def _hear(self) -> None:
        while self._others and self._comm.Iprobe():
            self._answer()

    def _answer(self) -> None:
        """Wait for a message, and do what it asks."""
        status = MPI.Status()
        self._comm.Probe(status=status)
        source, tag = status.source, status.tag
        said = np.empty(status.Get_count(MPI.INT64_T), np.int64)
        self._comm.Recv(said, source, tag)
        if tag == _ASK:
            self._tell(source, _GIVE, [self._left.pop() for _ in range(len(self._left) // 2)])
        elif tag == _GIVE:
            self._awaited = False
            if len(said) and not self._stopped:
                self._left.extend(said.tolist())
                self._willing.appendleft(source)  # may have more; who gave nothing is not asked again
        else:
            self._busy.discard(source)
            if source in self._willing:
                self._willing.remove(source)
            if said[0]:
                self._stopped = True
                self._left.clear()
                self._willing.clear()

    def _tell(self, whom: int, tag: int, numbers: list[int]) -> None:
        self._sent.append(self._comm.Isend(np.array(numbers, np.int64), whom, tag))
