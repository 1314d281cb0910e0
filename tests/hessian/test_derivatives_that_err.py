"""Gradients on which differences go wrong without a word: what is called verified is right, the rest says why."""

import warnings

import numpy as np
import pytest
import scipy.sparse as sp

import sparsehess as sh
from sparsehess.errors import CheckError
from support.cases import frobenius_error

pytestmark = pytest.mark.parallel([1, 2, 3])

N = 30


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        yield


def chain(u):
    """Of Σ u² + u⁴/4 - u_i u_{i+1}."""
    value = 2 * u + u**3
    value[1:] -= u[:-1]
    value[:-1] -= u[1:]
    return value


def chain_hessian(u):
    return sp.diags([2 + 3 * u**2, -np.ones(len(u) - 1), -np.ones(len(u) - 1)], [0, 1, -1], format="csr")


def start(n=N):
    return np.random.default_rng(2).uniform(-1, 1, n)


def objective(comm, gradient, x, **more):
    bonds = np.stack([np.arange(len(x) - 1), np.arange(1, len(x))], axis=1)
    pattern = sh.Pattern.from_edges(bonds, len(x), comm=comm)
    return sh.Objective(x=x, gradient=gradient, pattern=pattern, comm=comm, **more)


def check(comm, gradient, exact, x, most=np.inf, **more):
    """Assemble, and return the Hessian's true error, which is no more than ten times the one that is told."""
    with sh.assemble(objective(comm, gradient, x, **more)) as hessian:
        error = frobenius_error(hessian.mat, exact, comm)
        assert error < 10 * hessian.error and error < most
        return error


def refused(comm, gradient, x, words, **more):
    with pytest.raises(CheckError, match=words):
        sh.assemble(objective(comm, gradient, x, **more))


# --- steps that change nothing ---


@pytest.mark.parametrize(("decimals", "most"), [(3, 3e-2), (4, 3e-3), (5, 1e-3), (6, 1e-4)])
def test_forces_that_are_printed(decimals, most, comm):
    check(comm, lambda u: np.round(chain(u), decimals), chain_hessian(start()), start(), most)


def test_soft_springs_at_rest_whose_forces_are_printed(comm):
    """Zeros to the last decimal, here and farther away: no rows of zeros."""
    soft = np.where(np.arange(60) < 30, 1e-3, 1.0)
    springs = sp.diags([-np.ones(59), 2.5 * np.ones(60), -np.ones(59)], [-1, 0, 1], format="csr")
    refused(comm, lambda u: np.round(soft * (springs @ (soft * (u - 1))), 4), np.ones(60), "does not agree")


@pytest.mark.parametrize(("decimals", "most"), [(3, 0.1), (5, 1e-2)])
def test_positions_that_are_printed(decimals, most, comm):
    check(comm, lambda u: chain(np.round(u, decimals)), chain_hessian(start()), start(), most)


def test_positions_that_are_printed_too_coarsely(comm):
    refused(comm, lambda u: chain(np.round(u, 1)), start(), "round")


@pytest.mark.parametrize(("kind", "most"), [(np.float32, 1e-3), (np.float16, 0.3)])
def test_few_digits(kind, most, comm):
    check(comm, lambda u: chain(u).astype(kind).astype(float), chain_hessian(start()), start(), most)


def test_single_precision_far_from_the_origin(comm):
    """At 1e5 single precision steps by 0.008."""
    away = 1e5 + start()
    springs = sp.diags([-np.ones(N - 1), 2 * np.ones(N), -np.ones(N - 1)], [-1, 0, 1], format="csr")
    check(comm, lambda u: springs @ (u.astype(np.float32).astype(float) - 1e5), springs, away, 0.3)


def test_gradients_that_keep_their_argument(comm):
    last = {}

    def gradient(u):
        if "x" not in last or not np.array_equal(last["x"], u):
            last.update(x=u, value=chain(u))
        return last["value"]

    check(comm, gradient, chain_hessian(start()), start(), 1e-8)


@pytest.mark.parametrize("rounded", [slice(7, 8), slice(0, N, 2)])
def test_rounding_in_some_rows(rounded, comm):
    def gradient(u):
        value = chain(u)
        value[rounded] = np.round(value[rounded], 3)
        return value

    try:
        check(comm, gradient, chain_hessian(start()), start())
    except CheckError as error:
        assert "rounded" in str(error)


def test_rounding_of_one_variable(comm):
    def gradient(u):
        v = u.copy()
        v[7] = np.round(v[7], 3)
        return chain(v)

    refused(comm, gradient, start(), "rounded")


