"""Hessians of networks against automatic differentiation and imaginary steps of plain formulas."""

import numpy as np
import pytest
import scipy.sparse as sp

import sparsehess as sh
from sparsehess.networks import (
    Affine,
    Concatenation,
    Custom,
    Network,
    Product,
    SoftmaxCrossEntropy,
    SquaredError,
    Sum,
    shard_samples,
)
from support.layered_networks import (
    ACTIVATIONS,
    EXACT,
    NETWORKS,
    WAVE,
    by_imaginary_step,
    close,
    dense,
    energy,
    hessian,
    point,
    two_losses,
)

pytestmark = pytest.mark.parallel([1, 2, 3])


class Torch:
    def __init__(self, torch):
        self.sin, self.exp, self.log, self.tanh = torch.sin, torch.exp, torch.log, torch.tanh
        self._torch = torch

    def stack(self, parts):
        return self._torch.cat(parts, dim=1)

    @staticmethod
    def real(x):
        return x.detach()


def by_torch(torch, network, x, data):
    """Return the Hessian by reverse over reverse."""
    held, lib = {name: torch.tensor(values) for name, values in data.items()}, Torch(torch)
    H = torch.autograd.functional.hessian(lambda w: energy(network, w, held, lib), torch.tensor(x))
    return H.numpy()


def random_network(seed):
    """Return a network of random nodes on a random graph."""
    rng = np.random.default_rng(seed)
    net, widths = Network(), {}

    def note(name, width):
        widths[name] = width
        return name

    def some(fits):
        """Return a node that fits, of the last ones rather than of the first."""
        there = [name for name, width in widths.items() if fits(width)]
        return there[-1 - min(int(rng.exponential(3)), len(there) - 1)]

    note(net.input("x", 2), 2)
    note(net.input("y", 1), 1)
    pair = some(lambda width: width == 2)
    for number in range(rng.integers(6, 14)):
        name, kind = (
            f"n{number}",
            rng.choice(["affine", "affine", "point", "point", "sum", "product", "beside", "wave"]),
        )
        parent = some(lambda width: True)
        width = widths[parent]
        if kind == "affine":
            out = int(rng.integers(1, 4))
            block = f"W{width}{out}" if rng.random() < 0.3 else None
            note(
                net.add(name, Affine(out, bias=block is not None or rng.random() < 0.7), parent, shared=block), out
            )
        elif kind == "point":
            note(net.add(name, ACTIVATIONS[rng.choice([*ACTIVATIONS])], parent), width)
        elif kind == "sum":
            others = [some(lambda one, width=width: one == width) for _ in range(rng.integers(1, 3))]
            note(net.add(name, Sum(), parent, *others), width)
        elif kind == "product":
            other = some(lambda one, width=width: one in (1, width))
            note(net.add(name, Product(), parent, other), max(width, widths[other]))
        elif kind == "beside" and width < 4:
            other = some(lambda one: one < 3)
            note(net.add(name, Concatenation(), parent, other), width + widths[other])
        elif kind == "wave":
            pair = some(lambda width: width == 2)
            note(net.add(name, WAVE, pair, some(lambda width: width == 1)), 2)
    last = some(lambda width: True)
    note(net.add("out", Affine(2), last), 2)
    note(net.input("t", 2), 2)
    net.loss("loss", SquaredError() if rng.random() < 0.5 else SoftmaxCrossEntropy(), "out", "t")
    for number in range(rng.integers(0, 3)):
        pair = some(lambda width: width == 2)
        net.loss(f"loss{number}", SquaredError(), pair, rng.choice(["t", "out"]), weight=float(rng.normal()))
    return net


def block_matrix(network, H):
    """Return which blocks of a matrix have an entry."""
    slices = list(network.blocks.values())
    return np.array([[bool(np.any(H[a, b])) for b in slices] for a in slices])


@pytest.mark.parametrize("make", NETWORKS)
def test_hessian_is_exact(make, comm):
    network = make()
    x, data = point(network)
    exact, H = by_imaginary_step(network, x, data), hessian(network, x, data, comm)
    assert np.linalg.norm(exact) > 1e-2 and close(H, exact)
    assert not (block_matrix(network, exact) & ~network.block_pattern()).any()
    assert np.array_equal(block_matrix(network, H), network.block_pattern())
    outer, rest = (hessian(network, x, data, comm, part=part) for part in ("gauss-newton", "functional"))
    assert close(outer + rest, exact) and not close(outer, exact, 1e-3)
    # In pieces of any size, of a row at a time, and of the fewest samples: the same to rounding.
    for workspace in (1, 50, 170):
        assert close(hessian(network, x, data, comm, workspace=workspace), H, 1e-14)


