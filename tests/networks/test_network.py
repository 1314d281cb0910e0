"""Hessians of networks against automatic differentiation, imaginary steps of plain formulas, and closed forms."""

import networkx
import numpy as np
import pytest
import scipy.sparse as sp

import sparsehess as sh
from sparsehess.errors import CheckError, EvaluationError, InputError
from sparsehess.networks import (
    Affine,
    Concatenation,
    Convolution,
    Custom,
    Network,
    PiecewiseLinear,
    Pointwise,
    Product,
    SoftmaxCrossEntropy,
    SquaredError,
    Sum,
    absolute,
    deal,
    leaky_relu,
    relu,
    sigmoid,
    softplus,
    square,
    tanh,
)
from sparsehess.networks.derivative_check import check
from sparsehess.networks.propagation import Sample
from sparsehess.operators.combinations import congruence
from spiral_network import spiral
from support.cases import local_rows

pytestmark = pytest.mark.parallel([1, 2, 3])

EXACT = 1e-13
ACTIVATIONS = {"tanh": tanh(), "sigmoid": sigmoid(), "softplus": softplus(), "square": square()}


def thorough(*cases):
    """Return cases that are one of many alike, for parametrize."""
    return [pytest.param(case, marks=pytest.mark.thorough) for case in cases]


# --- another evaluation of the same graph ----------------------------------------------


def wave(X, w, sin):
    """Value of the custom node: of parents of widths 2 and 1 and three parameters."""
    a, b = X
    return sin(w[0] * a) * b + w[1] ** 2 * w[2] * a**2


def _wave_forward(w, X):
    return wave(X, w, np.sin)


def _wave_vjp(w, X, Y):
    a, b = X
    s, c = np.sin(w[0] * a), np.cos(w[0] * a)
    by_a = Y * (w[0] * c * b + 2 * w[1] ** 2 * w[2] * a)
    by_b = (Y * s).sum(axis=1, keepdims=True)
    by_w = [
        (Y * c * a * b).sum(axis=1),
        (Y * 2 * w[1] * w[2] * a**2).sum(axis=1),
        (Y * w[1] ** 2 * a**2).sum(axis=1),
    ]
    return (by_a, by_b), np.stack(by_w, axis=1)


def _wave_second(w, X, Y, dX, dw):
    (a, b), (da, db) = X, dX
    d0, d1, d2 = (dw[:, i : i + 1] for i in range(3))
    s, c = np.sin(w[0] * a), np.cos(w[0] * a)
    angle = d0 * a + w[0] * da
    ds, dc = c * angle, -s * angle
    by_a = Y * (d0 * c * b + w[0] * dc * b + w[0] * c * db)
    by_a = by_a + Y * 2 * ((2 * w[1] * d1 * w[2] + w[1] ** 2 * d2) * a + w[1] ** 2 * w[2] * da)
    by_b = (Y * ds).sum(axis=1, keepdims=True)
    by_w = [
        Y * (dc * a * b + c * da * b + c * a * db),
        Y * 2 * (d1 * w[2] * a**2 + w[1] * d2 * a**2 + w[1] * w[2] * 2 * a * da),
        Y * (2 * w[1] * d1 * a**2 + w[1] ** 2 * 2 * a * da),
    ]
    return (by_a, by_b), np.stack([part.sum(axis=1) for part in by_w], axis=1)


WAVE = Custom(_wave_forward, _wave_vjp, _wave_second, 2, (2, 1), 3, name="wave")


class Plain:
    """What the evaluation below needs, of arrays that may be complex."""

    sin, exp, log, tanh = np.sin, np.exp, np.log, np.tanh

    @staticmethod
    def stack(parts):
        return np.concatenate(parts, axis=1)

    @staticmethod
    def real(x):
        return x.real


class Torch:
    def __init__(self, torch):
        self.sin, self.exp, self.log, self.tanh = torch.sin, torch.exp, torch.log, torch.tanh
        self._torch = torch

    def stack(self, parts):
        return self._torch.cat(parts, dim=1)

    @staticmethod
    def real(x):
        return x.detach()


