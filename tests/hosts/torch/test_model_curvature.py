"""Curvature of PyTorch models on data over ranks, by layers, and its factors; any number of ranks."""

import numpy as np
import pytest

import sparsehess as sh
from sparsehess.errors import CheckError, InputError
from sparsehess.hosts.learning.parameter_groups import diagonal_blocks, group_labels, layer_variables
from sparsehess.hosts.learning.sample_shares import draw_mini_batch, share_samples

torch = pytest.importorskip("torch")

from sparsehess.hosts.torch.model_curvature import empirical_fisher, gauss_newton, hessian  # noqa: E402
from sparsehess.hosts.torch.parameters import parameter_slices  # noqa: E402

pytestmark = pytest.mark.parallel([1, 2])

DRAWN = np.random.default_rng(5)
INPUTS, CLASSES = DRAWN.normal(size=(13, 4)), DRAWN.integers(0, 3, 13)
KINDS = {"hessian": hessian, "gauss-newton": gauss_newton, "fisher": empirical_fisher}
ENTROPY = torch.nn.CrossEntropyLoss()
FUNCTIONAL = (torch.func if hasattr(torch, "func") else torch.nn.utils.stateless).functional_call


def network(seed=0):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3))


def dense(model, loss, inputs, targets, names=None, mean=True):
    """Return the Hessian, the Gauss–Newton and the empirical Fisher matrix by dense derivatives of samples."""
    model = model.double()
    parameters = dict(model.named_parameters())
    names = [*parameters] if names is None else names
    start = torch.cat([parameters[name].detach().ravel() for name in names])
    sizes = [parameters[name].numel() for name in names]

    def outputs(x, sample):
        parts = {name: part.view_as(parameters[name]) for name, part in zip(names, x.split(sizes), strict=True)}
        return FUNCTIONAL(model, parts, (sample[None],))

    total = {kind: np.zeros((len(start), len(start))) for kind in KINDS}
    for sample, target in zip(torch.tensor(inputs), torch.tensor(targets), strict=True):

        def value(z, target=target):
            return loss(z, target[None])

        z = outputs(start, sample).detach()
        J = torch.autograd.functional.jacobian(lambda x, s=sample: outputs(x, s).ravel(), start)
        L = torch.autograd.functional.hessian(value, z).reshape(z.numel(), z.numel())
        slope = J.T @ torch.autograd.functional.jacobian(value, z).ravel()
        H = torch.autograd.functional.hessian(lambda x, s=sample, v=value: v(outputs(x, s)), start)
        for kind, own in (("hessian", H), ("gauss-newton", J.T @ L @ J), ("fisher", torch.outer(slope, slope))):
            total[kind] += own.numpy()
    return {kind: whole / (len(inputs) if mean else 1) for kind, whole in total.items()}


def entries(objective, comm):
    """Return the (n, n) products with all unit vectors, summed over ranks."""
    return comm.allreduce(objective.hvps(objective.x, np.eye(objective.n)))


def off(found, exact):
    return np.linalg.norm(found - exact) / np.linalg.norm(exact)


@pytest.mark.parametrize("kind", KINDS)
def test_curvature_equals_dense_derivatives(kind, comm):
    exact = dense(network(), ENTROPY, INPUTS, CLASSES)[kind]
    inputs, targets = share_samples(INPUTS, CLASSES, comm=comm)
    made = {
        "whole": KINDS[kind](network(), ENTROPY, inputs, targets, comm=comm),
        "in chunks": KINDS[kind](network(), ENTROPY, inputs, targets, memory=1, comm=comm),
        "single": KINDS[kind](network(), ENTROPY, inputs, targets, products="float32", comm=comm),
    }
    assert made["whole"].batch > 1 == made["in chunks"].batch
    assert off(entries(made["whole"], comm), exact) < 1e-14
    assert off(entries(made["in chunks"], comm), exact) < 1e-14
    assert 1e-9 < off(entries(made["single"], comm), exact) < 1e-5
    with sh.MatrixFree(made["whole"]) as free:
        with sh.eigs(free, 4, which="magnitude", count="no") as found:
            values = np.linalg.eigvalsh(exact)
            wanted = np.sort(values[np.argsort(-np.abs(values))[:4]])
            np.testing.assert_allclose(np.sort(found.eigenvalues), wanted, atol=1e-9 * np.abs(values).max())
        assert free.evaluations["hvp"] > 0


