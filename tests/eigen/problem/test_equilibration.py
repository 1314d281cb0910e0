"""Symmetric scaling by powers of two: what it makes even, what it leaves alone, what does not depend on it."""

import numpy as np
import pytest
import scipy.sparse as sp

import sparsehess as sh
from sparsehess.eigen.problem.equilibration import find_scales, median, scaled_copy
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.errors import InputError
from sparsehess.runtime import destroy
from support.cases import laplacian

pytestmark = pytest.mark.parallel([1, 2, 3])


def string(n):
    K = sp.diags([-np.ones(n - 1), np.full(n, 2.0), -np.ones(n - 1)], [-1, 0, 1]).tocsr()
    return K, (sp.identity(n) / n**2).tocsr()


def whole(comm, local):
    return np.concatenate(comm.allgather(local))


def test_what_is_even_is_left_alone(comm):
    K, M = string(40)
    with EigenProblem.of(K, mass=M, comm=comm) as problem:
        assert problem.equilibrated is problem and (problem.scales.d == 1).all() and problem.scales.power == 0


def test_units_and_penalties_do_not_matter(comm):
    K, M = string(60)
    units = np.exp2(np.random.default_rng(4).integers(-60, 60, 60))
    D = sp.diags(units)
    held = K.tolil()
    held[7, 7] = 1e30
    for A, B in ((D @ K @ D, D @ M @ D), (held.tocsr(), M), (D @ held.tocsr() @ D, D @ M @ D)):
        with EigenProblem.of(A.tocsr(), mass=B.tocsr(), comm=comm) as problem:
            d = whole(comm, problem.scales.d)
            even = problem.equilibrated
            assert (np.log2(d) == np.round(np.log2(d))).all()
            rows = np.abs(d[:, None] * A.toarray() * d).max(axis=1)
            assert (rows > 0.2).all() and (rows < 4.1).all()
            assert even is not problem and even.equilibrated is even
            assert problem.scale == pytest.approx(even.scale) and 1e3 < problem.scale < 2e4  # 4 / (1 / 60²)


def test_a_scaled_copy_is_exact(comm):
    K, M = string(11)
    d = np.exp2(np.arange(11.0) - 5)
    with EigenProblem.of(K, mass=M, comm=comm) as problem:
        by = problem.A.createVecRight()
        by.setArray(d[problem.layout.start : problem.layout.stop])
        copy, squares = scaled_copy(problem.A, by, 3), scaled_copy(None, by)
        x, y = problem.A.createVecs()
        for matrix, expected in ((copy, d[:, None] * K.toarray() * d / 8), (squares, np.diag(d**2))):
            x.setArray(np.ones(problem.layout.n_local))
            matrix.mult(x, y)
            assert np.array_equal(whole(comm, y.getArray()), expected.sum(axis=1))
        destroy(copy, squares, by, x, y)


def test_a_multiplier_does_not_drown_what_it_constrains(comm):
    """Row maxima near 1 are not enough: the stiffness must be of that size, too."""
    K, M = string(30)
    B = sp.csr_matrix(([1e25, -1e25], ([0, 0], [4, 9])), (1, 30))
    saddle, mass = sp.bmat([[K, B.T], [B, None]]).tocsr(), sp.block_diag([M, sp.csr_matrix((1, 1))]).tocsr()
    with EigenProblem.of(saddle, mass=mass, comm=comm) as problem:
        d = whole(comm, problem.scales.d)
        assert np.abs(np.log2(d[:30])).max() <= 1 and d[30] == pytest.approx(1e-25, rel=0.6)
        assert (problem.infinite.below, problem.infinite.above, problem.finite) == (1, 1, 29)


@pytest.mark.parametrize("size", [1e-310, 1e-290, 1e250, 1e300])
def test_sizes_whose_squares_are_no_numbers(size, comm):
    K, exact = laplacian(6, 7)
    with sh.eigs((size * K).tocsr(), 4, comm=comm) as found:
        assert np.abs(found.eigenvalues / size - exact[:4]).max() < 1e-9 if size > 1e-300 else True
        assert found.count.certified and np.isfinite(found.count.interval[1])
        assert found.count.interval[1] / size == pytest.approx(exact[3], rel=0.5)


