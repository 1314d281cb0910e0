"""Losses that are means by other weights than the number of samples; any number of ranks and any memory."""

import numpy as np
import pytest

from sparsehess.errors import CheckError, InputError
from sparsehess.hosts.learning.sample_shares import share_samples

torch = pytest.importorskip("torch")

from sparsehess.hosts.torch.kfac import kfac  # noqa: E402
from sparsehess.hosts.torch.model_curvature import empirical_fisher, gauss_newton, hessian  # noqa: E402

pytestmark = pytest.mark.parallel([1, 2, 3])
F = torch.nn.functional

DRAWN = np.random.default_rng(3)
TOKENS = DRAWN.integers(0, 7, (24, 5))
LABELS = np.roll(TOKENS, -1, 1)
for row, length in enumerate(DRAWN.integers(1, 6, 24)):
    LABELS[row, length:] = -100
LABELS[20:, 1:] = -100  # the last ranks have hardly anything
LABELS[:2] = -100  # and the first samples nothing
CLASS_WEIGHTS = torch.tensor(DRAWN.uniform(0.1, 4, 7))


class Words(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.embed, self.out = torch.nn.Embedding(7, 3), torch.nn.Linear(3, 7)

    def forward(self, tokens):
        return self.out(torch.tanh(self.embed(tokens)))


def rows(z, y):
    return z.reshape(-1, 7), y.reshape(-1)


def masked(z, y, least=0.0):
    mask = (y != -100).to(z.dtype)
    single = F.cross_entropy(*rows(z, y.clamp(min=0)), reduction="none").reshape(y.shape)
    return (single * mask).sum() / (mask.sum().clamp(min=1) if not least else mask.sum() + least)


class Flat(torch.nn.CrossEntropyLoss):
    def forward(self, z, y):
        return super().forward(*rows(z, y))


LOSSES = {
    "ignore_index": lambda z, y: F.cross_entropy(*rows(z, y), ignore_index=-100),
    "class weights": lambda z, y: F.cross_entropy(*rows(z, y), weight=CLASS_WEIGHTS.to(z)),
    "smoothed": lambda z, y: F.cross_entropy(*rows(z, y), weight=CLASS_WEIGHTS.to(z), label_smoothing=0.2),
    "masked": masked,
    "masked, kept from zero": lambda z, y: masked(z, y, 1e-8),
    "a constant more": lambda z, y: masked(z, y) + 3.0,
    "in the module": Flat(weight=CLASS_WEIGHTS.float()),
}


def entries(objective, comm):
    return comm.allreduce(objective.hvps(objective.x, np.eye(objective.n)))


def exact(model, loss, inputs, targets):
    """Return the Hessian of the loss of all samples at once."""
    model = model.double()
    parameters = dict(model.named_parameters())
    start = torch.cat([p.detach().ravel() for p in parameters.values()])
    if isinstance(loss, torch.nn.Module):
        loss = loss.double()

    def value(x):
        pieces = x.split([p.numel() for p in parameters.values()])
        parts = {n: v.view_as(p) for (n, p), v in zip(parameters.items(), pieces, strict=True)}
        return loss(torch.func.functional_call(model, parts, (torch.tensor(inputs),)), torch.tensor(targets))

    H = torch.autograd.functional.hessian(value, start).numpy()
    slope = torch.autograd.functional.jacobian(value, start).numpy()
    return value(start).item(), slope, H


@pytest.mark.parametrize("name", LOSSES)
def test_means_by_weights_are_those_of_the_whole(name, comm):
    loss, own = LOSSES[name], share_samples(TOKENS, LABELS, comm=comm)
    value, slope, H = exact(Words(), loss, TOKENS, LABELS)
    tol = 1e-7 if "zero" in name else 1e-11
    for memory in (2**29, 40000, 1):
        made = hessian(Words().double(), loss, *own, memory=memory, comm=comm)
        assert np.linalg.norm(entries(made, comm) - H) < tol * np.linalg.norm(H)
        np.testing.assert_allclose(comm.allreduce(made.gradient(made.x)), slope, atol=tol)
        assert comm.allreduce(made.energy(made.x)) == pytest.approx(value, rel=tol)
    single = hessian(Words(), loss, *own, memory=40000, products="float32", comm=comm)
    assert 1e-9 < np.linalg.norm(entries(single, comm) - H) / np.linalg.norm(H) < 1e-5


def test_gauss_newton_matrix_of_a_weighted_mean(comm):
    own = share_samples(TOKENS, LABELS, comm=comm)
    linear = torch.nn.Embedding(7, 7).double()  # outputs are linear in the parameters: the Hessian itself
    H = exact(linear, LOSSES["class weights"], TOKENS, LABELS)[2]
    for memory in (2**29, 1):
        made = gauss_newton(linear, LOSSES["class weights"], *own, memory=memory, comm=comm)
        np.testing.assert_allclose(entries(made, comm), H, atol=1e-13)


def test_a_weight_that_is_given(comm):
    own, H = share_samples(TOKENS, LABELS, comm=comm), exact(Words(), masked, TOKENS, LABELS)[2]
    made = hessian(Words(), masked, *own, weight=lambda y: (y != -100).sum(), memory=40000, comm=comm)
    assert np.linalg.norm(entries(made, comm) - H) < 1e-13 * np.linalg.norm(H)
    with pytest.raises(CheckError, match=r"`weight` is not by what the mean of .* is divided"):
        hessian(Words(), masked, *own, weight=len, comm=comm)
    with pytest.raises(CheckError, match="must return one number"):
        hessian(Words(), masked, *own, weight=lambda y: y == -100, comm=comm)
    with pytest.raises(InputError, match="must be a function"):
        hessian(Words(), masked, *own, weight="balanced", comm=comm)
    with pytest.raises(InputError, match="one array, with a mask"):
        hessian(Words(), masked, own[0], (own[1], own[1]), comm=comm)
    with pytest.raises(InputError, match="same weight"):
        empirical_fisher(Words(), masked, *own, weight=len, comm=comm)


def balanced(z, y):
    """Two means with denominators of their own."""
    first = y[:, :1] != -100
    return LOSSES["ignore_index"](z, y) + (z[:, 0].square() * first).mean()


def contrasting(z, y):
    """Each sample against all others."""
    flat = z.flatten(1)
    return F.cross_entropy(flat @ flat.T, torch.arange(len(y)))


def confident(z, y):
    """Weights that depend on the outputs."""
    single = F.cross_entropy(*rows(z, y.clamp(min=0)), reduction="none")
    weight = z.reshape(-1, 7).softmax(-1).amax(-1)
    return (single * weight).sum() / weight.sum()


@pytest.mark.parametrize("loss", [balanced, contrasting, confident, lambda z, y: masked(z, y).sqrt()])
def test_what_is_no_mean_is_refused(loss, comm):
    own = share_samples(TOKENS, LABELS, comm=comm)
    for memory in (2**29, 40000):
        with pytest.raises(CheckError, match=r"depend on each other.*sum.*`weight`"):
            hessian(Words(), loss, *own, memory=memory, comm=comm)


def test_what_needs_samples_of_one_weight(comm):
    own = share_samples(TOKENS, LABELS, comm=comm)
    for make in (empirical_fisher, kfac):
        with pytest.raises(CheckError, match="samples have different weights"):
            make(Words(), LOSSES["ignore_index"], *own, comm=comm)


def test_ranks_without_samples_and_with_padding_alone(comm):
    ends = {1: [0, 24], 2: [0, 2, 24], 3: [0, 2, 2, 24]}[comm.size]  # the first two are padding
    own = slice(ends[comm.rank], ends[comm.rank + 1])
    H = exact(Words(), LOSSES["ignore_index"], TOKENS, LABELS)[2]
    for memory in (2**29, 1):
        made = hessian(Words(), LOSSES["ignore_index"], TOKENS[own], LABELS[own], memory=memory, comm=comm)
        assert off(entries(made, comm), H) < 1e-11


def test_nothing_but_padding(comm):
    own = share_samples(TOKENS, np.full_like(LABELS, -100), comm=comm)
    with pytest.raises(CheckError, match="padding alone"):
        hessian(Words(), LOSSES["ignore_index"], *own, comm=comm)


def test_weights_where_the_model_fits_its_data(comm):
    """All losses and gradients are zero there; the weights are seen nearby."""
    inputs = DRAWN.normal(size=(18, 3))
    mask = (np.arange(18) % 3 > 0).astype(float) + (np.arange(18) > 12)
    model = torch.nn.Linear(3, 1).double()
    targets = np.column_stack([model(torch.tensor(inputs)).detach().numpy(), mask])

    def loss(z, y):
        return ((z[:, 0] - y[:, 0]).square() * y[:, 1]).sum() / y[:, 1].sum()

    H = exact(model, loss, inputs, targets)[2]
    for memory in (2**29, 1):
        made = hessian(model, loss, *share_samples(inputs, targets, comm=comm), memory=memory, comm=comm)
        np.testing.assert_allclose(entries(made, comm), H, atol=1e-11)


class Penalised(torch.nn.Module):
    """A loss that holds the model itself."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, z, y):
        return masked(z, y) + sum(p.pow(4).sum() for p in self.model.parameters())


def test_a_penalty_moves_with_the_model(comm):
    model = Words()
    own = share_samples(TOKENS, LABELS, comm=comm)
    slope, H = exact(Words(), masked, TOKENS, LABELS)[1:]

    def penalised(z, y):
        return masked(z, y) + sum(p.pow(4).sum() for p in model.parameters())

    for loss in (penalised, Penalised(model)):
        before = [p.detach().clone() for p in model.parameters()]
        made = hessian(model, loss, *own, memory=40000, comm=comm)
        x, step = made.x, 1e-4 * np.random.default_rng(0).normal(size=made.n)
        whole = H + np.diag(12 * x**2)
        assert np.linalg.norm(entries(made, comm) - whole) < 1e-11 * np.linalg.norm(whole)
        np.testing.assert_allclose(comm.allreduce(made.gradient(x)), slope + 4 * x**3, atol=1e-11)
        rise = [comm.allreduce(made.energy(x + sign * step)) for sign in (1, -1)]
        assert rise[0] - rise[1] == pytest.approx(2 * (slope + 4 * x**3) @ step, rel=1e-5)
        for mine, kept in zip(model.parameters(), before, strict=True):
            assert mine.dtype == torch.float32 and torch.equal(mine, kept)
        for make in (gauss_newton, empirical_fisher, kfac):
            with pytest.raises(InputError, match="depends on the parameters by itself"):
                make(model, loss, *own, comm=comm)


def test_a_penalty_that_cannot_move_is_refused(comm):
    model = Words()
    kept = [*model.parameters()]
    with pytest.raises(InputError, match="do not move with the variables"):
        hessian(
            model,
            lambda z, y: masked(z, y) + sum(p.square().sum() for p in kept),
            *share_samples(TOKENS, LABELS, comm=comm),
            comm=comm,
        )


def off(found, wanted):
    return np.linalg.norm(found - wanted) / np.linalg.norm(wanted)


def matrix(model, loss, inputs, targets, comm, **more):
    return entries(hessian(model, loss, *share_samples(inputs, targets, comm=comm), comm=comm, **more), comm)


def test_pixels_of_a_class_that_is_ignored(comm):
    """Images of which some have hardly a pixel that counts."""
    torch.manual_seed(4)
    model, images = torch.nn.Conv2d(2, 3, 3, padding=1), DRAWN.normal(size=(10, 2, 4, 4))
    classes = DRAWN.integers(0, 3, (10, 4, 4))
    classes[DRAWN.uniform(size=classes.shape) < np.linspace(0, 1, 10)[:, None, None]] = 255
    loss = torch.nn.CrossEntropyLoss(ignore_index=255, weight=torch.tensor([1.0, 5.0, 0.2]), label_smoothing=0.1)
    H = exact(model, loss, images, classes)[2]
    for memory in (2**29, 1):
        assert np.linalg.norm(
            matrix(model, loss, images, classes, comm, memory=memory) - H
        ) < 1e-11 * np.linalg.norm(H)


def test_targets_that_are_not_known(comm):
    """Not a number where there is no target."""
    inputs, targets = DRAWN.normal(size=(15, 3)), DRAWN.normal(size=(15, 2))
    targets[DRAWN.uniform(size=targets.shape) < 0.5] = np.nan
    targets[0] = np.nan

    def loss(z, y):
        known = ~y.isnan()
        return (z[known] - y[known]).pow(4).mean()

    model = torch.nn.Linear(3, 2)
    H = exact(model, loss, inputs, targets)[2]
    for memory in (2**29, 1):
        assert np.linalg.norm(
            matrix(model, loss, inputs, targets, comm, memory=memory) - H
        ) < 1e-11 * np.linalg.norm(H)


def test_terms_over_positives_alone(comm):
    """Losses of detectors: all anchors in the sum, the positive ones in its denominator."""
    inputs = DRAWN.normal(size=(16, 3))
    positive = (DRAWN.uniform(size=(16, 6)) < 0.4).astype(float)

    def loss(z, y, least=1.0):
        return F.binary_cross_entropy_with_logits(z, y, reduction="sum") / y.sum().clamp(min=least)

    model = torch.nn.Linear(3, 6)
    positive[:, 0] = 1  # each has some
    H = exact(model, loss, inputs, positive)[2]
    for memory in (2**29, 1):
        assert np.linalg.norm(
            matrix(model, loss, inputs, positive, comm, memory=memory) - H
        ) < 1e-11 * np.linalg.norm(H)
    positive[::2] = 0  # and now some have none: what they add to the sum has no mean
    with pytest.raises(CheckError, match=r"sum"):
        matrix(model, loss, inputs, positive, comm, memory=1)
    total = positive.sum()

    def summed(z, y):
        return F.binary_cross_entropy_with_logits(z, y, reduction="sum") / total

    H = exact(model, loss, inputs, positive)[2]
    found = matrix(model, summed, inputs, positive, comm, memory=1, reduction="sum")
    assert np.linalg.norm(found - H) < 1e-11 * np.linalg.norm(H)


def test_one_sample_in_a_thousand_is_seen(comm):
    """Samples drawn at random are plain; a chunk with the others is not."""
    inputs, classes = DRAWN.normal(size=(600, 3)), DRAWN.integers(0, 4, (600, 5))
    classes[577, 1:] = -100
    model = torch.nn.Linear(3, 20)

    def loss(z, y):
        return F.cross_entropy(z.reshape(-1, 4), y.reshape(-1))

    H = exact(model, loss, inputs, classes)[2]
    for memory in (2**29, 200000):
        assert np.linalg.norm(
            matrix(model, loss, inputs, classes, comm, memory=memory) - H
        ) < 1e-11 * np.linalg.norm(H)
