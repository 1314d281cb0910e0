"""Layered networks, and another evaluation of each by plain formulas and imaginary steps."""

import networkx
import numpy as np
import pytest

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
    leaky_relu,
    relu,
    shard_samples,
    sigmoid,
    softplus,
    square,
    tanh,
)
from sparsehess.networks.propagation import ForwardPass
from support.cases import local_rows

EXACT = 1e-13


ACTIVATIONS = {"tanh": tanh(), "sigmoid": sigmoid(), "softplus": softplus(), "square": square()}


def thorough(*cases):
    """Return cases that are one of many alike, for parametrize."""
    return [pytest.param(case, marks=pytest.mark.thorough) for case in cases]


def wave(X, w, sin):
    """Value of the custom node: of parents of widths 2 and 1 and three parameters."""
    a, b = X
    return sin(w[0] * a) * b + w[1] ** 2 * w[2] * a**2


def wave_forward(w, X):
    return wave(X, w, np.sin)


def wave_vjp(w, X, Y):
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


def wave_second(w, X, Y, dX, dw):
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


WAVE = Custom(wave_forward, wave_vjp, wave_second, 2, (2, 1), 3, name="wave")


class Plain:
    """What the evaluation below needs, of arrays that may be complex."""

    sin, exp, log, tanh = np.sin, np.exp, np.log, np.tanh

    @staticmethod
    def stack(parts):
        return np.concatenate(parts, axis=1)

    @staticmethod
    def real(x):
        return x.real


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


def by_imaginary_step(network, x, data):
    """Return gradient by imaginary steps of the plain energy, and Hessian by those of the package's gradient.

    The two are tied together: the package's gradient is compared with the first.
    """
    N, step = len(next(iter(data.values()))), 1e-30
    points = x + 1j * step * np.eye(len(x))
    slope = np.array([energy(network, point, data, Plain).imag for point in points]) / step
    mine = [ForwardPass(network.plan, point, data, 1 / N).gradient().imag / step for point in points]
    assert close(ForwardPass(network.plan, x, data, 1 / N).gradient(), slope)
    return np.array(mine)


def close(found, exact, tolerance=EXACT):
    return np.linalg.norm(found - exact) <= tolerance * max(np.linalg.norm(exact), 1e-300)


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
    with network.hessian(x, shard_samples(data, comm), comm=comm, **more) as found:
        return dense(found.mat)


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