def energy(network, x, data, lib):
    """Return the mean loss at x by the plain formulas of each kind of node: shares no code with the package."""
    where, values, total = network.blocks, {}, 0.0
    for name in networkx.topological_sort(network.graph):
        facts = network.graph.nodes[name]
        if facts.get("function") is None:
            values[name] = data[name]
            continue
        X = [values[parent] for parent in facts["parents"]]
        shared = facts.get("shared")
        own = x[where[name if shared is None else shared]] if facts["size"] else None
        values[name] = value = node_value(facts["function"], own, X, lib)
        if facts.get("weight") is not None:
            total = total + facts["weight"] * value.sum() / len(value)
    return total


def node_value(function, w, X, lib):
    x = X[0]
    match function:
        case Affine(outputs=a, bias=bias):
            W = w[: a * x.shape[1]].reshape(a, x.shape[1])
            return x @ W.T + (w[a * x.shape[1] :] if bias else 0.0)
        case Convolution():
            return convolved(function, w, x, lib)
        case Pointwise():
            name = next(name for name, one in ACTIVATIONS.items() if one == function)
            plain = {
                "tanh": lib.tanh,
                "sigmoid": lambda x: 1 / (1 + lib.exp(-x)),
                "softplus": lambda x: lib.log(1 + lib.exp(x)),
                "square": lambda x: x * x,
            }
            return plain[name](x)
        case PiecewiseLinear(left=left, right=right):
            up = lib.real(x) > 0
            return (x * up) * right + (x * ~up) * left
        case Sum():
            return sum(X[1:], x)
        case Product():
            for other in X[1:]:
                x = x * other
            return x
        case Concatenation():
            return lib.stack(X)
        case SquaredError():
            return ((x - X[1]) ** 2).sum(1) / 2
        case SoftmaxCrossEntropy():
            return (X[1].sum(1)) * lib.log(lib.exp(x).sum(1)) - (X[1] * x).sum(1)
        case Custom(name="wave"):
            return wave(X, w, lib.sin)
        case Custom(name="flat"):
            return x
    raise AssertionError(function)


def convolved(form, w, x, lib):
    """Every output by the definition, number by number."""
    c, height, width = form.shape
    kh, kw = form.kernel
    K = w[: form.channels * c * kh * kw].reshape(form.channels, c, kh, kw)
    b = w[form.channels * c * kh * kw :]
    image, columns = x.reshape(-1, c, height, width), []
    for a in range(form.channels):
        for i in range(form.places[0]):
            for j in range(form.places[1]):
                total = b[a] + 0 * image[:, 0, 0, 0]
                for k in range(c):
                    for p in range(kh):
                        for q in range(kw):
                            y, z = form.stride * i + p - form.padding, form.stride * j + q - form.padding
                            if 0 <= y < height and 0 <= z < width:
                                total = total + K[a, k, p, q] * image[:, k, y, z]
                columns.append(total[:, None])
    return lib.stack(columns)


def by_torch(torch, network, x, data):
    """Return the Hessian by reverse over reverse."""
    held, lib = {name: torch.tensor(values) for name, values in data.items()}, Torch(torch)
    H = torch.autograd.functional.hessian(lambda w: energy(network, w, held, lib), torch.tensor(x))
    return H.numpy()


def by_imaginary_step(network, x, data):
    """Return gradient by imaginary steps of the plain energy, and Hessian by those of the package's gradient.

    The two are tied together: the package's gradient is compared with the first.
    """
    N, step = len(next(iter(data.values()))), 1e-30
    points = x + 1j * step * np.eye(len(x))
    slope = np.array([energy(network, point, data, Plain).imag for point in points]) / step
    mine = [Sample(network.plan, point, data, 1 / N).gradient().imag / step for point in points]
    assert close(Sample(network.plan, x, data, 1 / N).gradient(), slope)
    return np.array(mine)


def close(found, exact, tolerance=EXACT):
    return np.linalg.norm(found - exact) <= tolerance * max(np.linalg.norm(exact), 1e-300)


# --- networks --------------------------------------------------------------------------


def chain():
    net = Network()
    net.input("x", 3)
    net.input("t", 2)
    net.add("A", Affine(4), "x")
    net.add("a", tanh(), "A")
    net.add("B", Affine(3, bias=False), "a")
    net.add("b", softplus(), "B")
    net.add("C", Affine(2), "b")
    net.loss("loss", SoftmaxCrossEntropy(), "C", "t")
    return net


