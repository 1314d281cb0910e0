"""Entries of an inverse against dense inverses: definite and not, badly scaled, on a complement, of structures."""

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sp

import sparsehess as sh
from sparsehess.eigen.inverses import factors
from support.cases import free_chain, laplacian
from support.spectra import shell

pytestmark = pytest.mark.parallel([1, 2, 3])


def chain(n=60, shift=0.0):
    return (sp.diags([-1.0, 2.0, -1.0], [-1, 0, 1], shape=(n, n)) + shift * sp.identity(n)).tocsr()


def sparse_symmetric(n=70, seed=3):
    A = sp.random(n, n, 0.06, random_state=seed)
    return (A + A.T + sp.diags(np.random.default_rng(seed).uniform(-2, 3, n))).tocsr()


def compare(found, dense):
    """Entries are right to their errors, which are not much wider than what they bound."""
    exact = dense[found.rows, found.columns]
    assert (np.abs(found.values - exact) <= found.errors + 4e-16 * np.abs(exact)).all()
    return np.abs(found.values - exact).max(initial=0.0)


def test_the_diagonal_and_given_entries(comm):
    H = laplacian(9, 8)[0] + 0.01 * sp.identity(72)
    exact = np.linalg.inv(H.toarray())
    layout = sh.Layout.from_size(72, comm)
    found = sh.selected_inverse(H, comm=comm)
    assert np.array_equal(found.rows, np.arange(layout.start, layout.stop)) and found.how == "mumps"
    assert compare(found, exact) < 1e-10 and found.errors.max(initial=0.0) < 1e-8 and found.margin > 1e8
    assert found.negative == 0 and found.of == "H"
    assert np.allclose(found.standard_deviations, np.sqrt(exact.diagonal()[found.rows]), rtol=1e-10)
    # Each rank asks for other entries, some of them twice, one rank for none.
    many = 0 if comm.rank == 1 else 40
    rows, columns = np.random.default_rng(comm.rank).integers(0, 72, (2, many))
    found = sh.selected_inverse(H, (np.tile(rows, 2), np.tile(columns, 2)), comm=comm)
    assert len(found.values) == 2 * many and compare(found, exact) < 1e-10
    pattern = sh.Pattern.from_scipy(H, comm=comm)
    found = sh.selected_inverse(H, pattern, comm=comm)
    assert comm.allreduce(len(found.values)) == pattern.nnz and compare(found, exact) < 1e-10


def test_indefinite_and_shifted(comm):
    H = sparse_symmetric()
    values = np.linalg.eigvalsh(H.toarray())
    found = sh.selected_inverse(H, comm=comm)
    assert found.negative == np.count_nonzero(values < 0) > 5
    compare(found, np.linalg.inv(H.toarray()))
    with pytest.raises(sh.InputError, match="no covariance"):
        _ = found.standard_deviations
    shifted = sh.selected_inverse(H, shift=10.0, comm=comm)
    assert shifted.negative == 0 and shifted.of == "H + 10 I"
    compare(shifted, np.linalg.inv(H.toarray() + 10 * np.eye(70)))


@pytest.mark.parametrize("H", [chain(), sparse_symmetric()], ids=["definite", "indefinite"])
def test_units_of_variables_play_no_part(H, comm):
    d = 10.0 ** np.random.default_rng(1).uniform(-12, 12, H.shape[0])
    D = sp.diags(d)
    scaled = (D @ H @ D).tocsr()
    scaled = ((scaled + scaled.T) / 2).tocsr()
    found = sh.selected_inverse(scaled, comm=comm)
    exact = np.linalg.inv(H.toarray()).diagonal()[found.rows]
    error = found.errors * d[found.rows] ** 2
    assert (np.abs(found.values * d[found.rows] ** 2 - exact) <= error + 1e-15 * np.abs(exact)).all()
    assert error.max(initial=0.0) < 1e-7 * np.abs(exact).max(initial=1.0)


def test_penalties_on_supports(comm):
    H = chain().tolil()
    for row in (0, 30):
        H[row, row] = 1e30
    found = sh.selected_inverse(H.tocsr(), comm=comm)
    free = np.setdiff1d(np.arange(60), [0, 30])
    exact = np.zeros(60)
    exact[free] = np.linalg.inv(chain().toarray()[np.ix_(free, free)]).diagonal()
    assert np.allclose(found.values, exact[found.rows], rtol=1e-10, atol=1e-29) and found.margin > 1e8


