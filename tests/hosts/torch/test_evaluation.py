"""Models as users have them, beside the same function written plainly in double precision."""

import dataclasses
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest

import sparsehess as sh
from sparsehess.errors import CheckError, EvaluationError, InputError
from sparsehess.hosts.learning.sample_shares import share_samples

torch = pytest.importorskip("torch")

from sparsehess.hosts.torch.kfac import ekfac, kfac  # noqa: E402
from sparsehess.hosts.torch.model_curvature import empirical_fisher, gauss_newton, hessian  # noqa: E402

pytestmark = pytest.mark.parallel([1, 2, 3])
F = torch.nn.functional

DRAWN = np.random.default_rng(8)
INPUTS, CLASSES = DRAWN.normal(size=(18, 4)), DRAWN.integers(0, 3, 18)
WORDS = DRAWN.integers(0, 7, (18, 3))
ENTROPY = torch.nn.CrossEntropyLoss()
KINDS = {"hessian": hessian, "gauss-newton": gauss_newton, "fisher": empirical_fisher}


class Layers(torch.nn.Module):
    """Two layers, what is between them given; the same parameters each time."""

    def __init__(self, between=torch.tanh, words=0):
        super().__init__()
        torch.manual_seed(4)
        self.first = torch.nn.Parameter(torch.randn(words, 5)) if words else torch.nn.Linear(4, 5)
        self.last, self.between = torch.nn.Linear(5, 3), between

    def forward(self, x):
        return self.last(self.between(self.first(x)))


class Words(Layers):
    """Layers of the words of a sample."""

    def __init__(self, between):
        super().__init__(between, words=7)

    def forward(self, words):
        return self.last(torch.tanh(self.between(words, self.first)))


def dense(model, loss, inputs):
    """Return the Hessian, Gauss–Newton and Fisher matrix of a model of one tensor, by dense derivatives."""
    model, targets = model.double(), torch.tensor(CLASSES)
    parameters = dict(model.named_parameters())
    start = torch.cat([one.detach().ravel() for one in parameters.values()])

    def outputs(x):
        pieces = x.split([one.numel() for one in parameters.values()])
        named = {key: v.view_as(p) for (key, p), v in zip(parameters.items(), pieces, strict=True)}
        return torch.func.functional_call(model, named, (torch.tensor(inputs),))

    z, count = outputs(start), len(inputs)
    J = torch.autograd.functional.jacobian(outputs, start).reshape(z.numel(), -1)
    L = torch.autograd.functional.hessian(lambda z: loss(z, targets), z).reshape(z.numel(), -1)
    slopes = torch.autograd.functional.jacobian(lambda z: count * loss(z, targets), z).reshape(count, -1)
    G = torch.einsum("sc,scp->sp", slopes, J.reshape(count, -1, len(start)))
    H = torch.autograd.functional.hessian(lambda x: loss(outputs(x), targets), start)
    return {"hessian": H.numpy(), "gauss-newton": (J.T @ L @ J).numpy(), "fisher": (G.T @ G / count).numpy()}


def check(model, plain, comm, inputs=INPUTS, loss=ENTROPY, plain_loss=None, kinds=KINDS):
    """Hold the curvature of a model against that of a plain one."""
    wanted = dense(plain, plain_loss or loss, inputs)
    own = share_samples(inputs, CLASSES, comm=comm)
    for name in kinds:
        made = KINDS[name](model, loss, *own, comm=comm)
        found = comm.allreduce(made.hvps(made.x, np.eye(made.n)))
        assert np.abs(found - wanted[name]).max() <= 1e-13 * np.abs(wanted[name]).max(), name


def by_hand(reduce):
    """Return words and a matrix -> one row a sample, of rows of the matrix."""
    return lambda words, W: reduce(W[words])


