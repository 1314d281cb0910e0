"""Modes on the nodes of a mesh: what --mesh and the flags beside it ask for."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsehess.commands import flag_groups
from sparsehess.errors import InputError
from sparsehess.mechanics.mode_files import SUFFIXES, check_hertz, write_mode_file
from sparsehess.mechanics.mode_mesh import ModeMesh
from sparsehess.runtime import agreement
from sparsehess.runtime.validation import positive_number
from sparsehess.storage import array_files, writers

if TYPE_CHECKING:
    from mpi4py import MPI

    from sparsehess.commands.call import Call
    from sparsehess.runtime import PETSc

# Flags that need a mesh; --dofs and --fixed are for effective masses, too.
_NEED_MESH = {name: flag_groups.ON_MESH[name] for name in ("free", "fixed_set", "scale")}


class ModeOutputs:
    """What is written of modes on a mesh. Made by `open_mode_outputs`.

    Parameters
    ----------
    mesh
        On rank 0, where one is given.
    """

    def __init__(self, arguments: argparse.Namespace, comm: MPI.Comm, mesh: ModeMesh | None):
        self._arguments, self._comm, self._mesh = arguments, comm, mesh
        out = arguments.out
        self.writes = out is not None and Path(out).suffix in SUFFIXES

    def check(self, n: int, named: bool) -> None:
        """Refuse what would not be written after the solve.

        Collective.

        Parameters
        ----------
        n
            Rows of the matrix.
        named
            Whether modes have frequencies in known units, or load factors.

        Raises
        ------
        InputError
            The mesh does not fit the matrix, or a format tells modes by frequencies.
        """
        with agreement(self._comm):
            if self.writes:
                check_hertz(self._arguments.out, named)
            if self._mesh is not None:
                self._mesh.check(n)

    def write(self, facts: dict[str, Any], vectors: Sequence[PETSc.Vec]) -> None:
        """Write modes to --out. Collective."""
        write_mode_file(self._arguments.out, self._mesh, facts, vectors, self._comm, self._arguments.scale)


def open_mode_outputs(call: Call) -> ModeOutputs:
    """Return what --mesh and the flags beside it ask for; refuse what could not be written, and read the mesh.

    Collective.

    Raises
    ------
    InputError
        Flags that contradict each other, or a mesh or lists of dofs that are none.
    StackError
        meshio is missing.
    """
    arguments, comm = call.arguments, call.comm
    writers.check_writable(arguments.out, (*writers.RESULTS, *SUFFIXES), comm)
    writes = arguments.out is not None and Path(arguments.out).suffix in SUFFIXES
    if arguments.mesh is None:
        idle = _NEED_MESH if hasattr(arguments, "participation") else flag_groups.ON_MESH
        flag_groups.refuse_flags(arguments, idle, "for modes on a mesh; give --mesh too")
        if writes:
            raise InputError(
                f"{arguments.out}: modes are written on a mesh; give --mesh FILE, or write .h5 or .npz"
            )
        return ModeOutputs(arguments, comm, None)
    if not writes:
        raise InputError(
            f"--mesh: nothing is written on it; give -o FILE with one of {', '.join(SUFFIXES)}, or leave it out"
        )
    if arguments.scale is not None:
        positive_number(arguments.scale, "--scale ")
    fixed, free = (
        None if name is None else array_files.read_indices(name, comm)
        for name in (arguments.fixed, arguments.free)
    )
    mesh = None
    with agreement(comm):
        if comm.rank == 0:
            mesh = ModeMesh(arguments.mesh, arguments.dofs, fixed=fixed, free=free, fixed_sets=arguments.fixed_set)
    return ModeOutputs(arguments, comm, mesh)
