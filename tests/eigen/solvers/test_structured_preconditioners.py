"""Structured operators as preconditioners: each structure by each method, and what P cannot spoil."""

import contextlib

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sp

import sparsehess as sh
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.solvers.structured_inverse import AbsoluteInverse, DefiniteInverse
from sparsehess.errors import InputError
from sparsehess.hosts.learning.layer_blocks import LayerBlocks

pytestmark = pytest.mark.parallel([1, 2, 3])

P, Q = 12, 20  # divisible by 2 and 3: all structures have the same rows on each rank
N = P * Q


def chain(n):
    return sp.diags([-np.ones(n - 1), np.full(n, 2.0), -np.ones(n - 1)], [-1, 0, 1]).tocsr()


ROWS, COLUMNS = 4 * chain(P), chain(Q)  # along one side the grid is stiffer
GRID = sp.kronsum(COLUMNS, ROWS).tocsr()
FAR = np.random.default_rng(3).standard_normal((N, 4)) / np.sqrt(N)
WEIGHTS = np.diag([60.0, 30.0, 45.0, -2.0])
LOCAL = sp.diags(0.3 * np.random.default_rng(4).random(N))
HESSIAN = (GRID + LOCAL).toarray() + FAR @ WEIGHTS @ FAR.T  # indefinite
VALUES = np.linalg.eigvalsh(HESSIAN)


class Counted:
    """Products with a dense matrix, whose rows are in some order, and their number."""

    def __init__(self, matrix, order=None):
        self.matrix = matrix if order is None else matrix[np.ix_(order, order)]
        self.number = 0

    def __call__(self, x):
        self.number += 1
        return self.matrix @ x


def own(comm, rows):
    layout = sh.Layout.from_size(len(rows), comm)
    return rows[layout.start : layout.stop]


def low_rank(comm):
    return sh.LowRankDiagonal(own(comm, GRID.diagonal() + 0.15), own(comm, FAR), WEIGHTS, comm=comm), None, []


def far_field(comm, diagonal=0.0):
    return sh.LowRankDiagonal(diagonal, own(comm, FAR), WEIGHTS, comm=comm)


def block_diagonal(comm):
    blocks = [HESSIAN[i : i + Q, i : i + Q] for i in range(0, N, Q)]
    return sh.BlockDiagonal(blocks, comm=comm), None, []


def kronecker_sum(comm):
    return sh.Kronecker([(ROWS, sp.identity(Q)), (sp.identity(P), COLUMNS)], comm=comm), None, []


