"""Error bars of eigenvalues and frequencies cover what noise of known size does, and are not much wider."""

import numpy as np
import pytest
import scipy.sparse as sp

import sparsehess as sh
from sparsehess.derivatives.units import Units
from sparsehess.eigen.certificates.certificate import certify_pairs, recount
from sparsehess.eigen.problem.problem import EigenProblem
from sparsehess.eigen.solvers.eigs import solve

pytestmark = [pytest.mark.parallel([1, 2]), pytest.mark.essential]

N = 40


def noisy_chain(noise, seed, comm, mass=None, units=None):
    """Return masses on a line, held nowhere, whose forces are noisy: by the point, whichever rank is at it."""
    rest = np.arange(N, dtype=float)

    def gradient(x):
        tension = 100.0 * np.diff(x - rest)
        forces = np.concatenate([[0.0], tension]) - np.concatenate([tension, [0.0]])
        random = np.random.default_rng([seed, *x.view(np.uint32).tolist()])
        return forces + noise * random.standard_normal(N)

    bonds = np.stack([np.arange(N - 1), np.arange(1, N)], axis=1)
    pattern = sh.Pattern.from_edges(bonds, N, comm=comm)
    null = np.ones((1, N))
    return sh.Objective(
        x=rest, gradient=gradient, pattern=pattern, null_vectors=null, mass=mass, units=units, comm=comm
    )


def exact(k):
    return 200 * (1 - np.cos(np.pi * np.arange(1, k + 1) / N))


def draws(noise, number, comm, k=6, derivative="central", **how):
    """Return (number, k) eigenvalues and error bars of so many noisy Hessians."""
    values, bars = [], []
    for seed in range(number):
        with (
            sh.assemble(noisy_chain(noise, seed, comm, **how), derivative=derivative) as H,
            sh.eigs(H, k) as found,
        ):
            assert found.count.certified
            values.append(found.eigenvalues)
            bars.append(found.errors)
            assert (found.errors <= found.error_bound).all()
    return np.array(values), np.array(bars)


@pytest.mark.parametrize(
    ("derivative", "noise", "number"), [("central", 1e-6, 200), ("central", 1e-3, 60), ("forward", 1e-6, 60)]
)
def test_bars_cover_and_are_not_much_wider(derivative, noise, number, comm):
    values, bars = draws(noise, number, comm, derivative=derivative)
    off = np.abs(values - exact(6))
    assert np.mean(off <= bars) >= 0.95
    assert np.median(bars / np.sqrt(np.mean(off**2, axis=0))) < 10


def test_bars_cover_what_finite_steps_leave_out(comm):
    """Springs that stiffen, without noise and with little."""
    covered = []
    for seed in range(20):
        random = np.random.default_rng((seed, comm.rank))
        shared = np.random.default_rng(seed)
        x, k = shared.uniform(0.5, 1.5, N), shared.uniform(0.5, 2.0, N - 1)
        noise = (seed % 2) * 1e-8

        def gradient(x, k=k, noise=noise, random=random):
            stretch = np.diff(x)
            tension = k * (stretch + np.sinh(2 * stretch))
            pull = np.concatenate([[0.0], tension]) - np.concatenate([tension, [0.0]])
            return pull + x**5 + noise * random.standard_normal(N)

        stiff = k * (1 + 2 * np.cosh(2 * np.diff(x)))
        ends = np.concatenate([[0.0], stiff]) + np.concatenate([stiff, [0.0]])
        right = np.diag(ends + 5 * x**4) - np.diag(stiff, 1) - np.diag(stiff, -1)
        bonds = np.stack([np.arange(N - 1), np.arange(1, N)], axis=1)
        pattern = sh.Pattern.from_edges(bonds, N, comm=comm)
        objective = sh.Objective(x=x, gradient=gradient, pattern=pattern, comm=comm)
        with sh.assemble(objective) as H, sh.eigs(H, 6) as found:
            covered.append(np.abs(found.eigenvalues - np.linalg.eigvalsh(right)[:6]) <= found.errors)
    assert np.mean(covered) >= 0.95


def test_bars_with_masses_and_of_frequencies(comm):
    units = Units("THz", 3.0)
    values, bars = draws(1e-6, 20, comm, mass=np.full(N, 4.0), units=units)
    off = np.abs(values - exact(6) / 4)
    assert np.mean(off <= bars) >= 0.95
    frequencies, spread = units.of_eigenvalues(values), units.of_errors(values, bars)
    away = np.abs(frequencies - units.of_eigenvalues(exact(6) / 4))
    assert np.mean(away <= spread) >= 0.95
    np.testing.assert_allclose(spread, bars * 3.0 / (2 * np.sqrt(values)), rtol=0.1)


def test_a_frequency_near_zero_has_a_long_bar():
    units = Units("THz", 1.0)
    np.testing.assert_allclose(units.of_errors(np.array([0.0, 1e-8]), np.array([1e-4, 1e-4])), 1e-2, rtol=0.02)


def test_alike_modes_have_longer_bars(comm):
    """Two equal eigenvalues of a matrix with an error repel each other: farther than one alone is moved."""
    off = []
    for seed in range(40):
        random = np.random.default_rng((seed, comm.rank))

        def gradient(x, random=random):
            return np.repeat([1.0, 5.0], [2, 4]) * x + 1e-6 * random.standard_normal(6)

        full = np.stack(np.triu_indices(6, 1), axis=1)
        pattern = sh.Pattern.from_edges(full, 6, comm=comm)
        objective = sh.Objective(x=np.ones(6), gradient=gradient, pattern=pattern, comm=comm)
        with sh.assemble(objective) as H, sh.eigs(H, 6, method="dense") as found:
            off.append(np.abs(found.eigenvalues - np.repeat([1.0, 5.0], [2, 4])) <= found.errors)
    assert np.mean(off) >= 0.95


