"""Congruences and weighted sums against dense matrices, on any number of ranks."""

import numpy as np
import pytest
import scipy.sparse as sp

import sparsehess as sh
from sparsehess.errors import InputError
from sparsehess.operators.block_diagonal import BlockDiagonal
from sparsehess.operators.combinations import congruence, weighted_sum
from sparsehess.operators.eigen_corrected import EigenCorrected
from sparsehess.operators.kronecker import Kronecker
from sparsehess.operators.low_rank import LowRankDiagonal
from sparsehess.operators.transforms import lora, projection, scaling, selection, sharing
from support.cases import laplacian
from support.dense_answers import BLOCKS, agrees, aij, dense, low_rank, own, positive, symmetric, whole

pytestmark = pytest.mark.parallel([1, 2, 3])


def test_sharing_and_sub_blocks(comm):
    n = 26
    H = symmetric(n, 13)
    shell, of_shell = low_rank(n, comm)
    labels = np.random.default_rng(0).integers(-1, 6, n)
    T = (labels[:, None] == np.arange(6)).astype(float)
    chosen = np.array([3, 17, 22, 5, 9, 24])[comm.rank :: comm.size]
    with aij(H, comm) as stored:
        for operator, exact in ((stored, H), (shell, of_shell)):
            layout = operator.layout
            shared = sharing(own(layout, labels), layout, 6)
            with congruence(operator, shared) as tied:
                agrees(tied, T.T @ exact @ T, solves=1e-10, exact=operator is stored)
            shared.destroy()
            sub, order = selection(chosen, layout), np.concatenate(comm.allgather(chosen))
            with congruence(operator, sub) as block:
                agrees(block, exact[np.ix_(order, order)], solves=1e-10, exact=operator is stored)
                assert block.diagonal_is_exact
            sub.destroy()
        with congruence(stored, sp.csr_matrix(T)) as tied:  # a SciPy matrix does as well
            assert np.abs(dense(tied) - T.T @ H @ T).max() < 1e-13 * np.linalg.norm(H)
            stored.mat.scale(2.0)
            tied.update()
            assert np.abs(dense(tied) - 2 * T.T @ H @ T).max() < 1e-13 * np.linalg.norm(H)
    shell.close()


def test_mass_weighting_and_projection(comm):
    n = 21
    operator, H = low_rank(n, comm)
    mass = np.linspace(1, 4, n)
    modes = np.random.default_rng(1).normal(size=(4, n))
    modes[3] = modes[0] - 2 * modes[1]
    Q = np.linalg.qr(modes[:3].T)[0]
    P = np.eye(n) - Q @ Q.T
    weighting = scaling(own(operator.layout, mass) ** -0.5, operator.layout)
    with congruence(operator, weighting) as weighted:
        agrees(weighted, H / np.sqrt(np.outer(mass, mass)), solves=1e-10, exact=False)
    weighting.destroy()
    with projection(modes, operator.layout) as projector, congruence(operator, projector) as projected:
        agrees(projected, P @ H @ P, solves=1e-10, exact=False)
    operator.close()


def test_adapters(comm):
    out, into, rank = 6, 5, 2
    rng = np.random.default_rng(14)
    A, B = rng.normal(size=(rank, into)), rng.normal(size=(out, rank))
    J = np.hstack([np.kron(np.eye(out), A.T), np.kron(B, np.eye(into))])
    H = Kronecker((positive(out, 1), positive(into, 2)), comm=comm)
    with H, lora(A, B, comm=comm) as T, congruence(H, T) as adapted:
        # Four eigenvalues are zero at the least: a change of basis between the factors changes nothing.
        agrees(adapted, J.T @ dense(H) @ J, solves=1e-10, exact=False)


def test_adapters_of_a_part_of_a_model(comm):
    """Rows of W lie across ranks, in another order, and beside others: what is no entry of W stays."""
    out, into, rank, n = 4, 3, 2, 17
    rng = np.random.default_rng(15)
    A, B = rng.normal(size=(rank, into)), rng.normal(size=(out, rank))
    J = np.hstack([np.kron(np.eye(out), A.T), np.kron(B, np.eye(into))])
    operator, H = low_rank(n, comm)
    for variables in (np.arange(5, 17), rng.permutation(n)[: out * into]):
        whole_J = np.zeros((n, J.shape[1]))
        whole_J[variables] = J
        with lora(A, B, layout=operator.layout, variables=variables) as T, congruence(operator, T) as adapted:
            agrees(adapted, whole_J.T @ H @ whole_J, solves=1e-10, exact=False)
    uneven = sh.Layout.from_local(12 if comm.rank == comm.size - 1 else 0, comm)
    d = np.arange(1.0, 13)
    with sh.LowRankDiagonal(own(uneven, d), np.zeros((uneven.n_local, 1)), comm=comm) as last:
        with lora(A, B, layout=uneven) as T, congruence(last, T) as adapted:
            agrees(adapted, J.T @ np.diag(d) @ J, solves=1e-10, exact=False)
        with lora(A, B, comm=comm) as T:
            if comm.size > 1:
                with pytest.raises(InputError, match="give its layout to the transform"):
                    congruence(last, T)
    for wrong, message in (
        ({"variables": [0, 1]}, "which 12 of them"),
        ({"variables": [0] * 12}, "each once"),
        ({"variables": np.arange(12) + 9}, "from 0 to 16"),
        ({"variables": np.arange(12) + 0.5}, "whole numbers"),
    ):
        with pytest.raises(InputError, match=message):
            lora(A, B, layout=operator.layout, **wrong)
    with pytest.raises(InputError, match="A and B must be finite"):
        lora(A * np.nan, B, layout=operator.layout, variables=np.arange(12))
    if comm.size > 1:
        with pytest.raises(InputError, match="numbers of A differ between ranks"):
            lora(A + comm.rank, B, layout=operator.layout, variables=np.arange(12))
    operator.close()


