"""Bending of a steel cantilever
=============================
A steel cantilever by finite elements: stiffness and mass from scikit-fem, frequencies in Hz.

The first bending frequencies of a slender beam clamped at one end are those of Euler and Bernoulli,
f_i = β_i² / (2π) sqrt(E I / (ρ A L⁴)) with β = 1.8751, 4.6941, 7.8548 (Blevins 1979, table 8-1).
The gradient of the elastic energy at displacement u is K u; fixed dofs are removed, not penalised.

::

    mpiexec -n 2 sparsehess eigs drivers/cantilever.py:cantilever -k 6
"""

from math import pi, sqrt

import numpy as np
import skfem
from skfem.helpers import ddot, dot, eye, sym_grad, trace

import sparsehess as sh
from sparsehess.derivatives.units import Units

STEEL = {"young": 210e9, "poisson": 0.3, "density": 7850.0}  # Pa, 1, kg/m³
BETA = (1.875104, 4.694091, 7.854757)


def matrices(length=1.0, height=0.04, width=0.06, cells=20, young=210e9, poisson=0.3, density=7850.0):
    """Return K in N/m and M in kg of the free dofs, by 27-node bricks; the beam lies along x."""
    mesh = skfem.MeshHex.init_tensor(
        np.linspace(0, length, cells + 1), np.linspace(0, width, 3), np.linspace(0, height, 3)
    )
    basis = skfem.Basis(mesh, skfem.ElementVector(skfem.ElementHex2()), intorder=4)
    lame, shear = young * poisson / ((1 + poisson) * (1 - 2 * poisson)), young / (2 * (1 + poisson))

    @skfem.BilinearForm
    def stiffness(u, v, w):
        strain = sym_grad(u)
        return ddot(lame * eye(trace(strain), 3) + 2 * shear * strain, sym_grad(v))

    @skfem.BilinearForm
    def mass(u, v, w):
        return density * dot(u, v)

    free = basis.complement_dofs(basis.get_dofs(lambda x: np.isclose(x[0], 0.0)))
    K, M = stiffness.assemble(basis), mass.assemble(basis)
    return K[free][:, free].tocsr(), M[free][:, free].tocsr()


def theory(length=1.0, height=0.04, width=0.06, young=210e9, density=7850.0):
    """Return the first bending frequencies in Hz, about both axes, ascending."""
    frequencies = [
        beta**2 / (2 * pi) * sqrt(young * side**2 / 12 / (density * length**4))
        for beta in BETA
        for side in (height, width)
    ]
    return np.sort(frequencies)


def cantilever(comm=None, cells=20, **sizes):
    """Return the beam as a problem: gradient K u at rest, mass M, eigenvalues (2πf)²."""
    K, M = matrices(cells=cells, **sizes)
    return sh.Objective(
        x=np.zeros(K.shape[0]),
        gradient=lambda u: K @ u,
        pattern=sh.Pattern.from_scipy(K, comm=comm, source="finite elements"),
        mass=M,
        units=Units.of("J", "m", "kg", "Hz"),
        name=f"steel cantilever ({K.shape[0]} dofs)",
        comm=comm,
    )


if __name__ == "__main__":
    K, M = matrices()
    with sh.eigs(K, 4, mass=M) as modes:
        print("computed:", np.sqrt(modes.eigenvalues) / (2 * pi), "Hz")
        print("theory:  ", theory()[:4], "Hz")