def test_single_products_in_double_precision_around_them(comm):
    own = share_samples(INPUTS, CLASSES, comm=comm)
    objective = hessian(network(), ENTROPY, *own, products="float32", comm=comm)
    values = np.linalg.eigvalsh(dense(network(), ENTROPY, INPUTS, CLASSES)["hessian"])
    with (
        sh.MatrixFree(objective, precision="single") as free,
        sh.eigs(free, 5, which="largest", tol=1e-6, count="no") as found,
    ):
        np.testing.assert_allclose(np.sort(found.eigenvalues), values[-5:], atol=1e-6 * values[-1])


@pytest.mark.parametrize("memory", [2**29, 30000])
def test_an_energy_elsewhere_moves_nothing_else(memory, comm):
    objective = hessian(network(), ENTROPY, *share_samples(INPUTS, CLASSES, comm=comm), memory=memory, comm=comm)
    x, away, V = objective.x, objective.x + 0.5, np.eye(objective.n)[:3]
    slope, products, energy = objective.gradient(x), objective.hvps(x, V), objective.energy(x)
    if len(share_samples(INPUTS, comm=comm)[0]):
        assert objective.energy(away) != energy
    for function, expected in ((objective.gradient, slope), (lambda at: objective.hvps(at, V), products)):
        objective.energy(away)
        np.testing.assert_array_equal(function(x), expected)


def test_points_may_change(comm):
    objective = hessian(network(), ENTROPY, *share_samples(INPUTS, CLASSES, comm=comm), comm=comm)
    other = network(1).double()
    there = torch.nn.utils.parameters_to_vector(other.parameters()).detach().numpy()
    here = entries(objective, comm)
    objective.gradient(there)  # moves the parameters under the graphs that were kept
    assert off(entries(objective, comm), here) < 1e-15
    moved = comm.allreduce(objective.hvps(there, np.eye(objective.n)))
    assert off(moved, dense(other, ENTROPY, INPUTS, CLASSES)["hessian"]) < 1e-14
    value = ENTROPY(other(torch.tensor(INPUTS)), torch.tensor(CLASSES))
    slope = torch.cat([one.ravel() for one in torch.autograd.grad(value, list(other.parameters()))])
    assert comm.allreduce(objective.energy(there)) == pytest.approx(value.item(), rel=1e-14)
    np.testing.assert_allclose(comm.allreduce(objective.gradient(there)), slope.numpy(), atol=1e-15)


@pytest.mark.parametrize("kind", KINDS)
def test_sums_and_losses_of_other_kinds(kind, comm):
    targets = np.random.default_rng(2).normal(size=(13, 3))
    loss = torch.nn.MSELoss(reduction="sum")
    exact = dense(network(), loss, INPUTS, targets, mean=False)[kind]
    own = share_samples(INPUTS, targets, comm=comm)
    assert off(entries(KINDS[kind](network(), loss, *own, reduction="sum", comm=comm), comm), exact) < 1e-14
    with pytest.raises(CheckError, match="is a sum over samples: say reduction='sum'"):
        KINDS[kind](network(), loss, *own, comm=comm)


def test_mini_batches_are_parts_of_the_whole(comm):
    inputs, targets = share_samples(INPUTS, CLASSES, comm=comm)
    ours = draw_mini_batch(len(inputs), 6, seed=3, comm=comm)
    chosen = np.sort(np.random.default_rng(3).choice(13, 6, replace=False))
    assert sum(comm.allgather(len(ours))) == 6
    others = np.setdiff1d(np.arange(len(inputs)), ours)
    made = [hessian(network(), ENTROPY, inputs[some], targets[some], comm=comm) for some in (ours, others)]
    exact = dense(network(), ENTROPY, INPUTS[chosen], CLASSES[chosen])["hessian"]
    assert off(entries(made[0], comm), exact) < 1e-14
    whole = dense(network(), ENTROPY, INPUTS, CLASSES)["hessian"]
    with (
        sh.MatrixFree(made[0]) as one,
        sh.MatrixFree(made[1]) as two,
        sh.weighted_sum([(6 / 13, one), (7 / 13, two)]) as mean,
    ):
        v, layout = np.random.default_rng(1).normal(size=mean.n), mean.layout
        found = mean.product(v[layout.start : layout.stop])
        np.testing.assert_allclose(found, (whole @ v)[layout.start : layout.stop], atol=1e-14)
    with pytest.raises(InputError, match="14 from 13"):
        draw_mini_batch(len(inputs), 14, comm=comm)


class Adapted(torch.nn.Module):
    """A linear layer W + B A, of which only B and A are trained (Hu et al. 2021)."""

    def __init__(self, inner, outer, rank):
        super().__init__()
        self.base = torch.nn.Linear(inner, outer)
        self.A = torch.nn.Parameter(torch.randn(rank, inner) / 2)
        self.B = torch.nn.Parameter(torch.randn(outer, rank) / 2)

    def forward(self, x):
        return self.base(x) + x @ self.A.T @ self.B.T


