"""Solutions are refused where the system is singular to rounding, or of least norm where that is asked for."""

import numpy as np
import pytest
import scipy.sparse as sp

import sparsehess as sh
from sparsehess.errors import InputError, NotConverged, SparseHessError
from sparsehess.operators.block_diagonal import BlockDiagonal
from sparsehess.operators.combinations import congruence, weighted_sum
from sparsehess.operators.direct_sum import DirectSum
from sparsehess.operators.eigen_corrected import EigenCorrected
from sparsehess.operators.kronecker import Kronecker
from sparsehess.operators.low_rank import LowRankDiagonal
from sparsehess.operators.quasi_newton import lbfgs
from sparsehess.operators.transforms import projection
from support.dense_answers import aij, own, positive, symmetric, whole

pytestmark = pytest.mark.parallel([1, 2, 3])

N = 30


def low_rank(d, U, C, comm):
    layout = sh.Layout.from_size(len(d), comm)
    return LowRankDiagonal(own(layout, d), own(layout, U), C, comm=comm), np.diag(d) + U @ C @ U.T


def columns(n, r, seed=1):
    return np.random.default_rng(seed).normal(size=(n, r))


def quasi_newton(comm):
    S = columns(N, 3)
    H = np.diag(np.linspace(1, 3, N))
    layout = sh.Layout.from_size(N, comm)
    operator = lbfgs(own(layout, S), own(layout, H @ S), comm=comm)
    d, U = whole(layout, operator.d), whole(layout, operator.U)
    return operator, np.diag(d) + U @ operator.C @ U.T


def kronecker_sum(comm):
    A, B = symmetric(5, 1), symmetric(6, 2)
    terms = [(A, np.eye(6)), (np.eye(5), B)]
    return Kronecker(terms, comm=comm), np.kron(A, np.eye(6)) + np.kron(np.eye(5), B)


def no_common_basis(comm):
    A, B, C, D = (symmetric(size, seed) for seed, size in enumerate((4, 5, 4, 5)))
    return Kronecker([(A, B), (C, D)], comm=comm), np.kron(A, B) + np.kron(C, D)


def eigen_corrected(comm):
    QA, QB = (np.linalg.qr(symmetric(size, size))[0] for size in (4, 5))
    s, Q = np.linspace(-1, 2, 20), np.kron(QA, QB)
    with Kronecker((np.eye(4), np.eye(5)), comm=comm) as like:
        return EigenCorrected(QA, QB, own(like.layout, s), comm=comm), (Q * s) @ Q.T


def blocks(comm):
    parts = [10.0**power * symmetric(size, size) for power, size in ((3, 4), (0, 7), (-3, 5))]
    return BlockDiagonal(parts, comm=comm), sp.block_diag(parts).toarray()


def ones(n):
    u = np.ones(n) / np.sqrt(n)
    return np.eye(n) - np.outer(u, u)


STRUCTURES = {
    "multiple of one": lambda comm: low_rank(np.full(N, 1.5), columns(N, 2), symmetric(2), comm),
    "positive": lambda comm: low_rank(np.linspace(1, 2, N), columns(N, 3), symmetric(3), comm),
    "indefinite": lambda comm: low_rank(np.linspace(-1, 1.3, N), columns(N, 3), symmetric(3), comm),
    "graded": lambda comm: low_rank(np.geomspace(1e-4, 1e4, N), columns(N, 2), symmetric(2), comm),
    "quasi-Newton": quasi_newton,
    "Kronecker product": lambda comm: (
        Kronecker((symmetric(5), symmetric(6)), comm=comm),
        np.kron(symmetric(5), symmetric(6)),
    ),
    "Kronecker sum": kronecker_sum,
    "no common basis": no_common_basis,
    "eigen-corrected": eigen_corrected,
    "blocks": blocks,
    "assembled": lambda comm: (aij(symmetric(N, 4), comm), symmetric(N, 4)),
}


