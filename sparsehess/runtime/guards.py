"""Guards: what watches over a run, and ends what takes too long or is stuck.

A guard travels with a communicator: what is duplicated or derived from one has the same. Its absence is a `Guard`,
which lets everything pass.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from sparsehess import errors
from sparsehess.runtime.printable import printable

if TYPE_CHECKING:
    from mpi4py import MPI

_UNWATCHED: AbstractContextManager[None] = nullcontext()

# Seconds in which a launcher passes on what was said, before it is told to end all.
_PASSED_ON = 0.3


class Guard:
    """The guard of a program that has set none: nothing ends a run from outside.

    Attributes
    ----------
    patience
        Seconds a failed rank waits for the others before it concludes that they are stuck in a collective call of
        the user's own, which only ending the whole job can resolve.
    """

    patience = 5.0

    def end_stuck(self, comm: MPI.Comm, error: BaseException) -> None:
        """End the job, whose other ranks wait in a call that this failed rank will never make.

        Not collective. Returns where the host program decides for itself.
        """

    def check_progress(self, stage: str, done: int, total: int, together: bool) -> None:
        """Look on at a step of a stage; what is raised ends it.

        Collective where `together` is true: raises on all ranks or on none. Else for this rank alone.
        """

    def check_call(self) -> None:
        """Look on before this rank calls a user's function by itself; what is raised ends the stage.

        Not collective.
        """

    def watch_call(self, what: str) -> AbstractContextManager[None]:
        """Return a block in which this rank calls a function of the user. Not collective."""
        return _UNWATCHED

    def watch_wait(self, comm: MPI.Comm) -> AbstractContextManager[None]:
        """Return a block in which this rank waits for the others. Collective the first time."""
        return _UNWATCHED


class JobEnd(Guard):
    """The guard of a program that is to end, rather than wait for ever, where one rank has failed alone.

    Set on a communicator, by `use_guard` or `set_guard`, before anything else is made on it. What a function of
    yours raises on one rank is raised on all as soon as they meet; where the others wait in a communication of
    that function's own, they never do.

    Parameters
    ----------
    patience
        Seconds that the failed rank waits for the others: more than ranks may be late.
    longest
        Seconds that a rank may be in one call of a function of yours, or wait for the others; None for ever, as
        nobody knows how long a function may take. A rank that is longer in one, whatever it does there, is ended
        with all others by status 2, once it has told where it is; the same for every rank. Set before the first
        call that is to be watched.

    Examples
    --------
    >>> from mpi4py import MPI
    >>> from sparsehess import runtime
    >>> with runtime.use_guard(MPI.COMM_WORLD, runtime.JobEnd(patience=60.0, longest=3600.0)):
    ...     pass  # Objective, assemble, eigs, …
    """

    def __init__(self, patience: float = Guard.patience, longest: float | None = None):
        self.patience, self._watch = patience, None
        if longest is not None:
            self.patience = min(patience, longest / 2)  # what failed is told before the others are found waiting
            from sparsehess.runtime.watch import Watch

            self._watch = Watch(longest)

    def watch_call(self, what: str) -> AbstractContextManager[None]:
        """Return a block in which this rank is looked on. Not collective."""
        return _UNWATCHED if self._watch is None else self._watch.call(what)

    def watch_wait(self, comm: MPI.Comm) -> AbstractContextManager[None]:
        """Return a block in which this rank is looked on. Collective the first time."""
        if self._watch is None:
            return _UNWATCHED
        self._watch.begin(comm)
        return self._watch.waiting()

    def end_stuck(self, comm: MPI.Comm, error: BaseException) -> None:
        """Say what went wrong on this rank, and end all with its status. Not collective."""
        text = errors.describe(error, comm.rank)[1]
        if f"rank {comm.rank}" not in text:
            text = f"rank {comm.rank}: {text}"
        sys.stderr.write(f"sparsehess: {printable(text)} (the other ranks wait in another call: ending all)\n")
        sys.stderr.flush()
        time.sleep(_PASSED_ON)
        comm.Abort(errors.rebuild(*errors.describe(error, comm.rank)).status)


NO_GUARD = Guard()


class _Post:
    """Where the guard of a family of communicators stands."""

    def __init__(self) -> None:
        self.guard = NO_GUARD


_keyvals: list[int] = []  # of the attribute, made once, when MPI is up


def guard_of(comm: MPI.Comm) -> Guard:
    """Return the guard that watches over a communicator. Not collective."""
    post = _known(comm)
    return NO_GUARD if post is None else post.guard


def set_guard(comm: MPI.Comm, guard: Guard) -> Guard:
    """Set the guard of a communicator and its family from now on; return the one before. Not collective."""
    post = _post(comm)
    before, post.guard = post.guard, guard
    return before


@contextmanager
def use_guard(comm: MPI.Comm, guard: Guard) -> Iterator[None]:
    """Have a guard watch over a communicator and its family for the length of the block. Not collective."""
    before = set_guard(comm, guard)
    try:
        yield
    finally:
        set_guard(comm, before)


def found_family(comm: MPI.Comm) -> None:
    """Make what is derived from a communicator from now on share its guard. Not collective."""
    _post(comm)


def share_guard(comm: MPI.Comm, derived: MPI.Comm) -> None:
    """Make a communicator one of another's family; a duplicate is by itself. Not collective."""
    post = _post(comm)
    if derived.Get_attr(_keyvals[0]) is not post:
        derived.Set_attr(_keyvals[0], post)


def _known(comm: MPI.Comm) -> _Post | None:
    found: Any = comm.Get_attr(_keyvals[0]) if _keyvals else None
    return found


def _post(comm: MPI.Comm) -> _Post:
    """Return where the guard of a family stands, which is founded here if need be."""
    if not _keyvals:
        from mpi4py import MPI

        _keyvals.append(MPI.Comm.Create_keyval(copy_fn=lambda comm, keyval, post: post))
    post = _known(comm)
    if post is None:
        post = _Post()
        comm.Set_attr(_keyvals[0], post)
    return post
