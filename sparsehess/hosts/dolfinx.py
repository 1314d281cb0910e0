"""Energies and matrices of dolfinx: objectives of UFL forms, vibration modes as functions, files for ParaView.

>>> from mpi4py import MPI
>>> import numpy as np
>>> import ufl
>>> from dolfinx import fem, mesh
>>> from sparsehess.hosts.dolfinx import function_space, modes
>>> square = mesh.create_unit_square(MPI.COMM_WORLD, 8, 8)
>>> V = function_space(square, 2)  # in dolfinx since 0.7: fem.functionspace(square, ("Lagrange", 2))
>>> u, v = ufl.TrialFunction(V), ufl.TestFunction(V)
>>> at_left = fem.locate_dofs_geometrical(V, lambda x: np.isclose(x[0], 0))
>>> held = fem.dirichletbc(0.0, at_left, V)
>>> with modes(ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx, u * v * ufl.dx, space=V, bcs=[held], k=3) as found:
...     print((found.spectrum.eigenvalues / np.pi**2).round(3), found.functions()[0].name)
[0.25 1.25 2.25] mode_1

Dofs that a Dirichlet condition holds are removed. Written as rows of the identity they would be eigenvalues of
their own, and as penalties large ones that spoil the others. Rows stay with the ranks that dolfinx gave them to.
What dolfinx's releases, from 0.5 on, name differently is asked for at the end of this module, and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np

from sparsehess.derivatives.objective import Objective
from sparsehess.eigen.problem.spectrum import Spectrum
from sparsehess.eigen.solvers import eigs
from sparsehess.errors import InputError, StackError
from sparsehess.pattern import Pattern
from sparsehess.runtime import PETSc, agreement, communicator, destroy
from sparsehess.storage.writers import check_writable

SUFFIXES = (".xdmf", ".pvd", ".bp")


def _required(purpose: str) -> None:
    """Import dolfinx, or say where it comes from. Not collective."""
    try:
        dolfinx = import_module("dolfinx")
    except ImportError as error:
        raise StackError(
            f"{purpose} needs dolfinx: apt-get install python3-dolfinx-real, or conda install -c conda-forge "
            "fenics-dolfinx"
        ) from error
    if not getattr(dolfinx, "has_petsc4py", True):  # releases that do not say so have it always
        raise StackError(f"{purpose} needs a dolfinx that was built with petsc4py; this one was not")


def from_energy(energy, u, *, bcs=(), mass=None, pattern: Pattern | None = None, **more) -> Objective:
    """Return the objective of an energy, a UFL form of a function u, at that u.

    Collective on the communicator of the mesh. Its gradient is the assembled first derivative, its products with
    the Hessian the assembled action of the second, both exact. The caller destroys `x` and, of a form, `mass`.

    Parameters
    ----------
    energy
        UFL form of rank 0, twice differentiable by u. Other functions and constants in it are taken as they are
        when the objective is evaluated.
    u
        `dolfinx.fem.Function`, with values that fulfil the conditions. It stays as it is: a copy moves.
    bcs
        Dirichlet conditions, whose dofs are removed; at these u keeps its values.
    mass
        UFL form, bilinear in trial and test functions of the same space, or what else `Objective` takes.
    pattern
        Default that of dolfinx's matrix for the second derivative.
    more
        Other arguments of `Objective`.

    Raises
    ------
    InputError
        Not such a form or function, or every dof is held.
    StackError
        dolfinx is not installed, or has complex scalars.
    """
    _required("from_energy")
    import ufl
    from dolfinx import fem

    if not (isinstance(energy, ufl.Form) and isinstance(u, fem.Function) and not energy.arguments()):
        raise InputError(
            "from_energy takes a UFL form without test and trial functions, and a dolfinx Function in it"
        )
    if not np.issubdtype(u.x.array.dtype, np.float64):
        raise StackError(f"dolfinx has scalars of {u.x.array.dtype} here: Hessians are real, of float64")
    host = _Energy(energy, u, free_dofs(u.function_space, bcs))
    if pattern is None:
        tangent = host.tangent()
        pattern = _structure(tangent, host.free, u.function_space)
        tangent.destroy()
    if isinstance(mass, ufl.Form):
        mass = reduced(mass, u.function_space, host.free)
    return Objective(
        x=host.start(),
        gradient=host.gradient,
        hvp=host.product,
        energy=host.energy,
        pattern=pattern,
        mass=mass,
        **{"name": f"an energy of {u.name} by dolfinx", **more},
    )


def hessian(energy, u, *, bcs=()) -> PETSc.Mat:
    """Return the Hessian of an energy at u as dolfinx assembles it, of the dofs that no condition holds.

    Collective. The caller destroys it. Parameters as for `from_energy`.
    """
    _required("hessian")
    return _Energy(energy, u, free_dofs(u.function_space, bcs)).tangent()


class _Energy:
    """An energy of a copy of u whose free dofs are variables. Collective, each of its methods."""

    def __init__(self, energy, u, free: np.ndarray):
        import ufl
        from dolfinx import fem

        self.space, self.free = u.function_space, free
        self.comm = communicator(self.space.mesh.comm)
        self._u, self._direction = fem.Function(self.space), fem.Function(self.space)
        self._u.x.array[:] = u.x.array
        v, w = ufl.TestFunction(self.space), ufl.TrialFunction(self.space)
        form = ufl.replace(energy, {u: self._u})
        slope = ufl.derivative(form, self._u, v)
        self._energy, self._slope = fem.form(form), fem.form(slope)
        self._tangent = ufl.derivative(slope, self._u, w)
        self._action = fem.form(ufl.derivative(slope, self._u, self._direction))

    def start(self) -> PETSc.Vec:
        x = PETSc.Vec().createMPI((len(self.free), PETSc.DECIDE), comm=self.comm)
        x.setArray(self._u.x.array[self.free])
        return x

    def tangent(self) -> PETSc.Mat:
        return reduced(self._tangent, self.space, self.free)

    def energy(self, x) -> float:
        from dolfinx import fem

        self._place(self._u, x)
        return self.comm.allreduce(fem.assemble_scalar(self._energy))

    def gradient(self, x, g) -> None:
        self._place(self._u, x)
        self._assemble(self._slope, g)

    def product(self, x, v, y) -> None:
        self._place(self._u, x)
        self._place(self._direction, v)
        self._assemble(self._action, y)

    def _place(self, function, values) -> None:
        function.x.array[self.free] = values.getArray(readonly=True)
        function.x.scatter_forward()

    def _assemble(self, form, out) -> None:
        from dolfinx.fem.petsc import assemble_vector

        whole = assemble_vector(form)  # with ghosts
        whole.ghostUpdate(addv=PETSc.InsertMode.ADD, mode=PETSc.ScatterMode.REVERSE)
        out.setArray(whole.getArray(readonly=True)[self.free])
        whole.destroy()


def free_dofs(space, bcs=()) -> np.ndarray:
    """Return (n_local,) those of this rank's own dofs that no Dirichlet condition holds, numbered on this rank.

    Collective.

    Raises
    ------
    InputError
        Every dof is held.
    """
    own = space.dofmap.index_map.size_local * space.dofmap.index_map_bs
    keep = np.ones(own, bool)
    for condition in bcs:
        dofs = _held_by(condition)
        keep[dofs[dofs < own]] = False
    free = np.flatnonzero(keep)
    if space.mesh.comm.allreduce(len(free)) == 0:
        raise InputError("the Dirichlet conditions hold every dof of the space: nothing is left to vary")
    return free


def reduced(matrix, space, free: np.ndarray) -> PETSc.Mat:
    """Return the part of a matrix that belongs to some dofs of a space. The caller destroys it.

    Collective.

    Parameters
    ----------
    matrix
        UFL or compiled form, bilinear, or an assembled Mat: with Dirichlet rows or without, they are left out.
    space
        Of its test and trial functions.
    free
        As from `free_dofs`.

    Raises
    ------
    InputError
        A Mat with rows of another number or on other ranks than the space has dofs.
    """
    made = None
    if not isinstance(matrix, PETSc.Mat):
        import ufl
        from dolfinx import fem
        from dolfinx.fem.petsc import assemble_matrix

        made = matrix = assemble_matrix(fem.form(matrix) if isinstance(matrix, ufl.Form) else matrix)
        matrix.assemble()
    own = space.dofmap.index_map.size_local * space.dofmap.index_map_bs
    try:
        with agreement(communicator(space.mesh.comm)):
            if matrix.getLocalSize() != (own, own):
                raise InputError(
                    f"the matrix has {matrix.getLocalSize()[0]} rows on rank {space.mesh.comm.rank}, "
                    f"the space {own} dofs"
                )
        rows = PETSc.IS().createGeneral(
            (matrix.getOwnershipRange()[0] + free).astype(PETSc.IntType), comm=matrix.comm
        )
        part = matrix.createSubMatrix(rows, rows)
        rows.destroy()
        return part
    finally:
        destroy(made)


def _structure(matrix: PETSc.Mat, free: np.ndarray, space) -> Pattern:
    """Return the structure of a matrix of free dofs, in blocks where whole nodes are free. Collective."""
    indptr, indices, _ = matrix.getValuesCSR()  # dolfinx stores whole blocks, zeros too
    # On the communicator of the mesh: that of the matrix goes with it.
    pattern = Pattern.from_csr(indptr, indices, comm=space.mesh.comm, source="dolfinx")
    size = space.dofmap.index_map_bs
    whole = len(free) % size == 0 and np.array_equal(
        free.reshape(-1, size)[:, :1] + np.arange(size), free.reshape(-1, size)
    )
    return pattern.in_blocks(size) if pattern.comm.allreduce(int(whole)) == pattern.comm.size else pattern


# --- modes ------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Modes:
    """Eigenmodes on a function space. A context manager; `close()` destroys the vectors, collectively.

    Attributes
    ----------
    spectrum
        Eigenvalues, vectors of the free dofs, and what proves them.
    space
        Of the functions.
    free
        This rank's dofs that are not held.
    """

    spectrum: Spectrum
    space: object
    free: np.ndarray

    def functions(self) -> list:
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

    def write(self, path) -> None:
        """Write the modes to a file for ParaView.

        Collective. See `write`.
        """
        write(path, self.functions())

    def close(self) -> None:
        """Destroy the vectors.

        Collective.
        """
        self.spectrum.close()

    def __enter__(self) -> Modes:
        return self

    def __exit__(self, *reason) -> None:
        self.close()


def modes(K, M=None, *, space, bcs=(), k: int | None = None, **how) -> Modes:
    """Return eigenmodes of K x = λ M x on a function space, certified; held dofs are removed.

    Collective on the communicator of the mesh.

    Parameters
    ----------
    K, M
        UFL or compiled forms, bilinear in trial and test functions of the space, or assembled Mats: of Mats the
        Dirichlet rows are left out, whatever stands on their diagonal. M None is the identity.
    space
        The function space.
    bcs
        Its Dirichlet conditions; their values do not matter.
    k, how
        As for `eigs`. Null vectors and the like are those of the free dofs.

    Raises
    ------
    InputError, NotConverged, CheckError, StackError
        See `reduced` and `eigs`.
    """
    _required("modes")
    free = free_dofs(space, bcs)
    made = []
    try:
        made.append(reduced(K, space, free))
        if M is not None:
            made.append(reduced(M, space, free))
        spectrum = eigs(made[0], k, mass=made[1] if M is not None else None, **how)
    finally:
        destroy(*made)
    return Modes(spectrum, space, free)


def write(path, functions) -> None:
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
    _required("write")
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


def _on_vertices(function):
    """Return a function interpolated into the degree of its mesh."""
    from dolfinx import fem

    grid = function.function_space.mesh
    space = function_space(grid, _degree(grid), tuple(function.ufl_shape))
    out = fem.Function(space, name=function.name)
    out.interpolate(function)
    return out


# --- what the releases of dolfinx name differently ---------------------------------------


def function_space(grid, degree: int, shape: tuple[int, ...] = ()):
    """Return the space of continuous Lagrange functions of a degree on a mesh, whatever this dolfinx calls it.

    Collective on the communicator of the mesh.

    Parameters
    ----------
    grid
        The mesh.
    degree
        Of the polynomials.
    shape
        Of the values: () for scalars, (3,) for vectors of three components, (3, 3) for tensors.
    """
    from dolfinx import fem

    element = ("Lagrange", degree)
    if hasattr(fem, "functionspace"):
        return fem.functionspace(grid, (*element, shape) if shape else element)
    if len(shape) > 1:
        return fem.TensorFunctionSpace(grid, element, shape=shape)
    return fem.VectorFunctionSpace(grid, element, dim=shape[0]) if shape else fem.FunctionSpace(grid, element)


def _degree(grid) -> int:
    """Return the degree of a mesh of one type of cells."""
    geometry = grid.geometry
    return (geometry.cmaps[0] if hasattr(geometry, "cmaps") else geometry.cmap).degree


def _held_by(condition) -> np.ndarray:
    """Return the dofs that a Dirichlet condition holds, numbered on this rank, those of others among them."""
    return getattr(condition, "_cpp_object", condition).dof_indices()[0]
