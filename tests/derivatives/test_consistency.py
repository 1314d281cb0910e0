"""Functions that do not belong together are refused, in words; those that do are not, whatever they are like."""

from dataclasses import dataclass

import numpy as np
import pytest

import sparsehess as sh
from sparsehess.derivatives.consistency import check_consistency, least_calls
from sparsehess.errors import CheckError, EvaluationError
from support.smooth_functions import FUNCTIONS

pytestmark = pytest.mark.parallel([1, 2, 3])

N = 300


@dataclass
class Chain:
    """Unharmonic springs between neighbours, each held in a wavy well; u = x / scale."""

    scale: np.ndarray

    def energy(self, x):
        u = x / self.scale
        stretch = np.diff(u)
        return float((stretch**2 / 2 + stretch**4 / 4).sum() + (u**4 / 4 + np.cos(u)).sum())

    def gradient(self, x):
        u = x / self.scale
        stretch = np.diff(u)
        return spread(stretch + stretch**3, u**3 - np.sin(u)) / self.scale

    def hvp(self, x, v):
        u, w = x / self.scale, v / self.scale
        return spread((1 + 3 * np.diff(u) ** 2) * np.diff(w), (3 * u**2 - np.cos(u)) * w) / self.scale


def spread(forces, own):
    out = own.copy()
    out[1:] += forces
    out[:-1] -= forces
    return out


@pytest.fixture
def chain():
    return Chain(np.ones(N))


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=N)


def noisy(function, size, seed=1):
    """Return the function with noise that depends on its argument alone, as on every rank."""

    def value(x, *more):
        exact = function(x, *more)
        digest = int(np.frombuffer(np.ascontiguousarray(x).tobytes(), np.uint64).sum(dtype=np.uint64))
        return exact + size * np.random.default_rng([seed, digest]).normal(size=np.shape(exact))

    return value


def in_single(function):
    return lambda x: function(x.astype(np.float32)).astype(np.float32)


def wrong(function, rows, factor):
    """Return products of which some rows are wrong by a factor."""

    def product(x, v):
        out = np.array(function(x, v))
        out[rows] *= factor
        return out

    return product


def test_costs_two_calls_of_each(chain, x, comm):
    gradient, hvp, energy = chain.gradient, chain.hvp, chain.energy
    cases = [
        ({"gradient": gradient, "hvp": hvp}, 3),
        ({"gradient": gradient, "energy": energy}, 4),
        ({"gradient": gradient, "hvp": hvp, "energy": energy}, 5),
        ({"hvp": hvp, "energy": energy}, 4),
        ({"hvp": hvp}, 0),
        ({"gradient": gradient}, 0),
        ({"energy": energy}, 0),
    ]
    for functions, calls in cases:
        objective = sh.Objective(x=x, comm=comm, **functions)
        assert check_consistency(objective) == calls == least_calls(objective)


@pytest.mark.parametrize("size", [1e-12, 1e-8, 1e-5, 1e-3, 0.1])
def test_noise_is_no_contradiction(size, chain, x, comm):
    gradient, energy = noisy(chain.gradient, size), noisy(chain.energy, size)
    for seed in range(5):
        check_consistency(sh.Objective(x=x, gradient=gradient, hvp=chain.hvp, energy=energy, comm=comm), seed=seed)
        check_consistency(sh.Objective(x=x, hvp=chain.hvp, energy=energy, comm=comm), seed=seed)
    tiny = Chain(10.0 ** np.linspace(-6, 6, N))
    relative = noisy(lambda u: np.ones(N), size)
    objective = sh.Objective(
        x=x * tiny.scale, gradient=lambda u: tiny.gradient(u) * relative(u), hvp=tiny.hvp, comm=comm
    )
    check_consistency(objective)


