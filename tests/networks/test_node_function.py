"""Every function of a node states its derivatives rightly."""

import numpy as np
import pytest

from sparsehess.errors import CheckError, InputError
from sparsehess.networks import (
    Pointwise,
    tanh,
)
from sparsehess.networks.derivative_check import check_derivatives
from sparsehess.networks.propagation import ForwardPass
from support.layered_networks import NETWORKS, point

pytestmark = pytest.mark.parallel([1, 2, 3])


def test_every_function_states_its_derivatives(comm):
    rng, seen = np.random.default_rng(6), set()
    for make in NETWORKS:
        network = make()
        x, data = point(network)
        forward = ForwardPass(network.plan, x, data, 1.0)
        for u, node in enumerate(network.plan.nodes):
            if not node.is_input:
                parents = [forward.value(p) for p in node.parents]
                check_derivatives(node.name, node.function, network.plan.parameters_of(x, u), parents, rng)
                seen.add(type(node.function))
    assert len(seen) == 10

    class Denied(Pointwise):
        def couples_parents(self, p, q):
            return False

    with pytest.raises(CheckError, match="second derivatives by parent 0"):
        check_derivatives("denied", Denied(tanh().rule), np.zeros(0), [rng.normal(size=(4, 2))], rng)

    class Promised(Pointwise):
        def couples_to_parameters(self, p):
            return True

        def parameter_count(self, widths):
            return 1

    with pytest.raises(InputError, match="does not state 'parameter_jvp', which its function promises"):
        check_derivatives("promised", Promised(tanh().rule), np.zeros(1), [rng.normal(size=(4, 2))], rng)
