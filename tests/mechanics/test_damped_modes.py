"""Damped and gyroscopic modes: against LAPACK's companion form and closed forms, and what is proven of them."""

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sp

import sparsehess as sh
from sparsehess.errors import CheckError, InputError
from sparsehess.mechanics.mode_search import ModeSearch

pytestmark = pytest.mark.parallel([1, 2, 3])


def beams(cells=24, free=False):
    """Return K and M of a square beam of length, mass and stiffness one, its two deflections interleaved."""
    h, size = 1.0 / cells, 2 * cells + 2
    K, M = np.zeros((size, size)), np.zeros((size, size))
    bending = np.array([[12, 6 * h, -12, 6 * h], [6 * h, 4 * h**2, -6 * h, 2 * h**2]])
    bending = np.vstack([bending, -bending[0], [6 * h, 2 * h**2, -6 * h, 4 * h**2]]) / h**3
    mass = np.array(
        [
            [156, 22 * h, 54, -13 * h],
            [22 * h, 4 * h**2, 13 * h, -3 * h**2],
            [54, 13 * h, 156, -22 * h],
            [-13 * h, -3 * h**2, -22 * h, 4 * h**2],
        ]
    )
    for cell in range(cells):
        at = np.ix_(range(2 * cell, 2 * cell + 4), range(2 * cell, 2 * cell + 4))
        K[at] += bending
        M[at] += mass * h / 420
    kept = slice(None) if free else slice(2, None)
    return [np.kron(one[kept, kept], np.eye(2)) for one in (K, M)]


def turning(M, speed):
    """Return the Coriolis matrix of a frame that turns about the axis of the beam."""
    return 2 * speed * np.kron(M[::2, ::2], [[0.0, -1.0], [1.0, 0.0]])


def by_lapack(K, M, V, target, count):
    """Return the eigenvalues with Im λ ≥ 0 nearest to a target, and the distances of the next."""
    size = np.sqrt(np.abs(K).max() / np.abs(M).max())
    n, scaled = len(K), (K / np.abs(K).max(), V * size / np.abs(K).max(), M * size**2 / np.abs(K).max())
    zero, one = np.zeros((n, n)), np.eye(n)
    A = np.block([[zero, one], [-scaled[0], -scaled[1]]])
    values = scipy.linalg.eig(A, scipy.linalg.block_diag(one, scaled[2]), right=False) * size
    values = values[np.isfinite(values) & (values.imag > -1e-9 * size)]
    values = values[np.argsort(np.abs(values - target))][:count]
    return values[np.argsort(np.abs(values))]


def check(found, matrices, expected, rtol=2e-7):
    K, M, V = matrices
    np.testing.assert_allclose(found.eigenvalues, expected, rtol=rtol, atol=rtol * np.abs(expected).max() * 1e-3)
    assert found.residuals.max() < 1e-8 and not found.shortfall
    start, stop = found.real[0].getOwnershipRange()
    comm = found.real[0].comm.tompi4py()
    for value, real, imaginary in zip(found.eigenvalues, found.real, found.imaginary, strict=True):
        own = real.getArray() + 1j * imaginary.getArray()
        x = np.concatenate(comm.allgather(own))
        terms = value**2 * M[start:stop] @ x, value * V[start:stop] @ x, K[start:stop] @ x
        off, size = np.abs(sum(terms)).max(initial=0.0), max(np.abs(one).max(initial=0.0) for one in terms)
        assert max(comm.allgather(off)) < 1e-6 * max(comm.allgather(size))
        assert max(comm.allgather(np.abs(own).max(initial=0.0))) == pytest.approx(1.0)