BAGS = {
    "sparse": (lambda w, W: F.embedding(w, W, sparse=True).sum(1), lambda rows: rows.sum(1)),
    "sum": (lambda w, W: F.embedding_bag(w, W, mode="sum", sparse=True), lambda rows: rows.sum(1)),
    "mean": (lambda w, W: F.embedding_bag(w, W, sparse=True), lambda rows: rows.mean(1)),
    "max": (lambda w, W: F.embedding_bag(w, W, mode="max"), lambda rows: rows.amax(1)),
    "weights": (
        lambda w, W: F.embedding_bag(w, W, mode="sum", per_sample_weights=(w + 1).to(W.dtype)),
        None,
    ),
    "padding": (lambda w, W: F.embedding_bag(w, W, mode="mean", padding_idx=2), None),
    "offsets": (
        lambda w, W: F.embedding_bag(w.ravel(), W, torch.arange(0, w.numel(), 3), mode="sum"),
        lambda rows: rows.sum(1),
    ),
    "last offset": (
        lambda w, W: F.embedding_bag(
            w.ravel(), W, torch.arange(0, w.numel() + 1, 3), mode="max", include_last_offset=True
        ),
        lambda rows: rows.amax(1),
    ),
}
BY_HAND = {
    "weights": lambda w, W: (W[w] * (w + 1)[..., None]).sum(1),
    "padding": lambda w, W: (W[w] * (w != 2)[..., None]).sum(1) / (w != 2).sum(1).clamp(min=1)[:, None],
}


@pytest.mark.parametrize("name", BAGS)
def test_bags_of_embeddings(name, comm):
    bag, reduce = BAGS[name]
    check(Words(bag), Words(BY_HAND.get(name) or by_hand(reduce)), comm, WORDS)


