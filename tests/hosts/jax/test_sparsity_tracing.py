"""Patterns of JAX functions by tracing, against dense Hessians; what cannot be traced is told and probed."""

import logging
import sys
from importlib.machinery import ModuleSpec
from types import SimpleNamespace

import numpy as np
import pytest

import sparsehess as sh
from sparsehess.errors import EvaluationError
from sparsehess.hosts.jax.features import double_precision
from sparsehess.hosts.jax.sparsity_tracing import trace_sparsity

jax = pytest.importorskip("jax")
jnp = jax.numpy

PAIRS = np.array([[0, 1], [2, 3], [1, 4], [4, 2]])
FREE = np.array([1, 2, 3, 4, 6, 7, 8, 9, 11, 12])
BAND = np.diag(np.ones(10)) + np.diag(np.ones(9), 1)
MASK = np.arange(10) % 3 != 0
WINDOW = np.array([[1.0, 0.0], [-2.0, 3.0], [0.0, 1.0]])


def springs(x):
    places = x.reshape(5, 2)
    return jnp.sum((jnp.linalg.norm(places[PAIRS[:, 0]] - places[PAIRS[:, 1]], axis=1) - 1) ** 2)


def surface(x):
    u = jnp.pad(x.reshape(2, 5), 1)
    return jnp.sum(jnp.sqrt(1 + (u[1:, :-1] - u[:-1, :-1]) ** 2 + (u[:-1, 1:] - u[:-1, :-1]) ** 2))


def strided(x):
    window = np.ones((3, 1, 2)) * np.arange(3)[:, None, None]
    return jnp.sum(jax.lax.conv_general_dilated(x.reshape(1, 1, 10), window, (2,), ((-1, 2),), (2,), (3,)) ** 3)


