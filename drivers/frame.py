"""Space frame: buckling and frequencies
=====================================

A tower of beams under a load on its top and torsion of its members: how many times the load may grow before
it buckles, in which direction, and how its frequencies fall on the way there.

Beams are Hermite's, with the geometric stiffness of their axial force; K, Kg and M are assembled here, as a
finite-element code would write them.
"""

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla

import sparsehess as sh

E, G, RHO = 210e9, 81e9, 7850.0  # steel: Pa, Pa, kg/m³
AREA, IY, IZ, J = 2e-3, 2e-6, 2e-6, 4e-6  # a square tube: m², m⁴


def bending(stiffness, axial, mass, length):
    """Return 4 x 4 stiffness, geometric stiffness and mass of w, θ at both ends, θ = dw/dx."""
    L = length
    k = stiffness / L**3 * np.array([[12, 6 * L, -12, 6 * L], [0, 4 * L**2, -6 * L, 2 * L**2], [0, 0, 12, -6 * L],
                                     [0, 0, 0, 4 * L**2]])  # fmt: skip
    g = axial / (30 * L) * np.array([[36, 3 * L, -36, 3 * L], [0, 4 * L**2, -3 * L, -(L**2)], [0, 0, 36, -3 * L],
                                     [0, 0, 0, 4 * L**2]])  # fmt: skip
    m = mass * L / 420 * np.array([[156, 22 * L, 54, -13 * L], [0, 4 * L**2, 13 * L, -3 * L**2],
                                   [0, 0, 156, -22 * L], [0, 0, 0, 4 * L**2]])  # fmt: skip
    return [one + np.triu(one, 1).T for one in (k, g, m)]


def beam(start, end, axial):
    """Return 12 x 12 K, Kg, M of a beam between two points with an axial force, tension positive."""
    along = end - start
    L = np.linalg.norm(along)
    x = along / L
    y = np.cross([0.0, 0.0, 1.0] if abs(x[2]) < 0.9 else [0.0, 1.0, 0.0], x)
    axes = np.array([x, y / np.linalg.norm(y), np.cross(x, y / np.linalg.norm(y))])
    whole = np.zeros((3, 12, 12))
    rod = np.array([[1.0, -1.0], [-1.0, 1.0]])
    polar = (IY + IZ) / AREA  # of the Wagner effect, by which an axial force softens torsion
    whole[np.ix_([0], [0, 6], [0, 6])] = E * AREA / L * rod
    whole[np.ix_([0], [3, 9], [3, 9])] = G * J / L * rod
    whole[np.ix_([1], [3, 9], [3, 9])] = axial * polar / L * rod
    whole[np.ix_([2], [0, 6], [0, 6])] = RHO * AREA * L / 6 * (np.eye(2) + 1)
    whole[np.ix_([2], [3, 9], [3, 9])] = RHO * (IY + IZ) * L / 6 * (np.eye(2) + 1)
    for dofs, inertia, side in (([1, 5, 7, 11], IZ, 1.0), ([2, 4, 8, 10], IY, -1.0)):
        turn = np.array([1.0, side, 1.0, side])
        for i, part in enumerate(bending(E * inertia, axial, RHO * AREA, L)):
            whole[np.ix_([i], dofs, dofs)] += turn[:, None] * part * turn
    T = np.kron(np.eye(4), axes)
    return [T.T @ one @ T for one in whole]


def assemble(nodes, members, forces):
    """Return sparse K, Kg, M of beams between nodes (n, 3) with axial forces, six dofs a node."""
    n, places, entries = 6 * len(nodes), [], []
    for (a, b), force in zip(members, forces, strict=True):
        places.append(np.r_[6 * a : 6 * a + 6, 6 * b : 6 * b + 6])
        entries.append(beam(nodes[a], nodes[b], force))
    rows = np.repeat(places, 12, axis=1).ravel()
    columns = np.tile(places, (1, 12)).ravel()
    return [sp.csr_matrix((np.ravel([e[i] for e in entries]), (rows, columns)), (n, n)) for i in range(3)]


def tower(storeys=4, pieces=2, height=3.0, width=2.0):
    """Return nodes and members of a braced tower; members are cut into pieces."""
    corners = width * np.array([[0, 0], [1, 0], [1, 1], [0, 1.0]])
    nodes = [[*corner, height * level] for level in range(storeys + 1) for corner in corners]
    whole = [(4 * s + c, 4 * s + c + 4) for s in range(storeys) for c in range(4)]
    whole += [(4 * s + c, 4 * s + (c + 1) % 4) for s in range(1, storeys + 1) for c in range(4)]
    whole += [(4 * s, 4 * s + 5) for s in range(storeys)]  # one face is braced, so that the tower twists
    members = []
    for a, b in whole:
        inside = [len(nodes) + i for i in range(pieces - 1)]
        nodes += [list(p) for p in np.linspace(nodes[a], nodes[b], pieces + 1)[1:-1]]
        members += list(zip([a, *inside], [*inside, b], strict=True))
    return np.array(nodes), members


def model(storeys=4, pieces=2, load=1e4, side=2e3):
    """Return (K, Kg, M, free dofs) of a tower under a load down on each corner of its top, and one aside."""
    nodes, members = tower(storeys, pieces)
    K, _, M = assemble(nodes, members, np.zeros(len(members)))
    free = np.setdiff1d(np.arange(K.shape[0]), np.arange(24))
    force = np.zeros(K.shape[0])
    top = 4 * storeys + np.arange(4)
    force[6 * top + 2], force[6 * top[:2]] = -load, side
    u = np.zeros_like(force)
    u[free] = spla.spsolve(K[free][:, free].tocsc(), force[free])
    along = [nodes[b] - nodes[a] for a, b in members]
    stretch = [d @ (u[6 * b : 6 * b + 3] - u[6 * a : 6 * a + 3]) for (a, b), d in zip(members, along, strict=True)]
    axial = [E * AREA * s / (d @ d) for s, d in zip(stretch, along, strict=True)]
    _, Kg, _ = assemble(nodes, members, axial)
    return *(one[free][:, free].tocsr() for one in (K, Kg, M)), free


if __name__ == "__main__":
    import matplotlib.pyplot as plt

    # %%
    # Load factors of either sign, and how many there are up to the last one by inertia.
    K, Kg, M, _ = model()
    with sh.buckling(K, Kg, 6) as found:
        print(found.load_factors, found.count)
        critical = found.critical
    # %%
    # Frequencies under a part of the load: the lowest comes to zero where the tower buckles.
    parts = np.linspace(0.0, 0.99, 12)
    squares = [sh.eigs(K + part * critical * Kg, 4, mass=M).eigenvalues for part in parts]
    plt.plot(parts, np.sqrt(squares) / (2 * np.pi), ".-")
    plt.xlabel(f"load over the critical load, {critical:.4g} times the given one")
    plt.ylabel("frequency (Hz)")
    plt.show()
