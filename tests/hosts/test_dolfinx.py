"""Inside dolfinx: on its vectors and its ranks, against its exact tangent; any number of ranks."""

import sys
from dataclasses import replace
from functools import partial

from mpi4py import MPI

import numpy as np
import pytest
from scipy.sparse import csr_matrix

import sparsehess as sh
from sparsehess.errors import InputError, StackError
from sparsehess.hosts import dolfinx as host
from sparsehess.hosts.dolfinx import from_energy, function_space, hessian, modes, write
from support.cases import frobenius_error, lapack, run_example

dolfinx = pytest.importorskip("dolfinx")
dolfinx_elasticity = pytest.importorskip("dolfinx_elasticity")

ufl = pytest.importorskip("ufl")
fem, mesh = dolfinx.fem, dolfinx.mesh

# Where another process compiles a form at the same time it is waited for, by default no more than ten seconds.
compiling = "DOLFINX_DEFAULT_JIT_" + ("OPTIONS" if hasattr(dolfinx.jit, "get_options") else "PARAMETERS")
getattr(dolfinx.jit, compiling)["timeout"] = (120, "seconds")

# Its compiler of forms uses what numpy no longer wants, and leaves files to be closed.
pytestmark = [
    pytest.mark.parallel([1, 2, 3]),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]


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
        assert len(calls) <= 2 * hessian.coloring.count + 7 + 2 + 2 + 1  # noise, checks, beside the energy, above
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


def whole(matrix, comm):
    """Return a small distributed matrix on every rank."""
    indptr, indices, data = matrix.getValuesCSR()
    own = csr_matrix((data, indices, indptr), (len(indptr) - 1, matrix.getSize()[1])).toarray()
    return np.concatenate(comm.allgather(own))


def sheet(comm):
    """Return a soft sheet that is stretched: its energy and displacement, what holds it, and its mass."""
    grid = mesh.create_unit_square(comm, 3, 2)
    space = function_space(grid, 2, (2,))
    u, v, w = fem.Function(space), ufl.TestFunction(space), ufl.TrialFunction(space)
    u.interpolate(lambda x: np.stack([0.2 * x[0], 0.03 * np.sin(3 * x[1]) * x[0]]))
    F = ufl.Identity(2) + ufl.grad(u)
    log_J = ufl.ln(ufl.det(F))
    dx = ufl.dx(metadata={"quadrature_degree": 3})
    energy = (0.5 * (ufl.inner(F, F) - 2) - log_J + 0.7 * log_J**2) * dx
    left = fem.locate_dofs_geometrical(space, lambda x: np.isclose(x[0], 0))
    return energy, u, [fem.dirichletbc(np.zeros(2), left, space)], 1.3 * ufl.inner(w, v) * dx


def test_example():
    run_example(host)


def test_where_it_comes_from_is_said_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "dolfinx", None)
    with pytest.raises(StackError, match="modes needs dolfinx: apt-get install"):
        modes(None, space=None)


def test_one_without_petsc_is_refused(monkeypatch):
    monkeypatch.setattr(dolfinx, "has_petsc4py", False, raising=False)
    with pytest.raises(StackError, match="from_energy needs a dolfinx that was built with petsc4py"):
        from_energy(None, None)


def powers(x, degree, size):
    """Return polynomials of points, (size, points), or (points,) where a function is a scalar."""
    values = (np.arange(size)[:, None] + x[0]) ** degree
    return values[0] if size == 1 else values


def test_spaces_of_scalars_vectors_and_tensors(comm):
    """Whatever this release of dolfinx calls them: of so many dofs, and exact for polynomials of their degree."""
    grid = mesh.create_unit_square(comm, 3, 2)
    for degree, nodes in ((1, 4 * 3), (2, 7 * 5)):
        for shape in ((), (2,), (3,), (2, 2)):
            space = function_space(grid, degree, shape)
            size, u = int(np.prod(shape)), fem.Function(space)
            assert tuple(u.ufl_shape) == shape
            assert space.dofmap.index_map.size_global * space.dofmap.index_map_bs == nodes * size
            u.interpolate(partial(powers, degree=degree, size=size))
            form = fem.form((u**2 if not shape else ufl.inner(u, u)) * ufl.dx)
            power = 2 * degree + 1
            exact = sum(((part + 1) ** power - part**power) / power for part in range(size))
            assert comm.allreduce(fem.assemble_scalar(form)) == pytest.approx(exact, rel=1e-12)