def direct_sum(comm):
    half = P // 2
    left = sh.Kronecker([(ROWS[:half, :half], sp.identity(Q)), (sp.identity(half), COLUMNS)], comm=comm)
    right = sh.LowRankDiagonal(6.0, own(comm, FAR[: N // 2]), WEIGHTS, comm=comm)
    rows = sh.Layout.from_size(N // 2, comm)
    mine = np.arange(rows.start, rows.stop)
    return sh.DirectSum([left, right], owned=True), np.concatenate([mine, N // 2 + mine]), []


def sum_with_a_structure(comm):
    parts = [kronecker_sum(comm)[0], far_field(comm, 0.15)]
    return sh.weighted_sum([(1.0, one) for one in parts]), None, parts


def sum_with_a_matrix(comm):
    parts = [far_field(comm)]
    return sh.weighted_sum([(1.0, GRID), (1.0, parts[0])], shift=0.1, comm=comm), None, parts


def sum_of_structures(comm):
    """Nothing solves with it but iterations: it is a polynomial."""
    parts = [kronecker_sum(comm)[0], block_diagonal(comm)[0]]
    return sh.weighted_sum([(0.5, one) for one in parts]), None, parts


def factors():
    return [(ROWS[:6, :6].toarray() / 3, COLUMNS.toarray() + np.eye(Q)), (ROWS[:6, :6].toarray(), np.eye(Q))]


def layers(comm, make):
    """A model whose variables are in another order than its layers have them, as those of K-FAC are."""
    variables = np.random.default_rng(5).permutation(N)
    parts = {str(i): make(A, B, comm) for i, (A, B) in enumerate(factors())}
    halves = {"0": np.sort(variables[: N // 2]), "1": np.sort(variables[N // 2 :])}
    return LayerBlocks(parts, halves, N), None, []


def kfac(comm):
    return layers(comm, lambda A, B, comm: sh.Kronecker((A, B), comm=comm))


def ekfac(comm):
    def corrected(A, B, comm):
        with sh.Kronecker((A, B), comm=comm) as H:
            return sh.EigenCorrected.of(H, A, B)

    return layers(comm, corrected)


STRUCTURES = (
    low_rank,
    block_diagonal,
    kronecker_sum,
    direct_sum,
    sum_with_a_structure,
    sum_with_a_matrix,
    sum_of_structures,
    kfac,
    ekfac,
)


def layered():
    """Return a Hessian that K-FAC is near to, with its rows as the model has them."""
    order = np.random.default_rng(5).permutation(N)
    where = np.concatenate([np.sort(order[: N // 2]), np.sort(order[N // 2 :])])
    H = np.zeros((N, N))
    H[np.ix_(where, where)] = scipy.linalg.block_diag(*(np.kron(A, B) for A, B in factors()))
    return H + FAR @ WEIGHTS @ FAR.T


def hessian_for(structure, order, comm):
    """Return a Hessian near a structure: products that are counted, and its eigenvalues."""
    if structure in (kfac, ekfac):
        count = Counted(layered())
        return count, np.linalg.eigvalsh(count.matrix)
    order = None if order is None else np.concatenate(comm.allgather(order))
    return Counted(HESSIAN, order), VALUES


def spent(count, comm, **arguments):
    """Return eigenvalues and how many products they took."""
    with sh.from_matvec(count, N, comm=comm) as H:
        count.number = 0
        with sh.eigs(H, count="no" if "k" in arguments else "auto", **arguments) as found:
            assert np.all(found.residuals <= 1e-8)
            return found.eigenvalues, count.number


@pytest.fixture
def near(request, comm):
    """Return a structure, products with a Hessian near it, and its eigenvalues."""
    made, order, parts = request.param(comm)
    yield made, *hessian_for(request.param, order, comm), request.param
    made.close()
    for part in parts:
        part.close()


each = pytest.mark.parametrize("near", STRUCTURES, indirect=True, ids=lambda make: make.__name__)


# Part of the products without it that each structure may take at most: the better it is, the fewer.
BOUNDS = {sum_with_a_structure: 0.5, sum_with_a_matrix: 0.5, direct_sum: 0.97}


@pytest.mark.parametrize("method", ["lobpcg", "gd", "jd"])
@pytest.mark.parametrize("structure", STRUCTURES)
def test_lowest_pairs_take_fewer_products_with_each_structure(structure, method, comm):
    made, order, parts = structure(comm)
    count, exact = hessian_for(structure, order, comm)
    plain, without = spent(count, comm, k=4, method=method)
    found, products = spent(count, comm, k=4, method=method, preconditioner=made)
    made.close()
    for part in parts:
        part.close()
    assert found == pytest.approx(exact[:4], abs=1e-9) and plain == pytest.approx(exact[:4], abs=1e-9)
    assert products <= BOUNDS.get(structure, 0.85) * without


@pytest.mark.parametrize("method", ["lobpcg", "gd", "jd"])
@each
def test_highest_pairs_by_each_structure(near, method, comm):
    made, count, exact, _ = near
    found, _ = spent(count, comm, k=4, which="largest", method=method, preconditioner=made)
    assert found == pytest.approx(exact[-4:], abs=1e-9)


TOLD = (block_diagonal, kronecker_sum, direct_sum, kfac, ekfac)  # these tell their eigenvectors


@pytest.mark.parametrize(
    "near",
    [*TOLD, *(pytest.param(one, marks=pytest.mark.slow) for one in STRUCTURES if one not in TOLD)],
    indirect=True,
    ids=lambda make: make.__name__,
)
def test_an_interval_by_feast_and_each_structure(near, comm):
    """Of a Hessian very near to it: FEAST's systems are nearly singular, and else take thousands each."""
    made = near[0]
    noise = np.random.default_rng(7).standard_normal((N, N))
    count = Counted(whole(made) + 0.02 * (noise + noise.T) / np.sqrt(8 * N))
    exact = np.linalg.eigvalsh(count.matrix)
    interval = (exact[0] - 0.5, (exact[3] + exact[4]) / 2)
    found, products = spent(count, comm, interval=interval, method="feast", preconditioner=made)
    assert found == pytest.approx(exact[:4], abs=1e-9)
    if near[3] in TOLD:
        assert products < 5000


@pytest.mark.slow
def test_feast_takes_a_fraction_of_the_products(comm):
    """Of a Hessian that is not so near, in the middle of its spectrum."""
    made, *_ = ekfac(comm)
    noise = np.random.default_rng(8).standard_normal((N, N))
    count = Counted(whole(made) + 0.1 * (noise + noise.T) / np.sqrt(8 * N))
    exact = np.linalg.eigvalsh(count.matrix)
    interval = ((exact[39] + exact[40]) / 2, (exact[59] + exact[60]) / 2)
    plain, without = spent(count, comm, interval=interval, method="feast")
    found, products = spent(count, comm, interval=interval, method="feast", preconditioner=made)
    made.close()
    assert found == pytest.approx(exact[40:60], abs=1e-9) and plain == pytest.approx(exact[40:60], abs=1e-9)
    assert products < 0.5 * without


def whole(operator):
    """Return all entries of an operator, on every rank."""
    layout = operator.layout
    columns = [operator.product(column[layout.start : layout.stop]) for column in np.eye(N)]
    return np.concatenate(layout.comm.allgather(np.stack(columns, axis=1)))


# --- what P may be ---


def blind(comm):
    """P that is huge where the lowest eigenvectors of H are: its inverse hardly sees them."""
    lowest = np.linalg.eigh(HESSIAN)[1][:, :2]
    return sh.LowRankDiagonal(6.0, own(comm, lowest), 1e8 * np.eye(2), comm=comm)


def misled(comm):
    """P that is lowest where H is highest."""
    highest = np.linalg.eigh(HESSIAN)[1][:, -3:]
    return sh.LowRankDiagonal(6.0, own(comm, highest), -1e3 * np.eye(3), comm=comm)


POOR = {
    "zero": lambda comm: sh.LowRankDiagonal(0.0, np.zeros((len(own(comm, FAR)), 0)), comm=comm),
    "negative": lambda comm: sh.LowRankDiagonal(-own(comm, GRID.diagonal()), own(comm, FAR), -WEIGHTS, comm=comm),
    "huge": lambda comm: sh.LowRankDiagonal(1e12, own(comm, FAR), comm=comm),
    "tiny": lambda comm: sh.LowRankDiagonal(1e-12, 1e-7 * own(comm, FAR), comm=comm),
    "blind": blind,
    "misled": misled,
    "singular": lambda comm: sh.LowRankDiagonal(0.0, own(comm, FAR), WEIGHTS, comm=comm),
}


@pytest.mark.parametrize("which", ["smallest", "largest"])
@pytest.mark.parametrize("method", ["lobpcg", "gd", "jd"])
@pytest.mark.parametrize("poor", POOR)
def test_a_poor_preconditioner_spoils_no_answer(poor, method, which, comm):
    count = Counted(HESSIAN)
    with (
        POOR[poor](comm) as made,
        sh.from_matvec(count, N, comm=comm) as H,
        sh.eigs(H, 4, which=which, method=method, preconditioner=made) as found,
    ):
        exact = VALUES[:4] if which == "smallest" else VALUES[-4:]
        assert found.eigenvalues == pytest.approx(exact, abs=1e-9)


@pytest.mark.parametrize("which", ["smallest", "largest"])
@each
def test_what_is_applied_is_symmetric_and_positive_definite(near, which, comm):
    """Of each structure, which is not definite or not known to be: all eigenvalues of the map are positive."""
    made, count, *_ = near
    with sh.from_matvec(count, N, comm=comm) as H, EigenProblem.of(H, preconditioner=made) as problem:
        T = mapped(DefiniteInverse(problem, which), comm)
        assert np.abs(T - T.T).max() <= 1e-9 * np.abs(T).max()
        assert np.linalg.eigvalsh((T + T.T) / 2)[0] > 0


@pytest.mark.parametrize("near", TOLD, indirect=True, ids=lambda make: make.__name__)
def test_what_is_applied_at_a_contour_point_is_the_absolute_inverse(near, comm):
    """As wide as P is wrong: some |P − a − ib|⁻¹ with b at least that of the point."""
    made, count, exact, _ = near
    z = exact[3] + 0.05j
    with sh.from_matvec(count, N, comm=comm) as H, EigenProblem.of(H, preconditioner=made) as problem:
        inverse = AbsoluteInverse(problem, z)
        T = mapped(inverse, comm)
        inverse.close()
    values, vectors = np.linalg.eigh(whole(made))
    applied = vectors.T @ T @ vectors
    sizes = applied.diagonal()[np.argsort(np.abs(values - z.real), kind="stable")]
    assert sizes.min() > 0 and np.all(np.diff(sizes) <= 1e-9 * sizes.max())  # the nearer to z, the larger
    twice = np.abs(values[:, None] - values) < 1e-6  # of these any basis will do
    assert np.abs(applied[~twice]).max() <= 1e-9 * sizes.max()


def mapped(inverse, comm):
    """Return the matrix of a map of local rows, on every rank."""
    layout = sh.Layout.from_size(N, comm)
    columns = inverse(np.eye(N)[layout.start : layout.stop])
    return np.concatenate(comm.allgather(columns))


def test_masses_and_null_vectors_go_with_a_structure(comm):
    mass = np.linspace(1, 3, N)
    free = sp.kronsum(free_chain(Q), 4 * free_chain(P)).tocsr()
    exact = scipy.linalg.eigh(free.toarray(), np.diag(mass), eigvals_only=True)
    terms = [(4 * free_chain(P), sp.identity(Q)), (sp.identity(P), free_chain(Q))]
    for method in ("lobpcg", "gd", "jd"):
        with sh.Kronecker(terms, comm=comm) as made, sh.from_matvec(Counted(free), N, comm=comm) as H:
            arguments = {"mass": mass, "nullspace": np.ones((1, N)), "method": method, "count": "no"}
            with sh.eigs(H, 4, preconditioner=made, **arguments) as found:
                assert found.eigenvalues == pytest.approx(exact[1:5], abs=1e-9)


def free_chain(n):
    return sp.diags([-np.ones(n - 1), np.r_[1.0, np.full(n - 2, 2.0), 1.0], -np.ones(n - 1)], [-1, 0, 1]).tocsr()


def test_an_assembled_hessian_is_counted_all_the_same(comm):
    with low_rank(comm)[0] as made, sh.eigs(GRID, 5, method="lobpcg", preconditioner=made, comm=comm) as found:
        assert found.count.certified
        assert found.eigenvalues == pytest.approx(np.linalg.eigvalsh(GRID.toarray())[:5], abs=1e-9)


@pytest.mark.parametrize("method", ["lobpcg", "gd", "jd"])
def test_a_matrix_near_the_hessian_serves_the_upper_end_too(method, comm):
    near = GRID.toarray() + FAR @ WEIGHTS @ FAR.T
    with sh.eigs(GRID, 4, which="largest", method=method, preconditioner=sp.csr_matrix(near), comm=comm) as found:
        assert found.eigenvalues == pytest.approx(np.linalg.eigvalsh(GRID.toarray())[-4:], abs=1e-9)


# --- what cannot be used ---


def test_what_cannot_precondition_says_what_to_do(comm):
    count = Counted(HESSIAN)
    with sh.from_matvec(count, N, comm=comm) as H, kronecker_sum(comm)[0] as made:
        for arguments, message in (
            ({"method": "krylovschur"}, "takes no preconditioner"),
            ({"method": "filter", "interval": (0, 1)}, "takes no preconditioner"),
            ({"interval": (0, 1)}, "a preconditioner is for the smallest"),
            ({"method": "gd", "options": {"st_pc_type": "jacobi"}}, "st_pc_type: a structured preconditioner is"),
        ):
            with pytest.raises(InputError, match=message):
                sh.eigs(H, preconditioner=made, **arguments)
        with pytest.raises(InputError, match="feast takes a structured preconditioner of a matrix-free"):
            sh.eigs(GRID, interval=(0, 1), method="feast", preconditioner=made, comm=comm)
        with pytest.raises(InputError, match="feast takes a structured preconditioner of a matrix-free"):
            sh.eigs(H, interval=(0, 1), method="feast", preconditioner=GRID)
        with pytest.raises(InputError, match="the preconditioner has"):
            sh.eigs(H, 3, preconditioner=sh.LowRankDiagonal(1.0, own(comm, FAR[: N - 60]), comm=comm))
        uneven = N if comm.rank == 0 else 0
        with pytest.raises(InputError, match="the preconditioner has") if comm.size > 1 else nothing():
            sh.eigs(H, 3, preconditioner=sh.LowRankDiagonal(1.0, FAR[:uneven], comm=comm)).close()
        skew = sh.Kronecker((np.eye(P) + np.eye(P, k=1), np.eye(Q)), comm=comm)
        with pytest.raises(InputError, match="the preconditioner is not symmetric"):
            sh.eigs(H, 3, preconditioner=skew)
        skew.close()
    with sh.from_matvec(count, N, comm=comm) as H, pytest.raises(InputError, match="the preconditioner is closed"):
        sh.eigs(H, 3, preconditioner=made)
    apart = GRID + sp.diags(np.r_[1e10, np.zeros(N - 1)])  # a penalty
    with low_rank(comm)[0] as made, pytest.raises(InputError, match="differ by more than a factor"):
        sh.eigs(apart, 3, method="gd", preconditioner=made, comm=comm)


@contextlib.contextmanager
def nothing():
    yield


def test_numbers_that_are_none_are_refused(comm):
    spoilt = kronecker_sum(comm)[0]
    spoilt.apply_inverse = lambda b, shift: np.full_like(b, np.nan if comm.rank == comm.size - 1 else 1.0)
    with sh.from_matvec(Counted(HESSIAN), N, comm=comm) as H, spoilt:
        for method in ("lobpcg", "gd", "jd"):
            with pytest.raises(InputError, match="not finite"):
                sh.eigs(H, 3, method=method, preconditioner=spoilt)
