"""A command as it was called, and what it works with."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mpi4py import MPI

    from sparsehess.commands.resources import Resources
    from sparsehess.storage.checkpoint import Checkpoint


@dataclass(frozen=True, eq=False)
class Call:
    """A command as it was called, and what it works with.

    Attributes
    ----------
    arguments, options
        Of the command line, and PETSc options of the solver.
    comm
        Of the ranks that run the command together.
    checkpoint
        Where what is there is saved, if anywhere.
    resources
        Where matrices, colourings and solvers come from.
    """

    arguments: argparse.Namespace
    options: dict[str, object]
    comm: MPI.Comm
    checkpoint: Checkpoint | None
    resources: Resources