def test_objective_of_an_energy(comm):
    energy, u, bcs, inertia = sheet(comm)
    before = u.x.array.copy()
    objective = from_energy(energy, u, bcs=bcs, mass=inertia)
    exact = hessian(energy, u, bcs=bcs)
    assert objective.n == exact.getSize()[0] == 2 * (7 * 5 - 5) and objective.pattern.quotient.n == 30
    dense = whole(exact, comm)
    for derivative, error in (("ad", 1e-14), ("central", 1e-8)):
        with sh.assemble(objective, derivative=derivative) as ours:
            assert frobenius_error(ours.mat, csr_matrix(dense), comm) < error and ours.repaired == 0
            with sh.eigs(ours, 4) as found:
                masses = whole(objective.mass, comm)
                assert found.eigenvalues == pytest.approx(lapack(dense, masses)[:4], rel=1e-6)
    assert np.array_equal(u.x.array, before)
    g, way = objective.x.duplicate(), objective.x.duplicate()
    objective.gradient(objective.x, g)
    way.setArray(np.cos(np.arange(*way.getOwnershipRange())))
    slope, step, x = g.dot(way), 1e-5, objective.x.copy()
    x.axpy(step, way)
    upper = objective.energy(x)
    x.axpy(-2 * step, way)
    assert (upper - objective.energy(x)) / (2 * step) == pytest.approx(slope, rel=1e-6)
    for item in (exact, objective.mass, objective.x, g, way, x):
        item.destroy()


def test_held_dofs_bring_no_eigenvalues(comm):
    """Forms, and Mats whose Dirichlet rows are those of the identity, in K and in M: the same modes."""
    grid = mesh.create_unit_square(comm, 4, 3)
    space = function_space(grid, 2)
    u, v = ufl.TrialFunction(space), ufl.TestFunction(space)
    K, M = ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx, u * v * ufl.dx
    dofs = fem.locate_dofs_geometrical(space, lambda x: np.isclose(x[0] * (1 - x[0]) * x[1] * (1 - x[1]), 0))
    bcs = [fem.dirichletbc(0.0, dofs, space)]
    stiff, heavy = (fem.petsc.assemble_matrix(fem.form(form), bcs=bcs) for form in (K, M))
    stiff.assemble()
    heavy.assemble()
    assert np.count_nonzero(np.isclose(lapack(whole(stiff, comm), whole(heavy, comm)), 1)) == 2 * (8 + 6)
    with (
        modes(K, M, space=space, bcs=bcs, k=4) as of_forms,
        modes(stiff, heavy, space=space, bcs=bcs, k=4) as same,
    ):
        values = of_forms.spectrum.eigenvalues
        assert values == pytest.approx(same.spectrum.eigenvalues, rel=1e-12)
        assert values / np.pi**2 == pytest.approx([2, 5, 5, 8], rel=0.1) and of_forms.spectrum.count.certified
        one = fem.Function(space)
        measures = [fem.form(ufl.inner(ufl.grad(one), ufl.grad(one)) * ufl.dx), fem.form(one**2 * ufl.dx)]
        for value, function in zip(values, of_forms.functions(), strict=True):
            one.x.array[:] = function.x.array
            energy, size = (comm.allreduce(fem.assemble_scalar(form)) for form in measures)
            assert (energy, size) == pytest.approx((value, 1), rel=1e-9)
            assert not function.x.array[dofs].any()
    with modes(K, space=space, bcs=bcs, k=2, which="largest") as largest:
        assert repr(largest).startswith("<Modes: Spectrum: 2 pairs from ")
        assert largest.spectrum.count.certified
    other = function_space(grid, 1)
    with pytest.raises(InputError, match=r"the space \d+ dofs"):
        modes(stiff, heavy, space=other, k=2)
    everything = fem.dirichletbc(0.0, fem.locate_dofs_geometrical(space, lambda x: x[0] > -1), space)
    with pytest.raises(InputError, match="every dof"):
        modes(K, M, space=space, bcs=[everything], k=2)
    with pytest.raises(InputError, match="without test and trial"):
        from_energy(K, fem.Function(space))
    stiff.destroy()
    heavy.destroy()


def test_modes_as_files(comm, folder):
    energy, u, bcs, inertia = sheet(comm)
    space = u.function_space
    stiff = hessian(energy, u)
    with modes(stiff, inertia, space=space, bcs=bcs, k=2) as found:
        functions = found.functions()
        found.write(folder / "modes.xdmf")
        found.write(folder / "modes.pvd")
        if hasattr(dolfinx.io, "VTXWriter"):
            found.write(folder / "modes.bp")
            assert (folder / "modes.bp").exists()
        else:
            with pytest.raises(StackError, match="ADIOS2"):
                found.write(folder / "modes.bp")
    stiff.destroy()
    text = (folder / "modes.xdmf").read_text()
    assert 'Name="mode_1"' in text and 'Name="mode_2"' in text
    h5py = pytest.importorskip("h5py")
    with h5py.File(folder / "modes.h5") as file:
        stored = file["Function/mode_1/0"][:]
    assert stored.shape == (12, 3)
    own = np.abs(functions[0].x.array).max()
    assert 0.1 * comm.allreduce(own, op=max) < np.abs(stored).max() <= 1.0001 * comm.allreduce(own, op=max)
    collected = (folder / "modes.pvd").read_text() + "".join(p.read_text() for p in folder.glob("modes*vtu"))
    assert "mode_1" in collected and "mode_2" in collected
    assert collected.count("<DataSet") == 1  # of several at one time ParaView shows all
    with pytest.raises(InputError, match=r"must end with one of \.xdmf"):
        write(folder / "modes.vtk", functions)
    with pytest.raises(InputError, match="no functions"):
        write(folder / "modes.pvd", [])


