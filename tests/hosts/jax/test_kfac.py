"""K-FAC and EKFAC of JAX models against dense curvature, formulas and PyTorch; any number of ranks."""

from functools import cache

import numpy as np
import pytest

from sparsehess.errors import CheckError, EvaluationError, InputError
from sparsehess.hosts.learning.sample_shares import share_samples

jax = pytest.importorskip("jax")
jnp = jax.numpy

from sparsehess.hosts.jax.features import double_precision  # noqa: E402
from sparsehess.hosts.jax.kfac import ekfac, kfac  # noqa: E402
from sparsehess.hosts.jax.parameters import parameter_slices  # noqa: E402

pytestmark = pytest.mark.parallel([1, 2])

DRAWN = np.random.default_rng(8)
INPUTS, VALUES, CLASSES = DRAWN.normal(size=(9, 4)), DRAWN.normal(size=(9, 3)), DRAWN.integers(0, 3, 9)
# More images than the kernels have entries, so that no eigenvalue of a factor is there twice.
IMAGES, LABELS = DRAWN.normal(size=(17, 2, 6, 5)), DRAWN.integers(0, 3, 17)
KINDS = ("gauss-newton", "empirical fisher")
MLP = {
    "first": {"kernel": DRAWN.normal(size=(4, 5)), "bias": DRAWN.normal(size=5)},
    "last": {"kernel": DRAWN.normal(size=(5, 3))},
}
CNN = {
    "one": {"w": DRAWN.normal(size=(3, 2, 3, 2)), "b": DRAWN.normal(size=3)},
    "two": {"w": DRAWN.normal(size=(4, 3, 2, 2)) / 3},
    "three": {"w": DRAWN.normal(size=(3, 8)), "b": DRAWN.normal(size=3)},
}


def squares(outputs, targets):
    return ((outputs - targets) ** 2).mean()


def entropy(outputs, targets):
    return -jnp.take_along_axis(jax.nn.log_softmax(outputs), targets[:, None], 1).mean()


def mlp(params, inputs):
    return jnp.tanh(linear(params["first"], inputs)) @ params["last"]["kernel"]


def linear(params, inputs):
    return inputs @ params["kernel"] + params["bias"]


def convolution(params, inputs):
    args = {"window_strides": (2, 1), "padding": ((1, 1), (1, 1)), "rhs_dilation": (1, 2)}
    return jax.lax.conv_general_dilated(inputs, params["w"], **args) + params["b"][:, None, None]


def cnn(params, inputs):
    x = jnp.tanh(convolution(params["one"], inputs))  # (samples, 3, 3, 5)
    x = jnp.pad(x, ((0, 0), (0, 0), (0, 1), (0, 1)), mode="wrap")
    x = jnp.tanh(jax.lax.conv(x, params["two"]["w"], (1, 1), "VALID"))
    pooled = jnp.stack([x[..., :3].mean((2, 3)), x[..., 2:].mean((2, 3))], -1)
    return pooled.reshape(len(x), -1) @ params["three"]["w"].T + params["three"]["b"]


def entries(operator):
    """Return the whole matrix, on every rank."""
    layout, eye = operator.layout, np.eye(operator.n)
    own = [operator.product(np.ascontiguousarray(row[layout.start : layout.stop])) for row in eye]
    return np.concatenate(layout.comm.allgather(np.array(own).T))


def dense(apply, loss, params, inputs, targets):
    """Return both matrices by dense derivatives of single samples."""
    from jax.flatten_util import ravel_pytree

    def of_one(x, sample, target):
        def outputs(at):
            return apply(unravel(at), sample[None]).ravel()

        shape = jax.eval_shape(apply, unravel(x), sample[None]).shape
        z, J = outputs(x), jax.jacrev(outputs)(x)
        L = jax.hessian(lambda z: loss(z.reshape(shape), target[None]))(z)
        slope = J.T @ jax.grad(lambda z: loss(z.reshape(shape), target[None]))(z)
        return J.T @ L @ J, jnp.outer(slope, slope)

    with double_precision():
        x, unravel = ravel_pytree(jax.tree_util.tree_map(jnp.asarray, params))
        every = jax.jit(jax.vmap(of_one, in_axes=(None, 0, 0)))(x, inputs, targets)
        return {kind: np.asarray(one).mean(0) for kind, one in zip(KINDS, every, strict=True)}


@cache
def of_cnn():
    return dense(cnn, entropy, CNN, IMAGES, LABELS)


