"""Eigenpairs through sparsehess and through its peers, in turns, on the same matrices, each in its own process.

    python benchmarks/eigenpairs_vs_peers.py [elasticity] [network] [interval] [feast] [--cells 14 32 46]
        [--nodes 10648] [--sides 20 30] [--only 'slepc4py|primme'] [--rounds 3] [--limit 600]
    python benchmarks/eigenpairs_vs_peers.py --quick

elasticity
    Lowest 20 of a clamped cube of trilinear bricks with its consistent mass: so many cells along an edge are
    9,450, 104,544 and 304,842 variables.
network
    Lowest 20, six zeros among them, of springs among points that fill a cube in disorder, 18 at each on average.
interval
    All 100 eigenvalues of an interval inside the spectrum of trilinear finite elements for the Laplacian of a
    box, exactly known: of the stiffness alone, and with the consistent mass. SciPy and PRIMME are told how many
    there are, and look for those nearest to the middle.
feast
    The same by FEAST: ours against MKL's, on one thread, with as many contour points and as wide a subspace;
    then, on two ranks, ours with the points shared out among two groups and without.

Of ours `from below` finds with one factorization and counts with another, `one shift` does both with one. Ours is
certified by a count of inertia, but for `no count`, `lobpcg` and FEAST with a number of points; of the
peers only SLEPc counts, in intervals. Seconds are medians of the rounds, a ratio that of a peer's seconds over
those of the first line that were measured next to them. MB: growth of the peak memory, over all ranks. Found:
eigenvalues at their right places among pairs with a backward error of at most 1e-8; the largest error is that of
all pairs. What is over the limit is ended, and whoever has spent it in all has no further round. Peers that are
missing are left out with the reason:

    pip install mkl primme
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from functools import reduce
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from contenders.eigenpairs import TOL, Case

sys.path[:0] = [str(Path(__file__).parents[1] / "tests")]
from scipy.spatial import cKDTree

from support.elastic_block import brick

SERIAL = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
MKL = {"MKL_INTERFACE_LAYER": "LP64", "MKL_THREADING_LAYER": "SEQUENTIAL"}
CUTOFF = 1.7  # of the springs, in steps of the grid
PATIENCE = 30  # seconds to start, to read the matrices and to recompute the errors

LOWEST = (
    "sparsehess",
    "sparsehess from below",
    "sparsehess one shift",
    "sparsehess, no count",
    "sparsehess lobpcg",
    "slepc4py",
    "scipy eigsh",
    "scipy lobpcg",
    "primme, multigrid",
    "primme, mumps",
)
INSIDE = (
    "sparsehess",
    "sparsehess feast",
    "slepc4py",
    "scipy eigsh",
    "primme, mumps",
    "mkl feast, 8 points",
)
PAIRS = [("sparsehess feast, " + points, "mkl feast, " + points) for points in ("4 points", "8 points")]
GROUPS = ("sparsehess feast, 2 groups", "sparsehess feast, 1 group")


# --- cases ---


def elastic(cells, number):
    K, M, x = brick((cells,) * 3)
    return Case(K=K, M=M, x=x, number=number)


def network(nodes, number):
    """Return the springs at rest of a disordered solid: a displaced cubic grid, all closer than a cut-off."""
    side = round(nodes ** (1 / 3))
    grid = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    x = grid + np.random.default_rng(0).uniform(-0.3, 0.3, grid.shape)
    i, j = cKDTree(x).query_pairs(CUTOFF, output_type="ndarray").T
    bond = x[i] - x[j]
    bond /= np.linalg.norm(bond, axis=1)[:, None]
    rows = np.repeat(np.arange(len(bond)), 6)
    dofs = np.hstack([3 * i[:, None] + np.arange(3), 3 * j[:, None] + np.arange(3)])
    stretch = sp.csr_matrix((np.hstack([bond, -bond]).ravel(), (rows, dofs.ravel())), (len(bond), x.size))
    return Case(K=(stretch.T @ stretch).tocsr(), x=x, number=number, size=0.02)


def waves(side, number, mass):
    """Return a stretch of the spectrum of a box's Laplacian, in trilinear elements between fixed faces."""
    axes = [line(side + more, length) for more, length in enumerate((1.0, 1.1, 1.3))]
    heavy, stiff = ([axis[kind] for axis in axes] for kind in (0, 1))
    terms = [[*heavy[:d], stiff[d], *heavy[d + 1 :]] for d in range(3)]
    K, values = (sum(parts) for parts in zip(*map(product, terms), strict=True))
    M, masses = product(heavy)
    exact = np.sort((values / masses if mass else values).ravel())
    low, high = (exact[[number - 1, 2 * number - 1]] + exact[[number, 2 * number]]) / 2
    exact = exact[number : 2 * number]
    return Case(K=K, M=M if mass else None, number=number, interval=(low, high), size=exact[0], exact=exact)


def line(nodes, length):
    """Return mass and stiffness of linear elements, each with its eigenvalues; their vectors are the same."""
    h, cosine = length / (nodes + 1), np.cos(np.pi * np.arange(1, nodes + 1) / (nodes + 1))
    return [
        (sp.diags([beside, middle, beside], [-1, 0, 1], (nodes, nodes)), middle + 2 * beside * cosine)
        for middle, beside in ((4 * h / 6, h / 6), (2 / h, -1 / h))
    ]


