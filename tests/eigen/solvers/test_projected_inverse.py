"""Null vectors that are null but for the error of the matrix: solved and counted on what is orthogonal to them."""

import numpy as np
import pytest
import scipy.linalg

import sparsehess as sh
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.solvers.eigs import solve
from sparsehess.eigen.solvers.end_solvers import StructureCounter
from sparsehess.eigen.solvers.krylov_schur import KrylovSchur
from sparsehess.errors import CheckError, InputError
from sparsehess.pattern import Layout

pytestmark = [pytest.mark.parallel([1, 2, 3]), pytest.mark.essential]


def noisy(seed, n=24, m=3, noise=1e-3, massive=True):
    """Return (A, M, N, exact): N is null but for the noise; exact are the eigenvalues on its complement."""
    random = np.random.default_rng(seed)
    M = np.diag(random.uniform(0.5, 2.0, n)) if massive else None
    mass = np.eye(n) if M is None else M
    N = random.standard_normal((n, m))
    P = np.eye(n) - N @ np.linalg.solve(N.T @ mass @ N, N.T @ mass)
    inner = random.standard_normal((n, n))
    A = P.T @ (inner + inner.T) @ P
    error = noise * random.standard_normal((n, n))
    A = A + error + error.T
    Z = scipy.linalg.null_space((mass @ N).T)
    exact = scipy.linalg.eigh(Z.T @ A @ Z, Z.T @ mass @ Z, eigvals_only=True)
    return A, M, N.T, exact


@pytest.mark.parametrize("massive", [False, True])
@pytest.mark.parametrize("noise", [0.0, 1e-8, 1e-2])
def test_counts_are_those_of_the_complement(noise, massive, comm):
    for seed in range(3):
        A, M, N, exact = noisy(seed, noise=noise, massive=massive)
        with EigenProblem.of(A, mass=M, nullspace=N, relative_error=0.1, comm=comm) as problem:
            solver = KrylovSchur(problem, True, {}, tol=1e-12)
            whole = np.linalg.eigvalsh(A) if M is None else scipy.linalg.eigvalsh(A, M)
            # Beside eigenvalues of the complement, and of the whole, where S is nearly singular or very large.
            for place in (*exact[::4], *whole[::4], 0.0):
                for away in (-1e-7, 1e-7):
                    below, zero, above = solver.shift_to(place + away)
                    assert below + zero + above == len(exact)
                    if not zero:
                        assert below == np.count_nonzero(exact < place + away), (seed, place, away)
            solver.close()


def test_a_shift_at_an_eigenvalue_is_not_believed(comm):
    A, M, N, exact = noisy(5, noise=1e-2)
    with EigenProblem.of(A, mass=M, nullspace=N, relative_error=0.1, comm=comm) as problem:
        solver = KrylovSchur(problem, True, {}, tol=1e-12)
        for value in exact:
            below, zero, _ = solver.shift_to(value)
            true = int(np.count_nonzero(exact < value - 1e-12))
            assert zero or below in (true, true + 1)
        solver.close()


WAYS = ("krylovschur", "lobpcg", "gd", "jd", "dense", "slicing", "feast", "ciss", "filter")


@pytest.mark.parametrize("noise", [1e-9, 1e-5])
@pytest.mark.parametrize("method", WAYS)
def test_every_method_solves_on_the_complement(method, noise, comm):
    A, M, N, exact = noisy(7, n=60, m=2, noise=noise)
    definite = method in ("lobpcg", "gd", "jd")
    if definite:  # the lowest of what a preconditioner can invert
        A, exact = A + 40 * _heavy(M, N), exact + 40
    whole = method in ("slicing", "feast", "ciss", "filter")
    middle = 0.5 * (exact[19] + exact[20]), 0.5 * (exact[24] + exact[25])
    asked = {"interval": middle} if whole else {"k": 4}
    right = exact[20:25] if whole else exact[:4]
    with EigenProblem.of(A, mass=M, nullspace=N, relative_error=noise, comm=comm) as problem:
        found = solve(problem, sh.SolveSpec(**asked, method=method))
        np.testing.assert_allclose(found.eigenvalues, right, rtol=0, atol=1e-9 * 80)
        assert found.residuals.max() <= max(1e-8, noise)
        assert found.count.certified
        for vector in found.vectors:
            assert np.abs(problem.null_space.parts(vector)).max() < 1e-10
        found.close()


def _heavy(M, N):
    """Return M on the complement of N alone."""
    P = np.eye(len(M)) - N.T @ np.linalg.solve(N @ M @ N.T, N @ M)
    return P.T @ M @ P


