"""What solvers leave of eigenvalues: bars against LAPACK, over matrices, methods and tolerances."""

import numpy as np
import pytest
import scipy.linalg as sl
import scipy.sparse as sp

import sparsehess as sh
from sparsehess.eigen.problem.diagonal_floors import diagonal_floor
from sparsehess.eigen.problem.equilibration import AbsoluteRows
from sparsehess.eigen.problem.matrix_inputs import as_mat
from sparsehess.mechanics.effective_masses import find_clusters
from sparsehess.pattern import Layout


def graded(n, decades, seed):
    """Return a matrix D S D with S diagonally dominant and D over so many decades: a graded one."""
    draw = np.random.default_rng(seed)
    S = sp.random(n, n, 2 / n, random_state=seed)
    S = S + S.T
    S = S + sp.diags(np.asarray(S.sum(axis=1)).ravel() + draw.random(n) + 0.1)
    D = sp.diags(10.0 ** (-decades * np.arange(n) / n))
    return (D @ S @ D).tocsr()


def chain(n):
    return sp.diags([-np.ones(n - 1), np.full(n, 2.0), -np.ones(n - 1)], [-1, 0, 1]).tocsr()


def consistent(n):
    return sp.diags([np.ones(n - 1) / 6, np.full(n, 4 / 6), np.ones(n - 1) / 6], [-1, 0, 1]).tocsr()


def hopping(n):
    upper = sp.diags([np.full(n - 1, -np.exp(0.3j))], [1])
    return (upper + upper.conj().T + sp.diags(np.linspace(2, 3, n))).tocsr()


CASES = {
    "graded": lambda n: (graded(n, 3, 1), None),
    "steep": lambda n: (graded(n, 6, 2), None),
    "mass": lambda n: (chain(n), consistent(n)),
    "masses": lambda n: (chain(n), sp.diags(10.0 ** np.linspace(-2, 2, n)).tocsr()),
    "complex": lambda n: (hopping(n), None),
}


def judged(found, exact):
    """Return deviations and bars with rounding, and what LAPACK may be off by itself."""
    off = np.abs(found.eigenvalues - exact[: len(found.eigenvalues)])
    assert np.isfinite(found.solver_errors).all()
    return off, found.solver_errors + 8 * found.roundings


@pytest.mark.essential
@pytest.mark.parallel([1, 2, 3])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("method", ["lobpcg", "jd", "krylovschur"])
def test_bars_hold_the_deviation_from_lapack(comm, case, method):
    A, M = CASES[case](40)
    exact = sl.eigh(A.toarray(), None if M is None else M.toarray(), eigvals_only=True)
    rounding = 1e-14 * np.abs(exact).max()
    for tol in (1e-2, 1e-4, 1e-6):
        with sh.eigs(A, 4, mass=M, method=method, tol=tol, comm=comm, strict=False) as found:
            off, bar = judged(found, exact)
            assert found.converged and (off <= bar + rounding).all(), (tol, off, bar)


@pytest.mark.parametrize("method", ["feast", "ciss", "slicing", "dense"])
def test_bars_of_intervals_hold_the_deviation(method):
    A = chain(40)
    exact = sl.eigvalsh(A.toarray())
    low, high = (exact[2] + exact[3]) / 2, (exact[8] + exact[9]) / 2
    for tol in (1e-2, 1e-6):
        with sh.eigs(A, interval=(low, high), method=method, tol=tol) as found:
            off, bar = judged(found, exact[3:9])
            assert (off <= bar + 1e-14).all()


def test_bars_are_not_absurd():
    ratios = []
    for seed in range(4):
        A = graded(50, 3, 10 + seed)
        exact = sl.eigvalsh(A.toarray())
        for tol in (1e-3, 1e-4, 1e-5):
            with sh.eigs(A, 4, method="lobpcg", tol=tol, strict=False) as found:
                off, bar = judged(found, exact)
                ratios += list(bar / np.maximum(off, 1e-16 * exact.max()))
    assert np.median(ratios) < 100


def test_where_the_count_proves_a_gap_bars_are_of_second_order():
    A, how = chain(60), {"method": "lobpcg", "tol": 1e-4}
    with sh.eigs(A, 4, **how) as counted, sh.eigs(A, 4, count="no", **how) as alone:
        assert counted.count.certified and alone.count is None
        assert (counted.solver_errors[:3] < 0.1 * alone.solver_errors[:3]).all()


def test_what_is_solved_to_the_end_has_no_bars():
    with sh.eigs(chain(60), 4) as found:
        assert found.bars is None and not found.unsure.any()


def test_masses_that_are_singular_bound_nothing_unless_the_matrix_does():
    M = sp.diags([1.0] * 5 + [0.0] * 5).tocsr()
    A = (chain(10) + sp.eye(10)).tocsr()
    with sh.eigs(A, 3, mass=M) as found:
        exact = sl.eigvalsh(np.linalg.inv(np.linalg.inv(A.toarray())[:5, :5]))
        assert (np.abs(found.eigenvalues - exact[:3]) <= found.solver_errors + 1e-13).all()
    coupled = sp.kron(chain(5), np.ones((2, 2))) + sp.diags(np.tile([0.0, 0.3], 5))
    with sh.eigs(coupled.tocsr(), 3, mass=sp.diags(np.tile([1.0, 0.0], 5)).tocsr()) as found:
        assert np.isnan(found.solver_errors).all() and found.bars is None


def test_a_loose_tolerance_leaves_open_what_it_does_not_decide():
    """Values apart by more than roundings are not told apart where residuals are larger than their distance."""
    A = sp.block_diag([chain(30), chain(30) + 1e-4 * sp.eye(30)]).tocsr()
    with sh.eigs(A, 4, method="lobpcg", tol=1e-2, count="no", strict=False) as found:
        near = np.flatnonzero(np.diff(found.eigenvalues) < found.total_errors[1:] + found.total_errors[:-1])
        assert len(near)
        held = {one for first, last in find_clusters(found) for one in range(first, last)}
        assert set(near) <= held
    middle = (2 - 2 * np.cos(np.pi / 31)) - 1e-9
    with sh.eigs(A - middle * sp.eye(60), 2, method="lobpcg", tol=1e-2, count="no", strict=False) as found:
        assert found.unsure.any()


@pytest.mark.parametrize("seed", range(5))
def test_a_floor_is_no_more_than_the_matrix(seed):
    A = graded(30, 2, seed)
    owned = []
    mat = as_mat(A, None, None, owned, "the matrix")
    layout = Layout.from_local(mat.getLocalSize()[0], mat.comm)
    floor = diagonal_floor(mat, layout)
    assert (floor > 0).all()
    assert sl.eigvalsh(A.toarray() - np.diag(floor))[0] > -1e-14
    assert AbsoluteRows(mat, layout).finite
    assert not diagonal_floor(as_mat(A - 5 * sp.eye(30), None, None, owned, "the matrix"), layout).any()
    for one in owned:
        one.destroy()