def blocks_of(matrix, variables):
    out = np.zeros_like(matrix)
    for rows in variables.values():
        out[np.ix_(rows, rows)] = matrix[np.ix_(rows, rows)]
    return out


def off(found, exact):
    return np.linalg.norm(found - exact) / np.linalg.norm(exact)


def corrected(found, exact, comm):
    """Assert that eigenvalues of EKFAC are the diagonal of the curvature in its basis, layer by layer."""
    for name, part in found.parts.items():
        rows = found.variables[name]
        layer = exact[np.ix_(rows, rows)]
        Q = np.kron(part.QA, part.QB)
        s = np.concatenate(comm.allgather(part.s))
        np.testing.assert_allclose(s, np.einsum("ij,ik,kj->j", Q, layer, Q), atol=1e-13 * np.trace(layer))
        assert part.trace() == pytest.approx(np.trace(layer), rel=1e-12)


def test_factors_are_those_of_the_formulas(comm):
    """A network of two layers by hand: Martens, Grosse 2015, section 2.1."""
    W, b, V = MLP["first"]["kernel"], MLP["first"]["bias"], MLP["last"]["kernel"]
    hidden = np.tanh(INPUTS @ W + b)
    chances = np.exp(hidden @ V)
    chances /= chances.sum(1, keepdims=True)
    L = np.einsum("ni,ij->nij", chances, np.eye(3)) - np.einsum("ni,nj->nij", chances, chances)
    slopes = chances - np.eye(3)[CLASSES]
    inner = {"gauss-newton": L, "empirical fisher": np.einsum("ni,nj->nij", slopes, slopes)}
    with_one = np.column_stack([INPUTS, np.ones(9)])
    down = np.einsum("nh,hc->nhc", 1 - hidden**2, V)
    # Variables: bias, then kernel (inputs, outputs) of the first layer, then the kernel of the last.
    first = np.concatenate([5 + np.arange(20).reshape(4, 5), np.arange(5)[None]]).T.ravel()
    last = (25 + np.arange(15).reshape(5, 3)).T.ravel()
    own = share_samples(INPUTS, CLASSES, comm=comm)
    for kind, between in inner.items():
        G = np.einsum("nhc,ncd,nkd->hk", down, between, down) / 9
        exact = np.zeros((40, 40))
        exact[np.ix_(first, first)] = np.kron(G, with_one.T @ with_one / 9)
        exact[np.ix_(last, last)] = np.kron(between.mean(0), hidden.T @ hidden / 9)
        with kfac(mlp, entropy, MLP, *own, curvature=kind, comm=comm) as found:
            assert [*found.parts] == ["first", "last"] and found.uncovered == ()
            assert off(entries(found), exact) < 1e-12


def in_torch():
    """Return (model, arrays of its parameters from those of JAX) for both networks, or skip."""
    try:
        import torch
    except ImportError as error:
        pytest.skip(str(error))
    nn = torch.nn

    class Wrap(nn.Module):
        def forward(self, x):
            return nn.functional.pad(x, (0, 1, 0, 1), mode="circular")

    class Halves(nn.Module):
        def forward(self, x):
            return torch.stack([x[..., :3].mean((2, 3)), x[..., 2:].mean((2, 3))], -1).flatten(1)

    dense = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3, bias=False))
    images = nn.Sequential(
        nn.Conv2d(2, 3, (3, 2), stride=(2, 1), padding=1, dilation=(1, 2)),
        nn.Tanh(),
        Wrap(),
        nn.Conv2d(3, 4, 2, bias=False),
        nn.Tanh(),
        Halves(),
        nn.Linear(8, 3),
    )
    return {
        "mlp": (dense, lambda p: [p["first"]["kernel"].T, p["first"]["bias"], p["last"]["kernel"].T]),
        "cnn": (images, lambda p: [p["one"]["w"], p["one"]["b"], p["two"]["w"], p["three"]["w"], p["three"]["b"]]),
    }


