"""Derivatives of eigenvalues and eigenvectors, against LAPACK at neighbouring values and closed forms."""

import json

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sp

import sparsehess as sh
from sparsehess.errors import InputError
from support.cases import laplacian

pytestmark = [pytest.mark.parallel([1, 2, 3]), pytest.mark.essential]

N = 40


def symmetric(rng, n=N):
    B = rng.standard_normal((n, n))
    return (B + B.T) / 2


def pencil(seed):
    """Return A, M definite, and symmetric changes of both, as random as possible."""
    rng = np.random.default_rng(seed)
    A, dA, dM, B = (symmetric(rng) for _ in range(4))
    return A, B @ B + N * np.eye(N), dA, dM


def lapack(A, M, dA, dM, p):
    return scipy.linalg.eigh(A + p * dA, M + p * dM)


def differences(f, h=1e-3):
    """Return df/dp at 0 by a difference of sixth order."""
    return sum(w * (f(i * h) - f(-i * h)) for i, w in ((1, 45), (2, -9), (3, 1))) / (60 * h)


@pytest.mark.parametrize("seed", [0, 1])
def test_random_pencils(seed, comm):
    A, M, dA, dM = pencil(seed)
    exact = differences(lambda p: lapack(A, M, dA, dM, p)[0][:6])
    with sh.eigs(A, 6, mass=M, comm=comm) as found:
        slopes = sh.eigenvalue_derivatives(A, found, dA, dM, mass=M, comm=comm)
    assert slopes.values == pytest.approx(exact, abs=1e-9)
    assert slopes.simple.all() and (slopes.errors < 1e-8).all()
    assert json.loads(json.dumps(slopes.facts()))["clusters"][0]["counted"] is True


def test_products_alone_tell_the_change(comm):
    A, M, dA, dM = pencil(2)
    with sh.eigs(A, 4, mass=M, comm=comm) as found:
        stored = sh.eigenvalue_derivatives(A, found, dA, dM, mass=M, comm=comm)
        change = sh.from_matvec(lambda x: dA @ x, N, comm=comm)
        shell = sh.eigenvalue_derivatives(A, found, change, dM, mass=M, comm=comm)
        change.close()
    assert shell.values == pytest.approx(stored.values, abs=1e-12)


def test_a_triple_eigenvalue_splits(comm):
    """Against LAPACK at both sides; sorted as just after p."""
    rng = np.random.default_rng(3)
    Q = np.linalg.qr(rng.standard_normal((N, N)))[0]
    exact = np.concatenate([[1.0] * 3, np.linspace(2, 9, N - 3)])
    A, dA = (Q * exact) @ Q.T, symmetric(rng)
    A = (A + A.T) / 2

    def quotients(h):
        return (np.linalg.eigvalsh(A + h * dA)[:3] - 1) / h

    after = 2 * quotients(5e-6) - quotients(1e-5)
    with sh.eigs(A, 5, comm=comm) as found:
        slopes = sh.eigenvalue_derivatives(A, found, dA, comm=comm)
    assert [one.size for one in slopes.clusters] == [3, 1, 1]
    assert slopes.values[:3] == pytest.approx(after, abs=1e-7)
    assert not slopes.simple[:3].any() and slopes.complete.all()


def test_a_square_that_becomes_a_rectangle(comm):
    """Eigenvalues of the discrete Laplacian on a x 1 are sums, whose derivatives are known in closed form."""
    n = 12
    one = sp.diags([-np.ones(n - 1), 2 * np.ones(n), -np.ones(n - 1)], [-1, 0, 1]) * (n + 1.0) ** 2
    A, dA = sp.kronsum(one, one).tocsr(), (-2 * sp.kron(one, sp.eye(n))).tocsr()  # a^-2 at a = 1
    axis = (2 * (n + 1) * np.sin(np.arange(1, n + 1) * np.pi / 2 / (n + 1))) ** 2
    with sh.eigs(A, 6, comm=comm) as found:
        slopes = sh.eigenvalue_derivatives(A, found, dA, comm=comm)
    assert [one.size for one in slopes.clusters] == [1, 2, 1, 2]
    exact = -2 * axis[[0, 1, 0, 1, 2, 0]]
    assert slopes.values == pytest.approx(exact, rel=1e-10)
    assert (np.abs(slopes.values - exact) <= slopes.errors + 1e-10).all()


