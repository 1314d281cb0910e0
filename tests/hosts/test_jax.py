"""Inside JAX: exact products in batches, patterns by tracing and by probing; any number of ranks."""

import sys
from dataclasses import replace

import numpy as np
import pytest
from cases import frobenius_error
from functions import FUNCTIONS

import sparsehess as sh
from sparsehess.errors import InputError
from sparsehess.hosts.jax_tracing import traced as trace

jax = pytest.importorskip("jax")

pytestmark = pytest.mark.parallel([1, 2])
jnp = jax.numpy


def rosenbrock(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def exact(x):
    """Return the Hessian by dense JAX in double precision, as a sparse matrix."""
    import scipy.sparse as sp
    from jax.experimental import enable_x64

    with enable_x64():
        return sp.csr_matrix(np.asarray(jax.hessian(rosenbrock)(jnp.asarray(x))))


POINT = np.random.default_rng(0).normal(size=120)


@pytest.mark.parametrize(("products", "most"), [("float64", 1e-15), ("float32", 1e-6)])
def test_exact_hessians(products, most, comm):
    objective = sh.Objective.from_jax(rosenbrock, POINT, products=products, comm=comm)
    with sh.assemble(objective, pattern="detect") as hessian:
        assert hessian.coloring.count == 3
        assert hessian.evaluations["hvp"] == 3 and hessian.evaluations["gradient"] == 0
        assert frobenius_error(hessian.mat, exact(POINT), comm) < most
        hessian.update(POINT + 0.1)
        assert frobenius_error(hessian.mat, exact(POINT + 0.1), comm) < most
    assert not jax.config.jax_enable_x64  # as it was


def test_tracing_and_probing_agree(comm):
    objective = sh.Objective.from_jax(rosenbrock, POINT, comm=comm)
    probed = sh.detect(replace(objective, trace=None))
    assert probed.source == "probing at one point"
    assert np.array_equal(probed.to_scipy().toarray() > 0, FUNCTIONS["chained_rosenbrock"](120).pattern.toarray()[
        probed.layout.start : probed.layout.stop
    ] > 0)  # fmt: skip
    traced = sh.detect(objective)
    assert traced.source == "tracing, at every x"
    assert np.array_equal(traced.indices, probed.indices)


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
}


@pytest.mark.parametrize("name", TRACED)
def test_what_is_traced_is_what_there_is(name, comm):
    if comm.size > 1:
        pytest.skip("the same on every rank")
    from jax.experimental import enable_x64

    function = TRACED[name]
    found = trace(function, 10).toarray()
    points = np.random.default_rng(0).normal(size=(20, 10))
    with enable_x64():
        seen = np.asarray(jax.jit(jax.vmap(jax.hessian(function)))(points)) != 0
    assert np.array_equal(found, seen.any(axis=0))


def test_what_cannot_be_traced_is_probed(comm, monkeypatch):
    monkeypatch.setitem(sys.modules, "asdex", None)
    objective = sh.Objective.from_jax(
        lambda x: jax.lax.fori_loop(0, 9, lambda i, energy: energy + (x[i] * x[i + 1]) ** 2, 0.0),
        POINT[:10],
        comm=comm,
    )
    assert objective.trace() is None
    assert sh.detect(objective).nnz == 28


def test_batches_fit_the_memory(comm):
    small = sh.Objective.from_jax(rosenbrock, POINT, memory=8 * 8 * 120 * 3, comm=comm)
    assert small.batch == 2
    with sh.assemble(small, pattern="detect") as hessian:
        assert frobenius_error(hessian.mat, exact(POINT), comm) < 1e-15
    with pytest.raises(InputError, match="float16"):
        sh.Objective.from_jax(rosenbrock, POINT, products="float16")
