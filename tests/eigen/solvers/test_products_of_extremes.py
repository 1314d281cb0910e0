"""How many products extremes of a matrix-free Hessian take, and that none is missed for it."""

from mpi4py import MPI

import numpy as np
import pytest
import scipy.sparse.linalg as sla

import sparsehess as sh
from tests.support.counted_products import KINDS, bulk, diagonal, like_a_network, outermost

# One restart with ten pairs, of a basis of 30.
RESTART = 7


def evenly(seed, n=2500):
    """Return eigenvalues of which those far out draw near to the others, as those of networks do."""
    draw = np.random.default_rng(seed)
    return draw.permutation(np.concatenate([np.sort(draw.uniform(0.3, 1.0, 40)), bulk(draw, n - 40)]))


def spent(values, k, comm=MPI.COMM_SELF, which="magnitude", **asked):
    """Return products and what was found, which must be right."""
    mat, context = diagonal(values, comm)
    with sh.eigs(mat, k, which=which, **asked) as found:
        products, search = context.products, found.search
        exact = outermost(values, k, which)
        told = found.eigenvalues
        if which == "magnitude":  # of two of one size either may be told
            told, exact = np.sort(np.abs(told)), np.sort(np.abs(exact))
        assert np.abs(told - exact).max() <= 1e-8 * np.abs(values).max()
        assert found.residuals.max() <= found.held_to
    mat.destroy()
    return products, search


def arpack(values, k, seed):
    context = diagonal(values, MPI.COMM_SELF)[1]
    n = len(values)

    def product(v):
        context.products += 1
        return values * v.ravel()

    operator = sla.LinearOperator((n, n), product, dtype=float)
    sla.eigsh(operator, k, tol=1e-8, v0=np.random.default_rng(seed).normal(size=n))
    return context.products


def test_the_top_ten_take_no_more_than_arpack_and_the_checks():
    """Residuals of both are below 1e-8; two of ours check the matrix, four the pairs."""
    pairs = np.array(
        [(spent(evenly(seed), 10, count="no")[0], arpack(evenly(seed), 10, seed)) for seed in range(20)]
    )
    ours, theirs = pairs.sum(axis=0)
    assert ours <= 1.05 * theirs
    assert (pairs[:, 0] <= 1.15 * pairs[:, 1] + RESTART).all()


@pytest.mark.parametrize(("k", "most"), [(1, 30), (6, 34), (10, 44), (50, 140)])
def test_eigenvalues_that_decay_take_few(k, most):
    values = 1.0 / np.arange(1.0, 2501.0)
    assert spent(values, k, which="largest", count="no")[0] <= most


@pytest.mark.parallel([2, 3])
def test_other_ranks_take_as_many(comm):
    for seed in range(4):
        alone, search = spent(evenly(seed), 10)
        together, shared = spent(evenly(seed), 10, comm)
        assert abs(together - alone) <= 2 * RESTART and abs(shared.products - search.products) <= RESTART


@pytest.mark.parallel([1, 2])
def test_a_search_is_counted_apart_and_takes_half_of_the_solve_at_most(comm):
    for seed in range(5):
        values = evenly(seed)
        without, none = spent(values, 10, comm, count="no")
        both, search = spent(values, 10, comm)
        assert none is None and both == without + search.products
        assert 0 < 2 * search.products <= without


def _none_missed(seeds, comm):
    """Solve for spectra with copies and clusters; return how sure searches were."""
    told = []
    for seed in seeds:
        kind = KINDS[seed % len(KINDS)]
        k, which = (10, 6, 3)[seed % 3], ("magnitude", "largest")[seed % 2]
        _, search = spent(like_a_network(kind, seed), k, comm, which, seed=seed)
        assert not search.seen, (kind, seed)
        told.append(search.probability)
    return told


@pytest.mark.parallel([1, 2, 3])
def test_no_copy_and_none_of_a_cluster_is_missed(comm):
    assert np.median(_none_missed(range(60), comm)) < 1e-3


@pytest.mark.thorough
def test_none_is_missed_in_hundreds_of_spectra(comm):
    _none_missed(range(60, 800), comm)


def test_one_product_shows_that_a_matrix_is_zero(comm):
    _, search = spent(np.zeros(2500), 3, comm)
    assert (search.products, search.probability) == (1, 0.0)


def test_a_small_lowest_eigenvalue_is_solved_to_the_residual_that_is_asked_for(comm):
    """Relative to itself it would need digits that products do not have."""
    values = np.concatenate([10.0 ** -np.arange(3.0, 12.0, 2), np.linspace(1, 10, 2495)])
    for k in (1, 5):
        assert spent(values, k, comm, "smallest", count="no")[0] < 260


def test_a_tolerance_of_the_caller_for_slepc_is_slepcs(comm):
    values = evenly(0)
    mat, _ = diagonal(values, comm)
    with sh.eigs(mat, 10, which="magnitude", count="no", options={"eps_tol": 1e-13}) as found:
        assert found.residuals.max() < 2e-12 and "eps_krylovschur_locking" not in found.options
    with sh.eigs(mat, 10, which="magnitude", count="no") as found:
        assert found.residuals.max() > 2e-12 and found.options["eps_krylovschur_locking"] == 0
    mat.destroy()


def test_looser_and_tighter_tolerances_take_fewer_and_more(comm):
    products = [spent(evenly(1), 10, comm, count="no", tol=tol)[0] for tol in (1e-5, 1e-8, 1e-11, 1e-13)]
    assert products == sorted(set(products))


class TestWarmStarts:
    """From the eigenvectors of a matrix that was not far from this one."""

    def guess(self, values, size, comm, seed, places):
        """Return unit vectors at places, each disturbed by a random vector of a size."""
        mat, _ = diagonal(values, comm)
        draw = np.random.default_rng(seed)
        first, last = mat.getOwnershipRange()
        found = []
        for place in places:
            whole = size * draw.standard_normal(len(values)) / len(values) ** 0.5
            whole[place] += 1.0
            found.append(mat.createVecRight())
            found[-1].setArray(whole[first:last])
        mat.destroy()
        return found

    @pytest.mark.parallel([1, 2])
    def test_they_never_cost_more_than_cold_ones(self, comm):
        for seed in range(3):
            values = evenly(seed)
            order = np.argsort(-np.abs(values))
            cold = min(spent(values, 10, comm, count="no", seed=start)[0] for start in range(3))
            warm = []
            for size in (0.0, 1e-6, 1e-4, 1e-2, 0.1, 0.3, 1.0):
                guess = self.guess(values, size, comm, seed, order[:10])
                warm.append(spent(values, 10, comm, count="no", guess=guess)[0])
            assert max(warm) <= cold and max(warm[:4]) <= cold - RESTART

    def test_a_guess_of_other_vectors_costs_a_restart_at_most(self, comm):
        for seed in range(3):
            values = evenly(seed)
            order = np.argsort(-np.abs(values))
            cold = max(spent(values, 10, comm, count="no", seed=start)[0] for start in range(3))
            for places in (order[10:20], order[:5], order[:1], order[-10:], np.append(order[:5], order[-5:])):
                guess = self.guess(values, 0.0, comm, seed, places)
                assert spent(values, 10, comm, count="no", guess=guess)[0] <= cold + RESTART

    def test_what_a_guess_does_not_hold_is_found(self, comm):
        values = like_a_network("twice", 3)
        order = np.argsort(-np.abs(values))
        for places in (order[2:12], order[5:15], order[-10:]):
            guess = self.guess(values, 0.0, comm, 0, places)
            spent(values, 10, comm, guess=guess)