def test_adapters_alone(comm):
    torch.manual_seed(4)
    model = torch.nn.Sequential(Adapted(4, 6, 2), torch.nn.Tanh(), Adapted(6, 3, 1))
    own = share_samples(INPUTS, CLASSES, comm=comm)
    objective = hessian(model, ENTROPY, *own, parameters=r".*\.[AB]", comm=comm)
    assert objective.n == 2 * (4 + 6) + 1 * (6 + 3)
    names = ["0.A", "0.B", "2.A", "2.B"]
    assert off(entries(objective, comm), dense(model, ENTROPY, INPUTS, CLASSES, names)["hessian"]) < 1e-14
    other = gauss_newton(model, ENTROPY, *own, parameters=lambda name: name.startswith("2."), comm=comm)
    exact = dense(model, ENTROPY, INPUTS, CLASSES, ["2.A", "2.B", "2.base.weight", "2.base.bias"])
    assert off(entries(other, comm), exact["gauss-newton"]) < 1e-14
    with pytest.raises(InputError, match="no parameter matches 'head'"):
        hessian(model, ENTROPY, *own, parameters=["head"], comm=comm)


def test_layers(comm):
    objective = hessian(network(), ENTROPY, *share_samples(INPUTS, CLASSES, comm=comm), comm=comm)
    groups = layer_variables(parameter_slices(network()))
    assert {name: len(group) for name, group in groups.items()} == {"0": 25, "2": 18}
    exact = dense(network(), ENTROPY, INPUTS, CLASSES)["hessian"]
    parts = [exact[:25, :25], exact[25:, 25:]]
    with sh.MatrixFree(objective) as free:
        with diagonal_blocks(free, groups) as found:
            union = np.sort(np.concatenate([np.linalg.eigvalsh(part) for part in parts]))
            np.testing.assert_allclose(found.spectrum(43), union, atol=1e-14)
        traces = sh.block_traces(free, group_labels(groups, objective.n), samples=200)
    wanted = [np.trace(part) for part in parts]
    assert (np.abs(traces.traces - wanted) < 5 * traces.stderr + 1e-12).all()  # exact, of so few variables
    with pytest.raises(InputError, match="18 of 43 variables are in no group"):
        group_labels({"0": groups["0"]}, 43)


class Crooked(torch.autograd.Function):
    """x·Mx, with a derivative that is right for symmetric M alone."""

    @staticmethod
    def forward(ctx, x, M):
        ctx.save_for_backward(x, M)
        return (x * (x @ M.T)).sum(1, keepdim=True)

    @staticmethod
    def backward(ctx, slope):
        x, M = ctx.saved_tensors
        return slope * (2 * x @ M.T), None


class Wrong(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Linear(4, 3)
        self.register_buffer("M", torch.tensor([[1.0, 2.0, 0.0], [0.0, 1.0, 3.0], [1.0, 0.0, 2.0]]))

    def forward(self, x):
        return Crooked.apply(self.inner(x), self.M)


def test_what_cannot_be_trusted_is_refused(comm):
    own = share_samples(INPUTS, CLASSES, comm=comm)
    drops = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 3))
    norms = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 3))
    with pytest.raises(CheckError, match=r"not deterministic.*Dropout '1' is in training mode; call model.eval"):
        hessian(drops, ENTROPY, *own, comm=comm)
    with pytest.raises(CheckError, match=r"neither the mean nor the sum.*BatchNorm1d '1' is in training mode"):
        gauss_newton(norms, ENTROPY, *own, comm=comm)
    for model in (drops, norms):
        model.eval()
        for make in KINDS.values():
            assert make(model, ENTROPY, *own, comm=comm).n == sum(p.numel() for p in model.parameters())
    torch.manual_seed(0)  # ranks have drawn other numbers of them for dropout
    with pytest.raises(CheckError, match="not symmetric"):
        hessian(Wrong(), lambda z, _: z.mean(), *own, comm=comm)
    with pytest.raises(InputError, match="no rank has a sample"):
        hessian(network(), ENTROPY, INPUTS[:0], CLASSES[:0], comm=comm)
    with pytest.raises(InputError, match="samples, targets of"):
        hessian(network(), ENTROPY, INPUTS[: comm.rank], CLASSES, comm=comm)
    with pytest.raises(InputError, match="take its mean"):
        hessian(network(), torch.nn.CrossEntropyLoss(reduction="none"), *own, comm=comm)