@pytest.mark.parametrize("name", [name for name in STRUCTURES if name != "graded"])
def test_at_an_eigenvalue_it_is_refused_or_of_least_norm(name, comm):
    operator, H = STRUCTURES[name](comm)
    n, layout, values = len(H), operator.layout, np.linalg.eigvalsh(H)
    b = np.random.default_rng(7).normal(size=(n, 2))
    with operator:
        for value in (values[-1], values[0], values[n // 2]):
            A = H - value * np.eye(n)
            # No solution, and not the only one: of those iterations find the least.
            for right in (b, A @ b) if operator.solves_directly else (b,):
                with pytest.raises(SparseHessError, match=r'condition(?s:.)*singular="least-squares"'):
                    operator.solve(own(layout, right), -value)
            found = whole(layout, operator.solve(own(layout, b), -value, singular="least-squares"))
            expected = np.linalg.lstsq(A, b, rcond=1e-13)[0]
            assert np.linalg.norm(found - expected) <= 1e-8 * np.linalg.norm(expected)
        regular = operator.solve(own(layout, b), 0.1)
        for answer in (regular, operator.solve(own(layout, b), 0.1, singular="least-squares")):
            assert np.linalg.norm(H @ whole(layout, answer) + 0.1 * whole(layout, answer) - b) <= 1e-7


@pytest.mark.parametrize("distance", [1e-6, 1e-9, 1e-12, 1e-14, 1e-15, 1e-16])
@pytest.mark.parametrize("name", STRUCTURES)
def test_what_is_returned_solves_the_system(name, distance, comm):
    """Ever nearer to an eigenvalue: an answer with a residual, or a refusal, and nothing in between."""
    operator, H = STRUCTURES[name](comm)
    n, layout = len(H), operator.layout
    value = np.linalg.eigvalsh(H)[-1] * (1 + distance)
    b = np.random.default_rng(8).normal(size=n)
    with operator:
        try:
            x = whole(layout, operator.solve(own(layout, b), -value))
        except SparseHessError:
            assert distance < 1e-8 or name == "no common basis"
            return
    assert np.linalg.norm(H @ x - value * x - b) <= 1e-6 * np.linalg.norm(b)


def test_a_projection_by_each_structure(comm):
    """I - u uᵀ is singular whatever rounding makes of its least eigenvalue, and its own pseudoinverse."""
    for n in (2, 3, 7, 20):
        u = np.ones((n, 1)) / np.sqrt(n)
        for operator, H in (
            low_rank(np.ones(n), u, -np.eye(1), comm),
            (BlockDiagonal([ones(n)], comm=comm), ones(n)),
            (Kronecker((ones(n), np.eye(2)), comm=comm), np.kron(ones(n), np.eye(2))),
            (aij(ones(n), comm), ones(n)),
        ):
            b = np.arange(1.0, len(H) + 1)
            layout = operator.layout
            with operator:
                for right in (b, H @ b):
                    with pytest.raises(InputError, match="singular to rounding"):
                        operator.solve(own(layout, right))
                found = operator.solve(own(layout, b), singular="least-squares")
                null = operator.solve(own(layout, np.ones(len(H))), singular="least-squares")
            assert np.abs(whole(layout, found) - H @ b).max() <= 1e-12 * n
            assert np.abs(whole(layout, null)).max() <= 1e-12


def test_more_zeros_than_the_rank(comm):
    for n, zeros in ((12, 5), (80, 50)):
        d = np.maximum(np.arange(float(n)) - zeros + 1, 0)
        operator, H = low_rank(d, columns(n, 2), np.diag([1.0, -2.0]), comm)
        b = columns(n, 3, 4)
        with operator:
            with pytest.raises(InputError, match="singular"):
                operator.solve(own(operator.layout, b))
            found = operator.solve(own(operator.layout, b), singular="least-squares")
        expected = np.linalg.pinv(H, rcond=1e-12) @ b
        assert np.linalg.norm(whole(operator.layout, found) - expected) <= 1e-10 * np.linalg.norm(expected)


def test_matrices_of_zeros(comm):
    layout = sh.Layout.from_size(4, comm)
    zeros = [
        LowRankDiagonal(0.0, np.zeros((layout.n_local, 1)), comm=comm),
        BlockDiagonal([np.zeros((4, 4))], comm=comm),
        Kronecker((np.zeros((2, 2)), np.eye(2)), comm=comm),
        aij(np.zeros((4, 4)), comm),
    ]
    for operator in zeros:
        right = np.ones(operator.layout.n_local)
        with operator:
            with pytest.raises(InputError, match="singular"):
                operator.solve(right)
            assert not whole(operator.layout, operator.solve(right, singular="least-squares")).any()
            assert not whole(operator.layout, operator.solve(0 * right, 2.0)).any()


def test_units_make_no_system_singular(comm):
    """A matrix whose variables have other units has a large condition, and solutions as good as before."""
    units = np.geomspace(1e-9, 1e9, N)
    A = positive(N, 3, 1.0)
    H = units[:, None] * A * units
    x = np.random.default_rng(2).normal(size=N) / units
    with aij(H, comm) as operator:
        found = whole(operator.layout, operator.solve(own(operator.layout, H @ x)))
    assert np.linalg.norm((found - x) * units) <= 1e-10 * np.linalg.norm(x * units)
    with aij(H, comm) as graded, aij(1e30 * np.eye(3), comm) as heavy, DirectSum([graded, heavy]) as both:
        b = np.concatenate([own(graded.layout, np.ones(N)), own(heavy.layout, np.ones(3))])
        found, alone = both.solve(b), graded.solve(b[: graded.layout.n_local])
        assert np.array_equal(whole(graded.layout, found[: len(alone)]), whole(graded.layout, alone))
    with BlockDiagonal([10.0**power * positive(4, 1) for power in (-12, 0, 12)], comm=comm) as operator:
        b = own(operator.layout, np.ones(12))
        found = operator.solve(b)
        assert np.abs(whole(operator.layout, operator.product(found) - b)).max() <= 1e-9
        light = own(operator.layout, np.arange(12) < 4).astype(float)
        found = operator.solve(light, singular="least-squares")
        assert np.abs(whole(operator.layout, operator.product(found) - light)).max() <= 1e-12


def test_small_rows_do_not_hide_behind_large_ones(comm):
    """A singular part counts whatever stands beside it, in the matrix and on the right-hand side."""
    b = np.concatenate([np.full(4, 1e12), np.arange(5.0)])
    parts = [1e12 * np.eye(4), ones(5)]
    for operator in (BlockDiagonal(parts, comm=comm), aij(sp.block_diag(parts).toarray(), comm)):
        with operator, pytest.raises(InputError, match="singular"):
            operator.solve(own(operator.layout, b))
    first, second = (BlockDiagonal([part], comm=comm) for part in parts)
    with DirectSum([first, second], owned=True) as both:
        right = np.concatenate([own(first.layout, b[:4]), own(second.layout, b[4:])])
        with pytest.raises(InputError, match="singular"):
            both.solve(right)
        found = both.solve(right, singular="least-squares")
        pieces = np.split(found, [first.layout.n_local])
        assert np.abs(whole(first.layout, pieces[0]) - 1.0).max() <= 1e-12
        assert np.abs(whole(second.layout, pieces[1]) - ones(5) @ b[4:]).max() <= 1e-12


def test_shells_without_a_structure(comm):
    H = positive(N, 5)
    stored = aij(H, comm)
    P = projection(np.ones((1, N)), stored.layout)
    b = np.random.default_rng(3).normal(size=N)
    A = ones(N) @ H @ ones(N)
    with stored, P, congruence(stored, P) as shell:
        with pytest.raises(NotConverged, match="condition is at least"):
            shell.solve(own(shell.layout, b))
        found = whole(shell.layout, shell.solve(own(shell.layout, b), singular="least-squares"))
        expected = np.linalg.lstsq(A, b, rcond=1e-12)[0]
        assert np.linalg.norm(found - expected) <= 1e-8 * np.linalg.norm(expected)


def test_least_squares_that_nothing_tells_are_refused(comm):
    """Eigenvalues down to rounding leave no one answer, and iterations say that they find none."""
    values = np.geomspace(1e-13, 1, N)
    Q = np.linalg.qr(columns(N, N))[0]
    with aij((Q * values) @ Q.T, comm) as operator:
        right = own(operator.layout, np.ones(N))
        with pytest.raises(SparseHessError, match="shift"):
            operator.solve(right, singular="least-squares")


def test_changes_are_followed(comm):
    layout = sh.Layout.from_size(6, comm)
    unit = np.eye(6)
    with LowRankDiagonal(own(layout, np.arange(6.0)), np.zeros((layout.n_local, 0)), comm=comm) as operator:
        right = np.ones(layout.n_local)
        with pytest.raises(InputError, match="singular"):
            operator.solve(right)
        operator.append(own(layout, unit[0]), 2.0)
        assert np.abs(whole(layout, operator.solve(right)) - 1 / np.array([2.0, 1, 2, 3, 4, 5])).max() <= 1e-15
        operator.append(own(layout, unit[0]), -2.0)
        with pytest.raises(InputError, match="singular"):
            operator.solve(right)


def test_what_is_not_a_way_is_refused(comm):
    with Kronecker((np.eye(2), np.eye(2)), comm=comm) as operator:
        with pytest.raises(InputError, match="neither refuse nor least-squares"):
            operator.solve(np.ones(operator.layout.n_local), singular="ignore")
        assert operator.solve(np.ones((operator.layout.n_local, 0))).shape[1] == 0
    with weighted_sum([(1.0, sp.csr_matrix(np.diag([1.0, 0.0, 2.0])))], comm=comm) as operator:
        pc = operator.preconditioner()
        x, y = operator.mat.createVecs()
        x.set(1.0)
        with pytest.raises(Exception, match="singular"):
            pc.apply(x, y)
        for item in (pc, x, y):
            item.destroy()
