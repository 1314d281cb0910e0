"""What `eigs` costs inside a host program beyond the solve itself, on small matrices, and where it goes.

Lowest k of grid Laplacians of n variables whose matrix the host has assembled, on the host's communicator. By hand
in slepc4py: the same shift, factorization, basis and tolerance, the vectors taken out, and, for the count, the
inertia past them. Both alternate. Times of whole calls vary by more than the overhead; so that of each call is
taken apart: `solve` is spent inside SLEPc's set-up, shifts, solve and destruction, which both need, `beside` all
the rest. The overhead is the difference of the latter, in the median and in the least. Then come its largest
parts, in the quickest call. All is measured under Python's profiler, whose own time counts as ours.

    python benchmarks/overhead_inside_hosts.py [--repeat 300] [-k 5] [--sides 40 25] [--quick]
    mpiexec -n 2 python benchmarks/overhead_inside_hosts.py
"""

import argparse
import cProfile
import pstats
import statistics
import sys
from pathlib import Path

from mpi4py import MPI

import numpy as np

sys.path[:0] = [str(Path(__file__).parents[1] / "tests"), str(Path(__file__).parents[1])]
import sparsehess as sh
from sparsehess.eigen.problem.problem import EigenProblem, slepc_tolerance
from sparsehess.eigen.problem.solve_spec import SolveSpec
from sparsehess.eigen.solvers.krylov_schur import DEFAULTS
from sparsehess.eigen.solvers.spectrum_targets import Smallest
from sparsehess.pattern import Layout
from sparsehess.runtime import PETSc, SLEPc, aij
from support.cases import laplacian

PREFIX = "by_hand_"

# What the solve by hand needs as well.
SHARED = tuple(
    f"<method '{name}' of 'slepc4py.SLEPc.{kind}' objects>"
    for kind, names in {"EPS": ("create", "setUp", "solve", "destroy"), "ST": ("setUp", "setShift")}.items()
    for name in names
)


def by_hand(A, k, shift, edge, tol):
    """Return the k eigenvalues nearest to a shift with their vectors, and how many are below an edge, if given."""
    eps = SLEPc.EPS().create(A.comm)
    eps.setOptionsPrefix(PREFIX)
    eps.setOperators(A)
    eps.setProblemType(SLEPc.EPS.ProblemType.HEP)
    eps.setTolerances(tol=tol)
    eps.setDimensions(nev=k, ncv=max(2 * k, k + 15))
    eps.setWhichEigenpairs(SLEPc.EPS.Which.TARGET_MAGNITUDE)
    eps.setTarget(shift)
    st = eps.getST()
    st.setType("sinvert")
    eps.setFromOptions()
    st.setShift(shift)
    eps.setUp()
    eps.solve()
    values = np.array([eps.getEigenvalue(i).real for i in range(eps.getConverged())])
    vectors = [A.createVecRight() for _ in values]
    for i, vector in enumerate(vectors):
        eps.getEigenvector(i, vector)
    below = 0
    if edge is not None:
        st.setShift(edge)
        st.setUp()
        below = st.getKSP().getPC().getFactorMatrix().getInertia()[0]
    eps.destroy()
    return np.sort(values), vectors, below


def taken_apart(run):
    """Return milliseconds inside `SHARED`, and lines (own milliseconds, calls, function) of all the rest."""
    profile = cProfile.Profile()
    profile.enable()
    done = run()
    profile.disable()
    done()
    shared, rest = 0.0, []
    for (file, _, name), (_, calls, own, _, _) in pstats.Stats(profile).stats.items():
        if name in SHARED:
            shared += 1e3 * own
        else:  # with what SLEPc calls back: the monitor belongs to the caller
            rest.append((1e3 * own, calls, name if file == "~" else f"{Path(file).stem}.{name}"))
    return shared, sorted(rest, reverse=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=300)
    parser.add_argument("-k", type=int, default=5)
    parser.add_argument("--sides", type=int, nargs="+", default=[40, 25])
    parser.add_argument("--quick", action="store_true", help="a few repetitions, to see that it runs")
    given = parser.parse_args()
    repeat, comm, k = 5 if given.quick else given.repeat, MPI.COMM_WORLD, given.k

    matrix, exact = laplacian(*given.sides)
    layout = Layout.from_size(matrix.shape[0], comm)
    rows = matrix.tocsr()[layout.start : layout.stop]
    A = aij(layout, rows.indptr, rows.indices, rows.data)
    options = PETSc.Options()
    for key, value in DEFAULTS.items():
        options.setValue(PREFIX + key, str(value))
    with EigenProblem.of(A) as problem, sh.eigs(A, k) as known:
        target = Smallest(problem, SolveSpec(k=k))
        shift = -max(1e-10 * problem.typical, 2e-13 * problem.scale)
        edge, tol = target.edge(known.eigenvalues, k), slepc_tolerance(problem, 1e-8)

    def hand(where):
        values, vectors, below = by_hand(A, k, shift, where, tol)
        assert np.abs(values[:k] - exact[:k]).max() < 1e-8 and below in (0, np.count_nonzero(exact < edge))
        return lambda: [vector.destroy() for vector in vectors]

    def ours(count):
        spectrum = sh.eigs(A, k, count=count)
        assert np.abs(spectrum.eigenvalues - exact[:k]).max() < 1e-8
        return spectrum.close

    runs = (lambda: hand(None), lambda: ours("no"), lambda: hand(edge), lambda: ours("yes"))
    calls = [[] for _ in runs]
    for turn in range(repeat + 2):  # the first two load everything
        for number, run in enumerate(runs):
            comm.Barrier()
            apart = taken_apart(run)
            if turn > 1:
                calls[number].append((sum(row[0] for row in apart[1]), *apart))
    if comm.rank == 0:
        ranks = f"{comm.size} rank{'s' * (comm.size > 1)}"
        print(f"n = {matrix.shape[0]}, k = {k}, {ranks}, {repeat} repetitions, milliseconds")
        print(
            f"{'':24s} {'by hand: solve':>15s} {'beside':>8s} {'eigs: solve':>12s} {'beside':>8s} {'overhead':>9s}"
        )
        for title, pick in (("median", statistics.median), ("least", min)):
            for name, first in (("pairs", 0), ("pairs and count", 2)):
                beside = [pick(call[0] for call in calls[number]) for number in (first, first + 1)]
                solve = [pick(call[1] for call in calls[number]) for number in (first, first + 1)]
                columns = f"{solve[0]:15.3f} {beside[0]:8.3f} {solve[1]:12.3f} {beside[1]:8.3f}"
                print(f"{name + ', ' + title:24s} {columns} {beside[1] - beside[0]:9.3f}", flush=True)
        print("where it goes: milliseconds, calls")
        for own, many, where in min(calls[3])[2][:15]:
            print(f"  {own:7.3f} {many:7d}  {where}")
    A.destroy()


if __name__ == "__main__":
    main()
