"""One factorization past the wanted eigenvalues: what it finds, counts, and where it gives way."""

import numpy as np
import pytest
import scipy.sparse as sp

import sparsehess as sh
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.solvers.dof_blocks import dof_block_size
from sparsehess.eigen.solvers.krylov_schur import KrylovSchur
from sparsehess.eigen.solvers.nested_start import nested_start
from sparsehess.errors import InputError
from sparsehess.runtime import aij
from support.cases import lapack, laplacian
from support.elastic_block import brick

pytestmark = pytest.mark.parallel([1, 2, 3])


@pytest.fixture
def factorized(monkeypatch):
    """Shifts that a factorization has been made at."""
    shifts = []
    make = KrylovSchur._factorize

    def counted(solver, shift):
        if shift != solver.shift:
            shifts.append(shift)
        make(solver, shift)

    monkeypatch.setattr(KrylovSchur, "_factorize", counted)
    return shifts


def agrees(spectrum, exact, within=1e-9):
    assert spectrum.count.certified
    assert np.abs(spectrum.eigenvalues / exact[: len(spectrum.eigenvalues)] - 1).max() < within


@pytest.mark.parametrize("near", ["rigid", "nothing"])
def test_one_factorization_finds_and_counts(comm, factorized, near):
    K, M, x = brick((9, 9, 10))
    exact = lapack(K, M)
    known = {"near_null": sh.rigid_body_modes(x)[0]} if near == "rigid" else {}
    with sh.eigs(K, 6, mass=M, method="oneshift", comm=comm, **known) as found:
        agrees(found, exact)
        assert found.method == "oneshift" and found.converged == 6 <= found.count.inertia
        assert len(factorized) == 1 and exact[5] < factorized[0] == found.count.interval[1]


@pytest.mark.parametrize("k", [1, 2, 4, 7, 13, 20])
def test_multiplets_at_the_edge(comm, factorized, k):
    K, exact = laplacian(12, 12, 12)  # triplets and sextets
    with sh.eigs(K, k, method="oneshift", comm=comm) as found:
        agrees(found, exact)
        assert len(factorized) == 1


def test_known_null_vectors(comm, factorized):
    K, M, x = brick((6, 6, 6), clamped=False)
    rigid = sh.rigid_body_modes(x)[0]
    with sh.eigs(K, 6, mass=M, nullspace=rigid, method="oneshift", comm=comm) as found:
        agrees(found, lapack(K, M)[6:])
        assert found.method == "oneshift" and len(factorized) == 1


def test_bounds_are_from_above_and_near(comm):
    K, M, _ = brick((8, 8, 8))
    exact = lapack(K, M)[:12]
    with EigenProblem.of(K, mass=M, comm=comm) as problem:
        basis = nested_start(problem, 6, 12)
        assert (basis.values >= exact * (1 - 1e-12)).all() and basis.values[5] < 1.2 * exact[5]
        basis.close()


def test_eigenvalues_that_no_coarse_level_sees(comm):
    """Two rows far below all others: whoever looks at smooth vectors only misses them."""
    K, _ = laplacian(11, 12, 13)
    K = K.tolil()
    K[700, 700] -= 50
    K[900, 900] -= 3
    exact = np.linalg.eigvalsh(K.toarray())
    with sh.eigs(K.tocsr(), 5, method="oneshift", comm=comm) as found:
        agrees(found, exact)


def test_from_below_where_bounds_tell_nothing(comm):
    diagonal = sp.diags(np.arange(1.0, 3001)).tocsr()  # nothing to coarsen
    with sh.eigs(diagonal, 4, method="oneshift", comm=comm) as found:
        agrees(found, np.arange(1.0, 5))
        assert found.method == "krylovschur" and "do not tell where" in found.reason
    K, exact = laplacian(9, 10, 11)
    with sh.eigs(-K, 4, method="oneshift", comm=comm) as found:  # no multigrid smooths it
        agrees(found, -exact[::-1])


def test_a_guess_tells_where_the_shift_lies(comm, factorized):
    K, exact = laplacian(13, 14, 15)
    with sh.eigs(K, 8, comm=comm) as before:
        assert before.method == "krylovschur"
        factorized.clear()
        with sh.eigs(1.01 * K, 8, guess=before, comm=comm) as found:
            agrees(found, 1.01 * exact)
            assert found.method == "oneshift" and found.iterations <= 2 and len(factorized) == 1


