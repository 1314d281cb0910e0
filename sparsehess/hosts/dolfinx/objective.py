"""Objectives of UFL energies, and matrices, of the dofs that no Dirichlet condition holds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsehess.derivatives.objective import Objective
from sparsehess.errors import InputError, StackError
from sparsehess.hosts.dolfinx.features import CompiledForm, Condition, held_dofs, require_dolfinx
from sparsehess.hosts.dolfinx.surfaces import has_vertex_values, surface
from sparsehess.pattern import Pattern
from sparsehess.runtime import PETSc, agreement, communicator, destroy

if TYPE_CHECKING:
    import ufl
    from dolfinx import fem


def from_energy(
    energy: ufl.Form,
    u: fem.Function,
    *,
    bcs: Iterable[Condition] = (),
    mass: Any = None,
    pattern: Pattern | None = None,
    **more: Any,
) -> Objective:
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

    Returns
    -------
    Objective
        Of the dofs that no condition holds, on Vecs whose rows stay with dolfinx's ranks.

    Raises
    ------
    InputError
        Not such a form or function, or every dof is held.
    StackError
        dolfinx is not installed, or has complex scalars.

    Examples
    --------
    >>> from mpi4py import MPI
    >>> import sparsehess as sh
    >>> import ufl
    >>> from dolfinx import fem, mesh
    >>> from sparsehess.hosts.dolfinx import from_energy, function_space
    >>> u = fem.Function(function_space(mesh.create_unit_interval(MPI.COMM_WORLD, 4), 1))
    >>> energy = (ufl.inner(ufl.grad(u), ufl.grad(u)) / 2 + u**4) * ufl.dx
    >>> objective = from_energy(energy, u)
    >>> with sh.assemble(objective) as hessian:
    ...     print(hessian.pattern.n, round(hessian.mat.getDiagonal().sum(), 6))
    5 32.0
    >>> _ = objective.x.destroy()
    """
    require_dolfinx("from_energy")
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
        mass = reduced_matrix(mass, u.function_space, host.free)
    if "geometry" not in more and has_vertex_values(u.function_space):
        more["geometry"] = surface(u.function_space, host.free)
    return Objective(
        x=host.start(),
        gradient=host.gradient,
        hvp=host.product,
        energy=host.energy,
        pattern=pattern,
        mass=mass,
        **{"name": f"an energy of {u.name} by dolfinx", **more},
    )


def hessian(energy: ufl.Form, u: fem.Function, *, bcs: Iterable[Condition] = ()) -> PETSc.Mat:
    """Return the Hessian of an energy at u as dolfinx assembles it, of the dofs that no condition holds.

    Collective. The caller destroys it.

    Parameters
    ----------
    energy, u, bcs
        As for `from_energy`.

    Raises
    ------
    InputError
        Every dof is held.
    StackError
        dolfinx is not installed.
    """
    require_dolfinx("hessian")
    return _Energy(energy, u, free_dofs(u.function_space, bcs)).tangent()


class _Energy:
    """An energy of a copy of u whose free dofs are variables. Collective, each of its methods."""

    def __init__(self, energy: ufl.Form, u: fem.Function, free: np.ndarray):
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
        return reduced_matrix(self._tangent, self.space, self.free)

    def energy(self, x: PETSc.Vec) -> float:
        from dolfinx import fem

        self._place(self._u, x)
        return self.comm.allreduce(fem.assemble_scalar(self._energy))

    def gradient(self, x: PETSc.Vec, g: PETSc.Vec) -> None:
        self._place(self._u, x)
        self._assemble(self._slope, g)

    def product(self, x: PETSc.Vec, v: PETSc.Vec, y: PETSc.Vec) -> None:
        self._place(self._u, x)
        self._place(self._direction, v)
        self._assemble(self._action, y)

    def _place(self, function: fem.Function, values: PETSc.Vec) -> None:
        function.x.array[self.free] = values.getArray(readonly=True)
        function.x.scatter_forward()

    def _assemble(self, form: CompiledForm, out: PETSc.Vec) -> None:
        from dolfinx.fem.petsc import assemble_vector

        whole = assemble_vector(form)  # with ghosts
        whole.ghostUpdate(addv=PETSc.InsertMode.ADD, mode=PETSc.ScatterMode.REVERSE)
        out.setArray(whole.getArray(readonly=True)[self.free])
        whole.destroy()


def free_dofs(space: fem.FunctionSpace, bcs: Iterable[Condition] = ()) -> np.ndarray:
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
        dofs = held_dofs(condition)
        keep[dofs[dofs < own]] = False
    free = np.flatnonzero(keep)
    if space.mesh.comm.allreduce(len(free)) == 0:
        raise InputError("the Dirichlet conditions hold every dof of the space: nothing is left to vary")
    return free


def reduced_matrix(matrix: Any, space: fem.FunctionSpace, free: np.ndarray) -> PETSc.Mat:
    """Return the part of a matrix that belongs to some dofs of a space.

    Collective. The caller destroys it.

    Parameters
    ----------
    matrix
        UFL or compiled form, bilinear, or an assembled Mat. Rows and columns of other dofs are left out, Dirichlet
        rows among them.
    space
        Of its test and trial functions.
    free
        Own dofs, as from `free_dofs`.

    Raises
    ------
    InputError
        A Mat whose rows are not as many, or not on the same ranks, as the dofs of the space.
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


def _structure(matrix: PETSc.Mat, free: np.ndarray, space: fem.FunctionSpace) -> Pattern:
    """Return the structure of a matrix of free dofs, in blocks where whole nodes are free. Collective."""
    indptr, indices, _ = matrix.getValuesCSR()  # dolfinx stores whole blocks, zeros too
    # On the communicator of the mesh: that of the matrix goes with it.
    pattern = Pattern.from_csr(indptr, indices, comm=space.mesh.comm, source="dolfinx")
    size = space.dofmap.index_map_bs
    whole = len(free) % size == 0 and np.array_equal(
        free.reshape(-1, size)[:, :1] + np.arange(size), free.reshape(-1, size)
    )
    return pattern.in_blocks(size) if pattern.comm.allreduce(int(whole)) == pattern.comm.size else pattern
