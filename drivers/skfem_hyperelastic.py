"""A rubber column that buckles
============================
A rubber column that is pressed from above until it buckles, by scikit-fem: 20-node bricks, large strains.

Compressible neo-Hookean material (Bonet and Wood 2008, section 6.4.3), with stored energy
μ/2 (tr FᵀF - 3) - μ ln J + λ/2 (ln J)², under a dead load that is given in parts of Euler's,
π² E I / (4 L²). The column stays straight, be that stable or not: near load 1 an eigenvalue becomes
negative. The residual is all that is written here. Fixed dofs are removed, not penalised.

::

    mpiexec -n 2 sparsehess eigs drivers/skfem_hyperelastic.py:column -k 4
    sparsehess eigs drivers/skfem_hyperelastic.py:column --set load=1.1 --set cells=12 -k 4 --which negative
"""

from dataclasses import replace
from math import pi

from petsc4py import PETSc

import numpy as np
import skfem
from skfem.helpers import ddot, det, dot, grad, identity, inv, transpose

import sparsehess as sh
from sparsehess.derivatives.units import Units
from sparsehess.hosts.skfem import surface

# %%
# Energy and residual
# -------------------

RUBBER = {"young": 1.5e6, "poisson": 0.45, "density": 1.1e3}  # Pa, 1, kg/m³


@skfem.Functional
def stored(w):
    log_J = np.log(det(w["F"]))
    return w["shear"] / 2 * (ddot(w["F"], w["F"]) - 3) - w["shear"] * log_J + w["lame"] / 2 * log_J**2


@skfem.LinearForm
def residual(v, w):
    return ddot(w["stress"], grad(v))


@skfem.BilinearForm
def inertia(u, v, w):
    return w["density"] * dot(u, v)


class Column:
    """A column along x, clamped at x = 0 and free elsewhere: energy and gradient of the free dofs, in SI units."""

    def __init__(self, cells, length, width, height, load, young, poisson, density):
        mesh = skfem.MeshHex.init_tensor(np.linspace(0, length, cells + 1), [0, width], [0, height])
        self.basis = skfem.Basis(mesh, skfem.ElementVector(skfem.ElementHexS2()), intorder=4)
        self.free = self.basis.complement_dofs(self.basis.get_dofs(lambda x: np.isclose(x[0], 0.0)))
        self.lame = young * poisson / ((1 + poisson) * (1 - 2 * poisson))
        self.shear = young / (2 * (1 + poisson))
        head = self.basis.boundary(mesh.facets_satisfying(lambda x: np.isclose(x[0], length)))
        pressure = load * pi**2 * young * height**2 / (48 * length**2)
        self.load = skfem.LinearForm(lambda v, w: -pressure * v[0]).assemble(head)
        self.mass = inertia.assemble(self.basis, density=density)[self.free][:, self.free]

    def strained(self, x):
        """Return the whole displacement and F = 1 + grad u at the points of integration."""
        u = self.basis.zeros()
        u[self.free] = x
        slope = self.basis.interpolate(u).grad
        return u, slope + identity(slope)

    def energy(self, x):
        u, F = self.strained(x)
        return stored.assemble(self.basis, F=F, shear=self.shear, lame=self.lame) - self.load @ u

    def gradient(self, x):
        _, F = self.strained(x)
        inverse = transpose(inv(F))
        stress = self.shear * (F - inverse) + self.lame * np.log(det(F)) * inverse
        return (residual.assemble(self.basis, stress=stress) - self.load)[self.free]


# %%
# Equilibrium, and the problem
# ----------------------------
# Newton's method takes the Hessian from the residual too: the pattern is coloured once, and the matrix updated.