@pytest.mark.parametrize("network", [pytest.param("mlp", marks=pytest.mark.thorough), "cnn"])
def test_same_as_in_torch(network, comm):
    model, arrays = in_torch()[network]
    import torch

    from sparsehess.hosts.torch import kfac as torch_factors

    given = {"mlp": (mlp, MLP, INPUTS, CLASSES), "cnn": (cnn, CNN, IMAGES, LABELS)}
    apply, params, inputs, targets = given[network]
    model.double()
    for leaf, array in zip(model.parameters(), arrays(params), strict=True):
        leaf.data.copy_(torch.tensor(array.copy()))
    # The variables of JAX in the order of PyTorch.
    leaves, tree = jax.tree_util.tree_flatten(params)
    ends = np.cumsum([0] + [leaf.size for leaf in leaves])
    numbers = [begin + np.arange(leaf.size).reshape(leaf.shape) for begin, leaf in zip(ends, leaves, strict=False)]
    order = np.concatenate([array.ravel() for array in arrays(tree.unflatten(numbers))])
    own = share_samples(inputs, targets, comm=comm)
    # Not EKFAC of means over positions: where images are periodic its eigenvectors are not unique.
    for ours, theirs, kind, sharing in (
        (kfac, torch_factors.kfac, "gauss-newton", "reduce"),
        (ekfac, torch_factors.ekfac, "empirical fisher", "expand"),
    ):
        given = {"curvature": kind, "sharing": sharing, "comm": comm}
        with (
            ours(apply, entropy, params, *own, **given) as found,
            theirs(model, torch.nn.CrossEntropyLoss(), *own, **given) as exact,
        ):
            assert off(entries(found)[np.ix_(order, order)], entries(exact)) < 1e-12


def test_exact_for_one_linear_layer(comm):
    params = {"kernel": DRAWN.normal(size=(4, 3)), "bias": DRAWN.normal(size=3)}
    exact = dense(linear, squares, params, INPUTS, VALUES)["gauss-newton"]
    with kfac(linear, squares, params, *share_samples(INPUTS, VALUES, comm=comm), comm=comm) as found:
        assert off(entries(found), exact) < 1e-14
        np.testing.assert_allclose(found.spectrum(15), np.linalg.eigvalsh(exact), atol=1e-14)
    own = share_samples(INPUTS, VALUES, comm=comm)
    with kfac(linear, lambda z, y: 3 * len(z) * squares(z, y), params, *own, reduction="sum", comm=comm) as found:
        assert off(entries(found), 27 * exact) < 1e-14
    # One sample, whatever the loss; on one rank, while others have none.
    one = share_samples(INPUTS[:1], CLASSES[:1], comm=comm)
    for kind, exact in dense(linear, entropy, params, INPUTS[:1], CLASSES[:1]).items():
        for build in (kfac, ekfac):
            with build(linear, entropy, params, *one, curvature=kind, comm=comm) as found:
                assert off(entries(found), exact) < 1e-13


def test_exact_layer_by_layer_for_linear_networks(comm):
    """Martens, Grosse 2015, section 3.1: slopes do not depend on inputs. Convolutions: Eschenhagen et al. 2023."""
    deep = {"a": MLP["first"], "b": DRAWN.normal(size=(5, 2)), "c": DRAWN.normal(size=(2, 3))}
    wanted = DRAWN.normal(size=np.shape(convolution(CNN["one"], IMAGES)))
    for apply, params, sharing, inputs, targets in (
        (lambda p, x: linear(p["a"], x) @ p["b"] @ p["c"], deep, "expand", INPUTS, VALUES),
        (lambda p, x: convolution(p, x).mean((2, 3)), CNN["one"], "reduce", IMAGES[:9], VALUES),
        (convolution, CNN["one"], "expand", IMAGES, wanted),
    ):
        exact = dense(apply, squares, params, inputs, targets)["gauss-newton"]
        own = share_samples(inputs, targets, comm=comm)
        with kfac(apply, squares, params, *own, sharing=sharing, comm=comm) as found:
            assert off(entries(found), blocks_of(exact, found.variables)) < 1e-13


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("gauss-newton", {"sharing": "reduce"}),
        pytest.param("empirical fisher", {"memory": 1}, marks=pytest.mark.thorough),  # a sample at a time
    ],
)
def test_corrected_eigenvalues(kind, options, comm):
    exact, own = of_cnn()[kind], share_samples(IMAGES, LABELS, comm=comm)
    given = {"curvature": kind, "comm": comm, **options}
    with kfac(cnn, entropy, CNN, *own, **given) as plain, ekfac(cnn, entropy, CNN, *own, **given) as best:
        assert best.trace() == pytest.approx(np.trace(exact), rel=1e-12)
        corrected(best, exact, comm)
        block = blocks_of(exact, best.variables)
        assert off(entries(best), block) <= off(entries(plain), block)


