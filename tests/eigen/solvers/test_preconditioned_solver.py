"""LOBPCG, Davidson and LAPACK against closed forms and dense LAPACK, on any number of ranks."""

import contextlib
import sys

from petsc4py import PETSc

import numpy as np
import pytest
import scipy.sparse as sp

from support import ROOT
from support.cases import free_chain, lapack, laplacian, reference, stored

sys.path.append(str(ROOT / "benchmarks"))
from lobpcg import brick

import sparsehess as sh
from sparsehess.eigen.problem.block_vectors import dots
from sparsehess.eigen.problem.factor_memory import factor_memory
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.problem.rayleigh_ritz import rayleigh_ritz
from sparsehess.eigen.problem.rigid_body_modes import block_size, orthonormal, rigid_body_modes, rigid_body_rows
from sparsehess.eigen.solvers.davidson import Davidson
from sparsehess.eigen.solvers.lapack import Dense
from sparsehess.eigen.solvers.lobpcg import Lobpcg
from sparsehess.eigen.solvers.multigrid_cycle import Level
from sparsehess.eigen.solvers.preconditioners import Multigrid
from sparsehess.errors import EvaluationError, InputError, StackError
from sparsehess.pattern import Layout
from sparsehess.runtime import destroy

pytestmark = pytest.mark.parallel([1, 2, 3])

METHODS = {"lobpcg": Lobpcg, "gd": Davidson, "jd": Davidson}
TOL = 1e-8


class Shell:
    """Products with an assembled matrix, and its diagonal if that is to be had."""

    def __init__(self, inner, diagonal=True):
        self.inner = inner
        if diagonal:
            self.getDiagonal = lambda mat, d: inner.getDiagonal(d)

    def mult(self, mat, x, y):
        self.inner.mult(x, y)

    def norm(self, mat, kind):
        return self.inner.norm(kind)


@contextlib.contextmanager
def given(K, M=None, *, comm, shell=False, diagonal=True, null=None):
    with EigenProblem.of(K, mass=M, comm=comm, nullspace=null) as assembled:
        if not shell:
            yield assembled
            return
        mat = PETSc.Mat().createPython(assembled.A.getSizes(), Shell(assembled.A, diagonal), comm=comm)
        mat.setUp()
        with EigenProblem.of(mat, mass=assembled.M, nullspace=assembled.null) as problem:
            yield problem
        mat.destroy()


def solved(problem, method, which, k, *, options=None, **more):
    """Return eigenvalues and iterations, after checks of what came."""
    solver = METHODS[method](problem, method, options or {}, tol=TOL)
    try:
        vectors = solver.solve(which, k, **more)
        assert len(vectors) >= k
        values, vectors, errors, orthogonality = rayleigh_ritz(problem, vectors)
        destroy(*vectors)
        assert errors.max() <= TOL and orthogonality < 1e-10
        assert solver.seconds["solve"] > 0
        return values[:k] if which == "smallest" else values[-k:], solver.iterations
    finally:
        solver.close()


def distributed(problem, rows):
    vectors = []
    for row in rows:
        vector = problem.A.createVecRight()
        vector.setArray(row[problem.layout.start : problem.layout.stop])
        vectors.append(vector)
    return vectors


def near(values, exact, within=1e-7):
    assert len(values) == len(exact)
    assert np.abs(values - exact).max() <= within * np.abs(exact).max(), (values, exact)


# --- the table ---------------------------------------------------------------------------


@pytest.mark.thorough
@pytest.mark.parametrize("which", ["smallest", "largest"])
@pytest.mark.parametrize("shell", [False, True], ids=["assembled", "shell"])
@pytest.mark.parametrize("mass", [False, True], ids=["standard", "mass"])
@pytest.mark.parametrize("method", METHODS)
def test_laplacian(method, mass, shell, which, comm):
    K, exact = laplacian(7, 8, 9)
    M = None
    if mass:
        M = sp.diags(1 + 0.5 * np.sin(np.arange(K.shape[0])))
        exact = lapack(K, M)
    with given(K, M, comm=comm, shell=shell) as problem:
        values, _ = solved(problem, method, which, 6)
    near(values, exact[:6] if which == "smallest" else exact[-6:])