def balanced(objective, tolerance):
    """Return the objective where its gradient vanishes, by Newton's method from its x; collective."""
    x = objective.x
    with sh.assemble(objective, derivative="forward") as stiffness:
        forces, step = stiffness.mat.createVecs()
        solver = PETSc.KSP().create(stiffness.mat.comm)
        solver.setType("preonly")
        solver.getPC().setType("cholesky")
        solver.getPC().setFactorSolverType("mumps")
        try:
            for _ in range(20):
                solver.setOperators(stiffness.mat)
                forces.setArray(objective.local(objective.gradient(x)))
                solver.solve(forces, step)
                steps = np.concatenate(objective.comm.allgather(step.getArray()))
                x = x - steps
                if np.abs(steps).max() < tolerance:  # the same on all ranks, to the last bit
                    return replace(objective, x=x)
                stiffness.update(x)
        finally:
            for item in (solver, forces, step):
                item.destroy()
    raise ValueError(f"{objective.name} has found no equilibrium")


def column(comm=None, cells=10, length=0.1, width=0.024, height=0.02, load=0.9, **material):
    """Return the pressed column as a problem; `cells` along it, Young's modulus, Poisson's ratio, density."""
    host = Column(cells, length, width, height, load, **{**RUBBER, **material})
    n = len(host.free)
    number = np.full(host.basis.N, -1)
    number[host.free] = np.arange(n)
    rest = sh.Objective(
        x=np.zeros(n),
        gradient=host.gradient,
        energy=host.energy,
        pattern=sh.Pattern.from_elements(number[host.basis.element_dofs].T, n, comm=comm),
        mass=host.mass,
        typical_x=length / cells,
        units=Units.of("J", "m", "kg", "Hz"),
        geometry=surface(host.basis, host.free),
        name=f"rubber column under {load:g} of Euler's load ({n} free dofs)",
        comm=comm,
    )
    return balanced(rest, tolerance=1e-6 * length)  # of the last step, whose square is the error left


# %%
# Buckling
# --------
# While the load grows, the lowest eigenvalue falls, all but linearly. Where it becomes negative, near the load
# of Euler, the straight column is no minimum any more: it buckles, in the shape of the mode.


def axis_of(host, mode):
    """Return places along the column of its corners, and how far each section bends in a mode, scaled to 1."""
    whole = host.basis.zeros()
    whole[host.free] = mode
    corners = host.basis.mesh.p
    places = np.unique(corners[0].round(9))
    bent = whole[host.basis.nodal_dofs[2]]
    mean = np.array([bent[np.isclose(corners[0], place)].mean() for place in places])
    return places, mean / mean[np.abs(mean).argmax()]


def draw(loads, lowest, places, shape):
    """Draw the lowest eigenvalue over the load, and the shape in which the column buckles."""
    import matplotlib.pyplot as plt

    _, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    zero = np.interp(0.0, lowest[::-1], loads[::-1])
    left.axhline(0, color="0.6", lw=0.8)
    left.plot(loads, lowest, "o-", label="lowest eigenvalue")
    left.axvline(zero, color="C3", ls=":", label=f"buckles at {zero:.2f}")
    left.set(xlabel="load (parts of Euler's)", ylabel="(2πf)² (s⁻²)", title="What is left of the stiffness")
    left.legend()
    right.plot(np.zeros_like(places), places, "o-", color="0.7", label="straight")
    right.plot(shape, places, "o-", color="C3", label="buckles")
    right.set(xlabel="deflection (largest = 1)", ylabel="height (m)", title=f"Lowest mode at load {loads[-1]:g}")
    right.legend()
    plt.show()


if __name__ == "__main__":
    from mpi4py import MPI

    first = MPI.COMM_WORLD.rank == 0
    cells, loads, lowest, shapes = 5, np.array([0.2, 0.5, 0.8, 1.1, 1.2]), [], []
    for load in loads:
        problem = column(MPI.COMM_WORLD, load=load, cells=cells)
        with sh.assemble(problem) as hessian, sh.eigs(hessian, 1) as modes:
            eigenvalues, vectors = modes.to_numpy()
            lowest.append(eigenvalues[0])
            shapes.append(vectors[:, 0])
            if first:
                gradients, sure = sum(hessian.evaluations.values()), modes.count.certified
                print(f"load {load}: {gradients} gradients, lowest {lowest[-1]:.0f}, certified: {sure}")
    if first:
        draw(loads, lowest, *axis_of(Column(cells, 0.1, 0.024, 0.02, 0.0, **RUBBER), shapes[-1]))
