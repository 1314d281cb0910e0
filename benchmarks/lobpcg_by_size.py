"""Lowest modes of a clamped elastic cube too large to be factorized, by LOBPCG with multigrid, on all ranks.

    mpiexec -n 2 python benchmarks/lobpcg_by_size.py [32 69] [--factor]

So many cells along an edge are 104,544 and 1,014,300 variables: trilinear bricks, consistent mass, rigid-body
modes for the multigrid. Every rank makes its own rows. MB: peak memory of all ranks together, matrices among it;
for comparison, with `--factor`, what MUMPS's analysis says its factors would take (which takes memory itself,
and comes last). The last line is the growth of the iterations from the first size to the last.
"""

import argparse
import itertools
import sys
import time
from pathlib import Path

from mpi4py import MPI

import numpy as np

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tests")]
from contenders.process_memory import memory

from support.elastic_block import element

MODES, TOL = 10, 1e-8


def node_rows(cells, first, last):
    """Return (indptr, indices, stiffness, mass) of the rows of free nodes `first` to `last` - 1.

    Nodes are numbered along z, then y, then x; those at x = 0 are fixed and have no number.
    """
    K, M = (values.reshape(8, 3, 8, 3) for values in element(np.full(3, 1 / cells)))
    side = cells + 1
    node = np.arange(first, last) + side**2
    place = np.stack([node // side**2, node // side % side, node % side])
    offsets = list(itertools.product((-1, 0, 1), repeat=3))
    there = np.empty((len(node), 27), bool)
    blocks = np.zeros((2, len(node), 3, 27, 3))
    for number, offset in enumerate(offsets):
        beside = place + np.array(offset)[:, None]
        there[:, number] = ((beside >= 0) & (beside < side)).all(axis=0) & (beside[0] > 0)
        for mine in itertools.product((0, 1), repeat=3):  # which corner of a brick the node is
            other = np.add(mine, offset)
            if ((other < 0) | (other > 1)).any():
                continue
            brick = place - np.array(mine)[:, None]
            inside = ((brick >= 0) & (brick < cells)).all(axis=0)
            a, b = (np.dot(corner, (4, 2, 1)) for corner in (mine, other))
            for values, matrix in zip(blocks, (K, M), strict=True):
                values[inside, :, number, :] += matrix[a, :, b, :]
    columns = node[:, None] - side**2 + np.array(offsets) @ (side**2, side, 1)
    columns = (3 * columns[:, :, None] + np.arange(3)).reshape(len(node), 1, 81)
    kept = np.broadcast_to(np.repeat(there, 3, axis=1)[:, None], (len(node), 3, 81))
    indptr = np.concatenate([[0], np.cumsum(np.repeat(3 * there.sum(axis=1), 3))])
    stiff, mass = (values.reshape(len(node), 3, 81)[kept] for values in blocks)
    return indptr, np.broadcast_to(columns, kept.shape)[kept], stiff, mass


def rigid_modes(layout, cells):
    """Return (n_local, 6) translations and rotations of this rank's nodes."""
    side = cells + 1
    node = np.arange(layout.start // 3, layout.stop // 3) + side**2
    x = np.stack([node // side**2, node // side % side, node % side], axis=1) / cells - 0.5
    moves = [np.broadcast_to(axis, x.shape) for axis in np.eye(3)] + [np.cross(axis, x) for axis in np.eye(3)]
    return np.stack([move.ravel() for move in moves], axis=1)


def solve(cells, comm, factor):
    """Return facts of one cube. Collective."""
    import sparsehess as sh
    from sparsehess.runtime import aij, destroy
    from sparsehess.runtime.row_layout import Layout

    nodes = cells * (cells + 1) ** 2
    ends = np.arange(comm.size + 1) * nodes // comm.size
    layout = Layout.from_local(3 * int(ends[comm.rank + 1] - ends[comm.rank]), comm)
    indptr, indices, stiff, mass = node_rows(cells, ends[comm.rank], ends[comm.rank + 1])
    K, M = aij(layout, indptr, indices, stiff), aij(layout, indptr, indices, mass)
    del indptr, indices, stiff, mass
    near = []
    for column in rigid_modes(layout, cells).T:
        near.append(K.createVecRight())
        near[-1].setArray(column)
    began = time.perf_counter()
    with sh.eigs(K, MODES, mass=M, near_null=near, method="lobpcg", tol=TOL, count="no") as found:
        seconds = time.perf_counter() - began
        facts = {
            "n": layout.n,
            "seconds": seconds,
            "iterations": found.iterations,
            "peak": comm.allreduce(memory()) / 2**20,
            "residual": float(found.residuals.max()),
            "lowest": found.eigenvalues[:3],
        }
    if factor:
        with sh.EigenProblem.of(K, mass=M) as problem:
            facts["factor"] = problem.factor_cost.total / 1e6
    destroy(*near, M, K)
    return facts


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cells", type=int, nargs="*", default=[32, 69])
    parser.add_argument("--factor", action="store_true", help="ask MUMPS what its factors would take")
    arguments = parser.parse_args()
    comm = MPI.COMM_WORLD
    counts = []
    if comm.rank == 0:
        print(f"{'n':>9s} {'seconds':>8s} {'iterations':>10s} {'peak MB':>8s} {'residual':>9s}", flush=True)
    for cells in arguments.cells:
        facts = solve(cells, comm, arguments.factor)
        counts.append(facts["iterations"])
        if comm.rank == 0:
            print(
                f"{facts['n']:9d} {facts['seconds']:8.1f} {facts['iterations']:10d} {facts['peak']:8.0f} "
                f"{facts['residual']:9.1e}  lowest {facts['lowest']}"
                + (f"  (MUMPS's factors: {facts['factor']:.0f} MB)" if arguments.factor else ""),
                flush=True,
            )
    if comm.rank == 0:
        print(f"iterations grow by a factor of {counts[-1] / counts[0]:.2f}")


if __name__ == "__main__":
    main()
