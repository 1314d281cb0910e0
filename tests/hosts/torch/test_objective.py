"""Inside PyTorch: exact products in batches, of functions and of modules; any number of ranks."""

import sys

import numpy as np
import pytest
import scipy.sparse as sp

import sparsehess as sh
from sparsehess.errors import EvaluationError, InputError, StackError
from support.cases import frobenius_error
from support.smooth_functions import FUNCTIONS

torch = pytest.importorskip("torch")

from sparsehess.hosts.torch.parameters import parameter_slices  # noqa: E402

pytestmark = pytest.mark.parallel([1, 2])

CHAIN = FUNCTIONS["chained_rosenbrock"](60)
DRAWN = np.random.default_rng(0)
INPUTS, TARGETS = DRAWN.normal(size=(12, 3)), DRAWN.normal(size=(12, 2))


def rosenbrock(x):
    return (100 * (x[:-1] ** 2 - x[1:]) ** 2 + (x[:-1] - 1) ** 2).sum()


def network():
    """Return a small network in the single precision that modules have by default, the same on every rank."""
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))


def error(module, inputs, targets):
    """Return a sum, so that parts of the data add up."""
    return ((module(inputs) - targets) ** 2).sum() / 24


def written_out(x):
    """Return the same of the parameters of `network`, without a module."""
    hidden = torch.tanh(torch.tensor(INPUTS) @ x[:12].reshape(4, 3).T + x[12:16])
    return ((hidden @ x[16:24].reshape(2, 4).T + x[24:26] - torch.tensor(TARGETS)) ** 2).sum() / 24


def dense(function, x):
    return torch.autograd.functional.hessian(function, torch.tensor(np.asarray(x))).numpy()


def full(n, comm):
    return sh.Pattern.from_scipy(sp.csr_matrix(np.ones((n, n))), comm=comm)


@pytest.mark.parametrize("given", ["given", "detected"])
@pytest.mark.parametrize(("products", "least", "most"), [("float64", 0, 1e-15), ("float32", 1e-9, 1e-5)])
def test_exact_hessians(given, products, least, most, comm):
    pattern = sh.Pattern.from_scipy(CHAIN.pattern, comm=comm) if given == "given" else None
    objective = sh.from_torch(rosenbrock, CHAIN.x, pattern=pattern, products=products, comm=comm)
    assert objective.name == "rosenbrock"
    slope = objective.gradient(objective.x)
    assert slope.dtype == np.float64
    np.testing.assert_allclose(slope, CHAIN.gradient(CHAIN.x), rtol=1e-12, atol=1e-10)
    assert objective.energy(objective.x) == pytest.approx(CHAIN.energy(CHAIN.x), rel=1e-14)
    with sh.assemble(objective, pattern=None if pattern else "detect", derivative="ad") as hessian:
        assert hessian.evaluations["hvp"] == hessian.coloring.count and hessian.evaluations["gradient"] == 0
        for x in (CHAIN.x, CHAIN.x + 0.1):
            hessian.update(x)
            exact = sp.csr_matrix(dense(rosenbrock, x))
            assert least <= frobenius_error(hessian.mat, exact, comm) < most
            assert frobenius_error(hessian.mat, CHAIN.hessian(x), comm) < most


def test_modules_are_differentiated_by_their_parameters(comm):
    module = network()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    objective = sh.from_torch(error, module, INPUTS, torch.tensor(TARGETS), pattern=full(26, comm), comm=comm)
    with sh.assemble(objective, derivative="ad") as hessian:
        for x in (objective.x, objective.x + 0.3):
            hessian.update(x)
            assert frobenius_error(hessian.mat, sp.csr_matrix(dense(written_out, x)), comm) < 1e-14
    x = torch.tensor(objective.x, requires_grad=True)
    slope = torch.autograd.grad(written_out(x), x)[0].numpy()
    np.testing.assert_allclose(objective.gradient(objective.x), slope, rtol=1e-13, atol=1e-16)
    assert objective.energy(objective.x) == pytest.approx(written_out(x).item(), rel=1e-14)
    assert all(parameter.grad is None for parameter in module.parameters())
    after = module.state_dict()
    assert all(after[name].dtype == torch.float32 and torch.equal(after[name], before[name]) for name in before)


