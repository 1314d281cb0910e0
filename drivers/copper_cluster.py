"""Vibrations of copper clusters and rods
======================================
Copper by ASE's effective medium theory: relaxed clusters and five-fold twinned rods, free in space.

Jacobsen, Stoltze and Nørskov, "A semi-empirical effective medium theory for metals and alloys",
Surf. Sci. 366, 394 (1996). An atom's energy depends on the density that its neighbours make, so two
atoms are coupled where some atom has both of them as neighbours: up to twice the cut-off apart.
That is nearly everybody in a small cluster, and few in a rod, where coloured gradients save the most.

::

    mpiexec -n 2 sparsehess eigs drivers/copper_cluster.py:cluster -k 12
    mpiexec -n 2 sparsehess eigs drivers/copper_cluster.py:rod --set length=40 -k 12
"""

import numpy as np
from ase.calculators.emt import EMT
from ase.cluster import Decahedron, Icosahedron
from ase.neighborlist import neighbor_list
from ase.optimize import BFGSLineSearch

import sparsehess as sh
from sparsehess.derivatives.units import Units

SKIN = 0.1  # Å: pairs that a step could bring within the cut-off belong to the pattern too


def neighbourhoods(atoms, cutoff):
    """Return (atoms, most) numbers: of each atom itself and its neighbours, -1 where it has fewer."""
    i, j = neighbor_list("ij", atoms, cutoff)  # ascending in i
    counts = np.bincount(i, minlength=len(atoms))
    table = np.full((len(atoms), 1 + counts.max(initial=0)), -1)
    table[:, 0] = np.arange(len(atoms))
    table[i, 1 + np.arange(len(i)) - np.repeat(np.cumsum(counts) - counts, counts)] = j
    return table


def vibrations(atoms, comm=None, fmax=1e-6):
    """Return the vibrations of a free group of atoms that EMT knows, relaxed to forces below fmax eV/Å."""
    atoms = atoms.copy()  # the gradient moves these, and nobody else's
    atoms.calc = EMT()
    with BFGSLineSearch(atoms, logfile=None) as search:
        if not search.run(fmax=fmax, steps=5000):
            raise ValueError(f"{atoms.get_chemical_formula()} did not relax to {fmax} eV/Å")
    relaxed = atoms.get_positions()
    if comm is not None:
        comm.Bcast(relaxed)  # to the last bit the same on every rank, whatever its processor
    elements = neighbourhoods(atoms, atoms.calc.rc_list + SKIN)

    def gradient(x):
        atoms.set_positions(x.reshape(-1, 3))
        return -atoms.get_forces().ravel()

    def energy(x):
        atoms.set_positions(x.reshape(-1, 3))
        return atoms.get_potential_energy()

    return sh.Objective(
        x=relaxed.ravel(),
        gradient=gradient,
        energy=energy,
        pattern=sh.Pattern.from_elements(elements, len(atoms), dofs=3, comm=comm, source="neighbourhoods"),
        mass=np.repeat(atoms.get_masses(), 3),
        projected=lambda x: sh.rigid_body_modes(x.reshape(-1, 3)),  # null vectors at rest alone
        units=Units.of("eV", "angstrom", "amu", "cm^-1"),
        name=f"{atoms.get_chemical_formula()} by EMT",
        comm=comm,
    )


def cluster(comm=None, shells=3, fmax=1e-6):
    """Return an icosahedron of this many shells: 13, 55, 147, 309, ... atoms."""
    return vibrations(Icosahedron("Cu", shells), comm, fmax)


def rod(comm=None, width=2, length=20, fmax=1e-6):
    """Return a pentagonal rod; `width` and `length` are those of its (100) faces, in atoms."""
    atoms = Decahedron("Cu", width, length, 0)
    atoms.rattle(0.02, seed=1)  # the thinnest rod is unstable while it is quite regular
    return vibrations(atoms, comm, fmax)


if __name__ == "__main__":
    from mpi4py import MPI

    with sh.assemble(rod(MPI.COMM_WORLD)) as hessian, sh.eigs(hessian, 12) as modes:
        if MPI.COMM_WORLD.rank == 0:
            gradients, columns = sum(hessian.evaluations.values()), 2 * hessian.objective.n
            print(f"{gradients} gradients instead of {columns}")
            print("frequencies in cm^-1:", hessian.objective.units.of_eigenvalues(modes.eigenvalues))
