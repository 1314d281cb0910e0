"""Curvature along a training
==========================
Curvature along the training of a small network, as a series of JSON lines that can be stopped and continued.

A network with tanh learns handwritten digits (scikit-learn's, or random inputs with the classes of a random
network), each rank with its share of the samples. Every so many steps a line is written about the Hessian of the
loss over all samples:

::

    step, loss       of the training
    sharpness        the largest eigenvalue, and its backward error `residual`
    lowest           the least eigenvalue that Lanczos has seen
    trace            of each layer, [value, standard error]
    resolution       what the density can tell apart, in parts of the largest eigenvalue
    degeneracy       share of eigenvalues that are smaller than parts of the largest, [value, standard error];
                     null for parts below the resolution, of which the density tells nothing
    density          share of eigenvalues between `edges`, each in parts of the largest, and `stderr`

What comes after a stop is what would have come without it, number by number on as many ranks: a state file keeps
parameters, optimiser, generator and step, and the series is cut back to it.

::

    mpiexec -n 2 python drivers/training_curvature.py --steps 200 --every 20 --out series.jsonl
    mpiexec -n 2 python drivers/training_curvature.py --steps 400 --every 20 --out series.jsonl   # goes on
    mpiexec -n 2 sparsehess eigs drivers/training_curvature.py:digits --set steps=100 --shell --which largest -k 10
"""

import argparse
import io
import json
import os
from itertools import pairwise
from pathlib import Path

from mpi4py import MPI

import numpy as np
import torch

import sparsehess as sh
from sparsehess.hosts.learning.parameter_groups import group_labels, layer_variables
from sparsehess.hosts.learning.sample_shares import share_samples
from sparsehess.hosts.torch.model_curvature import hessian
from sparsehess.hosts.torch.parameters import parameter_slices
from sparsehess.runtime import on_root

# %%
# Data and network
# ----------------

DEGENERACY = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3)  # parts of the largest eigenvalue
EDGES = np.concatenate([-np.geomspace(1, 1e-3, 16), np.geomspace(1e-3, 1, 16)])

LOSS = torch.nn.CrossEntropyLoss()