def test_the_diagonal_of_a_large_congruence_is_an_estimate(comm):
    n = 90
    operator, H = low_rank(n, comm)
    with projection(np.ones((1, n)), operator.layout) as P, congruence(operator, P) as projected:
        centred = np.eye(n) - np.ones((n, n)) / n
        exact = np.diag(centred @ H @ centred)
        assert not projected.diagonal_is_exact
        error = whole(operator.layout, projected.diagonal()) - exact
        assert 0 < np.linalg.norm(error) < 3 * np.linalg.norm(H) / np.sqrt(64)
    operator.close()


def test_sums(comm):
    n = 28
    S, d = laplacian(4, 7)[0], np.linspace(1, 2, n)
    shell, H = low_rank(n, comm)
    with weighted_sum([(2.0, S), (-0.5, sp.diags(d))], shift=0.3, comm=comm) as stored:
        expected = 2 * S.toarray() - 0.5 * np.diag(d) + 0.3 * np.eye(n)
        agrees(stored, expected, shift=3.0)
        stored.update()
        assert np.abs(dense(stored) - expected).max() < 1e-14
        with weighted_sum([(1.0, stored), (0.5, shell)], shift=0.1) as mixed:
            agrees(mixed, expected + 0.5 * H + 0.1 * np.eye(n), shift=3.0, solves=1e-10, exact=False)
    shell.close()


def test_sums_of_one_kind_stay_of_that_kind(comm):
    first, H = low_rank(28, comm)
    second, G = low_rank(28, comm, seed=5)
    K = Kronecker((positive(4, 1), positive(7, 2)), comm=comm)
    blocks = BlockDiagonal(BLOCKS, comm=comm)
    corrected = K.function(np.sqrt)
    cases = [
        ([(0.5, first), (0.5, second)], LowRankDiagonal, 0.5 * (H + G)),
        ([(3.0, K)], Kronecker, 3 * dense(K)),
        ([(3.0, blocks)], BlockDiagonal, 3 * dense(blocks)),
        ([(3.0, corrected), (1.0, corrected)], EigenCorrected, 4 * dense(corrected)),
    ]
    for items, kind, expected in cases:
        with weighted_sum(items, shift=0.2) as combined:
            assert type(combined) is kind
            agrees(combined, expected + 0.2 * np.eye(len(expected)))
    for operator in (first, second, K, blocks, corrected):
        operator.close()


def test_low_rank_beside_what_solves_is_solved_with_by_woodbury(comm):
    """Beside an assembled matrix, with any diagonal, and beside a structure, with one number on it."""
    p, q = 12, 8
    n = p * q
    A, B = (sp.diags([-1.0, 2.0, -1.0], [-1, 0, 1], shape=(m, m)).tocsr() for m in (p, q))
    grid = sp.kronsum(B, A).tocsr()
    draw = np.random.default_rng(2)
    U, C, b = draw.standard_normal((n, 3)), np.diag([1.0, -0.01, 2.0]), draw.standard_normal(n)
    layout = sh.Layout.from_size(n, comm)
    mine = slice(layout.start, layout.stop)
    structure = sh.Kronecker([(A, sp.identity(q)), (sp.identity(p), B)], comm=comm)
    for base, d in ((grid, draw.random(n)), (structure, np.full(n, 0.3))):
        whole = 2 * grid.toarray() + 0.5 * (np.diag(d) + U @ C @ U.T) + 0.1 * np.eye(n)
        low = sh.LowRankDiagonal(d[mine], U[mine], C, comm=comm)
        with low, sh.weighted_sum([(2.0, base), (0.5, low)], shift=0.1, comm=comm) as total:
            assert total.solves_directly and total.applies_inverse
            # Indefinite with the last one, and nearly singular.
            for shift in (0.0, 1.0, -np.linalg.eigvalsh(whole)[3] - 1e-6):
                exact = np.linalg.solve(whole + shift * np.eye(n), b)
                assert (
                    np.abs(total.solve(b[mine], shift) - exact[mine]).max(initial=0) <= 1e-8 * np.abs(exact).max()
                )
                rough = total.apply_inverse(b[mine][:, None], shift)[:, 0]
                assert np.abs(rough - exact[mine]).max(initial=0) <= 1e-6 * np.abs(exact).max()
            low.append(U[mine, 0], 3.0)
            total.update()
            exact = np.linalg.solve(whole + 1.5 * np.outer(U[:, 0], U[:, 0]), b)
            assert np.abs(total.solve(b[mine]) - exact[mine]).max(initial=0) <= 1e-9 * np.abs(exact).max()
    structure.close()


def test_a_singular_part_beside_low_rank_is_left_to_iterations(comm):
    """A chain without ends held has no inverse, with its null vector added it has."""
    n = 30
    free = sp.diags([-np.ones(n - 1), np.r_[1.0, np.full(n - 2, 2.0), 1.0], -np.ones(n - 1)], [-1, 0, 1]).tocsr()
    layout = sh.Layout.from_size(n, comm)
    b = np.random.default_rng(3).standard_normal(n)
    exact = np.linalg.solve(free.toarray() + np.ones((n, n)), b)
    low = sh.LowRankDiagonal(0.0, np.ones((layout.n_local, 1)), comm=comm)
    with low, sh.weighted_sum([(1.0, free), (1.0, low)], comm=comm) as total:
        mine = slice(layout.start, layout.stop)
        assert np.abs(total.solve(b[mine]) - exact[mine]).max(initial=0) <= 1e-8 * np.abs(exact).max()