@pytest.mark.parametrize("decimals", [6, 4, 3, 2])
def test_rounding_is_no_contradiction(decimals, chain, x, comm):
    def rounded(u):
        return np.round(chain.gradient(u), decimals)

    def from_rounded(u):
        return chain.gradient(np.round(u, decimals))

    for gradient in (rounded, from_rounded):
        for energy in (None, lambda u: round(chain.energy(u), decimals)):
            check_consistency(sh.Objective(x=x, gradient=gradient, hvp=chain.hvp, energy=energy, comm=comm))
    # All are soft, and some so soft that they do not change at all in the digits that are given.
    weights = 10.0 ** np.linspace(-8, 0, N)
    objective = sh.Objective(
        x=x, gradient=lambda u: np.round(weights * u, decimals), hvp=lambda u, v: weights * v, comm=comm
    )
    check_consistency(objective)


def test_single_precision_is_no_contradiction(chain, x, comm):
    objective = sh.Objective(
        x=x, gradient=in_single(chain.gradient), hvp=chain.hvp,
        energy=lambda u: np.float32(chain.energy(u.astype(np.float32))), comm=comm,
    )  # fmt: skip
    check_consistency(objective)
    far = sh.Objective(
        x=x + 1e5, gradient=lambda u: in_single(chain.gradient)(u.astype(np.float32) - np.float32(1e5)),
        hvp=lambda u, v: chain.hvp(u - 1e5, v), comm=comm,
    )  # fmt: skip
    check_consistency(far)
    exact = sh.Objective(x=x, gradient=chain.gradient, hvp=chain.hvp, comm=comm)
    with sh.MatrixFree(exact, precision="single") as shell:
        assert shell.evaluations["verification"] == 3
    half = sh.Objective(x=x, gradient=chain.gradient, hvp=lambda u, v: 0.5 * chain.hvp(u, v), comm=comm)
    with pytest.raises(CheckError, match=r"are 0\.5 times what its differences say"):
        sh.MatrixFree(half, precision="single")


@pytest.mark.parametrize("size", [1e-7, 1e-5])
def test_noise_of_products_is_no_contradiction_where_they_vanish(size, x, comm):
    """Of every third row nothing is left but what last digits of others make of it."""
    stiff = np.where(np.arange(N) % 3 == 0, 0.0, 1.0)
    product = noisy(lambda u, v: stiff * v, size)
    functions = {"gradient": lambda u: stiff * u + 1e-9 * u, "comm": comm}
    for seed in range(3):
        check_consistency(sh.Objective(x=x, hvp=product, **functions), seed=seed)
    for factor in (0.97, -1.0, 0.0):
        with pytest.raises(CheckError, match=r"in 1 of .*variable 7:"):
            check_consistency(sh.Objective(x=x, hvp=wrong(product, [7], factor), **functions))
    with pytest.raises(CheckError, match=r"in 1 of .*variable 9:"):
        check_consistency(
            sh.Objective(x=x, hvp=lambda u, v: product(u, v) + 100 * size * v * (np.arange(N) == 9), **functions)
        )


def test_scales_are_no_contradiction(x, comm):
    mixed = Chain(10.0 ** np.random.default_rng(1).uniform(-6, 6, N))
    for point in (x * mixed.scale, np.zeros(N)):
        functions = {"gradient": mixed.gradient, "hvp": mixed.hvp, "energy": mixed.energy}
        check_consistency(sh.Objective(x=point, comm=comm, **functions))
    for row in (0, int(mixed.scale.argmin()), int(mixed.scale.argmax())):
        objective = sh.Objective(
            x=x * mixed.scale, gradient=mixed.gradient, hvp=wrong(mixed.hvp, [row], 0.9), comm=comm
        )
        with pytest.raises(CheckError, match=rf"0\.9 times .* in 1 of {N} rows at least \(variable {row}:"):
            check_consistency(objective)


