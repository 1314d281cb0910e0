"""Trees of parameters, inputs and outputs as users have them, beside the same function of arrays."""

import functools
from typing import Any, NamedTuple

import numpy as np
import pytest

from sparsehess.errors import CheckError, InputError
from sparsehess.hosts.jax.features import double_precision
from sparsehess.hosts.jax.kfac import ekfac, kfac
from sparsehess.hosts.jax.model_curvature import empirical_fisher, gauss_newton, hessian
from sparsehess.hosts.learning.sample_shares import share_samples

jax = pytest.importorskip("jax")

pytestmark = pytest.mark.parallel([1, 2, 3])
jnp = jax.numpy

DRAWN = np.random.default_rng(7)
INPUTS, CLASSES = DRAWN.normal(size=(9, 3)), DRAWN.integers(0, 2, 9)
KERNELS = {"first": DRAWN.normal(size=(3, 3)), "last": DRAWN.normal(size=(3, 2))}
KINDS = {"hessian": hessian, "gauss-newton": gauss_newton, "fisher": empirical_fisher}


def hidden(params, x):
    return jnp.tanh(x @ params["first"])


def network(params, x):
    return hidden(params, x) @ params["last"]


def entropy(outputs, targets):
    return -jnp.take_along_axis(jax.nn.log_softmax(outputs), targets[:, None], 1).mean()


def loss_of_both(z, y):
    """Return the loss of outputs of both layers in one array."""
    return entropy(z[:, :2], y) + (z[:, 2:] ** 2).sum(1).mean()


@functools.cache
def dense(one_layer):
    """Return the three matrices of outputs in one array, by dense derivatives."""
    from jax.flatten_util import ravel_pytree

    loss = entropy if one_layer else loss_of_both

    def outputs(x, inputs):
        params = unravel(x)
        z = network(params, inputs)
        return z if one_layer else jnp.concatenate([z, hidden(params, inputs)], 1)

    def of_one(x, sample, target):
        of_sample = functools.partial(outputs, inputs=sample[None])
        z = of_sample(x)
        J = jax.jacobian(of_sample)(x).reshape(z.size, -1)
        L = jax.hessian(lambda z: loss(z, target[None]))(z).reshape(z.size, z.size)
        slope = J.T @ jax.grad(lambda z: loss(z, target[None]))(z).ravel()
        return jax.hessian(lambda at: loss(of_sample(at), target[None]))(x), J.T @ L @ J, jnp.outer(slope, slope)

    with double_precision():
        x, unravel = ravel_pytree(jax.tree_util.tree_map(jnp.asarray, KERNELS))
        found = jax.jit(jax.vmap(of_one, in_axes=(None, 0, 0)))(x, INPUTS, CLASSES)
        return {kind: np.asarray(one).mean(0) for kind, one in zip(KINDS, found, strict=True)}


def check(apply, loss, params, comm, one_layer=True, kinds=KINDS):
    own = share_samples(INPUTS, CLASSES, comm=comm)
    for kind in kinds:
        made, wanted = KINDS[kind](apply, loss, params, *own, comm=comm), dense(one_layer)[kind]
        found = comm.allreduce(made.hvps(made.x, np.eye(made.n)))
        assert np.abs(found - wanted).max() <= 1e-13 * np.abs(wanted).max(), kind


class Named(NamedTuple):
    classes: Any
    rest: Any


OUTPUTS = {
    "dictionary": lambda z, h: {
        "classes": z,
        "rest": h,
        "place": z.argmax(1),
        "count": 3,
        "none": None,
        "empty": {},
    },
    "named tuple": Named,
}


def of_tree(outputs, y):
    classes, rest = outputs if isinstance(outputs, tuple) else (outputs["classes"], outputs["rest"])
    return entropy(classes, y) + (rest**2).sum(1).mean()


@pytest.mark.parametrize("kind", ["dictionary", pytest.param("named tuple", marks=pytest.mark.thorough)])
def test_outputs_in_trees(kind, comm):
    check(lambda p, x: OUTPUTS[kind](network(p, x), hidden(p, x)), of_tree, KERNELS, comm, False)


@pytest.mark.thorough
def test_complex_outputs(comm):
    def apply(p, x):
        return jax.lax.complex(network(p, x), hidden(p, x)[:, :2])

    def loss(z, y):
        return loss_of_both(jnp.concatenate([z.real, z.imag], 1), y)

    own = share_samples(INPUTS, CLASSES, comm=comm)
    both = [
        gauss_newton(a, b, KERNELS, *own, comm=comm)
        for a, b in (
            (apply, loss),
            (lambda p, x: jnp.concatenate([network(p, x), hidden(p, x)[:, :2]], 1), loss_of_both),
        )
    ]
    found, wanted = (comm.allreduce(one.hvps(one.x, np.eye(one.n))) for one in both)
    np.testing.assert_allclose(found, wanted, atol=1e-14)


