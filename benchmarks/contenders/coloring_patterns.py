"""Patterns that colourings are measured on: grids, elastic networks, random graphs, arrows and real matrices.

`PATTERNS` maps a name to a function that returns the pattern as a CSR matrix of int8 ones: symmetric,
diagonal included, columns sorted. The real ones are read from ../shared/data/patterns and left out if absent.

    g2d5 g2d9 g3d7 g3d27   5-, 9-, 7- and 27-point grids in natural order
    enmnode12 enmnode30    uniform points in the unit cube, mean degree 12 or 30 (away from the faces)
    enm12                  the same with 3×3 blocks
    atoms5 atoms6          atoms of a protein (drivers/structures) closer than 5 or 6 Å
    enmatoms5 enmatoms6    the same with 3×3 blocks
    atoms64_5e4            15 of the proteins side by side, closer than 6.4 Å: 49,335 atoms, 1.2 million pairs
    rand8                  4 n random pairs
    arrow                  pentadiagonal, the last 3 rows dense
"""

import sys
from functools import partial
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from scipy.spatial import cKDTree

ROOT = Path(__file__).parents[2]
STORED = ROOT.parent / "shared" / "data" / "patterns"
BLOCK = 3  # variables of a node of an elastic network


def ones(matrix):
    """Return the pattern of a symmetric matrix and the diagonal."""
    matrix = (matrix + sp.identity(matrix.shape[0])).tocsr()
    matrix.sort_indices()
    return sp.csr_matrix((np.ones(matrix.nnz, np.int8), matrix.indices, matrix.indptr), matrix.shape)


def from_pairs(first, second, n):
    half = sp.coo_matrix((np.ones(len(first)), (first, second)), (n, n)).tocsr()
    return ones(half + half.T)


def band(n, width):
    return sp.diags([1.0] * (2 * width + 1), range(-width, width + 1), shape=(n, n))


def star_grid(side, dimensions):
    """Return the 5-point (2 dimensions) or 7-point (3) grid."""
    line = grid = band(side, 1)
    for _ in range(dimensions - 1):
        grid = sp.kronsum(line, grid)
    return ones(grid)


def box_grid(side, dimensions):
    """Return the 9-point (2 dimensions) or 27-point (3) grid."""
    line = grid = band(side, 1)
    for _ in range(dimensions - 1):
        grid = sp.kron(grid, line)
    return ones(grid)


def cloud(nodes, degree):
    points = np.random.default_rng(0).random((nodes, 3))
    radius = (degree / (nodes * 4 / 3 * np.pi)) ** (1 / 3)
    return from_pairs(*cKDTree(points).query_pairs(radius, output_type="ndarray").T, nodes)


def blocks(nodes):
    return ones(sp.kron(nodes, np.ones((BLOCK, BLOCK))))


def atoms(cutoff, copies=(1, 1, 1)):
    sys.path[:0] = [str(ROOT / "drivers")]
    from elastic_network import ENOLASE, read_structure

    _, points = read_structure(ENOLASE)
    cells = np.stack(np.meshgrid(*map(np.arange, copies), indexing="ij"), -1).reshape(-1, 1, 3)
    points = (points + cells * np.ptp(points, axis=0)).reshape(-1, 3)
    return from_pairs(*cKDTree(points).query_pairs(cutoff, output_type="ndarray").T, len(points))


def random_pairs(n):
    return from_pairs(*np.random.default_rng(0).integers(0, n, (2, 4 * n)), n)


def arrow(n, dense=3):
    rows = np.repeat(np.arange(n - dense, n), n)
    head = sp.coo_matrix((np.ones(dense * n), (rows, np.tile(np.arange(n), dense))), (n, n)).tocsr()
    return ones(band(n, 2) + head + head.T)


def stored(path):
    return ones(sp.load_npz(path))


PATTERNS = {
    **{
        f"{name}_{size}": partial(make, side, dimensions)
        for dimensions, sides in ((2, (100, 316, 1000)), (3, (22, 46, 100)))
        for name, make in (
            (f"g{dimensions}d{2 * dimensions + 1}", star_grid),
            (f"g{dimensions}d{3**dimensions}", box_grid),
        )
        for size, side in zip(("1e4", "1e5", "1e6"), sides, strict=True)
    },
    **{
        f"enmnode12_{size}": partial(cloud, nodes, 12)
        for size, nodes in (("3e3", 3333), ("3e4", 33333), ("3e5", 333333))
    },
    **{f"enmnode30_{size}": partial(cloud, nodes, 30) for size, nodes in (("3e3", 3333), ("3e4", 33333))},
    **{
        f"enm12_{size}": lambda nodes=nodes: blocks(cloud(nodes, 12))
        for size, nodes in (("1e4", 3333), ("1e5", 33333), ("1e6", 333333))
    },
    **{f"rand8_1e{k}": partial(random_pairs, 10**k) for k in (4, 5, 6)},
    **{f"arrow_1e{k}": partial(arrow, 10**k) for k in (4, 5)},
    "atoms5": partial(atoms, 5.0),
    "atoms6": partial(atoms, 6.0),
    "enmatoms5": lambda: blocks(atoms(5.0)),
    "enmatoms6": lambda: blocks(atoms(6.0)),
    "atoms64_5e4": partial(atoms, 6.4, (3, 5, 1)),
    **{path.stem: partial(stored, path) for path in sorted(STORED.glob("*.npz"))},
}