@pytest.mark.parametrize("degree", [1, 2])
def test_modes_at_nodes(comm, folder, degree):
    """A clamped block: nodes in the order of the mesh, whatever ranks have them, and dolfinx' values there."""
    pyvista = pytest.importorskip("pyvista")
    box = mesh.create_box(comm, [[0.0, 0.0, 0.0], [3.0, 1.0, 0.5]], [6, 2, 1])
    space = function_space(box, degree, (3,))
    u, v = ufl.TrialFunction(space), ufl.TestFunction(space)
    held = fem.locate_dofs_geometrical(space, lambda x: np.isclose(x[0], 0))
    bcs = [fem.dirichletbc(np.zeros(3), held, space)]
    K = ufl.inner(ufl.sym(ufl.grad(u)), ufl.sym(ufl.grad(v))) * ufl.dx
    with modes(K, ufl.inner(u, v) * ufl.dx, space=space, bcs=bcs, k=2) as found:
        found.write(folder / "modes.vtu", scale=0.5)
        found.write(folder / "modes.frd", units=sh.Units.consistent("Hz"))
        found.animate(folder / "mode2.gif", 2)
        with pytest.raises(InputError, match="give units"):
            found.write(folder / "again.unv")
        function = found.functions()[1]
        points = comm.bcast(pyvista.read(folder / "modes.vtu").points if comm.rank == 0 else None)
        at_nodes = fem.Function(function_space(box, 1, (3,)))
        at_nodes.interpolate(function)
        own = at_nodes.function_space.dofmap.index_map.size_local
        places = comm.allgather(at_nodes.function_space.tabulate_dof_coordinates()[:own])
        values = np.concatenate(comm.allgather(at_nodes.x.array[: 3 * own].reshape(-1, 3)))
    if comm.rank == 0:
        grid = pyvista.read(folder / "modes.vtu")
        sizes = grid.compute_cell_sizes()["Volume"]
        assert sizes.sum() == pytest.approx(1.5) and np.abs(sizes).min() > 0
        where = [np.abs(points - place).sum(axis=1).argmin() for place in np.concatenate(places)]
        assert sorted(where) == list(range(len(points)))
        shape = grid.point_data[list(grid.point_data)[1]]
        assert np.linalg.norm(shape, axis=1).max() == pytest.approx(0.5)
        assert np.abs(shape[points[:, 0] == 0]).max() <= (0 if degree == 1 else 1e-15)
        scaled = values / np.linalg.norm(values, axis=1).max() * 0.5
        np.testing.assert_allclose(shape[where], scaled, atol=1e-12)
        assert (folder / "mode2.gif").stat().st_size > 1000 and (folder / "modes.frd").exists()
    numbering = [np.round(point, 6).tolist() for point in points]
    alone = mesh.create_box(MPI.COMM_SELF, [[0.0, 0.0, 0.0], [3.0, 1.0, 0.5]], [6, 2, 1])
    order = np.argsort(alone.geometry.input_global_indices)
    assert numbering == np.round(alone.geometry.x[order], 6).tolist()


@pytest.mark.parametrize("degree", [1, 2])
def test_surfaces(comm, degree):
    """A field that is linear in place moves each vertex as it says; all ranks together have each face once."""
    box = mesh.create_box(comm, [[0.0, 0.0, 0.0], [3.0, 1.0, 1.0]], [6, 2, 2])
    space = function_space(box, degree, (3,))
    held = fem.locate_dofs_geometrical(space, lambda x: np.isclose(x[0], 0))
    own = space.dofmap.index_map.size_local
    free = (3 * np.setdiff1d(np.arange(own), held)[:, None] + np.arange(3)).ravel()
    found = host.surface(space, free)
    (faces,) = found.faces
    assert comm.allreduce(len(faces)) == 2 * (6 * 2 + 6 * 2 + 2 * 2) * 2
    slope = np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6], [0.7, 0.8, 0.9]])
    field = fem.Function(space)
    field.interpolate(lambda x: slope @ x)
    whole = np.concatenate(comm.allgather(field.x.array[free]))
    still = found.variables < 0
    assert np.array_equal(still, np.repeat(np.isclose(found.positions[:, :1], 0), 3, axis=1))
    assert np.allclose(np.where(still, 0, whole[found.variables]), np.where(still, 0, found.positions @ slope.T))
    scalar = host.surface(function_space(mesh.create_unit_square(comm, 3, 3), degree))
    assert scalar.variables.shape[1] == 1 and comm.allreduce(len(scalar.faces[0])) == 18
    with pytest.raises(InputError, match="at each vertex"):
        host.surface(function_space(box, 1))