def data(samples=None, inputs=64, classes=10):
    """Return inputs and classes: digits of 64 pixels, or where scikit-learn is missing something random."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        drawn = np.random.default_rng(0)
        X = drawn.random((samples or 1000, inputs))
        return X, np.argmax(
            np.tanh(X @ drawn.normal(size=(inputs, 32))) @ drawn.normal(size=(32, classes)), axis=1
        )
    digits = load_digits()
    return digits.data[:samples] / 16.0, digits.target[:samples]


def network(widths):
    parts = []
    for inner, outer in pairwise(widths):
        parts += [torch.nn.Linear(inner, outer), torch.nn.Tanh()]
    return torch.nn.Sequential(*parts[:-1])


# %%
# A training that can be stopped
# ------------------------------


class Training:
    """A network on its way: stochastic gradients with momentum, each rank its part of every mini-batch."""

    def __init__(self, comm, widths, samples, batch, rate, seed):
        self.comm, self.batch, self.step = comm, batch, 0
        self.settings = {"widths": list(widths), "samples": samples, "batch": batch, "rate": rate, "seed": seed}
        X, y = data(samples)
        self.total, self.first = len(X), sum(comm.allgather(len(share_samples(X, comm=comm)[0]))[: comm.rank])
        self.inputs, self.targets = (torch.tensor(one) for one in share_samples(X, y, comm=comm))
        torch.manual_seed(seed)
        self.model = network(widths).double()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=rate, momentum=0.9)
        self.generator = torch.Generator().manual_seed(seed)

    @property
    def x(self):
        return torch.nn.utils.parameters_to_vector(self.model.parameters()).detach().numpy()

    def advance(self):
        """Take a step. Ranks draw the same mini-batch, and sum the slopes of their parts of it."""
        chosen = torch.randperm(self.total, generator=self.generator)[: self.batch] - self.first
        own = chosen[(chosen >= 0) & (chosen < len(self.inputs))]
        self.optimizer.zero_grad()
        if len(own):
            part = len(own) / len(chosen)
            (part * LOSS(self.model(self.inputs[own]), self.targets[own])).backward()
        for parameter in self.model.parameters():
            slope = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = torch.from_numpy(self.comm.allreduce(slope.numpy()))
        self.optimizer.step()
        self.step += 1

    def save(self, path):
        """Write the state where the old one was, on the first rank: all of it or nothing."""
        arrays = {f"model/{name}": value.numpy() for name, value in self.model.state_dict().items()}
        for number, values in self.optimizer.state_dict()["state"].items():
            arrays |= {f"optimizer/{number}/{key}": np.asarray(value) for key, value in values.items()}
        arrays |= {"generator": self.generator.get_state().numpy(), "step": np.array(self.step)}
        arrays["settings"] = np.array(json.dumps(self.settings))

        def write():
            fresh = path.with_name(path.name + ".new")
            with fresh.open("wb") as file:
                np.savez(file, **arrays)
            os.replace(fresh, path)

        on_root(self.comm, write)

    def restore(self, path):
        """Go on from a state file; return whether there is one. It is read as numbers, never as code."""
        stored = on_root(self.comm, lambda: path.read_bytes() if path.exists() else None)
        if stored is None:
            return False
        arrays = dict(np.load(io.BytesIO(stored), allow_pickle=False))
        settings = json.loads(str(arrays["settings"]))
        if settings != self.settings:
            raise sh.InputError(f"{path} is of another training: {settings}, not {self.settings}")
        self.model.load_state_dict(
            {name: torch.from_numpy(one) for name, one in part_of(arrays, "model/").items()}
        )
        state = {}
        for place, value in part_of(arrays, "optimizer/").items():
            number, _, key = place.partition("/")
            state.setdefault(int(number), {})[key] = torch.from_numpy(value)
        groups = self.optimizer.state_dict()["param_groups"]  # what they hold is in the settings
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        self.generator.set_state(torch.from_numpy(arrays["generator"]))
        self.step = int(arrays["step"])
        return True


def part_of(arrays, prefix):
    """Return the arrays whose names begin so, by what follows."""
    return {name.removeprefix(prefix): one for name, one in arrays.items() if name.startswith(prefix)}


# %%
# What is measured
# ----------------
# Sharpness by Lanczos with its residual, the trace of each layer, and the density of the whole spectrum: a few
# hundred products with the Hessian of the loss over all samples, which is never assembled.


def curvature(training):
    """Return the objective of the loss over all samples."""
    return hessian(training.model, LOSS, training.inputs, training.targets, name="digits", comm=training.comm)


def measured(training, free, groups, samples, steps):
    """Return the line of a series for where the training is."""
    free.update(training.x)
    numbers = group_labels(groups, free.objective.n)
    with sh.eigs(free, 1, which="largest", count="no") as found:
        sharpness, residual = float(found.eigenvalues[0]), float(found.residuals[0])
    with sh.EigenProblem.of(free) as problem:
        traces = sh.block_traces(problem, numbers, samples=samples)
        spectrum = sh.density(problem, samples=max(2, samples // 4), steps=steps)
    shares, errors = spectrum.below(EDGES * sharpness)
    resolution = spectrum.width / sharpness
    degeneracy = {}
    for part in DEGENERACY:
        number, error = spectrum.count(-part * sharpness, part * sharpness)
        degeneracy[f"{part:g}"] = [number / spectrum.n, error / spectrum.n] if part >= resolution else None
    return {
        "step": training.step,
        "loss": training.comm.allreduce(free.objective.energy(training.x)),
        "sharpness": sharpness,
        "residual": residual,
        "lowest": float(spectrum.range[0]),
        "trace": {
            name: [float(value), float(error)]
            for name, value, error in zip(groups, traces.traces, traces.stderr, strict=True)
        },
        "resolution": resolution,
        "degeneracy": degeneracy,
        "density": {
            "edges": EDGES.tolist(),
            "share": np.diff(shares).tolist(),
            "stderr": np.hypot(errors[1:], errors[:-1]).tolist(),
        },
    }


def cut_back(path, step):
    """Drop lines of the series that come after a step, and what is left of one that was being written.

    `step` is None where there is no state: then nothing but the very first line can be of this training.
    """
    kept, dropped = [], 0
    for line in path.read_text().splitlines(keepends=True) if path.exists() else []:
        try:
            at = json.loads(line)["step"] if line.endswith("\n") else np.inf
        except (ValueError, KeyError, TypeError):
            at = np.inf
        if dropped or step is None or at > step:
            dropped += 1
        else:
            kept.append(line)
    if step is None and dropped > 1:
        raise sh.InputError(f"{path} is there, and no state beside it to go on from: choose another file")
    path.write_text("".join(kept))


def follow(training, steps, every, out, samples=16, lanczos=80):
    """Train until `steps` are taken, with a line every so many; go on where the state beside `out` is."""
    comm, state = training.comm, out.with_suffix(".state")
    begun = training.restore(state)
    on_root(comm, lambda: cut_back(out, training.step if begun else None))
    groups = layer_variables(parameter_slices(training.model))
    with sh.MatrixFree(curvature(training)) as free:
        while training.step < steps or not begun:
            if begun:
                training.advance()
            begun = True
            if training.step % every == 0:
                line = json.dumps(measured(training, free, groups, samples, lanczos))

                def append(line=line):
                    with out.open("a") as series:
                        series.write(line + "\n")
                        series.flush()
                        os.fsync(series.fileno())

                on_root(comm, append)
                training.save(state)


def digits(comm=None, steps=100, widths=(64, 32, 10), samples=None, batch=64, rate=0.1, seed=0):
    """Return the loss of a network that was trained for so many steps."""
    training = Training(comm or MPI.COMM_WORLD, widths, samples, batch, rate, seed)
    for _ in range(steps):
        training.advance()
    return curvature(training)


# %%
# A short training
# ----------------
# The pictures are those of ``--steps 90 --every 30 --out series.jsonl --plot series.png``.


def draw(series, picture):
    """Draw loss, sharpness and traces along the training, and the density of the spectrum, into a file."""
    import matplotlib.pyplot as plt

    lines = [json.loads(line) for line in series.read_text().splitlines()]
    steps = [line["step"] for line in lines]
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    left.plot(steps, [line["loss"] for line in lines], "o-", color="0.4", label="loss")
    left.set(xlabel="step", ylabel="loss", title="Loss and sharpness", ylim=(0, None))
    twin = left.twinx()
    twin.plot(steps, [line["sharpness"] for line in lines], "s-", color="C3")
    twin.set_ylabel("largest eigenvalue", color="C3")
    twin.set_ylim(0, None)
    for layer in lines[0]["trace"]:
        values, errors = np.array([line["trace"][layer] for line in lines]).T
        middle.errorbar(steps, values, 2 * errors, fmt="o-", capsize=3, label=f"layer {layer}")
    middle.set(xlabel="step", ylabel="trace", title="Traces of layers, two standard errors", ylim=(0, None))
    middle.legend()
    for line in lines[:: max(1, len(lines) // 3)]:
        edges, share = np.array(line["density"]["edges"]), np.array(line["density"]["share"])
        right.stairs(np.maximum(share, 1e-5), edges, label=f"step {line['step']}")
    right.set_xscale("symlog", linthresh=1e-3)
    right.set(yscale="log", ylim=(1e-4, 1), xticks=(-1, -0.01, 0, 0.01, 1), title="Spectrum")
    right.set(xlabel="eigenvalue (parts of the largest)", ylabel="share of all eigenvalues")
    right.legend()
    figure.savefig(picture)


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Curvature along the training of a small network.")
    parser.add_argument("--steps", type=int, default=200, help="of training in all")
    parser.add_argument("--every", type=int, default=20, help="steps from line to line")
    parser.add_argument("--out", type=Path, default=Path("series.jsonl"), help="the state is kept beside it")
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 32, 10])
    parser.add_argument("--samples", type=int, help="of the data, default all")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--probes", type=int, default=16, help="random vectors for traces")
    parser.add_argument("--lanczos", type=int, default=80, help="steps for the density")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the series into a picture")
    given = parser.parse_args(arguments)
    training = Training(MPI.COMM_WORLD, given.widths, given.samples, given.batch, given.rate, given.seed)
    follow(training, given.steps, given.every, given.out, given.probes, given.lanczos)
    if given.plot:
        on_root(MPI.COMM_WORLD, draw, given.out, given.plot)


if __name__ == "__main__":
    main()
