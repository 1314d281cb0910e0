"""Communicators: our own duplicate of the caller's, and what is derived from it."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

from sparsehess import errors
from sparsehess.runtime import petsc
from sparsehess.runtime.guards import found_family, share_guard

if TYPE_CHECKING:
    from mpi4py import MPI


def communicator(comm: Any = None) -> MPI.Comm:
    """Return our own duplicate of an mpi4py or petsc4py communicator; None is this process alone.

    Collective the first time for a communicator; afterwards the duplicate is found with it, and it is
    freed with it. What a host or a user's function calls on theirs can never be mistaken for what we call on ours.
    """
    from mpi4py import MPI

    if comm is None:
        comm = MPI.COMM_SELF
        if not petsc.is_started():  # nothing to hold, and not every rank need be here to start it
            return comm
    if not isinstance(comm, MPI.Comm):
        if not hasattr(comm, "tompi4py"):
            raise errors.InputError(f"comm must be an mpi4py or petsc4py communicator, not {type(comm).__name__}")
        comm = comm.tompi4py()
    for keyval in _keyvals.values():
        known = comm.Get_attr(keyval)
        if known is not None:
            return known[0]
    if not _keyvals:
        _keyvals["theirs"] = MPI.Comm.Create_keyval(delete_fn=_freed)
        _keyvals["ours"] = MPI.Comm.Create_keyval()
    ours = comm
    if comm != MPI.COMM_SELF:
        ours = comm.Dup()
        found_family(ours)  # unless it has inherited the caller's
    # PETSc keeps a communicator of its own beside each: held, else it would come and go with our objects.
    inner = petsc.PETSc.Comm(ours).duplicate()
    pair = (ours, inner)
    inner.tompi4py().Set_attr(_keyvals["ours"], pair)
    ours.Set_attr(_keyvals["ours"], pair)
    if comm != ours:
        comm.Set_attr(_keyvals["theirs"], pair)
    return ours


_keyvals: dict[str, int] = {}  # made once, when MPI is up


def _freed(comm: MPI.Comm, keyval: int, pair: tuple[MPI.Comm, Any]) -> None:
    """Free our duplicate with the communicator that it was made for."""
    ours, inner = pair
    inner.destroy()
    ours.Free()


def child(comm: MPI.Comm, name: Hashable, make: Callable[[], MPI.Comm]) -> MPI.Comm:
    """Return a communicator that make() derives from one of ours: made once for each name, freed with ours.

    Collective the first time for a name. MPI has no more than some thousands: who needs another one again and
    again gets the same.

    Parameters
    ----------
    comm
        What `communicator` has returned.
    """
    from mpi4py import MPI

    if not _children:
        _children.append(MPI.Comm.Create_keyval(delete_fn=_free_children))
    known: Any = comm.Get_attr(_children[0])
    if known is None:
        known = {}
        comm.Set_attr(_children[0], known)
    if known.get(name, MPI.COMM_NULL) == MPI.COMM_NULL:
        known[name] = make()
        if known[name] != MPI.COMM_NULL:
            share_guard(comm, known[name])
    return known[name]


_children: list[int] = []  # the key of the attribute, made once


def forget_children(comm: MPI.Comm) -> None:
    """Have new ones made from now on: on those so far somebody has failed, and messages may be under way.

    Not collective, but for all ranks or none.
    """
    known: Any = comm.Get_attr(_children[0]) if _children else None
    if known:
        known.clear()


def _free_children(comm: MPI.Comm, keyval: int, known: dict[Hashable, MPI.Comm]) -> None:
    """Free what was derived from a communicator with it; when MPI ends PETSc has ended before."""
    from mpi4py import MPI

    for one in known.values() if comm != MPI.COMM_SELF else ():
        if one != MPI.COMM_NULL:
            one.Free()