def test_gradients_that_are_rounded_to_whole_numbers(comm):
    """Steps of a variable change nothing: it may be x that is rounded, or the gradient."""
    refused(comm, lambda u: np.round(chain(u)), start(), "the gradient is rounded")


def test_a_lone_variable_that_is_rounded_is_not_free(comm):
    """Its steps change nothing, near or far: longer ones do, all at once."""

    def gradient(u):
        return np.concatenate([chain(u[:-1]), np.round(u[-1:], 3)])

    refused(comm, gradient, np.append(start(N - 1), 0.123456), f"rounded|steps at variable {N - 1}")


def test_a_part_that_is_kept_from_call_to_call(comm):
    """A correction that is computed anew only where x has moved by more than 1e-4. Each rank keeps its own."""
    kept = {}

    def gradient(u):
        if "x" not in kept or np.abs(u - kept["x"]).max() > 1e-4:
            kept.update(x=u.copy(), value=np.convolve(u, [-0.4, 1.0, -0.4], "same"))
        return chain(u) + kept["value"]

    exact = chain_hessian(start()) + sp.diags([-0.4, 1.0, -0.4], [-1, 0, 1], (N, N))
    try:
        check(comm, gradient, exact, start())
        assert comm.size > 1
    except CheckError as error:
        assert "changes by steps" in str(error) or comm.size > 1


# --- NaN, zero and infinity ---


def triple(u):
    """Of Σ u_i u_{i+1} u_{i+2}."""
    value = np.zeros_like(u)
    value[:-2] += u[1:-1] * u[2:]
    value[1:-1] += u[:-2] * u[2:]
    value[2:] += u[:-2] * u[1:-1]
    return value


def triple_hessian(u):
    near = np.zeros(len(u) - 1)
    near[:-1] += u[2:]
    near[1:] += u[:-2]
    return sp.diags([near, near, u[1:-1], u[1:-1]], [1, -1, 2, -2], format="csr")


def test_a_hessian_that_is_zero_at_first(comm):
    first = np.arange(N)
    pairs = np.concatenate([np.stack([first[:-d], first[d:]], axis=1) for d in (1, 2)])
    pattern = sh.Pattern.from_edges(pairs, N, comm=comm)
    given = sh.Objective(x=np.zeros(N), gradient=triple, pattern=pattern, comm=comm)
    with sh.assemble(given) as hessian:
        assert hessian.mat.norm() < 1e-8 and np.isfinite(hessian.error)
        x = 1 + 0.1 * start()
        hessian.update(x)
        assert frobenius_error(hessian.mat, triple_hessian(x), comm) < 1e-8
        hessian.update(np.zeros(N))
        assert hessian.mat.norm() < 1e-8


@pytest.mark.parametrize("power", [3, 5])
def test_a_minimum_that_is_flat(power, comm):
    with sh.assemble(objective(comm, lambda u: u**power, np.zeros(N))) as hessian:
        assert hessian.mat.norm() < 1e-10 and np.isfinite(hessian.error)
        found = sh.inertia(hessian)
        assert (found.negative, found.zero, found.positive) == (0, N, 0)