def by_heads(params, inputs):
    """Return outputs of layers with several axes of inputs and of outputs, and one with a matrix for each head."""
    x = jnp.tanh(jnp.einsum("ns,shd->nhd", inputs, params["split"]))
    x = jnp.tanh(jnp.einsum("nhd,hde->nhe", x, params["each"]))
    return jnp.einsum("nhe,heo->no", x, params["join"]) + params["bias"].reshape(1, -1)


def one_by_one(params, inputs):
    """Return outputs of layers written for one sample, behind `jit` and `checkpoint`, with lists for trees."""
    (W, b), (V, c) = params

    @jax.jit
    def hidden(x):
        return jax.nn.relu(b + W @ x)

    return jax.vmap(lambda x: jax.checkpoint(lambda h: h @ V.T)(hidden(x)) + c)(inputs)


def repeated(params, inputs):
    """Return outputs of a network that goes through one layer twice, at two positions, and around it."""
    x = inputs.reshape(len(inputs), 2, 2)
    for _ in range(2):
        x = jnp.tanh(x + x @ params["dense"]["kernel"] + params["dense"]["bias"])
    return x.reshape(len(inputs), -1) @ params["out"]


def channels_last(params, inputs):
    """Return outputs of convolutions with channels last, the second of them transposed, the third turned round."""
    numbers = ("NHWC", "HWIO", "NHWC")
    x = inputs[:, :, :3].transpose(0, 2, 3, 1)
    x = jnp.tanh(
        jax.lax.conv_general_dilated(x, params["down"], (2, 2), "SAME", dimension_numbers=numbers) + params["c"]
    )
    x = jnp.tanh(jax.lax.conv_transpose(x, params["up"], (2, 1), "VALID", dimension_numbers=numbers))
    x = jax.lax.conv_general_dilated(x, params["flip"][::-1, ::-1], (1, 1), "SAME", dimension_numbers=numbers)
    return x.mean(2)[:, :3].sum(2)


def normed(params, inputs):
    """Return outputs of a network with parameters that are no factors, one added to what is read elsewhere too."""
    s = inputs @ params["W"]
    x = jnp.tanh(s + params["both"]) * params["scale"] + s
    x, _ = jax.lax.scan(lambda x, V: (jnp.tanh(x @ V), None), x, params["loop"])
    return x @ params["out"] + jax.lax.stop_gradient(params["out"]).sum()


def drawn(*shapes):
    return [np.random.default_rng(size).normal(size=shape) for size, shape in enumerate(shapes)]


WRITTEN = {
    "by heads": (
        by_heads,
        dict(zip(("split", "each", "join", "bias"), drawn((4, 2, 3), (2, 3, 2), (2, 2, 3), (3,)), strict=True)),
        {"split": (6, 4), "join": (3, 5)},
        ("each",),
    ),
    "one by one": (
        one_by_one,
        [tuple(drawn((5, 4), (5,))), tuple(drawn((3, 5), (3,)))],
        {"0": (5, 5), "1": (3, 6)},
        (),
    ),
    "repeated": (
        repeated,
        {"dense": dict(zip(("kernel", "bias"), drawn((2, 2), (2,)), strict=True)), "out": drawn((4, 3))[0]},
        {"dense": (2, 3), "out": (3, 4)},
        (),
    ),
    "channels last": (
        channels_last,
        dict(zip(("down", "c", "up", "flip"), drawn((3, 2, 2, 3), (3,), (2, 2, 3, 2), (2, 1, 2, 2)), strict=True)),
        {"down": (3, 13), "up": (2, 12), "flip": (2, 4)},
        (),
    ),
    "normed": (
        normed,
        dict(
            zip(("W", "both", "scale", "loop", "out"), drawn((4, 3), (3,), (3,), (2, 3, 3), (3, 3)), strict=True),
        ),
        {"W": (3, 4), "out": (3, 3)},
        ("both", "loop", "scale"),
    ),
}


@pytest.mark.parametrize(
    "name",
    ["repeated", *(pytest.param(name, marks=pytest.mark.thorough) for name in WRITTEN if name != "repeated")],
)
def test_layers_are_found_however_they_are_written(name, comm):
    apply, params, sizes, uncovered = WRITTEN[name]
    inputs = IMAGES[:9] if name == "channels last" else INPUTS
    exact = dense(apply, entropy, params, inputs, CLASSES)["gauss-newton"]
    with ekfac(apply, entropy, params, *share_samples(inputs, CLASSES, comm=comm), comm=comm) as found:
        assert {name: (len(part.QA), len(part.QB)) for name, part in found.parts.items()} == sizes
        assert found.uncovered == uncovered
        parts = parameter_slices(params)
        assert found.missing == sum(parts[name].stop - parts[name].start for name in uncovered)
        corrected(found, exact, comm)


