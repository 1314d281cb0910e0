"""A soft beam under its own weight
================================
A soft beam that sags under its own weight, by dolfinx: its stiffness and frequencies as it hangs.

Compressible neo-Hookean material (Bonet and Wood 2008, section 6.4.3), with stored energy
μ/2 (tr FᵀF - 3) - μ ln J + λ/2 (ln J)². Rows stay with the ranks to which dolfinx gave the nodes;
clamped nodes are removed, not penalised: x holds the displacements of a rank's own free nodes.

::

    mpiexec -n 2 sparsehess eigs drivers/dolfinx_elasticity.py:beam -k 6
    sparsehess eigs drivers/dolfinx_elasticity.py:beam --set degree=1 --set cells=30 -k 6
"""

from mpi4py import MPI
from petsc4py import PETSc

import numpy as np
import ufl
from dolfinx import fem, mesh
from dolfinx.fem.petsc import assemble_matrix, assemble_vector

import sparsehess as sh
from sparsehess.derivatives.units import Units
from sparsehess.hosts.dolfinx import function_space, surface

# %%
# Energy, gradient, tangent
# -------------------------
# All of them are derivatives of one form.

GEL = {"young": 1e5, "poisson": 0.4, "density": 1e3}  # Pa, 1, kg/m³


class Beam:
    """A beam along x, clamped at x = 0, under gravity: energy, gradient and tangent, in SI units."""

    def __init__(self, comm, cells, degree, length, side, young, poisson, density, gravity):
        across = max(1, round(cells * side / length))
        box = mesh.create_box(comm, [[0.0, 0.0, 0.0], [length, side, side]], [cells, across, across])
        self.comm, self.length, self.cells = comm, length, cells
        self.space = function_space(box, degree, (3,))
        self.u, v, w = fem.Function(self.space), ufl.TestFunction(self.space), ufl.TrialFunction(self.space)
        self.load = fem.Constant(box, np.array([0.0, 0.0, -density * gravity]))
        lame, shear = young * poisson / ((1 + poisson) * (1 - 2 * poisson)), young / (2 * (1 + poisson))
        F = ufl.Identity(3) + ufl.grad(self.u)
        log_J = ufl.ln(ufl.det(F))
        stored = shear / 2 * (ufl.inner(F, F) - 3) - shear * log_J + lame / 2 * log_J**2
        dx = ufl.dx(metadata={"quadrature_degree": 2 * degree})  # else logarithms are given 729 points a cell
        energy = (stored - ufl.inner(self.load, self.u)) * dx
        residual = ufl.derivative(energy, self.u, v)
        forms = {"energy": energy, "residual": residual, "tangent": ufl.derivative(residual, self.u, w)}
        forms["mass"] = density * ufl.inner(w, v) * dx
        self.forms = {name: fem.form(form) for name, form in forms.items()}
        self.residual = assemble_vector(self.forms["residual"])  # with ghosts
        # A node is a block of three dofs, and clamped as a whole.
        clamped = fem.locate_dofs_geometrical(self.space, lambda x: np.isclose(x[0], 0.0))
        free = np.setdiff1d(np.arange(self.space.dofmap.index_map.size_local), clamped)
        self.dofs = (3 * free[:, None] + np.arange(3)).ravel().astype(PETSc.IntType)

    def hang(self, stages=5):
        """Return x in equilibrium, by Newton's method from rest, the load put on in stages."""
        x, load = PETSc.Vec().createMPI((len(self.dofs), PETSc.DECIDE), comm=self.comm), self.load.value.copy()
        forces, step = x.duplicate(), x.duplicate()
        solver = PETSc.KSP().create(self.comm)
        solver.setType("preonly")
        solver.getPC().setType("lu")
        solver.getPC().setFactorSolverType("mumps")
        x.set(0.0)
        try:
            for stage in range(1, stages + 1):
                self.load.value[:] = load * stage / stages
                for _ in range(20):
                    self.gradient(x, forces)
                    tangent = self.matrix("tangent")
                    solver.setOperators(tangent)
                    solver.solve(forces, step)
                    tangent.destroy()
                    x.axpy(-1.0, step)
                    if step.norm(PETSc.NormType.INFINITY) < 1e-7 * self.length:  # its square is the error left
                        break
                else:
                    raise ValueError(f"the beam finds no equilibrium under {stage / stages:.0%} of its weight")
        finally:
            for item in (solver, forces, step):
                item.destroy()
        return x

    @property
    def places(self):
        """Where this rank's free nodes are without load, (nodes, 3)."""
        return self.space.tabulate_dof_coordinates()[self.dofs[::3] // 3]

    def place(self, x):
        self.u.x.array[self.dofs] = x.getArray(readonly=True)
        self.u.x.scatter_forward()

    def energy(self, x):
        self.place(x)
        return self.comm.allreduce(fem.assemble_scalar(self.forms["energy"]))

    def gradient(self, x, g):
        self.place(x)
        with self.residual.localForm() as local:
            local.set(0.0)
        assemble_vector(self.residual, self.forms["residual"])
        self.residual.ghostUpdate(addv=PETSc.InsertMode.ADD, mode=PETSc.ScatterMode.REVERSE)
        g.setArray(self.residual.getArray(readonly=True)[self.dofs])

    def matrix(self, name):
        """Return the `mass` or the exact `tangent` at the last x, of the free dofs."""
        whole = assemble_matrix(self.forms[name])
        whole.assemble()
        rows = PETSc.IS().createGeneral(whole.getOwnershipRange()[0] + self.dofs, comm=self.comm)
        part = whole.createSubMatrix(rows, rows)
        whole.destroy()
        rows.destroy()
        return part


# %%
# The problem
# -----------


def at_rest(comm, cells=10, degree=2, length=0.1, side=0.02, gravity=9.81, **material):
    """Return the beam before it hangs; `cells` along it, Young's modulus, Poisson's ratio, density."""
    return Beam(comm, cells, degree, length, side, gravity=gravity, **{**GEL, **material})


def beam(comm=None, **sizes):
    """Return the hanging beam as a problem, of the sizes of `at_rest`."""
    return hung(at_rest(comm or MPI.COMM_SELF, **sizes))


def hung(hanging):
    """Return the objective of a beam where it hangs in equilibrium."""
    mass = hanging.matrix("mass")
    indptr, indices, _ = mass.getValuesCSR()  # dolfinx stores whole blocks, zeros too: the pattern of any form
    return sh.Objective(
        x=hanging.hang(),
        gradient=hanging.gradient,
        energy=hanging.energy,
        pattern=sh.Pattern.from_csr(indptr, indices, comm=hanging.comm, source="dolfinx").in_blocks(3),
        mass=mass,
        typical_x=hanging.length / hanging.cells,
        units=Units.of("J", "m", "kg", "Hz"),
        geometry=surface(hanging.space, hanging.dofs),
        name=f"sagging beam ({mass.getSize()[0]} free dofs)",
    )


# %%
# As it hangs
# -----------
# Vibrations are those about the bent shape, under load: the two lowest bend the beam up and down, and sideways.


def draw(places, hanging, frequencies, modes):
    """Draw the beam as it hangs, in its lowest mode up and down, and the frequencies."""
    import matplotlib.pyplot as plt

    _, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained", width_ratios=(3, 2))
    vertical = np.argmax([np.square(mode[:, 2]).sum() for mode in modes[:2]])
    far = np.abs(modes[vertical]).max()
    for shift, marker, label in (
        (0 * hanging, ".", "without weight"),
        (hanging, "o", "as it hangs"),
        (hanging + 0.015 * modes[vertical] / far, "x", f"in mode {vertical + 1}, {frequencies[vertical]:.2f} Hz"),
    ):
        along, _, height = 100 * (places + shift).T
        left.plot(along, height, marker, ms=4, label=label, color={".": "0.8", "o": "C0", "x": "C3"}[marker])
    left.set(xlabel="along (cm)", ylabel="height (cm)", aspect="equal", title="The beam from its side")
    left.legend(loc="lower left")
    number = np.arange(1, len(frequencies) + 1)
    right.vlines(number, 0, frequencies, color="0.8", lw=3)
    right.plot(number, frequencies, "o")
    right.set(xlabel="mode", ylabel="frequency (Hz)", title="Vibrations", xticks=number, ylim=(0, None))
    plt.show()


if __name__ == "__main__":
    comm = MPI.COMM_WORLD
    hanging = at_rest(comm)
    places = np.concatenate(comm.allgather(hanging.places))
    problem = hung(hanging)
    bent = np.concatenate(comm.allgather(problem.x.getArray()))
    with sh.assemble(problem) as hessian, sh.eigs(hessian, 6) as modes:
        eigenvalues, vectors = modes.to_numpy("root")
        if comm.rank == 0:
            frequencies = problem.units.of_eigenvalues(eigenvalues)
            print(sum(hessian.evaluations.values()), "gradients for", problem.n, "dofs")
            print("frequencies in Hz:", frequencies.round(3), "certified:", modes.count.certified)
            draw(places, bent.reshape(-1, 3), frequencies, vectors.T.reshape(6, -1, 3))
