"""CPU seconds, memory and colours of one colouring, by sparsehess or by a peer, in a process of its own.

Prints one line of JSON: peer, kind, order, colors, seconds (process time of ordering and colouring alone, the
least of three unless they are long), bytes (growth of the peak; null for ColPack), valid (checked here, from
the definition of the kind; null above 10⁷ entries). `absent` instead says why the peer is not there, `refused`
why it does not make this colouring, `limit` that it takes longer: then a colouring that runs inside this
process ends it by SIGALRM, without a line.

    python benchmarks/contenders/colorings.py PATTERN.npz colpack star smallest-last [--limit 120]

Peers: ColPack by the star rules of 2007 (colpack) and 2005 (colpack-naive) and a restricted one, CasADi by those
of 2005 (casadi: `star_coloring`, and `uni_coloring`) and 2007 (casadi2: `star_coloring2`), asdex, and SciPy's
`group_columns`. Each gets the pattern in its own form before the clock starts. ColPack's program is compiled at
first use and kept in $XDG_CACHE_HOME/sparsehess.
"""

import argparse
import ctypes
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import scipy.sparse as sp

sys.path[:0] = [str(Path(__file__).parents[1])]
from contenders.process_memory import forget_peak, memory

ORDERS = ("natural", "largest-first", "smallest-last", "incidence-degree", "dynamic-largest-first")
PEERS = {  # name: {kind: orders}
    "colpack": {"star": ORDERS, "acyclic": ORDERS, "distance2": ORDERS},
    "colpack-naive": {"star": ORDERS},
    "colpack-restricted": {"star": ORDERS},
    "casadi": {"star": ("natural", "largest-first"), "distance2": ("natural",)},
    "casadi2": {"star": ("natural", "largest-first")},
    "asdex": {"star": ("largest-first",), "distance2": ("largest-first",)},
    "scipy": {"distance2": ("natural", "random")},
}
COLPACK_KINDS = {"star": "STAR", "acyclic": "ACYCLIC", "distance2": "DISTANCE_TWO"}
REPEATS, LONG = 3, 5.0  # a colouring is repeated until it has taken this many seconds in all
CHECKED = 10_000_000  # entries
MAIN = Path(__file__).with_name("colpack_main.cpp")


class Absent(Exception):
    """The peer is not installed; the message says what is missing."""


class TooLong(Exception):
    """The colouring has reached its limit."""


class Refused(Exception):
    """The peer does not make this colouring; the message says why."""


# What each peer runs: a function of (matrix, kind, order) that returns a function of nothing, which colours
# and returns (CPU seconds, colours, further results).


def timed(run, read):
    """Return the function that times `run` and reads colours from what it returns."""

    def once():
        began = time.process_time()
        result = run()
        return time.process_time() - began, read(result), {}

    return once


def sparsehess(matrix, kind, order, dofs=1, rule=None, budget=0.2):
    from mpi4py import MPI

    import sparsehess as sh

    if dofs == 1:
        pattern = sh.Pattern.from_scipy(matrix, comm=MPI.COMM_SELF)
    else:
        nodes = sp.triu(matrix[::dofs, ::dofs], 1)
        edges = np.column_stack([nodes.row, nodes.col])
        pattern = sh.Pattern.from_edges(edges, nodes.shape[0], dofs=dofs, comm=MPI.COMM_SELF)

    def once():
        began = time.process_time()
        try:
            coloring = sh.color(pattern, kind=kind, order=order, rule=rule, budget=budget)
        except sh.errors.InputError as error:
            raise Refused("not offered") from error
        seconds = time.process_time() - began
        more = {"lower_bound": coloring.lower_bound, "optimal": coloring.optimal}
        return seconds, coloring.colors, more

    return once


def casadi(matrix, kind, order, newer=False):
    try:
        from casadi import Sparsity
    except ImportError as error:
        raise Absent(str(error)) from error
    pattern = Sparsity(*matrix.shape, matrix.indptr.tolist(), matrix.indices.tolist(), False)
    unlimited = matrix.shape[0]
    if kind == "distance2":
        return timed(lambda: pattern.uni_coloring(pattern, unlimited), classes)
    color = pattern.star_coloring2 if newer else pattern.star_coloring
    return timed(lambda: color(int(order == "largest-first"), unlimited), classes)