def test_entries_that_are_no_numbers_are_refused(comm):
    K, M = string(12)
    K.data[5] = np.nan
    with pytest.raises(InputError, match="not finite"):
        EigenProblem.of(K, mass=M, comm=comm)


def test_the_median_of_all_ranks(comm):
    with EigenProblem.of(string(50)[0], comm=comm) as problem:
        values = 2.0 ** np.arange(50)[problem.layout.start : problem.layout.stop]
        assert median(values, comm) == pytest.approx(2.0**24, rel=1.1)
        assert median(np.zeros(3), comm) == 0.0
        scales = find_scales(problem.A, None, problem.layout)
        assert scales.norms[0] == pytest.approx(sp.linalg.norm(string(50)[0]), rel=1e-14)


def test_a_variable_without_stiffness_and_mass_is_held(comm):
    K, M = string(20)
    out = sp.diags(np.where(np.arange(20) == 13, 0.0, 1.0))
    K, M = (out @ K @ out).tocsr(), (out @ M @ out).tocsr()
    keep = np.arange(20) != 13
    exact = np.linalg.eigvalsh(K.toarray()[np.ix_(keep, keep)]) * 400
    with EigenProblem.of(K, mass=M, comm=comm) as problem:
        assert problem.scales.empty.tolist() == [13]
    with sh.eigs(K, 5, mass=M, comm=comm) as found:
        assert np.abs(found.eigenvalues - exact[:5]).max() < 1e-9 * exact[-1] and found.count.certified
        for vector in found.vectors:
            assert np.abs(whole(comm, vector.getArray())[13]) < 1e-12


def test_the_weights_of_a_mass_bound_its_quadratic_form(comm):
    """A heavy variable among light ones, where sums of rows alone would say far too much of the light."""
    rng = np.random.default_rng(9)
    size = np.r_[1e6, np.ones(12), np.full(12, 1e-9)]
    root = rng.normal(size=(25, 25)) * size[:, None] ** 0.5
    M = root @ root.T
    with EigenProblem.of(np.eye(25), mass=sp.csr_matrix(M), comm=comm) as problem:
        d, weights = whole(comm, problem.scales.d), whole(comm, problem.scales.rows_m)
    scaled = np.abs(d[:, None] * M * d)
    assert np.linalg.eigvalsh(np.diag(weights) - scaled)[0] >= -1e-9 * weights.max()
    assert (weights <= 25 * np.diag(scaled) * (1 + 1e-12)).all()


@pytest.mark.parametrize("projected", [True, False])
def test_two_atoms_have_a_size_along_their_line_alone(projected, comm):
    """Rows across it hold what finite steps leave: of a molecule that floats."""
    spring, mass, x = 25.0, np.repeat([12.0, 16.0], 3), np.array([0.3, 0.2, 0.1, 0.3, 1.3, 0.1])

    def gradient(x):
        bond = x[3:] - x[:3]
        pull = spring * (1 - 1.1 / np.linalg.norm(bond)) * bond
        return np.concatenate([-pull, pull])

    objective = sh.Objective(
        x=x,
        gradient=gradient,
        pattern=sh.Pattern.from_scipy(sp.csr_matrix(np.ones((6, 6))), comm=comm),
        mass=mass,
        projected=(lambda x: sh.rigid_body_modes(x.reshape(-1, 3))) if projected else None,
        comm=comm,
    )
    with sh.assemble(objective) as hessian, sh.eigs(hessian, 1 if projected else 6) as found:
        assert found.eigenvalues[-1] == pytest.approx(spring * (1 / 12 + 1 / 16), rel=1e-7)
        assert found.count.certified and found.count.inertia == 6
        assert projected or found.zero.tolist() == [True] * 5 + [False]
