"""Arrays that every rank brings whole: all must bring the same."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from sparsehess.errors import InputError
from sparsehess.runtime.error_agreement import agreement

if TYPE_CHECKING:
    from mpi4py import MPI

# Ranks on processors of several kinds compute the same numbers to this part of the largest.
_ROUNDING = 1e-9


def have_same(comm: MPI.Comm, array: np.ndarray) -> bool:
    """Return whether an array is the same on every rank, as far as a checksum tells. Collective."""
    if comm.size == 1:
        return True
    from mpi4py import MPI

    mark = zlib.crc32(np.ascontiguousarray(array).view(np.uint8).data, zlib.crc32(repr(array.shape).encode()))
    ends = np.array([mark, -mark], np.int64)
    comm.Allreduce(MPI.IN_PLACE, ends, op=MPI.MAX)
    return bool(ends[0] == -ends[1])


def of_all_ranks(
    comm: MPI.Comm, array: np.ndarray, what: str, remedy: str, name_of: Callable[[int], str] = "number {}".format
) -> np.ndarray:
    """Return an (n,) array that every rank brings whole, as rank 0 has it.

    Collective. Where all have the same nothing is sent but a checksum.

    Parameters
    ----------
    what, remedy
        For messages: what it is, in the plural, and what to do if ranks differ.
    name_of
        What messages call an entry.

    Raises
    ------
    InputError
        Ranks have other numbers, by more than rounding, or another number of them.
    """
    if have_same(comm, array):
        return array
    size, kind = comm.bcast((len(array), array.dtype), root=0)
    with agreement(comm):
        if len(array) != size:
            raise InputError(
                f"{what} differ between ranks: {size} numbers on rank 0, {len(array)} on rank "
                f"{comm.rank}: {remedy}"
            )
    first = np.array(array) if comm.rank == 0 else np.empty(size, kind)
    comm.Bcast(first, root=0)
    with agreement(comm):
        finite = np.isfinite(array) & np.isfinite(first)
        near = (array == first) | (np.isnan(array) & np.isnan(first))
        largest = np.abs(first[finite]).max(initial=0.0)
        near[finite] |= np.abs(array[finite] - first[finite]) <= _ROUNDING * largest
        if not near.all():
            at = int(np.argmin(near))
            raise InputError(
                f"{what} differ between ranks: {name_of(at)} is {first[at]:.6g} on rank 0, {array[at]:.6g} on "
                f"rank {comm.rank}: {remedy}"
            )
    return first