def test_nearly_singular_is_told_by_the_errors(comm):
    """The inverse of a matrix of condition 1e10 has six digits, and its errors say so."""
    H = free_chain(50)[0]
    H = (H + 1e-10 * sp.identity(50)).tocsr()
    found = sh.selected_inverse(H, comm=comm)
    assert (found.errors < 1e-3 * found.values).all() and (found.errors > 1e-9 * found.values).all()
    apart = np.abs(found.values - 1e10 / 50)
    assert (apart <= found.errors + 100.0).all()  # the rest of the spectrum adds up to fifty at most


def test_what_is_singular_is_refused_and_named(comm):
    free, null = free_chain(50)[0], np.ones((1, 50))
    with pytest.raises(sh.InputError, match=r"H is singular .*nearest to zero lives on variable \d+"):
        sh.selected_inverse(free, comm=comm)
    hollow = sp.block_diag([chain(20), sp.csr_matrix((2, 2)), chain(9)]).tocsr()
    with pytest.raises(sh.InputError, match="variable 20 and variable 21 have no entries"):
        sh.selected_inverse(hollow, comm=comm)
    d = 10.0 ** np.random.default_rng(2).uniform(-9, 9, 50)
    with pytest.raises(sh.InputError, match="singular"):
        sh.selected_inverse((sp.diags(d) @ free @ sp.diags(d)).tocsr(), comm=comm)
    # One singular part beside a large regular one: the vector lives there.
    parts = sp.block_diag([1e6 * chain(30), free]).tocsr()
    with pytest.raises(sh.InputError, match="singular") as told:
        sh.selected_inverse(parts, comm=comm)
    named = [int(word.split()[0]) for word in str(told.value).split("variable ")[1:]]
    assert named and min(named) >= 30
    found = sh.selected_inverse(free, nullspace=null, comm=comm)
    assert found.of == "P H P" and compare(found, np.linalg.pinv(free.toarray(), rcond=1e-10)) < 1e-9
    regular = sh.selected_inverse(free, shift=0.5, comm=comm)
    compare(regular, np.linalg.inv(free.toarray() + 0.5 * np.eye(50)))


def test_rounding_of_a_singular_matrix_is_no_inverse(comm):
    """Random congruences of a singular matrix: rounding makes them regular, and no entry is told."""
    rng = np.random.default_rng(11)
    for _ in range(4):
        Q = np.linalg.qr(rng.standard_normal((24, 24)))[0]
        H = (Q * np.r_[0.0, rng.uniform(1, 2, 23)]) @ Q.T
        with pytest.raises(sh.InputError, match="singular"):
            sh.selected_inverse((H + H.T) / 2, comm=comm)


def test_without_entries_from_mumps_there_are_solutions(comm, monkeypatch):
    monkeypatch.setattr(factors, "tells_entries", lambda: False)
    H = sparse_symmetric()
    found = sh.selected_inverse(H, sh.Pattern.from_scipy(H, comm=comm), comm=comm)
    assert found.how == "solves"
    compare(found, np.linalg.inv(H.toarray()))


def test_batches(comm, monkeypatch):
    from sparsehess.eigen.inverses import factor_entries

    monkeypatch.setattr(factor_entries, "_BATCH", 7)
    found = sh.selected_inverse(chain(), comm=comm)
    assert compare(found, np.linalg.inv(chain().toarray())) < 1e-10


def test_a_wrong_entry_is_found(comm, monkeypatch):
    from sparsehess.eigen.inverses.factors import Factors

    right = Factors.entries
    for wrong in (1e-6, np.nan):
        monkeypatch.setattr(
            Factors, "entries", lambda self, rows, columns, wrong=wrong: right(self, rows, columns) * (1 + wrong)
        )
        with pytest.raises(sh.CheckError, match="trust neither"):
            sh.selected_inverse(chain(), comm=comm)


