"""Linear operators of SciPy, in and out, and functions of products."""

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.sparse.linalg import LinearOperator, aslinearoperator, cg, eigsh

import sparsehess as sh
from sparsehess.errors import CheckError, EvaluationError, InputError
from sparsehess.pattern import Layout
from support.cases import laplacian

pytestmark = [pytest.mark.parallel([1, 2, 3]), pytest.mark.essential]

K, EXACT = laplacian(11, 12)
N = 132
FORMATS = ("csr", "csc", "coo", "dia", "bsr", "lil", "dok")
START = np.cos(np.arange(N))


class Counted(LinearOperator):
    """A matrix as an operator that counts its products, and that is no `MatrixLinearOperator` of SciPy's."""

    def __init__(self, matrix, dtype=np.float64):
        super().__init__(dtype, matrix.shape)
        self.matrix, self.calls = matrix, 0

    def _matvec(self, v):
        self.calls += 1
        return np.asarray(self.matrix @ v, self.dtype)

    def _matmat(self, V):
        self.calls += V.shape[1]
        return np.asarray(self.matrix @ V, self.dtype)


@pytest.mark.parametrize("make", [aslinearoperator, Counted])
def test_eigs_takes_operators(make, comm):
    operator = make(K)
    with sh.eigs(operator, 5, comm=comm) as found:
        assert found.eigenvalues == pytest.approx(EXACT[:5], rel=1e-9)
        values, vectors = found.to_numpy()
        assert np.abs(K @ vectors - vectors * values).max() < 1e-7
    with sh.eigs(operator, 3, which="largest", tol=1e-9, mass=np.full(N, 2.0), comm=comm) as found:
        assert found.eigenvalues == pytest.approx(EXACT[-3:] / 2, rel=1e-8)


def test_what_else_takes_matrices_takes_operators(comm):
    operator = Counted(K - 0.5 * sp.identity(N))
    exact = EXACT - 0.5
    signs = sh.inertia(operator, comm=comm)
    assert (signs.negative, signs.zero, signs.positive) == ((exact < 0).sum(), 0, (exact > 0).sum())
    assert sh.density(operator, comm=comm).count(-np.inf, 1.0)[0] == (exact < 1.0).sum()
    assert sh.trace(Counted(K), "inverse", comm=comm).trace == pytest.approx((1 / EXACT).sum(), rel=1e-8)
    assert sh.rank(operator, comm=comm).rank == N
    lowest = sh.curvature(operator, comm=comm)
    assert lowest.value == pytest.approx(exact[0], rel=1e-8) and lowest.sign == -1
    lowest.direction.destroy()
    own = Layout.from_size(N, comm)
    diagonal = sh.diagonal(operator, samples=N, comm=comm)
    assert diagonal.values == pytest.approx(np.asarray((K.diagonal() - 0.5)[own.start : own.stop]))
    with sh.eigs(K, 3, comm=comm) as found:
        assert sh.certify(aslinearoperator(K), found, comm=comm).passed
    assert operator.calls


def test_sums_and_congruences_take_operators(comm):
    T = sp.csr_matrix(np.eye(N)[:, :9])
    with sh.weighted_sum([(2.0, Counted(K)), (1.0, K)], comm=comm) as total, sh.eigs(total, 2) as found:
        assert found.eigenvalues == pytest.approx(3 * EXACT[:2], rel=1e-8)
    with sh.congruence(Counted(K), T, comm=comm) as part, sh.eigs(part, 2) as found:
        assert found.eigenvalues == pytest.approx(np.linalg.eigvalsh(K.toarray()[:9, :9])[:2], rel=1e-8)
    with pytest.raises(InputError, match="must be stored"):
        sh.congruence(K, aslinearoperator(T), comm=comm)


def test_a_large_operator_is_solved_by_products_alone(comm):
    exact = np.linspace(1.0, 2.0, 2500) ** 3
    operator = LinearOperator((2500, 2500), matvec=lambda v: exact * v.ravel(), dtype=np.float64)
    with sh.eigs(operator, 2, which="largest", comm=comm) as found:
        assert found.eigenvalues == pytest.approx(exact[-2:], rel=1e-9) and found.count is None


