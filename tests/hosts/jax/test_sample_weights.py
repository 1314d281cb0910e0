"""Losses of JAX models that are means by other weights than the number of samples; any number of ranks."""

import numpy as np
import pytest

from sparsehess.errors import CheckError, InputError
from sparsehess.hosts.jax.features import double_precision
from sparsehess.hosts.jax.model_curvature import gauss_newton, hessian
from sparsehess.hosts.learning.sample_shares import share_samples

jax = pytest.importorskip("jax")

pytestmark = pytest.mark.parallel([1, 2, 3])
jnp = jax.numpy

DRAWN = np.random.default_rng(5)
INPUTS, TARGETS = DRAWN.normal(size=(14, 4, 2)), DRAWN.integers(0, 3, (14, 4))
for row, length in enumerate(DRAWN.integers(1, 5, 14)):
    TARGETS[row, length:] = -1
TARGETS[0] = -1
PARAMS = {"a": DRAWN.normal(size=(2, 3)), "b": np.zeros(3)}


def apply(params, inputs):
    return jnp.tanh(inputs @ params["a"]) + params["b"]


def entropy(outputs, targets):
    mask = targets >= 0
    single = -jnp.take_along_axis(jax.nn.log_softmax(outputs), targets.clip(0)[..., None], -1)[..., 0]
    return (single * mask).sum() / mask.sum()


def exact(loss):
    from jax.flatten_util import ravel_pytree

    with double_precision():
        x, unravel = ravel_pytree(jax.tree_util.tree_map(jnp.asarray, PARAMS))
        return np.asarray(jax.hessian(lambda at: loss(apply(unravel(at), INPUTS), TARGETS))(x))


def entries(objective, comm):
    return comm.allreduce(objective.hvps(objective.x, np.eye(objective.n)))


@pytest.mark.parametrize("memory", [2**29, 1])
def test_a_masked_loss_is_that_of_the_whole(memory, comm):
    own, H = share_samples(INPUTS, TARGETS, comm=comm), exact(entropy)
    made = hessian(apply, entropy, PARAMS, *own, memory=memory, comm=comm)
    assert np.linalg.norm(entries(made, comm) - H) < 1e-12 * np.linalg.norm(H)
    step = 1e-4 * DRAWN.normal(size=made.n)
    ahead, back = (comm.allreduce(made.gradient(made.x + sign * step)) for sign in (1, -1))
    np.testing.assert_allclose((ahead - back) / 2, H @ comm.bcast(step), atol=1e-10)


def test_a_weight_that_is_given(comm):
    own, H = share_samples(INPUTS, TARGETS, comm=comm), exact(entropy)
    made = hessian(apply, entropy, PARAMS, *own, weight=lambda y: (y >= 0).sum(), comm=comm)
    assert np.linalg.norm(entries(made, comm) - H) < 1e-12 * np.linalg.norm(H)
    with pytest.raises(CheckError, match="`weight` is not by what"):
        hessian(apply, entropy, PARAMS, *own, weight=len, comm=comm)


def test_a_penalty_on_arrays_that_do_not_move_is_refused(comm):
    own = share_samples(INPUTS, TARGETS, comm=comm)
    held = jax.tree_util.tree_map(jnp.asarray, PARAMS)

    def penalised(outputs, targets):
        return entropy(outputs, targets) + sum((p**2).sum() for p in jax.tree_util.tree_leaves(held))

    for loss in (penalised, jax.jit(penalised)):
        for make in (hessian, gauss_newton):
            with pytest.raises(InputError, match="the loss reads a by itself"):
                make(apply, loss, held, *own, comm=comm)


def test_a_penalty_beside_the_outputs(comm):
    own, H = share_samples(INPUTS, TARGETS, comm=comm), exact(entropy)

    def both(params, inputs):
        return apply(params, inputs), sum((p**2).sum() for p in params.values())

    def loss(outputs, targets):
        return entropy(outputs[0], targets) + outputs[1]

    made = hessian(both, loss, PARAMS, *own, comm=comm)
    assert np.linalg.norm(entries(made, comm) - H - 2 * np.eye(len(H))) < 1e-11 * np.linalg.norm(H)
