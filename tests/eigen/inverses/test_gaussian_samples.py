"""Samples: their law, as the rational function has it exactly and as thousands of them show it."""

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sp

import sparsehess as sh
from sparsehess.eigen.inverses.gaussian_samples import _sampled
from sparsehess.eigen.inverses.inverse_square_root import inverse_square_root
from sparsehess.eigen.inverses.selected_inverse import factorized_inverse
from support.cases import free_chain, laplacian

pytestmark = pytest.mark.parallel([1, 2, 3])


def gathered(found, comm):
    return np.concatenate(comm.allgather(found.values))


def law(matrix, comm, error=1e-10, **arguments):
    """The covariance of the law that is sampled, to rounding: the map of normal numbers to samples, made whole."""
    with factorized_inverse(matrix, arguments.get("shift", 0.0), arguments.get("nullspace"), comm) as (system, *_):
        n, layout = system.layout.n, system.layout
        R, told, _ = _sampled(system, np.eye(n)[layout.start : layout.stop], error)
    R = np.concatenate(comm.allgather(R))
    return R @ R.T, told


def within(C, exact, delta):
    """(1 - δ)² Σ ≤ C ≤ (1 + δ)² Σ, on the range of Σ, and C is zero beyond it."""
    values, Q = np.linalg.eigh(exact)
    kept = values > 1e-12 * values.max()
    root = Q[:, kept] / np.sqrt(values[kept])
    ratios = np.linalg.eigvalsh(root.T @ C @ root)
    assert (ratios >= (1 - delta) ** 2).all() and (ratios <= (1 + delta) ** 2).all(), (ratios.min(), ratios.max())
    assert np.abs(Q[:, ~kept].T @ C).max(initial=0.0) <= 1e-12 * np.abs(C).max()


@pytest.mark.parametrize("error", [1e-3, 1e-7, 1e-10])
def test_the_law_is_that_of_the_inverse(error, comm):
    H = laplacian(7, 6)[0] + 1e-3 * sp.identity(42)
    C, told = law(H, comm, error)
    assert told < 1.1 * error + 1e-9
    within(C, np.linalg.inv(H.toarray()), told)
    C, told = law(H, comm, error, shift=2.0)
    within(C, np.linalg.inv(H.toarray() + 2 * np.eye(42)), told)


def test_units_of_variables_play_no_part(comm):
    H = laplacian(6, 5)[0] + 1e-2 * sp.identity(30)
    d = 10.0 ** np.random.default_rng(4).uniform(-12, 12, 30)
    scaled = (sp.diags(d) @ H @ sp.diags(d)).tocsr()
    C, told = law(((scaled + scaled.T) / 2).tocsr(), comm)
    assert told < 1e-9
    within(d[:, None] * C * d, np.linalg.inv(H.toarray()), told + 1e-13)


def test_null_vectors_are_left_out(comm):
    H, null = free_chain(40)[0], np.ones((1, 40))
    C, told = law(H, comm, nullspace=null)
    within(C, np.linalg.pinv(H.toarray(), rcond=1e-10), told + 1e-12)
    found = sh.gaussian_samples(H, 3, nullspace=null, comm=comm)
    assert np.abs(null @ gathered(found, comm)).max() < 1e-9 and found.of == "P H P"


def test_many_samples_have_the_covariance(comm):
    H = laplacian(5, 5)[0] + 0.1 * sp.identity(25)
    exact = np.linalg.inv(H.toarray())
    layout = sh.Layout.from_size(25, comm)
    mean = np.arange(25.0)
    found = sh.gaussian_samples(H, 3000, mean=mean[layout.start : layout.stop], seed=3, comm=comm)
    values = gathered(found, comm)
    sizes = np.sqrt(exact.diagonal())
    assert np.abs((values.mean(axis=1) - mean) / sizes).max() < 5 / np.sqrt(3000)
    assert np.abs((np.cov(values) - exact) / np.outer(sizes, sizes)).max() < 6 * np.sqrt(2 / 3000)
    whitened = scipy.linalg.cholesky(H.toarray()) @ (values - mean[:, None])
    assert abs((whitened**4).mean() - 3) < 0.15  # normal, not only of this covariance


