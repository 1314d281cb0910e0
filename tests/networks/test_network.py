"""How networks are put together, what of their parameters is shared, and what cannot be used."""

import networkx
import numpy as np
import pytest

from sparsehess.errors import CheckError, EvaluationError, InputError
from sparsehess.networks import (
    Affine,
    Custom,
    Network,
    Product,
    SoftmaxCrossEntropy,
    SquaredError,
    Sum,
    shard_samples,
    tanh,
)
from sparsehess.operators.combinations import congruence
from support.layered_networks import (
    by_imaginary_step,
    chain,
    close,
    dense,
    hessian,
    point,
    shared,
    wave_forward,
    wave_second,
    wave_vjp,
)

pytestmark = pytest.mark.parallel([1, 2, 3])


def test_sharing_is_a_congruence(comm):
    network = shared()
    x, data = point(network)
    untied = network.untied()
    assert untied.n == len(network.labels) and network.n < untied.n
    with untied.hessian(x[network.labels], shard_samples(data, comm), comm=comm) as free:
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


def test_names_of_nodes_may_be_of_any_kind():
    network = Network()
    network.input(0, 2)
    network.input("t", 1)
    network.add(("layer", 1), Affine(1), 0)
    network.loss("loss", SquaredError(), ("layer", 1), "t")
    data = {0: np.ones((3, 2)), "t": np.zeros((3, 1))}
    with network.hessian(np.zeros(3), data) as H:
        np.testing.assert_array_equal(dense(H.mat), np.ones((3, 3)))
    with pytest.raises(InputError, match=r"for the inputs \[0, 't'\]; look at \['t', 'y'\]"):
        network.hessian(np.zeros(3), {0: data[0], "y": data["t"]})


def test_what_cannot_be_used_is_refused(comm):
    network = chain()
    x, data = point(network)
    mine = shard_samples(data, comm)

    def wrong(**change):
        names = {"forward": wave_forward, "vjp": wave_vjp, "second": wave_second}
        net = Network()
        net.input("x", 2)
        net.input("t", 2)
        net.add("D", Affine(1), "x")
        net.add("w", Custom(**{**names, **change}, outputs=2, inputs=(2, 1), size=3), "x", "D")
        net.loss("loss", SquaredError(), "w", "t")
        at, given = point(net)
        return net.hessian(at, shard_samples(given, comm), comm=comm)

    def without_curvature(w, X, Y, dX, dw):
        by_x, by_w = wave_second(w, X, Y, dX, dw)
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
        (lambda: wrong(forward=lambda w, X: 1.01 * wave_forward(w, X)), CheckError, "first derivatives"),
        (lambda: wrong(vjp=lambda w, X, Y: ((Y, Y), Y)), EvaluationError, "shape"),
    ]
    for call, kind, text in cases:
        with pytest.raises(kind, match=text):
            call()