@pytest.mark.essential
@pytest.mark.parametrize("cells", [6, 24])
@pytest.mark.parametrize("place", [0.0, 30j, 200j])
@pytest.mark.parametrize("kind", ["damped", "gyroscopic", "both"])
def test_against_lapack(comm, cells, place, kind):
    K, M = beams(cells)
    C, G = np.zeros_like(K), turning(M, 0.8)
    C[len(K) // 2, len(K) // 2], C[-3, -3] = 0.6, 0.3  # dashpots in one direction
    V = {"damped": C, "gyroscopic": G, "both": C + G}[kind]
    given = (None if kind == "gyroscopic" else C, None if kind == "damped" else sp.csr_matrix(G))
    with sh.damped_modes(K, M, *given, 4, target=place, comm=comm) as found:
        check(found, (K, M, V), by_lapack(K, M, V, place, 4))
        assert found.method == ("lapack" if cells == 6 else "toar")
        assert found.stability.most == 0 and not found.grows.any()
        assert found.count.certified == (kind == "gyroscopic")
        if kind != "gyroscopic":
            assert "no law of inertia" in found.count.reason and found.count.counted is None
        assert (found.damping_ratios >= -1e-12).all()


@pytest.mark.essential
def test_proportional_damping(comm):
    """λ² + (α + β ω²) λ + ω² = 0, of swinging and of overdamped modes."""
    K, M = beams(20)
    alpha, beta = 0.3, 4e-3
    square = scipy.linalg.eigh(K, M, eigvals_only=True)
    with sh.damped_modes(K, M, alpha * M + beta * K, k=5, comm=comm) as found:
        exact = np.concatenate([np.roots([1, alpha + beta * one, one]) for one in square])
        exact = exact[exact.imag >= 0]
        exact = exact[np.argsort(np.abs(exact))][:5]
        np.testing.assert_allclose(found.eigenvalues, exact, rtol=1e-6)
        np.testing.assert_allclose(found.damping_ratios, -exact.real / np.abs(exact), rtol=1e-6)


@pytest.mark.parametrize("damping", [0.0, 0.4, 4.0, 5.0])
def test_one_degree_of_freedom(comm, damping):
    with sh.damped_modes(np.eye(1) * 4, np.eye(1), np.eye(1) * damping, k=2, comm=comm) as found:
        exact = np.roots([1, damping, 4])
        exact = exact[exact.imag >= 0]
        exact = exact[np.argsort(np.abs(exact))]
        assert found.asked == len(exact)
        np.testing.assert_allclose(found.eigenvalues, exact, atol=1e-7)  # twice -2 at 4: a root of rounding
        assert found.count.certified == (damping in (0.0, 5.0))  # the last is overdamped


def test_gyroscopes(comm):
    """Pairs on springs: ω = ±g/2 + (g²/4 + k)^½, each with its own g."""
    n = 80
    k, g = np.linspace(1.0, 5.0, n), np.linspace(0.2, 3.0, n)
    K = sp.diags(np.repeat(k, 2)).tocsr()
    G = sp.block_diag([[[0, one], [-one, 0]] for one in g]).tocsr()
    exact = np.sort(np.concatenate([np.sqrt(g**2 / 4 + k) + g / 2, np.sqrt(g**2 / 4 + k) - g / 2]))
    with sh.damped_modes(K, gyroscopic=G, k=6, comm=comm) as found:
        np.testing.assert_allclose(found.eigenvalues, 1j * exact[:6], rtol=1e-12)
        assert found.whirl == ["backward"] * 6 and found.count.certified and found.count.counted == 6
    near = exact[np.argsort(np.abs(exact - 3.5))][:5]
    with sh.damped_modes(K, gyroscopic=G, k=5, target=-3.5j, comm=comm) as found:
        np.testing.assert_allclose(found.eigenvalues, 1j * np.sort(near), rtol=1e-12)
        assert set(found.whirl) <= {"forward", "backward"} and found.count.certified
    with sh.damped_modes(K, gyroscopic=G, target=3.5j, radius=0.1, comm=comm) as found:
        inside = np.sort(exact[np.abs(exact - 3.5) < 0.1])
        np.testing.assert_allclose(found.eigenvalues, 1j * inside, rtol=1e-12)
        assert found.count.counted == len(inside) == found.asked and found.count.certified


@pytest.mark.essential
def test_equal_modes_are_all_found(comm):
    """A shaft at rest has each mode twice: one vector to start from shows one of them."""
    K, M = beams(30)
    with sh.damped_modes(K, M, k=6, comm=comm) as found:
        exact = np.sqrt(scipy.linalg.eigh(K, M, eigvals_only=True)[:6])
        np.testing.assert_allclose(found.frequencies, exact, rtol=1e-8)
        assert found.count.certified and found.whirl == [""] * 6
    C = 0.01 * M
    with sh.damped_modes(K, M, C, k=6, comm=comm) as found:
        np.testing.assert_allclose(np.abs(found.eigenvalues), exact, rtol=1e-8)


def test_a_count_finds_what_was_missed(comm, monkeypatch):
    K, M = beams(30)
    monkeypatch.setattr("sparsehess.mechanics.mode_search._AGAIN", 0)
    looks = []
    again = ModeSearch.again
    monkeypatch.setattr(ModeSearch, "again", lambda *given: looks.append(again(*given)) or looks[-1])
    with sh.damped_modes(K, M, k=6, comm=comm) as found:
        assert found.count.certified and len(found.eigenvalues) == 6
    monkeypatch.setattr(ModeSearch, "again", lambda *given: 0)
    if any(looks):  # the first search alone misses some
        with pytest.raises(CheckError, match="the inertia counts"):
            sh.damped_modes(K, M, k=6, comm=comm)


def test_singular_mass_and_penalties(comm):
    """Rotations without mass, and a support by 1e30: as without those rows."""
    K, M = beams(24, free=True)
    lumped = np.diag(np.where(np.arange(len(M)) // 2 % 2 == 0, np.abs(M).sum(axis=1), 0.0))
    C = np.zeros_like(K)
    C[-4, -4] = 0.5
    kept = slice(4, None)
    stiff = K.copy()
    stiff[range(4), range(4)] = 1e30
    with (
        sh.damped_modes(stiff, lumped, C, k=4, comm=comm) as found,
        sh.damped_modes(K[kept, kept], lumped[kept, kept], C[kept, kept], k=4, comm=comm) as without,
    ):
        np.testing.assert_allclose(found.eigenvalues, without.eigenvalues, rtol=1e-6)
        assert found.residuals.max() < 1e-8
    with sh.damped_modes(stiff, lumped, gyroscopic=turning(M, 0.5), k=4, comm=comm) as found:
        assert found.count.certified


@pytest.mark.essential
@pytest.mark.parametrize("cells", [8, 30])
def test_rigid_motions(comm, cells):
    """A free beam: four motions, λ = 0 twice for each that nothing damps."""
    K, M = beams(cells, free=True)
    exact = np.sqrt(scipy.linalg.eigh(K, M, eigvals_only=True)[4:8])
    with sh.damped_modes(K, M, k=4, comm=comm) as found:
        assert (found.rigid, found.zeros) == (4, 8) and found.count.certified
        np.testing.assert_allclose(found.frequencies, exact, rtol=1e-6)
    C = np.zeros_like(K)
    C[0, 0] = C[-4, -4] = 0.2  # holds two motions back, in one direction
    with sh.damped_modes(K, M, C, k=5, comm=comm) as found:
        assert (found.rigid, found.zeros) == (4, 6)
        values = by_lapack(K, M, C, 0.0, 30)
        expected = values[np.abs(values) > 1e-3][:5]
        np.testing.assert_allclose(found.eigenvalues, expected, rtol=1e-5)
        assert (found.eigenvalues[:2].imag == 0).all() and found.stability.most == 0


def mixed(*matrices, size=0.1):
    """Return matrices of variables that are mixed."""
    n = len(matrices[0])
    R = np.eye(n) + size * np.random.default_rng(1).standard_normal((n, n)) / np.sqrt(n)
    return [R.T @ one @ R for one in matrices]


@pytest.mark.essential
@pytest.mark.parametrize("cells", [8, 40])
def test_gyroscopically_stabilised(comm, cells):
    """Tops that would fall, and their spin holds up: modes of negative energy are told apart, and counted."""
    stiffness, spin = np.repeat(np.linspace(-0.5, 6.1, cells), 2), np.linspace(3, 1, cells)
    G = scipy.linalg.block_diag(*[[[0, one], [-one, 0]] for one in spin])
    K, G, M = mixed(np.diag(stiffness), G, np.eye(2 * cells))
    K, G, M = K + K.T, G - G.T, M + M.T
    negative = int((stiffness < 0).sum())
    with sh.damped_modes(K, M, gyroscopic=G, k=12, comm=comm) as found:
        check(found, (K, M, G), by_lapack(K, M, G, 0.0, 12))
        assert found.count.certified and found.count.counted == 12 and f"{negative} negative" in found.count.reason
        assert found.stability.most == 0 and not found.grows.any()
    if cells == 40:  # those of negative energy are elsewhere
        with sh.damped_modes(K, M, gyroscopic=G, k=3, target=2.2j, comm=comm) as found:
            assert found.count.how == "none" and "take 0 of them" in found.count.reason
            assert found.stability.most == negative
    few = K - 2.0 * M  # more than the spin holds
    values = by_lapack(few, M, G, 0.0, 4 * cells)
    with sh.damped_modes(few, M, gyroscopic=G, k=4 * cells, comm=comm) as found:
        assert found.method == "lapack" and found.grows.any()
        growing = values[values.real > 1e-6]
        assert found.stability.most == np.where(growing.imag > 0, 2, 1).sum()
        on = values[np.abs(values.real) < 1e-9]
        assert found.count.certified and found.count.counted == len(on)


@pytest.mark.essential
@pytest.mark.parametrize("n", [9, 90])
def test_overdamped(comm, n):
    """All eigenvalues are real where C is much larger than K and M, and counted from either side."""
    stiffness, mass, damping = np.linspace(1, 9, n), np.linspace(1, 2, n), np.linspace(9, 12, n)
    stiffness[2], mass[2], damping[2] = stiffness[1], mass[1], damping[1]  # twice
    K, M, C = mixed(*(np.diag(one) for one in (stiffness, mass, damping)))
    K, M, C = (one + one.T for one in (K, M, C))
    for place in (0.0, -6.0):
        with sh.damped_modes(K, M, C, k=5, target=place, comm=comm) as found:
            np.testing.assert_allclose(found.eigenvalues, by_lapack(K, M, C, place, 5).real, rtol=1e-8)
            assert found.count.line == "real" and found.count.certified and "overdamped" in found.count.reason
    values = by_lapack(K, M, C, -0.5, 2 * n)
    with sh.damped_modes(K, M, C, target=-0.5, radius=0.12, comm=comm) as found:
        inside = int((np.abs(values + 0.5) < 0.12).sum())
        assert len(found.eigenvalues) == found.count.counted == inside and found.count.certified
    with sh.damped_modes(K, M, 0.3 * C, k=2, target=-9.0, comm=comm) as found:  # some swing
        assert found.count.how in ("none", "all")


@pytest.mark.parametrize("cells", [8, 30])
def test_a_free_body_in_a_frame_that_turns(comm, cells):
    """Its motions are no rest there: λ = 0 once for each, and twice the speed."""
    K, M = beams(cells, free=True)
    elastic = np.sqrt(scipy.linalg.eigh(K, M, eigvals_only=True)[4::2])[:2]  # ω² ± 2Ωω = ω₀²
    exact = np.sort(np.concatenate([[0.6, 0.6], *(np.sqrt(elastic**2 + 0.09) + 0.3 * sign for sign in (-1, 1))]))
    with sh.damped_modes(K, M, gyroscopic=turning(M, 0.3), k=5, comm=comm) as found:
        np.testing.assert_allclose(found.eigenvalues, 1j * exact[:5], rtol=1e-6)
        assert (found.rigid, found.zeros) == (4, 4) and found.count.certified


@pytest.mark.parametrize("seed", [0, 1])
def test_what_grows(comm, seed):
    """By the theorem of Kelvin, Tait and Chetaev no more than K has negative eigenvalues; with N any may."""
    rng = np.random.default_rng(seed)
    n = 90
    A, S, D = (rng.standard_normal((n, n)) for _ in range(3))
    K = A @ A.T / n - 0.15 * np.eye(n)
    G, C, M = S - S.T, D @ D.T / n, np.eye(n) + np.diag(rng.random(n))
    negative = int((np.linalg.eigvalsh(K) < 0).sum())
    values = by_lapack(K, M, C + G, 0.0, 2 * n)
    with sh.damped_modes(K, M, C, G, 12, comm=comm) as found:
        check(found, (K, M, C + G), values[:12])
        assert found.stability.most == negative > 0
        assert (found.grows == (values[:12].real > 1e-9)).all()
    below = -np.linalg.solve(M, np.hstack([K, C + G]))
    whole = scipy.linalg.eigvals(np.vstack([np.hstack([np.zeros((n, n)), np.eye(n)]), below]))
    assert int((whole.real > 1e-9).sum()) == negative  # C is definite
    N = 0.3 * (rng.standard_normal((n, n)) - rng.standard_normal((n, n)).T)
    N = N - N.T
    with sh.damped_modes(K, M, C, G, 6, circulatory=N, comm=comm) as found:
        check(found, (K + N, M, C + G), by_lapack(K + N, M, C + G, 0.0, 6))
        assert found.stability.most is None and "N may feed" in found.stability.reason


def test_flutter_is_told(comm):
    """Two modes that a follower force couples: ω² = 1.5 ± (0.25 - ν²)^½, complex beyond ν = 0.5."""
    K, N = np.diag([1.0, 2.0]), np.array([[0.0, 1.0], [-1.0, 0.0]])
    for force, unstable in ((0.4, False), (0.6, True)):
        with sh.damped_modes(K, circulatory=force * N, comm=comm) as found:
            square = 1.5 + np.sqrt(0.25 - force**2 + 0j) * np.array([-1, 1])
            exact = np.sqrt(-square)
            exact = np.where(exact.imag < 0, -exact, exact)
            exact = np.concatenate([exact, -exact.conj()]) if unstable else exact
            for one in exact:
                assert np.abs(found.eigenvalues - one).min() < 1e-7
            assert found.grows.any() == unstable


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"damping": np.array([[0.0, 1.0], [-1.0, 0.0]])}, "give it as gyroscopic"),
        ({"gyroscopic": np.eye(2)}, "give it as damping"),
        ({"damping": np.array([[1.0, 1.0], [0.5, 1.0]])}, r"\(C - C'\)/2, as gyroscopic"),
        ({"gyroscopic": np.array([[1.0, 1.0], [-1.0, 0.0]])}, r"\(G \+ G'\)/2, as damping"),
        ({"gyroscopic": np.array([[0.0, 1.0], [0.0, 0.0]])}, "one triangle T alone: the whole is T - T'"),
        ({"circulatory": np.ones((2, 2))}, "add it to the stiffness"),
        ({"damping": np.array([[np.nan, 0.0], [0.0, 1.0]])}, "not finite"),
        ({"damping": np.eye(3)}, "3 rows"),
        ({"mass": np.diag([1.0, -1.0])}, "positive semidefinite"),
        ({"k": 3, "radius": 1.0}, "leave k out"),
        ({"target": np.inf}, "finite"),
        ({"options": {"pep_ncv": 9}}, "LAPACK solves"),
    ],
)
def test_what_cannot_be_used(comm, given, words):
    with pytest.raises(InputError, match=words):
        sh.damped_modes(np.diag([1.0, 2.0]), comm=comm, **given)


