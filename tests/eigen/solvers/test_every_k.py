"""The same pairs for every k: what is asked for is found whatever its number, and LAPACK agrees."""

import numpy as np
import pytest
import scipy.linalg as sl
import scipy.sparse as sp

import sparsehess as sh
from support.cases import second_difference


def impurities(n):
    """Return a band of width 1e-3, and three eigenvalues below it."""
    diagonal = 10.6 + 1e-3 * np.random.default_rng(3).random(n)
    diagonal[[n // 4, n // 2, 3 * n // 4]] = 4.5, 6.6, 9.0
    return (sp.diags(diagonal) + 1e-3 * second_difference(n)).tocsr()


def turned(values, seed=1):
    """Return a band matrix with these eigenvalues."""
    generator, A = np.random.default_rng(seed), np.diag(np.asarray(values, float))
    for i in range(len(A) - 1):
        j = min(len(A) - 1, i + 1 + int(generator.integers(4)))
        if i != j:
            c, s = np.cos(angle := generator.uniform(0, 6.3)), np.sin(angle)
            turn = np.array([[c, s], [-s, c]])
            A[[i, j]] = turn @ A[[i, j]]
            A[:, [i, j]] = A[:, [i, j]] @ turn.T
    return sp.csr_matrix(0.5 * (A + A.T))


def penalty(n):
    """Return a chain that is held at one end by 1e9."""
    return (second_difference(n) + sp.diags(np.r_[1e9, np.zeros(n - 1)])).tocsr()


def pencils(n):
    alternating = sp.diags(np.where(np.arange(n) % 2, 1.0, 4.0)).tocsr()
    return {
        "three below a band": (impurities(n), None),
        "fivefold": (turned(np.repeat(np.arange(1, n // 5 + 2), 5)[:n]), None),
        "fivefold with a mass": (turned(np.repeat(np.arange(1, n // 5 + 2), 5)[:n]), alternating),
        "graded, of both signs": (turned(10.0 ** (-8 * np.arange(n) / n) * (-1.0) ** np.arange(n)), None),
        "cluster of 1e-10": (turned(np.r_[1, 2, 3, 10 + 1e-10 * np.arange(n - 3)]), None),
        "half a kernel": (turned(np.r_[np.zeros(n // 2), 1 + np.arange(n - n // 2)]), None),
        "penalty": (penalty(n), None),
    }


DISTANCES = {"smallest": lambda v: v, "largest": lambda v: -v, "magnitude": lambda v: -np.abs(v)}


def agree(A, M, k, found, distance):
    """Assert that k eigenvalues are those that come first, by LAPACK; of a tie either may be there."""
    exact = sl.eigh(A.toarray(), None if M is None else M.toarray(), eigvals_only=True)
    assert len(found) == k
    got, wanted = np.sort(distance(found)), np.sort(distance(exact))[:k]
    assert np.allclose(got, wanted, rtol=1e-7, atol=2e-12 * np.abs(exact).max())


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("which", DISTANCES)
@pytest.mark.parametrize("name", pencils(20))
def test_every_k_is_a_prefix_of_the_same_spectrum(comm, name, which):
    A, M = pencils(20)[name]
    for k in range(1, 21):
        with sh.eigs(A, k, which=which, mass=M, comm=comm) as found:
            agree(A, M, k, found.eigenvalues, DISTANCES[which])
            assert found.count.certified


@pytest.mark.parametrize("k", range(2, 9))
@pytest.mark.parametrize("method", ["krylovschur", "lobpcg", "gd", "jd"])
def test_last_pair_inside_a_cluster(k, method):
    A = impurities(200)
    with sh.eigs(A, k, method=method) as found:
        agree(A, None, k, found.eigenvalues, DISTANCES["smallest"])
        assert found.count.certified


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("k", [2, 7])
@pytest.mark.parametrize("which", ["largest", "magnitude"])
def test_cluster_behind_one_that_is_far_out(comm, which, k):
    """A shift near the cluster has the one that was found on its other side."""
    A = penalty(200)
    with sh.eigs(A, k, which=which, comm=comm) as found:
        agree(A, None, k, found.eigenvalues, DISTANCES[which])
        assert found.count.certified


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("target, k", [(1.3e7, 5), (1.3e7, 8), (-1e8, 4)])
def test_target_far_from_all_eigenvalues(comm, target, k):
    """From there all that is wanted looks alike to shift-and-invert."""
    A = penalty(60)
    with sh.eigs(A, k, target=target, comm=comm) as found:
        agree(A, None, k, found.eigenvalues, lambda v: np.abs(v - target))
        assert found.count.certified


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("method", ["lobpcg", "gd", "jd"])
@pytest.mark.parametrize("which", ["smallest", "largest"])
@pytest.mark.parametrize("n", [2, 9])
def test_basis_as_large_as_the_space(comm, n, which, method):
    A = turned(np.arange(n) % 5 + 1)
    for k in range(1, n + 1):
        with sh.eigs(A, k, which=which, method=method, comm=comm) as found:
            agree(A, None, k, found.eigenvalues, DISTANCES[which])


@pytest.mark.parametrize("k", [1, 5])
def test_multigrid_of_a_graded_indefinite_matrix(k):
    A = turned(10.0 ** (-8 * np.arange(12) / 11) * (-1.0) ** np.arange(12))
    with sh.eigs(A, k, method="lobpcg") as found:
        agree(A, None, k, found.eigenvalues, DISTANCES["smallest"])


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("method", ["lobpcg", "gd", "jd"])
@pytest.mark.parametrize("which", ["smallest", "largest"])
def test_few_different_eigenvalues(comm, which, method):
    """A Krylov space of such a matrix is soon whole, and nothing expands it."""
    A = turned(np.r_[1, 2, np.full(38, 7)])
    for k in (2, 5, 9, 13):
        with sh.eigs(A, k, which=which, method=method, comm=comm) as found:
            agree(A, None, k, found.eigenvalues, DISTANCES[which])


def test_edge_on_an_eigenvalue_that_was_not_found():
    """Between 13 and 11 lies 12, where a first count has no sign."""
    A = turned(np.r_[np.arange(1, 21), -np.arange(1, 21)])
    for k in range(1, 14):
        with sh.eigs(A, k, method="lobpcg") as found:
            agree(A, None, k, found.eigenvalues, DISTANCES["smallest"])
            assert found.count.certified
