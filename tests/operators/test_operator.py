"""What holds for operators of every structure: preconditioners, singular matrices, misuse."""

from petsc4py import PETSc
from slepc4py import SLEPc

import numpy as np
import pytest
import scipy.sparse as sp

import sparsehess as sh
from sparsehess.errors import InputError
from sparsehess.operators.block_diagonal import BlockDiagonal
from sparsehess.operators.combinations import congruence, weighted_sum
from sparsehess.operators.direct_sum import DirectSum
from sparsehess.operators.eigen_corrected import EigenCorrected
from sparsehess.operators.kronecker import Kronecker
from sparsehess.operators.low_rank import LowRankDiagonal
from sparsehess.operators.matrix_functions import funm
from sparsehess.operators.nearest_kronecker_sum import nearest_kronecker
from sparsehess.operators.quasi_newton import lbfgs, sr1
from sparsehess.operators.transforms import selection, sharing
from support.cases import laplacian
from support.dense_answers import own, positive

pytestmark = pytest.mark.parallel([1, 2, 3])


def test_preconditioners(comm):
    """Conjugate gradients and LOBPCG with a structured neighbour of the matrix, in a few steps."""
    K, exact = laplacian(12, 10)
    layout = sh.Layout.from_size(120, comm, block=10)
    local = (K + sp.diags(0.01 * np.cos(np.arange(120)))).tocsr()[layout.start : layout.stop]
    csr = (local.indptr.astype(PETSc.IntType), local.indices.astype(PETSc.IntType), local.data)
    mat = PETSc.Mat().createAIJ(((layout.n_local, 120),) * 2, csr=csr, comm=comm)
    terms = [(laplacian(12)[0], sp.identity(10)), (sp.identity(12), laplacian(10)[0])]
    with Kronecker(terms, comm=comm) as near:
        pc = near.preconditioner(0.001)
        ksp = PETSc.KSP().create(comm)
        ksp.setOperators(mat)
        ksp.setType("cg")
        ksp.setPC(pc)
        ksp.setTolerances(rtol=1e-10)
        b, x = mat.createVecLeft(), mat.createVecRight()
        b.setArray(own(layout, np.ones(120)))
        ksp.solve(b, x)
        assert ksp.getConvergedReason() > 0 and ksp.getIterationNumber() <= 12
        eps = SLEPc.EPS().create(comm)
        eps.setOperators(mat)
        eps.setProblemType(SLEPc.EPS.ProblemType.HEP)
        eps.setType("lobpcg")
        eps.setWhichEigenpairs(SLEPc.EPS.Which.SMALLEST_REAL)
        eps.setDimensions(3)
        eps.setTolerances(1e-8, 100)
        inner = eps.getST()
        inner.setType("precond")
        inner.getKSP().setType("preonly")
        inner.getKSP().setPC(pc)
        eps.solve()
        assert eps.getConverged() >= 3 and eps.getIterationNumber() <= 40
        assert abs(eps.getEigenvalue(0).real - exact[0]) < 0.01
        for item in (eps, ksp, pc, b, x, mat):
            item.destroy()


