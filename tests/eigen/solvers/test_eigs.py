"""Eigenpairs against dense LAPACK and closed forms, on any number of ranks."""

from petsc4py import PETSc

import numpy as np
import pytest
import scipy.sparse as sp

import cantilever
import elastic_network
import sparsehess as sh
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.solvers.krylov_schur import KrylovSchur
from sparsehess.errors import CheckError, InputError, NotConverged, StackError
from sparsehess.runtime import destroy
from support.cases import agree, free_chain, lapack, laplacian, prescribed, real, reference, stored
from support.petsc_events import counted_events

pytestmark = [pytest.mark.parallel([1, 2, 4]), pytest.mark.essential]


@pytest.mark.parametrize("k", [7, 12, 40, *(pytest.param(k, marks=pytest.mark.thorough) for k in (1, 3, 10, 25))])
@pytest.mark.parametrize("name", real())
def test_lowest_of_real_matrices(name, k, comm):
    K, M = stored(name)
    exact = reference(name)
    k = min(k, len(exact))
    with sh.eigs(K, k, mass=M, comm=comm) as spectrum:
        agree(spectrum, exact[:k], np.abs(exact).max(), comm)


@pytest.mark.parametrize("name", real())
def test_largest_of_real_matrices(name, comm):
    K, M = stored(name)
    exact = reference(name)
    with sh.eigs(K, 10, which="largest", mass=M, comm=comm) as spectrum:
        agree(spectrum, exact[-10:], np.abs(exact).max(), comm)


@pytest.mark.parametrize("name", real("hb_lund", "ccx_acou3", "nafems_fv52_p2", "evsl_ab_fem3d", "hb_bcsst01"))
@pytest.mark.parametrize("part", [0.1, 0.4])
def test_nearest_to_a_target(name, part, comm):
    K, M = stored(name)
    exact = reference(name)
    target = 0.37 * exact[int(part * len(exact))] + 0.63 * exact[int(part * len(exact)) + 1]
    expected = np.sort(exact[np.argsort(np.abs(exact - target))[:8]])
    with sh.eigs(K, 8, target=target, mass=M, comm=comm) as spectrum:
        agree(spectrum, expected, np.abs(exact).max(), comm)
        low, high = spectrum.count.interval
        assert low < target < high


def test_only_finite_eigenvalues_exist(comm):
    K, M = stored("hb_bcsst01")
    exact = reference("hb_bcsst01")
    assert len(exact) == 24
    with pytest.raises(NotConverged, match="24 of 24 eigenpairs: no more exist"):
        sh.eigs(K, 40, mass=M, comm=comm)
    with sh.eigs(K, 40, mass=M, comm=comm, strict=False) as spectrum:
        agree(spectrum, exact, exact.max(), comm)


def test_rigid_modes_of_a_free_plate_are_zero(comm):
    K, M = stored("nafems_fv52_p2")
    with sh.eigs(K, 5, mass=M, comm=comm) as spectrum:
        assert spectrum.zeros == 3
        assert np.abs(spectrum.eigenvalues[:3]).max() < 1e-12 * reference("nafems_fv52_p2").max()
        assert spectrum.eigenvalues[3] > 1e4


def test_discrete_laplacian(comm):
    matrix, exact = laplacian(9, 10, 11)
    for which, expected in (("smallest", exact[:20]), ("largest", exact[-20:])):
        with sh.eigs(matrix, 20, which=which, comm=comm) as spectrum:
            agree(spectrum, expected, exact.max(), comm, within=1e-13)


def test_free_chain_has_one_zero_mode(comm):
    matrix, exact = free_chain(400)
    with sh.eigs(matrix, 10, comm=comm) as spectrum:
        agree(spectrum, exact[:10], exact.max(), comm, within=1e-14)
        assert spectrum.zeros == 1


@pytest.mark.parametrize("k", [1, 5, pytest.param(12, marks=pytest.mark.thorough)])
def test_a_tight_cluster_far_from_zero(k, comm):
    """The lowest of a chain of pendulums: gaps of 1e-5 above 1, which stall a shift at 0."""
    matrix, exact = laplacian(1000)
    with sh.eigs(matrix + sp.identity(1000), k, comm=comm) as spectrum:
        agree(spectrum, exact[:k] + 1, 5.0, comm, within=1e-13)


def test_multiplicities_cut_at_the_edge(comm):
    values = np.repeat([1.0, 2.0, 3.0, 50.0], [3, 5, 7, 25])
    matrix = prescribed(values)
    for k in range(1, 17):
        with sh.eigs(matrix, k, comm=comm) as spectrum:
            agree(spectrum, values[:k], 50.0, comm, within=1e-12)


def test_indefinite_saddle(comm):
    values = np.sort(np.concatenate([np.linspace(-5, -0.1, 7), np.linspace(0.2, 90, 120)]))
    matrix = prescribed(values, seed=3)
    for which, expected in (
        ("smallest", values[:9]),
        ("negative", values[:7]),
        ("magnitude", values[-9:]),
        ("largest", values[-9:]),
    ):
        with sh.eigs(matrix, 9, which=which, comm=comm) as spectrum:
            agree(spectrum, expected, 90.0, comm, within=1e-12)


