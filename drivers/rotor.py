"""A rotor
=======
Whirling of an overhung rotor over its speed: gyroscopic moments part each mode in a forward and a backward one, a
Campbell diagram shows where an unbalance excites them, and damping in the shaft makes one grow beyond a speed.

A disk on the end of a shaft that is clamped at the other. With z = v + iw, the deflections in two planes, and the
speed Ω, M z'' + (αM + ηK - iΩP) z' + (1 - iηΩ) K z = 0: P are polar moments of inertia, η is damping in the shaft,
which turns with it, α damping at rest. Of a shaft without mass the frequencies are the roots of a quartic (R. B.
Green 1948, Journal of Applied Mechanics 15, 369-376).

::

    mpiexec -n 2 python drivers/rotor.py
"""

from mpi4py import MPI

import numpy as np
import scipy.sparse as sp

import sparsehess as sh

# %%
# Matrices
# --------
# Cubic beam elements with rotary inertia, in each plane deflection and slope. In real numbers i is a turn by 90°
# from v to w: skew-symmetric matrices of what is multiplied by it.

E, DENSITY, LENGTH, RADIUS = 2.1e11, 7850.0, 0.5, 0.02  # steel, m
DISK = {"mass": 20.0, "diametral": 0.2, "polar": 0.4}  # kg, kg m²
AT_REST, IN_SHAFT = 0.45, 2e-5  # α in 1/s, η in s
TURN = np.array([[0.0, -1.0], [1.0, 0.0]])


def shaft(cells, density=DENSITY, length=LENGTH):
    """Return stiffness, mass and diametral inertia of a free shaft in one plane."""
    h, size = length / cells, 2 * cells + 2
    area, moment = np.pi * RADIUS**2, np.pi * RADIUS**4 / 4
    K, M, tilting = (sp.lil_matrix((size, size)) for _ in range(3))
    points, weights = np.polynomial.legendre.leggauss(4)
    for cell in range(cells):
        at = np.ix_(range(2 * cell, 2 * cell + 4), range(2 * cell, 2 * cell + 4))
        for s, weight in zip((points + 1) / 2, weights * h / 2, strict=True):
            value = [1 - 3 * s**2 + 2 * s**3, h * (s - 2 * s**2 + s**3), s**2 * (3 - 2 * s), h * (s**3 - s**2)]
            slope = [(6 * s**2 - 6 * s) / h, 1 - 4 * s + 3 * s**2, (6 * s - 6 * s**2) / h, 3 * s**2 - 2 * s]
            bend = [(12 * s - 6) / h**2, (6 * s - 4) / h, (6 - 12 * s) / h**2, (6 * s - 2) / h]
            K[at] += weight * E * moment * np.outer(bend, bend)
            M[at] += weight * density * area * np.outer(value, value)
            tilting[at] += weight * density * moment * np.outer(slope, slope)
    return [one.tocsr() for one in (K, M, tilting)]


def rotor(cells=20, density=DENSITY, at_rest=0.0, in_shaft=0.0):
    """Return a function of the speed that gives K, M, C, G and N of the overhung rotor."""
    K, M, tilting = (one[2:, 2:] for one in shaft(cells, density))
    disk, polar = (sp.lil_matrix(K.shape) for _ in range(2))
    disk[-2, -2], disk[-1, -1], polar[-1, -1] = DISK["mass"], DISK["diametral"], DISK["polar"]
    M, polar = M + tilting + disk, 2 * tilting + polar
    return lambda speed: in_two_planes(K, M, polar, speed, at_rest, in_shaft)


def in_two_planes(K, M, polar, speed, at_rest, in_shaft):
    """Return K, M, C, G and N of both planes."""
    straight, across = np.eye(2), -speed * TURN
    parts = (K, straight), (M, straight), (at_rest * M + in_shaft * K, straight), (polar, across)
    return [sp.kron(*one).tocsr() for one in (*parts, (in_shaft * K, across))]


def modes(matrices, k=4, comm=MPI.COMM_SELF):
    """Return λ of the k modes of lowest |λ| in rad/s, which way each whirls, and whether they are counted."""
    K, M, C, G, N = matrices
    with sh.damped_modes(K, M, C, G, k, circulatory=N, comm=comm) as found:
        return found.eigenvalues, found.whirl, found.count.certified


# %%
# Over the speed
# --------------
# Without damping each set of modes is counted: none is missing. An unbalance turns with the shaft, and meets the
# forward modes where their frequency is the speed. Damping in the shaft feeds what whirls slower than it turns:
# the first forward mode grows from Ω = ω (1 + αm/(ηk)) on, with m = xᴴMx and k = xᴴKx of the mode.

SPEEDS = np.linspace(0.0, 600.0, 31)  # rad/s


def over_speeds(at, comm=MPI.COMM_SELF, speeds=SPEEDS):
    """Return λ (speeds, 4), which way each whirls, and whether all are counted."""
    found = [modes(at(speed), comm=comm) for speed in speeds]
    return np.array([one[0] for one in found]), np.array([one[1] for one in found]), all(one[2] for one in found)


if __name__ == "__main__":
    comm = MPI.COMM_WORLD
    free, whirl, counted = over_speeds(rotor(), comm)
    damped, way, _ = over_speeds(rotor(at_rest=AT_REST, in_shaft=IN_SHAFT), comm, SPEEDS[1:])
    if comm.rank == 0:
        print(f"every set of modes without damping is counted: {counted}")
        import matplotlib.pyplot as plt

        _, axes = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
        rpm = SPEEDS * 30 / np.pi
        for name, mark in (("forward", "^"), ("backward", "v"), ("", "o")):
            speed, mode = np.nonzero(whirl == name)
            label = name or "at rest"
            axes[0].plot(rpm[speed], free.imag[speed, mode] / (2 * np.pi), mark, ms=5, label=label)
            if name:
                growth = [values.real[one == name][0] for values, one in zip(damped, way, strict=True)]
                axes[1].plot(rpm[1:], growth, f"{mark}-", ms=5, label=f"first {name} mode")
        axes[0].plot(rpm, SPEEDS / (2 * np.pi), "--", color="0.5", label="unbalance, once a turn")
        axes[0].set(xlabel="speed in rpm", ylabel="frequency in Hz", title="Campbell diagram", ylim=(0, None))
        axes[1].axhline(0.0, color="0.5", lw=1)
        axes[1].set(xlabel="speed in rpm", ylabel="growth Re λ in 1/s", title="Damping in the shaft")
        for axis in axes:
            axis.legend()
        plt.show()
