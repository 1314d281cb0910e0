"""Surfaces of meshes, as the geometry of an objective: nodes that its variables move."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sparsehess.derivatives.geometry import Geometry, in_turn
from sparsehess.errors import InputError
from sparsehess.hosts.dolfinx.features import require_dolfinx, rows_of

if TYPE_CHECKING:
    from dolfinx import fem


def surface(space: fem.FunctionSpace, free: np.ndarray | None = None) -> Geometry:
    """Return the vertices and faces of a mesh's surface that this rank has, for the `geometry` of an objective.

    Collective on the communicator of the mesh. Of a plane mesh all cells are faces.

    Parameters
    ----------
    space
        With one value, or one vector, at each vertex, as continuous Lagrange functions have.
    free
        (n_local,) those of this rank's own dofs that are variables, in their order; default all.

    Raises
    ------
    InputError
        Functions of another kind.
    StackError
        dolfinx is not installed.

    Examples
    --------
    >>> from mpi4py import MPI
    >>> from dolfinx import mesh
    >>> from sparsehess.hosts.dolfinx import function_space, surface
    >>> surface(function_space(mesh.create_unit_square(MPI.COMM_WORLD, 2, 2), 1))
    <Geometry: 9 nodes in 2 dimensions, 8 faces>
    """
    require_dolfinx("surface")
    if not has_vertex_values(space):
        raise InputError(
            "functions without one value, or one vector, at each vertex are no motion that can be drawn"
        )
    from dolfinx import fem

    topology, each = space.mesh.topology, space.dofmap.index_map_bs
    own = space.dofmap.index_map.size_local * each
    chosen = np.arange(own) if free is None else np.asarray(free)
    start = space.mesh.comm.exscan(len(chosen)) or 0
    numbers = fem.Function(space)  # its ghosts are told by those who have them
    numbers.x.array[:] = 0.0
    numbers.x.array[chosen] = start + 1 + np.arange(len(chosen))
    numbers.x.scatter_forward()
    corners = _faces(space)
    used, faces = np.unique(_nodes_of_vertices(space)[corners], return_inverse=True)
    faces = faces.reshape(corners.shape)
    dims = space.mesh.geometry.dim
    positions = space.tabulate_dof_coordinates()[used][:, :dims]
    variables = np.rint(numbers.x.array.real).astype(np.int64).reshape(-1, each)[used] - 1
    if topology.dim == 1:
        return Geometry(positions, variables, edges=faces)
    return Geometry(positions, variables, faces=[in_turn(positions, faces)])


def has_vertex_values(space: fem.FunctionSpace) -> bool:
    """Return whether a space has one value, or one vector, at each vertex. Not collective."""
    layout, each, dims = space.dofmap.dof_layout, space.dofmap.index_map_bs, space.mesh.geometry.dim
    fits = each == dims if dims == 3 else each in (1, dims)
    return fits and layout.block_size == each and len(layout.entity_dofs(0, 0)) == 1


def _nodes_of_vertices(space: fem.FunctionSpace) -> np.ndarray:
    """Return (vertices of this rank,) the block of dofs at each, numbered on this rank."""
    topology = space.mesh.topology
    topology.create_connectivity(topology.dim, 0)
    vertices, layout = rows_of(topology.connectivity(topology.dim, 0)), space.dofmap.dof_layout
    places = [layout.entity_dofs(0, corner)[0] for corner in range(vertices.shape[1])]
    found = np.zeros(vertices.max(initial=-1) + 1, np.int64)
    found[vertices] = rows_of(space.dofmap.list)[:, places]
    return found


def _faces(space: fem.FunctionSpace) -> np.ndarray:
    """Return (faces, corners) the vertices of faces that are drawn: own cells, or own facets of the surface."""
    from dolfinx.mesh import exterior_facet_indices

    topology = space.mesh.topology
    dim = topology.dim
    if dim < 3:
        cells: Any = rows_of(topology.connectivity(dim, 0))
        cells = cells[: topology.index_map(dim).size_local]
        return cells if len(cells) else np.empty((0, dim + 1), np.int64)
    topology.create_connectivity(dim - 1, dim)
    topology.create_connectivity(dim - 1, 0)
    facets = exterior_facet_indices(topology)
    return rows_of(topology.connectivity(dim - 1, 0))[facets] if len(facets) else np.empty((0, 3), np.int64)
