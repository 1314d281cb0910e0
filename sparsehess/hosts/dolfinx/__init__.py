"""Energies and matrices of dolfinx: objectives of UFL forms, vibration modes as functions, files for ParaView.

>>> from mpi4py import MPI
>>> import numpy as np
>>> import ufl
>>> from dolfinx import fem, mesh
>>> from sparsehess.hosts.dolfinx import function_space, modes
>>> square = mesh.create_unit_square(MPI.COMM_WORLD, 8, 8)
>>> V = function_space(square, 2)  # in dolfinx since 0.7: fem.functionspace(square, ("Lagrange", 2))
>>> u, v = ufl.TrialFunction(V), ufl.TestFunction(V)
>>> at_left = fem.locate_dofs_geometrical(V, lambda x: np.isclose(x[0], 0))
>>> held = fem.dirichletbc(0.0, at_left, V)
>>> with modes(ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx, u * v * ufl.dx, space=V, bcs=[held], k=3) as found:
...     print((found.spectrum.eigenvalues / np.pi**2).round(3), found.functions()[0].name)
[0.25 1.25 2.25] mode_1

Dofs that a Dirichlet condition holds are removed. Written as rows of the identity they would be eigenvalues of
their own, and as penalties large ones that spoil the others.

Always: rows stay with the ranks that dolfinx gave them to, the caller's functions keep their values, and what
differs between releases of dolfinx is asked for in `features`. Imports what `hosts` may.
"""

from sparsehess.runtime.lazy import attributes

_HOME = {
    "from_energy": "objective",
    "hessian": "objective",
    "free_dofs": "objective",
    "reduced_matrix": "objective",
    "modes": "eigenmodes",
    "Modes": "eigenmodes",
    "write": "eigenmodes",
    "function_space": "features",
    "surface": "surfaces",
}

__all__ = [*_HOME]


__getattr__ = attributes(globals(), {name: f"sparsehess.hosts.dolfinx.{module}" for name, module in _HOME.items()})