def classes(coloring):
    """Return the colours of CasADi's answer, whose column c lists the variables of colour c."""
    colors = np.empty(coloring.size1(), np.int64)
    colors[coloring.row()] = np.repeat(np.arange(coloring.size2()), np.diff(coloring.colind()))
    return colors


def asdex(matrix, kind, order):
    try:
        from asdex import SparsityPattern, color_cols, color_symmetric
    except ImportError as error:
        raise Absent(str(error)) from error
    entries = matrix.tocoo()
    pattern = SparsityPattern.from_coo(entries.row, entries.col, matrix.shape)
    color = color_symmetric if kind == "star" else color_cols
    return timed(lambda: color(pattern), lambda result: result[0])


def scipy(matrix, kind, order):
    from scipy.optimize._numdiff import group_columns

    columns = matrix.tocsc()
    order = np.arange(matrix.shape[0]) if order == "natural" else 0  # 0: a random one, always the same
    return timed(lambda: group_columns(columns, order), np.asarray)


def colpack(matrix, kind, order, name=None):
    """Return the function that runs ColPack's program; `name` is ColPack's of the kind if it is not ours."""
    program = compiled()
    folder = tempfile.TemporaryDirectory()
    pattern = Path(folder.name) / "pattern"
    with pattern.open("wb") as file:
        for array in (np.array(matrix.shape[:1]), matrix.indptr, matrix.indices):
            array.astype(np.int32).tofile(file)
    signal.signal(signal.SIGALRM, end)  # the program must not outlive this process

    def once():
        colors = Path(folder.name) / "colors"
        names = name or COLPACK_KINDS[kind], order.upper().replace("-", "_")
        done = subprocess.run([program, pattern, *names, colors], check=True, capture_output=True, text=True)
        return float(done.stdout.split()[-1]), np.fromfile(colors, np.int32), {"bytes": None}

    return once


def end(number, frame):
    raise TooLong


def compiled():
    """Return the path of ColPack's program, compiled if it is not there."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sparsehess"
    program = cache / f"colpack-{hashlib.sha256(MAIN.read_bytes()).hexdigest()[:16]}"
    if program.exists():
        return program
    cache.mkdir(parents=True, exist_ok=True)
    fresh = program.with_suffix(f".{os.getpid()}")
    compiler = os.environ.get("CXX", "g++")
    command = [compiler, "-O2", "-fopenmp", MAIN, "-o", fresh, "-lColPack"]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise Absent(f"no compiler {compiler}") from error
    if done.returncode:
        first = next((line for line in done.stderr.splitlines() if "error" in line), "compiler failed")
        raise Absent(f"{first} (Debian: libcolpack-dev)")
    return fresh.rename(program)


# The definitions of the kinds, on patterns with their diagonals.


def row_numbers(matrix):
    return np.repeat(np.arange(matrix.shape[0], dtype=np.int64), np.diff(matrix.indptr))


def twice(matrix, colors):
    """Return for every entry (v, w) whether row v holds the colour of w more than once."""
    keys = row_numbers(matrix) * (int(colors.max()) + 1) + colors[matrix.indices]
    _, place, counts = np.unique(keys, return_inverse=True, return_counts=True)
    return counts[place] > 1


def proper(matrix, colors):
    rows = row_numbers(matrix)
    return not np.any((colors[rows] == colors[matrix.indices]) & (rows != matrix.indices))


def is_distance2(matrix, colors):
    return not twice(matrix, colors).any()


def is_star(matrix, colors):
    """No edge is the middle of a path of four vertices in two colours."""
    here = twice(matrix, colors)
    there = sp.csr_matrix((here.astype(np.int8), matrix.indices, matrix.indptr), matrix.shape).T.tocsr().data
    return proper(matrix, colors) and not np.any(here & (there != 0))


def is_acyclic(matrix, colors):
    """Each two classes span a forest: as many edges as vertices less trees, over all pairs of classes."""
    upper = sp.triu(matrix, 1)
    k = int(colors.max()) + 1
    low, high = np.sort([colors[upper.row], colors[upper.col]], axis=0).astype(np.int64)
    ends = np.concatenate([upper.row, upper.col]).astype(np.int64) * k * k + np.tile(low * k + high, 2)
    vertices, place = np.unique(ends, return_inverse=True)
    edges = len(low)
    graph = sp.coo_matrix((np.ones(edges, np.int8), (place[:edges], place[edges:])), (len(vertices),) * 2)
    trees = sp.csgraph.connected_components(graph, directed=False)[0]
    return proper(matrix, colors) and edges == len(vertices) - trees


CHECKS = {"star": is_star, "acyclic": is_acyclic, "distance2": is_distance2, "cpr": is_distance2}


def valid(matrix, kind, colors):
    if kind not in CHECKS or matrix.nnz > CHECKED:
        return None
    colors = np.asarray(colors, np.int64)
    if colors.shape != matrix.shape[:1] or colors.min() < 0:
        return False
    return bool(CHECKS[kind](matrix, colors))


# One call.


def growth(once):
    """Return what `once` returns, and by how much it raised this process' memory (None: not on this system)."""
    try:
        ctypes.CDLL(None).malloc_trim(0)  # no reuse of what was freed before
        forget_peak()
    except (AttributeError, OSError):
        return once(), None
    before = memory("VmRSS")
    result = once()
    return result, memory("VmHWM") - before