def test_nothing_resists(comm):
    hole = np.diag(np.r_[np.ones(99), 0.0])
    with pytest.raises(InputError, match="null vector in common"):
        v = np.ones((100, 1)) / 10
        P = np.eye(100) - v @ v.T
        sh.damped_modes(P, P, 0.1 * P, comm=comm)
    with sh.damped_modes(hole, hole, 0.2 * hole, k=1, comm=comm) as found:  # a row that is empty in all is held
        np.testing.assert_allclose(found.eigenvalues, np.roots([1, 0.2, 1])[:1], rtol=1e-8)


def test_same_on_any_number_of_ranks(comm):
    K, M = beams(24)
    with sh.damped_modes(K, M, 0.01 * M, turning(M, 0.5), 6, comm=comm) as found:
        single = sh.damped_modes(K, M, 0.01 * M, turning(M, 0.5), 6, comm=comm.Split(comm.rank, 0))
        np.testing.assert_allclose(found.eigenvalues, single.eigenvalues, rtol=1e-8)
        start, stop = found.real[0].getOwnershipRange()
        for real, alone in zip(found.real, single.real, strict=True):
            np.testing.assert_allclose(real.getArray(), alone.getArray()[start:stop], atol=1e-5)
        single.close()


@pytest.mark.essential
@pytest.mark.parametrize("penalty", [1e3, 1e18, 1e26])
def test_penalties_beside_rows_without_a_mass(comm, penalty):
    """Rows without a mass keep their size beside a held one, and no mode is taken for a rigid motion."""
    n = 12
    K = 2.3 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1)
    M = np.diag([0.0] * 6 + [1.0] * (n - 6))
    K[6, 6] += penalty
    C = np.diag(np.linspace(0.1, 0.3, n))
    kept = slice(None) if penalty < 1e6 else np.delete(np.arange(n), 6)
    k, m, c = (one[kept][:, kept] for one in (K, M, C))
    zero, one = np.zeros_like(k), np.eye(len(k))
    pairs = np.block([[zero, one], [-k, -c]]), scipy.linalg.block_diag(one, m)
    top, bottom = scipy.linalg.eig(*pairs, right=False, homogeneous_eigvals=True)
    there = np.abs(bottom) > 1e-10 * np.abs(top)
    exact = top[there] / bottom[there]
    exact = exact[exact.imag > -1e-12]
    exact = exact[np.argsort(np.abs(exact))][:4]
    with sh.damped_modes(K, M, C, k=4, comm=comm) as found:
        np.testing.assert_allclose(found.eigenvalues, exact, rtol=1e-9)
        assert not found.rigid and not found.shortfall


