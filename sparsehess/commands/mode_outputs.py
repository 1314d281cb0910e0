"""Modes on the nodes of a mesh: what --mesh and the flags beside it ask for, of a run or of a stored result."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsehess import errors, runtime
from sparsehess.commands import flag_groups
from sparsehess.commands.output import SCHEMA, answer, refuse_solver_options
from sparsehess.derivatives.units import Units
from sparsehess.errors import InputError
from sparsehess.mechanics.mode_files import (
    SUFFIXES,
    check_complex,
    check_format,
    check_hertz,
    check_scale,
    gather_mode,
    write_mode_file,
)
from sparsehess.mechanics.mode_mesh import ModeMesh
from sparsehess.mechanics.mode_pictures import SUFFIXES as PICTURES
from sparsehess.mechanics.mode_pictures import check_mode, draw_mode
from sparsehess.runtime import agreement
from sparsehess.storage import array_files, writers
from sparsehess.storage.result_files import read_pairs

if TYPE_CHECKING:
    from mpi4py import MPI

    from sparsehess.commands.call import Call
    from sparsehess.runtime import PETSc
    from sparsehess.storage.dof_labels import Labels


class ModeOutputs:
    """What is written and drawn of modes on a mesh. Made by `open_mode_outputs`.

    Parameters
    ----------
    mesh
        On rank 0, where one is given.

    Attributes
    ----------
    writes, draws
        Whether --out and --plot are for modes on a mesh.
    """

    def __init__(self, arguments: argparse.Namespace, comm: MPI.Comm, mesh: ModeMesh | None):
        self._arguments, self._comm, self._mesh = arguments, comm, mesh
        self.writes, self.draws = _writes(arguments), _draws(arguments)

    def check(self, n: int, named: bool, labels: Labels | None = None) -> None:
        """Refuse what would not be written after the solve.

        Collective.

        Parameters
        ----------
        n
            Rows of the matrix.
        named
            Whether modes have frequencies in known units, or load factors.
        labels
            Nodes and components of this rank's rows, where their file tells them. They say which dofs of the mesh
            the rows are where no flag does.

        Raises
        ------
        InputError
            The mesh does not fit the matrix, or a format tells modes by frequencies.
        """
        with agreement(self._comm):
            if self.writes:
                check_hertz(self._arguments.out, named)
                if self._mesh is not None:
                    check_format(self._arguments.out, self._mesh.mesh)
        told = {name: flag_groups.ON_MESH[name] for name in ("dofs", "fixed", "fixed_set", "free")}
        silent = all(getattr(self._arguments, name) == value for name, value in told.items())
        parts = None
        if labels is not None and silent and (self.writes or self.draws):
            parts = self._comm.gather((labels.nodes, labels.components.astype(np.int64)))
        with agreement(self._comm):
            if self._mesh is not None and parts is not None:
                nodes, components = (np.concatenate(one) for one in zip(*parts, strict=True))
                self._mesh = ModeMesh.of_rows(self._mesh.mesh, nodes, components, self._mesh.name)
            if self._mesh is not None:
                self._mesh.check(n)

    def write(self, facts: dict[str, Any], modes: Sequence[Sequence[PETSc.Vec]]) -> None:
        """Write modes to --out, and draw one to --plot, where these are for modes on a mesh.

        Collective.

        Parameters
        ----------
        modes
            A vector each, or real and imaginary part.
        """
        arguments = self._arguments
        if self.writes:
            every = (gather_mode(one, self._comm) for one in modes)
            write_mode_file(arguments.out, self._mesh, facts, every, self._comm, arguments.scale)
        if self.draws:
            mode = 1 if arguments.mode is None else arguments.mode
            check_mode(mode, len(modes))
            whole = gather_mode(modes[mode - 1], self._comm)
            draw_mode(arguments.plot, self._mesh, facts, whole, self._comm, mode, arguments.scale)


def _writes(arguments: argparse.Namespace) -> bool:
    return arguments.out is not None and Path(arguments.out).suffix in SUFFIXES


def _draws(arguments: argparse.Namespace) -> bool:
    """Return whether --plot is a mode that moves; of eigs a .png without --mode is the spectrum."""
    if arguments.plot is None:
        return False
    return arguments.command != "eigs" or arguments.mode is not None or Path(arguments.plot).suffix == ".gif"


def open_mode_outputs(call: Call, results: Sequence[str] = writers.RESULTS) -> ModeOutputs:
    """Return what --mesh and the flags beside it ask for; refuse what could not be written, and read the mesh.

    Collective.

    Parameters
    ----------
    results
        What else the name of --out may end with.

    Raises
    ------
    InputError
        Flags that contradict each other, or a mesh or lists of dofs that are none.
    StackError
        meshio is missing.
    """
    arguments, comm = call.arguments, call.comm
    writers.check_writable(arguments.out, (*results, *SUFFIXES), comm)
    writes, draws = _writes(arguments), _draws(arguments)
    if draws:
        writers.check_writable(arguments.plot, PICTURES, comm)
        with agreement(comm):
            if comm.rank == 0:
                runtime.optional("matplotlib", "--plot", "plot")
    if arguments.mesh is None:
        shared = ("dofs", "fixed") if hasattr(arguments, "participation") else ()
        alone = {name: value for name, value in flag_groups.ON_MESH.items() if name not in shared}
        flag_groups.refuse_flags(arguments, alone, "for modes on a mesh; give --mesh too")
        if writes or draws:
            path = arguments.out if writes else arguments.plot
            raise InputError(f"{path}: modes are shown on a mesh; give --mesh FILE, or another kind of file")
        return ModeOutputs(arguments, comm, None)
    if not writes and not draws:
        raise InputError(
            f"--mesh: nothing is shown on it; give -o FILE with one of {', '.join(SUFFIXES)}, or --plot FILE.gif, "
            "or leave it out"
        )
    if not draws:
        flag_groups.refuse_flags(arguments, {"mode": None}, "which mode --plot draws; give --plot FILE.gif too")
    if arguments.mode is not None and arguments.mode < 1:
        raise InputError(f"--mode {arguments.mode}: modes are counted from 1")
    check_scale(arguments.scale, "--scale ")
    if writes and arguments.command == "damped":
        check_complex(arguments.out)
    lists = (arguments.fixed, arguments.free)
    fixed, free = (None if path is None else array_files.read_indices(path, comm) for path in lists)
    mesh = None
    with agreement(comm):
        if comm.rank == 0:
            mesh = ModeMesh(arguments.mesh, arguments.dofs, fixed=fixed, free=free, fixed_sets=arguments.fixed_set)
    return ModeOutputs(arguments, comm, mesh)


def run_export(call: Call) -> int:
    """Write or draw the modes of a stored result on a mesh. Collective."""
    arguments, comm = call.arguments, call.comm
    refuse_solver_options(call.options)
    if arguments.out is None and arguments.plot is None:
        raise InputError("nothing to write: give -o FILE.vtu, or --plot FILE.gif")
    shapes = open_mode_outputs(call, results=())
    stored = read_pairs(arguments.result, comm=comm, names=("eigenvalues", "load_factors"), complex_pairs=True)
    try:
        lists = {name: _listed(one) for name, one in stored.arrays.items()}
        facts = _named(arguments, {**stored.facts, **lists})
        if stored.complex and shapes.writes:
            check_complex(arguments.out)
        if "residuals" not in stored.arrays:
            raise InputError(
                f"{arguments.result}: it has no modes; give what eigs, buckling or damped have written"
            )
        if stored.facts.get("real_form") is True:
            raise InputError(f"{arguments.result}: its vectors are complex: modes of real matrices are written")
        n = stored.vectors[0].getSize() if stored.vectors else int(facts["n"])
        shapes.check(n, "load_factors" in facts or facts.get("frequencies") is not None)
        if stored.complex:
            shapes.write(facts, list(zip(stored.vectors[::2], stored.vectors[1::2], strict=True)))
        else:
            shapes.write(facts, [(one,) for one in stored.vectors])
    finally:
        runtime.destroy(*stored.vectors)
    written = [path for path in (arguments.out, arguments.plot) if path is not None]
    told = {"result": arguments.result, "modes": len(stored), "written": written}
    answer(
        call,
        {"schema": SCHEMA, "task": "export", **told},
        "\n".join(f"written      {path}" for path in written),
    )
    return errors.DONE


def _listed(values: np.ndarray) -> list[Any]:
    """Return numbers as JSON has them, a complex one as its two parts."""
    return np.stack([values.real, values.imag], axis=1).tolist() if np.iscomplexobj(values) else values.tolist()


def _named(arguments: argparse.Namespace, facts: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON of a run with frequencies in the units that are asked for, where they are."""
    if arguments.units is None:
        flag_groups.refuse_flags(
            arguments, {"matrix_units": None}, "no frequencies are asked for; give --units too"
        )
        return facts
    if "load_factors" in facts:
        raise InputError("--units: the result has load factors, and no frequencies; leave it out")
    values, known = np.asarray(facts["eigenvalues"]), facts.get("frequencies")
    if arguments.matrix_units is not None:
        stiffness, mass = arguments.matrix_units
        units = Units.of_matrices(stiffness, mass, arguments.units)
    elif known is not None:
        units = Units(known["unit"], facts["units"]["factor"]).to(arguments.units)
    elif (facts.get("inputs") or {}).get("mass") is None:
        raise InputError(
            "--units: the result is not known to have a mass, so that an eigenvalue is no ω²; say with "
            "--matrix-units what entries were in"
        )
    else:
        units = Units.consistent(arguments.units)
    swings = "damping_ratios" in facts  # λ as two parts
    frequencies = units.factor * values.reshape(-1, 2)[:, 1] if swings else units.of_eigenvalues(values)
    told = {"unit": arguments.units, "values": frequencies.tolist()}
    return {**facts, "frequencies": told, "units": {"factor": units.factor}}
