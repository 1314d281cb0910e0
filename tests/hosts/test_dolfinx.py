"""Inside dolfinx: on its vectors and its ranks, against its exact tangent; any number of ranks."""

from dataclasses import replace

import numpy as np
import pytest

import sparsehess as sh

dolfinx = pytest.importorskip("dolfinx")
if not dolfinx.__version__.startswith("0.5."):
    pytest.skip(f"the driver is written for dolfinx 0.5, not {dolfinx.__version__}", allow_module_level=True)
dolfinx_elasticity = pytest.importorskip("dolfinx_elasticity")

# Its compiler of forms uses what numpy no longer wants, and leaves files to be closed.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


def distance(matrix, exact):
    """Return |A - exact| / |exact|; exact is overwritten."""
    size = exact.norm()
    exact.axpy(-1.0, matrix)
    return exact.norm() / size


@pytest.mark.parametrize("degree", [1, 2])
def test_hessian_is_the_tangent_of_dolfinx(degree, comm):
    objective = dolfinx_elasticity.beam(comm, degree=degree, cells=5)
    host, calls = objective.gradient.__self__, []

    def gradient(x, g):
        calls.append(1)
        host.gradient(x, g)

    straight, residual = objective.x.duplicate(), objective.x.duplicate()
    straight.set(0.0)
    host.gradient(objective.x, residual)
    assert residual.norm() < 1e-9  # in equilibrium, newtons
    assert objective.n == 3 * 5 * degree * (degree + 1) ** 2  # the nodes that are clamped are no variables
    with sh.assemble(replace(objective, gradient=gradient)) as hessian:
        assert len(calls) <= 2 * hessian.coloring.count + 10
        assert len(calls) < objective.n
        assert hessian.mat.getOwnershipRange() == objective.x.getOwnershipRange()
        for x in (objective.x, straight):
            hessian.update(x)
            host.place(x)
            exact = host.matrix("tangent")
            assert distance(hessian.mat, exact) < 1e-6
            exact.destroy()


def test_frequencies_are_those_of_the_exact_matrices(comm):
    objective = dolfinx_elasticity.beam(comm, cells=5)
    host = objective.gradient.__self__
    host.place(objective.x)
    exact = host.matrix("tangent")
    with sh.assemble(objective) as hessian, sh.eigs(hessian, 6) as modes:
        assert modes.count.certified
        with sh.eigs(exact, 6, mass=objective.mass) as known:
            assert modes.eigenvalues == pytest.approx(known.eigenvalues, rel=1e-6)
    exact.destroy()


def test_energy_of_dolfinx_has_this_gradient(comm):
    """The energy is summed over ranks, each with cells of its own and ghosts of others."""
    objective = dolfinx_elasticity.beam(comm, cells=5, degree=1)
    x, g = objective.x.duplicate(), objective.x.duplicate()
    x.setArray(1e-3 * np.sin(np.arange(*x.getOwnershipRange())))
    objective.gradient(x, g)
    way = x.duplicate()
    way.setArray(np.cos(np.arange(*x.getOwnershipRange())))
    slope, step = g.dot(way), 1e-7
    x.axpy(step, way)
    upper = objective.energy(x)
    x.axpy(-2 * step, way)
    assert (upper - objective.energy(x)) / (2 * step) == pytest.approx(slope, rel=1e-6)