@pytest.mark.parametrize("tied", [False, True])
def test_the_row_of_padding_is_a_constant(tied, comm):
    """As PyTorch's gradient has it, which is that of a function: products, gradient and loss belong together."""

    class Padded(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(1)
            self.words = torch.nn.Embedding(7, 3, padding_idx=2)
            self.words.weight.data.normal_()
            self.out = torch.nn.Linear(3, 7, bias=False)
            if tied:
                self.out.weight = self.words.weight

        def forward(self, words):
            return self.out(torch.tanh(self.words(words).sum(1)))[:, :3]

    class Plain(Padded):
        def __init__(self):
            super().__init__()
            self.row = self.words.weight[2].detach().double()

        def forward(self, words):
            rows = torch.where((words == 2)[..., None], self.row, self.words.weight[words])
            return self.out(torch.tanh(rows.sum(1)))[:, :3]

    check(Padded(), Plain(), comm, WORDS)
    own = share_samples(WORDS, CLASSES, comm=comm)
    wanted = np.linalg.eigvalsh(dense(Plain(), ENTROPY, WORDS)["hessian"])
    for make in (
        hessian(Padded(), ENTROPY, *own, comm=comm),
        hessian(Padded(), ENTROPY, *own, memory=1, comm=comm),
    ):
        with sh.MatrixFree(make) as free, sh.eigs(free, 2, which="largest") as found:
            np.testing.assert_allclose(found.eigenvalues, wanted[-2:], atol=1e-10)


def test_empty_bags_are_zero(comm):
    class Ragged(Words):
        def forward(self, words):  # every third sample has no words
            kept = words[:, 0] % 3 > 0
            sizes = torch.where(kept, 3, 0)
            offsets = torch.cumsum(sizes, 0) - sizes
            bag = F.embedding_bag(words[kept].ravel(), self.first, offsets, mode=self.between)
            return self.last(torch.tanh(bag))

    for mode, reduce in (("max", lambda rows: rows.amax(1)), ("mean", lambda rows: rows.mean(1))):
        plain = Words(lambda w, W, reduce=reduce: reduce(W[w]) * (w[:, :1] % 3 > 0))
        check(Ragged(mode), plain, comm, WORDS)


def test_modules_with_sparse_embeddings_that_are_tied(comm):
    class Tied(torch.nn.Module):
        def __init__(self, sparse):
            super().__init__()
            torch.manual_seed(1)
            self.words = torch.nn.EmbeddingBag(7, 3, mode="sum", sparse=sparse)
            self.out = torch.nn.Linear(3, 7, bias=False)
            self.out.weight = self.words.weight

        def forward(self, words):
            return self.out(torch.tanh(self.bag(words)))[:, :3]

    class Sparse(Tied):
        def bag(self, words):
            return self.words(words)

    class Plain(Tied):
        def bag(self, words):
            return self.words.weight[words].sum(1)

    check(Sparse(True), Plain(False), comm, WORDS)


CASTS = {
    "softmax in single": lambda h: torch.softmax(h.float(), -1).to(h.dtype),
    "softmax by its type": lambda h: torch.softmax(h, -1, dtype=torch.float32).type_as(h),
    "bfloat16": lambda h: torch.softmax(h.bfloat16(), -1).to(h.dtype),
    "half": lambda h: F.softmax(h.to(torch.float16), dim=-1).to(h),
    "to a device and a type": lambda h: torch.softmax(h.to("cpu", torch.float32), -1).double(),
    "a factory": lambda h: torch.softmax(h @ torch.eye(5), -1),
    "a sum": lambda h: h.exp() / h.exp().sum(-1, keepdim=True, dtype=torch.float32),
}


@pytest.mark.parametrize("name", CASTS)
def test_casts_of_what_depends_on_variables_are_left_out(name, comm):
    check(Layers(CASTS[name]), Layers(lambda h: torch.softmax(h, -1)), comm)


def test_outputs_and_losses_in_single_precision(comm):
    check(Layers(), Layers(), comm, loss=lambda z, y: ENTROPY(z.float(), y), plain_loss=ENTROPY)


def test_constants_have_the_digits_that_they_are_given(comm):
    def scaled(h):
        generator = torch.Generator().manual_seed(3)
        return h * torch.randn(5, generator=generator, dtype=torch.float32).bfloat16()

    noise = torch.randn(5, generator=torch.Generator().manual_seed(3)).bfloat16().double()
    check(Layers(scaled), Layers(lambda h: h * noise), comm)


def test_autocast_inside_and_around(comm):
    """Products in single precision are as good as single precision."""

    def cast(h):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return torch.tanh(h @ h.new_ones(5, 5))

    wanted = dense(Layers(lambda h: torch.tanh(h @ h.new_ones(5, 5))), ENTROPY, INPUTS)["hessian"]
    own = share_samples(INPUTS, CLASSES, comm=comm)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        made = hessian(Layers(cast), ENTROPY, *own, products="float32", comm=comm)
        found = comm.allreduce(made.hvps(made.x, np.eye(made.n)))
    assert 0 < np.abs(found - wanted).max() < 1e-5 * np.abs(wanted).max()


def test_without_gradients_and_for_inference(comm):
    with torch.inference_mode():
        check(Layers(), Layers(), comm, kinds=[])
        model = Layers()
        own = [torch.tensor(one) for one in share_samples(INPUTS, CLASSES, comm=comm)]
        made = hessian(model, ENTROPY, *own, comm=comm)
        found = comm.allreduce(made.hvps(made.x, np.eye(made.n)))
    assert np.abs(found - dense(Layers(), ENTROPY, INPUTS)["hessian"]).max() < 1e-14


@pytest.mark.parametrize("backend", ["FLASH_ATTENTION", "MATH"])
def test_attention_by_a_kernel_of_the_models_choice(backend, comm):
    attention = pytest.importorskip("torch.nn.attention")

    def heads(h):
        return h[:, :4, None] * torch.arange(1.0, 3.0)

    def fused(h):
        q = heads(h)[:, None]
        with attention.sdpa_kernel(getattr(attention.SDPBackend, backend)):
            mixed = F.scaled_dot_product_attention(q, q, q)[:, 0].flatten(1)
        return torch.cat([mixed[:, :4], h[:, :1]], 1)

    def plain(h):
        q = heads(h)
        weights = torch.softmax(q @ q.transpose(1, 2) / np.sqrt(q.shape[-1]), -1)
        return torch.cat([(weights @ q).flatten(1)[:, :4], h[:, :1]], 1)

    check(Layers(fused), Layers(plain), comm)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning", "ignore:The .grad attribute")
def test_compiled_models(comm):
    check(torch.compile(Layers()), Layers(), comm)
    scripted = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3))
    check(torch.jit.script(scripted), scripted, comm)