def product(parts):
    """Return the Kronecker product of matrices, and its eigenvalues."""
    matrices, values = zip(*parts, strict=True)
    return reduce(sp.kron, matrices).tocsr(), reduce(np.multiply.outer, values)


# --- runs ---


def alone(folder, name, ranks, limit):
    """Return what one contender does with the case of a folder, or why it does nothing."""
    command = [sys.executable, str(Path(__file__).parent / "contenders" / "eigenpairs.py"), str(folder), name]
    if ranks > 1:
        command = ["mpiexec", "-n", str(ranks), *command]
    process = subprocess.Popen(
        command, env={**os.environ, **SERIAL, **MKL}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        out, errors = process.communicate(timeout=limit + PATIENCE)
    except subprocess.TimeoutExpired:
        process.terminate()  # mpiexec ends its ranks
        process.communicate()
        return {"failed": f"over {limit:g} s"}
    if process.returncode or not out:
        return {"failed": (errors.strip().splitlines() or [f"ended by signal {-process.returncode}"])[-1][:100]}
    return json.loads(out.splitlines()[-1])


def rightly(values, exact):
    """Return how many of the values are at the place of an eigenvalue, each eigenvalue taken once."""
    within, found, at = 1e-6 * np.abs(exact).max(), 0, 0
    for value in np.sort(values):
        while at < len(exact) and exact[at] < value - within:
            at += 1
        if at < len(exact) and exact[at] <= value + within:
            found, at = found + 1, at + 1
    return found


def compare(title, case, names, given, ranks=1):
    """Print a table of contenders in turns; ratios are to the first."""
    names = [name for name in names if name == names[0] or given.only.search(name)]
    done, remarks = {name: [] for name in names}, {}
    with tempfile.TemporaryDirectory() as folder:
        case.save(Path(folder))
        for _ in range(given.rounds):
            for name in names:
                spent = sum(run["seconds"] for run in done[name])
                if name in remarks or spent > given.limit:
                    continue
                run = alone(folder, name, ranks, given.limit)
                if "seconds" in run:
                    done[name].append(run)
                else:
                    remarks[name] = run.get("absent") or run["failed"]
    print(f"\n{title}, n = {case.K.shape[0]:,}, {case.K.nnz:,} entries, {ranks} rank{'s' * (ranks > 1)}")
    print(f"{'':27s} {'seconds':>8} {'ratio':>6} {'MB':>7} {'found':>8} {'error':>8}")
    first = done[names[0]]
    exact = case.exact if case.exact is not None or not first else np.array(first[0]["values"])
    for name, runs in done.items():
        if not runs:
            print(f"{name:27s} {remarks[name]}", flush=True)
            continue
        last = runs[-1]
        ratios = [run["seconds"] / beside["seconds"] for run, beside in zip(runs, first, strict=False)]
        values, errors = np.array(last["values"]), np.array(last["errors"])
        found = "-" if exact is None else rightly(values[errors <= TOL], exact)
        print(
            f"{name:27s} {statistics.median(run['seconds'] for run in runs):8.2f} "
            f"{statistics.median(ratios) if ratios else np.nan:6.2f} "
            f"{statistics.median(run['bytes'] for run in runs) / 1e6:7.0f} {found:>4}/{case.number:<3} "
            f"{errors.max(initial=0.0):8.0e}  {last['work']} {remarks.get(name, '')}".rstrip(),
            flush=True,
        )


# --- parts ---


def elasticity(given):
    for cells in given.cells:
        compare("elasticity, lowest", elastic(cells, given.lowest), LOWEST, given)


def networks(given):
    compare("elastic network, lowest", network(given.nodes, given.lowest), LOWEST, given)


def interval(given):
    for side in given.sides:
        for mass, title in ((False, "stiffness"), (True, "stiffness and mass")):
            compare(f"{title}, interval", waves(side, given.inside, mass), INSIDE, given)


def feast(given):
    for side in given.sides:
        for mass, title in ((False, "stiffness"), (True, "stiffness and mass")):
            case = waves(side, given.inside, mass)
            for pair in PAIRS:
                compare(f"FEAST, {title}", case, pair, given)
            compare(f"FEAST in groups, {title}", case, GROUPS, given, ranks=2)


PARTS = {"elasticity": elasticity, "network": networks, "interval": interval, "feast": feast}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=[])
    parser.add_argument("--cells", type=int, nargs="+", default=[14, 32, 46], help="along an edge of the cube")
    parser.add_argument("--nodes", type=int, default=10_648, help="of the network, a cube")
    parser.add_argument("--sides", type=int, nargs="+", default=[20, 30], help="nodes along an edge of the box")
    parser.add_argument("--lowest", type=int, default=20, help="how many of the lowest")
    parser.add_argument("--inside", type=int, default=100, help="how many inside the interval")
    parser.add_argument("--only", type=re.compile, default=re.compile(""), help="of the peers: regular expression")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=float, default=600, help="seconds of one run")
    parser.add_argument("--quick", action="store_true", help="small sizes, one round")
    given = parser.parse_args()
    if given.quick:
        given.cells, given.nodes, given.sides, given.inside, given.rounds = [6], 500, [8], 30, 1
    for part in given.parts or PARTS:
        PARTS[part](given)


if __name__ == "__main__":
    main()