def test_a_cluster_that_is_cut_tells_nothing(comm):
    """One of a double eigenvalue: its derivative is any number between those of both."""
    K, _ = laplacian(7, 7)
    with sh.eigs(K, 2, comm=comm) as found:
        slopes = sh.eigenvalue_derivatives(K, found, sp.diags(np.arange(49.0)).tocsr(), comm=comm)
        assert slopes.complete.tolist() == [True, False] and np.isinf(slopes.errors[1])
        with pytest.raises(InputError, match="one more pair"):
            sh.eigenvector_derivatives(K, found, sp.eye(49).tocsr(), numbers=[1], comm=comm)
    with sh.eigs(K, 3, comm=comm) as found, pytest.raises(InputError, match="any basis"):
        sh.eigenvector_derivatives(K, found, sp.eye(49).tocsr(), numbers=[2], comm=comm)


def test_eigenvalues_told_to_be_one_cluster(comm):
    A, dA = np.diag([1.0, 1.001, 3.0, 4.0]), np.fliplr(np.eye(4)) + np.diag([0.0, 1, 0, 0])
    dA[0, 1] = dA[1, 0] = 2.0
    with sh.eigs(A, 3, comm=comm) as found:
        alone = sh.eigenvalue_derivatives(A, found, dA, comm=comm)
        both = sh.eigenvalue_derivatives(A, found, dA, apart=0.01, comm=comm)
    assert alone.values[:2] == pytest.approx([0, 1], abs=1e-8) and alone.simple[:2].all()
    assert both.values[:2] == pytest.approx(np.linalg.eigvalsh([[0, 2], [2, 1]]), abs=1e-8)


def test_eigenvectors(comm):
    A, M, dA, dM = pencil(4)
    with sh.eigs(A, 5, mass=M, comm=comm) as found:
        X = found.to_numpy()[1]

        def vectors(p):
            V = lapack(A, M, dA, dM, p)[1][:, :5]
            return V * np.sign(np.sum(V * (M @ X), axis=0))

        exact = differences(vectors)
        with sh.eigenvector_derivatives(A, found, dA, dM, mass=M, comm=comm) as changes:
            assert changes.numbers.tolist() == [0, 1, 2, 3, 4] and changes.residuals.max() < 1e-8
            for i, vector in enumerate(changes.vectors):
                mine = np.concatenate(comm.allgather(vector.getArray(readonly=True)))
                assert mine == pytest.approx(exact[:, i], abs=1e-8)


def test_eigenvectors_of_a_chain_with_null_vectors(comm):
    """A free chain whose rigid motion is deflated: its part in the change is told too. Rows of two scales."""
    n = 60
    K = sp.diags([-np.ones(n - 1), np.r_[1, np.full(n - 2, 2.0), 1], -np.ones(n - 1)], [-1, 0, 1]).tocsr()
    m = np.geomspace(1e-3, 1e3, n)
    dM = np.diag(m * np.sin(np.arange(n)))
    null = np.ones((1, n))
    with sh.eigs(K, 3, mass=m, nullspace=null, comm=comm) as found:
        X = found.to_numpy()[1]

        def vectors(p):
            V = scipy.linalg.eigh(K.toarray(), np.diag(m) + p * dM)[1][:, 1:4]
            return V * np.sign(np.sum(V * (m[:, None] * X), axis=0))

        exact = differences(vectors)
        zero = sp.csr_matrix((n, n))
        with sh.eigenvector_derivatives(K, found, zero, dM, mass=m, nullspace=null, comm=comm) as changes:
            for i, vector in enumerate(changes.vectors):
                mine = np.concatenate(comm.allgather(vector.getArray(readonly=True)))
                assert mine == pytest.approx(exact[:, i], abs=1e-5 * np.abs(exact[:, i]).max())