@dataclasses.dataclass
class Record:
    classes: object
    rest: object
    name: str = "one"


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    classes: object
    rest: object


class Named(NamedTuple):
    classes: object
    rest: object


class Attributes(dict):
    """A dictionary that is read by attributes too."""

    def __getattr__(self, name):
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


@dataclasses.dataclass
class ModelOutput(dict):
    """A data class that is a dictionary of what is there."""

    classes: object = None
    rest: object = None
    missing: object = None

    def __post_init__(self):
        self.update(
            {key: getattr(self, key) for key in ("classes", "rest", "missing") if getattr(self, key) is not None}
        )

    def __setitem__(self, key, value):
        super().__setitem__(key, value)
        super().__setattr__(key, value)


OUTPUTS = {
    "data class": Record,
    "frozen": Frozen,
    "named tuple": Named,
    "namespace": lambda classes, rest: SimpleNamespace(classes=classes, rest=rest, empty={}, none=None),
    "attributes": lambda classes, rest: Attributes(classes=classes, rest=rest, empty=(), place=rest[0].argmax(1)),
    "model output": ModelOutput,
}


def loss_of_outputs(outputs, targets):
    return ENTROPY(outputs.classes, targets) + (outputs.rest[0] ** 2).sum(1).mean()


class Several(Layers):
    def forward(self, x):
        hidden = torch.tanh(self.first(x))
        return self.between(self.last(hidden), [hidden])


@pytest.mark.parametrize("kind", OUTPUTS)
def test_outputs_in_containers(kind, comm):
    plain = Several(lambda z, rest: torch.cat([z, rest[0]], 1))
    check(
        Several(OUTPUTS[kind]), plain, comm, loss=loss_of_outputs,
        plain_loss=lambda z, y: loss_of_outputs(Record(z[:, :3], [z[:, 3:]]), y),
    )  # fmt: skip


def test_factors_of_outputs_in_containers(comm):
    own = share_samples(INPUTS, CLASSES, comm=comm)
    plain = Several(lambda z, rest: torch.cat([z, rest[0]], 1))
    arguments = {
        "several": (Several(Record), loss_of_outputs),
        "one": (plain, lambda z, y: loss_of_outputs(Record(z[:, :3], [z[:, 3:]]), y)),
    }
    for make in (kfac, ekfac):
        for curvature in ("gauss-newton", "empirical fisher"):
            found = {}
            for name, given in arguments.items():
                with make(*given, *own, curvature=curvature, comm=comm) as blocks:
                    found[name] = blocks.diagonal(), blocks.trace()
            np.testing.assert_allclose(*(one[0] for one in found.values()), rtol=1e-12)
            assert found["several"][1] == pytest.approx(found["one"][1])


def test_complex_outputs_and_constants(comm):
    class Waves(Layers):
        def __init__(self):
            super().__init__()
            self.turn = torch.nn.Parameter(torch.tensor([0.6 + 0.8j]), requires_grad=False)

        def forward(self, x):
            return torch.view_as_complex(F.pad(super().forward(x), (0, 1)).reshape(-1, 2, 2)) * self.turn

    turn = torch.tensor([0.6 + 0.8j]).to(torch.complex128).abs().item() ** 2
    check(
        Waves(), Layers(), comm, loss=lambda z, y: (z.abs() ** 4).sum(1).mean(),
        plain_loss=lambda z, y: turn**2 * (((z[:, :2] ** 2).sum(1)) ** 2 + z[:, 2] ** 4).mean(),
        kinds=["hessian", "gauss-newton"],
    )  # fmt: skip
    turning = Waves()
    turning.turn.requires_grad_(True)
    with pytest.raises(InputError, match=r"turn is complex.*view_as_complex"):
        hessian(turning, lambda z, y: (z.abs() ** 4).mean(), *share_samples(INPUTS, CLASSES, comm=comm), comm=comm)


