"""The same solves on several BLAS libraries, in turns, each run in a process of its own.

    python benchmarks/blas_libraries.py DIR[:DIR] ... [--cells 18 22] [--dense 1500] [--rounds 3] [--ranks 1]

Each DIR (or DIR:DIR, one for BLAS and one for LAPACK) is put on LD_LIBRARY_PATH; the first line is without any.
Ratios are to the first line, of runs side by side. Processor seconds of rank 0:

factor
    LDLᵀ of a clamped cube of trilinear bricks, three dofs a node, by MUMPS.
eigs
    Its 20 lowest eigenpairs, certified, with the consistent mass.
dense
    All eigenpairs of a dense matrix by PETSc's LAPACK.
digits
    Digits in which its eigenvalues agree with those of the first line.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).parents[1] / "tests")]
from support.elastic_block import brick


def run(cells, dense):
    """Print the figures of one process as a line of JSON."""
    from mpi4py import MPI

    import sparsehess as sh
    from sparsehess.eigen.problem.problem import EigenProblem
    from sparsehess.runtime import PETSc, blas, communicator

    comm = communicator(MPI.COMM_WORLD)
    figures = {"blas": blas.loaded_blas()}

    def timed(name, work):
        comm.barrier()
        began = time.process_time()
        result = work()
        figures[name] = time.process_time() - began
        return result

    K, M, _ = brick((4,) * 3)
    with sh.eigs(K, 4, mass=M, comm=comm):
        pass  # everything is loaded
    for side in cells:
        K, M, _ = brick((side,) * 3)
        figures["n"] = [*figures.get("n", []), K.shape[0]]
        with EigenProblem.of(K, comm=comm) as problem:
            ksp = PETSc.KSP().create(comm)
            ksp.setOperators(problem.A)
            ksp.setType("preonly")
            ksp.getPC().setType("cholesky")
            ksp.getPC().setFactorSolverType("mumps")
            timed(f"factor {K.shape[0]:,}", ksp.setUp)
            ksp.destroy()
        with timed(f"eigs {K.shape[0]:,}", lambda: sh.eigs(K, 20, mass=M, comm=comm)) as spectrum:  # noqa: B023
            assert spectrum.count.certified
            figures.setdefault("values", []).extend(map(float, spectrum.eigenvalues))
    A = np.random.default_rng(0).normal(size=(dense, dense))
    with timed(f"dense {dense:,}", lambda: sh.eigs(A + A.T, 20, method="dense", comm=comm)) as spectrum:
        figures["values"].extend(map(float, spectrum.eigenvalues))
    if comm.rank == 0:
        print(json.dumps(figures))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("places", nargs="*", metavar="DIR", help="folders of libblas.so.3 and liblapack.so.3")
    parser.add_argument("--cells", type=int, nargs="+", default=[18, 22], help="along an edge of the cube")
    parser.add_argument("--dense", type=int, default=1500, help="rows of the dense matrix")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.alone:
        return run(given.cells, given.dense)
    done = {place: [] for place in ["", *given.places]}
    command = [sys.executable, __file__, "--alone", "--dense", str(given.dense), "--cells", *map(str, given.cells)]
    if given.ranks > 1:
        command = ["mpiexec", "-n", str(given.ranks), *command]
    with tempfile.TemporaryFile("w+") as errors:
        for _ in range(given.rounds):
            for place, runs in done.items():
                path = ":".join(filter(None, [place, os.environ.get("LD_LIBRARY_PATH")]))
                ended = subprocess.run(
                    command,
                    check=False,
                    env={**os.environ, "LD_LIBRARY_PATH": path},
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                )
                if ended.returncode:
                    errors.seek(0)
                    sys.exit(f"{place}: status {ended.returncode}: {errors.read()}")
                runs.append(json.loads(ended.stdout.splitlines()[-1]))
    first = done[""]
    names = [name for name in first[0] if name.split()[0] in ("factor", "eigs", "dense")]
    print(f"{'':40s}" + "".join(f"{name:>24s}" for name in names) + f"{'digits':>8s}")
    for runs in done.values():
        facts = runs[0]["blas"]
        line = f"{facts['name']} {facts['version'] or ''} {facts['kernels'] or ''}"
        cells = []
        for name in names:
            ratios = [run[name] / beside[name] for run, beside in zip(runs, first, strict=True)]
            cells.append(
                f"{statistics.median(run[name] for run in runs):8.2f} s, {statistics.median(ratios):5.2f} times"
            )
        here, there = np.array(runs[0]["values"]), np.array(first[0]["values"])
        digits = -np.log10(max(1e-16, np.abs(here - there).max() / np.abs(there).max()))
        print(f"{line:40s}" + "".join(f"{cell:>24s}" for cell in cells) + f"{digits:8.1f}", flush=True)
        print(f"    {facts['library']}, LAPACK {facts['lapack']}")


if __name__ == "__main__":
    main()
