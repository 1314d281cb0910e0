"""Inside scikit-fem: a residual of large strains, against the exact tangent; any number of ranks."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import sparsehess as sh
from sparsehess.errors import InputError, NotConverged
from sparsehess.hosts import skfem as host
from sparsehess.hosts.ase.vibrations import dense
from sparsehess.hosts.skfem import solver_eigen
from sparsehess.runtime import on_root
from sparsehess.service.batch.local_scheduler import job_environment
from support import answers
from support.cases import frobenius_error, lapack, run_example

skfem = pytest.importorskip("skfem")
skfem_hyperelastic = pytest.importorskip("skfem_hyperelastic")

pytestmark = pytest.mark.parallel([1, 2])

UNIT = np.eye(3)[:, :, None, None]


@skfem.BilinearForm
def linearized(u, v, w):
    return np.einsum("iJ...,iJkL...,kL...", v.grad, w["moduli"], u.grad)


def tangent(host, x):
    """Return the Hessian of the energy, exactly: scikit-fem's integral of dP/dF, P the stress."""
    F = np.moveaxis(host.strained(x)[1], (0, 1), (-2, -1))
    log_J, G = np.log(np.linalg.det(F)), np.moveaxis(np.linalg.inv(F), (-1, -2), (0, 1))  # F⁻ᵀ
    moduli = host.shear * np.einsum("ik...,JL...->iJkL...", UNIT, UNIT)
    moduli = moduli + (host.shear - host.lame * log_J) * np.einsum("iL...,kJ...->iJkL...", G, G)
    moduli += host.lame * np.einsum("iJ...,kL...->iJkL...", G, G)
    return linearized.assemble(host.basis, moduli=moduli)[host.free][:, host.free]


@pytest.fixture(scope="module")
def objective(comm):
    return skfem_hyperelastic.column(comm, cells=4, load=1.2)


def strained(x):
    """Return x with local strains of some ten per cent."""
    return x + 1e-3 * np.sin(np.arange(len(x)))


def moved(hessian, exact, mass):
    """Return by how much no eigenvalue differs from an exact one more: the norm of the difference, in the mass.

    What differences of gradients leave of 1e-11 of the largest eigenvalue is 1e-6 of the lowest.
    """
    L = np.linalg.cholesky(mass.toarray())
    half = np.linalg.solve(L, dense(hessian.mat) - exact.toarray())
    return np.linalg.norm(np.linalg.solve(L, half.T), 2)


def lowest(hessian, x):
    """Compare the Hessian at x and its modes with the exact ones, and return the lowest eigenvalue."""
    host = hessian.objective.gradient.__self__
    exact = tangent(host, x)
    assert frobenius_error(hessian.mat, exact, hessian.objective.comm) < 1e-10
    own, error = lapack(dense(hessian.mat), host.mass), moved(hessian, exact, host.mass)
    assert error < 1e-10 * own[-1]
    with sh.eigs(hessian, 6) as modes:
        assert modes.eigenvalues == pytest.approx(own[:6], abs=1e-14 * own[-1])
        assert modes.eigenvalues == pytest.approx(lapack(exact, host.mass)[:6], abs=error)
        assert modes.count.certified
        return modes.eigenvalues[0]


def test_hessian_and_modes_are_those_of_the_exact_tangent(objective):
    assert objective.n == 3 * 4 * (8 + 4)  # a brick brings 8 nodes of its face and 4 between; none is clamped
    load = np.abs(objective.gradient.__self__.load).sum()
    assert np.abs(objective.gradient(objective.x)).max() < 1e-9 * load  # in equilibrium
    with sh.assemble(objective) as hessian:
        assert hessian.coloring.count < objective.n and hessian.repaired == 0
        pressed = lowest(hessian, objective.x)
        for x in (strained(objective.x), np.zeros(objective.n)):
            hessian.update(x)
            resting = lowest(hessian, x)
    # It falls from that at rest through zero, where the column buckles: near Euler's load.
    assert pressed < 0 < resting
    assert 1.2 * resting / (resting - pressed) == pytest.approx(1.0, abs=0.15)


def test_energy_has_this_gradient(objective):
    x = strained(objective.x)
    way, step = np.cos(np.arange(len(x))), 1e-8
    slope = (objective.energy(x + step * way) - objective.energy(x - step * way)) / (2 * step)
    assert slope == pytest.approx(objective.gradient(x) @ way, rel=1e-6)


