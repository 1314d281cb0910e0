"""The Hessian on constraints against a dense basis of their null space."""

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sp

import sparsehess as sh

pytestmark = pytest.mark.parallel([1, 2, 3])

_N, _M = 36, 6


def hessian(shift, seed=1):
    A = sp.random(_N, _N, 0.1, random_state=seed)
    return (A + A.T + sp.diags(np.random.default_rng(seed).uniform(-1, 3, _N) + shift)).tocsr()


def constraints(seed=2):
    return (sp.random(_M, _N, 0.15, random_state=seed) + sp.eye(_M, _N)).tocsr()


def dense_answer(H, A, held=()):
    """Eigenvalues of ZᵀHZ, and Z (ZᵀHZ)⁻¹ Zᵀ."""
    rows = np.concatenate([A.toarray() if sp.issparse(A) else A, np.eye(_N)[list(held)]])
    Z = scipy.linalg.null_space(rows) if len(rows) else np.eye(_N)
    R = Z.T @ H.toarray() @ Z
    return np.linalg.eigvalsh(R), Z @ np.linalg.solve(R, Z.T)


@pytest.mark.parametrize("held", [(), (3, 17)], ids=["free", "held"])
@pytest.mark.parametrize("shift", [0.0, 1.5, 3.0])
def test_against_a_dense_basis(shift, held, comm):
    H, A = hessian(shift), constraints()
    values, inverse = dense_answer(H, A, held)
    with sh.reduced_hessian(H, A, fixed=list(held), k=4, comm=comm) as found:
        assert found.freedom == len(values) == _N - _M - len(held) and found.held == len(held)
        assert (found.negative, found.zero) == (np.count_nonzero(values < 0), 0)
        assert found.negative + found.positive == found.freedom and found.certified and found.margin > 1e6
        assert found.verdict == ("not a minimum" if found.negative else "minimum")
        assert np.allclose(found.eigenvalues, values[:4], atol=1e-9) and not len(found.redundant)
        directions = np.concatenate(comm.allgather(found.directions))
        assert np.abs(A @ directions).max() < 1e-9 and np.abs(directions[list(held)]).max(initial=0.0) < 1e-12
        assert np.allclose(directions.T @ directions, np.eye(4), atol=1e-8)
        assert np.allclose(directions.T @ H @ directions, np.diag(values[:4]), atol=1e-7)
        own = found.inverse()
        assert (np.abs(own.values - inverse[own.rows, own.columns]) <= own.errors + 1e-15).all()
        assert own.errors.max(initial=0.0) < 1e-6 and (own.values[np.isin(own.rows, held)] == 0).all()
        if found.negative:
            with pytest.raises(sh.InputError, match=f"{found.negative} negative"):
                found.covariance([0, 1])
            return
        chosen = [0, 3, 9, 30]
        assert np.allclose(found.covariance(chosen), inverse[np.ix_(chosen, chosen)], atol=1e-12)
        assert np.allclose(found.standard_deviations(), np.sqrt(np.abs(inverse.diagonal()[own.rows])), atol=1e-7)
        samples = np.concatenate(comm.allgather(found.samples(4).values))
        assert np.abs(A @ samples).max() < 1e-9 and np.abs(samples[list(held)]).max(initial=0.0) == 0
        again = found.covariance(chosen)  # after the poles of the samples
        assert np.allclose(again, inverse[np.ix_(chosen, chosen)], atol=1e-12)


def test_the_law_of_samples_on_constraints(comm):
    H, A = hessian(3.0), constraints()
    _, inverse = dense_answer(H, A)
    with sh.reduced_hessian(H, A, k=0, comm=comm) as found:
        values = np.concatenate(comm.allgather(found.samples(2000, seed=2).values))
    assert np.abs(np.cov(values) - inverse).max() < 0.15 * inverse.max()


def test_redundant_constraints_are_found_and_told(comm):
    H, A = hessian(3.0), constraints()
    more = sp.vstack([A, A[:2], A[3] - 2 * A[4], sp.csr_matrix((1, _N))]).tocsr()
    values, inverse = dense_answer(H, A)
    with sh.reduced_hessian(H, more, k=3, comm=comm) as found:
        assert found.freedom == _N - _M and found.verdict == "minimum" and len(found.redundant) == 4
        assert found.redundant[-1] == _M + 3  # the one that says nothing
        left = np.delete(more.toarray(), found.redundant, axis=0)
        assert np.linalg.matrix_rank(left) == len(left) == _M
        assert np.allclose(found.eigenvalues, values[:3], atol=1e-9)
        own = found.inverse()
        assert np.allclose(own.values, inverse[own.rows, own.columns], atol=1e-11)
    # Held variables make a constraint say nothing more.
    single = sp.csr_matrix(([1.0, 1.0], ([0, 1], [4, 5])), (2, _N))
    with sh.reduced_hessian(H, single, fixed=np.array([4]), k=0, comm=comm) as found:
        assert found.redundant.tolist() == [0] and found.freedom == _N - 2