def test_what_has_no_known_outputs_is_named(comm):
    own = share_samples(INPUTS, CLASSES, comm=comm)
    with pytest.raises(InputError, match="returns a Normal, and which tensors are in it is not known"):
        gauss_newton(
            Several(lambda z, rest: torch.distributions.Normal(z, 1.0)),
            lambda o, y: -o.log_prob(F.one_hot(y, 3).to(o.loc.dtype)).sum(1).mean(),
            *own,
            comm=comm,
        )


class Hidden(Layers):
    """A first layer whose slopes PyTorch does not see."""

    def forward(self, x):
        return self.last(self.between(self, x))


@pytest.mark.filterwarnings("ignore:None of the inputs")
@pytest.mark.parametrize("kind", KINDS)
def test_parameters_that_are_out_of_sight_are_named(kind, comm):
    own = share_samples(INPUTS, CLASSES, comm=comm)
    checkpoint = torch.utils.checkpoint.checkpoint
    for between in (
        lambda m, x: torch.tanh(m.first(x)).detach(),
        lambda m, x: checkpoint(lambda at: torch.tanh(m.first(at)), x, use_reentrant=True),
    ):
        with pytest.raises(InputError, match=r"depends on first\.weight in a way that PyTorch does not see"):
            KINDS[kind](Hidden(between), ENTROPY, *own, comm=comm)
    # Frozen it is a constant, and a comparison is one.
    made = KINDS[kind](
        Hidden(lambda m, x: torch.tanh(m.first(x)).detach()), ENTROPY, *own, parameters="last.*", comm=comm
    )
    assert made.n == 18
    KINDS[kind](Hidden(lambda m, x: (m.first(x) > 0).to(x.dtype)), ENTROPY, *own, comm=comm)


def test_checkpoints(comm):
    checkpoint = torch.utils.checkpoint.checkpoint
    check(
        Hidden(lambda m, x: checkpoint(lambda at: torch.tanh(m.first(at)), x, use_reentrant=False)),
        Hidden(lambda m, x: torch.tanh(m.first(x))),
        comm,
    )
    own = share_samples(INPUTS, CLASSES, comm=comm)
    casts = Hidden(
        lambda m, x: checkpoint(lambda at: torch.tanh(m.first(at)).float().exp(), x, use_reentrant=False)
    )
    with pytest.raises(EvaluationError, match="switch checkpoints off"):
        hessian(casts, ENTROPY, *own, comm=comm)


def test_functions_of_the_core_are_evaluated_alike():
    words = torch.tensor(WORDS)
    made = sh.from_torch(
        lambda W: torch.softmax(F.embedding_bag(words, W, sparse=True).float(), -1).square().sum(), np.eye(7, 4)
    )
    plain = sh.from_torch(lambda W: torch.softmax(W[words].mean(1), -1).square().sum(), np.eye(7, 4))
    V = np.eye(28)
    np.testing.assert_allclose(made.hvps(made.x, V), plain.hvps(plain.x, V), atol=1e-13)


class Normed(Layers):
    """A first layer whose matrix has rows of a given length; by a function, by a hook or by a parametrization."""

    def __init__(self, kind):
        super().__init__()
        self.first = getattr(self, kind)(torch.nn.Linear(4, 5))

    def hook(self, layer):
        out = torch.nn.utils.weight_norm(layer)
        out(torch.ones(1, 4))  # the hook keeps what it has made of parameters
        return out

    def parametrization(self, layer):
        return torch.nn.utils.parametrizations.weight_norm(layer)


