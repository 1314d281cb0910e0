"""How many times faster two ranks assemble a Hessian than one, by the seconds that a gradient takes.

    python benchmarks/assembly_by_ranks.py [--seconds 0.005 0.02] [--kinds waits burns grid] [--pairs 3]

n = 10⁵ and 49 colours. One and two ranks run in turn, and medians of the pairs are printed, for the first Hessian
(pattern given; colouring, noise, 98 gradients, check) and for updates of it. A small problem beforehand imports
what is imported late. Gradients of three kinds:

- `waits`: sleeps. Two ranks have what they need although other programs keep the cores busy, so that the ratio is
  that of a machine with idle cores, but for what those programs take of our own work.
- `burns`: computes until its thread has had so many seconds of a processor. Needs two idle cores.
- `grid`: sines of differences on a grid of three dimensions in NumPy, repeated to the length: streams memory.

Beside the ratios: seconds outside of gradients on each rank, by the clock and of the processor (a rank that waits
in Open MPI takes its processor), how many gradients each rank had, and how long a rank waited for the other.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from statistics import median

import numpy as np
import scipy.sparse as sp

N, WIDTH = 100_000, 24
SIDE = 46  # 46³ = 97,336 of the variables are on a grid
KINDS = ("waits", "burns", "grid")


def make_gradient(kind, seconds, spent):
    """Return a gradient of this kind that notes [calls, seconds, seconds of the processor]."""

    def once(x):
        return x * (1.0 + 0.01 * x)

    def streams(x):
        u, g = x[: SIDE**3].reshape(SIDE, SIDE, SIDE), once(x)
        for axis in range(3):
            stretch = np.sin(np.diff(u, axis=axis))
            stretch.sum()
        return g

    def gradient(x):
        began, own = time.perf_counter(), time.thread_time()
        g = (streams if kind == "grid" else once)(x)
        if kind == "waits":
            time.sleep(max(seconds - (time.perf_counter() - began), 0.0))
        while kind != "waits" and time.thread_time() - own < seconds:
            if kind == "grid":
                streams(x)
        spent[:] = [spent[0] + 1, spent[1] + time.perf_counter() - began, spent[2] + time.thread_time() - own]
        return g

    return gradient


def note_waits():
    """Return a list whose number is the seconds that this rank waits for others after its own gradients."""
    from sparsehess.derivatives import rounds
    from sparsehess.derivatives.row_delivery import Delivery
    from sparsehess.runtime.work_stealing import Work

    waited = [0.0]

    def noted(function):
        def call(*arguments):
            began = time.perf_counter()
            try:
                return function(*arguments)
            finally:
                waited[0] += time.perf_counter() - began

        return call

    rounds.raise_together = noted(rounds.raise_together)
    Work.finish, Delivery.finish = noted(Work.finish), noted(Delivery.finish)
    return waited


def worker(kind, seconds, updates):
    from mpi4py import MPI

    import sparsehess as sh

    comm, spent, waited, facts = MPI.COMM_WORLD, [0, 0.0, 0.0], note_waits(), []
    band = sp.diags([1.0] * (2 * WIDTH + 1), range(-WIDTH, WIDTH + 1), (N, N)).tocsr()
    x = np.random.default_rng(0).normal(size=N)
    gradient = make_gradient(kind, seconds, spent)
    problem = sh.Objective(x=x, gradient=gradient, pattern=sh.Pattern.from_scipy(band, comm=comm), comm=comm)
    tiny = sh.Pattern.from_edges([[0, 1]], 50, comm=comm)
    sh.assemble(sh.Objective(x=x[:50], gradient=lambda x: x**3, pattern=tiny, comm=comm)).close()
    hessian = None
    for number in range(1 + updates):
        comm.Barrier()
        spent[:], waited[0] = [0, 0.0, 0.0], 0.0
        began, own = time.perf_counter(), time.process_time()
        if hessian is None:
            hessian = sh.assemble(problem)
        else:
            hessian.update(x + 0.01 * number)
        wall, own = time.perf_counter() - began, time.process_time() - own
        one = {"calls": spent[0], "else": wall - spent[1], "else cpu": own - spent[2], "waited": waited[0]}
        ranks = comm.gather({**one, "gradients": spent[1]})
        facts.append({"wall": wall, "ranks": ranks, "colors": hessian.coloring.count})
    hessian.close()
    if comm.rank == 0:
        print(json.dumps(facts))


def run(ranks, kind, seconds, updates):
    """Return (first, update) of one run; of the updates the one that took the median of the seconds."""
    command = [sys.executable, __file__, "--worker", kind, str(seconds), str(updates)]
    if ranks > 1:
        command = ["mpiexec", "--oversubscribe", "-n", str(ranks), *command]
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    first, *later = json.loads(done.stdout)
    return first, sorted(later, key=lambda one: one["wall"])[len(later) // 2]


def load():
    return " ".join(open("/proc/loadavg").read().split()[:1]) if os.path.exists("/proc/loadavg") else "?"


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--seconds", nargs="+", type=float, default=[0.005, 0.02])
    arguments.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    arguments.add_argument("--pairs", type=int, default=3)
    arguments.add_argument("--updates", type=int, default=3)
    arguments.add_argument("--worker", nargs=3, metavar=("KIND", "SECONDS", "UPDATES"), help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.worker:
        kind, seconds, updates = given.worker
        worker(kind, float(seconds), int(updates))
        return
    for kind in given.kinds:
        for seconds in given.seconds:
            pairs = [
                tuple(run(ranks, kind, seconds, given.updates) for ranks in (1, 2)) for _ in range(given.pairs)
            ]
            for stage, name in enumerate(("first", "update")):
                one, two = ([pair[k][stage] for pair in pairs] for k in (0, 1))
                report(name, kind, seconds, one, two)


def report(name, kind, seconds, one, two):
    """Print what the runs of a stage on one and on two ranks have shown."""
    ratios = sorted(a["wall"] / b["wall"] for a, b in zip(one, two, strict=True))
    alone = [a["ranks"][0] for a in one]
    calls = median(a["calls"] for a in alone)
    print(
        f"{kind:5s} {1e3 * seconds:4.0f} ms  {name:6s} {one[0]['colors']} colours  1 rank "
        f"{median(a['wall'] for a in one):.3f} s, {calls:.0f} gradients, all else "
        f"{1e3 * median(a['else'] for a in alone):.0f} ms = "
        f"{100 * median(a['else'] / a['gradients'] for a in alone):.1f} % (processor "
        f"{1e3 * median(a['else cpu'] for a in alone):.0f} ms)"
    )
    each = "; ".join(
        f"rank {rank}: {median(b['ranks'][rank]['calls'] for b in two):.0f} gradients, all else "
        f"{1e3 * median(b['ranks'][rank]['else'] for b in two):.0f} ms (processor "
        f"{1e3 * median(b['ranks'][rank]['else cpu'] for b in two):.0f}, waited "
        f"{1e3 * median(b['ranks'][rank]['waited'] for b in two):.0f})"
        for rank in (0, 1)
    )
    # What two idle cores would make of it, from the gradients of the rank with most and the processor's seconds.
    free = median(
        (a["calls"] * seconds + a["else cpu"])
        / max(rank["calls"] * seconds + rank["else cpu"] for rank in b["ranks"])
        for a, b in zip(alone, two, strict=True)
    )
    print(
        f"{'':23s}2 ranks {median(b['wall'] for b in two):.3f} s: {median(ratios):.2f} times faster "
        f"({ratios[0]:.2f} to {ratios[-1]:.2f}), by seconds of the processor {free:.2f}; {each}; load {load()}",
        flush=True,
    )


if __name__ == "__main__":
    main()
