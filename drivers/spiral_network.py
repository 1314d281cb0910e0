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

# %%
# A network and its data
# ----------------------

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


# %%
# Zeros by structure
# ------------------
# Second derivatives are exact, block by block. So eigenvalues that are zero by structure are zero but for
# rounding, and the next ones, however small, are told apart from them. Small ones of both signs say that the
# training has not come to a minimum yet.


def draw(data, hessian, eigenvalues):
    """Draw the data, the sizes of the entries, and the sizes of the eigenvalues, largest first."""
    import matplotlib.pyplot as plt

    _, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.9), layout="constrained")
    for number, members in enumerate(data["class"].T.astype(bool)):
        left.plot(*data["point"][members].T, ".", ms=4, label=f"class {number + 1}")
    left.set(title="Points of three spirals", xlabel="x", ylabel="y", aspect="equal")
    left.legend(fontsize="small", loc="upper right")
    with np.errstate(divide="ignore"):
        entries = np.log10(np.abs(hessian) / np.abs(hessian).max())
    shown = middle.imshow(entries, cmap="magma", vmin=-6, vmax=0, interpolation="nearest")
    middle.figure.colorbar(shown, label="size of an entry (log₁₀, largest = 0)")
    middle.set(title="Hessian", xlabel="parameter", ylabel="parameter")
    place = np.argsort(-np.abs(eigenvalues))
    sorted_values = eigenvalues[place]
    number = np.arange(1, len(place) + 1)
    for sign, color, label in ((1, "C0", "positive"), (-1, "C3", "negative")):
        of_sign = np.sign(sorted_values) == sign
        right.semilogy(number[of_sign], np.abs(sorted_values[of_sign]), ".", color=color, label=label)
    right.axhline(1e-13 * np.abs(eigenvalues).max(), color="0.6", ls=":", label="10⁻¹³ of the largest")
    right.set(title="Eigenvalues", xlabel="number, by size", ylabel="size")
    right.legend(fontsize="small")
    plt.show()


if __name__ == "__main__":
    width, samples, seed = 10, 600, 0
    with sh.assemble(spiral(width=width, samples=samples, seed=seed)) as hessian:
        found = sh.inertia(hessian, zero=1e-13)
        print(f"{found.negative} negative, {found.zero} zero, {found.positive} positive; width + 1 = {width + 1}")
        with sh.eigs(hessian, hessian.objective.n, method="dense") as modes:
            matrix = hessian.mat.copy().convert("dense").getDenseArray()
            draw(points(samples, 0.5, np.random.default_rng(seed)), matrix, modes.eigenvalues)