@pytest.mark.essential
@pytest.mark.parametrize("stiff", [1e8, 1e13])
def test_what_feeds_beside_a_stiff_dashpot_grows(comm, stiff):
    """-1 beside a dashpot of 1e13 is lost in the rounding of a row, but what it feeds is not: λ² - λ/2 + 1 = 0."""
    C = np.array([[stiff - 1, -stiff], [-stiff, stiff]])
    with sh.damped_modes(np.eye(2), np.eye(2), C, k=2, comm=comm) as found:
        assert found.eigenvalues[-1] == pytest.approx(0.25 + 1j * np.sqrt(15 / 16), rel=1e-2)
        assert found.grows.tolist() == [False, True] and found.stability.most is None


def test_what_swims_freely_does_not_grow_by_rounding(comm):
    """A free beam beside a pair of springs that feed: two motions are zero twice, to rounding, and do not grow."""
    K, M = (one[::2, ::2] for one in beams(8, free=True))
    n = len(K)
    K, M = (scipy.linalg.block_diag(one, np.diag(pair)) for one, pair in ((K, [40.0, 90.0]), (M, [1.0, 1.0])))
    N = np.zeros((n + 2, n + 2))
    N[-2, -1], N[-1, -2] = 30.0, -30.0
    with sh.damped_modes(K, M, circulatory=N, k=8, comm=comm) as found:
        assert (np.abs(found.eigenvalues) < 1e-3).sum() >= 2
        feeds = np.sqrt(-65 + 1j * np.sqrt(275))  # (40 + s)(90 + s) + 900 = 0, s = λ²
        assert np.abs(found.eigenvalues[found.grows] - feeds) == pytest.approx([0.0], abs=1e-6)


def test_eigenvalues_that_miss_the_tolerance_are_told(comm):
    K, M = beams(6)
    with sh.damped_modes(K, M, 0.1 * M, k=4, tol=1e-30, strict=False, comm=comm) as found:
        assert (
            found.shortfall
            == "0 of 4 modes converged: loosen the tolerance, or give SLEPc a wider subspace (-pep_ncv)"
        )
