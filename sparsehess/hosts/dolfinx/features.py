"""What the releases of dolfinx, from 0.5 on, name differently: asked for here, and nowhere else."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsehess.errors import StackError

if TYPE_CHECKING:
    from dolfinx import fem
    from dolfinx.mesh import Mesh

# Of each the class has another name before dolfinx 0.7.
Condition = Any
CompiledForm = Any


def require_dolfinx(purpose: str) -> None:
    """Import dolfinx, or say where it comes from.

    Not collective.

    Raises
    ------
    StackError
        dolfinx is not installed, or was built without petsc4py.
    """
    try:
        dolfinx = import_module("dolfinx")
    except ImportError as error:
        raise StackError(
            f"{purpose} needs dolfinx: apt-get install python3-dolfinx-real, or conda install -c conda-forge "
            "fenics-dolfinx"
        ) from error
    if not getattr(dolfinx, "has_petsc4py", True):  # releases that do not say so have it always
        raise StackError(f"{purpose} needs a dolfinx that was built with petsc4py; this one was not")


def function_space(grid: Mesh, degree: int, shape: tuple[int, ...] = ()) -> fem.FunctionSpace:
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

    element: Any = ("Lagrange", degree)
    if hasattr(fem, "functionspace"):
        return fem.functionspace(grid, (*element, shape) if shape else element)
    if len(shape) > 1:
        return fem.TensorFunctionSpace(grid, element, shape=shape)
    return fem.VectorFunctionSpace(grid, element, dim=shape[0]) if shape else fem.FunctionSpace(grid, element)


def rows_of(lists: Any) -> np.ndarray:
    """Return lists of equal length, such as connectivities, as rows of an array. Not collective."""
    if not hasattr(lists, "offsets"):
        return np.asarray(lists)
    many = len(lists.offsets) - 1
    return np.asarray(lists.array).reshape(many, -1) if many else np.empty((0, 1), np.int64)


def vtk_cells(space: fem.FunctionSpace) -> tuple[int, np.ndarray]:
    """Return VTK's type of the cells of a Lagrange space, and (own cells, nodes) blocks of dofs in VTK's order.

    Collective on the communicator of the mesh.
    """
    from dolfinx import plot

    make = plot.vtk_mesh if hasattr(plot, "vtk_mesh") else plot.create_vtk_mesh
    flat, types, _ = make(space)
    own, nodes = len(types), space.dofmap.dof_layout.num_dofs
    cells = np.asarray(flat).reshape(own, nodes + 1)[:, 1:]
    kinds = space.mesh.comm.allgather(int(types[0]) if own else -1)
    return max(kinds), cells


def mesh_degree(grid: Mesh) -> int:
    """Return the degree of a mesh of one type of cells.

    Not collective.
    """
    geometry = grid.geometry
    return (geometry.cmaps[0] if hasattr(geometry, "cmaps") else geometry.cmap).degree


def held_dofs(condition: Condition) -> np.ndarray:
    """Return the dofs that a Dirichlet condition holds, those of other ranks among them, numbered on this rank.

    Not collective.
    """
    held: Any = getattr(condition, "_cpp_object", condition)
    return held.dof_indices()[0]