def test_some_parameters_alone(comm):
    own = share_samples(INPUTS, CLASSES, comm=comm)
    exact = dense(mlp, entropy, MLP, INPUTS, CLASSES)["gauss-newton"]
    every, parts = np.arange(len(exact)), parameter_slices(MLP)
    for chosen, covered in ((r".*/kernel", (4, 5)), ("first/bias", (1,)), (r"first/.*", (5,))):
        rows = np.concatenate(
            [every[part] for name, part in parts.items() if name in parameter_slices(MLP, chosen)]
        )
        with ekfac(mlp, entropy, MLP, *own, parameters=chosen, comm=comm) as found:
            assert found.missing == 0 and tuple(len(part.QB) for part in found.parts.values()) == covered
            corrected(found, exact[np.ix_(rows, rows)], comm)


def pooled(params, inputs):
    return jnp.tanh(convolution(params, inputs)).mean((2, 3))


def test_chunks_and_shares_make_no_difference(comm):
    own = share_samples(IMAGES, LABELS, comm=comm)
    # All on the last rank; the others' arrays have not even the right shape.
    mine = comm.rank == comm.size - 1
    last = (IMAGES, LABELS) if mine else (np.zeros((0, 1)), np.zeros(0, int))
    with (
        kfac(pooled, entropy, CNN["one"], *own, comm=comm) as whole,
        kfac(pooled, entropy, CNN["one"], *own, memory=1, comm=comm) as pieces,
        kfac(pooled, entropy, CNN["one"], *last, comm=comm) as alone,
    ):
        for other in (pieces, alone):
            assert off(entries(other), entries(whole)) < 1e-13


def test_what_has_no_factors_is_named(comm):
    own, W = share_samples(INPUTS, CLASSES, comm=comm), {"W": np.eye(4)[:, :3], "S": np.eye(4)}

    def refused(apply, match, params=W, loss=entropy, given=own, kind=InputError, **more):
        with pytest.raises(kind, match=match):
            kfac(apply, loss, params, *given, comm=comm, **more)

    refused(lambda p, x: x @ p["S"] @ p["S"].T @ p["W"], "S is applied in two ways")
    refused(lambda p, x: x @ p["W"] + (p["W"] ** 2).sum(), "W is in a layer, and integer_pow reads it: shared")
    biased = {"W": np.ones((3, 3)), "b": np.ones(3), "V": np.ones((4, 3))}
    refused(
        lambda p, x: (x @ p["V"] + p["b"]) @ p["W"] + p["b"], "b is in 2 layers, V with b and W with b", biased
    )
    refused(lambda p, x: (x @ p["V"] @ p["W"] + p["b"]) @ p["W"], "W is in 2 layers, W with b and W", biased)
    refused(lambda p, x: x[:, :3] * p["b"], "no linear or convolution layer", {"b": np.ones(3)})
    refused(lambda p, x: x @ p["W"], "not convex", loss=lambda z, y: -(z**2).mean())
    refused(lambda p, x: x @ p["W"], "memory=0: at least 1", memory=0)
    refused(
        lambda p, x: x @ p["W"], r"raised KeyError: .*none", loss=lambda z, y: {}["none"], kind=EvaluationError
    )
    late = lambda p, x: x @ p["W"] if comm.rank < comm.size - 1 or len(x) > 1 else 1 / 0  # noqa: E731
    refused(late, "raised ZeroDivisionError", kind=EvaluationError)
    refused(lambda p, x: x @ p["W"], "'hessian' is none of gauss-newton", curvature="hessian")
    refused(lambda p, x: (), "must return arrays of floating point, or a tree", loss=lambda z, y: 0.0)
    refused(lambda p, x: (x @ p["W"]).squeeze(), r"one alone has \(3,\)")
    refused(lambda p, x: x @ p["W"] - (x @ p["W"]).mean(0), "samples depend on each other", kind=CheckError)
    images = share_samples(IMAGES, LABELS, comm=comm)
    grouped = {"w": np.ones((4, 1, 3, 3))}
    refused(
        lambda p, x: jax.lax.conv_general_dilated(x, p["w"], (1, 1), "SAME", feature_group_count=2).mean((2, 3)),
        "w is of a convolution in 2 groups",
        grouped,
        given=images,
    )