def test_single_precision_is_as_exact_as_it_is(comm):
    operator = Counted(K.astype(np.float32), np.float32)
    with sh.eigs(operator, 3, comm=comm) as found:
        assert found.eigenvalues == pytest.approx(EXACT[:3], abs=1e-5)
        assert found.held_to > 1e-8 or found.errors is not None or found.error_bound is not None


@pytest.mark.parametrize(
    ("operator", "error", "says"),
    [
        (aslinearoperator(np.triu(np.ones((9, 9)))), InputError, "not symmetric"),
        (aslinearoperator(np.ones((9, 8))), InputError, "square; this linear operator is 9 x 8"),
        (aslinearoperator(np.eye(9) * 1j), InputError, "real numbers, not complex128"),
        (aslinearoperator(np.full((9, 9), np.nan)), CheckError, "not finite"),
        (LinearOperator((9, 9), matvec=lambda v: v[:4], dtype=float), EvaluationError, "shape|must return|raised"),
        (LinearOperator((9, 9), matvec=lambda v: 1 / 0, dtype=float), EvaluationError, "raised ZeroDivisionError"),
        (lambda v: v, InputError, r"sparsehess\.from_matvec"),
    ],
)
def test_what_is_no_hessian_is_refused(operator, error, says, comm):
    with pytest.raises(error, match=says):
        sh.eigs(operator, 2, comm=comm)


@pytest.mark.parametrize("keyword", ["mass", "preconditioner"])
def test_what_must_be_stored_is_told(keyword, comm):
    with pytest.raises(InputError, match="must be stored"):
        sh.eigs(K, 2, **{keyword: aslinearoperator(K)}, comm=comm)


def test_what_asks_for_entries_says_so(comm):
    operator = aslinearoperator(np.eye(36))
    for function in (
        lambda: sh.nearest_kronecker(operator, 6, 6, comm=comm),
        lambda: sh.BlockDiagonal.from_components(operator),
        lambda: sh.congruence(K, lambda v: v, comm=comm),
    ):
        with pytest.raises(InputError, match=r"must be stored|from_matvec"):
            function()
    with pytest.raises(InputError, match="not assembled"):
        sh.sparsify(operator, sh.Above(0.1), comm=comm)


@pytest.mark.parametrize("form", [*(f"{one}_array" for one in FORMATS), "dia_matrix", "bsr_matrix"])
def test_sparse_arrays_of_every_format(form, comm):
    given = getattr(sp, form)(K)
    mass = sp.diags_array(np.full(N, 2.0)) if hasattr(sp, "diags_array") else sp.csr_array(2 * sp.identity(N))
    with sh.eigs(given, 3, mass=mass, comm=comm) as found:
        assert found.eigenvalues == pytest.approx(EXACT[:3] / 2, rel=1e-10) and found.count.certified
    assert sh.inertia(given, comm=comm).positive == N
    assert sh.Pattern.from_scipy(given, comm=comm).nnz == K.nnz
    with sh.weighted_sum([(1.0, given), (1.0, K.toarray())], comm=comm) as total:
        assert total.trace() == pytest.approx(2 * K.diagonal().sum())


def test_dense_arrays(comm):
    with sh.eigs(K.toarray(), 3, comm=comm) as found:
        assert found.eigenvalues == pytest.approx(EXACT[:3], rel=1e-10)


def test_functions_of_local_rows(comm):
    """All ranks call together, and exchange what they need."""
    layout = Layout.from_size(N, comm)

    def product(v):
        whole = np.concatenate(comm.allgather(v))
        return (K @ whole)[layout.start : layout.stop]

    def products(V):
        assert V.shape[0] == layout.n_local
        return (K @ np.concatenate(comm.allgather(V)))[layout.start : layout.stop]

    for matmat in (None, products):
        with sh.from_matvec(product, N, matmat=matmat, distributed=True, comm=comm) as H:
            assert H.product(START[layout.start : layout.stop]) == pytest.approx(
                product(START[layout.start : layout.stop])
            )
            with sh.eigs(H, 3) as found:
                assert found.eigenvalues == pytest.approx(EXACT[:3], rel=1e-9)
            assert H.solve(np.ones(layout.n_local)) == pytest.approx(
                sp.linalg.spsolve(K.tocsc(), np.ones(N))[layout.start : layout.stop]
            )


