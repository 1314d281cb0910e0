"""What is drawn of a mesh: faces of its surface, and lines."""

from __future__ import annotations

import numpy as np

from sparsehess.storage.meshes import Mesh

# Faces of solids by meshio's types without what their ends say of middle nodes, whose corners come first.
_SOLIDS = {
    "hexahedron": [(0, 3, 2, 1), (4, 5, 6, 7), (0, 1, 5, 4), (1, 2, 6, 5), (2, 3, 7, 6), (3, 0, 4, 7)],
    "wedge": [(0, 2, 1, 1), (3, 4, 5, 5), (0, 1, 4, 3), (1, 2, 5, 4), (2, 0, 3, 5)],
    "tetra": [(0, 2, 1, 1), (0, 1, 3, 3), (1, 2, 3, 3), (2, 0, 3, 3)],
    "pyramid": [(0, 3, 2, 1), (0, 1, 4, 4), (1, 2, 4, 4), (2, 3, 4, 4), (3, 0, 4, 4)],
}
_SHELLS = {"quad": (0, 1, 2, 3), "triangle": (0, 1, 2, 2)}


def drawn_faces(mesh: Mesh) -> np.ndarray:
    """Return (f, 4) the corners of faces that belong to one solid alone, and of all shells.

    Not collective. The last corner of a triangle is told twice.
    """
    inner, flat = [np.empty((0, 4), np.int64)], [np.empty((0, 4), np.int64)]
    for kind, nodes in mesh.cells:
        name = kind.rstrip("0123456789")
        if name in _SOLIDS:
            inner += [nodes[:, list(corners)] for corners in _SOLIDS[name]]
        elif name in _SHELLS:
            flat.append(nodes[:, list(_SHELLS[name])])
        elif name == "polygon":
            fan = [nodes[:, [0, last - 1, last, last]] for last in range(2, nodes.shape[1])]
            flat += fan
    faces = np.concatenate(inner)
    # A triangle ends with one corner twice: sorted alike from both sides.
    alike = np.sort(faces, axis=1)
    triangles = faces[:, 2] == faces[:, 3]
    alike[triangles] = np.pad(np.sort(faces[triangles, :3], axis=1), ((0, 0), (0, 1)), constant_values=-1)
    _, first, count = np.unique(alike, axis=0, return_index=True, return_counts=True)
    return np.concatenate([faces[np.sort(first[count == 1])], *flat])


def drawn_lines(mesh: Mesh) -> np.ndarray:
    """Return (e, 2) the ends of bars and beams. Not collective."""
    lines = [np.empty((0, 2), np.int64)]
    for kind, nodes in mesh.cells:
        if kind == "line":
            lines.append(nodes)
        elif kind == "line3":  # two halves
            lines += [nodes[:, [0, 2]], nodes[:, [2, 1]]]
    return np.concatenate(lines)
