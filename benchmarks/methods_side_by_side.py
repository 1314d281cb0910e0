"""The methods of `eigs` on one problem: the lowest modes of a clamped elastic cube, each in a process of its own.

Trilinear bricks, consistent mass, so many cells along an edge: 12 are 6,084 variables. Wanted are the 20 lowest
pairs, or all up to the 20th, or the 20 largest. Multigrid is told of the rigid-body modes. Seconds are of the
processor, MB the peak memory of the process from when the matrices stand, Python and matrices among it.

    python benchmarks/methods_side_by_side.py [--cells 12] [--only 'lobpcg|feast']
"""

import argparse
import re
import subprocess
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "tests"), str(Path(__file__).parents[1])]

from contenders.process_memory import forget_peak, memory

import sparsehess as sh
from support.elastic_block import brick

K = 20
WAYS = {
    "inertia alone": None,
    "shift-and-invert": {"k": K},
    "shift-and-invert, no count": {"k": K, "count": "no"},
    "lobpcg, counted": {"k": K, "method": "lobpcg", "count": "yes"},
    "lobpcg, no count": {"k": K, "method": "lobpcg", "count": "no"},
    "gd, no count": {"k": K, "method": "gd", "count": "no"},
    "jd, no count": {"k": K, "method": "jd", "count": "no"},
    "slicing, interval": {"method": "slicing"},
    "feast, interval": {"method": "feast"},
    "largest": {"k": K, "which": "largest"},
    "largest, no count": {"k": K, "which": "largest", "count": "no"},
}


def contend(name, cells):
    """Print one line: what one way takes."""
    stiffness, mass, nodes = brick((cells,) * 3)
    how = WAYS[name]
    if how is not None and "k" not in how:
        with sh.eigs(stiffness, K, mass=mass) as found:
            how = {**how, "interval": (0.0, float(found.eigenvalues[-1]) * (1 + 1e-4))}
    if how is not None and how.get("method") in ("lobpcg", "gd", "jd"):
        how = {**how, "near_null": sh.rigid_body_modes(nodes)[0]}
    forget_peak()
    began = time.process_time()
    if how is None:
        signs = sh.inertia(stiffness, mass=mass)
        told = f"{signs.negative} negative, {signs.positive} positive"
    else:
        with sh.eigs(stiffness, mass=mass, **how) as found:
            count = (
                "not counted" if found.count is None else "certified" if found.count.certified else "NOT certified"
            )
            told = f"{found.converged} pairs in {found.iterations} iterations, {count}"
    spent = time.process_time() - began
    print(f"{name:28s} {spent:8.2f} s {memory() / 2**20:7.0f} MB   {told}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=12)
    parser.add_argument("--only", default="", help="a regular expression of names")
    parser.add_argument("--contend", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contend:
        return contend(arguments.contend, arguments.cells)
    print(f"{3 * arguments.cells * (arguments.cells + 1) ** 2} variables")
    for name in WAYS:
        if re.search(arguments.only, name):
            subprocess.run(
                [sys.executable, __file__, "--cells", str(arguments.cells), "--contend", name], check=True
            )
    return None


if __name__ == "__main__":
    main()
