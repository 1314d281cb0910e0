"""A classifier and the directions that do nothing
===============================================
A trained network that tells three spirals apart: its sharpest directions, and those that do nothing.

Hidden layers of tanh with a residual connection, softmax and cross-entropy. The Hessian at a minimum has a few
large eigenvalues and many that are all but zero; of the latter some are zero by structure (adding one vector to
the weights of all classes changes nothing): width + 1.

::

    mpiexec -n 2 sparsehess eigs drivers/spiral_network.py:spiral -k 5 --which largest --shell
    sparsehess inertia drivers/spiral_network.py:spiral --set width=6 --zero 1e-13
"""

import numpy as np
import scipy.optimize

import sparsehess as sh
from sparsehess.networks import Affine, SoftmaxCrossEntropy, Sum, shard_samples, tanh

CLASSES = 3


def classifier(width):
    """Return the network: two numbers in, a hidden layer, another around which the first one passes, classes."""
    network = sh.Network()
    network.input("point", 2)
    network.input("class", CLASSES)
    network.add("first", Affine(width), "point")
    network.add("bent", tanh(), "first")
    network.add("second", Affine(width), "bent")
    network.add("bent again", tanh(), "second")
    network.add("around", Sum(), "bent", "bent again")
    network.add("logits", Affine(CLASSES), "around")
    network.loss("loss", SoftmaxCrossEntropy(), "logits", "class")
    return network


def points(samples, noise, rng):
    """Return points on spirals, and of which class they are, one-hot."""
    number = rng.integers(0, CLASSES, samples)
    radius = rng.uniform(0.3, 2.0, samples)
    angle = 2 * radius + 2 * np.pi * number / CLASSES + noise * rng.normal(size=samples)
    place = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return {"point": place, "class": np.eye(CLASSES)[number]}


def spiral(comm=None, width=16, samples=600, noise=0.5, steps=200, seed=0):
    """Return the objective at what training gives; each rank has its share of the samples."""
    rng, network = np.random.default_rng(seed), classifier(int(width))
    data = points(int(samples), noise, rng)
    whole = network.objective(rng.normal(size=network.n) / np.sqrt(width), data)  # on every rank, the same
    trained = scipy.optimize.minimize(
        whole.energy, whole.x, jac=whole.gradient, method="L-BFGS-B", options={"maxiter": int(steps)}
    )
    x = trained.x if comm is None else comm.bcast(trained.x)
    return network.objective(x, shard_samples(data, comm), comm=comm, name=f"spirals, {network.n} parameters")