def test_the_factors_solve_as_before(comm):
    """MUMPS is left as it was: entries, a solution, entries again."""
    from contextlib import closing

    from sparsehess.eigen.inverses.saddle_point import SaddlePoint

    H, exact = chain(), np.linalg.inv(chain().toarray())
    with sh.EigenProblem.of(H, comm=comm) as problem, closing(SaddlePoint.of(problem)) as system:
        system.factors.factorize()
        for _ in range(2):
            assert np.allclose(system.entries(np.array([3, 50]), np.array([40, 50])), exact[[3, 50], [40, 50]])
            own = system.column(17)
            assert np.allclose(own, exact[system.layout.start : system.layout.stop, 17])


def test_shells(comm):
    H = chain()
    mat, _ = shell(H, comm)
    found = sh.selected_inverse(mat)
    assert compare(found, np.linalg.inv(H.toarray())) < 1e-9
    mat.destroy()


def structures(comm):
    rng = np.random.default_rng(5)
    A, B = (X @ X.T + np.eye(len(X)) for X in (rng.standard_normal((4, 4)), rng.standard_normal((6, 6))))
    yield sh.Kronecker((A, B), comm=comm), np.kron(A, B)
    yield sh.BlockDiagonal([A, -B, A, B, A], comm=comm), scipy.linalg.block_diag(A, -B, A, B, A)
    layout = sh.Layout.from_size(24, comm)
    own = slice(layout.start, layout.stop)
    U, d = rng.standard_normal((24, 3)), rng.uniform(1, 2, 24)
    yield sh.LowRankDiagonal(d[own], U[own], comm=comm), np.diag(d) + U @ U.T
    yield sh.LowRankDiagonal(2.0, U[own], -np.eye(3), comm=comm), 2 * np.eye(24) - U @ U.T
    d[3] = 0.0
    yield sh.LowRankDiagonal(d[own], U[own], comm=comm), np.diag(d) + U @ U.T


def test_structures_tell_their_own(comm):
    for H, dense in structures(comm):
        with H:
            for shift in (0.0, 0.5):
                exact = np.linalg.inv(dense + shift * np.eye(24))
                found = sh.selected_inverse(H, shift=shift)
                assert compare(found, exact) < 1e-11
                assert found.negative == np.count_nonzero(np.linalg.eigvalsh(dense) + shift < 0)
                some = sh.selected_inverse(H, (np.array([0, 5, 23]), np.array([20, 5, 1])), shift=shift)
                assert compare(some, exact) < 1e-11
                if H.knows_inverse:
                    assert found.how == some.how == "structure"
    with pytest.raises(sh.InputError, match="singular"), sh.BlockDiagonal([np.zeros((2, 2))], comm=comm) as H:
        sh.selected_inverse(H)


def test_direct_sums(comm):
    first, second = sh.Kronecker((np.diag([1.0, 2.0]), np.diag([3.0, 5.0, 7.0])), comm=comm), None
    layout = sh.Layout.from_size(8, comm)
    d = np.arange(1.0, 9.0)[layout.start : layout.stop]
    second = sh.LowRankDiagonal(d, np.ones((layout.n_local, 1)), comm=comm)
    with sh.DirectSum([first, second], owned=True) as H:
        found = sh.selected_inverse(H)
        dense = np.linalg.inv(np.diag(np.arange(1.0, 9.0)) + 1).diagonal()
        exact = np.concatenate([1 / first.diagonal(), dense[layout.start : layout.stop]])
        assert np.allclose(found.values, exact, rtol=1e-13) and found.how == "structure"


def test_wrong_questions(comm):
    H = chain(10)
    for entries, told in (
        (([0], [10]), "from 0 to 9; there is 10"),
        (([0, 1], [1]), "as many rows as columns"),
        (([0.5], [1]), "whole numbers"),
        ("all", "rows, columns"),
    ):
        with pytest.raises(sh.InputError, match=told):
            sh.selected_inverse(H, entries, comm=comm)
    with pytest.raises(sh.InputError, match="shift"):
        sh.selected_inverse(H, shift=np.nan, comm=comm)
    with pytest.raises(sh.InputError, match="no longer null"):
        sh.selected_inverse(H, shift=1.0, nullspace=np.ones((1, 10)), comm=comm)
    with pytest.raises(sh.InputError, match="not finite"):
        sh.selected_inverse(H * np.nan, comm=comm)


def test_the_line_it_shows(comm):
    shown = repr(sh.selected_inverse(chain(12), ([0], [0]), comm=comm))
    assert shown.startswith("<SelectedInverse: 1 entry of the inverse of H, positive definite, errors up to ")
