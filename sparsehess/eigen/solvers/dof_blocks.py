"""How many variables stand at each point, told from the pattern of a matrix."""

from __future__ import annotations

from sparsehess.coloring.graph_kernels import in_full_blocks
from sparsehess.runtime import PETSc

# Numbers that are tried, the most usual first.
_SIZES = (3, 2)


def dof_block_size(matrix: PETSc.Mat) -> int:
    """Return a number b such that the pattern is that of full blocks of b rows and columns, 1 where there is none.

    Collective. Each rank must hold whole blocks, as PETSc wants it.
    """
    comm = matrix.comm.tompi4py()
    first, last = matrix.getOwnershipRange()
    indptr, indices, _ = matrix.getValuesCSR()
    for size in _SIZES:
        mine = (last - first) % size == 0 and first % size == 0 and in_full_blocks(indptr, indices, size)
        if comm.allreduce(int(mine)) == comm.size:
            return size
    return 1