def residual():
    net = Network()
    net.input("x", 3)
    net.input("t", 3)
    net.add("A", Affine(3), "x")
    net.add("a", sigmoid(), "A")
    net.add("s", Sum(), "x", "a", "A")
    net.add("B", Affine(3), "s")
    net.add("b", tanh(), "B")
    net.add("r", Sum(), "s", "b")
    net.add("C", Affine(3), "r")
    net.loss("loss", SquaredError(), "C", "t")
    return net


def gated():
    net = Network()
    net.input("x", 4)
    net.input("t", 2)
    net.add("V", Affine(3), "x")
    net.add("G", Affine(3), "x")
    net.add("g", sigmoid(), "G")
    net.add("h", Product(), "V", "g")
    net.add("s", Affine(1), "h")
    net.add("m", Product(), "s", "h", "V", "h")  # one number on many, and a node twice
    net.add("O", Affine(2), "m")
    net.loss("loss", SquaredError(), "O", "t")
    return net


def shared():
    """A recurrent network: one layer, three times."""
    net = Network()
    for step in range(3):
        net.input(f"x{step}", 2)
    net.input("t", 2)
    net.add("h0", Affine(2), "x0")
    for step in range(1, 3):
        net.add(f"c{step}", Concatenation(), f"h{step - 1}", f"x{step}")
        net.add(f"H{step}", Affine(2), f"c{step}", shared="cell")
        net.add(f"h{step}", tanh(), f"H{step}")
    net.add("O", Affine(2), "h2", shared="head")
    net.add("P", Affine(2), "h1", shared="head")
    net.add("o", Sum(), "O", "P")
    net.loss("loss", SoftmaxCrossEntropy(), "o", "t")
    return net


def two_losses():
    """A trunk, two heads, and a target that depends on parameters."""
    net = Network()
    net.input("x", 3)
    net.input("t", 2)
    net.add("A", Affine(3), "x")
    net.add("a", square(), "A")
    net.add("B", Affine(2), "a")
    net.add("C", Affine(2), "x")
    net.add("c", sigmoid(), "C")
    net.add("D", Affine(1), "A")
    net.add("w", WAVE, "c", "D")
    net.loss("first", SoftmaxCrossEntropy(), "B", "c", weight=0.7)
    net.loss("second", SquaredError(), "w", "t", weight=-1.3)
    net.loss("third", SquaredError(), "B", "w")
    net.add("unused", Affine(2), "a")
    return net


def convolutional():
    net = Network()
    net.input("x", 2 * 4 * 4)
    net.input("t", 2)
    net.add("K", Convolution(2, (3, 2), (2, 4, 4), stride=2, padding=1), "x")
    net.add("k", tanh(), "K")
    net.add("L", Convolution(1, (2, 2), (2, 2, 3)), "k")
    net.add("l", softplus(), "L")
    net.add("O", Affine(2), "l")
    net.loss("loss", SoftmaxCrossEntropy(), "O", "t")
    return net


def bent():
    net = Network()
    net.input("x", 3)
    net.input("t", 2)
    net.add("A", Affine(5), "x")
    net.add("a", relu(), "A")
    net.add("B", Affine(5), "a")
    net.add("b", leaky_relu(0.1), "B")
    net.add("s", Sum(), "b", "a")
    net.add("c", absolute(), "s")
    net.add("C", Affine(2), "c")
    net.loss("loss", SoftmaxCrossEntropy(), "C", "t")
    return net


NETWORKS = [chain, residual, gated, shared, two_losses, convolutional, bent]


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


def point(network, samples=5, seed=0):
    """Return parameters and data of all samples; targets are distributions, which suits both losses."""
    rng = np.random.default_rng(seed)
    data = {name: rng.normal(size=(samples, width)) for name, width in network.plan.inputs.items()}
    target = np.exp(data["t"])
    data["t"] = target / target.sum(axis=1, keepdims=True)
    return rng.normal(size=network.n) * 0.6, data