@pytest.mark.parametrize(("noise", "reached"), [(0.0, 1e-4), (1e-12, 1e-4), (1e-9, 1e-2)])
def test_a_hessian_along_a_direction(noise, reached, comm):
    """Its entries are known in closed form; what is said of the error holds, and the Hessian is where it was."""
    n = 30
    pattern = sh.Pattern.from_edges([[i, i + 1] for i in range(n - 1)], n, comm=comm)

    def gradient(x):
        d = np.diff(x) ** 3
        wild = np.sin(1e9 * np.sum(x * np.arange(1, n + 1)) + 1e3 * np.arange(n))
        return np.sinh(x) + np.r_[-d, 0.0] + np.r_[0.0, d] + noise * wild

    x = np.linspace(0.2, 1.0, n) ** 2
    direction = np.cos(np.arange(n))
    link, change = 6 * np.diff(x) * np.diff(direction), np.sinh(x) * direction
    exact = np.diag(change + np.r_[link, 0.0] + np.r_[0.0, link]) - np.diag(link, 1) - np.diag(link, -1)
    with sh.assemble(sh.Objective(x=x, gradient=gradient, pattern=pattern, comm=comm)) as H:
        before = H.mat.copy()
        with sh.eigs(H, 4) as found, sh.hessian_derivative(H, direction) as dH:
            before.axpy(-1.0, H.mat)
            assert before.norm() < 1e-7 + 1e6 * noise and H.point == pytest.approx(H.objective.local(x))
            before.destroy()
            slopes = sh.eigenvalue_derivatives(H, found, dH)
            V = found.to_numpy()[1]
        wanted = np.einsum("ik,ij,jk->k", V, exact, V)
        off = np.abs(slopes.values - wanted)
        assert (off <= slopes.errors).all() and slopes.errors.max() < reached


def test_a_function_of_the_parameter(comm):
    A, M, dA, dM = pencil(5)
    with sh.eigs(A, 4, mass=M, comm=comm) as found:
        exact = sh.eigenvalue_derivatives(A, found, dA, dM, mass=M, comm=comm)
        family = lambda p: (A + np.sin(p) * dA, M + (np.exp(p) - 1) * dM)  # noqa: E731
        with sh.matrix_derivative(family, 0.0, comm=comm) as change:
            slopes = sh.eigenvalue_derivatives(A, found, change, mass=M, comm=comm)
    assert (np.abs(slopes.values - exact.values) <= slopes.errors + exact.errors).all()
    assert slopes.errors.max() < 1e-6


def test_what_is_refused(comm):
    A, M, dA, _ = pencil(6)
    with sh.eigs(A, 2, mass=M, comm=comm) as found:
        with pytest.raises(InputError, match="derivative of the matrix is not symmetric"):
            sh.eigenvalue_derivatives(A, found, np.triu(dA), mass=M, comm=comm)
        with pytest.raises(InputError, match="from 0"):
            sh.eigenvector_derivatives(A, found, dA, mass=M, numbers=[2], comm=comm)
        with pytest.raises(InputError, match="vectors of 40 rows"):
            sh.eigenvalue_derivatives(np.eye(5), found, np.eye(5), comm=comm)
    with pytest.raises(InputError, match="closed"):
        sh.eigenvalue_derivatives(A, found, dA, mass=M, comm=comm)
    with pytest.raises(InputError):
        sh.matrix_derivative(lambda p: None, 1.0, comm=comm)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_a_cluster_that_was_found_and_not_asked_for_is_not_complete(comm, k):
    """Of a triple eigenvalue the solver finds all, and returns k: only all three have derivatives."""
    rng = np.random.default_rng(43)
    L, dA = np.eye(12) + 0.3 * rng.standard_normal((12, 12)), symmetric(rng, 12)
    Q = np.linalg.qr(rng.standard_normal((12, 12)))[0]
    levels = np.array([1.0, 1, 1, 2, 2, 4, 4, 4, 5, 5, 5, 5])
    A, M = L @ (Q * levels) @ Q.T @ L.T, L @ L.T
    A = (A + A.T) / 2
    X = np.linalg.solve(L.T, Q)[:, :3]
    with sh.eigs(A, k, mass=M, comm=comm) as found:
        slopes = sh.eigenvalue_derivatives(A, found, dA, mass=M, comm=comm)
    assert slopes.complete.tolist() == [k >= 3] * min(k, 3) + [False] * (k - 3)
    assert np.isfinite(slopes.errors).tolist() == slopes.complete.tolist()
    if k >= 3:
        np.testing.assert_allclose(slopes.values[:3], np.linalg.eigvalsh(X.T @ dA @ X), rtol=1e-6)


def test_a_distance_that_is_none_is_refused(comm):
    A = np.diag([1.0, 2.0, 3.0])
    with sh.eigs(A, 2, comm=comm) as found:
        for apart in (np.nan, -1.0):
            with pytest.raises(InputError, match="no distance"):
                sh.eigenvalue_derivatives(A, found, A, apart=apart, comm=comm)
