"""Phonons beside phonopy, of the same force constants: largest difference, time for each wave vector, calls.

Copper by effective medium theory and argon by Lennard-Jones, in supercells of several sizes. phonopy gets our
force constants; both give frequencies at the same wave vectors, ours with vectors and a bound on each. Eigenvalues
are compared over the largest; without phonopy its columns are left out.

    python benchmarks/phonons_vs_phonopy.py [--sizes 2 3 4 5] [--points 200] [--rounds 3]
"""

import argparse
import time

from mpi4py import MPI

import numpy as np
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

import sparsehess as sh

try:
    import phonopy
    from phonopy.structure.atoms import PhonopyAtoms
except ImportError:
    phonopy = None


def solids():
    """Return names, primitive cells and path: an atom, and four in a cube."""
    copper, argon, cube = bulk("Cu", a=3.6), bulk("Ar", "fcc", a=5.3), bulk("Cu", a=3.6, cubic=True)
    copper.calc, cube.calc = EMT(), EMT()
    argon.calc = LennardJones(sigma=3.4, epsilon=0.0104, rc=6.0, ro=4.5, smooth=True)
    return (("Cu", copper, "GXWKGL"), ("Ar", argon, "GXWKGL"), ("Cu4", cube, "GXMGRX"))


def best(rounds, call):
    """Return what a call returns, and the least of its times."""
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        found = call()
        times.append(time.perf_counter() - began)
    return found, min(times)


def theirs(constants, atoms, size):
    """Return phonopy with our force constants, whose atoms it may have in another order."""
    cell = PhonopyAtoms(
        symbols=list(atoms.symbols), cell=atoms.cell.array, positions=atoms.positions, masses=atoms.get_masses()
    )
    made = phonopy.Phonopy(cell, supercell_matrix=np.diag([size] * 3), primitive_matrix=np.eye(3), log_level=0)
    lattice = np.linalg.inv(constants.supercell.lattice)
    away = (made.supercell.positions[:, None] - constants.supercell.positions[None]) @ lattice
    order = np.abs(away - np.rint(away)).max(axis=2).argmin(axis=1)
    made.force_constants = np.ascontiguousarray(constants.dense()[:, order])
    return made


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[2, 3, 4, 5], help="cells along each vector")
    parser.add_argument("--points", type=int, default=200, help="wave vectors of a path")
    parser.add_argument("--rounds", type=int, default=3, help="of which the shortest time is taken")
    given = parser.parse_args()
    root = MPI.COMM_WORLD.rank == 0
    if root:
        if phonopy is None:
            print("phonopy is not installed: its columns are left out")
        print("crystal  cells  calls  certified     bound  us a q  phonopy  difference")
    for name, atoms, path in solids():
        for size in given.sizes:
            constants = sh.force_constants(atoms, size)
            solid = sh.phonons(constants)
            q = solid.bands(path, given.points).path.q
            modes, ours = best(given.rounds, lambda solid=solid, q=q: solid.at(q))
            line = f"{name:7}  {size**3:5}  {constants.evaluations:5}  {modes.certified.sum():5}/{len(q):<3}"
            line += f"  {modes.bounds.max() / modes.scale:8.1e}  {1e6 * ours / len(q):6.0f}"
            if root and phonopy is not None:
                other = theirs(solid.constants, atoms, size)
                _, needed = best(given.rounds, lambda other=other, q=q: other.run_qpoints(q))
                found = np.asarray(other.qpoints.frequencies) / other.unit_conversion_factor
                apart = (
                    np.abs(np.sign(found) * found**2 - modes.eigenvalues).max() / np.abs(modes.eigenvalues).max()
                )
                line += f"  {1e6 * needed / len(q):7.0f}  {apart:10.1e}"
            if root:
                print(line, flush=True)


if __name__ == "__main__":
    main()
