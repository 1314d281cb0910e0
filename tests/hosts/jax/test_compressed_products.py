"""Hessians of JAX functions with seeds on the device: another point by one call, arrays for JAX and SciPy."""

import logging

import numpy as np
import pytest

import sparsehess as sh
from sparsehess.errors import EvaluationError, InputError
from sparsehess.hosts.jax.compressed_products import CompressedProducts
from sparsehess.hosts.jax.features import double_precision

jax = pytest.importorskip("jax")
jnp = jax.numpy

RNG = np.random.default_rng(0)


def chain(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def cubes(x):  # one colour
    return jnp.sum(x**3) / 3


def field(x):  # most of its Hessian is the same everywhere
    u = x.reshape(6, 5, 4)
    slopes = u[1:] - u[:-1], u[:, 1:] - u[:, :-1], u[:, :, 1:] - u[:, :, :-1]
    return jnp.sum((u**2 - 1) ** 2) / 4 + sum(jnp.sum(slope**2) for slope in slopes) / 2


def quadratic(x):  # all of it
    return jnp.sum((x[2:] - 2 * x[1:-1] + x[:-2]) ** 2)


def convolution(x):
    return jnp.sum(jnp.convolve(x, jnp.asarray([1.0, -2.0, 1.0]), mode="valid") ** 4)


FUNCTIONS = {chain: 50, cubes: 9, field: 120, quadratic: 40, convolution: 30}


def exact(function, x):
    with double_precision():
        return np.asarray(jax.hessian(function)(jnp.asarray(x)))


def error_of(H, function, x):
    dense = exact(function, x)
    return np.abs(H.to_scipy().toarray() - dense).max() / np.abs(dense).max()


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_another_point_takes_one_call(function, double):
    x = RNG.normal(size=FUNCTIONS[function])
    with sh.assemble(sh.from_jax(function, x)) as H:
        mat, made = H.mat, H.evaluations["hvp"]
        for step in range(1, 4):
            at = x + 0.1 * step
            if double:
                with double_precision():
                    H.update(at, verify=False)
            else:
                H.update(at, verify=False)
            assert H.mat is mat and H.evaluations["hvp"] == made + step * H.coloring.count
            indptr, columns, values = H.mat.getValuesCSR()
            dense = exact(function, at)
            ours = np.zeros_like(dense)
            ours[np.repeat(np.arange(len(x)), np.diff(indptr)), columns] = values
            assert np.array_equal(ours, ours.T)
            assert np.abs(ours - dense).max() <= 1e-13 * np.abs(dense).max()
            assert np.array_equal(H.point, at)
        at[:] = 0
        assert not np.array_equal(H.point, at) and H.error <= 1e-15
        assert H.entry_errors is not None
        H.update(x)  # with all checks
        assert (
            np.abs(H.to_scipy().toarray() - exact(function, x)).max() <= 1e-13 * np.abs(exact(function, x)).max()
        )


def test_another_point_compiles_nothing(caplog):
    x = RNG.normal(size=64)
    with sh.assemble(sh.from_jax(chain, x)) as H:
        H.update(x + 1, verify=False)
        with jax.log_compiles(), caplog.at_level(logging.WARNING):
            for step in range(3):
                H.update(x + step, verify=False)
                H.update(x - step)
    assert not [record for record in caplog.records if "ompiling" in record.message]


def test_what_is_wrong_is_told_as_with_checks():
    def function(x):
        return jnp.sum(jnp.sqrt(x[1:] - x[:-1]))

    with sh.assemble(sh.from_jax(function, np.arange(9.0))) as H:
        with pytest.raises(sh.errors.CheckError, match=r"not finite.* at variable"):
            H.update(-np.arange(9.0), verify=False)
        with pytest.raises(InputError, match="must be"):
            H.update(np.ones(3), verify=False)
        H.update(2 * np.arange(9.0), verify=False)
        assert error_of(H, function, 2 * np.arange(9.0)) < 1e-13


def test_what_cannot_be_differentiated_twice_is_told():
    objective = sh.from_jax(lambda x: jnp.sum(_once(x)), np.ones(4), pattern=sh.Pattern.from_edges([[0, 1]], 4))
    with pytest.raises(EvaluationError, match="callback"):
        sh.assemble(objective)


@jax.custom_jvp
def _once(x):
    return x**2


@_once.defjvp
def _slope(primals, tangents):
    def host(x, v):
        return 2 * x * v

    shape = jax.ShapeDtypeStruct(primals[0].shape, primals[0].dtype)
    return _once(*primals), jax.pure_callback(host, shape, *primals, *tangents)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_entries_read_on_the_device_are_those_read_here(function):
    n = FUNCTIONS[function]
    x = RNG.normal(size=n)
    with sh.assemble(sh.from_jax(function, x)) as H:
        here = H.to_scipy().data
        plan, batches = (
            H._source.plan,
            jax.vmap(lambda x, v: jax.jvp(jax.grad(function), (x,), (v,))[1], in_axes=(None, 0)),
        )
        made = CompressedProducts(
            jax, function, batches, H.coloring.colors, H.coloring.count, plan.reads, "float64", there=True
        )
        there = np.empty_like(here)
        squares = made.finish(made.begin(x), there)
        assert np.allclose(there, here, rtol=1e-13, atol=1e-13) and np.isclose(squares, there @ there)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_colouring_inside_a_compiled_function(function):
    x = RNG.normal(size=FUNCTIONS[function])
    with sh.assemble(sh.from_jax(function, x)) as H:
        sparse = sh.jax_hessian(H)
    dense = exact(function, x + 1)
    with double_precision():
        found = jax.jit(sparse)(x + 1)
        assert np.abs(found.todense() - dense).max() <= 1e-13 * np.abs(dense).max()
        directions = np.eye(len(x))[:3]
        batch = jax.jit(jax.vmap(lambda v: sparse(jnp.asarray(x + 1)) @ v))(directions)
        assert np.allclose(batch, dense[:3], atol=1e-12 * np.abs(dense).max())
        third = jax.grad(lambda at: jnp.sum(sparse(at).data ** 2))(jnp.asarray(x))
        expected = jax.grad(lambda at: jnp.sum(jax.hessian(function)(at) ** 2))(jnp.asarray(x))
        assert np.allclose(third, expected, atol=1e-10 * (1 + np.abs(expected).max()))


def test_whole_numbers_and_other_shapes_inside_a_compiled_function():
    with sh.assemble(sh.from_jax(chain, np.ones(50))) as H:
        sparse = sh.jax_hessian(H)
    with double_precision():
        found = jax.jit(sparse)(np.arange(50))
        assert np.abs(found.todense() - exact(chain, np.arange(50.0))).max() <= 1e-12 * np.abs(found.data).max()
    for x in (np.ones(49), np.ones((50, 1)), 1.0):
        with pytest.raises(InputError, match=r"shape \(50,\)"):
            sparse(x)


def test_arrays_of_jax_and_scipy():
    x = RNG.normal(size=50)
    found = sh.assemble(sh.from_jax(chain, x), to="jax")
    assert isinstance(found, jax.experimental.sparse.BCOO) and found.data.dtype == np.float64
    rows = sh.assemble(sh.from_jax(chain, x), to="scipy")
    assert np.abs(rows.toarray() - exact(chain, x)).max() <= 1e-13 * np.abs(rows.data).max()
    assert np.array_equal(found.data, rows.data)


@pytest.mark.parallel([2, 3])
def test_arrays_on_several_ranks(comm):
    x = np.random.default_rng(1).normal(size=50)
    objective = sh.from_jax(chain, x, comm=comm)
    rows = sh.assemble(objective, to="scipy")
    layout = objective.layout
    assert rows.shape == (layout.n_local, 50)
    assert np.allclose(rows.toarray(), exact(chain, x)[layout.start : layout.stop], atol=1e-12 * 1e3)
    with pytest.raises(InputError, match="on one rank"):
        sh.assemble(objective, to="jax")
    with sh.assemble(objective) as H, pytest.raises(InputError, match="one rank"):
        sh.jax_hessian(H)


def test_refused():
    x = RNG.normal(size=50)
    objective = sh.from_jax(chain, x)
    with pytest.raises(InputError, match="'torch'"):
        sh.assemble(objective, to="torch")
    with pytest.raises(InputError, match="from_jax"):
        sh.assemble(sh.Objective(x=x, gradient=lambda x: x**3), to="jax", pattern="detect")
    with pytest.raises(InputError, match="columns="):
        sh.assemble(objective, to="jax", columns=1)
    with sh.assemble(objective, coloring="acyclic") as H:
        assert error_of(H, chain, x) <= 1e-12
        H.update(x + 1, verify=False)
        assert (
            np.abs(H.to_scipy().toarray() - exact(chain, x + 1)).max() <= 1e-12 * np.abs(exact(chain, x + 1)).max()
        )
        with pytest.raises(InputError, match="read directly"):
            sh.jax_hessian(H)


@pytest.mark.parametrize(
    ("function", "n"), [(field, 8000), (convolution, 20_000), (cubes, 5000), (quadratic, 9000)]
)
def test_what_is_the_same_everywhere_is_evaluated_once(function, n):
    def at_size(x):
        if function is not field:
            return function(x)
        u = x.reshape(20, 20, 20)
        slopes = u[1:] - u[:-1], u[:, 1:] - u[:, :-1], u[:, :, 1:] - u[:, :, :-1]
        return jnp.sum((u**2 - 1) ** 2) / 4 + sum(jnp.sum(slope**2) for slope in slopes) / 2

    x = RNG.normal(size=n)
    objective = sh.from_jax(at_size, x)
    with sh.assemble(objective) as H:
        H.update(x + 1, verify=False)
        assert len(H.compressed._kept) == (0 if function is cubes else 2)
        v = RNG.normal(size=n)
        expected = objective.hvps(x + 1, v[None])[0]
        assert np.abs(H.to_scipy() @ v - expected).max() <= 1e-12 * np.abs(expected).max()