class ByHand(torch.nn.Module):
    """The same with its parameters in the same order."""

    def __init__(self, of):
        super().__init__()
        for name, one in of.named_parameters():
            self.register_parameter(name.replace(".", "_"), torch.nn.Parameter(one.detach().double()))

    def forward(self, x):
        bias, g, v, W, b = self.parameters()
        return torch.tanh(x @ (v * g / v.norm(dim=1, keepdim=True)).T + bias) @ W.T + b


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning", "ignore:.*weight_norm.*:DeprecationWarning")
@pytest.mark.parametrize("kind", ["hook", "parametrization"])
def test_normed_weights(kind, comm):
    """PyTorch's own has Hessians that are not symmetric."""
    check(Normed(kind), ByHand(Normed(kind)), comm)


def test_distances(comm):
    places = torch.arange(15.0).reshape(3, 5) / 7

    def by_hand(h):
        return (h[:, None] - places.to(h.dtype)).square().sum(-1).sqrt()

    check(
        Layers(lambda h: F.pad(torch.cdist(h, places.to(h.dtype)), (0, 2))),
        Layers(lambda h: F.pad(by_hand(h), (0, 2))),
        comm,
    )


def test_distances_from_oneself():
    """Those of a point from itself are zero however it moves."""
    points, V = np.random.default_rng(0).normal(size=(4, 2)), np.eye(8)

    def pairs(x):
        return sum((x[i] - x[j]).square().sum().sqrt() for i in range(4) for j in range(i))

    plain = sh.from_torch(pairs, points)
    for function, factor in ((torch.pdist, 1), (F.pdist, 1), (lambda x: torch.cdist(x, x), 2)):
        made = sh.from_torch(lambda x, of=function: of(x).sum(), points)
        np.testing.assert_allclose(made.hvps(made.x, V), factor * plain.hvps(plain.x, V), atol=1e-13)


def test_modules_that_keep_what_they_have_computed(comm):
    class Keeps(Layers):
        def forward(self, x):
            self.kept = {"hidden": [torch.tanh(self.first(x))]}
            return self.last(self.kept["hidden"][0])

    model = Keeps()
    kept = model(torch.ones(2, 4)) is not None and model.kept["hidden"][0]
    check(model, Layers(), comm)
    assert model.kept["hidden"][0] is kept  # the caller's stays as it was


def test_tensors_that_modules_hold_beside_buffers(comm):
    class Holds(Layers):
        def __init__(self):
            super().__init__()
            self.turned = torch.eye(5).flip(0)  # of single precision

        def forward(self, x):
            return self.last(torch.tanh(self.first(x)) @ self.turned)

    check(Holds(), Layers(lambda h: torch.tanh(h).flip(1)), comm)


def test_recurrent_layers(comm):
    class Recurrent(Layers):
        def __init__(self):
            super().__init__()
            self.first = torch.nn.GRU(2, 5, batch_first=True)

        def forward(self, x):
            return self.last(self.first(x.reshape(-1, 2, 2))[0][:, -1])

    class Steps(Recurrent):
        def forward(self, x):
            W, V, b, c = (
                self.first.weight_ih_l0,
                self.first.weight_hh_l0,
                self.first.bias_ih_l0,
                self.first.bias_hh_l0,
            )
            h = x.new_zeros(len(x), 5)
            for step in x.reshape(-1, 2, 2).unbind(1):
                (r, z, n), (s, y, m) = (step @ W.T + b).chunk(3, 1), (h @ V.T + c).chunk(3, 1)
                z = torch.sigmoid(z + y)
                h = (1 - z) * torch.tanh(n + torch.sigmoid(r + s) * m) + z * h
            return self.last(h)

    check(Recurrent(), Steps(), comm)


def test_weights_of_classes_that_fit_by_chance(comm):
    """A third of the samples weighs a third of all: that says nothing of each sample."""
    classes = np.array([0, 0, 1, 2, 1, 2, 0, 0, 2, 2, 0, 0])
    inputs = np.random.default_rng(0).normal(size=(12, 4))
    weighted = torch.nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 5.0]).double())
    for make in (empirical_fisher, kfac, ekfac):
        with pytest.raises(CheckError, match="samples have different weights"):
            make(Layers(), weighted, *share_samples(inputs, classes, comm=comm), comm=comm)
