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
import scipy.sparse
from ase.calculators.emt import EMT
from ase.cluster import Decahedron, Icosahedron
from ase.neighborlist import neighbor_list
from ase.optimize import BFGSLineSearch

import sparsehess as sh
from sparsehess.derivatives.units import Units

# %%
# Which atoms are coupled
# -----------------------

SKIN = 0.1  # Å: pairs that a step could bring within the cut-off belong to the pattern too


def neighbourhoods(atoms, cutoff):
    """Return (atoms, most) numbers: of each atom itself and its neighbours, -1 where it has fewer."""
    i, j = neighbor_list("ij", atoms, cutoff)  # ascending in i
    counts = np.bincount(i, minlength=len(atoms))
    table = np.full((len(atoms), 1 + counts.max(initial=0)), -1)
    table[:, 0] = np.arange(len(atoms))
    table[i, 1 + np.arange(len(i)) - np.repeat(np.cumsum(counts) - counts, counts)] = j
    return table


# %%
# The problem
# -----------
# Forces that do not quite vanish turn rotations into something that is neither zero nor a vibration. So the
# rigid motions are projected out, whatever the Hessian says of them.


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
        geometry=sh.Geometry(relaxed.reshape(-1, 3), species=atoms.get_chemical_symbols()),
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


# %%
# A rod
# -----
# Colours pay off where each atom is coupled to a few others: the longer the rod, the more.


def draw(pattern, colors, positions, frequencies, modes):
    """Draw the pattern in its colours, and the rod in two modes."""
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(10, 4.6), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(4, 5))
    axis = left.subplots()
    entries = pattern.tocoo()
    axis.scatter(entries.col, entries.row, c=colors[entries.col], cmap="turbo", s=0.4, marker="s", rasterized=True)
    axis.set(xlabel="variable", ylabel="variable", aspect="equal", xlim=(0, len(colors)))
    axis.set(ylim=(len(colors), 0), title=f"Hessian in {colors.max() + 1} colours")
    x, y, z = positions.T
    rows = right.subplots(2, 1, sharex=True)
    for axis, number in zip(rows, (0, 2), strict=True):
        shift = modes[number].reshape(-1, 3)
        shift = 3 * shift / np.linalg.norm(shift, axis=1).max()  # the furthest atom moves 3 Å
        across = np.stack([x, y])[np.abs(shift[:, :2]).sum(axis=0).argmax()]
        along = shift[:, np.abs(shift[:, :2]).sum(axis=0).argmax()]
        axis.scatter(z, across, s=40, color="0.85")
        axis.scatter(z + shift[:, 2], across + along, s=40, c=np.linalg.norm(shift, axis=1), cmap="copper_r")
        axis.set(
            ylabel="across (Å)",
            aspect="equal",
            title=f"Mode {number + 1}, {frequencies[number]:.2f} cm⁻¹ (grey: at rest)",
        )
    rows[1].set_xlabel("along the rod (Å)")
    plt.show()


if __name__ == "__main__":
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    with sh.assemble(rod(comm)) as hessian, sh.eigs(hessian, 12) as modes:
        pattern = scipy.sparse.vstack(comm.allgather(hessian.pattern.to_scipy()))
        colors = np.concatenate(comm.allgather(hessian.coloring.colors))
        eigenvalues, vectors = modes.to_numpy("root")
        if comm.rank == 0:
            gradients, columns = sum(hessian.evaluations.values()), 2 * hessian.objective.n
            print(f"{gradients} gradients instead of {columns}")
            frequencies = hessian.objective.units.of_eigenvalues(eigenvalues)
            print("frequencies in cm^-1:", frequencies.round(2))
            print(modes.count.found, "found,", modes.count.inertia, "counted, certified:", modes.count.certified)
            draw(pattern, colors, hessian.objective.x.reshape(-1, 3), frequencies, vectors.T)