@pytest.mark.parametrize("method", METHODS)
def test_multiplicities_of_a_cube(method, comm):
    K, exact = laplacian(9, 9, 9)  # threefold at 2, 5, 8
    with given(K, comm=comm) as problem:
        values, _ = solved(problem, method, "smallest", 10)
    near(values, exact[:10])


@pytest.mark.thorough
def test_more_pairs_than_the_block_has_vectors(comm):
    K, exact = laplacian(40, 11)
    with given(K, comm=comm) as problem:
        values, _ = solved(problem, "lobpcg", "smallest", 20, options={"eps_lobpcg_blocksize": 12})
    near(values, exact[:20])


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["ccx_beam8f", "hb_lund", "nafems_fv52_p2"])
def test_real_matrices(name, comm):
    K, M = stored(name)
    exact = reference(name)
    with given(K, M, comm=comm) as problem:
        values, _ = solved(problem, "lobpcg", "smallest", 5)
    near(values, exact[:5])


@pytest.mark.thorough
@pytest.mark.parametrize("method", METHODS)
def test_a_shell_without_a_diagonal(method, comm):
    K, exact = laplacian(11, 12)
    with given(K, comm=comm, shell=True, diagonal=False) as problem:
        solver = METHODS[method](problem, method, {}, tol=TOL)
        near(solved(problem, method, "smallest", 3)[0], exact[:3])
        solver.close()


# --- null spaces and negative eigenvalues --------------------------------------------------


@pytest.mark.thorough
@pytest.mark.parametrize("shell", [False, True], ids=["assembled", "shell"])
@pytest.mark.parametrize("method", METHODS)
def test_the_null_vector_of_a_chain_is_deflated(method, shell, comm):
    K, exact = free_chain(150)
    with given(K, comm=comm, null=np.ones((1, 150)), shell=shell) as problem:
        values, _ = solved(problem, method, "smallest", 4)
    near(values, exact[1:5])


@pytest.mark.parametrize("method", METHODS)
def test_a_free_body(method, comm):
    K, M, x = brick((3, 3, 4), clamped=False)
    modes, names = rigid_body_modes(x)
    assert len(names) == 6 and np.abs(K @ modes.T).max() < 1e-12
    exact = lapack(K, M)
    with given(K, M, comm=comm, null=modes) as problem:
        values, _ = solved(problem, method, "smallest", 6)
    near(values, exact[6:12])


@pytest.mark.thorough
def test_a_null_space_that_nobody_told(comm):
    K, M, _ = brick((3, 3, 4), clamped=False)
    exact = lapack(K, M)
    with given(K, M, comm=comm) as problem:
        values, _ = solved(problem, "lobpcg", "smallest", 8)
    near(values, exact[:8])


@pytest.mark.thorough
@pytest.mark.parametrize("method", METHODS)
def test_deflated_pairs_stay_away(method, comm):
    K, exact = laplacian(8, 9, 10)
    with given(K, comm=comm) as problem:
        solver = METHODS[method](problem, method, {}, tol=TOL)
        first = solver.solve("smallest", 4)
        values, first, _, _ = rayleigh_ritz(problem, first)
        more, _ = solved(problem, method, "smallest", 3, deflate=first)
        near(more, exact[len(values) : len(values) + 3])
        destroy(*first)
        solver.close()


@pytest.mark.thorough
@pytest.mark.parametrize("below", [1, 5, 40])
def test_negative_eigenvalues(below, comm):
    K, exact = laplacian(9, 10, 11)
    shift = (exact[below - 1] + exact[below]) / 2
    with given(K - shift * sp.identity(K.shape[0]), comm=comm) as problem:
        values, _ = solved(problem, "lobpcg", "smallest", 5)
    near(values, exact[:5] - shift)


# --- elasticity ----------------------------------------------------------------------------


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
        assert np.abs(form - form.T).max() < 1e-12 * np.abs(form).max() and np.linalg.eigvalsh(form)[0] > 0
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


@pytest.mark.thorough
@pytest.mark.parametrize("method", METHODS)
def test_a_warm_start_takes_fewer_iterations(method, comm):
    K, M, _ = brick((4, 4, 5))
    with given(K, M, comm=comm) as problem, given(K + 1e-4 * M, M, comm=comm) as changed:
        solver = METHODS[method](problem, method, {}, tol=TOL)
        guess = solver.solve("smallest", 5)
        solver.close()
        cold, many = solved(changed, method, "smallest", 5)
        warm, few = solved(changed, method, "smallest", 5, guess=guess)
        destroy(*guess)
    near(warm, cold)
    assert few < 0.8 * many


