"""Seconds and bytes of each stage from a pattern to an assembled Hessian, for n = 10⁴, 10⁵, 10⁶.

Problems: rotors on 7- and 27-point grids, E = Σ 1 - cos(u_i - u_j) + u⁴/4, and a 3-D elastic network of
uniform random points with mean degree 12. Prints what all stages but the user's gradient cost beside it,
and the exponent of the growth.

    python benchmarks/assembly_stages.py [--sizes 4 5 6] [--problems g7 g27 network] [--order natural]
    mpiexec -n 2 python benchmarks/assembly_stages.py [--sizes 7 --problems g7 g27 --repeat 1]
"""

import argparse
import itertools
import sys
import time
from pathlib import Path

from mpi4py import MPI

import numpy as np
from scipy.spatial import cKDTree

import sparsehess as sh
from sparsehess.runtime import PETSc, memory

sys.path.insert(0, str(Path(__file__).parents[1] / "drivers"))


def rotors(side, full, comm):
    """Return (gradient, x, function that makes the pattern) of rotors on a cubic grid."""
    offsets = [
        o for o in itertools.product((-1, 0, 1), repeat=3) if o > (0, 0, 0) and (full or sum(map(abs, o)) == 1)
    ]
    slices = [
        tuple(
            zip(
                *[(slice(max(0, -d), side - max(0, d)), slice(max(0, d), side - max(0, -d))) for d in o],
                strict=True,
            )
        )
        for o in offsets
    ]

    def gradient(x):
        u = x.reshape(side, side, side)
        g = u * u * u
        for here, there in slices:
            s = np.sin(u[here] - u[there])
            g[here] += s
            g[there] -= s
        return g.ravel()

    def structure():
        """Return the local rows of the pattern, which each rank makes for itself."""
        layout = sh.Layout.from_size(side**3, comm)
        own = np.arange(layout.start, layout.stop, dtype=PETSc.IntType)
        place = np.stack(np.unravel_index(own, (side,) * 3)).astype(np.int16)
        steps = sorted([*offsets, *(tuple(-d for d in o) for o in offsets), (0, 0, 0)])
        there = np.empty((len(own), len(steps)), bool)
        for column, step in enumerate(steps):
            moved = place + np.array(step, np.int16)[:, None]
            there[:, column] = ((moved >= 0) & (moved < side)).all(axis=0)
        along = np.array([(a * side + b) * side + c for a, b, c in steps], PETSc.IntType)
        return np.r_[0, np.cumsum(there.sum(axis=1))], (own[:, None] + along)[there]

    x = np.random.default_rng(0).normal(size=side**3)
    return gradient, x, lambda: sh.Pattern.from_csr(*structure(), comm=comm)


def cloud(n, comm):
    """Return the same of an elastic network of n / 3 points."""
    from elastic_network import network

    points = np.random.default_rng(0).uniform(size=(n // 3, 3))
    radius = (12 / (n // 3) / (4 / 3 * np.pi)) ** (1 / 3)
    pairs = cKDTree(points).query_pairs(radius, output_type="ndarray")
    # Numbered along the cells of the neighbour search, as simulation codes keep their atoms.
    cell = np.floor(points / radius).astype(int)
    place = np.empty(len(points), int)
    place[np.lexsort(cell.T)] = np.arange(len(points))
    points, pairs = points[np.argsort(place)], np.sort(place[pairs], axis=1)
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    return (
        network(points / radius, pairs),
        points.ravel() / radius,
        lambda: sh.Pattern.from_edges(pairs, len(points), dofs=3, comm=comm),
    )


def measure(name, n, order, comm):
    """Return {stage: seconds}, colours, entries, bytes of one run."""
    side = round(n ** (1 / 3))
    gradient, x, make = cloud(n, comm) if name == "network" else rotors(side, name == "g27", comm)
    spent = [0.0, 0]

    def timed(u):
        began = time.perf_counter()
        result = gradient(u)
        spent[0] += time.perf_counter() - began
        spent[1] += 1
        return result

    peaks = [memory.peak_memory()]
    began = time.perf_counter()
    pattern = make()
    objective = sh.Objective(x=x, gradient=timed, pattern=pattern, comm=comm)
    made = time.perf_counter() - began
    peaks.append(memory.peak_memory())
    coloring = sh.color(pattern, order=order)
    peaks.append(memory.peak_memory())
    evaluated = peaks[-1]

    def progress(done, total):
        nonlocal evaluated
        evaluated = memory.peak_memory()

    assembling = time.perf_counter()
    hessian = sh.assemble(objective, coloring=coloring, progress=progress)
    total = made + coloring.seconds + time.perf_counter() - assembling
    peaks += [evaluated, memory.peak_memory()]
    stages = dict(hessian.timings)
    stages["pattern"] += made
    stages["gradient"] = spent[0]
    stages["differences"] = stages.pop("derivatives") + stages.pop("verification") - spent[0]
    began, calls, evaluations = time.perf_counter(), spent[0], hessian.evaluations["gradient"]
    hessian.update(verify=False)
    stages["update"] = time.perf_counter() - began - (spent[0] - calls)
    facts = {
        "n": pattern.n,
        "nnz": pattern.nnz,
        "colors": coloring.count,
        "calls": evaluations,
        "total": total,
        "peak": comm.allreduce(memory.peak_memory()),
        "bytes": [comm.allreduce(int(rise)) for rise in np.diff(peaks)],
        **{stage: comm.allreduce(seconds, op=MPI.MAX) for stage, seconds in stages.items()},
    }
    hessian.close()
    pattern.free()
    return facts


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--sizes", nargs="+", type=float, default=[4, 5, 6], help="powers of ten")
    arguments.add_argument("--problems", nargs="+", default=["g7", "g27", "network"])
    arguments.add_argument("--order", default="natural")
    arguments.add_argument("--repeat", type=int, default=3)
    given = arguments.parse_args()
    comm = MPI.COMM_WORLD
    stages = ("pattern", "coloring", "differences", "assembly")
    if comm.rank == 0:
        head = f"{'problem':8s} {'n':>8s} {'entries':>9s} {'colors':>6s} {'calls':>5s}"
        print(
            head,
            *(f"{s:>11s}" for s in (*stages, "gradient", "others/grad", "update")),
            "  MiB risen by stage, and in all",
            flush=True,
        )
    for name in given.problems:
        seen = []
        for power in given.sizes:
            runs = [measure(name, int(10**power), given.order, comm) for _ in range(given.repeat)]
            facts = min(runs, key=lambda run: run["total"])
            others = sum(facts[stage] for stage in stages)
            seen.append((facts["n"], others, facts["total"]))
            if comm.rank == 0:
                numbers = [facts[stage] for stage in stages] + [facts["gradient"]]
                print(
                    f"{name:8s} {facts['n']:8d} {facts['nnz']:9d} {facts['colors']:6d} {facts['calls']:5d}",
                    *(f"{number:11.4f}" for number in numbers),
                    f"{others / facts['gradient']:11.3f} {facts['update']:11.4f}  ",
                    "/".join(f"{rise / 2**20:.0f}" for rise in runs[0]["bytes"]),
                    f"  {runs[-1]['peak'] / 2**20:.0f}",
                    flush=True,
                )
        if comm.rank == 0 and len(seen) > 1:
            growth = [np.log(seen[-1][k] / seen[0][k]) / np.log(seen[-1][0] / seen[0][0]) for k in (1, 2)]
            print(f"{name:8s} growth exponent: our stages {growth[0]:.3f}, the whole {growth[1]:.3f}", flush=True)


if __name__ == "__main__":
    main()
