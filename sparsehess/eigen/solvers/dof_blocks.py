"""How many variables stand at each point, told from the pattern of a matrix."""

from __future__ import annotations

import numpy as np

from sparsehess.runtime import PETSc

# Numbers that are tried, the most usual first.
_SIZES = (3, 2, 6)


def dof_block_size(matrix: PETSc.Mat) -> int:
    """Return a number b such that the pattern is that of blocks of b rows and columns, 1 where there is none.

    Collective. Each rank must hold whole blocks.
    """
    comm = matrix.comm.tompi4py()
    first, last = matrix.getOwnershipRange()
    indptr, indices, _ = matrix.getValuesCSR()
    for size in _SIZES:
        mine = (last - first) % size == 0 and first % size == 0 and _has_blocks(indptr, indices, size)
        if comm.allreduce(int(mine)) == comm.size:
            return size
    return 1


def _has_blocks(indptr: np.ndarray, indices: np.ndarray, size: int) -> bool:
    """Return whether rows, so many at a time, have the same columns, and these come so many at a time."""
    lengths = np.diff(indptr).reshape(-1, size)
    if (lengths != lengths[:, :1]).any() or (lengths % size).any():
        return False
    place = np.arange(len(indices), dtype=indptr.dtype)
    own = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    inner = own % size != size - 1  # all but the last row of a block, to be compared with the next row
    after = place[inner] + np.diff(indptr)[own[inner]]
    if (indices[after] != indices[inner]).any():
        return False
    # All rows begin at multiples of the size, as their lengths are.
    return bool(
        (indices == indices[place - place % size] + place % size).all() and not (indices[::size] % size).any()
    )