@pytest.mark.parametrize(
    ("gradient", "hvp", "energy"),
    [
        (lambda x: x**3, lambda x, v: 3 * x**2 * v, lambda x: float((x**4).sum() / 4)),
        (np.ones_like, lambda x, v: 0 * v, lambda x: float(x.sum())),
        (np.zeros_like, lambda x, v: 0 * v, lambda x: 3.0),
        (lambda x: x, lambda x, v: v, lambda x: float(x @ x) / 2),
        (lambda x: np.maximum(x, 0), lambda x, v: (x > 0) * v, lambda x: float((np.maximum(x, 0) ** 2).sum() / 2)),
        (np.abs, lambda x, v: np.sign(x) * v, lambda x: float((x * np.abs(x)).sum() / 2)),
        (
            lambda x: (
                np.roll(x, 1) * np.roll(x, 2) + np.roll(x, 1) * np.roll(x, -1) + np.roll(x, -1) * np.roll(x, -2)
            ),
            lambda x, v: 0 * v,
            None,
        ),
    ],
    ids=["quartic", "linear", "constant", "quadratic", "half a parabola", "x |x|", "triples"],
)
def test_zero_is_an_ordinary_point(gradient, hvp, energy, comm):
    objective = sh.Objective(x=np.zeros(12), gradient=gradient, hvp=hvp, energy=energy, comm=comm)
    for seed in range(5):
        check_consistency(objective, seed=seed)
    check_consistency(
        sh.Objective(x=np.full(12, 1e16), gradient=lambda x: x - 1e16, hvp=lambda x, v: v, comm=comm)
    )


@pytest.mark.parametrize("precision", [np.float64, np.float32])
@pytest.mark.parametrize(("samples", "width"), [(10, 5), (200, 40), (5000, 20)])
def test_kinks_are_no_contradiction(precision, samples, width, comm):
    """Differences over many kinks of a network with ReLU are not what its products are, nor need they be."""
    rng = np.random.default_rng(1)
    data, target = rng.normal(size=(samples, 4)).astype(precision), rng.normal(size=samples).astype(precision)

    def split(values):
        return values[: 4 * width].reshape(4, width).astype(precision), values[4 * width :].astype(precision)

    def gradient(x):
        first, last = split(x)
        before = data @ first
        active, hidden = before > 0, np.maximum(before, 0)
        residual = hidden @ last - target
        return (
            np.concatenate([(data.T @ (active * residual[:, None] * last)).ravel(), hidden.T @ residual]) / samples
        )

    def hvp(x, v):
        (first, last), (d_first, d_last) = split(x), split(v)
        before = data @ first
        active, hidden = before > 0, np.maximum(before, 0)
        residual, d_hidden = hidden @ last - target, active * (data @ d_first)
        d_residual = d_hidden @ last + hidden @ d_last
        slopes = d_residual[:, None] * last + residual[:, None] * d_last
        out = [(data.T @ (active * slopes)).ravel(), d_hidden.T @ residual + hidden.T @ d_residual]
        return np.concatenate(out) / samples

    x = rng.normal(size=5 * width) / np.sqrt(width)
    for seed in range(3):
        check_consistency(sh.Objective(x=x, gradient=gradient, hvp=hvp, comm=comm), seed=seed)
    half = sh.Objective(x=x, gradient=gradient, hvp=lambda u, v: 0.5 * hvp(u, v), comm=comm)
    with pytest.raises(CheckError, match="contradict its gradient"):
        check_consistency(half)


@pytest.mark.parametrize("near", [1e-3, 1e-6, 1e-9])
@pytest.mark.filterwarnings("ignore:.*encountered in.*:RuntimeWarning")
def test_a_barrier_is_no_contradiction(near, comm):
    x = np.ones(N)
    x[7] = near
    functions = {
        "gradient": lambda u: u - 1e-3 / u,
        "hvp": lambda u, v: (1 + 1e-3 / u**2) * v,
        "energy": lambda u: float((u**2 / 2 - 1e-3 * np.log(u)).sum()),
    }
    for bounds in (None, (0.0, np.inf)):
        check_consistency(sh.Objective(x=x, bounds=bounds, comm=comm, **functions))
        half = functions | {"hvp": wrong(functions["hvp"], [7], 0.5), "energy": None}
        with pytest.raises(CheckError, match=r"0\.5 times .* \(variable 7:"):
            check_consistency(sh.Objective(x=x, bounds=bounds, comm=comm, **half))


