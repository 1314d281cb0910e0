"""Products, gradients and energies of networks."""

import numpy as np
import pytest

import sparsehess as sh
from sparsehess.derivatives.evaluations import Evaluations
from sparsehess.networks import (
    shard_samples,
)
from sparsehess.networks.propagation import ForwardPass
from support.layered_networks import (
    Plain,
    by_imaginary_step,
    close,
    convolutional,
    dense,
    energy,
    hessian,
    point,
    shared,
    thorough,
    two_losses,
)

pytestmark = pytest.mark.parallel([1, 2, 3])


@pytest.mark.parametrize("make", [two_losses, *thorough(convolutional, shared)])
def test_products_gradient_and_energy(make, comm):
    network = make()
    x, data = point(network)
    exact = by_imaginary_step(network, x, data)
    objective = network.objective(x, shard_samples(data, comm), comm=comm)
    here = Evaluations(objective, x)
    own = slice(objective.layout.start, objective.layout.stop)
    slope = ForwardPass(network.plan, x, data, 0.2).gradient()
    assert comm.allreduce(objective.energy(x)) == pytest.approx(energy(network, x, data, Plain), rel=1e-14)
    assert close(here.gradients([here.x])[0], slope[own])
    V = np.random.default_rng(0).normal(size=(5, network.n))
    assert close(here.along(V[:, own]), (V @ exact)[:, own])
    for part in ("gauss-newton", "functional"):
        of_part = network.objective(x, shard_samples(data, comm), part=part, comm=comm, workspace=1)
        found = Evaluations(of_part, x).along(V[:, own])
        assert close(found, (V @ hessian(network, x, data, comm, part=part))[:, own])
    with sh.MatrixFree(objective) as free, sh.assemble(objective) as colored:
        assert close(dense(colored.mat), exact, 1e-12)
        top = np.linalg.eigvalsh(exact)[-1]
        with sh.eigs(free.mat, 1, which="largest") as found:
            assert found.eigenvalues[0] == pytest.approx(top, rel=1e-8)
