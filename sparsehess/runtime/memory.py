"""Memory: what this process has taken, what is left to it and to its node."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from sparsehess import errors
from sparsehess.runtime.error_agreement import agreement

if TYPE_CHECKING:
    from mpi4py import MPI

# Bytes of address space that must be left to a rank before anything is solved.
ROOM = 2**26

# Where nothing limits.
MANY = 2**62

# Files of a control group: its limit, what is taken, and the line of its facts with what can be given up.
_GROUPS = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_UNIFIED = ("memory.max", "memory.current", "inactive_file")

# Where control groups of version 2 are.
_HIERARCHIES = ("sys/fs/cgroup", "sys/fs/cgroup/unified")


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
    there = comm.allreduce(min(node_room() // node.size, process_room()), op=MPI.MIN)
    node.Free()
    return there


def room_of_one() -> int:
    """Return bytes that this process may still take while the others of its node take none.

    Not collective. Very many where the system does not say.
    """
    return min(node_room(), process_room())


def node_room(root: Path = Path("/")) -> int:
    """Return bytes that are left to all processes of this node, or of the container or job that has a part of it.

    Not collective. Very many where the system does not say.

    Parameters
    ----------
    root
        Of the file system that tells.
    """
    there = MANY
    with suppress(OSError, KeyError, ValueError):
        facts = dict(line.split(":") for line in (root / "proc/meminfo").read_text().splitlines())
        there = int(facts["MemAvailable"].split()[0]) * 1024
    return min(there, *_rooms_of_groups(root))


def _rooms_of_groups(root: Path) -> Iterator[int]:
    """Yield what control groups leave, those of this process and all that these are part of, of either version."""
    yield MANY
    lines: list[str] = []
    with suppress(OSError):
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    for line in lines:
        _, controllers, place = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        names, bases = (_GROUPS, ("sys/fs/cgroup/memory",)) if controllers else (_UNIFIED, _HIERARCHIES)
        for base in bases:
            # In a container the path may be that outside of it: then the group is the root that is seen.
            for part in (Path(place), *Path(place).parents):
                yield _room_of_group(root / base / part.relative_to("/"), *names)


def _room_of_group(folder: Path, limit: str, taken: str, reclaimable: str) -> int:
    """Return what a group leaves: its limit without what is taken, but for files that are given up for it."""
    with suppress(OSError, ValueError):
        most = int((folder / limit).read_text())  # of no limit it is no number
        lines = (folder / "memory.stat").read_text().splitlines()
        back = sum(int(line.split()[1]) for line in lines if line.split()[:1] == [reclaimable])
        return max(0, most - int((folder / taken).read_text()) + back)
    return MANY


def process_room() -> int:
    """Return bytes that this process may still take by its own limits (`ulimit -v`, `ulimit -d`).

    Not collective. Very many without a limit.
    """
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    if limit == resource.RLIM_INFINITY:
        return address_room()
    return min(address_room(), max(0, limit - _data_taken()))


def _data_taken() -> int:
    """Return the bytes of this process that count against a limit on data; none where the system does not say."""
    with suppress(OSError, ValueError, IndexError), open("/proc/self/statm") as facts:
        import resource

        return int(facts.read().split()[5]) * resource.getpagesize()
    return 0


@contextmanager
def at_most(room: int) -> Iterator[None]:
    """Let this process take no more than so many further bytes of memory of its own in a block.

    Not collective. Whatever asks for more hears that there is none, before the system ends the process. Where the
    system has no such limit nothing is held.
    """
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    most = _data_taken() + room
    if not sys.platform.startswith("linux") or most >= (MANY if before[0] < 0 else before[0]):
        yield
        return
    resource.setrlimit(resource.RLIMIT_DATA, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def address_room() -> int:
    """Return bytes that this process may still take by its limit on address space; very many without a limit.

    Not collective.
    """
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return MANY
    with suppress(OSError, ValueError), open("/proc/self/statm") as facts:
        return max(0, limit - int(facts.read().split()[0]) * resource.getpagesize())
    return MANY


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
