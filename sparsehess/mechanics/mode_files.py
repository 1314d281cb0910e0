"""`write_modes`: modes on their mesh, in the files of viewers."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsehess.derivatives.units import Units
from sparsehess.errors import InputError
from sparsehess.mechanics.buckling import Buckling
from sparsehess.mechanics.complex_modes import DampedModes
from sparsehess.mechanics.complex_shapes import complex_record, farthest, plain_unit, told_of_count, told_of_scale
from sparsehess.mechanics.mode_mesh import ModeMesh
from sparsehess.runtime import PETSc, agreement, communicator, optional
from sparsehess.runtime.validation import positive_number
from sparsehess.storage import calculix_files, universal_files, vtk_files, xdmf_files
from sparsehess.storage.atomic_files import refuse_unwritable
from sparsehess.storage.calculix_files import open_frd
from sparsehess.storage.meshes import Mesh
from sparsehess.storage.mode_records import ModeRecord, ModeWriter
from sparsehess.storage.universal_files import open_universal
from sparsehess.storage.vtk_files import open_legacy, open_pvd, open_vtu
from sparsehess.storage.writers import check_writable, gather_vector
from sparsehess.storage.xdmf_files import open_xdmf

if TYPE_CHECKING:
    from mpi4py import MPI

    from sparsehess.eigen.problem.spectrum import Spectrum

_OPEN: dict[str, Callable[[Path, Mesh, ModeRecord], AbstractContextManager[ModeWriter]]] = {
    ".vtu": open_vtu,
    ".vtk": open_legacy,
    ".pvd": open_pvd,
    ".xdmf": open_xdmf,
    ".unv": open_universal,
    ".frd": open_frd,
}
SUFFIXES = tuple(_OPEN)

# Types of cells that formats have.
_CELLS: dict[str, Collection[str]] = {
    **dict.fromkeys((".vtu", ".vtk", ".pvd"), vtk_files.TYPES),
    ".xdmf": xdmf_files.TYPES,
    ".unv": (*universal_files.TYPES, "vertex"),
    ".frd": (*calculix_files.TYPES, "vertex"),
}

# Largest translations that columns of text have room for, with those of other nodes.
_SCALES = (1e-90, 1e90)

# Formats whose modes are told by frequencies in Hz.
IN_HERTZ = (".unv", ".frd")


def write_modes(
    path: str | os.PathLike[str],
    found: Spectrum | Buckling | DampedModes,
    mesh: Any,
    dofs: str | None = None,
    *,
    fixed: Any = None,
    free: Any = None,
    fixed_sets: Sequence[str] = (),
    units: Units | None = None,
    scale: float | None = None,
) -> None:
    """Write modes on their mesh to a file for ParaView and other viewers.

    *Collective.* Rank 0 holds the mesh and one mode at a time.

    Parameters
    ----------
    path
        Its name ends with .vtu or .vtk (all modes in one file, each an array of its name), .pvd (a list of .vtu
        files in a folder NAME) or .xdmf (its numbers in NAME.xdmf.h5 beside it), in which modes are steps of time,
        .unv (universal file) or .frd (CalculiX). The last two need `units`, but for buckling; .frd has no complex
        modes.
    found
        Answer of `eigs`, `buckling` or `damped_modes`. Modes of the last are complex, two arrays each: x = real +
        i imaginary moves as real cos ωt - imaginary sin ωt, ω = Im λ, so that |x| is the amplitude of a component,
        and arg x its phase.
    mesh, dofs, fixed, free, fixed_sets
        As for `ModeMesh`; or a `ModeMesh` alone.
    units
        What eigenvalues mean as frequencies, which modes are named by.
    scale
        Largest translation of a node in each mode, of a complex one while it swings. Default as they are found:
        xᵀMx = 1 of `eigs`, a largest entry of one of `buckling` and `damped_modes`.

    Raises
    ------
    InputError
        Vectors that do not fit the mesh, or that are destroyed; a mesh that is none; a file that cannot be
        written.
    StackError
        meshio, or h5py for .xdmf, is missing.

    Examples
    --------
    >>> import os, tempfile
    >>> import meshio
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> K = np.array([[2.0, -1.0], [-1.0, 1.0]])
    >>> rod = meshio.Mesh([[0.0], [1.0], [2.0]], {"line": [[0, 1], [1, 2]]})
    >>> with tempfile.TemporaryDirectory() as folder, sh.eigs(K, 1) as found:
    ...     sh.write_modes(os.path.join(folder, "modes.vtu"), found, rod, "x", fixed=[0])
    ...     moved = meshio.read(os.path.join(folder, "modes.vtu")).point_data["mode_1_0.381966"]
    >>> print(np.abs(moved[:, 0]).round(3))
    [0.    0.526 0.851]
    """
    vectors, comm = vectors_of(found)
    check_writable(path, SUFFIXES, comm)
    facts = facts_of(found, units)
    made: ModeMesh | None = None
    with agreement(comm):
        if comm.rank == 0:
            made = as_mode_mesh(mesh, dofs, fixed=fixed, free=free, fixed_sets=fixed_sets)
            if vectors:
                made.check(vectors[0][0].getSize())
    write_mode_file(path, made, facts, (gather_mode(one, comm) for one in vectors), comm, scale)


def as_mode_mesh(mesh: Any, dofs: str | None, **which: Any) -> ModeMesh:
    """Return the mesh of arguments of `write_modes`. Not collective."""
    if not isinstance(mesh, ModeMesh):
        return ModeMesh(mesh, dofs, **which)
    if dofs is not None or any(value is not None and len(value) for value in which.values()):
        raise InputError("a ModeMesh tells dofs, fixed and free ones itself: leave them out")
    return mesh


def vectors_of(found: Spectrum | Buckling | DampedModes) -> tuple[list[tuple[PETSc.Vec, ...]], MPI.Comm]:
    """Return the vectors of each mode, a real and an imaginary one where it is complex; and their communicator.

    Collective.
    """
    if isinstance(found, DampedModes):
        vectors: list[tuple[PETSc.Vec, ...]] = list(zip(found.real, found.imaginary, strict=True))
    elif isinstance(found, Buckling) or hasattr(found, "vectors"):
        vectors = [(one,) for one in (found.modes if isinstance(found, Buckling) else found.vectors)]
    else:
        raise InputError(
            f"modes of eigs, buckling and damped_modes are written on meshes, and none of {type(found).__name__}"
        )
    values = found.load_factors if isinstance(found, Buckling) else found.eigenvalues
    if len(vectors) < len(values):
        raise InputError("the answer is closed, and its vectors are destroyed: write them before")
    return vectors, communicator(vectors[0][0].comm if vectors else None)


def gather_mode(vectors: Sequence[PETSc.Vec], comm: MPI.Comm) -> np.ndarray:
    """Return all of a mode on rank 0, nothing of it elsewhere. Collective.

    Parameters
    ----------
    vectors
        One, or the real and the imaginary part.
    """
    whole = gather_vector(vectors[0], comm)
    return whole if len(vectors) == 1 else whole + 1j * gather_vector(vectors[1], comm)


def facts_of(found: Spectrum | Buckling | DampedModes, units: Units | None) -> dict[str, Any]:
    """Return what JSON tells of an answer that files of modes tell, too. Not collective."""
    facts = found.facts()
    if units is not None and isinstance(found, DampedModes):
        facts["units"] = {"factor": units.factor}
        facts["frequencies"] = {"unit": units.frequency, "values": (units.factor * found.frequencies).tolist()}
    elif units is not None and not isinstance(found, Buckling):
        values = units.of_eigenvalues(found.eigenvalues)
        facts["frequencies"] = {"unit": units.frequency, "values": values.tolist()}
    return facts


def check_hertz(path: str | os.PathLike[str], named: bool) -> None:
    """Refuse a format that tells modes by their frequencies where none are known. Not collective.

    Parameters
    ----------
    named
        Whether there are frequencies in known units, or load factors.

    Raises
    ------
    InputError
        The format needs them.
    """
    if Path(path).suffix in IN_HERTZ and not named:
        raise InputError(
            f"{path}: this format tells modes by their frequencies: give units (--units Hz), or write .vtu"
        )


def check_complex(path: str | os.PathLike[str]) -> None:
    """Refuse a format that has no complex modes. Not collective.

    Raises
    ------
    InputError
        It is .frd.
    """
    if Path(path).suffix == ".frd":
        raise InputError(f"{path}: .frd has no complex modes: write .vtu, .pvd, .xdmf or .unv")


def check_scale(scale: float | None, name: str) -> None:
    """Refuse a largest translation that files have no columns for. Not collective.

    Raises
    ------
    InputError
        It is not positive, or its exponent has more than two digits.
    """
    if scale is None:
        return
    positive_number(scale, name)
    if not _SCALES[0] <= scale <= _SCALES[1]:
        raise InputError(f"{name.strip()} {scale:g} must be from 1e-90 to 1e90: files have columns for these")


def check_format(path: str | os.PathLike[str], mesh: Mesh) -> None:
    """Refuse what a format could not hold of a mesh, and files beside it that could not be written.

    Not collective.

    Raises
    ------
    InputError
        The format has no such cells, or what belongs to the file cannot be written.
    StackError
        h5py, for .xdmf, is missing.
    """
    path = Path(path)
    for kind, _ in mesh.cells:
        if ("polygon" if kind.startswith("polygon") else kind) not in _CELLS[path.suffix]:
            raise InputError(f"{path}: {path.suffix} has no cells of type {kind}: write .vtu, or give linear ones")
    if path.suffix == ".xdmf":
        optional("h5py", "an .xdmf file", "hdf5")
        refuse_unwritable(path.with_name(f"{path.name}.h5"))
    folder = path.with_suffix("")
    if path.suffix == ".pvd" and folder.exists() and not folder.is_dir():
        raise InputError(f"{path}: its .vtu files belong into a folder {folder}, which is a file: name another")


def write_mode_file(
    path: str | os.PathLike[str],
    mesh: ModeMesh | None,
    facts: dict[str, Any],
    vectors: Iterable[np.ndarray],
    comm: MPI.Comm,
    scale: float | None,
) -> None:
    """Write vectors of which the JSON of a run tells; see `write_modes`.

    Collective.

    Parameters
    ----------
    mesh
        On rank 0.
    vectors
        (n,) on rank 0; taken one after another, by all ranks together.
    """
    path = Path(path)
    check_scale(scale, "scale")
    with ExitStack() as stack:  # what rank 0 has begun ends with it, whatever happens
        writer: Any = None  # of rank 0
        with agreement(comm):
            if comm.rank == 0 and mesh is not None:
                record = record_of(facts, mesh.turns, scale)
                if record.complex:
                    check_complex(path)
                check_hertz(path, record.buckling or record.hertz is not None)
                writer = stack.enter_context(_OPEN[path.suffix](path, mesh.mesh, record))
        for whole in vectors:
            with agreement(comm):
                if comm.rank == 0 and mesh is not None:
                    writer.add(*scaled_motion(mesh, whole if record.complex else real_mode(whole), scale))
        with agreement(comm):
            stack.close()


def scaled_motion(
    mesh: ModeMesh, vector: np.ndarray, scale: float | None
) -> tuple[np.ndarray, np.ndarray | None, float]:
    """Return how a mode moves and turns the nodes, its largest translation `scale` if that is given; and its xᵀMx.

    Not collective. A mode with xᵀMx = 1 is given; one without translations is left as it is.
    """
    moved, turned = mesh.motion(vector)
    largest = float(farthest(moved).max(initial=0.0))
    if scale is None or not largest:
        return moved, turned, 1.0
    factor = scale / largest
    return moved * factor, None if turned is None else turned * factor, factor**2


def real_mode(vector: np.ndarray) -> np.ndarray:
    """Return a mode of real matrices as real numbers, whatever scalars PETSc has. Not collective.

    Raises
    ------
    InputError
        It is complex.
    """
    if np.any(vector.imag):
        raise InputError(
            "complex modes of eigs are not written on meshes: their real and imaginary parts are two modes"
        )
    return vector.real


def record_of(facts: dict[str, Any], turns: bool, scale: float | None) -> ModeRecord:
    """Return what a file tells of modes beside their shapes, from the JSON of a run. Not collective."""
    if "damping_ratios" in facts:
        return complex_record(facts, turns, scale)
    buckling = "load_factors" in facts
    values = np.asarray(facts["load_factors" if buckling else "eigenvalues"], np.float64)
    numbers = {"load_factor" if buckling else "eigenvalue": values}
    frequencies, hertz = facts.get("frequencies"), None
    shown, end = values, "_load_factor" if buckling else ""
    if frequencies is not None:
        unit = str(frequencies["unit"])
        shown, end = np.asarray(frequencies["values"], np.float64), "_" + plain_unit(unit)
        numbers[f"frequency{end}"] = shown
        hertz = shown * Units(unit, 1.0).to("Hz").factor
    numbers["residual"] = np.asarray(facts["residuals"], np.float64)
    said, certified = told_of_count(facts)
    numbers["none_missed"] = np.full(len(values), float(certified))
    imaginary = "" if frequencies is None else "i"
    names = tuple(
        f"mode_{number}_{abs(one) if imaginary else one:.6g}{imaginary if one < 0 else ''}{end}"
        for number, one in enumerate(shown, 1)
    )
    scaled = told_of_scale(scale, "largest entry 1" if buckling else "x'Mx = 1")
    return ModeRecord(names, values, hertz, numbers, f"{said}; {scaled}", buckling, turns)
