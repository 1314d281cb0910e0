"""Ten lowest modes of a clamped elastic block without factorization, against shift-and-invert and SciPy.

Trilinear bricks, consistent mass; each contender in a process of its own, on one rank; the same near-null
space, and SciPy's LOBPCG gets our multigrid. Residuals are those of `sparsehess.eigen.problem.slepc_blocks`.
Peak memory is from when the matrices stand, the matrices themselves among it.

    python benchmarks/lobpcg_vs_factorization.py 14 32            # cells along an edge: n = 9,450 and 104,544
    python benchmarks/lobpcg_vs_factorization.py 14 --only lobpcg scipy-lobpcg
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).parents[1] / "tests")]
from contenders.process_memory import forget_peak, memory

from support.elastic_block import brick

MODES, TOL = 10, 1e-8


def by_ours(problem, modes, method="lobpcg"):
    from sparsehess.eigen.solvers.davidson import Davidson
    from sparsehess.eigen.solvers.lobpcg import Lobpcg

    problem.near_null = modes
    solver = (Lobpcg if method == "lobpcg" else Davidson)(problem, method, {}, tol=TOL)
    vectors = solver.solve("smallest", MODES)
    solver.close()
    return vectors, solver.iterations


def by_inversion(problem, modes):
    from sparsehess.eigen.solvers.krylov_schur import KrylovSchur

    solver = KrylovSchur(problem, True, {}, tol=1e-2 * TOL)
    solver.shift_to(-1e-10 * problem.typical)
    vectors = solver.solve("nearest", MODES)
    solver.close()
    return vectors, solver.iterations


def by_scipy_lobpcg(problem, modes, K, M):
    """SciPy's, with as wide a block and with our multigrid; to the residual that ours reaches."""
    import scipy.sparse.linalg as sla

    from sparsehess.eigen.solvers.preconditioners import Multigrid

    problem.near_null = modes
    multigrid = Multigrid(problem, {})
    cycle = multigrid.on_panels({})

    def apply(R):
        return cycle(np.ascontiguousarray(R.T)).T.copy()

    inverse = sla.LinearOperator(K.shape, matvec=lambda r: apply(r[:, None])[:, 0], matmat=apply, dtype=float)
    start = np.random.default_rng(0).normal(size=(K.shape[0], MODES + 3))
    within = 1e-5 * np.sqrt(problem.masses[0])  # as ours for an eigenvalue of 1: the lowest is 0.45
    _, vectors, history = sla.lobpcg(
        K, start, M, inverse, tol=within, maxiter=200, largest=False, retResidualNormsHistory=True
    )
    multigrid.close()
    return of_columns(problem, vectors[:, :MODES]), len(history)


def by_scipy_eigsh(problem, modes, K, M):
    import scipy.sparse.linalg as sla

    _, vectors = sla.eigsh(K, MODES, M, sigma=-1e-10 * problem.typical)
    return of_columns(problem, vectors), 0


def of_columns(problem, array):
    vectors = []
    for column in array.T:
        vector = problem.A.createVecRight()
        vector.setArray(column)
        vectors.append(vector)
    return vectors


CONTENDERS = {
    "lobpcg": by_ours,
    "gd": lambda problem, modes: by_ours(problem, modes, "gd"),
    "jd": lambda problem, modes: by_ours(problem, modes, "jd"),
    "shift-invert": by_inversion,
    "scipy-lobpcg": by_scipy_lobpcg,
    "scipy-eigsh": by_scipy_eigsh,
}


def contend(name, cells):
    """Print what one contender does with one block, as JSON."""
    from sparsehess import rigid_body_modes
    from sparsehess.eigen.problem.problem import EigenProblem
    from sparsehess.eigen.problem.rayleigh_ritz import rayleigh_ritz

    K, M, x = brick((cells,) * 3)
    with EigenProblem.of(K, mass=M) as problem:
        modes = of_columns(problem, rigid_body_modes(x)[0].T)
        kept = (K.tocsr(), M.tocsr()) if name.startswith("scipy") else ()
        del K, M
        problem.norms, problem.scale, problem.typical  # noqa: B018  facts that the product computes once
        forget_peak()
        began, cpu = time.perf_counter(), time.process_time()
        vectors, iterations = CONTENDERS[name](problem, modes, *kept)
        seconds, cpu, peak = time.perf_counter() - began, time.process_time() - cpu, memory() / 2**20
        estimate = problem.factor_cost.total / 1e6
        values, vectors, errors, _, _ = rayleigh_ritz(problem, vectors)
        result = {
            "n": problem.n,
            "seconds": seconds,
            "cpu": cpu,
            "iterations": iterations,
            "peak": peak,
            "factor": estimate,
            "residual": float(errors.max()),
            "values": list(values[:MODES]),
        }
    print(json.dumps(result))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cells", type=int, nargs="*", default=[14, 32])
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=[c for c in CONTENDERS if c != "gd"])
    parser.add_argument("--contend", choices=CONTENDERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contend:
        contend(arguments.contend, *arguments.cells)
        return
    print(
        f"{'contender':14s} {'n':>8s} {'seconds':>8s} {'cpu s':>8s} {'iterations':>10s} {'peak MB':>8s}", end=" "
    )
    failed = []
    print(f"{'residual':>9s} {'/ lobpcg':>8s}  (MUMPS's estimate of the factor)", flush=True)
    for cells in arguments.cells:
        first = None
        for name in arguments.only:
            command = [sys.executable, __file__, str(cells), "--contend", name]
            done = subprocess.run(command, check=False, capture_output=True, text=True)
            if done.returncode:
                print(f"{name:14s} failed: {(done.stderr.strip().splitlines() or ['killed'])[-1]}", flush=True)
                failed.append(name)
                continue
            r = json.loads(done.stdout.splitlines()[-1])
            first = first or r
            agree = np.allclose(r["values"], first["values"], rtol=1e-6)
            print(
                f"{name:14s} {r['n']:8d} {r['seconds']:8.1f} {r['cpu']:8.1f} {r['iterations']:10d} "
                f"{r['peak']:8.0f} {r['residual']:9.1e} {r['cpu'] / first['cpu']:8.2f}  ({r['factor']:.0f} MB)"
                + ("" if agree else "  OTHER EIGENVALUES"),
                flush=True,
            )
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
