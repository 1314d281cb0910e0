"""Phonons of argon
================
Lennard-Jones argon: a periodic crystal, or a free cluster, with a cut-off that is smooth.

Energies in ε, lengths in σ, masses in atoms. Between `inner` and `outer` the pair energy is taken
to zero by a polynomial with two continuous derivatives at both ends: a Hessian needs them (a plain
cut-off has a kink that shows in the verification).

::

    mpiexec -n 2 sparsehess eigs drivers/lennard_jones.py:crystal --set cells=6 -k 10
    mpiexec -n 2 sparsehess eigs drivers/lennard_jones.py:cluster --set radius=3.0 -k 10
"""

import numpy as np
from scipy.optimize import minimize
from scipy.spatial import cKDTree

import sparsehess as sh

# %%
# Energy and forces
# -----------------
# Pairs are summed in chunks; the pairs themselves are the pattern.

CHUNK = 2**20  # pairs at a time, so that a million atoms fit


class PairForces:
    """Energy and gradient of atoms whose interacting pairs are known."""

    def __init__(self, pairs, atoms, box=None, inner=2.0, outer=2.5):
        self.pairs, self.atoms, self.box = np.ascontiguousarray(pairs.T), atoms, box
        self.inner, self.outer = inner, outer

    def pair(self, square):
        """Return energy and (dE/dr) / r for squared distances."""
        r = np.sqrt(square)
        sixth = 1.0 / square**3
        energy = 4.0 * sixth * (sixth - 1.0)
        slope = -24.0 * sixth * (2.0 * sixth - 1.0) / square
        t = np.clip((r - self.inner) / (self.outer - self.inner), 0.0, 1.0)
        switch = 1.0 - t**3 * (10.0 - 15.0 * t + 6.0 * t**2)
        bend = -30.0 * t**2 * (1.0 - t) ** 2 / ((self.outer - self.inner) * r)
        return energy * switch, slope * switch + energy * bend

    def energy_and_gradient(self, x):
        position = x.reshape(self.atoms, 3)
        energy, total = 0.0, np.zeros((self.atoms, 3))
        for first in range(0, self.pairs.shape[1], CHUNK):
            i, j = self.pairs[:, first : first + CHUNK]
            bond = position[i] - position[j]
            if self.box is not None:
                bond -= self.box * np.rint(bond / self.box)
            pair_energy, slope = self.pair(np.einsum("ij,ij->i", bond, bond))
            energy += pair_energy.sum()
            bond *= slope[:, None]
            for axis in range(3):
                total[:, axis] += np.bincount(i, bond[:, axis], self.atoms)
                total[:, axis] -= np.bincount(j, bond[:, axis], self.atoms)
        return energy, total.ravel()

    def gradient(self, x):
        return self.energy_and_gradient(x)[1]

    def energy(self, x):
        return self.energy_and_gradient(x)[0]


def fcc(cells, spacing):
    """Return the positions (4 cells³, 3) of a face-centred cubic crystal."""
    corner = np.stack(np.meshgrid(*3 * [np.arange(cells)], indexing="ij"), axis=-1).reshape(-1, 1, 3)
    basis = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    return ((corner + basis) * spacing).reshape(-1, 3)


def objective(positions, forces, name, null_vectors, null_names, comm, skin=0.0):
    tree = cKDTree(positions if forces.box is None else positions % forces.box, boxsize=forces.box)
    pairs = tree.query_pairs(forces.outer + skin, output_type="ndarray")
    forces.pairs = np.ascontiguousarray(pairs.T)
    return sh.Objective(
        x=positions.ravel(),
        gradient=forces.gradient,
        energy=forces.energy,
        pattern=sh.Pattern.from_edges(pairs, len(positions), dofs=3, comm=comm, source="neighbour list"),
        null_vectors=null_vectors,
        null_names=null_names,
        typical_x=1.0,
        geometry=sh.Geometry(positions),
        name=name,
        comm=comm,
    )


# %%
# A crystal and a cluster
# -----------------------
# In a periodic box three translations cost nothing; a cluster that is free in space can also be turned. They
# are given as null vectors: checked, projected out, and counted.


