"""Bending of a steel cantilever
=============================
A steel cantilever by finite elements: stiffness and mass from scikit-fem, frequencies in Hz.

The first bending frequencies of a slender beam clamped at one end are those of Euler and Bernoulli,
f_i = β_i² / (2π) sqrt(E I / (ρ A L⁴)) with β = 1.8751, 4.6941, 7.8548 (Blevins 1979, table 8-1).
The gradient of the elastic energy at displacement u is K u; fixed dofs are removed, not penalised.

::

    mpiexec -n 2 sparsehess eigs drivers/cantilever.py:cantilever -k 6
"""

from itertools import cycle
from math import pi, sqrt

import numpy as np
import skfem
from skfem.helpers import ddot, dot, eye, sym_grad, trace

import sparsehess as sh
from sparsehess.derivatives.units import Units
from sparsehess.hosts.skfem import surface

# %%
# Matrices
# --------
# A brick of 27 nodes bends without locking, so few of them are needed. The dofs of the clamped end are taken
# out.

STEEL = {"young": 210e9, "poisson": 0.3, "density": 7850.0}  # Pa, 1, kg/m³
BETA = (1.875104, 4.694091, 7.854757)


def discretised(length=1.0, height=0.04, width=0.06, cells=20):
    """Return the basis of 27-node bricks, and which dofs are free; the beam lies along x."""
    mesh = skfem.MeshHex.init_tensor(
        np.linspace(0, length, cells + 1), np.linspace(0, width, 3), np.linspace(0, height, 3)
    )
    basis = skfem.Basis(mesh, skfem.ElementVector(skfem.ElementHex2()), intorder=4)
    return basis, basis.complement_dofs(basis.get_dofs(lambda x: np.isclose(x[0], 0.0)))


def matrices(young=210e9, poisson=0.3, density=7850.0, **sizes):
    """Return K in N/m and M in kg of the free dofs."""
    basis, free = discretised(**sizes)
    lame, shear = young * poisson / ((1 + poisson) * (1 - 2 * poisson)), young / (2 * (1 + poisson))

    @skfem.BilinearForm
    def stiffness(u, v, w):
        strain = sym_grad(u)
        return ddot(lame * eye(trace(strain), 3) + 2 * shear * strain, sym_grad(v))

    @skfem.BilinearForm
    def mass(u, v, w):
        return density * dot(u, v)

    K, M = stiffness.assemble(basis), mass.assemble(basis)
    return K[free][:, free].tocsr(), M[free][:, free].tocsr()


# %%
# Theory, and the problem
# -----------------------
# What is wanted of the command line, ``cantilever``, is an objective: a gradient, its pattern, the mass, and
# units.


def theory(length=1.0, height=0.04, width=0.06, young=210e9, density=7850.0):
    """Return the first bending frequencies in Hz, about both axes, ascending."""
    frequencies = [
        beta**2 / (2 * pi) * sqrt(young * side**2 / 12 / (density * length**4))
        for beta in BETA
        for side in (height, width)
    ]
    return np.sort(frequencies)


def cantilever(comm=None, young=210e9, poisson=0.3, density=7850.0, **sizes):
    """Return the beam as a problem: gradient K u at rest, mass M, eigenvalues (2πf)²."""
    K, M = matrices(young, poisson, density, **sizes)
    return sh.Objective(
        x=np.zeros(K.shape[0]),
        gradient=lambda u: K @ u,
        pattern=sh.Pattern.from_scipy(K, comm=comm, source="finite elements"),
        mass=M,
        units=Units.of("J", "m", "kg", "Hz"),
        geometry=surface(*discretised(**sizes)),
        name=f"steel cantilever ({K.shape[0]} dofs)",
        comm=comm,
    )


# %%
# Frequencies and shapes
# ----------------------
# Low modes are within half a percent of theory. Higher ones are softer than it says: shear takes part, which
# Euler and Bernoulli leave out.


def bending(vectors, **sizes):
    """Return places along the axis, and how far each mode bends there, scaled to 1, (modes, places)."""
    basis, free = discretised(**sizes)
    whole = np.zeros((len(vectors), basis.N))
    whole[:, free] = vectors
    y, z = np.median(basis.mesh.p[1:], axis=1)
    nodes = np.flatnonzero(np.isclose(basis.mesh.p[1], y) & np.isclose(basis.mesh.p[2], z))
    nodes = nodes[basis.mesh.p[0, nodes].argsort()]
    aside = whole[:, basis.nodal_dofs[1:, nodes]]  # (modes, 2, places)
    most = np.take_along_axis(aside, np.abs(aside).max(axis=2).argmax(axis=1)[:, None, None], axis=1)[:, 0]
    return basis.mesh.p[0, nodes], most / most[np.arange(len(most)), np.abs(most).argmax(axis=1)][:, None]


def draw(frequencies, vectors):
    """Draw frequencies beside those of theory, and the shapes of the modes."""
    import matplotlib.pyplot as plt

    _, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    number = np.arange(1, len(frequencies) + 1)
    left.plot(number, theory()[: len(number)], "_", ms=22, mew=2, color="C1", label="Euler and Bernoulli")
    left.plot(number, frequencies, "o", color="C0", label="27-node bricks")
    left.set(xlabel="mode", ylabel="frequency (Hz)", title="Bending frequencies", xticks=number, ylim=(0, None))
    left.legend()
    places, shapes = bending(vectors)
    for shape, frequency, line in zip(shapes, frequencies, cycle(("-", "--")), strict=False):
        right.plot(places, shape, line, label=f"{frequency:.1f} Hz")
    right.axhline(0, color="0.6", lw=0.8)
    right.set(xlabel="along the beam (m)", ylabel="deflection (largest = 1)", title="Shapes of the modes")
    right.legend()
    plt.show()


if __name__ == "__main__":
    K, M = matrices()
    with sh.eigs(K, 4, mass=M) as modes:
        frequencies = np.sqrt(modes.eigenvalues) / (2 * pi)
        print("computed:", frequencies.round(2), "Hz")
        print("theory:  ", theory()[:4].round(2), "Hz")
        print(modes.count.found, "found,", modes.count.inertia, "counted, certified:", modes.count.certified)
        draw(frequencies, modes.to_numpy()[1].T)
