"""Agreement: an error on one rank is raised on all, and none waits for ever."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from sparsehess import errors
from sparsehess.runtime.guards import guard_of

if TYPE_CHECKING:
    from mpi4py import MPI

T = TypeVar("T")

log = logging.getLogger("sparsehess")


def raise_together(comm: MPI.Comm, error: Exception | None) -> None:
    """Raise on every rank if any rank brings an error; return on every rank if none does.

    Collective. The error of the lowest failing rank wins; the others chain their own to it.
    """
    if comm.size == 1:
        if error is not None:
            raise error
        return
    from mpi4py import MPI

    import numpy as np

    mine = np.array([comm.size if error is None else comm.rank], np.int64)
    first = np.empty(1, np.int64)
    request = comm.Iallreduce(mine, first, op=MPI.MIN)
    if error is None:
        request.Wait()
    else:
        wait_for_others(comm, request.Test, error)
    if first[0] == comm.size:
        return
    if error is not None and comm.rank == first[0]:
        comm.bcast(errors.describe(error, comm.rank), root=comm.rank)
        raise error
    described = comm.bcast(None, root=int(first[0]))
    raise errors.rebuild(*described) from error


def wait_for_others(comm: MPI.Comm, done: Callable[[], bool], error: Exception) -> None:
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


@contextmanager
def agreement(comm: MPI.Comm) -> Iterator[None]:
    """Run the block on every rank; if it fails on any rank, raise on all of them.

    Collective. The block itself must not call anything collective that a failure could skip.
    """
    error = None
    try:
        yield
    except Exception as caught:  # whatever it is, the other ranks must hear of it
        error = caught
    raise_together(comm, error)


def on_root(comm: MPI.Comm, function: Callable[..., T], *arguments: Any) -> T:
    """Return `function(*arguments)`, evaluated on rank 0, on every rank; its error on every rank too.

    Collective. Meant for small results: the value is pickled between our own ranks.
    """
    value: Any = None
    with agreement(comm):
        if comm.rank == 0:
            value = function(*arguments)
    return comm.bcast(value, root=0)