def test_batches_equal_single_products():
    objective = sh.from_torch(error, network(), INPUTS, TARGETS)
    exact, seeds = dense(written_out, objective.x), np.random.default_rng(1).normal(size=(5, 26))
    batch = objective.hvps(objective.x, seeds)
    single = np.concatenate([objective.hvps(objective.x, seed[None]) for seed in seeds])
    np.testing.assert_allclose(batch, single, rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(batch, seeds @ exact, rtol=1e-12, atol=1e-14)
    fast = sh.from_torch(error, network(), INPUTS, TARGETS, products="float32")
    rough = fast.hvps(fast.x, seeds)
    assert rough.dtype == np.float64
    assert 1e-9 < np.linalg.norm(rough - batch) / np.linalg.norm(batch) < 1e-5
    assert np.array_equal(fast.gradient(fast.x), objective.gradient(objective.x))


def test_batches_fit_the_memory(comm):
    roomy = sh.from_torch(error, network(), INPUTS, TARGETS, pattern=full(26, comm), comm=comm)
    # Beside parameters the graph holds what goes through the layers: at least the inputs and the hidden values.
    least = 8 * INPUTS.size + 8 * 4 * len(INPUTS)
    tight = sh.from_torch(error, network(), INPUTS, TARGETS, memory=26 * least, comm=comm)
    assert tight.batch < 26 < roomy.batch
    # The smallest batch of all ranks, as they share out batches.
    one = sh.from_torch(
        error, network(), INPUTS, TARGETS, memory=2**29 if comm.rank else 1, pattern=full(26, comm), comm=comm
    )
    assert one.batch == 1
    with sh.assemble(one) as hessian:
        assert frobenius_error(hessian.mat, sp.csr_matrix(dense(written_out, one.x)), comm) < 1e-14


def test_parts_of_the_data_on_every_rank(comm):
    mine = slice(comm.rank, None, comm.size)
    parts = sh.from_torch(
        error, network(), INPUTS[mine], TARGETS[mine], summed=True, pattern=full(26, comm), comm=comm
    )
    exact = sp.csr_matrix(dense(written_out, parts.x))
    for derivative, most in {"ad": 1e-14, "central": 1e-6}.items():
        with sh.assemble(parts, derivative=derivative) as hessian:
            assert frobenius_error(hessian.mat, exact, comm) < most


def test_parameters_that_are_frozen_tied_or_not_used():
    class Shared(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.idle = torch.nn.Parameter(torch.ones(2))
            self.first = torch.nn.Linear(2, 2, bias=False)
            self.second = torch.nn.Linear(2, 2, bias=False)
            self.frozen = torch.nn.Linear(2, 2)
            self.shift = torch.nn.Parameter(torch.tensor(0.5))
            self.second.weight = self.first.weight
            self.frozen.requires_grad_(False)

        def forward(self, x):
            return self.frozen(self.second(torch.sin(self.first(x)))) + 3 * self.shift

    def function(module):
        return module(torch.ones(2, dtype=torch.float64)).sum()

    torch.manual_seed(1)
    module = Shared()
    assert parameter_slices(module) == {"idle": slice(0, 2), "shift": slice(2, 3), "first.weight": slice(3, 7)}
    objective = sh.from_torch(function, module)
    scale = module.frozen.weight.detach().double()

    def alone(x):
        return (scale @ x[3:].reshape(2, 2) @ torch.sin(x[3:].reshape(2, 2).sum(1))).sum()

    np.testing.assert_allclose(objective.hvps(objective.x, np.eye(7)), dense(alone, objective.x), atol=1e-15)
    np.testing.assert_array_equal(objective.gradient(objective.x)[:3], [0, 0, 6])
    linear = sh.from_torch(lambda x: x.sum(), np.ones(3))
    assert not linear.hvps(linear.x, np.eye(3)).any()


def test_modules_as_functions_of_positions(comm):
    class Springs(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.stiffness = torch.nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))
            self.register_buffer("length", torch.tensor(0.7))

        def forward(self, positions, bonds):
            assert positions.shape == (4, 3) and positions.dtype == self.length.dtype == torch.float64
            apart = (positions[bonds[:, 0]] - positions[bonds[:, 1]]).norm(dim=1)
            return (self.stiffness * (apart - self.length) ** 2).sum()

    module, bonds = Springs(), np.array([[0, 1], [1, 2], [2, 3]])
    positions = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    pattern = sh.Pattern.from_edges(bonds if comm.rank == 0 else bonds[:0], 4, dofs=3, comm=comm)
    objective = sh.from_torch(module, positions, bonds, pattern=pattern, comm=comm)

    def alone(x):
        apart = torch.linalg.norm(torch.diff(x.reshape(4, 3), dim=0), dim=1)
        return (torch.tensor([1.0, 2.0, 3.0]) * (apart - float(np.float32(0.7))) ** 2).sum()

    with sh.assemble(objective) as hessian:
        exact = sp.csr_matrix(dense(alone, positions.ravel().astype(float)))
        assert frobenius_error(hessian.mat, exact, comm) < 1e-14
    assert module.length.dtype == torch.float32


def test_functions_that_differentiate_by_themselves():
    def steepness(x):
        return (torch.autograd.grad(rosenbrock(x), x, create_graph=True)[0] ** 2).sum()

    objective = sh.from_torch(steepness, CHAIN.x)
    exact = dense(steepness, CHAIN.x)
    np.testing.assert_allclose(objective.hvps(CHAIN.x, np.eye(60)), exact, atol=1e-14 * abs(exact).max())
    assert objective.energy(CHAIN.x) == pytest.approx(np.sum(CHAIN.gradient(CHAIN.x) ** 2), rel=1e-12)


def test_layers_that_are_hard_to_differentiate_twice():
    class Layers(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first = torch.nn.Conv1d(2, 8, 3, padding=1)
            self.norm = torch.nn.BatchNorm1d(8)
            self.attention = torch.nn.TransformerEncoderLayer(8, 2, 8, batch_first=True, activation="gelu")
            self.last = torch.nn.LSTM(8, 2, batch_first=True)

        def forward(self, x):
            return self.last(self.attention(self.norm(self.first(x)).transpose(1, 2)))[0]

    torch.manual_seed(2)
    data = torch.randn(3, 2, 5)
    objective = sh.from_torch(lambda module, x: (module(x) ** 2).sum(), Layers().eval(), data)
    seeds, step = np.random.default_rng(3).normal(size=(3, objective.n)), 1e-5
    for seed, product in zip(seeds, objective.hvps(objective.x, seeds), strict=True):
        ahead, back = (objective.gradient(objective.x + sign * step * seed) for sign in (1, -1))
        np.testing.assert_allclose(product, (ahead - back) / (2 * step), atol=1e-6 * abs(product).max())


def test_what_cannot_be_used_is_named(comm, monkeypatch):
    with pytest.raises(InputError, match="float16"):
        sh.from_torch(rosenbrock, CHAIN.x, products="float16")
    with pytest.raises(InputError, match="Tanh must have parameters"):
        sh.from_torch(error, torch.nn.Tanh(), INPUTS, TARGETS)
    for function, found in (
        (lambda x: x**2, r"shape \(60,\)"),
        (lambda x: x.sum().item(), "a tensor, not float"),
        (lambda x: torch.ones(()), "must depend on"),
    ):
        with pytest.raises(InputError, match=found):
            sh.from_torch(function, CHAIN.x)
    other = network().double()
    with pytest.raises(InputError, match="must depend on"):  # a loss that takes the module from elsewhere
        sh.from_torch(lambda module: error(other, *map(torch.tensor, (INPUTS, TARGETS))), network())
    with pytest.raises(InputError, match="must depend on"):  # on one rank alone
        sh.from_torch(lambda x: x.sum() if comm.rank else torch.ones(()), CHAIN.x, comm=comm)
    moody = sh.from_torch(lambda x: x.sum() if x[0] == 1 else x, np.ones(3), comm=comm)
    with pytest.raises(EvaluationError, match="one real number"):
        sh.assemble(moody, pattern=full(3, comm), derivative="central")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(StackError, match=r"pip install .sparsehess\[torch\]"):
        sh.from_torch(rosenbrock, CHAIN.x)