def dense(mat):
    """Return the whole of a matrix on every rank."""
    comm = mat.comm.tompi4py()
    return np.concatenate(comm.allgather(local_rows(mat).toarray()))


def hessian(network, x, data, comm, **more):
    with network.hessian(x, deal(data, comm), comm=comm, **more) as found:
        return dense(found.mat)


def block_matrix(network, H):
    """Return which blocks of a matrix have an entry."""
    slices = list(network.blocks.values())
    return np.array([[bool(np.any(H[a, b])) for b in slices] for a in slices])


# --- against automatic differentiation -------------------------------------------------


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
    for room in (1, 50, 170):
        assert close(hessian(network, x, data, comm, room=room), H, 1e-14)


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


def test_every_function_states_its_derivatives(comm):
    rng, seen = np.random.default_rng(6), set()
    for make in NETWORKS:
        network = make()
        x, data = point(network)
        sample = Sample(network.plan, x, data, 1.0)
        for u, node in enumerate(network.plan.nodes):
            if node.function is not None:
                parents = [sample.value(p) for p in node.parents]
                check(node.name, node.function, network.plan.own(x, u), parents, rng)
                seen.add(type(node.function))
    assert len(seen) == 10

    class Denied(Pointwise):
        def curved(self, p, q):
            return False

    with pytest.raises(CheckError, match="second derivatives by parent 0"):
        check("denied", Denied(tanh().rule), np.zeros(0), [rng.normal(size=(4, 2))], rng)

    class Promised(Pointwise):
        def mixing(self, p):
            return True

        def parameters(self, widths):
            return 1

    with pytest.raises(InputError, match="does not state 'advance', which its function promises"):
        check("promised", Promised(tanh().rule), np.zeros(1), [rng.normal(size=(4, 2))], rng)


# --- other doors -----------------------------------------------------------------------


@pytest.mark.parametrize("make", [two_losses, *thorough(convolutional, shared)])
def test_products_gradient_and_energy(make, comm):
    network = make()
    x, data = point(network)
    exact = by_imaginary_step(network, x, data)
    objective = network.objective(x, deal(data, comm), comm=comm)
    here = objective.at(x)
    own = slice(objective.layout.start, objective.layout.stop)
    slope = Sample(network.plan, x, data, 0.2).gradient()
    assert comm.allreduce(objective.energy(x)) == pytest.approx(energy(network, x, data, Plain), rel=1e-14)
    assert close(here.gradients([here.x])[0], slope[own])
    V = np.random.default_rng(0).normal(size=(5, network.n))
    assert close(here.along(V[:, own]), (V @ exact)[:, own])
    for part in ("gauss-newton", "functional"):
        of_part = network.objective(x, deal(data, comm), part=part, comm=comm, room=1)
        found = of_part.at(x).along(V[:, own])
        assert close(found, (V @ hessian(network, x, data, comm, part=part))[:, own])
    with sh.MatrixFree(objective) as free, sh.assemble(objective) as colored:
        assert close(dense(colored.mat), exact, 1e-12)
        top = np.linalg.eigvalsh(exact)[-1]
        with sh.eigs(free.mat, 1, which="largest") as found:
            assert found.eigenvalues[0] == pytest.approx(top, rel=1e-8)


def test_sharing_is_a_congruence(comm):
    network = shared()
    x, data = point(network)
    untied = network.untied()
    assert untied.n == len(network.labels) and network.n < untied.n
    with untied.hessian(x[network.labels], deal(data, comm), comm=comm) as free:
        T = network.sharing(comm=comm)
        with congruence(free, T) as tied:
            assert close(dense(tied.mat), hessian(network, x, data, comm))
        T.destroy()


@pytest.mark.parametrize(
    "ties", [{"b": "a", "c": "b"}, {"a": "c", "b": "a", "c": "b"}, {"a": "all", "b": "a", "c": "all"}]
)
def test_a_block_that_is_shared_may_be_shared_itself(ties):
    network = Network()
    network.input("x", 2)
    for name in "abc":
        network.add(name, Affine(3), "x", shared=ties.get(name))
    network.add("sum", Sum(), *"abc")
    network.loss("loss", SoftmaxCrossEntropy(), "sum", "sum")
    assert network.n == 9
    np.testing.assert_array_equal(network.labels, np.tile(np.arange(9), 3))


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
    objective = network.objective(x, deal(data, comm), part="functional", comm=comm)
    exact = network.hessian(x, deal(data, comm), part="functional", comm=comm)
    with exact, sh.MatrixFree(objective) as free:
        assert objective.pattern.hollow is not None  # no part of it is bent in the parameters of one node
        np.testing.assert_allclose(free.diagonal(), exact.diagonal(), atol=EXACT)