def test_command_line_says_the_same(objective, comm):
    command = "eigs skfem_hyperelastic.py:column --set cells=4 --set load=1.2 -k 3 --json -"
    done = on_root(
        comm,
        partial(
            subprocess.run,
            [sys.executable, "-m", "sparsehess", *command.split()],
            cwd=Path(skfem_hyperelastic.__file__).parent,
            env=job_environment(),  # the process is no part of this run
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        ),
    )
    assert done.returncode == 0, done.stderr
    found, host = answers.parse(done.stdout), objective.gradient.__self__
    exact = tangent(host, objective.x)
    with sh.assemble(objective) as hessian:  # its error is as large as that of the other, which is not known
        error = moved(hessian, exact, host.mass)
    values = np.array(found["eigenvalues"])
    assert values == pytest.approx(lapack(exact, host.mass)[:3], abs=2 * error)
    assert found["frequencies"]["values"] == pytest.approx(np.sign(values) * np.sqrt(np.abs(values)) / (2 * np.pi))
    assert found["frequencies"]["unit"] == "Hz"


@pytest.fixture(scope="module")
def plate():
    """Return basis, stiffness and mass of a square membrane between fixed edges: π² (i² + j²)."""
    from skfem.models.poisson import laplace, mass

    basis = skfem.Basis(skfem.MeshQuad().refined(3), skfem.ElementQuad2())
    return basis, laplace.assemble(basis), mass.assemble(basis)


def test_example():
    run_example(host)


def test_solver_has_the_convention_of_scikit_fem(plate, comm):
    basis, K, M = plate
    fixed = basis.get_dofs()
    solver = solver_eigen(k=5, comm=comm)
    assert solver.certificate is None
    values, vectors = skfem.solve(*skfem.condense(K, M, D=fixed), solver=solver)
    theirs, _ = skfem.solve(*skfem.condense(K, M, D=fixed), solver=skfem.solver_eigen_scipy_sym(k=5, sigma=0))
    assert values == pytest.approx(np.sort(theirs), rel=1e-10)
    assert values == pytest.approx(np.pi**2 * np.array([2, 5, 5, 8, 10]), rel=3e-3)
    assert vectors.shape == (basis.N, 5) and not vectors[fixed.all()].any()
    np.testing.assert_allclose(vectors.T @ (M @ vectors), np.eye(5), atol=1e-9)
    inner = basis.complement_dofs(fixed)
    np.testing.assert_allclose((K @ vectors - (M @ vectors) * values)[inner], 0, atol=1e-8 * abs(K).max())
    assert comm.allgather(vectors.tobytes()).count(vectors.tobytes()) == comm.size
    assert solver.certificate.passed and solver.certificate.count.certified


def test_an_interval_without_eigenvalues(plate, comm):
    basis, K, M = plate
    solver = solver_eigen(interval=(-5.0, -1.0), comm=comm)
    values, vectors = skfem.solve(*skfem.condense(K, M, D=basis.get_dofs()), solver=solver)
    assert values.shape == (0,) and vectors.shape == (basis.N, 0)
    with pytest.raises(InputError, match="two matrices"):
        skfem.solve(K, np.ones(basis.N), solver=solver)


def test_options_of_the_solver_and_of_the_call(plate, comm):
    basis, K, M = plate
    pencil = skfem.condense(K, M, D=basis.get_dofs())
    largest, _ = skfem.solve(*pencil, solver=solver_eigen(2, which="largest", method="dense", comm=comm))
    inner = basis.complement_dofs(basis.get_dofs())
    exact = lapack(K[inner][:, inner], M[inner][:, inner])
    assert largest == pytest.approx(exact[-2:], rel=1e-9)
    solver = solver_eigen(comm=comm, options={"eps_ncv": 30})
    found, vectors = skfem.solve(*pencil, solver=solver, interval=(40.0, 120.0))
    inside = exact[(exact > 40) & (exact < 120)]
    assert found == pytest.approx(inside, rel=1e-9) and vectors.shape[1] == len(inside)
    alone, _ = skfem.solve(*pencil, solver=solver_eigen(3))
    assert alone == pytest.approx(exact[:3], rel=1e-9)
    with pytest.raises(InputError, match="nothing has used: -eps_nvc"):
        skfem.solve(*pencil, solver=solver_eigen(3, comm=comm, options={"eps_nvc": 30}))
    with pytest.raises(NotConverged, match="of 20 eigenpairs"):
        skfem.solve(
            *pencil, solver=solver_eigen(20, tol=1e-12, comm=comm, options={"eps_max_it": 1, "eps_ncv": 21})
        )
    with pytest.raises(InputError, match="leave out mass"):
        solver_eigen(3, mass=M, comm=comm)