def test_a_mode_is_zero_to_its_own_bar(comm):
    """Not to that of the largest rows: a soft mode far above its own bar is none, whatever the noise elsewhere."""
    with sh.assemble(noisy_chain(1e-3, 3, comm)) as H, sh.eigs(H, 4) as found:
        assert found.zeros == 0 and (found.eigenvalues > found.errors).all()
    objective = noisy_chain(1e-3, 3, comm)
    with sh.assemble(objective) as H, EigenProblem.of(H, nullspace=[]) as problem:
        found = solve(problem, sh.SolveSpec(k=3))
        assert found.zeros == 1 and found.zero[0]
        found.close()


def test_no_error_no_bars(comm):
    with sh.eigs(np.diag(np.arange(1.0, 9.0)), 2, comm=comm) as found:
        assert found.errors is None and found.error_bound is None and found.zeros == 0


def test_an_error_by_norm_is_felt_where_the_mode_is(comm):
    """Of a file that was not symmetric to 1e-6: a penalty of 1e12 elsewhere does not blur a soft mode."""
    matrix = np.diag([1.0, 2.0, 3.0, 1e12])
    with EigenProblem.of(matrix, relative_error=1e-6, comm=comm) as problem:
        found = solve(problem, sh.SolveSpec(k=3))
        np.testing.assert_allclose(found.errors, 1e-6 * np.array([1.0, 2.0, 3.0]), rtol=1e-9)
        assert found.zeros == 0
        found.close()


def test_a_certificate_projects_as_the_solve_did(comm):
    with sh.assemble(noisy_chain(1e-4, 5, comm)) as H, sh.eigs(H, 4) as found:
        assert sh.certify(H, found).passed
        assert not sh.certify(H, found, nullspace=[]).passed


def test_a_hessian_that_is_taken_anew_has_the_pairs_within_both_bars(comm):
    for seed in range(6):
        with (
            sh.assemble(noisy_chain(1e-4, 100 + seed, comm)) as H,
            sh.eigs(H, 4) as found,
            sh.assemble(noisy_chain(1e-4, 200 + seed, comm)) as again,
            EigenProblem.of(again) as problem,
        ):
            tol = 10 * problem.relative_error
            count, wanted = recount(problem, sh.SolveSpec(k=4), found.eigenvalues, found.vectors, retaken=True)
            assert count.certified and (count.inertia, wanted) == (5, 4)
            pairs = found.eigenvalues, found.vectors, count
            assert certify_pairs(problem, *pairs, tol, retaken=True).passed
            assert not certify_pairs(problem, *pairs, tol).passed
            assert not certify_pairs(problem, 1.01 * found.eigenvalues, *pairs[1:], tol, retaken=True).passed


def test_the_sign_of_a_curvature_is_not_claimed_within_its_bar(comm):
    with sh.assemble(noisy_chain(1e-3, 3, comm)) as H:
        lowest = sh.curvature(H, nullspace=[])
        assert lowest.sign == 0 and abs(lowest.value) <= lowest.error
        lowest.direction.destroy()
        beside = sh.curvature(H)
        assert beside.sign == 1 and beside.certified and beside.error > 1e-4
        beside.direction.destroy()


@pytest.mark.parametrize("seed", [1, 20, 98])
@pytest.mark.parametrize("coloring", ["star", "cpr"])
def test_bars_of_small_rows_of_a_graded_hessian(comm, seed, coloring):
    """What is seen of a graded matrix is the errors of its largest rows: those of others are what noise makes."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(12, 40))
    d = np.sort(10.0 ** rng.uniform(-3.5, 3.5, n))
    s, c, q = np.abs(rng.normal(size=n)) + 0.5, 0.3 * rng.normal(size=n - 1), rng.uniform(0, 1, n)
    x = rng.normal(size=n) / d

    def gradient(x):
        y = d * x
        g, u = s * y + q * y**3, c * np.sin(np.diff(y))
        g[1:] += u
        g[:-1] -= u
        return d * g

    y = d * x
    k = c * np.cos(np.diff(y))
    exact = sp.diags(s + 3 * q * y**2 + np.r_[0, k] + np.r_[k, 0]) - sp.diags([k, k], [1, -1])
    exact = (sp.diags(d) @ exact @ sp.diags(d)).toarray()
    bonds = sp.diags([np.ones(n - 1), np.ones(n), np.ones(n - 1)], [-1, 0, 1]).tocsr()
    pattern = sh.Pattern.from_scipy(bonds, comm=comm)
    objective = sh.Objective(gradient=gradient, x=x, pattern=pattern, comm=comm)
    with sh.assemble(objective, coloring=coloring) as hessian:
        own = slice(pattern.layout.start, pattern.layout.stop)
        off = np.concatenate(comm.allgather(hessian.to_scipy()[:, own].diagonal())) - exact.diagonal()
        bars = np.array([hessian.entry_errors.of_quotient(e[own]) for e in np.eye(n)[: n // 3]])
    assert (np.abs(off)[: n // 3] <= 2 * bars).all()