class Breaks(Shell):
    """Gives what is no number on the last rank, after some that are right."""

    calls = 0

    def mult(self, mat, x, y):
        super().mult(mat, x, y)
        self.calls += 1
        if self.calls > 40 and mat.comm.rank == mat.comm.size - 1:
            y.setArray(np.full(y.getLocalSize(), np.nan))


def test_products_that_are_no_numbers_end_all_ranks(comm):
    K, _ = laplacian(7, 8)
    with given(K, comm=comm) as assembled:
        mat = PETSc.Mat().createPython(assembled.A.getSizes(), Breaks(assembled.A), comm=comm)
        mat.setUp()
        with EigenProblem.of(mat) as problem:
            solver = Lobpcg(problem, "lobpcg", {}, tol=TOL)
            with pytest.raises(EvaluationError, match="not finite"):
                solver.solve("smallest", 3)
            solver.close()
        mat.destroy()


# --- what is refused -----------------------------------------------------------------------


@pytest.mark.thorough
@pytest.mark.parametrize("method", METHODS)
def test_refusals(method, comm):
    K, _ = laplacian(7, 8)
    massless = np.ones(56)
    massless[3] = 0
    with given(K, massless, comm=comm) as problem, pytest.raises(InputError, match="krylovschur"):
        METHODS[method](problem, method, {}, tol=TOL)
    with given(K, comm=comm) as problem:
        solver = METHODS[method](problem, method, {"eps_no_such": 1}, tol=TOL)
        with pytest.raises(InputError, match="-eps_no_such"):
            solver.solve("smallest", 2)
        with pytest.raises(InputError, match="nearest"):
            solver.solve("nearest", 2)
        solver.close()


def test_options_of_the_caller_are_used(comm):
    K, exact = laplacian(9, 10)
    with given(K, comm=comm) as problem:
        options = {"st_pc_type": "jacobi", "eps_lobpcg_blocksize": 9}
        values, _ = solved(problem, "lobpcg", "smallest", 4, options=options)
        solver = Lobpcg(problem, "lobpcg", options, tol=TOL)
        assert solver.used_defaults()["st_pc_type"] == "jacobi"
        solver.close()
    near(values, exact[:4])


# --- LAPACK --------------------------------------------------------------------------------


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["hb_bcsst01", "hb_lund"])
@pytest.mark.parametrize("which", ["smallest", "largest"])
def test_dense(name, which, comm):
    K, M = stored(name)
    exact = reference(name)
    with given(K, M, comm=comm) as problem:
        solver = Dense(problem)
        values, vectors, errors, _ = rayleigh_ritz(problem, solver.solve(which, 8))
        destroy(*vectors)
        solver.close()
    near(values, exact[:8] if which == "smallest" else exact[-8:], 1e-9)
    assert errors.max() < 1e-12


def test_dense_deflates_within_a_cluster(comm):
    K, exact = laplacian(5, 5, 5)
    with given(K, comm=comm, shell=True) as problem:
        solver = Dense(problem)
        first = solver.solve("smallest", 3)  # cuts a threefold eigenvalue
        values, rest, _, _ = rayleigh_ritz(problem, solver.solve("smallest", 6, deflate=first))
        near(values, exact[3:9], 1e-10)
        destroy(*first, *rest)
        nearest = solver.solve("nearest", 3, target=6.0)
        assert len(nearest) == 3
        destroy(*nearest)


@pytest.mark.thorough
def test_dense_refuses_what_is_large(comm):
    with given(sp.identity(20_000, format="csr"), comm=comm) as problem, pytest.raises(InputError, match="dense"):
        Dense(problem)


# --- rooms beside: null spaces, memory -----------------------------------------------------