@pytest.mark.parametrize("kind", ["MeshHex", "MeshTet", "MeshQuad", "MeshTri", "MeshWedge1"])
def test_modes_on_meshes(folder, comm, kind):
    """Nodes, motions and fixed nodes of a file are those of scikit-fem, and VTK's volumes are positive."""
    pyvista = pytest.importorskip("pyvista")
    from skfem.helpers import ddot, dot, sym_grad

    mesh = getattr(skfem, kind)()
    mesh = mesh if kind == "MeshWedge1" else mesh.refined(1)
    element = {
        "MeshHex": "Hex1",
        "MeshTet": "TetP2",
        "MeshQuad": "Quad1",
        "MeshTri": "TriP2",
        "MeshWedge1": "Wedge1",
    }
    basis = skfem.Basis(mesh, skfem.ElementVector(getattr(skfem, f"Element{element[kind]}")()))
    K = skfem.BilinearForm(lambda u, v, w: ddot(sym_grad(u), sym_grad(v))).assemble(basis)
    M = skfem.BilinearForm(lambda u, v, w: dot(u, v)).assemble(basis)
    free = basis.complement_dofs(basis.get_dofs(lambda x: x[0] == 0))
    with sh.eigs(K[free][:, free], 2, mass=M[free][:, free], comm=comm) as found:
        sh.write_modes(folder / "modes.vtu", found, host.mode_mesh(basis, free))
        _, vectors = found.to_numpy()
    comm.Barrier()
    if comm.rank == 0:
        grid, dims = pyvista.read(folder / "modes.vtu"), mesh.dim()
        many = basis.nodal_dofs.shape[1]
        np.testing.assert_array_equal(grid.points[:, :dims], mesh.p[:, :many].T)
        sizes = grid.compute_cell_sizes()["Volume" if dims == 3 else "Area"]
        assert sizes.min() > 0 and sizes.sum() == pytest.approx(1)
        whole = np.zeros(basis.N)
        whole[free] = vectors[:, 1]
        shape = grid.point_data[list(grid.point_data)[1]]
        np.testing.assert_array_equal(shape[:, :dims], whole[basis.nodal_dofs].T)
        assert not shape[mesh.p[0, :many] == 0].any()


def test_beams_on_meshes():
    """Deflections across, slopes as rotations; elements without values at vertices are refused."""
    basis = skfem.Basis(skfem.MeshLine().refined(2), skfem.ElementLineHermite())
    beam = host.mode_mesh(basis, np.arange(2, basis.N))
    assert beam.dofs == "yc" and beam.variables[0].tolist() == [-1, -1] and beam.n == basis.N - 2
    with pytest.raises(InputError, match="no motion that can be drawn"):
        host.mode_mesh(skfem.Basis(skfem.MeshTri.init_symmetric(), skfem.ElementTriArgyris()))


def test_surfaces():
    """A field that is linear in place moves each vertex as it says; held ones stay; faces are those outside."""
    mesh = skfem.MeshHex.init_tensor(np.linspace(0, 3, 4), np.linspace(0, 2, 3), np.linspace(0, 1, 3))
    basis = skfem.Basis(mesh, skfem.ElementVector(skfem.ElementHex2()))
    free = basis.complement_dofs(basis.get_dofs(lambda x: np.isclose(x[0], 0)))
    found = host.surface(basis, free)
    (faces,) = found.faces
    assert len(faces) == 2 * (3 * 2 + 3 * 2 + 2 * 2)
    sides = found.positions[faces] - found.positions[np.roll(faces, 1, axis=1)]
    assert np.allclose(np.linalg.norm(sides, axis=2).max(axis=1), 1.0)  # none across a diagonal
    slope = np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6], [0.7, 0.8, 0.9]])
    field = basis.project(lambda x: np.einsum("ij,j...->i...", slope, x))[free]
    held = found.variables < 0
    assert np.array_equal(held, np.repeat(np.isclose(found.positions[:, :1], 0), 3, axis=1))
    moved = np.where(held, 0, field[found.variables])
    assert np.allclose(moved, np.where(held, 0, found.positions @ slope.T))
    plane = host.surface(skfem.Basis(skfem.MeshTri.init_symmetric(), skfem.ElementTriP1()))
    assert plane.variables.shape == (5, 1) and len(plane.faces[0]) == 4
    with pytest.raises(InputError, match="at each vertex"):
        host.surface(skfem.Basis(skfem.MeshTri.init_symmetric(), skfem.ElementTriArgyris()))