def test_a_node_that_raises_on_one_rank_beside_kinks(comm):
    def forward(w, X):
        if comm.rank == comm.size - 1 and len(X[0]) > 4:  # more than the first check looks at
            raise ValueError("a sample that is none")
        return w * X[0]

    node = Custom(
        forward,
        lambda w, X, Y: ((Y * w,), (Y * X[0]).sum(axis=1, keepdims=True)),
        lambda w, X, Y, dX, dw: ((Y * dw,), (Y * dX[0]).sum(axis=1, keepdims=True)),
        *(1, (1,), 1),
    )
    network = Network()
    network.input("x", 1)
    network.add("node", node, "x")
    network.add("bent", relu(), "node")
    network.loss("loss", SquaredError(), "bent", "x")
    with pytest.raises(EvaluationError, match="forward of custom node raised ValueError: a sample that is none"):
        network.hessian(np.ones(1), {"x": np.ones((6, 1))}, comm=comm)


def test_hessian_follows_x(comm):
    network = two_losses()
    x, data = point(network)
    with network.hessian(x, deal(data, comm), comm=comm) as H:
        H.update(x + 0.1)
        assert close(dense(H.mat), by_imaginary_step(network, x + 0.1, data))
        assert H.kinks.count == 0 and "ordinary" in str(H.kinks)


def test_graph_of_networkx(comm):
    graph = networkx.DiGraph()
    graph.add_edge("hidden", "bent")  # in another order than that of evaluation
    graph.add_edges_from([("x", "hidden"), ("bent", "out"), ("out", "loss"), ("t", "loss"), ("bent", "gate")])
    graph.add_edges_from([("gate", "out")])
    for name, width in (("x", 3), ("t", 2)):
        graph.nodes[name]["width"] = width
    functions = {"hidden": Affine(2), "bent": tanh(), "gate": Product(), "out": Affine(2), "loss": SquaredError()}
    graph.remove_edge("bent", "out")
    for name, function in functions.items():
        graph.nodes[name]["function"] = function
    graph.nodes["loss"].update(weight=1.0, parents=("out", "t"))
    graph.nodes["gate"]["parents"] = ("bent", "bent")
    network = Network.from_networkx(graph)
    x, data = point(network)
    assert close(hessian(network, x, data, comm), by_imaginary_step(network, x, data))
    graph.add_edge("loss", "x")
    with pytest.raises(InputError, match="cycles"):
        Network.from_networkx(graph)


# --- patterns --------------------------------------------------------------------------


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


# --- closed forms ----------------------------------------------------------------------


def layers(widths, activation, loss, bias=True):
    net = Network()
    last = net.input("x", widths[0])
    net.input("t", widths[-1])
    for number, width in enumerate(widths[1:]):
        last = net.add(f"W{number}", Affine(width, bias), last)
        if activation is not None and number < len(widths) - 2:
            last = net.add(f"a{number}", activation, last)
    net.loss("loss", loss, last, "t")
    return net


def rank_of(H):
    values = np.abs(np.linalg.eigvalsh(H))
    return int((values > 1e-10 * values.max()).sum())


@pytest.mark.parametrize(
    ("widths", "r", "ranks"), [((10, 7, 3), 10, (30, 42, 63)), ((8, 6, 6, 6, 6, 4), 5, (20, 144, 148))]
)
def test_parts_of_deep_linear_networks(widths, r, ranks, comm):
    """Ranks of both parts and of the whole: Singh, Bachmann, Hofmann 2021."""
    network = layers(widths, None, SquaredError(), bias=False)
    rng = np.random.default_rng(2)
    data = {
        "x": rng.normal(size=(40, r)) @ rng.normal(size=(r, widths[0])),
        "t": rng.normal(size=(40, widths[-1])),
    }
    x = np.concatenate([rng.normal(size=a * b) / np.sqrt(b) for a, b in zip(widths[1:], widths[:-1], strict=True)])
    parts = "gauss-newton", "functional", "whole"
    assert tuple(rank_of(hessian(network, x, data, comm, part=part)) for part in parts) == ranks