def test_no_function_is_called_beyond_bounds(chain, x, comm):
    point = np.clip(x, -0.5, 0.5)

    def inside(function):
        def called(u, *more):
            assert (u >= -0.5).all() and (u <= 0.5).all()
            return function(u, *more)

        return called

    functions = {name: inside(getattr(chain, name)) for name in ("gradient", "hvp", "energy")}
    check_consistency(sh.Objective(x=point, bounds=(-0.5, 0.5), comm=comm, **functions))
    functions["hvp"] = inside(lambda u, v: 0.5 * chain.hvp(u, v))
    with pytest.raises(CheckError, match=r"0\.5 times"):
        check_consistency(sh.Objective(x=point, bounds=(-0.5, 0.5), comm=comm, **functions))
    narrow = sh.Objective(
        x=np.zeros(9), gradient=lambda u: u + u**3, hvp=lambda u, v: 0.5 * v, bounds=(-1e-8, 1e-8), comm=comm
    )
    with pytest.raises(CheckError, match=r"0\.5 times"):
        check_consistency(narrow)


@pytest.mark.parametrize("noise", [0.0, 1e-8, 1e-5])
def test_products_of_another_function(noise, chain, x, comm):
    gradient = noisy(chain.gradient, noise)
    cases = [
        (lambda u, v: 0.5 * chain.hvp(u, v), r"0\.[45]\d* times .*lacks a factor, or terms"),
        (lambda u, v: -chain.hvp(u, v), r"-1\S* times .*wrong sign \(forces"),
        (lambda u, v: 0 * v, "0 times .*cuts the second derivative off"),
        (wrong(chain.hvp, [5], 0.0), rf"0 times .* in 1 of {N} rows at least \(variable 5:.*cuts"),
        (wrong(chain.hvp, [5, 200], 1.05), rf"1\.0\d* times .* in [12] of {N} rows"),
        (wrong(chain.hvp, np.arange(N), np.linspace(0, 3, N)), "not what .*terms are lost"),
    ]
    for hvp, words in cases:
        with pytest.raises(CheckError, match="products .hvp. of objective contradict its gradient: .*" + words):
            check_consistency(sh.Objective(x=x, gradient=gradient, hvp=hvp, comm=comm))


def test_gradients_that_do_not_change(chain, x, comm):
    def lost(u):
        out = chain.gradient(u)
        out[33] = 1.0
        return out

    there = chain.gradient(x)
    for gradient, variable in ((lost, "variable 33:"), (lambda u: there, ""), (lambda u: 0 * u, "")):
        with pytest.raises(CheckError, match=rf"not what .*{variable}.*the gradient does not change there"):
            check_consistency(sh.Objective(x=x, gradient=gradient, hvp=chain.hvp, comm=comm))


@pytest.mark.parametrize("noise", [0.0, 1e-8, 1e-5])
def test_energies_of_another_function(noise, chain, x, comm):
    energy = noisy(chain.energy, noise)
    forces = sh.Objective(x=x, gradient=lambda u: -chain.gradient(u), energy=energy, comm=comm)
    with pytest.raises(CheckError, match=r"contradicts its energy: .*give minus the forces"):
        check_consistency(forces)
    half = sh.Objective(x=x, gradient=chain.gradient, energy=lambda u: 0.5 * energy(u), comm=comm)
    with pytest.raises(CheckError, match=r"contradicts its energy: .* 2\d*\.?\d* times that"):
        check_consistency(half)
    products = sh.Objective(x=x, hvp=lambda u, v: 0.5 * chain.hvp(u, v), energy=energy, comm=comm)
    with pytest.raises(CheckError, match="contradict its energy"):
        check_consistency(products)
    stored = sh.Objective(x=x, gradient=chain.gradient, energy=lambda u: 3.0, comm=comm)
    with pytest.raises(CheckError, match="the energy does not change there"):
        check_consistency(stored)


def test_forces_at_rest(comm):
    """Where the gradient is zero, its slope is, too, and the energy tells by its curvature."""
    springs = np.linspace(1.0, 9.0, 40)
    objective = sh.Objective(
        x=np.zeros(40), gradient=lambda u: -springs * u, energy=lambda u: float(springs @ u**2) / 2, comm=comm
    )
    with pytest.raises(CheckError, match=r"curvature of .*give minus the forces"):
        check_consistency(objective)


