"""Hessians in which everything couples: gradients and errors of near and far, beside O1NumHess.

Lennard-Jones without a cut-off, ions with charges told and not told, screened charges, and copper by effective
medium theory in a periodic cell (where ASE is installed). Of each: the gradients that `near_far` spends, its error
against a dense Hessian, what it tells of that, and the lowest pairs of `lowest_pairs` with the gradients of both.
O1NumHess (https://github.com/ilcpm/O1NumHess) joins where it is installed or on the PYTHONPATH: with distances of
atoms, the widest of some dmax whose gradients are no more than ours. It takes minutes for each.

    python benchmarks/near_far.py [--side 8] [--only 'ions|copper'] [--pairs 10]
"""

import argparse
import contextlib
import importlib.util
import os
import re
import sys
import tempfile
from pathlib import Path

import numpy as np

import sparsehess as sh

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.pair_potentials import ions, lattice, lennard_jones, screened

# Budgets of gradients of the matrix, and of the pairs.
MATRIX, PAIRS = 150, 100

# dmax of O1NumHess, over the distance between neighbours.
REACHES = (1.2, 1.6, 2.0, 2.5)


class Copper:
    """A periodic cell of copper, rattled."""

    def __init__(self, cells=4):
        from ase.build import bulk
        from ase.calculators.emt import EMT

        self.atoms = bulk("Cu", cubic=True).repeat(cells)
        self.atoms.rattle(0.02, seed=0)
        self.atoms.calc = EMT()
        self.points, self.box, self.calls = self.atoms.positions.copy(), self.atoms.cell.lengths(), 0
        self.x = self.points.ravel()

    def gradient(self, x):
        self.calls += 1
        self.atoms.positions = x.reshape(-1, 3)
        return -self.atoms.get_forces().ravel()

    def hessian(self):
        rows = [
            (self.gradient(self.x + step) - self.gradient(self.x - step)) / 2e-4
            for step in 1e-4 * np.eye(len(self.x))
        ]
        return (np.array(rows) + np.array(rows).T) / 2


def problems(side, only):
    """Yield (name, potential, what near_far is told) of those that are wanted."""
    points, charges = lattice(side, jitter=0.03)

    def copper():
        made = Copper()
        return made, {"box": made.box}

    makers = {
        "lennard-jones": lambda: (lennard_jones(points), {}),
        "ions": lambda: (ions(1.25 * points, charges), {"charges": charges}),
        "ions-untold": lambda: (ions(1.25 * points, charges), {}),
        "screened": lambda: (screened(points), {}),
        "copper": copper,
    }
    if importlib.util.find_spec("ase") is None:
        print("copper is left out: ASE is not installed")
        del makers["copper"]
    for name, make in makers.items():
        if re.search(only, name):
            yield name, *make()


def off(found, exact):
    return np.linalg.norm(found - exact) / np.linalg.norm(exact)


def ours(name, potential, exact, told, pairs):
    """Print a line of near_far, and one of lowest_pairs; return the gradients of the matrix."""
    potential.calls = 0
    objective = sh.Objective(x=potential.x, gradient=potential.gradient)
    with sh.near_far(objective, points=potential.points, gradients=MATRIX, tolerance=10.0, **told) as H:
        spent, n = potential.calls, H.n
        error = off(H.products(np.eye(n)), exact)
        kernel = "no kernel" if H.kernel is None else f"{H.kernel.coefficients.size} radial functions"
        print(
            f"{name:14} {n:5} variables  near and far {spent:4} gradients  error {error:.1e}  told {H.error:.1e}"
        )
        print(f"{'':14} {H.coloring.count} colours, {kernel}; 2n = {2 * n}")
        with sh.lowest_pairs(H, pairs, gradients=PAIRS, strict=False) as found:
            values = np.linalg.eigvalsh(exact)
            apart = np.abs(found.eigenvalues - values[: found.converged]).max(initial=0.0) / np.abs(values).max()
            counted = "counted" if found.count is not None and found.count.certified else "not counted"
            print(
                f"{'':14} {found.converged} of {pairs} lowest pairs by {potential.calls - spent} gradients more, "
                f"off by {apart:.1e} of the largest, {counted}"
            )
    return spent


def theirs(potential, exact, most):
    """Print a line of O1NumHess, with no more gradients than so many."""
    from O1NumHess import O1NumHess

    apart = np.linalg.norm(potential.points[:, None] - potential.points[None], axis=2)
    if getattr(potential, "box", None) is not None:
        d = potential.points[:, None] - potential.points[None]
        apart = np.linalg.norm(d - potential.box * np.round(d / potential.box), axis=2)
    near = np.partition(apart, 1, axis=1)[:, 1].mean()
    best = None
    for reach in REACHES:
        potential.calls = 0
        with tempfile.TemporaryDirectory() as folder:
            here = Path.cwd()
            os.chdir(folder)  # it writes its tasks where it runs
            solver = O1NumHess(potential.x, lambda x, *_, **__: potential.gradient(x))
            try:
                with contextlib.redirect_stdout(None):
                    H, displacements, _ = solver.O1NumHess(
                        core=1,
                        total_cores=1,
                        dmax=reach * near,
                        distmat=np.kron(apart, np.ones((3, 3))),
                        doublesided=np.zeros(len(potential.x), bool),
                    )
            finally:
                os.chdir(here)
        spent = displacements.shape[1] + 1
        if best is not None and spent > most:
            break
        best = f"O1NumHess    {spent:4} gradients  error {off(H, exact):.1e}  (dmax {reach * near:.2f})"
    print(f"{'':31}{best}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=8, help="points along an edge (default 8)")
    parser.add_argument("--only", default="", help="problems whose names have this in them")
    parser.add_argument("--pairs", type=int, default=10, help="lowest pairs (default 10)")
    arguments = parser.parse_args()
    peer = importlib.util.find_spec("O1NumHess") is not None
    if not peer:
        print("O1NumHess is left out: it is neither installed nor on the PYTHONPATH")
    for name, potential, told in problems(arguments.side, arguments.only):
        exact = potential.hessian()
        spent = ours(name, potential, exact, told, arguments.pairs)
        if peer and name != "ions-untold":
            theirs(potential, exact, spent)


if __name__ == "__main__":
    main()