@pytest.mark.parametrize("case", [((7, 4, 3), 4), *thorough(((6, 5, 4, 3), 6))])
def test_nullity_of_tanh_networks(case, comm):
    """(d + 1 - rank [X 1]) m_1 + m_(L-1) + 1, for a softmax with cross-entropy."""
    widths, r = case
    network = layers(widths, tanh(), SoftmaxCrossEntropy())
    rng = np.random.default_rng(3)
    X = rng.normal(size=(400, r)) @ rng.normal(size=(r, widths[0]))
    data = {"x": X, "t": np.eye(widths[-1])[rng.integers(0, widths[-1], 400)]}
    x = rng.normal(size=network.n)
    nullity = (widths[0] - r) * widths[1] + widths[-2] + 1
    assert np.linalg.matrix_rank(np.c_[X, np.ones(400)]) == r + 1
    with network.hessian(x, deal(data, comm), comm=comm) as H:
        assert network.n - rank_of(dense(H.mat)) == nullity
        found = sh.rank(H.mat, "gap")
        assert found.degeneracy == nullity and found.certified


@pytest.mark.parametrize("samples", [7, *thorough(13)])
def test_rank_of_gauss_newton(samples, comm):
    """min(n, N (C - 1)): of parameters that only N samples of C classes hold."""
    network = layers((5, 6, 4), tanh(), SoftmaxCrossEntropy())
    rng = np.random.default_rng(4)
    data = {"x": rng.normal(size=(samples, 5)), "t": np.eye(4)[rng.integers(0, 4, samples)]}
    H = hessian(network, rng.normal(size=network.n), data, comm, part="gauss-newton")
    assert rank_of(H) == min(network.n, samples * 3)
    assert np.linalg.eigvalsh(H)[0] > -1e-13


def test_network_of_the_driver(comm):
    """Softmax leaves one vector for all classes free: width + 1 zeros and no more at a minimum of noisy data."""
    objective = spiral(comm, width=4, samples=200, steps=60)
    with sh.assemble(objective) as H:
        assert sh.inertia(H, zero=1e-10).zero == 5
        assert np.linalg.norm(dense(H.mat)) > 1


# --- kinks -----------------------------------------------------------------------------


def kinked(activation, rows):
    """Return a network of one hidden layer whose arguments are exactly 0 at some samples and units."""
    network = layers((2, 3, 2), activation, SquaredError())
    rng = np.random.default_rng(5)
    x = rng.normal(size=network.n)
    data = {"x": rng.integers(-3, 4, (6, 2)).astype(float), "t": rng.normal(size=(6, 2))}
    W = x[network.blocks["W0"]]
    W[:] = np.round(64 * W) / 64
    for sample, unit in rows:  # sums of multiples of 1/64 are exact
        W[6 + unit] = -W[2 * unit : 2 * unit + 2] @ data["x"][sample]
    return network, x, data


def limits(network, x, data, moves):
    """Return the Hessians at points a little off x in directions of these moves."""
    return [by_imaginary_step(network, x + move, data) for move in moves]


@pytest.mark.parametrize("activation", [absolute(), *thorough(relu(), leaky_relu(0.25))])
def test_element_of_least_norm_at_kinks(activation, comm):
    network, x, data = kinked(activation, [(0, 0), (3, 2)])
    # Both biases up or down, and every combination of them: the four pieces that meet at x.
    moves = []
    for first in (-1e-9, 1e-9):
        for second in (-1e-9, 1e-9):
            move = np.zeros(network.n)
            move[[6, 8]] = first, second
            moves.append(move)
    vertices = limits(network, x, data, moves)
    with network.hessian(x, deal(data, comm), comm=comm) as H:
        found, kinks = dense(H.mat), H.kinks
    assert kinks.count == 2 and len(kinks.weights) == 4 and kinks.weights.min() >= 0
    assert kinks.weights.sum() == pytest.approx(1) and "2 activations" in str(kinks)
    # In the hull, and no vertex makes a sharper angle: what characterises the element of least norm.
    assert np.array_equal(kinks.sides, [[False, False], [False, True], [True, False], [True, True]])
    hull = sum(weight * V for weight, V in zip(kinks.weights, vertices, strict=True))
    assert close(found, hull, 1e-7)
    assert all((found * V).sum() >= (found * found).sum() * (1 - 1e-7) for V in vertices)