def test_some_directions_that_are_flat(comm):
    """x⁴ beside x²: what is all error is zero."""
    even = np.arange(N) % 2 == 0
    with sh.assemble(objective(comm, lambda u: np.where(even, 4 * u**3, 2 * u), np.zeros(N))) as hessian:
        found = sh.inertia(hessian)
        assert (found.negative, found.zero, found.positive) == (0, N // 2, N // 2)


def test_a_gradient_that_never_changes(comm):
    slopes = np.arange(N) + 0.3
    with sh.assemble(objective(comm, lambda u: slopes, start())) as hessian:
        assert hessian.mat.norm() == 0 and hessian.error == 0


def test_coordinates_beside_which_steps_are_nothing(comm):
    springs = sp.diags([-np.ones(N - 1), 2 * np.ones(N), -np.ones(N - 1)], [-1, 0, 1], format="csr")
    refused(comm, lambda u: springs @ u, 1e16 * (1 + start() / 2), "double precision steps by .* too coarse")


def test_a_gradient_that_overflows_nearby(comm):
    def gradient(u):
        with np.errstate(over="ignore"):
            return np.exp(1e6 * (u - start())) + u

    check(comm, gradient, sp.identity(N) * (1e6 + 1), start(), 1e-5)


# --- lengths ---


def barrier(u, mu):
    return chain(u) - mu / u


@pytest.mark.parametrize("bounds", [None, (0.0, np.inf)])
@pytest.mark.parametrize(("near", "mu"), [(1e-6, 1e-8), (1e-4, 1e-3), (1e-9, 1e-12)])
def test_one_variable_near_its_barrier(near, mu, bounds, comm):
    x = 1 + 0.2 * start(300)
    x[17] = near

    def gradient(u):
        assert bounds is None or (u > 0).all()
        return barrier(u, mu)

    exact = chain_hessian(x) + sp.diags(mu / x**2)
    with sh.assemble(objective(comm, gradient, x, bounds=bounds)) as hessian:
        error = frobenius_error(hessian.mat, exact, comm)
        assert error < 1e-4 and error < 10 * hessian.error


@pytest.mark.parametrize("seed", range(4))
def test_units_of_their_own(seed, comm):
    """f(x / s), the scales s from 10⁻⁶ to 10⁶: right in each variable's own units, or refused for its length."""
    scale = 10.0 ** np.random.default_rng(seed).uniform(-6, 6, N)
    u, units = start(), sp.diags(scale)
    try:
        with sh.assemble(objective(comm, lambda x: chain(x / scale) / scale, u * scale)) as hessian:
            indptr, columns, values = hessian.mat.getValuesCSR()
            rows = comm.allgather(sp.csr_matrix((values, columns, indptr), (len(indptr) - 1, N)))
            off = abs(units @ sp.vstack(rows) @ units - chain_hessian(u)).max()
            assert off < 1e-2
    except CheckError as error:
        assert "length" in str(error) or "noise" in str(error)


def test_lengths_that_are_told_are_used(comm):
    scale = 10.0 ** np.random.default_rng(0).uniform(-6, 6, N)
    units = sp.diags(1 / scale)
    exact = units @ chain_hessian(start()) @ units
    check(comm, lambda x: chain(x / scale) / scale, exact, start() * scale, 1e-8, typical_x=scale)


def test_all_variables_at_their_bounds(comm):
    check(comm, lambda u: u**3, 3 * sp.identity(N), np.ones(N), 1e-6, bounds=(-np.inf, 1.0))


def test_a_short_ripple_beside_long_variables(comm):
    """What one variable does over 1e-7 is no noise: it is followed, or its length is asked for."""
    x, length = start(), 1e-7
    one = np.eye(N)[5]

    def gradient(u):
        return chain(u) - 5 * length * np.sin((u - x) / length + 0.3) * one

    try:
        check(comm, gradient, chain_hessian(x) - sp.diags(5 * np.cos(0.3) * one), x, 1e-4)
    except CheckError as error:
        assert "shorter length (tell typical_x" in str(error)


def test_a_kink_at_x_has_no_hessian(comm):
    x = start()
    refused(comm, lambda u: chain(u) + np.maximum(u - x, 0) * np.eye(N)[4], x, "kink at x in variable 4|kink")


# --- noise ---


def test_noise_that_begins_later(comm):
    """At the first point there was none: it is measured again before anything else is blamed."""
    level, random = [0.0], np.random.default_rng(0)

    def gradient(u):
        return chain(u) + level[0] * random.standard_normal(N)

    with sh.assemble(objective(comm, gradient, start())) as hessian:
        level[0] = 1e-6
        hessian.update(0.9 * start())
        assert hessian.repaired == 0
        error = frobenius_error(hessian.mat, chain_hessian(0.9 * start()), comm)
        assert error < 1e-2 and error < 10 * hessian.error


def test_noise_that_leaves_nothing(comm):
    random = np.random.default_rng(0)
    refused(comm, lambda u: chain(u) + 3.0 * random.standard_normal(N), start(), "noise|other values")


def test_a_row_that_is_lost_in_noise_is_named(comm):
    random = np.random.default_rng(0)

    def gradient(u):
        value = chain(u)
        value[11] += 100 * random.standard_normal()
        return value

    refused(comm, gradient, start(), "noise|variable 1[012]|other values")


@pytest.mark.parallel([1])
def test_noise_names_no_couplings(comm):
    random, calls = np.random.default_rng(0), [0]

    def gradient(u):
        calls[0] += 1
        return chain(u) + 1e-2 * (calls[0] > 7) * random.standard_normal(N)

    with pytest.raises(CheckError) as caught:
        sh.assemble(objective(comm, gradient, start()))
    assert "pattern is too small" not in str(caught.value)


def test_energies_that_are_rounded_are_no_constants(comm):
    def energy(u):
        return round(float((u**2).sum() + (u**4).sum() / 4 - (u[1:] * u[:-1]).sum()), 2)

    with pytest.raises(CheckError, match=r"energy.*rounded"):
        sh.assemble(objective(comm, None, start(8), energy=energy))
