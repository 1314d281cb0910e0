"""The same solve through sparsehess and by hand in slepc4py, paired in one run.

Lowest 10 of Laplacians in space and in a plane: same shift, same factorization, same tolerance.
Ours is timed as a whole (set-up, factorization, solve, vectors, Rayleigh-Ritz, residuals) without and with
the count. Prints ratios of medians of alternating runs.

    python benchmarks/overhead_vs_slepc4py.py [--sides 10 20 30 40] [--plane 300]
"""

import argparse
import statistics
import sys
import time
from functools import partial
from pathlib import Path

from mpi4py import MPI

import numpy as np
import scipy.sparse as sp

sys.path[:0] = [str(Path(__file__).parents[1] / "tests")]
from contenders.eigenpairs import by_hand

import sparsehess as sh
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.runtime import communicator
from support.cases import laplacian


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sides", type=int, nargs="+", default=[10, 20, 30, 40], help="of Laplacians in space")
    parser.add_argument("--plane", type=int, default=300, help="side of the Laplacian in a plane")
    given = parser.parse_args()
    comm = communicator(MPI.COMM_WORLD)
    k, side = 10, given.plane
    problems = {f"laplacian {m}^3": laplacian(m, m + 1, m + 2)[0] for m in given.sides}
    problems[f"laplacian {side}x{side + 1}"] = laplacian(side, side + 1)[0]
    if comm.rank == 0:
        print(
            f"{'problem':18s} {'n':>7s} {'by hand s':>10s} {'ours s':>10s} {'ratio':>7s} {'with count':>10s}",
            flush=True,
        )
    for name, matrix in problems.items():
        with EigenProblem.of(sp.csr_matrix(matrix), comm=comm) as problem:
            shift = -max(1e-10 * problem.typical, 2e-13 * problem.scale)
            times = [[], [], []]
            repeats = 15 if problem.n < 20000 else 7
            runs = (
                partial(by_hand, problem.A, k, shift),
                partial(sh.eigs, problem.A, k, count="no"),
                partial(sh.eigs, problem.A, k),
            )
            for _ in range(repeats):
                values = []
                for place, run in enumerate(runs):
                    comm.Barrier()
                    began = time.perf_counter()
                    result = run()
                    comm.Barrier()
                    times[place].append(time.perf_counter() - began)
                    values.append(np.sort(result[0]) if place == 0 else result.eigenvalues)
                    if place:
                        result.close()
                assert np.abs(values[1] - values[2]).max() < 1e-9 * problem.scale
            hand, ours, counted = (statistics.median(t) for t in times)
            if comm.rank == 0:
                print(
                    f"{name:18s} {problem.n:7d} {hand:10.4f} {ours:10.4f} "
                    f"{ours / hand:7.3f} {counted / hand:10.3f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
