"""The diagonal of the inverse of a 3-D grid's Laplacian, beside solving for its columns, each in its own process.

46 nodes along an edge are 97,336 variables; 0.01 on the diagonal. Contenders: `sparsehess.selected_inverse`;
columns by SciPy's `splu`, and by PETSc with MUMPS, LDLᵀ, many at a time: some are solved, and their time is taken
times n over their number, which is told. Also ten samples of N(0, H⁻¹). Seconds are of the wall, in rounds of all
contenders; a ratio is of the same round. MB is the peak memory of the process from when the matrix stands, Python
among it. The BLAS is the one that PETSc has loaded. CHOLMOD joins where scikit-sparse is installed.

    python benchmarks/selected_inverse.py [--edge 46] [--columns 64] [--rounds 3] [--only 'splu|sparsehess']
"""

import argparse
import importlib.util
import json
import re
import subprocess
import sys
import time

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg
from contenders.process_memory import forget_peak, memory


def laplacian(edge):
    """The seven-point Laplacian of a cube of nodes, zero beyond it."""
    line, one = sp.diags([-1.0, 2.0, -1.0], [-1, 0, 1], shape=(edge, edge)), sp.identity(edge)
    planes = sp.kron(line, sp.kron(one, one)) + sp.kron(one, sp.kron(line, one)) + sp.kron(one, sp.kron(one, line))
    return (planes + 0.01 * sp.identity(edge**3)).tocsr()


def by_sparsehess(H, _):
    import sparsehess as sh

    found = sh.selected_inverse(H)
    return found.values, f"errors up to {found.errors.max() / found.values.min():.0e} of an entry", 0.0


def by_samples(H, _):
    import sparsehess as sh

    found = sh.gaussian_samples(H, 10)
    return None, f"{found.factorizations} factorizations, covariance to {2 * found.error:.0e}", 0.0


def by_columns(H, columns, factorize):
    """Solve for some columns; the others would take as long each."""
    solve = factorize(H)
    chosen = np.linspace(0, H.shape[0] - 1, columns).astype(int)
    units = np.zeros((H.shape[0], columns), order="F")
    units[chosen, np.arange(columns)] = 1.0
    began = time.perf_counter()
    values = solve(units)[chosen, np.arange(columns)]
    each = (time.perf_counter() - began) / columns
    return None, f"{columns} columns solved, {each:.2g} s each; {values.mean():.6f}", each * (H.shape[0] - columns)


def splu(H):
    factors = scipy.sparse.linalg.splu(H.tocsc(), permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True})
    return factors.solve


def cholmod(H):
    from sksparse.cholmod import cholesky

    return cholesky(H.tocsc())


def mumps(H):
    from sparsehess.runtime import PETSc

    matrix = PETSc.Mat().createAIJ(H.shape, csr=(H.indptr, H.indices, H.data))
    matrix.setOption(PETSc.Mat.Option.SYMMETRIC, True)
    ksp = PETSc.KSP().create()
    ksp.setOperators(matrix)
    ksp.setType("preonly")
    ksp.getPC().setType("cholesky")
    ksp.getPC().setFactorSolverType("mumps")
    ksp.setUp()

    def solve(units):
        right = PETSc.Mat().createDense(units.shape, array=units)
        left = PETSc.Mat().createDense(units.shape)
        right.assemble()
        left.setUp()
        left.assemble()
        ksp.getPC().getFactorMatrix().matSolve(right, left)
        return left.getDenseArray()

    return solve


WAYS = {
    "sparsehess, diagonal": by_sparsehess,
    "MUMPS, by columns": lambda H, columns: by_columns(H, columns, mumps),
    "splu, by columns": lambda H, columns: by_columns(H, columns, splu),
    "CHOLMOD, by columns": lambda H, columns: by_columns(H, columns, cholmod),
    "sparsehess, ten samples": by_samples,
}


def contend(name, edge, columns):
    """Write what one way takes, as JSON."""
    from sparsehess.runtime import blas, initialize

    initialize()
    H = laplacian(edge)
    forget_peak()
    began = time.perf_counter()
    _, told, rest = WAYS[name](H, columns)
    seconds = time.perf_counter() - began + rest
    facts = blas.loaded_blas()
    library = f"{facts['name']} {facts['version'] or ''}".strip()
    print(json.dumps({"seconds": seconds, "memory": memory(), "told": told, "blas": library}), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edge", type=int, default=46)
    parser.add_argument("--columns", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="a regular expression of names")
    parser.add_argument("--contend", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contend:
        return contend(arguments.contend, arguments.edge, min(arguments.columns, arguments.edge**3))
    without = [] if importlib.util.find_spec("sksparse") else ["CHOLMOD, by columns"]
    names = [name for name in WAYS if re.search(arguments.only, name) and name not in without]
    print(f"{arguments.edge**3} variables, {arguments.rounds} rounds; not here: {', '.join(without) or 'none'}")
    spent = {name: [] for name in names}
    for _ in range(arguments.rounds):
        for name in names:
            sizes = ["--edge", str(arguments.edge), "--columns", str(arguments.columns)]
            line = [sys.executable, __file__, *sizes, "--contend", name]
            facts = json.loads(subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True).stdout)
            spent[name].append(facts["seconds"])
            first = spent[names[0]][-1]
            print(
                f"{name:26s} {facts['seconds']:10.1f} s {facts['memory'] / 2**20:7.0f} MB "
                f"{facts['seconds'] / first:8.2f} times {names[0]}   {facts['told']}   {facts['blas']}",
                flush=True,
            )
    for name in names:
        ratios = np.array(spent[name]) / np.array(spent[names[0]])
        print(f"{name:26s} median {np.median(spent[name]):10.1f} s, {np.median(ratios):8.2f} times {names[0]}")
    return None


if __name__ == "__main__":
    main()