def test_pieces_that_are_not_there(comm):
    # The same sample twice: both arguments are always on one side, so two pieces meet and not four.
    network, x, data = kinked(relu(), [(0, 0)])
    data = {name: np.concatenate([values, values[:1]]) for name, values in data.items()}
    with network.hessian(x, deal(data, comm), comm=comm) as H:
        assert H.kinks.count == 2 and len(H.kinks.weights) == 2
        assert (H.kinks.sides[:, 0] == H.kinks.sides[:, 1]).all()
    # An activation of what is 0 whatever the parameters are is no kink.
    net = Network()
    net.input("x", 2)
    net.input("t", 2)
    net.add("a", relu(), "x")
    net.add("W", Affine(2, bias=False), "a")
    net.add("b", relu(), "W")
    net.loss("loss", SquaredError(), "b", "t")
    data = {"x": np.array([[-1.0, -2.0], [1.0, 3.0]]), "t": np.ones((2, 2))}
    with net.hessian(np.array([1.0, 2, -3, 1]), deal(data, comm), comm=comm) as H:
        assert H.kinks.count == 1  # the second unit of the second sample: -3 + 3
    with pytest.raises(InputError, match="exactly 0"):
        many, _, data = kinked(relu(), [])
        many.hessian(np.zeros(many.n), deal(data, comm), comm=comm)


# --- what cannot be --------------------------------------------------------------------


def test_what_cannot_be_used_is_refused(comm):
    network = chain()
    x, data = point(network)
    mine = deal(data, comm)

    def wrong(**change):
        names = {"forward": _wave_forward, "vjp": _wave_vjp, "second": _wave_second}
        net = Network()
        net.input("x", 2)
        net.input("t", 2)
        net.add("D", Affine(1), "x")
        net.add("w", Custom(**{**names, **change}, outputs=2, inputs=(2, 1), size=3), "x", "D")
        net.loss("loss", SquaredError(), "w", "t")
        at, given = point(net)
        return net.hessian(at, deal(given, comm), comm=comm)

    def without_curvature(w, X, Y, dX, dw):
        by_x, by_w = _wave_second(w, X, Y, dX, dw)
        return by_x, 1.01 * by_w

    cases = [
        (lambda: network.hessian(x[1:], mine, comm=comm), InputError, "finite parameters"),
        (lambda: network.hessian(x, {"x": mine["x"]}, comm=comm), InputError, "'t'"),
        (lambda: network.hessian(x, {**mine, "x": mine["t"]}, comm=comm), InputError, "width 3"),
        (lambda: network.hessian(x, mine, part="half", comm=comm), InputError, "none of whole"),
        (lambda: network.hessian(x, {n: v[:0] for n, v in mine.items()}, comm=comm), InputError, "any samples"),
        (lambda: network.add("C", Affine(2), "x"), InputError, "there already"),
        (lambda: network.add("Z", Affine(2), "nobody"), InputError, "not there yet"),
        (lambda: network.add("Z", Affine(2), "loss"), InputError, "an end"),
        (lambda: network.add("Z", Sum(), "x", "t"), InputError, "one width"),
        (lambda: network.loss("Z", tanh(), "x"), InputError, "one number"),
        (lambda: Network().plan, InputError, "no loss"),
        (lambda: wrong(second=without_curvature), CheckError, "node w: second derivatives by parameters"),
        (lambda: wrong(forward=lambda w, X: 1.01 * _wave_forward(w, X)), CheckError, "first derivatives"),
        (lambda: wrong(vjp=lambda w, X, Y: ((Y, Y), Y)), EvaluationError, "shape"),
    ]
    for call, kind, text in cases:
        with pytest.raises(kind, match=text):
            call()