def _random_networks(seeds, exact_of, comm):
    for seed in seeds:
        network = random_network(seed)
        x, data = point(network, samples=3, seed=seed)
        H, exact = hessian(network, x, data, comm), exact_of(network, x, data)
        assert close(H, exact), (seed, np.linalg.norm(H - exact) / np.linalg.norm(exact))
        assert not (block_matrix(network, exact) & ~network.block_pattern()).any(), seed


def test_random_graphs(comm):
    _random_networks(range(40 if comm.size == 1 else 12), by_imaginary_step, comm)


@pytest.mark.slow
def test_many_random_graphs(comm):
    _random_networks(range(40, 200), by_imaginary_step, comm)


@pytest.mark.parametrize(
    "make", [two_losses, *(pytest.param(m, marks=pytest.mark.slow) for m in NETWORKS if m is not two_losses)]
)
def test_hessian_is_that_of_torch(make, comm):
    torch = pytest.importorskip("torch")
    network = make()
    x, data = point(network, seed=1)
    assert close(hessian(network, x, data, comm), by_torch(torch, network, x, data))


@pytest.mark.thorough
def test_random_graphs_in_torch(comm):
    torch = pytest.importorskip("torch")
    _random_networks(range(40), lambda *of: by_torch(torch, *of), comm)


@pytest.mark.slow
def test_many_random_graphs_in_torch(comm):
    torch = pytest.importorskip("torch")
    _random_networks(range(40, 200), lambda *of: by_torch(torch, *of), comm)


def test_diagonal_of_rows_that_are_zero_in_every_network(comm):
    network = Network()
    network.input("x", 2)
    network.input("y", 1)
    for name, width in (("left", 2), ("right", 2)):
        network.add(name, Affine(width), "x")
    network.add("gate", Product(), "left", "right")
    network.add("out", Affine(1), "gate")
    network.loss("loss", SquaredError(), "out", "y")
    rng = np.random.default_rng(2)
    x, data = rng.normal(size=network.n), {"x": rng.normal(size=(5, 2)), "y": rng.normal(size=(5, 1))}
    objective = network.objective(x, shard_samples(data, comm), part="functional", comm=comm)
    exact = network.hessian(x, shard_samples(data, comm), part="functional", comm=comm)
    with exact, sh.MatrixFree(objective) as free:
        assert objective.pattern.hollow is not None  # no part of it is bent in the parameters of one node
        np.testing.assert_allclose(free.diagonal(), exact.diagonal(), atol=EXACT)


def test_hessian_follows_x(comm):
    network = two_losses()
    x, data = point(network)
    with network.hessian(x, shard_samples(data, comm), comm=comm) as H:
        H.update(x + 0.1)
        assert close(dense(H.mat), by_imaginary_step(network, x + 0.1, data))
        assert H.kinks.count == 0 and "ordinary" in str(H.kinks)


def test_pattern_is_of_what_the_recursion_couples(comm):
    net = Network()
    net.input("x", 2)
    net.input("t", 2)
    net.add("A", Affine(2), "x")
    net.add("B", Affine(2), "x")
    net.add("C", Affine(2), "B")
    net.add("D", Affine(1), "x")
    net.add("unused", Affine(3), "A")
    net.loss("one", SquaredError(), "A", "t")
    net.loss("two", SquaredError(), "C", "t")
    net.loss("flat", Custom(*FLAT, 1, (1,), name="flat"), "D")
    names = list(net.blocks)
    pattern = net.block_pattern()
    expected = {
        ("A", "A"),
        ("B", "B"),
        ("B", "C"),
        ("C", "C"),
        ("C", "B"),
        ("D", "D"),
    }  # a custom node may be curved
    assert {(names[a], names[b]) for a, b in np.argwhere(pattern)} == expected
    x, data = point(net)
    H = hessian(net, x, data, comm)
    assert close(H, by_imaginary_step(net, x, data))
    found = net.pattern(comm=comm)
    wanted = sp.bmat([[sp.csr_matrix(np.full((_size(net, a), _size(net, b)), float(pattern[i, j])))
                              for j, b in enumerate(names)] for i, a in enumerate(names)])  # fmt: skip
    wanted = ((wanted + sp.identity(net.n)) > 0).tocsr()[found.layout.start : found.layout.stop]
    assert (found.to_scipy().astype(bool) != wanted).nnz == 0
    hollow = np.zeros(net.n, bool)
    hollow[net.blocks["unused"]] = True
    assert np.array_equal(found.hollow, hollow[found.layout.start : found.layout.stop])
    assert not net.block_pattern("gauss-newton")[names.index("B"), names.index("A")]


FLAT = (
    lambda w, X: X[0],
    lambda w, X, Y: ((Y,), np.zeros((len(Y), 0))),
    lambda w, X, Y, dX, dw: ((0 * Y,), np.zeros((len(Y), 0))),
)


def _size(network, name):
    block = network.blocks[name]
    return block.stop - block.start