@pytest.mark.parametrize("which", ["largest", "magnitude", "negative"])
def test_other_ends_are_those_of_the_complement(which, comm):
    A, M, N, exact = noisy(11, noise=1e-3)
    farthest = np.sort(exact[np.argsort(-abs(exact))[:4]])
    order = {"largest": exact[-4:], "magnitude": farthest, "negative": exact[:4]}
    with EigenProblem.of(A, mass=M, nullspace=N, relative_error=0.01, comm=comm) as problem:
        found = solve(problem, sh.SolveSpec(k=4, which=which))
        np.testing.assert_allclose(found.eigenvalues, order[which], rtol=1e-9)
        assert found.count.certified
        found.close()


def test_the_count_has_the_known_zeros_where_it_covers_zero(comm):
    matrix = free_chain(40)
    with sh.eigs(matrix, 3, nullspace=np.ones((1, 40)), comm=comm) as found:
        assert (found.count.inertia, found.count.found) == (4, 4)
    exact = 2 - 2 * np.cos(np.pi * np.arange(40) / 40)
    with sh.eigs(
        matrix, interval=(exact[1] * 0.9, exact[3] * 1.1), nullspace=np.ones((1, 40)), comm=comm
    ) as found:
        assert (found.count.inertia, found.count.found) == (3, 3)


def free_chain(n):
    matrix = 2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1)
    matrix[0, 0] = matrix[-1, -1] = 1.0
    return matrix


def test_dependent_null_vectors_are_counted_once(comm):
    given = np.stack([np.ones(40), np.ones(40), 3 * np.ones(40)])
    with sh.eigs(free_chain(40), 3, nullspace=given, comm=comm) as found:
        assert found.count.inertia == 4 and found.count.certified
        np.testing.assert_allclose(found.eigenvalues, 2 - 2 * np.cos(np.pi * np.arange(1, 4) / 40), rtol=1e-10)


def test_each_wrong_null_vector_is_named(comm):
    wrong = np.stack([np.ones(40), np.arange(40.0), np.cos(np.arange(40.0))])
    with pytest.raises(CheckError, match=r"null vector 1 is not.*row (0|39).*null vector 2 is not") as caught:
        sh.eigs(free_chain(40), 3, nullspace=wrong, comm=comm)
    assert "null vector 0" not in str(caught.value)
    with pytest.raises(CheckError, match=r"times the error of the matrix, 1e-06"):
        EigenProblem.of(free_chain(40), nullspace=np.arange(40.0), relative_error=1e-6, comm=comm)


def test_a_large_entry_hides_no_wrong_null_vector(comm):
    supported = free_chain(40)
    supported[7, 7] += 1e-3
    supported[20:22, 20:22] += 1e12 * np.array([[1, -1], [-1, 1]])
    with pytest.raises(CheckError, match=r"null vector 0 is not.*row 7"):
        sh.eigs(supported, 3, nullspace=np.ones((1, 40)), comm=comm)


def test_a_null_vector_without_mass_is_the_pencils(comm):
    stiffness, mass = free_chain(10), np.ones(10)
    stiffness[3] = stiffness[:, 3] = 0
    mass[3] = 0
    with pytest.raises(InputError, match="null vector 0 has no mass"):
        sh.eigs(stiffness, 2, mass=mass, nullspace=np.eye(10)[3:4], comm=comm)


def test_a_structure_counts_but_for_what_couples_it_to_null_vectors(comm):
    """The zero of a null vector that is none exactly is told from no shift as near to it."""
    d = np.r_[np.linspace(3.0, 4.0, 19), np.linspace(1.0, 2.0, 20), 1e-9]
    null = np.eye(40)[39:]
    layout = Layout.from_size(40, comm)
    own = slice(layout.start, layout.stop)
    with (
        sh.LowRankDiagonal(d[own], np.zeros((layout.n_local, 1)), comm=comm) as H,
        EigenProblem.of(H, nullspace=null, relative_error=1e-8) as problem,
    ):
        counter = StructureCounter(problem, problem.structure)
        assert tuple(counter.shift_to(0.5)) == (0, 0, 39) and tuple(counter.shift_to(-0.5)) == (0, 0, 39)
        assert counter.shift_to(2.5).negative == 20
        assert counter.shift_to(0.5e-9).zero > 0
        found = solve(problem, sh.SolveSpec(k=3))
        np.testing.assert_allclose(found.eigenvalues, np.sort(d)[1:4], rtol=1e-9)
        assert found.count.certified and found.count.inertia == 4
        found.close()
