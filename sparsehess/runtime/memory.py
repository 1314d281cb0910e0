"""Memory: what this process has taken, what is left to it and to its node."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from sparsehess import errors
from sparsehess.runtime.error_agreement import agreement

if TYPE_CHECKING:
    from mpi4py import MPI

# Bytes of address space that must be left to a rank before anything is solved.
ROOM = 2**26


def peak_memory() -> int:
    """Return the peak resident bytes of this process.

    Not collective.
    """
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def free_memory(comm: MPI.Comm) -> int:
    """Return bytes that are free to each rank: least over the nodes of what a node has left, among its ranks.

    Collective. Very many where the system does not say.
    """
    from mpi4py import MPI

    node = comm.Split_type(MPI.COMM_TYPE_SHARED)
    there = 2**62
    with suppress(OSError, KeyError, ValueError), open("/proc/meminfo") as lines:
        facts = dict(line.split(":") for line in lines)
        there = int(facts["MemAvailable"].split()[0]) * 1024
    there = comm.allreduce(min(there // node.size, address_room()), op=MPI.MIN)
    node.Free()
    return there


def address_room() -> int:
    """Return bytes that this process may still take by its limit on address space; very many without a limit.

    Not collective.
    """
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return 2**62
    with suppress(OSError, ValueError), open("/proc/self/statm") as facts:
        return max(0, limit - int(facts.read().split()[0]) * resource.getpagesize())
    return 2**62


def require_room(comm: MPI.Comm) -> None:
    """Raise StackError on all ranks where the limit on a rank's address space leaves it hardly anything.

    Collective. Beyond that point MPI and MUMPS do not fail, they hang: they try an exchange again and again.
    """
    with agreement(comm):
        room = address_room()
        if room < ROOM:
            raise errors.StackError(
                f"out of memory: the limit on address space (ulimit -v) leaves rank {comm.rank} {room / 1e6:.0f} "
                f"MB, and factorizations and messages need {ROOM / 1e6:.0f} at least; raise it, or take more ranks"
            )
