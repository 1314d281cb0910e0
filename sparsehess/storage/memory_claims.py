"""What a file would take in memory, against what is free: refused before it is taken."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

from sparsehess.errors import InputError
from sparsehess.runtime import memory

# Bytes for each stored entry of a matrix while it is read, checked and dealt out, of one by rows and of one by
# triples, and for each row. With seven entries to a row 36 and 56 bytes an entry were measured.
PER_ENTRY, PER_TRIPLE, PER_ROW = 28, 48, 24


def bytes_of(shape: Sequence[int], itemsize: int) -> int:
    """Return the bytes of an array, in whole numbers that cannot overflow. Not collective."""
    return math.prod(int(length) for length in shape) * int(itemsize)


def shown(number: int) -> str:
    """Return bytes for people. Not collective."""
    if number < 2**20:
        return f"{number} bytes"
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 else f"{number / 2**20:.0f} MiB"


def require_memory(path: str | os.PathLike[str], what: str, needed: int, free: int | None = None) -> None:
    """Raise InputError if what a file holds would take more memory than this process can have.

    Not collective.

    Parameters
    ----------
    what
        Would take it, such as `its arrays`.
    needed
        Bytes.
    free
        Bytes that are free; None for all that this process may have while the others of its node take none.
    """
    free = memory.room_of_one() if free is None else free
    if needed > free:
        raise InputError(
            f"{path}: {what} would take {shown(needed)} of memory, {shown(free)} are free: take a machine with "
            "more, give back what limits this one (ulimit, a job's or a container's memory), or write a .petsc "
            "file, of which each rank reads its own rows"
        )