def crystal(comm=None, cells=6, spacing=1.56, inner=2.0, outer=2.5):
    """Return a periodic crystal of 4 cells³ atoms; `spacing` is the edge of the cubic cell in σ."""
    if cells * spacing <= 2 * outer:
        raise ValueError(f"{cells} cells are too few for a cut-off of {outer}: an atom would meet its own image")
    positions = fcc(cells, spacing)
    forces = PairForces(np.empty((0, 2), int), len(positions), cells * spacing, inner, outer)
    translations = np.tile(np.eye(3), len(positions))
    names = ("translation x", "translation y", "translation z")
    return objective(positions, forces, f"argon crystal of {len(positions)} atoms", translations, names, comm)


def cluster(comm=None, radius=3.0, spacing=1.56, inner=2.0, outer=2.5):
    """Return a relaxed free cluster: the crystal's atoms within `radius` (in σ) of an atom."""
    positions = fcc(2 * int(radius / spacing + 2), spacing)
    centre = positions[np.linalg.norm(positions - positions.mean(axis=0), axis=1).argmin()]
    positions = positions[np.linalg.norm(positions - centre, axis=1) <= radius]
    every = np.stack(np.triu_indices(len(positions), 1), axis=1)
    forces = PairForces(every, len(positions), None, inner, outer)
    options = {"maxiter": 20000, "maxfun": 40000, "ftol": 0.0, "gtol": 1e-11, "maxcor": 50}
    relaxed = minimize(forces.energy_and_gradient, positions.ravel(), jac=True, method="L-BFGS-B", options=options)
    positions = relaxed.x.reshape(-1, 3)
    name = f"free argon cluster of {len(positions)} atoms, energy {relaxed.fun:.6f}"
    return objective(positions, forces, name, *sh.rigid_body_modes(positions), comm)


# %%
# Phonons
# -------
# The crystal of 500 atoms has few enough modes to compute them all. The density of the same matrix, estimated
# from products with random vectors, is what a crystal of millions of atoms would leave. Where the atoms differ
# by symmetry alone, eigenvalues come in multiplets: the count shows that none of them was missed.


def draw(frequencies, found, hessian):
    """Draw all frequencies beside the estimated density, and which entries of the Hessian have which colour."""
    import matplotlib.pyplot as plt

    _, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    _, edges, _ = left.hist(frequencies, bins=40, color="0.8", label=f"all {len(frequencies)} frequencies")
    omega = np.sqrt(np.maximum(found.grid, 0))
    bar = found.n * found.density * 2 * omega * (edges[1] - edges[0])  # dλ = 2 ω dω
    left.plot(omega, bar, color="C0", label=f"density, {found.products} products")
    left.set(xlabel="frequency (√(ε/mσ²))", ylabel="modes in a bar", title="Phonons of argon", ylim=(0, None))
    left.legend(loc="upper left")
    atoms = 24
    block = hessian.pattern.to_scipy().tocoo()
    near = (block.row < 3 * atoms) & (block.col < 3 * atoms)
    right.scatter(
        block.col[near], block.row[near], c=hessian.coloring.colors[block.col[near]], cmap="turbo", s=6, marker="s"
    )
    right.set(
        xlabel="variable",
        ylabel="variable",
        aspect="equal",
        title=f"First {atoms} atoms, in {hessian.coloring.count} colours",
    )
    right.invert_yaxis()
    plt.show()


if __name__ == "__main__":
    with sh.assemble(crystal(cells=5)) as hessian:
        n, gradients = hessian.objective.n, sum(hessian.evaluations.values())
        print(f"{gradients} gradients for {n} variables, {hessian.coloring.count} colours")
        found = sh.density(hessian, method="lanczos", samples=8, steps=60)
        with sh.eigs(hessian, n - 3, method="dense") as modes:
            print("lowest:", modes.eigenvalues[:6].round(4), "certified:", modes.count.certified)
            draw(np.sqrt(modes.eigenvalues), found, hessian)
