"""Index and Newton step of a point against LAPACK and closed forms, on any number of ranks."""

import numpy as np
import pytest

import sparsehess as sh
from sparsehess.errors import InputError

pytestmark = [pytest.mark.parallel([1, 2, 3]), pytest.mark.essential]

N = 24


def coefficients(low):
    """Return cᵢ, of which `low`, far from each other, are negative."""
    c = np.ones(N)
    c[: 6 * low : 6] = -3.0
    return c


def problem(comm, x, low, **more):
    """Return Σ cᵢ xᵢ²/2 + Σ (xᵢ - xᵢ₊₁)²/2 + Σ xᵢ⁴/4, and its gradient."""
    c = coefficients(low)

    def gradient(x):
        g = c * x + x**3
        g[1:] += x[1:] - x[:-1]
        g[:-1] += x[:-1] - x[1:]
        return g

    pattern = sh.Pattern.from_edges([[i, i + 1] for i in range(N - 1)], N, comm=comm)
    return sh.Objective(x=x, gradient=gradient, pattern=pattern, comm=comm, **more), gradient


def dense(x, low):
    H = np.diag(coefficients(low) + 3 * x**2 + 2.0) - np.eye(N, k=1) - np.eye(N, k=-1)
    H[0, 0] -= 1
    H[-1, -1] -= 1
    return H


@pytest.mark.parametrize("low", [0, 1, 2, 4])
@pytest.mark.parametrize("massive", [False, True])
def test_index_directions_and_newton_step(low, massive, comm):
    x = 1e-3 * np.cos(np.arange(N))
    mass = np.linspace(1.0, 4.0, N) if massive else None
    objective, gradient = problem(comm, x, low, mass=mass)
    H, g = dense(x, low), gradient(x)
    scale = np.ones(N) if mass is None else mass**-0.5
    exact, modes = np.linalg.eigh(scale[:, None] * H * scale)
    step = -np.linalg.solve(H, g)
    with sh.stationary_point(objective, step_tol=0.01) as found:
        assert found.certified and found.index == low == np.count_nonzero(exact < 0) and not found.doubt
        np.testing.assert_allclose(found.eigenvalues, exact[: low + 1], atol=1e-6)
        assert found.nearest == pytest.approx(exact[np.abs(exact).argmin()], abs=1e-6)
        assert (
            found.margin > 1e3 and (np.abs(found.eigenvalues - exact[: low + 1]) <= 10 * found.errors + 1e-9).all()
        )
        assert found.step == pytest.approx(np.linalg.norm(step), rel=1e-5)
        assert found.step_max == pytest.approx(np.abs(step).max(), rel=1e-5)
        assert found.energy_change == pytest.approx(0.5 * g @ step, rel=1e-5)
        assert found.gradient == pytest.approx(np.linalg.norm(g)) and found.gradient_max == np.abs(g).max()
        assert found.left == pytest.approx(np.linalg.norm(gradient(x + step)), rel=1e-2, abs=1e-9)
        assert found.stationary and found.is_saddle(low) and not found.is_saddle(low + 1)
        assert ("minimum" if low == 0 else f"saddle point of index {low}") in str(found)
        assert len(found.directions) == low
        for direction, mode in zip(found.directions, modes.T, strict=False):
            whole = np.concatenate(comm.allgather(direction.getArray()))
            assert abs((whole / scale) @ mode) == pytest.approx(1.0, abs=1e-6)


def test_nothing_is_claimed_without_a_tolerance_and_far_from_rest(comm):
    x = 0.4 * np.cos(np.arange(N))
    with sh.stationary_point(problem(comm, x, 1)[0]) as found:
        assert found.certified and found.stationary is None and not found.is_saddle(found.index)
        assert "no stationary point is claimed" in found.verdict and found.facts()["stationary"] is None
    with sh.stationary_point(problem(comm, x, 1)[0], step_tol=1e-3) as found:
        assert found.stationary is False and not found.is_saddle(found.index)
        assert found.verdict.startswith("NOT STATIONARY to 0.001: the Newton step is 0.")


