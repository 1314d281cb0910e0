"""Softest motions of a protein
============================
Elastic network of a protein: springs between all atoms closer than a cut-off.

Tirion, "Large amplitude elastic motions in proteins from a single-parameter, atomic analysis",
Phys. Rev. Lett. 77, 1905 (1996). The energy is E(x) = Σ γ/2 (‖x_i - x_j‖ - d_ij)², d_ij the
distance in the given structure, so the structure is a minimum and six modes are rigid.

::

    mpiexec -n 2 sparsehess eigs drivers/elastic_network.py:protein -k 12
    sparsehess eigs drivers/elastic_network.py:protein --set file=my.pdb --set cutoff=7.0
"""

from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

import sparsehess as sh
from sparsehess.derivatives.units import Units

# %%
# Structure, springs, forces
# --------------------------

ENOLASE = Path(__file__).parent / "structures" / "3enl.pdb"
MASSES = {
    "H": 1.008,
    "C": 12.011,
    "N": 14.007,
    "O": 15.999,
    "P": 30.974,
    "S": 32.06,
    "FE": 55.845,
    "ZN": 65.38,
}


def read_structure(file):
    """Return elements and coordinates (atoms, 3) in Å of a PDB or XYZ file, without hydrogens."""
    elements, coordinates = [], []
    lines = Path(file).read_text().splitlines()
    if Path(file).suffix.lower() == ".xyz":
        for line in lines[2 : 2 + int(lines[0])]:
            element, *position = line.split()[:4]
            elements.append(element.upper())
            coordinates.append([float(number) for number in position])
    else:
        for line in lines:
            if line.startswith(("ATOM  ", "HETATM")) and line[16] in " A":
                elements.append((line[76:78].strip() or line[12:14].strip(" 0123456789")).upper())
                coordinates.append([float(line[start : start + 8]) for start in (30, 38, 46)])
            elif line.startswith("ENDMDL"):
                break
    heavy = np.array([element != "H" for element in elements], bool)
    if not heavy.any():
        raise ValueError(f"{file} has no atoms")
    return [element for element, keep in zip(elements, heavy, strict=True) if keep], np.array(coordinates)[heavy]


def network(coordinates, pairs, stiffness=1.0):
    """Return the gradient of the springs' energy as a function of the flat coordinates."""
    i, j = pairs.T
    rest = np.linalg.norm(coordinates[i] - coordinates[j], axis=1)
    atoms = len(coordinates)

    def gradient(x):
        position = x.reshape(atoms, 3)
        bond = position[i] - position[j]
        length = np.sqrt(np.einsum("ij,ij->i", bond, bond))
        force = (stiffness * (1.0 - rest / length))[:, None] * bond
        total = np.empty((atoms, 3))
        for axis in range(3):
            total[:, axis] = np.bincount(i, force[:, axis], atoms) - np.bincount(j, force[:, axis], atoms)
        return total.ravel()

    return gradient


# %%
# The problem
# -----------
# Springs are at rest in the given structure, so the six rigid motions are null vectors, known exactly. They are
# projected out: what is returned are vibrations.


def protein(comm=None, file=ENOLASE, cutoff=6.0, stiffness=1.0):
    """Return the network of a structure file; cut-off in Å, stiffness in kcal/mol/Å²."""
    elements, coordinates = read_structure(file)
    pairs = cKDTree(coordinates).query_pairs(cutoff, output_type="ndarray")
    rigid, names = sh.rigid_body_modes(coordinates)
    mass = np.repeat([MASSES.get(element, 12.0) for element in elements], 3)
    return sh.Objective(
        x=coordinates.ravel(),
        gradient=network(coordinates, pairs, stiffness),
        pattern=sh.Pattern.from_edges(pairs, len(coordinates), dofs=3, comm=comm, source="neighbour list"),
        mass=mass,
        null_vectors=rigid,
        null_names=names,
        units=Units.of("kcal/mol", "angstrom", "amu", "cm^-1"),
        geometry=sh.Geometry(coordinates, species=elements),
        name=f"elastic network of {Path(file).stem} ({len(coordinates)} atoms, {len(pairs)} springs)",
        comm=comm,
    )


# %%
# The softest motions
# -------------------
# Some of the lowest modes are of a few loosely held atoms, others of whole domains. What part of the atoms
# moves tells them apart: exp(-Σ p log p) / n, with p the share of each atom in the squared displacements
# (Brüschweiler, J. Chem. Phys. 102, 3396 (1995)). The picture shows the mode in which most atoms move.


def collectivity(mode):
    """Return the part of the atoms that moves in a mode (atoms, 3), 1 where all move equally far."""
    share = np.square(mode).sum(axis=1)
    share = share[share > 0] / share.sum()
    return np.exp(-share @ np.log(share)) / len(mode)


def draw(frequencies, modes, positions):
    """Draw the frequencies, and the structure from its broad side, with the displacements of a mode."""
    import matplotlib.pyplot as plt

    moving = 100 * np.array([collectivity(mode) for mode in modes])
    chosen = moving.argmax()
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.4), layout="constrained", width_ratios=(2, 3))
    number = np.arange(1, len(frequencies) + 1)
    left.vlines(number, 0, frequencies, color="0.8", lw=3)
    shown = left.scatter(number, frequencies, c=moving, cmap="plasma", vmin=0, zorder=3)
    left.set(xlabel="mode", ylabel="frequency (cm⁻¹)", title="Lowest vibrations", xticks=number, ylim=(0, None))
    figure.colorbar(shown, ax=left, label="atoms that move (%)", location="bottom")
    centred = positions - positions.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)  # longest first
    x, y = (centred @ axes[:2].T).T
    u, v = (modes[chosen] @ axes[:2].T).T
    length = np.linalg.norm(modes[chosen], axis=1)
    length = np.minimum(length / np.quantile(length, 0.99), 1)
    shown = right.scatter(x, y, c=length, s=8, cmap="viridis", edgecolors="none")
    right.quiver(x[::25], y[::25], u[::25], v[::25], color="C3", width=0.003)
    right.set(xlabel="along the longest axis (Å)", ylabel="across (Å)", aspect="equal")
    right.set_title(f"Mode {chosen + 1}, {frequencies[chosen]:.2f} cm⁻¹")
    figure.colorbar(shown, ax=right, label="displacement (furthest hundredth = 1)")
    plt.show()


if __name__ == "__main__":
    from mpi4py import MPI

    with sh.assemble(protein(MPI.COMM_WORLD)) as hessian, sh.eigs(hessian, 10) as modes:
        network, (eigenvalues, vectors) = hessian.objective, modes.to_numpy("root")
        if MPI.COMM_WORLD.rank == 0:
            frequencies = network.units.of_eigenvalues(eigenvalues)
            print(f"{sum(hessian.evaluations.values())} gradients for {network.n} variables")
            print("frequencies in cm^-1:", frequencies.round(3))
            print(modes.count.found, "found,", modes.count.inertia, "counted, certified:", modes.count.certified)
            draw(frequencies, vectors.T.reshape(10, -1, 3), network.x.reshape(-1, 3))