def test_negative_asks_for_no_more_than_k(comm):
    matrix = prescribed(np.linspace(-3, 3, 50))
    with sh.eigs(matrix, 4, which="negative", comm=comm) as spectrum:
        agree(spectrum, np.linspace(-3, 3, 50)[:4], 3.0, comm, within=1e-12)


def test_no_negative_eigenvalue_is_an_answer(comm):
    with sh.eigs(laplacian(6, 7)[0], 3, which="negative", comm=comm) as spectrum:
        assert spectrum.converged == 0
        assert spectrum.count.certified and spectrum.count.inertia == 0


def test_magnitude_on_both_ends(comm):
    values = np.concatenate([[-100, -90], np.linspace(-1, 1, 60), [80, 95]])
    with sh.eigs(prescribed(values), 4, which="magnitude", comm=comm) as spectrum:
        agree(spectrum, np.array([-100, -90, 80, 95]), 100.0, comm, within=1e-12)


def test_a_target_on_an_eigenvalue(comm):
    values = np.arange(1.0, 61.0)
    with sh.eigs(sp.diags(values), 5, target=30.0, comm=comm) as spectrum:
        agree(spectrum, np.arange(28.0, 33.0), 60.0, comm, within=1e-12)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_tiny_matrices_and_all_pairs(n, comm):
    values = np.arange(1.0, n + 1)
    for which in ("smallest", "largest"):
        with sh.eigs(prescribed(values), n, which=which, comm=comm) as spectrum:
            agree(spectrum, values, n, comm, within=1e-13)


def test_zero_matrix(comm):
    with sh.eigs(sp.csr_matrix((12, 12)), 3, comm=comm) as spectrum:
        assert np.array_equal(np.abs(spectrum.eigenvalues) < 1e-12, [True] * 3)


def test_scales_far_from_one(comm):
    matrix, exact = laplacian(8, 9)
    for factor in (1e-20, 1e20):
        with sh.eigs(factor * matrix, 6, comm=comm) as spectrum:
            agree(spectrum, factor * exact[:6], factor * exact.max(), comm, within=1e-12)


@pytest.mark.parametrize("deflate", [True, False])
def test_free_body_with_and_without_its_rigid_modes(deflate, comm):
    rng = np.random.default_rng(2)
    points = rng.uniform(0, 4, (60, 3))
    i, j = np.triu_indices(60, 1)
    near = np.linalg.norm(points[i] - points[j], axis=1) < 2.5
    pairs = np.stack([i[near], j[near]], axis=1)
    objective = sh.Objective(
        x=points.ravel(),
        gradient=elastic_network.network(points, pairs),
        pattern=sh.Pattern.from_edges(pairs, 60, dofs=3, comm=comm),
        null_vectors=sh.rigid_body_modes(points)[0] if deflate else None,
        mass=rng.uniform(1, 3, 180),
        comm=comm,
    )
    with sh.assemble(objective) as hessian:
        exact = lapack(hessian_to_dense(hessian, comm), np.diag(objective.mass))
        expected = exact[6:14] if deflate else exact[:14]
        with sh.eigs(hessian, len(expected)) as spectrum:
            agree(spectrum, expected, exact.max(), comm)
            assert spectrum.zeros == (0 if deflate else 6)


def hessian_to_dense(hessian, comm):
    indptr, indices, data = hessian.mat.getValuesCSR()
    own = sp.csr_matrix((data, indices, indptr), (len(indptr) - 1, hessian.pattern.n)).toarray()
    return np.concatenate(comm.allgather(own))


def test_a_wrong_null_vector_is_refused(comm):
    with pytest.raises(CheckError, match="null vector 0 is not in the null space"):
        sh.eigs(laplacian(6, 6)[0], 3, nullspace=np.ones((1, 36)), comm=comm)
    with pytest.raises(CheckError, match="null vector 0 is zero"):
        sh.eigs(laplacian(6, 6)[0], 3, nullspace=np.zeros((1, 36)), comm=comm)


def test_first_bending_frequencies_of_the_beam(comm):
    with sh.assemble(cantilever.cantilever(comm)) as hessian, sh.eigs(hessian, 4) as modes:
        hertz = hessian.objective.units.of_eigenvalues(modes.eigenvalues)
        theory = cantilever.theory()[:4]
        assert np.abs(hertz[:2] / theory[:2] - 1).max() < 0.005
        assert np.abs(hertz / theory - 1).max() < 0.02


def test_options_of_the_caller_win_and_unused_ones_are_errors(comm):
    matrix, _ = laplacian(9, 10)
    with sh.eigs(matrix, 3, options={"eps_ncv": 33, "st_mat_mumps_icntl_14": 80}, comm=comm) as spectrum:
        assert spectrum.options["eps_ncv"] == 33 and spectrum.options["st_mat_mumps_icntl_14"] == 80
    with pytest.raises(InputError, match="-eps_nvc"):
        sh.eigs(matrix, 3, options={"eps_nvc": 33}, comm=comm)
    assert not PETSc.Options().hasName("sparsehess_eps_ncv")