@pytest.mark.thorough
def test_rigid_body_modes():
    x = np.random.default_rng(3).normal(size=(7, 3)) + 5
    modes, names = rigid_body_modes(x)
    assert names == [f"{kind} {axis}" for kind in ("translation", "rotation") for axis in "xyz"]
    assert np.abs(modes @ modes.T - np.eye(6)).max() < 1e-14
    stretch = np.random.default_rng(4).normal(size=(3, 3))
    spun = ((x - x.mean(0)) @ (stretch - stretch.T).T + 2.0).ravel()  # an infinitesimal motion of all kinds
    assert np.linalg.norm(spun - modes.T @ (modes @ spun)) < 1e-12 * np.linalg.norm(spun)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "x, count",
    [
        (np.outer(np.arange(5), [1, 2, 3]), 5),
        (np.zeros((1, 3)), 3),
        (np.random.default_rng(0).normal(size=(6, 2)), 3),
        (np.zeros((1, 2)), 2),
        (np.column_stack([np.random.default_rng(0).normal(size=(6, 2)), np.zeros(6)]), 6),
    ],
)
def test_bodies_with_fewer_modes(x, count):
    modes, names = rigid_body_modes(x)
    assert len(modes) == len(names) == count
    assert np.allclose(modes @ modes.T, np.eye(count), atol=1e-13)


@pytest.mark.parametrize("x", [np.random.default_rng(3).normal(size=(9, 3)), np.outer(np.arange(9), [1, 2, 3])])
def test_rows_of_the_modes_over_ranks(x, comm):
    layout = Layout.from_size(27, comm)  # ranks share nodes
    nodes = x[layout.start // 3 : -(-layout.stop // 3)]
    rows, names = rigid_body_rows(nodes, layout, 3)
    modes, same = rigid_body_modes(x)
    assert names == same and rows.shape == (len(modes), layout.n_local)
    whole = np.concatenate(comm.allgather(rows), axis=1)
    assert np.abs(whole.T @ whole - modes.T @ modes).max() < 1e-12  # axes of a line may turn round


def test_modes_of_the_free_dofs():
    x = np.random.default_rng(1).normal(size=(9, 3))
    all_of_them, _ = rigid_body_modes(x)
    mask = np.zeros(27, bool)
    mask[[0, 1, 2, 7]] = True
    for fixed in (mask, np.flatnonzero(mask)):
        modes, _ = rigid_body_modes(x, fixed=fixed)
        assert modes.shape == (6, 23)
        outside = all_of_them[:, ~mask] - (all_of_them[:, ~mask] @ modes.T) @ modes
        assert np.abs(outside).max() < 1e-13
    with pytest.raises(InputError):
        rigid_body_modes(x, fixed=[27])
    with pytest.raises(InputError):
        rigid_body_modes(x.ravel())


@pytest.mark.thorough
def test_blocks_are_seen_in_the_near_null_space(comm):
    x = np.random.default_rng(1).normal(size=(4 * comm.size, 3))
    for dims in (2, 3):
        template = PETSc.Vec().createMPI((4 * dims, PETSc.DETERMINE), comm=comm)
        first, last = template.getOwnershipRange()
        vectors = []
        for row in rigid_body_modes(x, dims)[0]:
            vectors.append(template.duplicate())
            vectors[-1].setArray(row[first:last])
        basis = orthonormal([*vectors, vectors[0]])
        assert len(basis) == len(vectors)
        assert block_size(basis) == dims and block_size(basis[1:]) == 1
        destroy(*vectors, *basis, template)


def test_memory_of_a_factor(comm):
    K, M, _ = brick((9, 9, 9))
    with given(K, M, comm=comm) as problem:
        most, total = factor_memory(problem)
        assert most <= total <= comm.size * most
        assert 8e6 < total < 2e8  # the factor alone has some 10^6 entries
    with given(laplacian(6, 7)[0], comm=comm, shell=True) as problem, pytest.raises(StackError, match="python"):
        factor_memory(problem)


@pytest.mark.parametrize("method", METHODS)
def test_as_many_guesses_as_a_block_has_leave_no_random_vectors(method, comm):
    """Multigrid then begins with nothing, on coarse levels that some ranks have no rows of too."""
    matrix, exact = laplacian(19, 23)
    guess = np.linalg.eigh(matrix.toarray())[1][:, :40].T + 1e-3
    with sh.eigs(matrix, 8, method=method, guess=guess, comm=comm) as spectrum:
        assert spectrum.eigenvalues == pytest.approx(exact[:8], rel=1e-10)
        assert spectrum.count.certified
