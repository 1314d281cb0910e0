"""How colouring grows with the size of the pattern, and what each of several ranks holds.

    python benchmarks/colorings_by_size_and_ranks.py [--side 100] [--ranks 1,2,3,4,8] [--most 1e7]

First, on one rank, star and acyclic colourings of 7-point grids of 10⁴ up to `--most` points: least
seconds of three, and the growth exponent over the last two decades. Then the 27-point grid of side³
points on several ranks: rounds and seconds, the most bytes that a rank takes beyond its own part of the
pattern, and whether the colours are the same.
"""

import argparse
import ctypes
import json
import os
import subprocess
import sys
import threading

import numpy as np

KINDS = ("star", "acyclic")
BLOCK = 100_000  # rows that are built at a time


def rows_of_grid(side, first, last, full):
    """Return local CSR rows (indptr, indices) of a 7- or 27-point grid of side³ points."""
    steps = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    if not full:
        steps = steps[np.abs(steps).sum(axis=1) <= 1]
    offsets = steps @ [side * side, side, 1]
    lengths, columns = [np.zeros(1, np.int64)], []
    for begin in range(first, last, BLOCK):
        rows = np.arange(begin, min(begin + BLOCK, last))
        at = np.stack(np.unravel_index(rows, (side,) * 3), axis=-1)
        moved = at[:, None, :] + steps
        inside = ((moved >= 0) & (moved < side)).all(axis=2)
        lengths.append(inside.sum(axis=1))
        columns.append((rows[:, None] + offsets)[inside].astype(np.int32))
    empty = np.zeros(0, np.int32)
    return np.cumsum(np.concatenate(lengths)), np.concatenate([empty, *columns])


class Mallinfo(ctypes.Structure):
    """`struct mallinfo2` of the GNU C library."""

    _names = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks")
    _fields_ = [(name, ctypes.c_size_t) for name in (*_names, "keepcost")]


MALLINFO = ctypes.CDLL(None).mallinfo2
MALLINFO.restype = Mallinfo


class Peak:
    """The most memory that the C library has given out while the block runs, looked at every two milliseconds."""

    def __enter__(self):
        self.before = self.most = self.taken()
        self.done = threading.Event()
        self.watch = threading.Thread(target=self.look)
        self.watch.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.watch.join()
        self.bytes = self.most - self.before

    def look(self):
        while not self.done.wait(0.002):
            self.most = max(self.most, self.taken())

    @staticmethod
    def taken():
        info = MALLINFO()
        return info.uordblks + info.hblkhd


def colored(comm, side, full, kind, order):
    """Return one run's facts; on every rank the same but for its bytes."""
    from mpi4py import MPI

    import sparsehess as sh

    n = side**3
    first, last = n * comm.rank // comm.size, n * (comm.rank + 1) // comm.size
    indptr, indices = rows_of_grid(side, first, last, full)
    pattern = sh.Pattern.from_csr(indptr, indices, comm=comm)
    pattern.exchange  # noqa: B018  (of the pattern, made once for all uses)
    comm.Barrier()
    with Peak() as peak:
        coloring = sh.color(pattern, kind=kind, order=order)
    seconds = []
    for _ in range(3):
        comm.Barrier()
        seconds.append(sh.color(pattern, kind=kind, order=order).seconds)
    numbers = np.arange(first, last, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    digest = int((numbers * (coloring.colors.astype(np.uint64) + np.uint64(1))).sum())
    return {
        "n": n,
        "nnz": pattern.nnz,
        "kind": kind,
        "order": order,
        "colors": coloring.count,
        "seconds": comm.allreduce(min(seconds), op=MPI.MAX),
        "rounds": coloring.traffic.rounds,
        "bytes": max(comm.allgather(peak.bytes)),
        "digest": comm.allreduce(digest) % 2**64,
        "valid": sh.verify_coloring(pattern, coloring) is None,
    }


def run(ranks, side, full, kind, order):
    """Return the facts of a run in processes of its own."""
    command = [sys.executable, __file__, "--worker", json.dumps([side, full, kind, order])]
    if ranks > 1:
        command = ["mpiexec", "-n", str(ranks), *command]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True, env=environment)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}")
    return json.loads(done.stdout)


def growth(most):
    sides = [side for side in (22, 46, 100, 215) if side**3 <= 1.1 * most or side <= 100]
    for kind in KINDS:
        found = [run(1, side, False, kind, "natural") for side in sides]
        for one in found:
            print(
                f"{kind:8s} {one['n']:>12,} points {one['colors']:4d} colours {one['seconds']:9.4f} s", flush=True
            )
        last = found[-3:]
        exponent = np.polyfit(np.log([one["n"] for one in last]), np.log([one["seconds"] for one in last]), 1)[0]
        print(f"{kind:8s} growth exponent {exponent:.3f}", flush=True)


def across(side, ranks):
    print(f"27-point grid, {side**3:,} points")
    for kind, order in (("star", "natural"), ("star", "chunks"), ("acyclic", "chunks"), ("star", "best")):
        found = [run(P, side, True, kind, order) for P in ranks]
        for P, one in zip(ranks, found, strict=True):
            same = "same colours" if one["digest"] == found[0]["digest"] else "OTHER COLOURS"
            print(
                f"{kind:8s} {order:8s} {P} ranks {one['colors']:4d} colours {one['seconds']:8.3f} s "
                f"{one['rounds']:4d} rounds {one['bytes'] / 1e6:8.1f} MB a rank  {same}"
                f"{'' if one['valid'] else '  NOT VALID'}",
                flush=True,
            )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=100)
    parser.add_argument("--ranks", type=lambda text: [int(P) for P in text.split(",")], default=[1, 2, 3, 4, 8])
    parser.add_argument("--most", type=float, default=1e7)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        from mpi4py import MPI

        facts = colored(MPI.COMM_WORLD, *json.loads(asked.worker))
        if MPI.COMM_WORLD.rank == 0:
            print(json.dumps(facts))
        return
    growth(asked.most)
    across(asked.side, asked.ranks)


if __name__ == "__main__":
    main()