def test_singular_matrices_say_so(comm):
    layout, many = sh.Layout.from_size(10, comm), sh.Layout.from_size(80, comm)
    ones = np.ones((layout.n_local, 1))
    singular = [
        LowRankDiagonal(0.0, ones, comm=comm),
        LowRankDiagonal(own(layout, np.minimum(np.arange(10) // 3, 1)), ones, comm=comm),
        LowRankDiagonal(own(many, np.maximum(np.arange(80.0) - 50, 0)), np.ones((many.n_local, 1)), comm=comm),
        Kronecker((np.ones((5, 5)), np.eye(2)), comm=comm),
        BlockDiagonal([np.eye(5), np.ones((5, 5))], comm=comm),
        weighted_sum([(1.0, sp.csr_matrix(np.ones((10, 10))))], comm=comm),
    ]
    for operator in singular:
        with operator:
            right = np.ones(operator.layout.n_local)
            with pytest.raises(InputError, match="singular"):
                operator.solve(right)
            assert operator.logdet() == -np.inf
            damped = operator.solve(right, 0.5)
            assert np.abs(operator.product(damped) + 0.5 * damped - 1.0).max(initial=0.0) < 1e-12


def test_what_a_structure_does_not_tell_is_refused(comm):
    K = Kronecker((positive(3, 1), positive(4, 2)), comm=comm)
    twice = LowRankDiagonal(2.0, np.zeros((K.layout.n_local, 0)), comm=comm)
    with K, twice, weighted_sum([(1.0, K), (1.0, twice)]) as mixed, DirectSum([K, mixed]) as both:
        assert K.knows_eigenvalues and K.knows_counts
        for operator in (mixed, both):
            assert not operator.knows_eigenvalues and not operator.knows_counts
            for ask, *given in (
                (operator.eigenvalues,),
                (operator.spectrum, 2),
                (operator.inertia,),
                (operator.count, 0.0),
            ):
                with pytest.raises(InputError, match="WeightedSum"):
                    ask(*given)
        for power in (0.5, np.exp):
            with pytest.raises(InputError, match="eigenvectors of a WeightedSum are not known"):
                funm(both, power)
        with sh.eigs(both, 2) as found:
            assert found.eigenvalues[0] == pytest.approx(K.spectrum(1)[0])


def test_an_estimated_diagonal_is_not_called_exact(comm):
    n = 70
    K, _ = laplacian(n)
    pattern = sh.Pattern.from_scipy(K, comm=comm)
    for known, exact in ((pattern, True), (None, False)):
        objective = sh.Objective(x=np.zeros(n), gradient=lambda x: K @ x, pattern=known, comm=comm)
        layout = sh.Layout.from_size(n, comm)
        T = selection(np.arange(layout.start, layout.stop), layout)
        with sh.MatrixFree(objective) as free, congruence(free, T) as chosen, weighted_sum([(2.0, free)]) as twice:
            assert chosen.diagonal_is_exact is twice.diagonal_is_exact is free.diagonal_is_exact is exact
            near = np.allclose(chosen.diagonal(), own(layout, K.diagonal()), atol=1e-6)
            assert exact == (comm.allreduce(int(near)) == comm.size)
        T.destroy()


def test_misuse_says_what_is_wrong(comm):
    layout = sh.Layout.from_size(6, comm)
    rows = layout.n_local
    wrong = [
        (lambda: LowRankDiagonal(1.0, np.ones(rows), comm=comm), "must be"),
        (lambda: LowRankDiagonal(1.0, np.ones((rows, 2)), np.array([[0, 1], [0, 0]]), comm=comm), "symmetric"),
        (lambda: LowRankDiagonal(1.0, np.full((rows, 2), np.nan), comm=comm), "finite"),
        (lambda: Kronecker([(np.eye(2), np.eye(3)), (np.eye(3), np.eye(2))], comm=comm), "same sizes"),
        (lambda: Kronecker((np.ones((2, 3)), np.eye(2)), comm=comm), "square"),
        (lambda: BlockDiagonal([np.eye(2), np.array([[0, 1], [0, 0]])], comm=comm), "block 1 is not symmetric"),
        (lambda: EigenCorrected(np.ones((2, 2)), np.eye(3), np.ones(rows), comm=comm), "not orthogonal"),
        (lambda: nearest_kronecker(np.eye(6), 2, 4, comm=comm), "2·4"),
        (lambda: weighted_sum([], comm=comm), "at least"),
        (lambda: congruence(sp.identity(6), sp.identity(5), comm=comm), "does not fit"),
        (lambda: sharing(np.full(rows, 9), layout, 3), "from -1 to 2"),
        (lambda: selection([7], layout), "from 0 to 5"),
        (lambda: lbfgs(np.ones((rows, 1)), np.ones((rows, 1)), -1.0, comm=comm), "positive"),
        (lambda: sr1(np.ones((rows, 3)), np.ones((rows, 2)), comm=comm), "must be .n_local, m. both"),
        (lambda: funm(np.eye(3), np.exp, method="newton", comm=comm), "give a number"),
        (lambda: funm(np.eye(3), 0.5, method="schur", comm=comm), "neither"),
        (lambda: funm(np.eye(3), np.nan, comm=comm), "must be finite"),
        (lambda: funm(1j * np.eye(3), 0.5, comm=comm), "the matrix must be real"),
        (lambda: BlockDiagonal([1j * np.eye(2)], comm=comm), "block 0 must be real"),
        (lambda: BlockDiagonal([np.zeros((2, 2))], comm=comm).function(lambda x: 1 / x), "not finite at the"),
        (lambda: BlockDiagonal([np.eye(2)], comm=comm).spectrum(-1), "k=-1"),
        (lambda: BlockDiagonal([np.eye(6)], comm=comm).solve(np.ones(rows), np.nan), "shift nan"),
        (lambda: LowRankDiagonal(1.0, np.ones((rows, 1)), comm=comm).compress(rank=0.5), "rank=0.5"),
        (lambda: Kronecker((sp.identity(2) * 1j, np.eye(3)), comm=comm), "factors must be real"),
        (lambda: Kronecker((np.eye(2), np.eye(3)), comm=comm).function(lambda x: 1.0), "as many"),
        (lambda: LowRankDiagonal(1j, np.ones((rows, 1)), comm=comm), "D must be real"),
        (lambda: weighted_sum([np.eye(2)], comm=comm), "pairs"),
        (lambda: weighted_sum([("heavy", np.eye(2))], comm=comm), "weights must be real"),
        (lambda: sharing(np.zeros(rows, int), layout, 0), "from -1 to -1"),
        (lambda: nearest_kronecker(np.eye(6), 2, 3, 1.5, comm=comm), "terms=1.5"),
    ]
    for make, says in wrong:
        with pytest.raises(InputError, match=says):
            make()
    with Kronecker((np.eye(2), np.eye(3)), comm=comm) as K:
        with pytest.raises(InputError, match="rows of this rank"):
            K.solve(np.ones(rows + 1))
        with pytest.raises(InputError, match="none of"):
            K.spectrum(2, "middle")
        with pytest.raises(InputError, match="must be assembled"):
            BlockDiagonal.from_components(K)


def test_ranks_that_bring_different_numbers_of_steps(comm):
    S = np.ones((2, 1 + comm.rank))
    if comm.size == 1:
        with sr1(S, 3 * S, comm=comm) as found:
            assert found.spectrum(2) == pytest.approx([1, 3])
        return
    for make in (sr1, lbfgs):
        with pytest.raises(InputError, match="as many steps on every rank"):
            make(S, S, comm=comm)
