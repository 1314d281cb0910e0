"""Meshes and functions of dolfinx for files of modes, on rank 0 in the order of the mesh that was read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sparsehess.errors import InputError
from sparsehess.hosts.dolfinx.features import function_space, mesh_degree, rows_of, vtk_cells
from sparsehess.mechanics.mode_mesh import ModeMesh
from sparsehess.runtime import agreement, communicator
from sparsehess.storage.meshes import Mesh

if TYPE_CHECKING:
    from dolfinx import fem

# meshio's names of VTK's types, the arbitrary Lagrange ones by how many nodes a cell has.
_NAMES = {
    (3, 2): "line",
    (5, 3): "triangle",
    (9, 4): "quad",
    (10, 4): "tetra",
    (12, 8): "hexahedron",
    (68, 3): "line3",
    (69, 6): "triangle6",
    (71, 10): "tetra10",
}


class GatheredSpace:
    """Functions of a space as values at the nodes of its mesh, on rank 0.

    *Collective* to make, and all its methods. Nodes and cells are in the order of the mesh that was read, whatever
    ranks have them.

    Parameters
    ----------
    space
        Of functions with one value, or one vector of the dimension of the mesh.

    Raises
    ------
    InputError
        Other values, or cells that files of modes do not have.
    """

    def __init__(self, space: fem.FunctionSpace):
        from dolfinx import fem

        grid = space.mesh
        dims, shape = grid.geometry.dim, tuple(fem.Function(space).ufl_shape)
        if shape not in ((), (dims,)) or (shape == () and dims == 3):
            raise InputError(f"values of shape {shape} in {dims} dimensions are no motion that can be drawn")
        self._comm = communicator(grid.comm)
        self._nodal, self._each = function_space(grid, mesh_degree(grid), shape), dims if shape else 1
        letters = "xyz"[:dims] if shape else {1: "y", 2: "z"}[dims]
        index_map = self._nodal.dofmap.index_map
        many = index_map.size_local
        kind, cells = vtk_cells(self._nodal)
        with agreement(self._comm):
            name = _NAMES.get((kind, cells.shape[1]))
            if name is None:
                raise InputError("cells of this shape and degree are not in files of modes: write .pvd or .xdmf")
        numbers = np.zeros(many + index_map.num_ghosts, np.int64)
        geometry = grid.geometry
        numbers[rows_of(self._nodal.dofmap.list)] = np.asarray(geometry.input_global_indices)[
            rows_of(geometry.dofmap)
        ]
        parts = self._comm.gather(
            (
                numbers[:many],
                self._nodal.tabulate_dof_coordinates()[:many],
                numbers[cells],
                np.asarray(grid.topology.original_cell_index)[: len(cells)],
            )
        )
        self.mesh: ModeMesh | None = None
        self._order = np.empty(0, np.int64)
        with agreement(self._comm):
            if parts is not None:
                nodes, points, corners, original = (np.concatenate(one) for one in zip(*parts, strict=True))
                self._order = np.argsort(nodes, kind="stable")
                corners = np.searchsorted(nodes[self._order], corners)[np.argsort(original, kind="stable")]
                variables = np.arange(len(nodes) * self._each).reshape(len(nodes), self._each)
                mesh = Mesh(points[self._order], dims, ((str(name), corners.astype(np.int64)),))
                self.mesh = ModeMesh.of(mesh, letters, variables, variables.size, "the mesh of the space")

    def values(self, function: fem.Function) -> np.ndarray:
        """Return the values of a function, node by node, on rank 0, nothing elsewhere. Collective."""
        from dolfinx import fem

        at_nodes = fem.Function(self._nodal)
        at_nodes.interpolate(function)
        own = at_nodes.x.array[: self._each * self._nodal.dofmap.index_map.size_local]
        parts: Any = self._comm.gather(own.reshape(-1, self._each))
        return np.empty(0) if parts is None else np.concatenate(parts)[self._order].ravel()
