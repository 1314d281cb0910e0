"""A plate on a shaker
===================
Effective modal masses of a simply supported plate: which modes a moving support excites, and how many are needed.

Kirchhoff's plate of Morley's triangles, of scikit-fem: unknowns are deflections of vertices, slopes across edges.
Modes are products of sines, of ω = π² (p²/a² + q²/b²) sqrt(D / (ρ t)), and (p, q) carries 64 / (π⁴ p² q²) of the
mass if p and q are odd, and nothing else.

::

    mpiexec -n 2 sparsehess eigs drivers/plate.py:plate -k 6
"""

from math import pi, sqrt

import numpy as np
import skfem
from skfem.helpers import dd, ddot, eye, trace

import sparsehess as sh

STEEL = {"young": 210e9, "poisson": 0.3, "density": 7850.0}  # Pa, 1, kg/m³
SIDES, THICKNESS = (1.0, 0.8), 0.01  # m

# %%
# Matrices
# --------
# Deflections of the rim are held and taken out. With them goes what supports carry: a tenth of the mass.


def discretised(cells=24):
    """Return the basis of Morley's triangles, and which dofs are free."""
    places = [np.linspace(0, side, cells + 1) for side in SIDES]
    basis = skfem.Basis(skfem.MeshTri.init_tensor(*places), skfem.ElementTriMorley())
    rim = np.unique(basis.mesh.facets[:, basis.mesh.boundary_facets()])
    return basis, basis.complement_dofs(basis.nodal_dofs[0, rim])


def matrices(cells=24):
    """Return K in N/m and M in kg of the free dofs."""
    basis, free = discretised(cells)
    rigidity = STEEL["young"] * THICKNESS**3 / (12 * (1 - STEEL["poisson"] ** 2))

    @skfem.BilinearForm
    def stiffness(u, v, w):
        bent = (1 - STEEL["poisson"]) * dd(u) + STEEL["poisson"] * eye(trace(dd(u)), 2)
        return rigidity * ddot(bent, dd(v))

    @skfem.BilinearForm
    def mass(u, v, w):
        return STEEL["density"] * THICKNESS * u * v

    K, M = stiffness.assemble(basis), mass.assemble(basis)
    return K[free][:, free].tocsr(), M[free][:, free].tocsr()


def plate(comm=None, cells=24):
    """Return the plate as a problem: gradient K u at rest, mass M, eigenvalues (2πf)²."""
    K, M = matrices(cells)
    pattern = sh.Pattern.from_scipy(K, comm=comm, source="finite elements")
    name, units = f"simply supported plate ({K.shape[0]} dofs)", sh.Units.consistent("Hz")
    return sh.Objective(
        x=np.zeros(len(M.diagonal())), gradient=lambda u: K @ u, pattern=pattern, mass=M, units=units, name=name,
        comm=comm,
    )  # fmt: skip


# %%
# Directions
# ----------
# Supports that rise lift the plate by one, those that turn about its middle deflect it by a plane. Triangles hold
# planes: a projection finds their unknowns.


def directions(cells=24):
    """Return the motions (3, free dofs) of the supports: up, and turning about x and y through the middle."""
    basis, free = discretised(cells)
    planes = (lambda x: 1 + 0 * x[0], lambda x: x[1] - SIDES[1] / 2, lambda x: SIDES[0] / 2 - x[0])
    return np.array([basis.project(plane)[free] for plane in planes])


def theory(count):
    """Return the first frequencies in Hz, and the kg that each mode carries when supports rise."""
    p, q = (one.ravel() for one in np.meshgrid(np.arange(1, 9), np.arange(1, 9), indexing="ij"))
    rigidity = STEEL["young"] * THICKNESS**2 / (12 * (1 - STEEL["poisson"] ** 2) * STEEL["density"])
    frequencies = pi / 2 * (p**2 / SIDES[0] ** 2 + q**2 / SIDES[1] ** 2) * sqrt(rigidity)
    whole = STEEL["density"] * THICKNESS * SIDES[0] * SIDES[1]
    carried = np.where(p * q % 2 == 1, whole * 64 / (pi**2 * p * q) ** 2, 0.0)
    order = frequencies.argsort()[:count]
    return frequencies[order], carried[order]


def draw(frequencies, found):
    """Draw what each mode carries, beside theory, and how it adds up."""
    import matplotlib.pyplot as plt

    _, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    left.bar(frequencies, found.effective_mass[:, 0], width=8, label="Morley's triangles")
    left.plot(*theory(len(frequencies)), "_", ms=14, mew=2, color="C1", label="sines")
    left.set(xlabel="frequency (Hz)", ylabel="effective mass (kg)", title="Supports that rise")
    left.legend()
    for name, share in zip(found.names, found.cumulative.T, strict=True):
        right.step(np.arange(1, len(share) + 1), 100 * share, where="post", label=name)
    right.axhline(90, color="0.6", lw=0.8)
    right.set(xlabel="modes", ylabel="of the whole (%)", title="How many are needed", ylim=(0, 100))
    right.set_xticks(range(0, 21, 5))
    right.legend()
    plt.show()


if __name__ == "__main__":
    K, M = matrices()
    with sh.eigs(K, 20, mass=M) as modes:
        found = sh.effective_masses(
            modes, M, directions=directions(), names=["rise", "turn about x", "turn about y"]
        )
        frequencies = sh.Units.consistent("Hz").of_eigenvalues(modes.eigenvalues)
        print("90 % with", dict(zip(found.names, found.modes_needed(0.9), strict=True)))
        draw(frequencies, found)
