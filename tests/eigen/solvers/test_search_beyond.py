import numpy as np
import pytest

import sparsehess as sh
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.problem.search import Search
from sparsehess.eigen.solvers.search_beyond import Look, look_beyond
from sparsehess.errors import CheckError
from sparsehess.runtime import destroy
from support.counted_products import diagonal

pytestmark = pytest.mark.parallel([1, 2, 3])


def units(mat, places):
    """Return unit vectors."""
    found = []
    for place in places:
        vector = mat.createVecRight()
        first, last = vector.getOwnershipRange()
        if first <= place < last:
            vector.setValue(place, 1.0)
        vector.assemble()
        found.append(vector)
    return found


def like_a_network(seed, n=3000):
    """Eigenvalues that crowd at zero, of either sign, and some far out, a few of them twice or thrice."""
    draw = np.random.default_rng(seed)
    far = np.sort(draw.uniform(1.0, 10.0, 9))[::-1]
    twice = draw.integers(0, 6, 2)
    bulk = 0.6 * draw.standard_normal(n - 11) * draw.uniform(0, 1, n - 11) ** 4 / 3
    return np.concatenate([far, far[twice], bulk])


def test_copies_are_not_missed_and_cost_half_of_the_solve_at_most(comm):
    for seed in range(20):
        values = like_a_network(seed)
        exact = np.sort(values[np.argsort(-np.abs(values))[:8]])
        mat, context = diagonal(values, comm)
        with sh.eigs(mat, 8, which="magnitude") as spectrum:
            assert spectrum.eigenvalues == pytest.approx(exact, rel=1e-9)
            assert not spectrum.search.seen and spectrum.search.probability < 1e-2
            assert 2 * spectrum.search.products <= context.products
        with sh.eigs(mat, 8, which="magnitude", count="no") as spectrum:
            assert spectrum.search is None
        mat.destroy()


@pytest.mark.parametrize(("side", "which"), [(1, "largest"), (-1, "smallest")])
def test_one_that_is_left_is_seen_at_either_end(side, which, comm):
    values = side * np.concatenate([[5.0, 4.0, 3.5, 3.0], np.linspace(-1, 1, 996)])
    mat, _ = diagonal(values, comm)
    with EigenProblem.of(mat) as problem:
        found = units(mat, [0, 2, 3])  # one is missing before the last
        look = look_beyond(problem, found, [(side, 3.0)], 40, 1)
        assert look.beyond and look.products < 20
        destroy(*found)
        found = units(mat, [0, 1, 2])
        look = look_beyond(problem, found, [(side, 3.5)], 40, 1)
        assert not look.beyond and look.probability <= 1e-6 and look.products < 40
        destroy(*found)
    mat.destroy()


def test_one_that_no_solve_finds_is_an_error(comm, monkeypatch):
    """A search has seen it: whether it is there is no question any more."""
    seen = Look(True, 3, 1.0)
    monkeypatch.setattr("sparsehess.eigen.solvers.extremal_search.look_beyond", lambda *asked: seen)
    mat, _ = diagonal(np.concatenate([[5.0, 4.0, 3.5], np.linspace(-1, 1, 2500)]), comm)
    with pytest.raises(CheckError, match="one lies beyond that was not found"):
        sh.eigs(mat, 3, which="largest")
    with sh.eigs(mat, 3, which="largest", strict=False) as spectrum:
        assert spectrum.search.seen and spectrum.eigenvalues == pytest.approx([3.5, 4.0, 5.0])
    mat.destroy()


def test_near_neighbours_prove_nothing_and_a_small_space_all(comm):
    values = 1 - np.linspace(0, 1, 1500) ** 2
    mat, _ = diagonal(values, comm)
    with EigenProblem.of(mat) as problem:
        found = units(mat, [0, 1, 2])
        look = look_beyond(problem, found, [(1, values[2])], 40, 1)
        assert look == (False, 40, 1.0) and "proves nothing" in repr(Search(look.products, look.probability))
        destroy(*found)
    mat.destroy()
    mat, _ = diagonal([3.0, 2.0] + [1.0] * 60, comm)
    with EigenProblem.of(mat) as problem:
        found = units(mat, [0, 1])
        look = look_beyond(problem, found, [(1, 2.0), (-1, 2.0)], 40, 1)
        assert look.probability == 0 and not look.beyond and look.products == 1
        destroy(*found)
    mat.destroy()


def test_it_is_not_wrong_more_often_than_it_says(comm):
    """With few steps many are missed: of 300 starts no more with a bound below p than 300 p, and 3 deviations."""
    values = np.concatenate([[2.0, 1.2], np.linspace(-1, 1, 398)])
    mat, _ = diagonal(values, comm)
    with EigenProblem.of(mat) as problem:
        found = units(mat, [0])
        for steps in (3, 6, 9, 12, 24):
            looks = [look_beyond(problem, found, [(1, 1.1)], steps, seed) for seed in range(300)]
            told = np.array([look.probability for look in looks if not look.beyond])
            for p in (1e-3, 1e-2, 0.1, 0.3):
                assert np.count_nonzero(told <= p) <= 300 * p + 3 * (300 * p) ** 0.5
        assert not len(told)
        destroy(*found)
    mat.destroy()


def test_products_that_are_not_finite_are_told(comm):
    mat, _ = diagonal([1.0, 2.0, np.nan, 4.0], comm)
    with pytest.raises(sh.errors.SparseHessError, match="finite"):
        sh.eigs(mat, 2, which="largest", method="krylovschur")
    mat.destroy()
