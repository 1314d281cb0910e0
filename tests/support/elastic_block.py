"""A block of trilinear elastic bricks: stiffness, consistent mass, coordinates."""

import numpy as np
import scipy.sparse as sp


def element(h, young=1.0, poisson=0.3, density=1.0):
    """Return stiffness and mass (24, 24) of a trilinear brick with edges h, two Gauss points each way."""
    corner = np.array([[i, j, k] for i in (-1, 1) for j in (-1, 1) for k in (-1, 1)])
    lame, shear = young * poisson / ((1 + poisson) * (1 - 2 * poisson)), young / (2 * (1 + poisson))
    law = np.diag([2 * shear] * 3 + [shear] * 3)
    law[:3, :3] += lame
    K, M, volume = np.zeros((24, 24)), np.zeros((8, 8)), np.prod(h) / 8
    for point in corner / np.sqrt(3):
        factors = (1 + corner * point) / 2
        shape = factors.prod(axis=1)
        slope = np.stack([corner[:, d] / h[d] * np.delete(factors, d, 1).prod(axis=1) for d in range(3)])
        strain = np.zeros((6, 24))
        for d in range(3):
            strain[d, d::3] = slope[d]
        for row, (a, b) in enumerate(((0, 1), (1, 2), (0, 2)), 3):
            strain[row, a::3], strain[row, b::3] = slope[b], slope[a]
        K += strain.T @ law @ strain * volume
        M += density * np.outer(shape, shape) * volume
    return K, np.kron(M, np.eye(3))


def brick(cells, size=(1.0, 1.0, 1.0), clamped=True):
    """Return K, M of the free dofs, node by node, and the coordinates of their nodes.

    Parameters
    ----------
    cells
        Bricks along x, y and z.
    size
        Edges of the block.
    clamped
        Whether the nodes at x = 0 are fixed, that is left out.
    """
    h = np.array(size) / cells
    number = np.arange(np.prod(np.array(cells) + 1)).reshape(np.array(cells) + 1)
    nx, ny, nz = cells
    corners = [number[i : nx + i, j : ny + j, k : nz + k].ravel() for i in (0, 1) for j in (0, 1) for k in (0, 1)]
    dofs = (3 * np.stack(corners, axis=1)[:, :, None] + np.arange(3)).reshape(-1, 24)
    place = np.repeat(dofs, 24, axis=1).ravel(), np.tile(dofs, (1, 24)).ravel()
    n, first = 3 * number.size, 3 * (ny + 1) * (nz + 1) if clamped else 0
    K, M = (
        sp.csr_matrix((np.tile(values.ravel(), len(dofs)), place), (n, n))[first:, first:] for values in element(h)
    )
    grids = np.meshgrid(*(np.arange(c + 1) * step for c, step in zip(cells, h, strict=True)), indexing="ij")
    return K, M, np.stack(grids, axis=-1).reshape(-1, 3)[first // 3 :]