def test_factors_of_outputs_in_trees(comm):
    own = share_samples(INPUTS, CLASSES, comm=comm)
    for make, curvature in ((kfac, "gauss-newton"), (ekfac, "empirical fisher")):
        found = []
        for apply, loss in (
            (lambda p, x: {"classes": network(p, x), "rest": hidden(p, x), "place": x.argmax(1)}, of_tree),
            (lambda p, x: jnp.concatenate([network(p, x), hidden(p, x)], 1), loss_of_both),
        ):
            with make(apply, loss, KERNELS, *own, curvature=curvature, comm=comm) as blocks:
                found.append(blocks.diagonal())
        np.testing.assert_allclose(*found, rtol=1e-12)


def test_outputs_that_are_none(comm):
    own = share_samples(INPUTS, CLASSES, comm=comm)
    for outputs in ({}, {"classes": 3}):
        with pytest.raises(InputError, match="must return arrays of floating point"):
            gauss_newton(lambda p, x, o=outputs: o, lambda o, y: jnp.zeros(()), KERNELS, *own, comm=comm)
    with pytest.raises(InputError, match="their first axis must be samples"):
        empirical_fisher(
            lambda p, x: {"classes": network(p, x), "size": (p["last"] ** 2).sum()},
            lambda o, y: entropy(o["classes"], y) + o["size"],
            KERNELS,
            *own,
            comm=comm,
        )


def test_leaves_that_are_no_variables(comm):
    """Functions and words, as of modules that are trees; integers, keys, None, complex numbers."""
    turn = np.array([0.6 + 0.8j], np.complex64)
    size = np.abs(turn.astype(np.complex128))
    params = {
        **KERNELS, "act": jnp.tanh, "kind": "tanh", "none": None, "empty": {}, "count": np.arange(3),
        "flag": np.array(True), "key": jax.random.key(0), "turn": turn, "nothing": np.zeros((0, 2)),
    }  # fmt: skip

    def apply(p, x):
        assert p["kind"] == "tanh" and p["none"] is None
        return p["act"](x @ p["first"]) @ p["last"] * (jnp.abs(p["turn"]) / size)

    check(apply, entropy, params, comm)


@pytest.mark.parametrize(
    "dtype", [jnp.bfloat16, *(pytest.param(one, marks=pytest.mark.thorough) for one in (jnp.float32, np.float16))]
)
def test_precisions_beside_each_other(dtype, comm):
    """The variables are the numbers that the leaves hold, whatever holds them."""
    first = jnp.asarray(np.round(KERNELS["first"] * 16) / 16, dtype)
    mixed, plain = {**KERNELS, "first": first}, {**KERNELS, "first": np.asarray(first).astype(np.float64)}
    own = share_samples(INPUTS, CLASSES, comm=comm)
    found, wanted = (
        comm.allreduce(one.hvps(one.x, np.eye(one.n)))
        for one in (hessian(network, entropy, p, *own, comm=comm) for p in (mixed, plain))
    )
    assert np.array_equal(found, wanted)


def single(p, x):
    return network(p, x).astype(jnp.float32)


def attention(p, x):
    heads = (x[:, :, None] * jnp.arange(1.0, 3.0))[:, :, None]
    return jax.nn.dot_product_attention(heads, heads, heads).reshape(len(x), -1)[:, :3] @ p["first"] @ p["last"]


@pytest.mark.parametrize("apply", [single, pytest.param(attention, marks=pytest.mark.thorough)])
def test_single_precision_inside_names_the_remedy(apply, comm):
    own = share_samples(INPUTS, CLASSES, comm=comm)
    if apply is single:
        for make in KINDS.values():
            with pytest.raises(CheckError, match=r"as in single precision.*products='float32'"):
                make(apply, entropy, KERNELS, *own, comm=comm)
    made = hessian(apply, entropy, KERNELS, *own, products="float32", comm=comm)
    found = comm.allreduce(made.hvps(made.x, np.eye(made.n)))
    assert np.abs(found - found.T).max() < 1e-5 * np.abs(found).max()
    if apply is single:
        assert np.abs(found - dense(True)["hessian"]).max() < 1e-5 * np.abs(found).max()


@pytest.mark.parametrize(("dtype", "name"), [(jnp.bfloat16, "bfloat16"), (jnp.float16, "float16")])
def test_half_precision_inside_is_named(dtype, name, comm):
    own = share_samples(INPUTS, CLASSES, comm=comm)
    with pytest.raises(CheckError, match=f"has the digits of {name} alone"):
        hessian(lambda p, x: network(p, x).astype(dtype), entropy, KERNELS, *own, comm=comm)
