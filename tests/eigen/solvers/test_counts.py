"""Counts and their margins: what may be called certified, tried with what should not be."""

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sp

import sparsehess as sh
from sparsehess.commands.reports.tables import count_line
from sparsehess.eigen.certificates.certificate import recount
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.problem.rayleigh_ritz import RitzPairs
from sparsehess.eigen.problem.slepc_blocks import block, images, residuals
from sparsehess.eigen.problem.solve_spec import SolveSpec
from sparsehess.eigen.solvers.counts import compare_with_count
from sparsehess.eigen.solvers.krylov_schur import KrylovSchur
from sparsehess.eigen.solvers.lowest_targets import Smallest
from sparsehess.eigen.solvers.nearest_target import Nearest
from sparsehess.eigen.solvers.spectrum_targets import Edge
from sparsehess.errors import CheckError, SparseHessError
from sparsehess.runtime import destroy
from support.cases import prescribed

pytestmark = [pytest.mark.parallel([1, 2, 3]), pytest.mark.essential]


def pairs_of(problem, vectors, values):
    """Pairs that claim these values, with the residuals that they have."""
    made = []
    for column in vectors.T:
        made.append(problem.A.createVecRight())
        made[-1].setArray(column[problem.layout.start : problem.layout.stop])
    X = block(problem, made)
    AX, MX = images(problem, X)
    worth = residuals(problem, values, X, AX, MX)
    destroy(AX, None if MX is X else MX, X)
    return RitzPairs(values, made, worth, 0.0, np.full(len(values), 1e-16))


def holds(spectrum):
    low, high = spectrum.count.interval
    inside = (spectrum.eigenvalues > low) & (spectrum.eigenvalues < high)
    return bool((inside if low < high else ~inside).all())


@pytest.mark.parametrize("seed", range(4))
def test_the_interval_of_a_count_holds_all_pairs(seed, comm):
    rng = np.random.default_rng(seed)
    values = np.sort(np.concatenate([np.repeat(rng.normal(size=6), rng.integers(1, 6, 6)), rng.normal(size=25)]))
    matrix = prescribed(values, seed=seed)
    for k in (1, 2, 5, 9):
        for asked in ({"which": "smallest"}, {"which": "largest"}, {"which": "magnitude"}, {"target": 0.1}):
            with sh.eigs(matrix, k, comm=comm, **asked) as found:
                count = found.count
                assert count.certified and count.found + count.group == count.inertia and holds(found)
                distance = {"smallest": values, "largest": -values, "magnitude": -np.abs(values)}.get(
                    asked.get("which"), np.abs(values - 0.1)
                )
                expected = np.sort(values[np.argsort(distance, kind="stable")[:k]])
                assert np.abs(np.abs(found.eigenvalues) - np.abs(expected)).max() < 1e-10


@pytest.mark.parametrize("many", [40, 300])
def test_a_few_of_a_large_kernel(many, comm):
    values = np.concatenate([[-1.0, -0.5], np.zeros(many), np.linspace(1, 4, 30)])
    with sh.eigs(prescribed(values, seed=1), 7, comm=comm) as found:
        assert np.abs(found.eigenvalues - [-1, -0.5, 0, 0, 0, 0, 0]).max() < 1e-12
        assert found.count.certified and found.count.group == many + 2 - found.count.found > 0


def test_a_group_is_no_excuse_for_what_is_missing_before_it(monkeypatch, comm):
    """All before the group is counted: a solver that hides the lowest of all is found out."""
    values = np.concatenate([[-1.0, -0.5], np.zeros(40), np.linspace(1, 4, 30)])
    honest = KrylovSchur.solve

    def solve(self, *arguments, **named):
        kept = []
        for vector in honest(self, *arguments, **named):
            image = vector.duplicate()
            self.problem.A.mult(vector, image)
            hidden = abs(image.dot(vector) / vector.dot(vector) + 0.5) < 1e-3
            image.destroy()
            if hidden:
                vector.destroy()
            else:
                kept.append(vector)
        return kept

    monkeypatch.setattr(KrylovSchur, "solve", solve)
    with pytest.raises(SparseHessError):
        sh.eigs(prescribed(values, seed=1), 7, comm=comm)


