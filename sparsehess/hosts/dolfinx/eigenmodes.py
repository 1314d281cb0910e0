"""Eigenmodes on a function space, and their files for ParaView."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsehess.derivatives.units import Units
from sparsehess.eigen.problem.spectrum import Spectrum
from sparsehess.eigen.solvers import eigs
from sparsehess.errors import InputError, StackError
from sparsehess.hosts.dolfinx.features import Condition, function_space, mesh_degree, require_dolfinx
from sparsehess.hosts.dolfinx.mode_meshes import GatheredSpace
from sparsehess.hosts.dolfinx.objective import free_dofs, reduced_matrix
from sparsehess.mechanics.mode_files import facts_of, write_mode_file
from sparsehess.mechanics.mode_pictures import SUFFIXES as PICTURES
from sparsehess.mechanics.mode_pictures import check_mode, draw_mode
from sparsehess.runtime import communicator, destroy
from sparsehess.runtime.short_repr import ShortRepr
from sparsehess.storage.writers import check_writable

if TYPE_CHECKING:
    from dolfinx import fem

SUFFIXES = (".xdmf", ".pvd", ".bp")

# Of files with values at the nodes of the mesh, gathered on rank 0.
_AT_NODES = (".vtu", ".vtk", ".unv", ".frd")


@dataclass(frozen=True, eq=False, repr=False)
class Modes(ShortRepr):
    """Eigenmodes on a function space, made by `modes`.

    A context manager; `close()` destroys the vectors, collectively.

    Attributes
    ----------
    spectrum
        Eigenvalues, vectors of the free dofs, residuals and count.
    space
        Of the functions.
    free
        This rank's dofs that are not held.
    """

    spectrum: Spectrum
    space: fem.FunctionSpace
    free: np.ndarray

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        yield repr(self.spectrum)[1:-1]

    def functions(self) -> list[fem.Function]:
        """Return the modes as dolfinx functions named `mode_1`, `mode_2`, …, zero where they are held.

        Collective.
        """
        from dolfinx import fem

        found = []
        for number, vector in enumerate(self.spectrum.vectors):
            function = fem.Function(self.space, name=f"mode_{number + 1}")
            function.x.array[self.free] = vector.getArray(readonly=True)
            function.x.scatter_forward()
            found.append(function)
        return found

    def write(self, path: str | Path, *, units: Units | None = None, scale: float | None = None) -> None:
        """Write the modes to a file for ParaView and other viewers.

        Collective.

        Parameters
        ----------
        path
            As for the function `write`, whose errors it raises; or .vtu, .vtk, .unv, .frd as `sh.write_modes`
            makes them, at the nodes of the mesh, in the order of the mesh that was read.
        units, scale
            As for `sh.write_modes`, for those files.
        """
        if Path(path).suffix not in _AT_NODES:
            write(path, self.functions())
            return
        comm = communicator(self.space.mesh.comm)
        check_writable(path, _AT_NODES, comm)
        gathered = GatheredSpace(self.space)
        values = (gathered.values(function) for function in self.functions())
        write_mode_file(path, gathered.mesh, facts_of(self.spectrum, units), values, comm, scale)

    def animate(
        self, path: str | Path, mode: int = 1, *, units: Units | None = None, scale: float | None = None
    ) -> None:
        """Draw a mode that swings, as `sh.animate_mode` does.

        Collective.

        Parameters
        ----------
        path, mode, units, scale
            As for `sh.animate_mode`, whose errors it raises.
        """
        comm = communicator(self.space.mesh.comm)
        check_writable(path, PICTURES, comm)
        check_mode(mode, len(self.spectrum.vectors))
        gathered = GatheredSpace(self.space)
        values = gathered.values(self.functions()[mode - 1])
        draw_mode(path, gathered.mesh, facts_of(self.spectrum, units), values, comm, mode, scale)

    def close(self) -> None:
        """Destroy the vectors.

        Collective.
        """
        self.spectrum.close()

    def __enter__(self) -> Modes:
        """Return the modes themselves."""
        return self

    def __exit__(self, *reason: object) -> None:
        """Close them."""
        self.close()


def modes(
    K: Any,
    M: Any = None,
    *,
    space: fem.FunctionSpace,
    bcs: Iterable[Condition] = (),
    k: int | None = None,
    **how: Any,
) -> Modes:
    """Return eigenmodes of K x = λ M x on a function space, certified; held dofs are removed.

    Collective on the communicator of the mesh.

    Parameters
    ----------
    K, M
        UFL or compiled forms, bilinear in trial and test functions of the space, or assembled Mats. Dirichlet
        rows of Mats are left out, whatever stands on their diagonal. M None is the identity.
    space
        The function space.
    bcs
        Its Dirichlet conditions; their values do not matter.
    k, how
        As for `eigs`. Null vectors and the like are those of the free dofs.

    Returns
    -------
    Modes
        The caller closes them.

    Raises
    ------
    InputError, NotConverged, CheckError, StackError
        See `reduced_matrix` and `eigs`.

    Examples
    --------
    >>> from mpi4py import MPI
    >>> import ufl
    >>> from dolfinx import mesh
    >>> from sparsehess.hosts.dolfinx import function_space, modes
    >>> V = function_space(mesh.create_unit_interval(MPI.COMM_WORLD, 32), 2)
    >>> u, v = ufl.TrialFunction(V), ufl.TestFunction(V)
    >>> with modes(ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx, u * v * ufl.dx, space=V, k=3) as found:
    ...     print((found.spectrum.eigenvalues[1:] / 9.8696).round(3))
    [1. 4.]
    """
    require_dolfinx("modes")
    free = free_dofs(space, bcs)
    made = []
    try:
        made.append(reduced_matrix(K, space, free))
        if M is not None:
            made.append(reduced_matrix(M, space, free))
        spectrum = eigs(made[0], k, mass=made[1] if M is not None else None, **how)
    finally:
        destroy(*made)
    return Modes(spectrum, space, free)


def write(path: str | Path, functions: Sequence[fem.Function]) -> None:
    """Write functions on one mesh to a file for ParaView, as its suffix says.

    Collective.

    Parameters
    ----------
    path
        `.xdmf` (in the degree of the mesh, others interpolated), `.pvd` (VTK, in their own degree)
        or `.bp` (VTX, in their own degree; dolfinx with ADIOS2).
    functions
        dolfinx functions of one space, with names of their own.

    Raises
    ------
    InputError
        No such suffix or folder, or no functions.
    StackError
        dolfinx has no ADIOS2.
    """
    require_dolfinx("write")
    from dolfinx import io as dolfinx_io

    if not functions:
        raise InputError(f"{path}: there are no functions to write")
    grid, path = functions[0].function_space.mesh, Path(path)
    check_writable(path, SUFFIXES, communicator(grid.comm))
    if path.suffix == ".bp":
        if not hasattr(dolfinx_io, "VTXWriter"):
            raise StackError(f"{path}: this dolfinx has no ADIOS2 for VTX files; write .pvd or .xdmf")
        with dolfinx_io.VTXWriter(grid.comm, str(path), list(functions)) as file:
            file.write(0.0)
    elif path.suffix == ".pvd":
        with dolfinx_io.VTKFile(grid.comm, str(path), "w") as file:
            file.write_function(list(functions), 0.0)  # with the mesh
    else:
        with dolfinx_io.XDMFFile(grid.comm, str(path), "w") as file:
            file.write_mesh(grid)
            for function in functions:
                file.write_function(_on_vertices(function), 0.0)


def _on_vertices(function: fem.Function) -> fem.Function:
    """Return a function interpolated into the degree of its mesh."""
    from dolfinx import fem

    grid = function.function_space.mesh
    space = function_space(grid, mesh_degree(grid), tuple(function.ufl_shape))
    out = fem.Function(space, name=function.name)
    out.interpolate(function)
    return out
