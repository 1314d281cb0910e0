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
        name=f"elastic network of {Path(file).name} ({len(coordinates)} atoms, {len(pairs)} springs)",
        comm=comm,
    )


if __name__ == "__main__":
    from mpi4py import MPI

    with sh.assemble(protein(MPI.COMM_WORLD)) as hessian, sh.eigs(hessian, 10) as modes:
        if MPI.COMM_WORLD.rank == 0:
            print("frequencies in cm^-1:", hessian.objective.units.of_eigenvalues(modes.eigenvalues))
