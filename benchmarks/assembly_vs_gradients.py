"""What assembling costs besides the user's gradients, what ranks gain, and what probing a pattern takes.

    python benchmarks/assembly_vs_gradients.py

1. n = 10⁵, some 50 colours, a gradient of 20 ms: seconds of everything but the gradients, for the first Hessian
   and for an update, as parts of the seconds in gradients.
2. The same with a gradient of 5 ms on 1 and 2 ranks: how many times faster two are.
3. Gradients that probing takes, beside n, for the functions of the tests.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import scipy.sparse as sp

N, WIDTH = 100_000, 24


def band_problem(comm, seconds):
    """Return the objective of a band of 2 x 24 + 1 colours whose gradient takes so many seconds, and its clock."""
    import sparsehess as sh

    matrix = sp.diags(
        [1.0 / (1 + abs(k)) for k in range(-WIDTH, WIDTH + 1)], range(-WIDTH, WIDTH + 1), (N, N)
    ).tocsr()
    spent = [0.0]

    def gradient(x):
        began = time.perf_counter()
        g = matrix @ x + np.sin(x)
        while time.perf_counter() - began < seconds:
            pass
        spent[0] += time.perf_counter() - began
        return g

    pattern = sh.Pattern.from_scipy(matrix, comm=comm)
    x = np.random.default_rng(0).normal(size=N)
    return sh.Objective(x=x, gradient=gradient, pattern=pattern, comm=comm), spent


def worker(seconds):
    from mpi4py import MPI

    import sparsehess as sh

    comm, facts = MPI.COMM_WORLD, {}
    problem, spent = band_problem(comm, seconds)
    comm.Barrier()
    began = time.perf_counter()
    hessian = sh.assemble(problem)
    facts["first"], facts["first gradients"] = time.perf_counter() - began, spent[0]
    comm.Barrier()
    spent[0], began = 0.0, time.perf_counter()
    hessian.update(np.array(problem.x) + 0.1)
    facts["update"], facts["update gradients"] = time.perf_counter() - began, spent[0]
    facts["colors"] = hessian.coloring.count
    hessian.close()
    if comm.rank == 0:
        print(json.dumps(facts))


def run(ranks, seconds):
    command = [sys.executable, __file__, str(seconds)]
    if ranks > 1:
        command = ["mpiexec", "-n", str(ranks), *command]
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    return json.loads(done.stdout)


def probing():
    import sparsehess as sh

    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from support.smooth_functions import FUNCTIONS

    for name, make in FUNCTIONS.items():
        function = make(2000)
        calls = {}
        problem = sh.Objective(x=function.x, gradient=function.gradient)
        found = sh.detect_pattern(problem, counts=calls)
        exact = (found.to_scipy() != function.pattern).nnz == 0
        degree = int(np.diff(function.pattern.indptr).max())
        print(
            f"{name:24s} n {len(function.x):6d}  longest row {degree:5d}  {calls['gradient']:6d} gradients  "
            f"{'exact' if exact else 'NOT EXACT'}",
            flush=True,
        )


def main():
    if len(sys.argv) > 1:
        worker(float(sys.argv[1]))
        return
    found = run(1, 0.02)
    for what in ("first", "update"):
        rest = found[what] - found[f"{what} gradients"]
        print(
            f"{what:7s} {found['colors']} colours, gradients {found[f'{what} gradients']:.3f} s, "
            f"all else {rest:.3f} s: {100 * rest / found[f'{what} gradients']:.1f} %"
        )
    one, two = run(1, 0.005), run(2, 0.005)
    print(f"update with a gradient of 5 ms: 2 ranks {one['update'] / two['update']:.2f} times faster than 1")
    probing()


if __name__ == "__main__":
    main()
