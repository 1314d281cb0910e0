"""Buckling of a supported plate under shear: ours, counted, beside slepc4py by hand and SciPy's eigsh.

Load factors come in pairs of both signs. Each is timed as a whole; what each says of those that it may have missed
stands beside. Full size: --side 317 (n = 100,489).

    python benchmarks/buckling_vs_peers.py [--side 60] [-k 10]
"""

import argparse
import time

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla

import sparsehess as sh
from sparsehess.runtime import PETSc, SLEPc, aij, destroy
from sparsehess.runtime.row_layout import Layout


def plate(side):
    """Return K and Kg of a square plate by finite differences."""
    second = sp.diags([-np.ones(side - 1), np.full(side, 2.0), -np.ones(side - 1)], [-1, 0, 1]) * (side + 1) ** 2
    first = sp.diags([-np.ones(side - 1), np.ones(side - 1)], [-1, 1]) * (side + 1) / 2
    membrane = sp.kron(second, sp.identity(side)) + sp.kron(sp.identity(side), second)
    return (membrane @ membrane).tocsr(), (-2 * sp.kron(first, first)).tocsr()


def ours(K, Kg, k):
    with sh.buckling(K, Kg, k) as found:
        count = found.count
        told = f"none missed: {count.positive} + {count.negative} counted, margin {count.margin:.0e}"
        return found.load_factors, told if count.certified else "not certified"


def slepc(K, Kg, k):
    """Solve -Kg x = μ K x for the largest in size, as a user of slepc4py would."""
    layout = Layout.from_size(K.shape[0], None)
    A, B = (aij(layout, one.indptr, one.indices, one.data) for one in (-Kg, K))
    eps = SLEPc.EPS().create(A.comm)
    eps.setOperators(A, B)
    eps.setProblemType(SLEPc.EPS.ProblemType.GHEP)
    eps.setWhichEigenpairs(SLEPc.EPS.Which.LARGEST_MAGNITUDE)
    eps.setDimensions(nev=k)
    pc = eps.getST().getKSP().getPC()
    pc.setType("cholesky")
    pc.setFactorSolverType("mumps")
    eps.getST().getKSP().setType("preonly")
    eps.solve()
    values = np.array([eps.getEigenvalue(i).real for i in range(min(k, eps.getConverged()))])
    destroy(eps, A, B)
    return 1 / values, "nothing"


def by_scipy(K, Kg, k):
    """Solve -Kg x = μ K x by SciPy, K factorized by SuperLU."""
    inverse = spla.splu(K.tocsc())
    solve = spla.LinearOperator(K.shape, inverse.solve)
    values = spla.eigsh(-Kg, k, M=K, Minv=solve, which="LM", return_eigenvectors=False)
    return 1 / values, "nothing"


def by_scipy_buckling(K, Kg, k, shift=50.0):
    """Solve K x = λ (-Kg) x by SciPy's mode for buckling, which needs a shift that the user knows."""
    return spla.eigsh(K, k, M=-Kg, sigma=shift, mode="buckling", return_eigenvectors=False), "nothing"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=60, help="points of a side of the plate")
    parser.add_argument("-k", type=int, default=10)
    given = parser.parse_args()
    K, Kg = plate(given.side)
    print(f"n = {K.shape[0]}, {PETSc.COMM_WORLD.size} rank(s)")
    runs = (
        ("sparsehess", ours),
        ("slepc4py", slepc),
        ("scipy eigsh", by_scipy),
        ("its buckling", by_scipy_buckling),
    )
    for name, run in runs:
        began = time.perf_counter()
        values, told = run(K, Kg, given.k)
        seconds = time.perf_counter() - began
        nearest = f"nearest {np.abs(values).min():.8g}, {np.count_nonzero(values < 0)} of {len(values)} negative"
        print(f"{name:12s} {seconds:8.2f} s  {nearest}; of missed ones: {told}", flush=True)


if __name__ == "__main__":
    main()