TRACED = {  # functions of ten variables
    "springs": springs,
    "surface": surface,
    "a matrix with zeros": lambda x: jnp.sum(jnp.tanh(BAND @ x) ** 2),
    "products": lambda x: jnp.sum(jnp.sin(jnp.einsum("bij,bkj->bik", *[x[:8].reshape(2, 2, 2)] * 2))),
    "fixed variables": lambda x: jnp.sum(jnp.diff(jnp.zeros(14).at[FREE].set(x)) ** 4),
    "a mask": lambda x: jnp.sum((MASK * x)[1:] ** 2 * x[:-1]),
    "branches that are known": lambda x: jnp.sum(jnp.where(MASK, x**3, jnp.roll(x, 1) * x)),
    "branches that are not": lambda x: jnp.sum(jnp.where(x > 0, x**4, x[::-1] * x)),
    "sums": lambda x: jnp.sum(jax.ops.segment_sum(x**2, np.arange(10) // 2, 5) ** 2) + jnp.prod(x[:3]),
    "steps": lambda x: jnp.sum(jnp.floor(x) * x**2 + jnp.sign(x) * x),
    "one at a time": lambda x: jnp.sum(jax.vmap(lambda i: jnp.sin(x[i]) * x[i + 1])(jnp.arange(5))),
    "overwritten": lambda x: jnp.sum(x.at[2].set(0.0)[1:] ** 2 * x.at[3].add(1.0)[:-1]),
    "shifted": lambda x: jnp.sum(jax.lax.dynamic_update_slice(jnp.zeros(12), x**2, (1,)) ** 2),
    "turned": lambda x: jnp.sum(jnp.concatenate([x.reshape(2, 5).T, jnp.ones((1, 2))])[::-1].prod(axis=1)),
    "checkpoint": jax.checkpoint(lambda x: jnp.sum(jax.nn.softplus(x[1:] * x[:-1]))),
    "a convolution": lambda x: jnp.sum(jax.scipy.signal.convolve2d(x.reshape(5, 2), WINDOW, mode="same") ** 3),
    "a strided convolution": strided,
    "a line": lambda x: jnp.sum(3 * x),
    "axes of length 1": lambda x: jnp.sum(jnp.sin(x[:3].reshape(3, 1) * x[3:9].reshape(3, 2))),
    "a mask of one axis": lambda x: jnp.sum((MASK[:5, None] * x.reshape(5, 2)) ** 3),
    "repeated": lambda x: jnp.sum(jnp.stack([x, x[::-1]], 1) * jnp.tile(x[:5], 4).reshape(10, 2)),
    "taken apart": lambda x: sum(row @ row[::-1] for row in x.reshape(2, 5)),
    "a derivative of its own": lambda x: jnp.sum(softplus(x[1:] * x[:-1])),
    "a derivative that is not that of the value": lambda x: jnp.sum(x[1:] * rounded(x[:-1])),
    "a gradient of its own": lambda x: jnp.sum(sine(x[1:] * x[:-1])),
    "half precision": lambda x: (x.astype(jnp.bfloat16) ** 2).astype(float) @ x[::-1],
    "random numbers": lambda x: jnp.sum(x[1:] * x[:-1] * jax.random.normal(jax.random.key(0), (9,))),
    "moved at random": lambda x: jnp.sum(x[jax.random.permutation(jax.random.key(0), 10)][:3] ** 3),
    "special functions": lambda x: jnp.sum(jax.scipy.special.gammainc(2.0, x[1:] ** 2 + 1) * x[:-1]),
    "running sums": lambda x: jnp.sum(jnp.cumsum(x)[:4] ** 2) + jnp.sum(jax.lax.cumsum(x, reverse=True)[7:] ** 3),
    "running products": lambda x: jnp.sum(jnp.cumprod(x[:4])),
    "waves": lambda x: jnp.sum(jnp.abs(jnp.fft.rfft(x.reshape(2, 5))[0] + 3) ** 3),
    "waves across": lambda x: jnp.sum(jnp.abs(jnp.fft.fft(x.reshape(2, 5), axis=0) + 3) ** 3),
    "complex numbers": lambda x: jnp.sum(jnp.abs((x[:5] + 1j * x[5:]) ** 2) ** 2),
    "eigenvalues": lambda x: jnp.sum(jnp.linalg.eigvalsh(pair(x))[:, 0]),
    "factors": lambda x: jnp.sum(jnp.linalg.cholesky(9 * jnp.eye(2) + pair(x) @ pair(x).mT)),
    "steps in time": lambda x: swing(x[:5]) + x[5] ** 2,
    "steps in steps": lambda x: sum_along(lambda row: sum_along(lambda y: y**2 * row[0], row), x.reshape(5, 2)),
    "steps that are remembered": lambda x: sum_along(jax.checkpoint(jnp.prod), x.reshape(2, 5)),
    "a product step by step": lambda x: jax.lax.scan(lambda c, y: (jnp.sin(c * y), None), 1.0, x[:4])[0],
    "a loop over places": lambda x: jax.lax.fori_loop(0, 9, lambda i, e: e + (x[i] * x[i + 1]) ** 2, 0.0),
    "a loop that is known": lambda x: x[:5] @ x[5:] * jax.lax.while_loop(lambda k: k < 5, lambda k: k + 2, 1.0),
    "one of two": lambda x: jax.lax.cond(x[0] > 0, lambda x: jnp.sum(x[2:] ** 2), lambda x: jnp.prod(x[:3]), x),
    "one that is known": lambda x: jax.lax.cond(MASK.any(), lambda x: x[0] * x[1], jnp.prod, x),
    "one for each": lambda x: jnp.sum(jax.vmap(square_or_product)(np.array([0, 1, 0]), x[:3], x[3:6])),
    "out of bounds": lambda x: jnp.sum(x.at[jnp.array([5, 50])].get(mode="fill", fill_value=2.0) ** 2 * x[0]),
    "dropped": lambda x: jnp.sum(jnp.zeros(6).at[jnp.array([1, 50])].add(x[:2], mode="drop") ** 3),
    "multiplied": lambda x: jnp.sum(x.at[FREE[:4]].multiply(x[4:8], unique_indices=True) ** 3),
    "subtracted": lambda x: jnp.sum(x.at[np.array([1, 3])].subtract(x[4:6]) ** 2),
}


def pair(x):
    """Return two matrices."""
    return x[:8].reshape(2, 2, 2) + jnp.diag(jnp.array([0.0, 5.0]))


def sum_along(function, rows):
    return jax.lax.scan(lambda total, row: (total + function(row), None), 0.0, rows)[0]


def swing(forces):
    """Return an energy of a pendulum that is pushed."""

    def step(state, force):
        state = state + 0.1 * jnp.array([state[1], force - jnp.sin(state[0])])
        return state, state[0] ** 2

    state, squares = jax.lax.scan(step, jnp.array([1.0, 0.0]), forces)
    return jnp.sum(squares) + state[0] ** 2


def square_or_product(which, a, b):
    return jax.lax.switch(which, [lambda a, b: a**2, lambda a, b: a * b], a, b)


@jax.custom_jvp
def softplus(x):
    return jnp.log1p(jnp.exp(x))


@softplus.defjvp
def _(at, along):
    return softplus(*at), along[0] * jax.nn.sigmoid(at[0])


@jax.custom_jvp
def rounded(x):
    return jnp.round(x)


@rounded.defjvp
def _(at, along):
    return rounded(*at), along[0]


@jax.custom_vjp
def sine(x):
    return jnp.sin(x)


sine.defvjp(lambda x: (jnp.sin(x), x), lambda x, slope: (slope * jnp.cos(x),))


def seen(function, points, above=0.0):
    """Return where dense Hessians at some points are not zero."""
    with double_precision():
        found = np.asarray(jax.jit(jax.vmap(jax.hessian(function)))(points))
    return (np.abs(found) > above).any(axis=0)


def points(count=20):
    return np.random.default_rng(0).normal(size=(count, 10))


@pytest.mark.parametrize("name", TRACED)
def test_what_is_traced_is_what_there_is(name):
    assert np.array_equal(trace_sparsity(TRACED[name], 10).toarray(), seen(TRACED[name], points()))


# What x itself picks or stops, what is solved for, and more without an exact rule: all that there is is traced, or
# it is said that it is not.
PICKED = {
    "sorted": lambda x: jnp.sum(jnp.sort(x)[:3] ** 3),
    "the largest": lambda x: jnp.sum(jax.lax.top_k(x, 2)[0] ** 2),
    "a maximum": lambda x: jnp.max(x[:4]) ** 2 * x[5],
    "maxima": lambda x: jnp.sum(jax.ops.segment_max(x, np.arange(10) // 2, 5) ** 2),
    "the place of a maximum": lambda x: x[jnp.argmax(x)] * x[3],
    "a place by x": lambda x: jnp.sum(x[jnp.clip(jnp.floor(x[:3]), 2, 3).astype(int)] * x[7:]),
    "written at a place by x": lambda x: jnp.sum(x.at[jnp.argmax(x)].set(x[0]) ** 2 * x[::-1]),
    "interpolated": lambda x: jnp.sum(jnp.interp(x[:4], jnp.arange(3.0), x[4:7]) ** 2),
    "pooled": lambda x: jnp.sum(jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (3,), (1,), "VALID") ** 2),
    "averaged": lambda x: jnp.sum(jax.lax.reduce_window(x, 0.0, jax.lax.add, (3,), (1,), "VALID") ** 3),
    "solved": lambda x: jnp.sum(jnp.linalg.solve(pair(x), x[:4].reshape(2, 2, 1)) ** 2),
    "determinants": lambda x: jnp.sum(jnp.linalg.det(pair(x))),
    "an inverse": lambda x: jnp.sum(jnp.linalg.inv(BAND + jnp.diag(x**2))),
    "orthogonal": lambda x: jnp.sum(jnp.linalg.qr(x[:6].reshape(3, 2))[1] ** 2),
    "a polynomial": lambda x: jnp.sum(jnp.polyval(x[:3], x[3:])),
    "itself convolved": lambda x: jnp.sum(jnp.convolve(x[:5], x[5:8]) ** 2),
    "a long loop": lambda x: jax.lax.fori_loop(0, 20_000, lambda i, c: c + x[i % 10] * x[(i + 1) % 10], 0.0),
}


@pytest.mark.parametrize("name", PICKED)
def test_nothing_is_left_out_silently(name, caplog):
    function, where, above = PICKED[name], points(), 0.0
    objective = sh.from_jax(function, where[0])
    found = objective.trace()
    if found is None:
        assert "no rule to trace" in caplog.text and "probed" in caplog.text
        pattern, where, above = sh.detect_pattern(objective), where[:1], 1e-14  # rounding may show or not
        assert pattern.source == "probing at one point"
        found = pattern.to_scipy()
    else:
        assert not caplog.text
    assert not (seen(function, where, above) & (found.toarray() == 0)).any()


def test_what_is_written_to_is_not_traced(caplog):
    if not hasattr(jax, "new_ref"):  # nothing can be written to
        return

    def function(x):
        held = jax.new_ref(jnp.zeros(10))
        held[...] = x**2
        return jnp.sum(held[...] * x[::-1])

    assert trace_sparsity(function, 10) is None
    assert "of an array that is written to" in caplog.text


@pytest.mark.parallel([1, 2])
def test_what_cannot_be_traced_is_probed(comm, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "asdex", None)
    (x,), function = points(1), PICKED["sorted"]
    objective = sh.from_jax(function, x, comm=comm)
    assert objective.trace() is None
    told = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(told) == (comm.rank == 0)  # by one rank
    assert all("gather with indices that depend on x" in one and "'sparsehess[asdex]'" in one for one in told)
    pattern = sh.detect_pattern(objective)
    assert pattern.source == "probing at one point"
    own = slice(pattern.layout.start, pattern.layout.stop)
    there = seen(function, x[None]) | np.eye(10, dtype=bool)
    assert np.array_equal(pattern.to_scipy().toarray() != 0, there[own])


def stand_in(monkeypatch, answer):
    module = SimpleNamespace(__spec__=ModuleSpec("asdex", None), jacobian_sparsity=answer)
    monkeypatch.setitem(sys.modules, "asdex", module)


def test_asdex_is_asked_about_products_where_there_is_no_rule(monkeypatch, caplog):
    (x,), function = points(1), PICKED["sorted"]

    def answer(product, at, direction, argnums):
        assert argnums == 1 and at.shape == direction.shape == (10,)
        rows, columns = np.nonzero(jax.vmap(product, (None, 0), 1)(jnp.asarray(x), jnp.eye(10)))
        return SimpleNamespace(rows=rows, cols=columns)

    def fails(*given, **more):
        raise NotImplementedError("No handler")

    stand_in(monkeypatch, answer)
    assert np.array_equal(trace_sparsity(function, 10).toarray(), seen(function, x[None]))
    stand_in(monkeypatch, fails)
    assert trace_sparsity(TRACED["springs"], 10) is not None
    assert not caplog.text
    assert trace_sparsity(function, 10) is None
    assert "asdex fails (NotImplementedError: No handler)" in caplog.text


def test_functions_that_cannot_be_traced_say_why():
    with pytest.raises(EvaluationError, match="branching raised TracerBoolConversionError"):
        sh.from_jax(lambda x: x[0] if x[1] > 0 else x[2], points(1)[0], name="branching")
