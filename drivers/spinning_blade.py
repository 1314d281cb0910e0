"""A spinning blade
================
Frequencies of a blade over its speed: centrifugal forces stiffen it, modes cross and veer, and a Campbell diagram
shows where the rotation excites them.

A slender blade of length 1, mass 1 and bending stiffness 1 out of its chord turns with the speed Ω about a hub at
its root. Seen in the rotating frame (K + Ω² (Kc - Ms)) x = ω² M x: Kc is the tension of the blade, Ms the mass
that moves in the plane of rotation, which the rotation pulls outwards. Frequencies of flapping are known: 3.5160,
3.6817 and 13.1702 at Ω = 0, 1 and 12 (Wright, Smith, Thresher and Wang 1982, Journal of Applied Mechanics 49,
197-202).

::

    mpiexec -n 2 python drivers/spinning_blade.py
"""

from mpi4py import MPI

import numpy as np
import scipy.sparse as sp

import sparsehess as sh

# %%
# Matrices
# --------
# Cubic beam elements; at each node deflection and slope, each out of the chord and along it, where the blade is
# stiffer. With a pitch the chord leaves the plane of rotation, and neither flapping nor swinging is a mode.

WRIGHT = {0: 3.5160, 1: 3.6817, 2: 4.1373, 5: 6.4495, 12: 13.1702}


def shapes(s, h):
    """Return values, first and second derivatives of the four shapes at s of an element, each (4,)."""
    values = [1 - 3 * s**2 + 2 * s**3, h * (s - 2 * s**2 + s**3), 3 * s**2 - 2 * s**3, h * (s**3 - s**2)]
    slopes = [6 * s**2 - 6 * s, h * (1 - 4 * s + 3 * s**2), 6 * s - 6 * s**2, h * (3 * s**2 - 2 * s)]
    bends = [12 * s - 6, h * (6 * s - 4), 6 - 12 * s, h * (6 * s - 2)]
    return np.array(values), np.array(slopes) / h, np.array(bends) / h**2


def beam(cells):
    """Return bending stiffness, stiffness by the tension (1 - x²) / 2, and mass of a clamped beam."""
    h, size = 1.0 / cells, 2 * cells + 2
    bending, tension, mass = (sp.lil_matrix((size, size)) for _ in range(3))
    points, weights = np.polynomial.legendre.leggauss(5)
    for cell in range(cells):
        dofs = np.ix_(range(2 * cell, 2 * cell + 4), range(2 * cell, 2 * cell + 4))
        for s, weight in zip((points + 1) / 2, weights * h / 2, strict=True):
            value, slope, bend = shapes(s, h)
            bending[dofs] += weight * np.outer(bend, bend)
            tension[dofs] += weight * (1 - ((cell + s) * h) ** 2) / 2 * np.outer(slope, slope)
            mass[dofs] += weight * np.outer(value, value)
    return [one.tocsr()[2:, 2:] for one in (bending, tension, mass)]


def blade(cells=40, stiffer=12.0, pitch=0.0):
    """Return a function of the speed that gives (K, M), `stiffer` times as stiff along the chord."""
    bending, tension, mass = beam(cells)
    K = sp.kron(bending, np.diag([1.0, stiffer]))
    Kc, M = sp.kron(tension, np.eye(2)), sp.kron(mass, np.eye(2)).tocsr()
    plane = np.array([np.sin(pitch), np.cos(pitch)])  # of the rotation, seen from the chord
    Ms = sp.kron(mass, np.outer(plane, plane))
    return lambda speed: ((K + speed**2 * (Kc - Ms)).tocsr(), M)


# %%
# Modes over the speed
# --------------------
# `follow` solves at some speeds, and at more of them where modes cross or veer: without pitch flapping passes
# through swinging; with pitch both avoid each other, and exchange.

SPEEDS = np.linspace(0.0, 14.0, 15)


def campbell(pitch, comm=MPI.COMM_SELF, cells=40):
    """Return the three lowest modes over the speed."""
    return sh.follow(blade(cells, pitch=pitch), SPEEDS, k=3, comm=comm)


def slope_of_first(speed, cells=40, comm=MPI.COMM_SELF):
    """Return how the first frequency changes with the speed, from a difference of the matrices."""
    K, M = blade(cells)(speed)
    with sh.eigs(K, 2, mass=M, comm=comm) as found, sh.matrix_derivative(blade(cells), speed, comm=comm) as change:
        slopes = sh.eigenvalue_derivatives(K, found, change, mass=M, comm=comm)
    return slopes.values[0] / (2 * np.sqrt(found.eigenvalues[0]))


if __name__ == "__main__":
    comm = MPI.COMM_WORLD
    found = [campbell(pitch, comm) for pitch in (0.0, 0.1)]
    slope = slope_of_first(5.0, comm=comm)
    if comm.rank == 0:
        first = dict(zip(found[0].values, found[0].frequencies()[:, 0], strict=True))
        for speed, known in WRIGHT.items():
            print(f"speed {speed:2}: {first[speed]:.4f}, Wright {known:.4f}")
        print(f"the first frequency rises by {slope:.4f} for each unit of speed at 5")
        print(found[0].table(), found[1].table(), sep="\n\n")
        import matplotlib.pyplot as plt

        _, axes = plt.subplots(1, 2, figsize=(11, 4.6), sharey=True, layout="constrained")
        for axis, modes, title in zip(axes, found, ("without pitch", "pitch 0.1"), strict=True):
            modes.draw(axis, orders=(1, 2, 3))
            axis.set(xlabel="speed Ω", title=title)
        plt.show()
