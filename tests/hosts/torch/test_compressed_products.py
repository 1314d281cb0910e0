"""Hessians of PyTorch functions with seeds on the device: another point by one call."""

import numpy as np
import pytest

import sparsehess as sh
from sparsehess.hosts.torch.compressed_products import CompressedProducts
from sparsehess.hosts.torch.parameters import Leaves

torch = pytest.importorskip("torch")

RNG = np.random.default_rng(0)


def chain(x):
    return (100 * (x[1:] - x[:-1] ** 2) ** 2).sum() + ((1 - x[:-1]) ** 2).sum()


def half(x):  # its products are their directions
    return (x**2).sum() / 2


def exact(function, x):
    return torch.autograd.functional.hessian(function, torch.tensor(x)).numpy()


@pytest.mark.parametrize("function", [chain, half])
@pytest.mark.parametrize(("products", "most"), [("float64", 1e-13), ("float32", 1e-5)])
def test_another_point_takes_one_call(function, products, most):
    x = RNG.normal(size=40)
    edges = [[i, i + 1] for i in range(39)] if function is chain else np.zeros((0, 2), int)
    objective = sh.from_torch(function, x, pattern=sh.Pattern.from_edges(edges, 40), products=products)
    with sh.assemble(objective) as H:
        made = H.evaluations["hvp"]
        for step in range(1, 4):
            at = x + 0.1 * step
            H.update(at, verify=False)
            assert H.evaluations["hvp"] == made + step * H.coloring.count
            dense = exact(function, at)
            ours = H.to_scipy().toarray()
            assert np.array_equal(ours, ours.T)
            assert np.abs(ours - dense).max() <= most * np.abs(dense).max()
        H.update(x)  # with all checks
        assert np.abs(H.to_scipy().toarray() - exact(function, x)).max() <= most * np.abs(exact(function, x)).max()


def test_variables_of_several_tensors():
    module = torch.nn.Linear(4, 3).double()
    inputs = torch.tensor(RNG.normal(size=(10, 4)))
    objective = sh.from_torch(lambda model, data: model(data).tanh().square().sum(), module, inputs)
    with sh.assemble(objective, pattern="detect") as H:
        H.update(objective.x + 0.1, verify=False)
        v = RNG.normal(size=objective.n)
        assert np.allclose(H.to_scipy() @ v, objective.hvps(objective.x + 0.1, v[None])[0])


def test_entries_read_on_the_device_are_those_read_here():
    reads, values = np.array([3, 0, 2, 5], np.int32), np.empty(4)
    leaves = Leaves(torch, [torch.zeros(3, dtype=torch.float64)])
    colors = np.array([0, 1, 0])

    def products(x, parts):
        return [(1 + torch.tensor(x)) * parts[0]]

    x = np.array([1.0, 2.0, 3.0])
    expected = ((1 + x) * np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])).ravel()[reads]
    for there in (True, False):
        made = CompressedProducts(torch, leaves, products, colors, 2, reads, there=there)
        assert made.finish(made.begin(x), values) == expected @ expected
        assert np.array_equal(values, expected)