def test_a_factorization_that_fails_for_another_reason_is_no_matter_of_the_spectrum(comm, monkeypatch):
    """Factors on a disk that is not there: the matrix is positive definite all the same."""
    monkeypatch.setenv("MUMPS_OOC_TMPDIR", "/nonexistent")
    matrix, _ = laplacian(9, 10)
    with pytest.raises(StackError, match=r"to disk: /nonexistent cannot be used .*MUMPS_OOC_TMPDIR"):
        sh.eigs(matrix, 3, options={"st_mat_mumps_icntl_22": 1}, comm=comm)


def test_below_the_spectrum_and_within_are_told_apart(comm):
    """Whatever factorizes: CHOLMOD by itself takes an indefinite matrix for a definite one."""
    chain = sp.diags([-1.0, 2.0, -1.0], [-1, 0, 1], (300, 300))
    random = sp.random(60, 60, 0.1, random_state=3)
    for matrix in (chain, sp.csr_matrix([[2.0]]), random + random.T + sp.diags(np.linspace(-1, 1, 60))):
        exact = np.linalg.eigvalsh(matrix.toarray())
        size = np.abs(exact).max()
        with EigenProblem.of(matrix.tocsr(), comm=comm) as problem:
            solver = KrylovSchur(problem, True, {}, tol=1e-8)
            for shift in (exact[0] - 1e-9 * size, exact[0] + 1e-9 * size, exact.mean() + 1e-3, exact[-1] + 1.0):
                below = int((exact < shift).sum())
                assert solver.shift_below(shift) == (below == 0)
                assert solver.shift_to(shift)[0] == below
            solver.close()


@pytest.mark.parametrize("which", ["smallest", "largest"])
def test_the_tolerance_is_what_is_worked_for(which, comm):
    matrix, exact = laplacian(9, 10, 11)
    expected = exact[:8] if which == "smallest" else exact[-8:]
    work = []
    for tol in (1e-4, 1e-12):
        with sh.eigs(matrix, 8, which=which, tol=tol, comm=comm) as spectrum:
            assert spectrum.residuals.max() <= tol and spectrum.count.certified
            assert np.abs(spectrum.eigenvalues - expected).max() <= tol * exact.max()
            work.append(spectrum.iterations)
    assert work[0] < work[1]


def test_too_few_iterations_are_not_passed_off_as_success(comm):
    matrix = laplacian(20, 21, 22)[0]
    with pytest.raises(NotConverged, match="of 30 eigenpairs"):
        sh.eigs(matrix, 30, which="largest", options={"eps_max_it": 1, "eps_ncv": 31}, count="no", comm=comm)


def test_a_moved_shift_takes_the_factorization_of_its_count(comm):
    matrix, exact = laplacian(19, 23)
    with (
        EigenProblem.of(matrix, comm=comm) as problem,
        counted_events("MatCholFctrSym", "MatCholFctrNum") as often,
    ):
        solver = KrylovSchur(problem, True, {}, tol=1e-10)
        solver.shift_to(-1.0)
        analyses, factorizations = often()
        for shift in (2.05, 3.1, 0.7):
            assert solver.shift_to(shift)[0] == np.count_nonzero(exact < shift)
            vectors, image = solver.solve("nearest", 4), problem.A.createVecLeft()
            factorizations += 1
            assert often() == [analyses, factorizations]
            values = []
            for vector in vectors[:4]:
                problem.A.mult(vector, image)
                values.append(image.dot(vector) / vector.dot(vector))
            assert values == pytest.approx(exact[np.argsort(abs(exact - shift))[:4]], rel=1e-9)
            destroy(image, *vectors)
        solver.close()


@pytest.mark.parametrize("n", [1, 2, 5, 6])
def test_by_default_no_more_pairs_are_asked_for_than_there_are(n, comm):
    exact = 2.0 + np.arange(n)
    with sh.eigs(np.diag(exact), comm=comm) as spectrum:
        assert spectrum.eigenvalues == pytest.approx(exact) and spectrum.asked == n
    mass = np.ones(9)
    mass[n:] = 0.0
    chain = sp.diags([-np.ones(8), np.full(9, 2.0), -np.ones(8)], [-1, 0, 1])
    with sh.eigs(chain, mass=mass, comm=comm) as spectrum:
        assert spectrum.eigenvalues == pytest.approx(lapack(chain, sp.diags(mass))[:n]) and not spectrum.advice
    free = sp.diags([-np.ones(n), np.r_[1.0, np.full(n - 1, 2.0), 1.0], -np.ones(n)], [-1, 0, 1])
    with sh.eigs(free, nullspace=np.ones((1, n + 1)), comm=comm) as spectrum:
        assert spectrum.eigenvalues == pytest.approx(lapack(free)[1:]) and spectrum.count.certified