def test_constraints_of_other_units(comm):
    H, A = hessian(3.0), constraints()
    rng = np.random.default_rng(6)
    d, e = (10.0 ** rng.uniform(-9, 9, many) for many in (_N, _M))
    _, inverse = dense_answer(H, A)
    scaled = (sp.diags(d) @ H @ sp.diags(d)).tocsr()
    scaled = ((scaled + scaled.T) / 2).tocsr()
    B = (sp.diags(e) @ A @ sp.diags(d)).tocsr()
    with sh.reduced_hessian(scaled, B, k=0, comm=comm) as found:
        assert found.verdict == "minimum" and found.certified and not len(found.redundant)
        own = found.inverse()
        scale = d[own.rows] ** 2
        assert (np.abs(own.values * scale - inverse.diagonal()[own.rows]) <= own.errors * scale + 1e-14).all()
        assert (own.errors * scale).max(initial=0.0) < 1e-7
    more = sp.vstack([B, 1e7 * B[2]]).tocsr()
    with sh.reduced_hessian(scaled, more, k=0, comm=comm) as found:
        assert len(found.redundant) == 1 and found.redundant[0] in (2, _M) and found.verdict == "minimum"


def test_no_constraints_and_as_many_as_variables(comm):
    H = hessian(0.0)
    values = np.linalg.eigvalsh(H.toarray())
    for A in (None, np.empty((0, _N))):
        with sh.reduced_hessian(H, A, k=2, comm=comm) as found:
            assert found.freedom == _N and found.negative == np.count_nonzero(values < 0)
            assert np.allclose(found.eigenvalues, values[:2])
    for A in (sp.identity(_N), np.eye(_N)[::-1] + 0.3 * np.eye(_N, k=3)):
        with sh.reduced_hessian(H, A, k=2, comm=comm) as found:
            assert found.freedom == 0 and found.verdict == "minimum" and not len(found.eigenvalues)
            assert np.abs(found.inverse().values).max(initial=0.0) < 1e-10
    with sh.reduced_hessian(H, np.random.default_rng(0).standard_normal((_N + 9, _N)), k=1, comm=comm) as found:
        assert found.freedom == 0 and len(found.redundant) == 9
    with sh.reduced_hessian(H, None, fixed=np.ones(_N, bool), k=1, comm=comm) as found:
        assert found.freedom == 0 and found.held == _N


def test_a_degenerate_point_is_no_minimum(comm):
    H = sp.diags([1.0, 0.0, 2.0, 3.0]).tocsr()
    with sh.reduced_hessian(H, np.array([[1.0, 0.0, 0.0, 1.0]]), k=2, comm=comm) as found:
        assert (found.negative, found.zero, found.positive) == (0, 1, 2)
        assert found.verdict == "undecided" and not found.certified
        with pytest.raises(sh.InputError, match="variable 1"):
            found.inverse()
    # A curvature of less than rounding is not told from none, whatever its sign.
    for tiny in (1e-17, -1e-17):
        Q = np.linalg.qr(np.random.default_rng(8).standard_normal((12, 12)))[0]
        K = (Q * np.r_[tiny, np.ones(11)]) @ Q.T
        with sh.reduced_hessian((K + K.T) / 2, Q[:, 3:4].T, k=0, comm=comm) as found:
            assert found.verdict == "undecided" and found.zero == 1 and found.negative == 0


def test_saddles_that_constraints_mend_and_do_not(comm):
    """Gould's condition: x₀² - x₁² is convex along x₁ = t x₀ for |t| < 1 alone."""
    H = np.diag([1.0, -1.0])
    for t, verdict in ((0.999, "minimum"), (1.001, "not a minimum"), (-0.5, "minimum"), (40.0, "not a minimum")):
        with sh.reduced_hessian(H, np.array([[t, -1.0]]), k=1, comm=comm) as found:
            assert found.verdict == verdict and found.certified
            assert np.isclose(found.eigenvalues[0], (1 - t**2) / (1 + t**2))


