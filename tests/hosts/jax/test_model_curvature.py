"""Curvature of JAX models on data over ranks; any number of ranks."""

import numpy as np
import pytest

import sparsehess as sh
from sparsehess.errors import CheckError, InputError
from sparsehess.hosts.jax.features import double_precision
from sparsehess.hosts.jax.model_curvature import empirical_fisher, gauss_newton, hessian
from sparsehess.hosts.jax.parameters import parameter_slices
from sparsehess.hosts.learning.parameter_groups import group_labels, layer_variables
from sparsehess.hosts.learning.sample_shares import share_samples

jax = pytest.importorskip("jax")

pytestmark = pytest.mark.parallel([1, 2])
jnp = jax.numpy

DRAWN = np.random.default_rng(7)
INPUTS, CLASSES = DRAWN.normal(size=(11, 3)), DRAWN.integers(0, 3, 11)
PARAMS = {
    "first": {"kernel": DRAWN.normal(size=(3, 4)), "bias": DRAWN.normal(size=4)},
    "last": {"kernel": DRAWN.normal(size=(4, 3))},
}
KINDS = {"hessian": hessian, "gauss-newton": gauss_newton, "fisher": empirical_fisher}


def network(params, inputs):
    hidden = jnp.tanh(inputs @ params["first"]["kernel"] + params["first"]["bias"])
    return hidden @ params["last"]["kernel"]


def entropy(outputs, targets):
    return -jnp.take_along_axis(jax.nn.log_softmax(outputs), targets[:, None], 1).mean()


def dense():
    """Return all three matrices by dense derivatives of single samples; biases come before kernels."""
    from jax.flatten_util import ravel_pytree

    def of_one(x, sample, target):
        def outputs(at):
            return network(unravel(at), sample[None])

        def loss(z):
            return entropy(z, target[None])

        J = jax.jacobian(outputs)(x).reshape(3, -1)
        L = jax.hessian(loss)(outputs(x)).reshape(3, 3)
        slope = J.T @ jax.grad(loss)(outputs(x)).ravel()
        H = jax.hessian(lambda at: loss(outputs(at)))(x)
        return H, J.T @ L @ J, jnp.outer(slope, slope)

    with double_precision():
        x, unravel = ravel_pytree(jax.tree_util.tree_map(jnp.asarray, PARAMS))
        found = jax.jit(jax.vmap(of_one, in_axes=(None, 0, 0)))(x, INPUTS, CLASSES)
        return {kind: np.asarray(one).mean(0) for kind, one in zip(KINDS, found, strict=True)}


def entries(objective, comm):
    return comm.allreduce(objective.hvps(objective.x, np.eye(objective.n)))


def off(found, exact):
    return np.linalg.norm(found - exact) / np.linalg.norm(exact)


def test_curvature_equals_dense_derivatives(comm):
    exact = dense()
    own = share_samples(INPUTS, CLASSES, comm=comm)
    for kind, make in KINDS.items():
        assert off(entries(make(network, entropy, PARAMS, *own, comm=comm), comm), exact[kind]) < 1e-14


@pytest.mark.thorough
def test_chunks_and_precisions(comm):
    exact, own = dense(), share_samples(INPUTS, CLASSES, comm=comm)
    in_chunks = gauss_newton(network, entropy, PARAMS, *own, memory=1, comm=comm)
    assert in_chunks.batch == 1
    assert off(entries(in_chunks, comm), exact["gauss-newton"]) < 1e-14
    single = hessian(network, entropy, PARAMS, *own, products="float32", comm=comm)
    assert 1e-9 < off(entries(single, comm), exact["hessian"]) < 1e-5
    step = 1e-5 * np.random.default_rng(0).normal(size=single.n)
    ahead, back = (comm.allreduce(single.gradient(single.x + sign * step)) for sign in (1, -1))
    np.testing.assert_allclose((ahead - back) / 2, exact["hessian"] @ step, atol=1e-12)
    rise = comm.allreduce(single.energy(single.x + step)) - comm.allreduce(single.energy(single.x - step))
    assert rise == pytest.approx(2 * comm.allreduce(single.gradient(single.x)) @ step, rel=1e-6)


def test_some_arrays_alone(comm):
    own = share_samples(INPUTS, CLASSES, comm=comm)
    parts = parameter_slices(PARAMS)
    assert parts == {"first/bias": slice(0, 4), "first/kernel": slice(4, 16), "last/kernel": slice(16, 28)}
    exact = dense()["hessian"]
    some = hessian(network, entropy, PARAMS, *own, parameters=r"first/.*", comm=comm)
    assert off(entries(some, comm), exact[:16, :16]) < 1e-14
    whole = hessian(network, entropy, PARAMS, *own, comm=comm)
    groups = layer_variables({name.replace("/", "."): part for name, part in parts.items()})
    with sh.MatrixFree(whole) as free:
        found = sh.block_traces(free, group_labels(groups, whole.n), samples=100)
        wanted = [np.trace(exact[:16, :16]), np.trace(exact[16:, 16:])]
        assert (np.abs(found.traces - wanted) < 5 * found.stderr + 1e-12).all()  # exact, of so few variables
        with sh.eigs(free, 3, which="largest", count="no") as top:
            np.testing.assert_allclose(np.sort(top.eigenvalues), np.linalg.eigvalsh(exact)[-3:], atol=1e-9)


def test_what_cannot_be_trusted_is_refused(comm):
    own = share_samples(INPUTS, CLASSES, comm=comm)
    drawn = np.random.default_rng(0)

    def drops(params, inputs):
        return network(params, inputs) * (drawn.random(3) > 0.3)

    def norms(params, inputs):
        outputs = network(params, inputs)
        return (outputs - outputs.mean(0)) / outputs.std(0)

    with pytest.raises(CheckError, match="not deterministic"):
        hessian(drops, entropy, PARAMS, *own, comm=comm)
    with pytest.raises(CheckError, match="samples depend on each other"):
        hessian(norms, entropy, PARAMS, *own, comm=comm)
    with pytest.raises(CheckError, match="say reduction='sum'"):
        hessian(network, lambda z, y: len(y) * entropy(z, y), PARAMS, *own, comm=comm)
    with pytest.raises(InputError, match="no parameter matches"):
        hessian(network, entropy, PARAMS, *own, parameters="second", comm=comm)
