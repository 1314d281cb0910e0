"""The checkpoint that a command's arguments ask for."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from sparsehess.commands import flag_groups
from sparsehess.storage.checkpoint import Checkpoint

if TYPE_CHECKING:
    from mpi4py import MPI

# Commands that have the flags of a checkpoint for those that save, and save nothing themselves.
_SAVE_NOTHING = ("plan",)


def open_checkpoint(
    arguments: argparse.Namespace, comm: MPI.Comm, *, resume: bool | None = None
) -> Checkpoint | None:
    """Return the checkpoint that is asked for, or None.

    Collective.

    Parameters
    ----------
    resume
        Whether to go on from what is there; as the arguments say where nothing is given.

    Raises
    ------
    InputError
        The folder cannot be used, or flags of a checkpoint were given without one.
    """
    directory = getattr(arguments, "checkpoint", None)
    if directory is None:
        if hasattr(arguments, "resume"):
            flag_groups.refuse_flags(arguments, flag_groups.CHECKPOINT, "give the folder with --checkpoint")
        return None
    if arguments.command in _SAVE_NOTHING:
        return None
    resume = arguments.resume if resume is None else resume
    return Checkpoint(directory, comm, interval=arguments.checkpoint_interval, resume=resume)


def clear_checkpoint(checkpoint: Checkpoint | None, arguments: argparse.Namespace) -> None:
    """Remove what was saved, the answer being out; a command that has only looked leaves it. Collective."""
    if checkpoint is not None and not getattr(arguments, "explain", False):
        checkpoint.clear()