def test_samples_do_not_depend_on_ranks(comm):
    from mpi4py import MPI

    H = laplacian(8, 7)[0] + 0.01 * sp.identity(56)
    found = gathered(sh.gaussian_samples(H, 4, seed=8, comm=comm), comm)
    alone = sh.gaussian_samples(H, 4, seed=8, comm=MPI.COMM_SELF).values
    assert np.abs(found - alone).max() < 1e-8 * np.abs(alone).max()
    again = gathered(sh.gaussian_samples(H, 6, seed=8, comm=comm), comm)
    assert np.abs(again[:, :4] - found).max() < 1e-12  # the first samples are those of fewer
    other = gathered(sh.gaussian_samples(H, 4, seed=9, comm=comm), comm)
    assert np.abs(other - found).max() > 0.1


def test_what_is_not_definite_is_refused(comm):
    H = sp.diags([-1.0, 2.0, -1.0], [-1, 0, 1], shape=(30, 30)).tocsr()
    negative = np.count_nonzero(np.linalg.eigvalsh(H.toarray()) < 1)
    with pytest.raises(sh.InputError, match=f"{negative} negative eigenvalues"):
        sh.gaussian_samples(H, shift=-1.0, comm=comm)
    with pytest.raises(sh.InputError, match="singular"):
        sh.gaussian_samples(free_chain(20)[0], comm=comm)
    blocks = sh.BlockDiagonal([np.diag([1.0, -2.0])], comm=comm)
    with blocks, pytest.raises(sh.InputError, match="1 eigenvalues"):
        sh.gaussian_samples(blocks)
    layout = sh.Layout.from_size(6, comm)
    d, U = np.arange(1.0, 7.0)[layout.start : layout.stop], np.ones((layout.n_local, 1))
    low = sh.LowRankDiagonal(d, U, np.array([[-5.0]]), comm=comm)
    with low, pytest.raises(sh.InputError, match="1 eigenvalues are negative"):
        sh.gaussian_samples(low)


def test_structures_have_roots(comm):
    rng = np.random.default_rng(5)
    A, B = (X @ X.T + np.eye(len(X)) for X in (rng.standard_normal((3, 3)), rng.standard_normal((4, 4))))
    layout = sh.Layout.from_size(12, comm)
    own = slice(layout.start, layout.stop)
    U, d = rng.standard_normal((12, 2)), rng.uniform(1, 2, 12)
    small = d.copy()
    small[5] = 1e-12  # a factor stands in its place
    for H, dense in (
        (sh.Kronecker((A, B), comm=comm), np.kron(A, B)),
        (sh.BlockDiagonal([A, B, 2 * B, np.eye(1)], comm=comm), scipy.linalg.block_diag(A, B, 2 * B, 1.0)),
        (sh.LowRankDiagonal(d[own], U[own], comm=comm), np.diag(d) + U @ U.T),
        (sh.LowRankDiagonal(small[own], U[own], comm=comm), np.diag(small) + U @ U.T),
        (sh.LowRankDiagonal(3.0, U[own], comm=comm), 3 * np.eye(12) + U @ U.T),
    ):
        with H:
            R = np.concatenate(comm.allgather(H.inverse_root(np.eye(12)[H.layout.start : H.layout.stop])))
            assert np.allclose(R @ R.T, np.linalg.inv(dense), rtol=1e-9, atol=1e-12 * np.abs(R @ R.T).max())
            found = sh.gaussian_samples(H, 2)
            assert found.how == "structure" and found.factorizations == 0 and found.error < 1e-2


def test_wrong_questions(comm):
    H = sp.identity(5).tocsr()
    for named in ({"count": 0}, {"seed": -1}, {"error": 0.0}, {"shift": np.inf}, {"mean": np.zeros(99)}):
        with pytest.raises(sh.InputError):
            sh.gaussian_samples(H, **{"count": 1, **named}, comm=comm)


@pytest.mark.parallel([1])
@pytest.mark.parametrize("ratio", [1.0, 3.0, 1e4, 1e9, 1e14])
@pytest.mark.parametrize("error", [1e-4, 1e-10, 1e-13])
def test_partial_fractions(ratio, error):
    low = 1e-7
    found = inverse_square_root(low, ratio * low, error)
    places = low * ratio ** np.random.default_rng(0).uniform(0, 1, 20000)
    values = (found.weights / (places[:, None] + found.poles)).sum(axis=1)
    worst = np.abs(values * np.sqrt(places) - 1).max()
    assert worst <= found.error + 4e-15 and found.error <= error
    assert (found.poles > 0).all() and (found.weights > 0).all() and len(found.poles) < 60
