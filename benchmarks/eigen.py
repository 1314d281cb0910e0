"""Eigenpairs through sparsehess and through its peers, in turns, on the same matrices.

Lowest 20 of 3-D elasticity and of an elastic network, and all of an interval with about 100: ours (with
its count), slepc4py by hand, SciPy's eigsh with shift-and-invert. Medians of the rounds; a ratio is the
peer's seconds over ours. On several ranks ours and slepc4py alone; `feast` with one group and with two.

    python benchmarks/eigen.py [cells ...]            # default 14 24: n = 9,450 and 45,000
    mpiexec -n 2 python benchmarks/eigen.py 14
"""

import statistics
import sys
import time
from functools import partial
from pathlib import Path

from mpi4py import MPI

import numpy as np
import scipy.sparse.linalg as sla

sys.path[:0] = [str(Path(__file__).parents[1] / folder) for folder in ("tests", "benchmarks")]
from cases import laplacian
from lobpcg import brick

import sparsehess as sh
from sparsehess.runtime import SLEPc, communicator
from sparsehess.solvers.problem import EigenProblem

LOWEST, ROUNDS = 20, 3


def by_hand(problem, shift, k):
    """Return the k nearest to a shift as a careful user of slepc4py computes them."""
    eps = SLEPc.EPS().create(problem.A.comm)
    eps.setOperators(problem.A, problem.M)
    kind = SLEPc.EPS.ProblemType
    eps.setProblemType(kind.HEP if problem.M is None else kind.GHEP)
    eps.setDimensions(k)
    eps.setTolerances(tol=1e-10)
    eps.setTarget(shift)
    eps.setWhichEigenpairs(SLEPc.EPS.Which.TARGET_MAGNITUDE)
    st = eps.getST()
    st.setType("sinvert")
    st.setShift(shift)
    st.getKSP().setType("preonly")
    st.getKSP().getPC().setType("cholesky")
    st.getKSP().getPC().setFactorSolverType("mumps")
    eps.solve()
    x = problem.A.createVecRight()
    values = [complex(eps.getEigenpair(i, x)).real for i in range(min(k, eps.getConverged()))]
    x.destroy()
    eps.destroy()
    return np.sort(values)


def by_scipy(K, M, shift, k):
    """Return the k nearest to a shift by ARPACK and SuperLU."""
    return np.sort(sla.eigsh(K.tocsc(), k, None if M is None else M.tocsc(), sigma=shift)[0])


def ours(problem, **asked):
    """Return our eigenvalues, counted."""
    with sh.eigs(problem.A, mass=problem.M, **asked) as spectrum:
        assert spectrum.count is None or spectrum.count.certified
        return spectrum.eigenvalues


def compare(title, n, runs, comm):
    """Print medians and ratios of runs in turns; the first is ours."""
    times = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            comm.Barrier()
            began = time.perf_counter()
            values = run()
            times[name].append(time.perf_counter() - began)
            if name == next(iter(runs)):
                first = values
            off = np.abs(values - first).max() / np.abs(first).max() if len(values) == len(first) else np.inf
            if comm.rank == 0 and off > 1e-8:
                print(f"  {name} found {len(values)} instead of {len(first)}, off by {off:.1e}")
    best = statistics.median(times[next(iter(runs))])
    if comm.rank == 0:
        for name, spent in times.items():
            median = statistics.median(spent)
            print(f"{title:28s} n {n:7d}  {name:24s} {median:8.2f} s  ratio {median / best:5.2f}", flush=True)


def main():
    comm = communicator(MPI.COMM_WORLD)
    for cells in [int(word) for word in sys.argv[1:]] or [14, 24]:
        K, M, _ = brick((cells,) * 3)
        with EigenProblem.of(K, mass=M, comm=comm) as problem:
            shift = -1e-10 * problem.typical
            runs = {
                "ours, counted": partial(ours, problem, k=LOWEST),
                "ours, not counted": partial(ours, problem, k=LOWEST, count="no"),
                "slepc4py by hand": partial(by_hand, problem, shift, LOWEST),
            }
            if comm.size == 1:
                runs["scipy eigsh"] = partial(by_scipy, K, M, shift, LOWEST)
            compare("elasticity, lowest 20", problem.n, runs, comm)
    for sides in ((20, 21, 22), (30, 31, 32)):
        K, exact = laplacian(*sides)
        with EigenProblem.of(K, comm=comm) as problem:
            low, high = 0.5 * (exact[99] + exact[100]), 0.5 * (exact[199] + exact[200])
            interval = (low, high)
            runs = {
                "ours, slicing": partial(ours, problem, interval=interval),
                "slepc4py by hand, k known": partial(by_hand, problem, 0.5 * (low + high), 100),
                "ours, feast, one group": partial(ours, problem, interval=interval, method="feast", groups=1),
            }
            if comm.size > 1:
                runs["ours, feast, two groups"] = partial(
                    ours, problem, interval=interval, method="feast", groups=2
                )
            else:
                runs["scipy eigsh, k known"] = partial(by_scipy, K, None, 0.5 * (low + high), 100)
            compare("laplacian, 100 inside", problem.n, runs, comm)


if __name__ == "__main__":
    main()