def test_nearly_dependent_constraints_stay(comm):
    """A dependence to 1e-6 is none: the constraint is kept, and the null space is smaller by it."""
    H, A = hessian(3.0), constraints()
    near = A[0] + 1e-6 * A[1]
    rows = sp.vstack([A[0], near]).tocsr()
    _, inverse = dense_answer(H, A[:2])  # the same null space
    with sh.reduced_hessian(H, rows, k=0, comm=comm) as found:
        assert not len(found.redundant) and found.freedom == _N - 2
        own = found.inverse()
        assert (np.abs(own.values - inverse.diagonal()[own.rows]) <= own.errors).all()
        assert own.errors.max(initial=0.0) < 0.01  # of which it has lost digits, and says so


def test_a_petsc_jacobian(comm):
    from petsc4py import PETSc

    H, A = hessian(3.0), constraints()
    rows, columns = sh.Layout.from_size(_M, comm), sh.Layout.from_size(_N, comm)
    own = A[rows.start : rows.stop]
    sizes = ((rows.n_local, _M), (columns.n_local, _N))
    jacobian = PETSc.Mat().createAIJ(sizes, csr=(own.indptr, own.indices, own.data), comm=comm)
    with sh.reduced_hessian(H, jacobian, k=2, comm=comm) as found:
        assert np.allclose(found.eigenvalues, dense_answer(H, A)[0][:2], atol=1e-9)
    jacobian.destroy()


def test_wrong_questions(comm):
    H = hessian(3.0)
    for arguments, told in (
        ({"jacobian": np.ones((2, 5))}, rf"\(m, {_N}\)"),
        ({"jacobian": np.full((1, _N), np.nan)}, "finite"),
        ({"fixed": [_N]}, "there is"),
        ({"fixed": np.ones(5000, bool)}, "bool"),
        ({"k": -1}, "k=-1"),
    ):
        with pytest.raises(sh.InputError, match=told):
            sh.reduced_hessian(H, comm=comm, **arguments)
    found = sh.reduced_hessian(H, constraints(), k=0, comm=comm)
    line = f"<ReducedHessian: minimum, certified, {_N - _M} of {_N} variables free, 0 negative, 0 zero>"
    assert repr(found) == line
    found.close()
    found.close()
    with pytest.raises(sh.InputError, match="closed"):
        found.inverse()


def test_the_verdict_stays_where_eigenvalues_are_too_far_apart(comm):
    # What an interior-point method adds to the diagonal: z / s of bounds that are active.
    n = 12
    A = np.random.default_rng(0).normal(size=(4, n)) * (np.arange(n) % 2 == 0)
    root = np.random.default_rng(1).normal(size=(n, n))
    H = root @ root.T / n + 0.2 * np.eye(n) + np.diag(np.where(np.arange(n) % 2, 1e12, 0.0))
    free = np.arange(0, n, 2)
    Z = scipy.linalg.null_space(A[:, free])
    values = np.linalg.eigvalsh(Z.T @ H[np.ix_(free, free)] @ Z)
    with sh.reduced_hessian(sp.csr_matrix(H), A, k=5, comm=comm) as found:
        assert found.verdict == "minimum" and found.certified and found.freedom == 8
        assert len(found.eigenvalues) >= len(values) == 2
        assert np.allclose(found.eigenvalues[:2], values, rtol=1e-9)
        assert bool(found.shortfall) == (len(found.eigenvalues) < 5)
        covariance = found.covariance(free)
    assert np.allclose(covariance, Z @ np.linalg.solve(Z.T @ H[np.ix_(free, free)] @ Z, Z.T), atol=1e-9)


def test_what_a_constraint_holds_has_no_negative_variance(comm):
    H = hessian(3.0)
    pins = np.eye(_N)[[0, 5, 20]]
    A = np.concatenate([constraints().toarray(), pins])
    with sh.reduced_hessian(H, A, k=0, comm=comm) as found:
        variances = np.diag(found.covariance(np.arange(_N)))
    assert (variances >= 0).all() and variances[[0, 5, 20]].max() < 1e-14


def test_what_follows_only_nearly_proves_no_negative_curvature(comm):
    n = 150
    near = np.vander(np.linspace(0.1, 1, n), 12, increasing=True).T
    exact = np.concatenate([near[:5], near[:2] + near[2:4]])
    for A, sure in ((near, False), (exact, True)):
        for H, verdict in ((np.eye(n), "minimum"), (-np.eye(n), "not a minimum")):
            with sh.reduced_hessian(sp.csr_matrix(H), A, k=0, comm=comm) as found:
                assert len(found.redundant)
                assert found.certified == (sure or verdict == "minimum")
                assert found.verdict == (verdict if found.certified else "undecided")
