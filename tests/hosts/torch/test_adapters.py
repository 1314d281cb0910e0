"""Low-rank adapters of a PyTorch model: the curvature of B and A is that of W seen through them."""

import numpy as np
import pytest

import sparsehess as sh
from sparsehess.hosts.learning.sample_shares import share_samples
from sparsehess.operators import lora

torch = pytest.importorskip("torch")

from sparsehess.hosts.torch.model_curvature import gauss_newton, hessian  # noqa: E402
from sparsehess.hosts.torch.parameters import parameter_slices  # noqa: E402

pytestmark = pytest.mark.parallel([1, 2, 3])

OUT, INTO, RANK = 5, 4, 2
DRAWN = np.random.default_rng(11)
A, B = DRAWN.normal(size=(RANK, INTO)), DRAWN.normal(size=(OUT, RANK))
INPUTS, TARGETS = DRAWN.normal(size=(12, INTO)), DRAWN.normal(size=(12, 3))
LOSS = torch.nn.MSELoss()


def model():
    torch.manual_seed(3)
    return torch.nn.Sequential(torch.nn.Linear(INTO, OUT), torch.nn.Tanh(), torch.nn.Linear(OUT, 3)).double()


def adapted_outputs(factors, inputs):
    """Return the outputs with W + dB A + B dA + dB dA in the place of the first W."""
    net = model()
    dB, dA = factors[: OUT * RANK].view(OUT, RANK), factors[OUT * RANK :].view(RANK, INTO)
    b, a = torch.tensor(B) + dB, torch.tensor(A) + dA
    W = net[0].weight.detach() + b @ a - torch.tensor(B @ A)
    hidden = torch.tanh(inputs @ W.T + net[0].bias.detach())
    return hidden @ net[2].weight.detach().T + net[2].bias.detach()


def whole_of(H):
    return np.stack([np.concatenate(H.comm.allgather(H.product(own))) for own in _units(H)], axis=1)


def _units(H):
    return np.eye(H.n)[:, H.layout.start : H.layout.stop]


def test_gauss_newton_of_adapters(comm):
    """JᵀLJ of the factors is the congruence, which autograd of the adapted model confirms."""
    inputs, targets = share_samples(INPUTS, TARGETS, comm=comm)
    start = torch.zeros(RANK * (INTO + OUT), dtype=torch.float64)
    every = torch.tensor(INPUTS)
    J = torch.autograd.functional.jacobian(lambda x: adapted_outputs(x, every).ravel(), start).numpy()
    exact = 2 * J.T @ J / TARGETS.size
    part = parameter_slices(model())["0.weight"]
    objective = gauss_newton(model(), LOSS, inputs, targets, comm=comm)
    with sh.MatrixFree(objective) as free:
        variables = np.arange(part.start, part.stop)
        with lora(A, B, layout=objective.layout, variables=variables) as T, sh.congruence(free, T) as adapted:
            assert np.abs(whole_of(adapted) - exact).max() < 1e-13 * np.abs(exact).max()
            values = np.linalg.eigvalsh(exact)
            with sh.eigs(adapted, 2, which="largest") as found:
                assert np.allclose(found.eigenvalues, values[-2:]) and found.count.certified
            # A change of basis between the factors, of r² numbers, changes nothing.
            assert sh.inertia(adapted).zero == np.count_nonzero(np.abs(values) < 1e-12 * values[-1]) >= RANK**2


def test_hessian_through_adapters(comm):
    """TᵀHT of the whole model's Hessian, other parameters held."""
    inputs, targets = share_samples(INPUTS, TARGETS, comm=comm)
    objective = hessian(model(), LOSS, inputs, targets, comm=comm)
    part = parameter_slices(model())["0.weight"]
    J = np.zeros((objective.n, RANK * (INTO + OUT)))
    J[part] = np.hstack([np.kron(np.eye(OUT), A.T), np.kron(B, np.eye(INTO))])
    H = comm.allreduce(objective.hvps(objective.x, np.eye(objective.n)))
    variables = np.arange(part.start, part.stop)
    with (
        sh.MatrixFree(objective) as free,
        lora(A, B, layout=objective.layout, variables=variables) as T,
        sh.congruence(free, T) as adapted,
    ):
        exact = J.T @ H @ J
        assert np.abs(whole_of(adapted) - exact).max() < 1e-12 * np.abs(exact).max()
