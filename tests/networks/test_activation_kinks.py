"""Kinks of activations: elements of the generalised Hessian, and what is told of them."""

import itertools

import numpy as np
import pytest

from sparsehess.errors import EvaluationError, InputError
from sparsehess.networks import (
    Affine,
    Custom,
    Network,
    SquaredError,
    absolute,
    leaky_relu,
    relu,
    shard_samples,
)
from support.layered_networks import by_imaginary_step, close, dense, layers, thorough

pytestmark = pytest.mark.parallel([1, 2, 3])


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
    with network.hessian(x, shard_samples(data, comm), comm=comm) as H:
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
    with network.hessian(x, shard_samples(data, comm), comm=comm) as H:
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
    with net.hessian(np.array([1.0, 2, -3, 1]), shard_samples(data, comm), comm=comm) as H:
        assert H.kinks.count == 1  # the second unit of the second sample: -3 + 3


def every_side(network, x, data, biases):
    """Return the Hessians a little off x, with each of these parameters up or down."""
    found = []
    for signs in itertools.product([-1e-9, 1e-9], repeat=len(biases)):
        move = np.zeros(network.n)
        move[list(biases)] = signs
        found.append(by_imaginary_step(network, x + move, data))
    return found


def check_radius(H, kinks, pieces, comm, most):
    """Hold every piece, and some means of them, against the bound; the bound against what it bounds."""
    own, away = np.linalg.eigvalsh(H), 0.0
    rng = np.random.default_rng(1)
    means = [np.einsum("p,pij->ij", rng.dirichlet(np.ones(len(pieces)) / 4), pieces) for _ in range(20)]
    for piece in (*pieces, *means):
        off = np.abs(np.linalg.eigvalsh(piece) - own).max()
        assert off <= kinks.radius * (1 + 1e-9) + 1e-7, (off, kinks.radius)
        away = max(away, off)
    assert kinks.radius <= most * away  # says something


@pytest.mark.parametrize("activation", [relu(), *thorough(absolute(), leaky_relu(0.25))])
@pytest.mark.parametrize("count", [7, 8, *thorough(9, 10)])
def test_eigenvalues_on_all_sides_of_many_kinks(count, activation, comm):
    """All units of one hidden layer are at their kinks where the inputs are zero and the biases are."""
    network = layers((2, count, 2), activation, SquaredError())
    rng = np.random.default_rng(count)
    x = rng.normal(size=network.n)
    biases = np.arange(2 * count, 3 * count)
    x[network.blocks["W0"]][2 * count :] = 0.0
    data = {"x": rng.normal(size=(5, 2)), "t": rng.normal(size=(5, 2))}
    data["x"][3] = 0.0
    pieces = every_side(network, x, data, biases)
    with network.hessian(x, shard_samples(data, comm), comm=comm) as H:
        assert H.kinks.count == count and not len(H.kinks.weights)
        assert f"{count} activations at their kinks: the middle of the ranges" in str(H.kinks)
        check_radius(dense(H.mat), H.kinks, np.array(pieces), comm, 12)


@pytest.mark.parametrize("count", [7, *thorough(10)])
def test_eigenvalues_on_all_sides_of_kinks_of_many_samples(count, comm):
    """One kink at each of many samples."""
    network = layers((1, count, 2), absolute(), SquaredError())
    rng = np.random.default_rng(count)
    x = rng.normal(size=network.n)
    data = {"x": np.arange(1.0, count + 2)[:, None], "t": rng.normal(size=(count + 1, 2))}
    W = x[network.blocks["W0"]]
    W[:count] = rng.integers(32, 128, count) / 64 * rng.choice([-1, 1], count)
    W[count:] = -W[:count] * data["x"][:count, 0]  # unit i is at its kink at sample i
    pieces = every_side(network, x, data, np.arange(count, 2 * count))
    with network.hessian(x, shard_samples(data, comm), comm=comm) as H:
        assert H.kinks.count == count
        check_radius(dense(H.mat), H.kinks, np.array(pieces), comm, 12)


def test_eigenvalues_on_all_sides_of_kinks_behind_each_other(comm):
    network = layers((1, 4, 3, 1), leaky_relu(0.25), SquaredError())
    rng = np.random.default_rng(2)
    x = rng.normal(size=network.n)
    for name, biases in (("W0", slice(4, 8)), ("W1", slice(12, 15))):
        x[network.blocks[name]][biases] = 0.0
    data = {"x": np.array([[0.0], [1.3], [-0.4]]), "t": rng.normal(size=(3, 1))}
    first = [*np.arange(network.n)[network.blocks["W0"]][4:8]]
    second = [*np.arange(network.n)[network.blocks["W1"]][12:15]]
    # Biases behind move further, so that every combination of sides is there.
    found = []
    for signs in itertools.product([-1.0, 1.0], repeat=7):
        move = np.zeros(network.n)
        move[first + second] = np.array(signs) * np.r_[np.full(4, 1e-11), np.full(3, 1e-9)]
        found.append(by_imaginary_step(network, x + move, data))
    with network.hessian(x, shard_samples(data, comm), comm=comm) as H:
        assert H.kinks.count == 7
        check_radius(dense(H.mat), H.kinks, np.array(found), comm, 12)


def test_more_kinks_of_one_layer_than_there_are_pieces_to_look_at(comm):
    """Twenty have a million pieces: the ends of ranges are those of random ones, and hold them."""
    network = layers((2, 20, 1), absolute(), SquaredError())
    rng = np.random.default_rng(3)
    x = rng.normal(size=network.n)
    x[network.blocks["W0"]][40:] = 0.0
    data = {"x": np.array([[0.0, 0.0], [1.0, -0.5]]), "t": rng.normal(size=(2, 1))}
    biases = np.arange(40, 60)
    pieces = []
    for _ in range(60):
        move = np.zeros(network.n)
        move[biases] = rng.choice([-1e-9, 1e-9], 20)
        pieces.append(by_imaginary_step(network, x + move, data))
    with network.hessian(x, shard_samples(data, comm), comm=comm) as H:
        assert H.kinks.count == 20
        check_radius(dense(H.mat), H.kinks, np.array(pieces), comm, 25)
    deep = layers((2, 8, 8, 1), relu(), SquaredError())
    with pytest.raises(InputError, match=r"32 arguments .* exactly 0.*16 at one sample are too many"):
        deep.hessian(
            np.zeros(deep.n), shard_samples({"x": np.zeros((2, 2)), "t": np.ones((2, 1))}, comm), comm=comm
        )