def test_a_rank_without_samples(comm):
    own = (INPUTS, CLASSES) if comm.rank == 0 else (INPUTS[:0], CLASSES[:0])
    exact = dense(network(), ENTROPY, INPUTS, CLASSES)
    for kind, make in KINDS.items():
        assert off(entries(make(network(), ENTROPY, *own, comm=comm), comm), exact[kind]) < 1e-14


def test_no_eigenvalue_of_a_network_comes_twice(comm):
    """150 Lanczos steps, after which plain Lanczos has returned a few outliers many times."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 24), torch.nn.Tanh(), torch.nn.Linear(24, 10)).double()
    drawn = np.random.default_rng(0)
    inputs = drawn.normal(size=(64, 8)) * np.geomspace(1, 0.1, 8)
    classes = np.argmax(inputs @ drawn.normal(size=(8, 10)), axis=1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        ENTROPY(model(torch.tensor(inputs)), torch.tensor(classes)).backward()
        optimizer.step()
    objective = hessian(model, ENTROPY, *share_samples(inputs, classes, comm=comm), comm=comm)
    exact = np.linalg.eigvalsh(entries(objective, comm))
    size = np.abs(exact).max()
    top = exact[-10:]
    assert np.diff(top).min() > 1e-6 * size  # simple
    with sh.MatrixFree(objective) as free:
        problem = sh.EigenProblem.of(free)
        nodes = sh.density(problem, samples=2, steps=150, method="lanczos").measures.nodes[0]
    copies = [np.count_nonzero(np.abs(nodes - value) < 1e-7 * size) for value in top]
    assert copies == [1] * 10
    # That it is a hard case: without orthogonalisation the largest come many times.
    assert max(plain_lanczos(objective, comm, top, size)) > 2


def plain_lanczos(objective, comm, top, size):
    """Return how often 150 steps of the three-term recurrence alone find each value."""
    v, before, beta, alphas, betas = np.ones(objective.n), 0.0, 0.0, [], []
    v /= np.linalg.norm(v)
    for _ in range(150):
        w = comm.allreduce(objective.hvps(objective.x, v[None])[0]) - beta * before
        alphas.append(v @ w)
        w -= alphas[-1] * v
        before, beta = v, np.linalg.norm(w)
        betas.append(beta)
        v = w / beta
    nodes = np.linalg.eigvalsh(np.diag(alphas) + np.diag(betas[:-1], 1) + np.diag(betas[:-1], -1))
    return [np.count_nonzero(np.abs(nodes - value) < 1e-7 * size) for value in top]


class Heads(torch.nn.Module):
    """Two outputs of a trunk in a dictionary or a tuple, beside what depends on nothing."""

    def __init__(self, kind):
        super().__init__()
        torch.manual_seed(2)
        self.trunk, self.kind = torch.nn.Linear(4, 3), kind

    def forward(self, inputs):
        hidden = torch.tanh(self.trunk(inputs))
        named = {"classes": hidden, "rest": [hidden.prod(1), inputs.sum(1)], "label": "one"}
        return named if self.kind == "dictionary" else (hidden, hidden.prod(1))


def loss_of_heads(outputs, targets):
    if isinstance(outputs, dict):
        assert outputs["label"] == "one"
        outputs = outputs["classes"], outputs["rest"][0]
    return ENTROPY(outputs[0], targets) + (outputs[1] ** 2).mean()


class Joined(torch.nn.Module):
    """The same as one tensor."""

    def __init__(self):
        super().__init__()
        self.heads = Heads("tuple")

    def forward(self, inputs):
        hidden, product = self.heads(inputs)
        return torch.cat([hidden, product[:, None]], 1)


@pytest.mark.parametrize("kind", ["dictionary", "tuple"])
def test_outputs_in_dictionaries_and_tuples(kind, comm):
    """Their curvature is that of the same outputs as one tensor, by dense derivatives."""
    exact = dense(Joined(), lambda z, t: loss_of_heads((z[:, :3], z[:, 3]), t), INPUTS, CLASSES)
    inputs, targets = share_samples(INPUTS, CLASSES, comm=comm)
    for name, curvature in KINDS.items():
        found = entries(curvature(Heads(kind), loss_of_heads, inputs, targets, comm=comm), comm)
        assert off(found, exact[name]) < 1e-13, name


def test_outputs_that_hold_nothing_to_differentiate(comm):
    class Words(Heads):
        def forward(self, inputs):
            return {"classes": self.trunk(inputs).detach(), "label": "none"}

    inputs, targets = share_samples(INPUTS, CLASSES, comm=comm)
    with pytest.raises(InputError, match="tuples and data classes of tensors that depend on"):
        entries(gauss_newton(Words(""), lambda z, t: ENTROPY(z["classes"], t), inputs, targets, comm=comm), comm)
