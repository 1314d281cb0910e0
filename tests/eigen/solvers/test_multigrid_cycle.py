"""Multigrid: cycles of panels, smoothers, iterations that do not grow with the mesh."""

import numpy as np
import pytest
import scipy.sparse as sp

from sparsehess.eigen.problem.block_vectors import dots
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.problem.rigid_body_modes import rigid_body_modes
from sparsehess.eigen.solvers import preconditioners
from sparsehess.eigen.solvers.lobpcg import Basis
from sparsehess.eigen.solvers.multigrid_cycle import Level, largest
from sparsehess.eigen.solvers.preconditioners import Multigrid
from sparsehess.runtime import destroy, error_code
from support.elastic_block import brick
from support.preconditioned import given, solved

pytestmark = pytest.mark.parallel([1, 2, 3])


def distributed(problem, rows):
    vectors = []
    for row in rows:
        vector = problem.A.createVecRight()
        vector.setArray(row[problem.layout.start : problem.layout.stop])
        vectors.append(vector)
    return vectors


@pytest.mark.thorough
def test_iterations_do_not_grow_with_the_mesh(comm):
    counts = []
    for cells in (4, 9):
        K, M, x = brick((cells,) * 3)
        with given(K, M, comm=comm) as problem:
            problem.near_null = distributed(problem, rigid_body_modes(x)[0])
            counts.append(solved(problem, "lobpcg", "smallest", 5)[1])
            destroy(*problem.near_null)
    assert counts[1] <= 1.6 * counts[0], counts


def test_cycles_for_panels_are_those_of_petsc(comm):
    K, _, x = brick((7, 6, 7))
    with given(K, comm=comm) as problem:
        problem.near_null = distributed(problem, rigid_body_modes(x)[0])
        multigrid = Multigrid(problem, {})
        cycle = multigrid.on_panels({})
        given_, image = problem.A.createVecs()
        b = np.random.default_rng(0).normal(size=(4, problem.n))[:, problem.layout.start : problem.layout.stop]
        T = cycle(b).copy()
        for row, mine in zip(b, T, strict=True):
            given_.setArray(row)
            multigrid.pc.apply(given_, image)
            size = image.norm()
            image.setArray(image.getArray() - mine)
            assert image.norm() < 0.05 * size  # estimates of the largest eigenvalue differ
        form = dots(comm, b, T)
        assert np.abs(form - form.T).max() < 1e-6 * np.abs(form).max() and np.linalg.eigvalsh(form)[0] > 0
        destroy(given_, image, *problem.near_null)
        multigrid.close()


def test_a_smoother_leaves_rows_of_zeros_alone(comm):
    K = sp.diags([2.0, 0.0, 3.0, 1.0, 4.0], format="csr")
    with given(K, comm=comm) as problem:
        level = Level(problem.A, problem.A, 2)
        own = slice(problem.layout.start, problem.layout.stop)
        r, x = np.ones((1, 5))[:, own].copy(), np.zeros((1, 5))[:, own].copy()
        level.smooth(x, r)
        assert np.isfinite(x).all() and np.isfinite(r).all()
        level.close()


def test_the_largest_is_from_below_where_conjugate_gradients_break_down(comm):
    """What PETSc has not written of the tridiagonal matrix is not read: the estimate stays within the spectrum."""
    rng = np.random.default_rng(3)
    for number in range(30):
        n = int(rng.integers(40, 90))
        H = sp.random(n, n, 0.08, random_state=number)
        H.setdiag(0)
        H = (H + H.T + sp.diags(rng.choice([0.5, 1.0, 3.0], n))).tocsr()  # not definite
        top = np.linalg.eigvals(H.toarray() / H.diagonal()[:, None]).real.max()
        with EigenProblem.of(H, comm=comm) as problem:
            told = largest(problem.A)
        assert np.isnan(told) or 0 < told <= top * (1 + 1e-8)


@pytest.mark.parametrize(("stiffness", "single"), [(1.0, True), (1e12, True), (1e200, False)])
def test_cycles_are_in_single_precision_where_that_is_enough(comm, stiffness, single):
    # Springs of a grid, and two that tie three of its points together.
    n = 12
    line = sp.diags([2.0, -1.0, -1.0], [0, 1, -1], shape=(n, n))
    K = sp.kronsum(line, sp.kronsum(line, line)).tolil()
    here, there, third = 5 * n * n + 5 * n + 5, 8 * n * n + 7 * n + 3, 2 * n * n + 4 * n + 9
    for i, j, spring in ((here, there, 1.1 * stiffness), (there, third, 0.3 * stiffness)):
        for p, q, sign in ((i, i, 1), (j, j, 1), (i, j, -1), (j, i, -1)):
            K[p, q] += sign * spring
    with given(K.tocsr(), comm=comm) as problem:
        multigrid = Multigrid(problem, {})
        cycle = multigrid.on_panels({})
        assert cycle.levels
        assert all((level.multiply.dtype == np.float32) == single for level in cycle.levels)
        b = np.random.default_rng(0).normal(size=(2, problem.n))[:, problem.layout.start : problem.layout.stop]
        found, cycle.levels = cycle(b), cycle._double
        right = cycle(b)
        assert np.abs(found - right).max() < 1e-5 * np.abs(right).max()
        multigrid.close()


def test_a_hierarchy_of_one_level_is_its_coarsest_solver(comm):
    K = sp.diags(np.arange(1.0, 21.0)).tocsr()
    with given(K, comm=comm) as problem:
        multigrid = Multigrid(problem, {})
        cycle = multigrid.on_panels({})
        assert not cycle.levels
        here = slice(problem.layout.start, problem.layout.stop)
        assert np.allclose(cycle(np.ones((3, 20))[:, here]) * np.arange(1.0, 21.0)[here], 1.0, rtol=1e-6)
        multigrid.close()


@pytest.mark.parametrize("new", [1.0, 0.1, 1e-3, 1e-9])
def test_new_directions_are_orthogonal_however_little_of_them_is_new(comm, new):
    K, M, _ = brick((4, 4, 4))
    with given(K, M, comm=comm) as problem:
        here = slice(problem.layout.start, problem.layout.stop)
        rows = np.random.default_rng(3).normal(size=(8, problem.n))[:, here]
        basis = Basis(problem, 4, False, np.empty((0, problem.layout.n_local)))
        basis.add(rows[:4])
        basis.reduce()
        # Nearly in the basis, and nearly alike.
        basis.add(np.concatenate([basis.S[:2] + new * rows[4:6], rows[6:7] + new * rows[7:8], rows[6:7]]))
        many = basis.x + basis.w
        gram = dots(comm, basis.S[:many], basis.MS[:many])
        assert basis.w == (4 if new > 1e-6 else 3) and np.abs(gram - np.eye(many)).max() < 1e-9
        basis.close()


def test_a_matrix_that_is_not_definite_fails_on_all_ranks_alike(comm, monkeypatch):
    """PETSc's estimate of a level's largest eigenvalue has memory that was not set where it ends at once."""
    codes = []

    def noted(error):
        codes.append(error_code(error))
        return codes[-1]

    monkeypatch.setattr(preconditioners, "error_code", noted)
    H = sp.random(120, 120, 0.05, random_state=0)
    H = (H + H.T + sp.diags(np.random.default_rng(0).normal(size=120))).tocsr()
    with given(H, comm=comm) as problem:
        multigrid = Multigrid(problem, {})
        assert multigrid.shift > -np.linalg.eigvalsh(H.toarray())[0]
        multigrid.close()
    assert set(codes) == {91} and comm.allgather(codes) == [codes] * comm.size