def measured(once, limit):
    """Return colours and results, of which the seconds are the least of the repeats."""
    signal.setitimer(signal.ITIMER_REAL, limit)
    (least, colors, more), size = growth(once)
    signal.setitimer(signal.ITIMER_REAL, 0)
    spent, runs = least, 1
    while runs < REPEATS and spent < LONG:
        seconds = once()[0]
        least, spent, runs = min(least, seconds), spent + seconds, runs + 1
    return colors, {"seconds": least, "bytes": size, **more}


MAKERS = {
    "sparsehess": sparsehess,
    "colpack": colpack,
    "colpack-naive": partial(colpack, name="NAIVE_STAR"),
    "colpack-restricted": partial(colpack, name="RESTRICTED_STAR"),
    "casadi": casadi,
    "casadi2": partial(casadi, newer=True),
    "asdex": asdex,
    "scipy": scipy,
}


def call(peer, matrix, kind, order, limit, **options):
    """Return the results of one colouring as the line of JSON has them."""
    if peer in PEERS and order not in PEERS[peer].get(kind, ()):
        return {"refused": "not offered"}
    try:
        MAKERS[peer](sp.csr_matrix(np.ones((6, 6))), kind, order, **options)()  # loads and compiles
        colors, results = measured(MAKERS[peer](matrix, kind, order, **options), limit)
    except Absent as error:
        return {"absent": str(error)}
    except Refused as error:
        return {"refused": str(error)}
    except TooLong:
        return {"limit": limit}
    return {"colors": len(np.unique(colors)), **results, "valid": valid(matrix, kind, colors)}


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("pattern", help="a matrix saved by scipy.sparse.save_npz, with its diagonal")
    arguments.add_argument("peer", choices=("sparsehess", *PEERS))
    arguments.add_argument("kind")
    arguments.add_argument("order")
    arguments.add_argument("--dofs", type=int, help="declare blocks of this size (sparsehess only)")
    arguments.add_argument("--rule", help="of the kind (sparsehess only)")
    arguments.add_argument("--budget", type=float, help="nominal seconds of the order best (sparsehess only)")
    arguments.add_argument("--limit", type=float, default=120, help="wall seconds of a colouring")
    given = arguments.parse_args()
    matrix = sp.csr_matrix(sp.load_npz(given.pattern))
    matrix.sort_indices()
    options = {name: getattr(given, name) for name in ("dofs", "rule", "budget")}
    options = {name: value for name, value in options.items() if value is not None}
    result = call(given.peer, matrix, given.kind, given.order, given.limit, **options)
    print(json.dumps({"peer": given.peer, "kind": given.kind, "order": given.order, **result}))


if __name__ == "__main__":
    main()
