"""Meshes of all kinds of cells, whose middle nodes are in the middle, and matrices for their dofs."""

import numpy as np
import scipy.sparse as sp

from sparsehess.storage.meshes import Mesh

CUBE = [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1]]
RING = [(0, 1), (1, 2), (2, 3), (3, 0)]
PRISM = [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 1], [0, 1, 1]]

# Corners, and the edges whose middles are nodes, in meshio's order.
SHAPES = {
    "hexahedron20": (CUBE, [*RING, (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7)]),
    "wedge15": (PRISM, [(0, 1), (1, 2), (2, 0), (3, 4), (4, 5), (5, 3), (0, 3), (1, 4), (2, 5)]),
    "tetra10": (PRISM[:4], [(0, 1), (1, 2), (2, 0), (0, 3), (1, 3), (2, 3)]),
    "quad8": (CUBE[:4], RING),
    "triangle6": (PRISM[:3], [(0, 1), (1, 2), (2, 0)]),
    "line3": (PRISM[:2], [(0, 1)]),
    "hexahedron": (CUBE, []),
    "wedge": (PRISM, []),
    "tetra": (PRISM[:4], []),
    "pyramid": ([*CUBE[:4], [0.5, 0.5, 1]], []),
    "quad": (CUBE[:4], []),
    "triangle": (PRISM[:3], []),
    "line": (PRISM[:2], []),
}


def all_cells():
    """Return a mesh with a cell of each kind, side by side, its nodes numbered in a mixed order."""
    points, cells = [], []
    for number, (kind, (corners, edges)) in enumerate(SHAPES.items()):
        here = np.array(corners, float)
        here = np.vstack([here, *[here[list(edge)].mean(axis=0)[None] for edge in edges]])
        cells.append((kind, len(points) + np.arange(len(here))[None]))
        points.extend(here + np.array([2.0 * number, 0, 0]))
    order = np.random.default_rng(3).permutation(len(points))
    where = np.argsort(order)  # the new number of each node
    return Mesh(np.array(points)[order], 3, tuple((kind, where[nodes]) for kind, nodes in cells))


def plain():
    """Return four quadrilaterals in a row."""
    points = np.array([[x, y, 0.0] for y in (0.0, 1.0) for x in range(5)])
    return Mesh(points, 3, (("quad", np.array([[i, i + 1, i + 6, i + 5] for i in range(4)])),))


def chain(n):
    """Return a stiffness and a mass of n rows whose eigenvalues are apart."""
    K = sp.diags([-np.ones(n - 1), np.linspace(2, 5, n), -np.ones(n - 1)], [-1, 0, 1]).tocsr()
    return K, sp.diags([np.linspace(1, 2, n)], [0]).tocsr()


def whole_modes(vectors, many, fixed):
    """Return (k, many) vectors with zeros for fixed dofs, dof by dof."""
    rows = [number for number in range(many) if number not in set(fixed)]
    out = np.zeros((vectors.shape[1], many))
    for row, number in enumerate(rows):
        out[:, number] = vectors[row]
    return out


def aligned(found, exact):
    """Return found vectors with the signs of the exact ones."""
    signs = [np.sign(np.vdot(one, other)) for one, other in zip(found, exact, strict=True)]
    return np.array(signs).reshape(-1, *[1] * (found.ndim - 1)) * found
