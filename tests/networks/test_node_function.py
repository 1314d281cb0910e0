"""Every function of a node states its derivatives rightly."""

import numpy as np
import pytest

from sparsehess.errors import CheckError, InputError
from sparsehess.networks import (
    Pointwise,
    tanh,
)
from sparsehess.networks.derivative_check import check
from sparsehess.networks.propagation import Sample
from support.layered_networks import NETWORKS, point

pytestmark = pytest.mark.parallel([1, 2, 3])


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