def test_a_step_that_leaves_the_gradient_as_it_is_goes_nowhere(comm):
    # arctan from beyond 1.39: Newton steps go farther and farther away.
    pattern = sh.Pattern.from_edges(np.zeros((0, 2), int), 3, comm=comm)
    objective = sh.Objective(x=np.full(3, 1.5), gradient=np.arctan, pattern=pattern, comm=comm)
    with sh.stationary_point(objective, step_tol=5.0) as found:
        assert found.certified and found.step_max == pytest.approx(3.25 * np.arctan(1.5), rel=1e-5)
        assert found.left > found.gradient and found.stationary is False and "leaves" in found.verdict


def test_flat_directions_are_not_proven(comm):
    objective, _ = problem(comm, np.zeros(N), 0)
    flat = sh.Objective(
        x=np.zeros(N),
        gradient=lambda x: np.r_[0.0, x[1:]] + np.r_[x[0] ** 3, np.zeros(N - 1)],
        pattern=objective.pattern,
        comm=comm,
    )
    with sh.stationary_point(flat, step_tol=1.0) as found:
        assert not found.certified and "zero to" in found.doubt and "not told" in found.verdict
        assert np.isnan(found.step_max) and found.stationary is False and found.facts()["step_max"] is None


def test_noise_that_hides_the_sign_leaves_it_unproven(comm):
    rng = np.random.default_rng(0)
    table = rng.normal(size=N)

    def gradient(x):  # the curvature of the first variable is lost in noise that depends on x alone
        noise = 1e-6 * np.sin(1e9 * (x + table))
        return np.r_[1e-7, np.ones(N - 1)] * x + noise

    pattern = sh.Pattern.from_edges([[i, i + 1] for i in range(N - 1)], N, comm=comm)
    objective = sh.Objective(x=np.zeros(N), gradient=gradient, pattern=pattern, comm=comm)
    with sh.stationary_point(objective, step_tol=1.0, verify=False) as found:
        assert not found.certified and not found.is_saddle(found.index)


def test_null_vectors_are_left_out(comm):
    def gradient(x):  # a ring of springs: a shift of all is free
        return 2 * x - np.roll(x, 1) - np.roll(x, -1) - 2.0 * (x - np.roll(x, N // 2)) * (np.arange(N) % 12 == 0)

    edges = [[i, (i + 1) % N] for i in range(N)] + [[i, i + N // 2] for i in range(N // 2)]
    H = np.array([gradient(row) for row in np.eye(N)]).T
    exact = np.linalg.eigvalsh(H)
    objective = sh.Objective(
        x=np.cos(np.arange(N)) * 1e-5,
        gradient=gradient,
        pattern=sh.Pattern.from_edges(edges, N, comm=comm),
        null_vectors=np.ones((1, N)),
        comm=comm,
    )
    with sh.stationary_point(objective, step_tol=1e-3) as found:
        assert found.certified and found.index == np.count_nonzero(exact < -1e-8) and found.is_saddle(found.index)
        shift = np.cos(np.arange(N)) * 1e-5
        assert found.step == pytest.approx(np.linalg.norm(shift - shift.mean()), rel=1e-4)
    with sh.assemble(objective) as hessian, sh.stationary_point(hessian) as again:
        assert again.index == found.index


@pytest.mark.parametrize(
    ("given", "arguments", "message"),
    [
        (np.eye(3), {}, "takes an Objective or a Hessian, not ndarray"),
        ("chain", {"step_tol": 0.0}, "step_tol"),
        ("chain", {"step_tol": np.nan}, "step_tol"),
        ("energy", {}, "has no gradient"),
        ("null", {}, "2 null vectors span all that may move"),
    ],
)
def test_what_is_refused(given, arguments, message, comm):
    objective, _ = problem(comm, np.zeros(N), 0)
    if isinstance(given, str):
        given = objective
        if message.startswith("2 null"):
            given = sh.Objective(
                x=np.zeros(2),
                gradient=lambda x: 0 * x,
                pattern=sh.Pattern.from_edges(np.array([[0, 1]]), 2, comm=comm),
                projected=lambda x: (np.eye(2), ("one", "other")),
                comm=comm,
            )
        if message.startswith("has"):
            given = sh.Objective(
                x=np.zeros(N), energy=lambda x: float(x @ x), pattern=objective.pattern, comm=comm
            )
    with pytest.raises(InputError, match=message):
        sh.stationary_point(given, **arguments)