def test_a_guess_of_anything(comm, factorized):
    """It costs some products, no further factorization, and nothing is missed."""
    K, exact = laplacian(13, 14, 15)
    guess = np.random.default_rng(0).standard_normal((8, K.shape[0]))
    with sh.eigs(K, 8, guess=guess, comm=comm) as found:
        agrees(found, exact)
        assert len(factorized) <= 2


def test_blocks_of_variables_are_seen_in_the_pattern(comm):
    def size(matrix):
        layout = sh.Pattern.from_scipy(matrix, comm=comm).layout
        rows = matrix[layout.start : layout.stop]
        mat = aij(layout, rows.indptr, rows.indices, rows.data)
        found = dof_block_size(mat)
        mat.destroy()
        return found

    grid = laplacian(4, 5, 6)[0]
    assert size(grid) == 1
    for blocks in (2, 3):  # whole ones on each rank: 120 points on 1, 2 and 3 ranks
        assert size(sp.kron(grid, np.ones((blocks, blocks))).tocsr()) == blocks
    broken = sp.kron(grid, np.ones((3, 3))).tolil()
    broken[4, 0] = 0.0
    broken = broken.tocsr()
    broken.eliminate_zeros()
    assert size(broken) == 1


def test_what_it_is_not_for_is_told(comm):
    K, _ = laplacian(6, 6, 6)
    mass = np.ones(216)
    mass[3] = 0.0
    for arguments, told in (
        ({"which": "largest"}, "for the smallest"),
        ({"k": 60}, "at most 40 pairs"),
        ({"k": 2, "mass": mass}, "infinite"),
    ):
        with pytest.raises(InputError, match=told):
            sh.eigs(K, method="oneshift", comm=comm, **arguments)


def test_auto_takes_it_where_it_is_predicted_to_be_faster(comm, monkeypatch):
    monkeypatch.setattr("sparsehess.eigen.solvers.method_choice.LARGE", 1000)
    K, exact = laplacian(12, 12, 12)
    with sh.eigs(K, 3, comm=comm) as found:
        assert found.method == "krylovschur"  # a factorization costs little here
    monkeypatch.setattr("sparsehess.eigen.solvers.predicted_seconds._BLOCK", 1.0)
    with sh.eigs(K, 3, comm=comm) as found:
        agrees(found, exact)
        assert found.method == "oneshift" and "s predicted" in found.reason


@pytest.mark.parametrize("method", ["auto", "oneshift"])
def test_vectors_to_start_from_are_looked_at(comm, method):
    K, exact = laplacian(8, 9, 10)
    R = np.random.default_rng(0).standard_normal((4, K.shape[0]))
    for size in (1e-250, 1e250):  # of which no square is a number
        with sh.eigs(K, 4, guess=size * R, method=method, comm=comm) as found:
            agrees(found, exact)
    for bad, told in ((R * [[1], [1], [0], [1]], "vector 3 of 4"), (np.where(R > 3, np.nan, R), "finite")):
        with EigenProblem.of(K, comm=comm) as problem:
            layout, vectors = problem.layout, [problem.A.createVecRight() for _ in bad]
        for vector, row in zip(vectors, bad, strict=True):
            vector.setArray(row[layout.start : layout.stop])
        for guess in (bad, vectors):
            with pytest.raises(InputError, match=told):
                sh.eigs(K, 4, guess=guess, method=method, comm=comm)
        for vector in vectors:
            vector.destroy()


def test_a_guess_for_what_is_not_definite(comm):
    """Conjugate gradients break down there, after any number of steps, and leave nothing to be read."""
    rng = np.random.default_rng(1)
    for n, parts in ((327, 1), (250, 2), (143, 3), (207, 4)):
        i, j = rng.integers(0, n, (2, 2 * n))
        W = sp.coo_matrix((np.where((i - j) % parts == 0, 1.0, 0.0) * (i != j), (i, j)), (n, n)).tocsr()
        W = W + W.T
        K = sp.diags(np.asarray(W.sum(1)).ravel()) - W
        for shift in (0.1, 0.3, 0.9):
            H = (K - shift * K.max() * sp.identity(n)).tocsr()
            with sh.eigs(H, 5, guess=rng.standard_normal((5, n)), method="oneshift", comm=comm) as found:
                agrees(found, lapack(H))
