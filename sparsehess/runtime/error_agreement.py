"""Agreement: an error on one rank is raised on all, and none waits for ever."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from sparsehess import errors
from sparsehess.runtime.guards import guard_of
from sparsehess.runtime.kept_errors import forget_frames

if TYPE_CHECKING:
    from mpi4py import MPI

T = TypeVar("T")

log = logging.getLogger("sparsehess")


def raise_together(comm: MPI.Comm, error: BaseException | None) -> None:
    """Raise on every rank if any rank brings an error; return on every rank if none does.

    Collective. The error of the lowest failing rank wins; the others chain their own to it. An interrupt stays one
    on the rank that it came to, and is `Interrupted` on the others. What the frames of the error hold is let go:
    only some ranks hold it.
    """
    if comm.size == 1:
        if error is not None:
            raise error
        return
    if error is not None:
        forget_frames(error)
    from mpi4py import MPI

    import numpy as np

    watched = guard_of(comm).watch_wait(comm)
    mine = np.array([comm.size if error is None else comm.rank], np.int64)
    first = np.empty(1, np.int64)
    request = comm.Iallreduce(mine, first, op=MPI.MIN)
    if error is None:
        with watched:
            request.Wait()
    else:
        wait_for_others(comm, request.Test, error)
    if first[0] == comm.size:
        return
    mine_is_first = error is not None and comm.rank == first[0]
    told = errors.describe(error, comm.rank) if error is not None and mine_is_first else None
    described = comm.bcast(told, root=int(first[0]))
    if error is not None and (mine_is_first or isinstance(error, KeyboardInterrupt)):
        raise error
    raise errors.rebuild(*described) from error


def wait_for_others(comm: MPI.Comm, done: Callable[[], bool], error: BaseException) -> None:
    """Wait on a rank that failed until done() is true; where the others are stuck, let the guard end the job.

    Parameters
    ----------
    done
        Says whether they have come; called again and again.
    """
    guard = guard_of(comm)
    deadline, told = time.monotonic() + guard.patience, False
    while not done():
        if not told and time.monotonic() > deadline:
            guard.end_stuck(comm, error)
            log.error(
                "rank %d failed and waits for ranks that are in another call: %s; "
                "sparsehess.runtime.set_guard(comm, JobEnd()) at the start would end all ranks",
                comm.rank,
                error,
            )
            told = True
        time.sleep(0.001)


class agreement:
    """Run the block on every rank; if it fails on any rank, raise on all of them.

    Collective. The block itself must not call anything collective that a failure could skip.
    """

    def __init__(self, comm: MPI.Comm) -> None:
        self._comm = comm

    def __enter__(self) -> None:
        """Begin the block. Not collective."""

    def __exit__(self, kind: object, error: BaseException | None, frames: object) -> None:
        """Raise on all ranks what the block has raised on one, whatever it is. Collective."""
        raise_together(self._comm, error)


def on_root(comm: MPI.Comm, function: Callable[..., T], *arguments: Any) -> T:
    """Return `function(*arguments)`, evaluated on rank 0, on every rank; its error on every rank too.

    Collective. Meant for small results: the value is pickled between our own ranks.
    """
    value: Any = None
    with agreement(comm):
        if comm.rank == 0:
            value = function(*arguments)
    return comm.bcast(value, root=0)