def test_every_product_is_compared(chain, x, comm):
    def batch(u, V):
        return np.array([chain.hvp(u, v) for v in V])

    def half(u, V):
        return 0.5 * batch(u, V)

    good = {"gradient": chain.gradient, "hvps": batch, "hvp": chain.hvp, "batch": 4, "comm": comm}
    assert check_consistency(sh.Objective(x=x, **good)) == 4
    with pytest.raises(CheckError, match=r"products \(hvps\)"):
        check_consistency(sh.Objective(x=x, **good | {"hvps": half}))
    with pytest.raises(CheckError, match=r"products \(hvp\)"):
        check_consistency(sh.Objective(x=x, **good | {"hvp": lambda u, v: 0.5 * chain.hvp(u, v)}))


@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_layouts_of_work(factor, comm):
    """Vectors of PETSc, groups of ranks that have them, and sums over ranks are compared alike."""
    function = FUNCTIONS["broyden_banded"](60)

    def on_vectors(comm):
        from sparsehess.runtime import PETSc

        start = PETSc.Vec().createMPI(60, comm=comm)
        first, last = start.getOwnershipRange()
        start.setArray(function.x[first:last])

        def whole(vector):
            return np.concatenate(comm.allgather(vector.getArray().copy()))

        def gradient(u, g):
            g.setArray(function.gradient(whole(u))[first:last])

        def hvp(u, v, y):
            y.setArray(factor * (function.hessian(whole(u)) @ whole(v))[first:last])

        return sh.Objective(x=start, gradient=gradient, hvp=hvp, energy=lambda u: function.energy(whole(u)))

    def share(x):
        return function.gradient(x) / comm.size

    summed = sh.Objective(
        x=function.x, gradient=share, hvp=lambda x, v: factor / comm.size * (function.hessian(x) @ v),
        energy=lambda x: function.energy(x) / comm.size, summed=True, comm=comm,
    )  # fmt: skip
    objectives = [on_vectors(comm), summed]
    objectives += [sh.Objective.in_groups(on_vectors, groups, comm) for groups in range(1, comm.size + 1)]
    for objective in objectives:
        if factor == 1.0:
            assert check_consistency(objective) == 5
        else:
            with pytest.raises(CheckError, match=r"are 0\.5 times what its differences say"):
                check_consistency(objective)


def test_what_is_asked_for(chain, x, comm):
    """Assembly and shells compare where checks are asked for, a shell at its first point alone."""
    edges = [[i, i + 1] for i in range(N - 1)]
    more = {"pattern": sh.Pattern.from_edges(edges, N, comm=comm), "comm": comm}
    half = sh.Objective(x=x, gradient=chain.gradient, hvp=lambda u, v: 0.5 * chain.hvp(u, v), **more)
    for make in (sh.assemble, sh.MatrixFree):
        with pytest.raises(CheckError, match="contradict its gradient"):
            make(half)
        make(half, verify=False).close()
    good = sh.Objective(x=x, gradient=chain.gradient, hvp=chain.hvp, energy=chain.energy, **more)
    with sh.MatrixFree(good) as shell:
        shell.update(x + 0.1)
        assert shell.evaluations["verification"] == 5
    with sh.assemble(good) as hessian:
        assert hessian.evaluations["verification"] == 5 + 1


def test_functions_that_end_within_the_steps(x, comm):
    """A step that leaves the domain of a function is no answer; where all do, what was raised is told."""

    def raising(limit):
        def gradient(u):
            if np.abs(u - x).max() > limit:
                raise ValueError("too far")
            return u

        return gradient

    check_consistency(sh.Objective(x=x, gradient=raising(1e-4), hvp=lambda u, v: v, comm=comm))
    with pytest.raises(CheckError, match=r"0\.5 times"):
        check_consistency(sh.Objective(x=x, gradient=raising(1e-4), hvp=lambda u, v: 0.5 * v, comm=comm))
    with pytest.raises(EvaluationError, match="too far"):
        check_consistency(sh.Objective(x=x, gradient=raising(0.0), hvp=lambda u, v: v, comm=comm))
    with pytest.raises(CheckError, match="not finite"):
        check_consistency(sh.Objective(x=x, gradient=lambda u: u, hvp=lambda u, v: np.nan * v, comm=comm))
    with pytest.raises(CheckError, match="not finite"):
        check_consistency(sh.Objective(x=x, gradient=lambda u: u, energy=lambda u: np.nan, comm=comm))