def test_what_lies_past_the_last_one_is_not_called_its_copies(comm):
    """A solver that is stopped early leaves the count's end far past the last pair: more than copies lie there."""
    side = 60
    line = sp.diags([-1.0, 2.0, -1.0], [-1, 0, 1], shape=(side, side))
    plate = sp.kron(line, sp.eye(side)) + sp.kron(sp.eye(side), line)
    exact = 4 * np.sin(np.pi * np.arange(1, side + 1) / (2 * (side + 1))) ** 2
    exact = np.sort(np.add.outer(exact, exact).ravel())
    options = {"eps_max_it": 1, "eps_ncv": 45}
    with sh.eigs(plate, 40, method="krylovschur", count="yes", options=options, comm=comm) as found:
        count = found.count
        assert count.certified and np.abs(found.eigenvalues - exact[:40]).max() < 1e-9
        assert count.inertia == (exact < count.interval[1]).sum()
        assert count.group > 0 and exact[:40].max() * (1 + 1e-6) < exact[count.inertia - 1]
        assert "more from the last one on" in count_line(count) and "equal" not in count_line(count)


def test_a_margin_is_how_far_the_shift_is_over_what_rounding_moves(comm):
    values = np.concatenate([[0.5], np.linspace(1, 2, 60)])
    with EigenProblem.of(prescribed(values, seed=2), comm=comm) as problem:
        solver = KrylovSchur(problem, True, {}, tol=1e-8)
        margins = []
        for away in (1e-2, 1e-5, 1e-8, 1e-11):
            solver.shift_to(0.5 + away)
            margins.append(solver.margin())
        solver.close()
    for away, margin in zip((1e-2, 1e-5, 1e-8, 1e-11), margins, strict=True):
        assert 1e-2 * away / 2.2e-16 < margin < 10 * away / 1.1e-16


@pytest.mark.parametrize("units", [1.0, 2.0**40])
@pytest.mark.parametrize("penalty", [2.0**60, 2.0**75])
def test_a_tie_that_has_eaten_the_digits_is_not_certified(penalty, units, comm):
    """Between two parts of a chain: what holds the second is in the last digits of its stiff entry, or gone."""
    n = 20
    K = sp.diags([-np.ones(n - 1), np.full(n, 2.0), -np.ones(n - 1)], [-1, 0, 1]).tolil()
    K[9, 10] = K[10, 9] = -penalty
    K[9, 9] = K[10, 10] = penalty + 1.0
    D = sp.diags(np.where(np.arange(n) % 3, 1.0, units))
    with pytest.raises(CheckError, match=r"digits|certain|missed"):
        sh.eigs((D @ K @ D).tocsr(), 3, mass=(D @ D).tocsr(), comm=comm)
    assert not sh.inertia((D @ K @ D).tocsr(), mass=(D @ D).tocsr(), comm=comm).certified


@pytest.mark.parametrize("penalty", [1e6, 1e12, 1e20, 1e30])
def test_a_support_by_a_penalty_decides_nothing(penalty, comm):
    n = 40
    K = sp.diags([-np.ones(n - 1), np.full(n, 2.0), -np.ones(n - 1)], [-1, 0, 1]).tolil()
    K[0, 0] += penalty
    K[-1, -1] += penalty
    free = np.linalg.eigvalsh(K.toarray()[1:-1, 1:-1])
    moved = 4 / penalty  # by what a support gives way
    with sh.eigs(K.tocsr(), 5, comm=comm) as found:
        assert np.abs(found.eigenvalues - free[:5]).max() < 1e-12 + moved and found.count.certified
    with sh.eigs(K.tocsr(), interval=(0.0, free[5] + 1e-3), comm=comm) as found:
        assert found.converged == 6 and found.count.certified
    with sh.eigs(K.tocsr(), 4, target=float(free[20]), comm=comm) as found:
        assert np.abs(found.eigenvalues[:, None] - free).min(axis=1).max() < 1e-12 + moved and holds(found)
    with sh.eigs(K.tocsr(), 3, which="largest", comm=comm) as found:
        assert np.abs(found.eigenvalues[-2:] / penalty - 1).max() < 10 / penalty + 1e-9
        assert found.eigenvalues[0] == pytest.approx(free[-1], abs=1e-9 + moved)
    signs = sh.inertia(K.tocsr(), comm=comm)
    assert (signs.negative, signs.zero, signs.positive, signs.certified) == (0, 0, n, True)