def test_an_error_on_one_rank_is_one_on_all(comm):
    def product(v):
        if comm.rank == comm.size - 1:
            raise ValueError("bad luck")
        return v

    with (
        sh.from_matvec(product, 9, comm=comm) as H,
        pytest.raises(EvaluationError, match=f"raised ValueError on rank {comm.size - 1}: bad luck"),
    ):
        sh.eigs(H, 2)


def test_arguments_of_functions(comm):
    for arguments, says in (
        ((3, 9), "must be a function"),
        ((lambda v: v, 0), "n=0"),
        ((lambda v: v, 9.5), "n=9.5"),
    ):
        with pytest.raises(InputError, match=says):
            sh.from_matvec(*arguments, comm=comm)
    with pytest.raises(InputError, match="the layout has 8 rows"):
        sh.from_matvec(lambda v: v, 9, layout=Layout.from_size(8, comm))


def quartic(comm):
    edges = np.stack([np.arange(N - 1), np.arange(1, N)], axis=1)
    return sh.Objective(
        x=np.linspace(1.0, 2.0, N),
        gradient=lambda x: x**3 + np.append(np.diff(x), 0.0) * 0,
        hvp=lambda x, v: 3 * x**2 * v,
        pattern=sh.Pattern.from_edges(edges, N, comm=comm),
        comm=comm,
    )


def given_out(comm):
    diagonal = 3 * np.linspace(1.0, 2.0, N) ** 2
    yield sh.assemble(quartic(comm)), np.diag(diagonal)
    yield sh.MatrixFree(quartic(comm)), np.diag(diagonal)
    A, B = np.diag(np.arange(1.0, 12.0)), np.diag(np.arange(1.0, 13.0)) + 0.1
    yield sh.Kronecker((A, B), comm=comm), np.kron(A, B)
    own = Layout.from_size(N, comm)
    yield (
        sh.LowRankDiagonal(2.0, START[own.start : own.stop, None], comm=comm),
        2 * np.eye(N) + np.outer(START, START),
    )
    yield sh.from_matvec(lambda v: K @ v, N, comm=comm), K.toarray()


def test_operators_go_out(comm):
    for H, dense in given_out(comm):
        operator = H.aslinearoperator()
        assert operator.shape == (N, N) and operator.dtype == np.float64
        scale = np.abs(dense).max()
        assert operator @ START == pytest.approx(dense @ START, abs=1e-6 * scale)
        assert pytest.approx(dense @ START, abs=1e-6 * scale) == operator.T @ START
        block = np.stack([START, START**2], axis=1)
        assert operator @ block == pytest.approx(dense @ block, abs=1e-6 * scale)
        exact = np.linalg.eigvalsh(dense)
        found = eigsh(operator, 2, which="LA", v0=START, return_eigenvectors=False)
        assert np.sort(found) == pytest.approx(exact[-2:], rel=1e-6)
        solution, status = cg(operator, START, maxiter=2000, atol=1e-8)
        assert status == 0 and np.abs(dense @ solution - START).max() < 1e-3
        H.close()
        with pytest.raises(InputError, match="closed"):
            H.aslinearoperator()
        with pytest.raises(InputError, match="closed"):
            operator @ START


@pytest.mark.parallel([2, 3])
def test_other_vectors_on_other_ranks_are_refused(comm):
    with sh.from_matvec(lambda v: K @ v, N, comm=comm) as H, pytest.raises(InputError, match="v0 of eigsh"):
        H.aslinearoperator() @ (START + comm.rank)