def test_an_eigenvalue_just_beyond_an_end_is_not_returned(comm):
    values = np.array([1.0, 2.0, 3.0, 3.0 + 1e-9, 3.1, 4.0])
    with sh.eigs(sp.diags(values).tocsr(), interval=(1.0, 3.0), comm=comm) as found:
        assert np.abs(found.eigenvalues - [1.0, 2.0, 3.0]).max() < 1e-14 and found.count.certified and holds(found)


def test_the_largest_where_they_are_dense(comm):
    n = 1500
    K = sp.diags([-np.ones(n - 1), np.full(n, 2.0), -np.ones(n - 1)], [-1, 0, 1]).tocsr()
    exact = 2 - 2 * np.cos(np.pi * np.arange(1, n + 1) / (n + 1))
    for which in ("largest", "magnitude"):
        with sh.eigs(K, 4, which=which, comm=comm) as found:
            assert np.abs(found.eigenvalues - exact[-4:]).max() < 1e-12 and found.count.certified


def test_a_group_begins_where_the_last_wanted_one_is_by_now(comm):
    """A repair has brought -6, so 2 is the third; -7 is missing, and 3 was found a little too low."""
    exact = np.array([-7.0, -6.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    found = np.array([-6.0, 1.0, 2.0, 3.0 - 2e-9])
    with EigenProblem.of(sp.diags(exact).tocsr(), comm=comm) as problem:
        solver = KrylovSchur(problem, True, {}, tol=1e-8)
        target = Smallest(problem, SolveSpec(k=3))
        stale = Edge(3.5, 3.0 - 1e-9), target.count(solver, 3.5)
        pairs = pairs_of(problem, np.eye(7)[:, 1:5], found)
        count = compare_with_count(target, pairs, 3, solver, stale)
        destroy(*pairs.vectors)
        assert (count.inertia, count.found) == (5, 4) and not count.certified
        solver.close()


def mixture(mixed, mass):
    """A pencil with -0.2 and 0.1 about 0, and two vectors, the one of 0.1 a mixture with those of 3 and -3."""
    n, rng = 12, np.random.default_rng(5)
    exact = np.array([-3.0, -0.2, 0.1, 3.0, *np.linspace(4, 9, n - 4)])
    L = np.linalg.qr(rng.normal(size=(n, n)))[0] * (10.0 ** rng.uniform(-2, 2, n) if mass else 1.0)
    V = np.linalg.inv(L).T
    inside = np.cos(mixed * np.pi / 2) * V[:, 2] + np.sin(mixed * np.pi / 2) * (V[:, 0] + V[:, 3]) / 2**0.5
    A, M = (L * exact) @ L.T, L @ L.T if mass else None
    A = (A + A.T) / 2
    return A, M, np.column_stack([V[:, 1], inside]), np.array([-0.2, inside @ A @ inside])


@pytest.mark.parametrize("mass", [False, True])
@pytest.mark.parametrize("mixed", [0.0, 1e-3, 0.3, 1.0])
def test_pairs_whose_bars_reach_an_end_are_no_proof(mixed, mass, comm):
    """As many pairs as the inertia counts about 0, the one of 0.1 being a mixture of those of 3 and -3."""
    A, M, found, values = mixture(mixed, mass)
    with EigenProblem.of(A, mass=M, comm=comm) as whole:
        problem = whole.equilibrated
        D = np.concatenate(comm.allgather(whole.scales.d))
        pairs = pairs_of(problem, found / D[:, None], np.ldexp(values, -whole.scales.power))
        solver, target = KrylovSchur(problem, True, {}, tol=1e-8), Nearest(problem, SolveSpec(k=2, target=0.0))
        count = compare_with_count(target, pairs, 2, solver)
        solver.close()
        destroy(*pairs.vectors)
    wrong = np.sin(mixed * np.pi / 2)
    assert count.inertia == count.found == 2 and count.margin > 10
    assert count.across >= 0.9 * wrong  # what lies beyond the ends, or more
    assert count.certified is (mixed < 0.1) and count.blurred is (mixed > 0.1)


@pytest.mark.parametrize("mass", [False, True])
@pytest.mark.parametrize("mixed", [0.0, 1e-3, 0.3, 1.0])
@pytest.mark.parametrize("interval", [(-1.0, 1.0), (-np.inf, 1.5), (-1.5, np.inf)])
def test_pairs_whose_bars_reach_an_end_of_an_interval_are_no_proof(interval, mixed, mass, comm):
    """With pairs of all that is inside but the one of 0.1: by factors of the middle, and by those of the ends."""
    A, M, found, values = mixture(mixed, mass)
    weights, V = scipy.linalg.eigh(A, M)
    low, high = interval
    beside = (weights > low) & (weights < high) & (np.abs(weights) > 0.3)
    found, values = np.column_stack([found, V[:, beside]]), np.concatenate([values, weights[beside]])
    order = np.argsort(values)
    found, values = found[:, order], values[order]
    # What lies beyond the ends, which some of the pairs stand for instead of the one of 0.1.
    beyond = V[:, (weights < low) | (weights > high)].T @ (np.eye(12) if M is None else M) @ found
    wrong = np.linalg.norm(beyond, 2)
    with EigenProblem.of(A, mass=M, comm=comm) as problem:
        vectors = pairs_of(problem, found, values).vectors
        count, _ = recount(problem, SolveSpec(interval=interval), values, vectors)
        destroy(*vectors)
    assert count.inertia == count.found == len(values) and count.margin > 10
    assert count.across >= 0.9 * wrong - 1e-10
    assert count.certified is (mixed < 0.1) and count.blurred is (mixed > 0.1)


@pytest.mark.parametrize("asked", [{"which": "smallest"}, {"which": "magnitude"}, {"target": 1.0}])
@pytest.mark.parametrize("method", ["lobpcg", "krylovschur"])
def test_no_certificate_of_loose_pairs_is_false(method, asked, comm):
    """Pairs of a loose tolerance beside a cluster: where they are certified, they span what is inside."""
    for seed in range(6):
        rng = np.random.default_rng(seed)
        exact = np.sort(np.concatenate([rng.normal(size=20), 1 + 10.0 ** rng.uniform(-5, 0, 20)]))
        Q = np.linalg.qr(rng.normal(size=(40, 40)))[0]
        A = (Q * exact) @ Q.T
        options = {"tol": 10.0 ** rng.uniform(-4, -1), "method": method, "count": "yes", "strict": False}
        try:
            found = sh.eigs((A + A.T) / 2, 4, comm=comm, **options, **asked)
        except SparseHessError:
            continue  # this method does not take that end
        with found:
            if not found.count.certified:
                continue
            X = np.column_stack([np.concatenate(comm.allgather(one.getArray())) for one in found.vectors])
            inside = Q[:, found.count.holds(exact)]
            assert inside.shape[1] == found.count.inertia
            if found.count.inertia == found.converged:
                assert np.linalg.svd(inside.T @ X)[1].min() > 0.8


@pytest.mark.parametrize("seed", [1, 2])
def test_the_largest_of_a_matrix_of_rank_one(comm, seed):
    """Products fill the basis with vectors of zero: the other must not be lost, nor a zero be certified."""
    rng = np.random.default_rng(seed)
    d = 10.0 ** rng.uniform(-3, 3, 20)
    M = d[:, None] * (2 * np.eye(20) - np.eye(20, k=1) - np.eye(20, k=-1)) * d
    x = rng.standard_normal(20)
    for which in ("magnitude", "largest"):
        with sh.eigs(np.outer(x, x), 1, mass=M, which=which, count="yes", comm=comm) as found:
            assert found.eigenvalues == pytest.approx([x @ np.linalg.solve(M, x)], rel=1e-8)
            assert found.count.certified


@pytest.mark.parametrize("seed", [24, 26, 36, 58])
def test_more_of_the_largest_than_the_rank_with_a_mass(comm, seed):
    """What else is found is zero, and neither spoils the largest nor is taken for all that is missing."""
    rng = np.random.default_rng(seed)
    n, rank, more = int(rng.integers(10, 60)), int(rng.integers(1, 4)), int(rng.integers(1, 4))
    d = 10.0 ** rng.uniform(-3, 3, n)
    M = d[:, None] * (2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1)) * d
    X, signs = rng.normal(size=(n, rank)), rng.choice([-1, 1], rank)
    half = np.linalg.cholesky(X.T @ np.linalg.solve(M, X))
    exact = np.linalg.eigvalsh(half.T @ np.diag(signs) @ half)
    with sh.eigs((X * signs) @ X.T, rank + more, mass=M, which="magnitude", count="yes", comm=comm) as found:
        ordered = found.eigenvalues[np.argsort(-np.abs(found.eigenvalues))]
        assert np.sort(ordered[:rank]) == pytest.approx(exact, rel=1e-7)
        assert np.abs(ordered[rank:]).max() < 1e-9 * np.abs(exact).max() and len(ordered) == rank + more
        assert found.count.certified
