"""Estimates of one contender on a stored network, in a process of its own; prints one line of JSON.

    PROGRAM FOLDER exact '{"widths": [64, 64, 32, 10], "data": 300, "dense": true}'
    PROGRAM FOLDER curvlinops density '{"samples": 10, "steps": 80, "seeds": 3}'

`exact` trains a network with tanh and cross-entropy on handwritten digits (scikit-learn's, or random data with
labels of a random network) and stores it with its exact trace, its largest eigenvalues and, if `dense`, all of
them. Every other contender answers a task (`density`, `trace`, `top`, `copies`) with its errors, its seconds and
the products it took, counted where they are made. `absent` says why a contender is not there.

Everybody works in float64 on one thread. What is put right for peers: curvlinops is given the ends of the spectrum
for nothing, PyHessian a `torch.eig`, which PyTorch no longer has, and tolerances at which it does not stop early.
Ours checks a matrix with 2 products when it is made a problem: they count for eigenvalues, and not for densities
and traces, whose problem is made once.
"""

import json
import os
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import scipy.linalg
import scipy.sparse.linalg as sla
import torch
from scipy.stats import t as student

sys.path[:0] = [str(Path(__file__).parents[2])]  # where sparsehess is not installed

LEVEL = 0.9  # of error bars
SAME = 1e-7  # eigenvalues nearer than this part of the largest are the same
POINTS = 10_000  # of smoothed densities


class Absent(Exception):
    """The peer is not installed; the message says what is missing."""


# --- networks ---


class Network:
    """A stored network and its data; `exact` has its trace, its largest eigenvalues and perhaps all."""

    def __init__(self, folder):
        facts = np.load(folder / "network.npz")
        self.exact = {name: facts[name] for name in ("trace", "top", "all", "ends")}
        self.model, self.X, self.y = network(facts["widths"]), *map(torch.tensor, (facts["X"], facts["y"]))
        torch.nn.utils.vector_to_parameters(torch.tensor(facts["parameters"]), self.model.parameters())
        self.parameters = list(self.model.parameters())


def network(widths):
    layers = []
    for inner, outer in pairwise(widths):
        layers += [torch.nn.Linear(int(inner), int(outer)), torch.nn.Tanh()]
    return torch.nn.Sequential(*layers[:-1])


def data(count, inputs, classes):
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        X = torch.randn(count, inputs)
        return X, (X @ torch.randn(inputs, classes)).argmax(1)
    digits = load_digits()
    return torch.tensor(digits.data[:count] / 16.0), torch.tensor(digits.target[:count])


loss = torch.nn.CrossEntropyLoss()


def slopes(model, X, y):
    return torch.autograd.grad(loss(model(X), y), list(model.parameters()), create_graph=True)


def store(folder, widths, data_count, dense):
    torch.manual_seed(0)
    model, (X, y) = network(widths), data(data_count, widths[0], widths[-1])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        loss(model(X), y).backward()
        optimizer.step()
    parameters = list(model.parameters())
    gradient = torch.cat([slope.ravel() for slope in slopes(model, X, y)])
    n = len(gradient)

    def products(V):
        batched = torch.autograd.grad(gradient, parameters, V, retain_graph=True, is_grads_batched=True)
        return torch.cat([part.reshape(len(V), -1) for part in batched], 1).numpy()

    operator = sla.LinearOperator((n, n), lambda v: products(torch.tensor(v).reshape(1, n))[0], dtype=np.float64)
    top = sla.eigsh(operator, 10, ncv=40, tol=0, return_eigenvectors=False)
    ends, every = sla.eigsh(operator, 2, which="BE", ncv=40, tol=1e-10, return_eigenvectors=False), np.empty(0)
    if dense:
        H, eye = np.empty((n, n)), torch.eye(n)
        for first in range(0, n, 64):
            H[first : first + 64] = products(eye[first : first + 64])
        every = scipy.linalg.eigh(H, eigvals_only=True, overwrite_a=True, driver="evd")
    total = exact_trace(model, X, y)
    np.savez(
        folder / "network.npz",
        widths=widths,
        X=X,
        y=y,
        parameters=torch.nn.utils.parameters_to_vector(parameters).detach(),
        trace=total,
        top=top[np.argsort(-np.abs(top))],
        all=every,
        ends=np.sort(ends),
    )
    return {
        "n": n,
        "loss": loss(model(X), y).item(),
        "trace": total,
        "error": abs(every.sum() / total - 1) if dense else None,
        "near zero": float(np.mean(np.abs(every) < 1e-6 * np.abs(top).max())) if dense else None,
    }


def exact_trace(model, X, y):
    """Return the trace from Hessians by the layers' outputs z: that by a layer's weights is, for each of the data,
    the Hessian by z times the square of the layer's input, with the 1 of the bias."""
    shifts, squares, value = [], [], X
    for layer in model:
        if isinstance(layer, torch.nn.Linear):
            squares.append(1 + (value.detach() ** 2).sum(1))
            shifts.append(torch.zeros(len(X), layer.out_features, requires_grad=True))
            value = layer(value) + shifts[-1]
        else:
            value = layer(value)
    gradients = torch.autograd.grad(loss(value, y), shifts, create_graph=True)
    total = 0.0
    for gradient, shift, square in zip(gradients, shifts, squares, strict=True):
        for j in range(shift.shape[1]):
            (row,) = torch.autograd.grad(gradient[:, j].sum(), shift, retain_graph=True)
            total += float(row[:, j] @ square)
    return total


# --- what cumulative densities are: functions of points to their limits from the left and from the right ---


def staircase(nodes, weights):
    order = np.argsort(nodes)
    nodes, total = np.asarray(nodes)[order], np.concatenate([[0.0], np.cumsum(np.asarray(weights)[order])])

    def limits(points, slack):
        places = (np.searchsorted(nodes, points + way * slack) for way in (-1, 1))
        return [total[place] / total[-1] for place in places]

    return limits


def smooth(grid, density):
    cells = np.diff(grid) * (density[1:] + density[:-1]) / 2
    total = np.concatenate([[0.0], np.cumsum(cells)])
    return lambda points, slack: [np.interp(points, grid, total / total[-1])] * 2


def distances(limits, exact):
    """Return Kolmogorov's distance from the exact spectrum; that where values may be off by 0.1 % of the range
    (Lévy's, with that in one direction only); and Wasserstein's over the range."""
    size, width = np.abs(exact).max(), exact[-1] - exact[0]
    true, slack = staircase(exact, np.ones(len(exact))), SAME * size
    points = np.concatenate([exact, np.linspace(exact[0] - 0.05 * width, exact[-1] + 0.05 * width, POINTS)])
    theirs, ours = limits(points, slack), true(points, slack)
    kolmogorov = max(np.abs(one - other).max() for one, other in zip(theirs, ours, strict=True))
    lower, upper = true(points - 1e-3 * width, slack)[0], true(points + 1e-3 * width, slack)[1]
    levy = max((lower - theirs[1]).max(), (theirs[0] - upper).max(), 0.0)
    points = np.sort(points)
    gaps = np.abs(limits(points, 0.0)[1] - true(points, 0.0)[1])
    wasserstein = np.sum(np.diff(points) * (gaps[1:] + gaps[:-1]) / 2) / width
    return [float(kolmogorov), float(levy), float(wasserstein)]


# --- contenders: `products` so far; estimates, of which some yield several answers by name ---


class Ours:
    """sparsehess, on an unassembled Hessian, each rank with its share of the data."""

    methods = ("hutchinson", "hutch++", "xtrace")

    def __init__(self, network):
        from mpi4py import MPI

        import sparsehess as sh
        from sparsehess.hosts.learning.sample_shares import share_samples
        from sparsehess.hosts.torch.model_curvature import hessian

        self.sh, world = sh, MPI.COMM_WORLD
        mine = share_samples(network.X, network.y, comm=world)
        self.free = sh.MatrixFree(hessian(network.model, loss, *mine, comm=world))
        self.problem = sh.EigenProblem.of(self.free)

    @property
    def products(self):
        return self.free.evaluations["hvp"]

    def density(self, samples, steps, seed):
        found = self.sh.density(self.problem, samples=samples, steps=steps, seed=seed, method="lanczos")
        yield "cumulative", lambda points, slack: [found.below(points, inclusive=way)[0] for way in (False, True)]
        measures = found.measures
        yield "its quadrature", staircase(np.concatenate(measures.nodes), np.concatenate(measures.weights))

    def trace(self, method, products, seed):
        found = self.sh.trace(self.problem, method=method, samples=products, seed=seed)
        return found.trace, found.bars(LEVEL)

    def top(self, products):
        found = self.sh.eigs(self.free, 10, which="magnitude", count="no")
        yield "eigs, tol 1e-8", found.eigenvalues
        found.close()

    def nodes(self, steps):
        return self.sh.density(self.problem, samples=2, steps=steps, method="lanczos").measures.nodes[0], None


class Curvlinops:
    """Papyan's Lanczos without reorthogonalisation, Hutchinson, Hutch++, XTrace; eigenvalues by SciPy."""

    methods = ("hutchinson", "hutch++", "xtrace")

    def __init__(self, network):
        try:
            import curvlinops
        except ImportError as error:
            raise Absent(str(error)) from error
        contender = self

        class Counting(curvlinops.HessianLinearOperator):
            def _matmat(self, M):
                contender.products += M[0].shape[-1]
                return super()._matmat(M)

        self.package, self.products, self.ends = curvlinops, 0, tuple(network.exact["ends"])
        self.A = Counting(network.model, loss, network.parameters, [(network.X, network.y)])

    def density(self, samples, steps, seed):
        torch.manual_seed(seed)
        found = self.package.LanczosApproximateSpectrumCached(self.A, steps, self.ends)
        grid, density = found.approximate_spectrum(samples, POINTS)
        yield "its Gaussians", smooth(grid.numpy(), density.numpy())
        runs = found._get_lanczos_iters(samples)
        yield (
            "its quadrature",
            staircase(
                np.concatenate([nodes.numpy() for nodes, _ in runs]),
                np.concatenate([vectors[0].numpy() ** 2 for _, vectors in runs]),
            ),
        )

    def trace(self, method, products, seed):
        torch.manual_seed(seed)
        name = {"hutchinson": "hutchinson_trace", "hutch++": "hutchpp_trace", "xtrace": "xtrace"}[method]
        return getattr(self.package, name)(self.A, products).item(), None

    def top(self, products):
        operator = self.A.to_scipy()
        start = np.random.default_rng(0).normal(size=operator.shape[0])
        yield "SciPy's eigsh", sla.eigsh(operator, 10, v0=start, tol=1e-8, return_eigenvectors=False)

    def nodes(self, steps):
        from curvlinops.papyan2020traces.spectrum import fast_lanczos

        torch.manual_seed(0)
        return fast_lanczos(self.A, steps)[0].numpy(), None


class Eigenthings:
    """Lanczos with or without reorthogonalisation, power iteration, Hutchinson, Hutch++."""

    methods = ("hutchinson", "hutch++")

    def __init__(self, network):
        try:
            import hessian_eigenthings
        except ImportError as error:
            raise Absent(str(error)) from error
        if not hasattr(hessian_eigenthings, "spectral_density"):
            raise Absent("this pytorch-hessian-eigenthings has no densities and traces; version 1 does")
        contender = self

        class Counting(hessian_eigenthings.HessianOperator):
            def matvec(self, v):
                contender.products += 1
                return super().matvec(v)

        self.package, self.products = hessian_eigenthings, 0
        wanted = hessian_eigenthings.supervised_loss(loss)
        self.A = Counting(network.model, [(network.X, network.y)], wanted)

    def density(self, samples, steps, seed):
        found = self.package.spectral_density(
            self.A, num_runs=samples, lanczos_steps=steps, num_grid_points=POINTS, seed=1000 * seed
        )
        yield "its Gaussians", smooth(found.grid.numpy(), found.density.numpy())
        there = ~found.raw_eigenvalues.isnan()
        yield "its quadrature", staircase(found.raw_eigenvalues[there].numpy(), found.raw_weights[there].numpy())

    def trace(self, method, products, seed):
        found = self.package.trace(self.A, num_matvecs=products, method=method, seed=seed)
        return found.estimate, half(found.stderr, len(found.samples))

    def top(self, products):
        yield "lanczos", self.package.lanczos(self.A, k=10, max_iter=products, seed=0).eigenvalues.numpy()
        full = {"max_iter": products, "reorthogonalize": True, "seed": 0}
        yield "lanczos, told to reorthogonalise", self.package.lanczos(self.A, k=10, **full).eigenvalues.numpy()
        found = self.package.deflated_power_iteration(self.A, k=10, max_iter=products // 10, tol=0.0, seed=0)
        yield "power iteration", found.eigenvalues.numpy()

    def nodes(self, steps):
        found = self.package.lanczos(self.A, k=steps, max_iter=steps, seed=0)
        return found.eigenvalues.numpy(), found.converged.numpy()


class PyHessian:
    """Lanczos with reorthogonalisation, power iteration, Hutchinson."""

    methods = ("hutchinson",)

    def __init__(self, network):
        try:
            from pyhessian import hessian
        except ImportError as error:
            raise Absent(str(error)) from error
        torch.eig = self._eig
        module = sys.modules[hessian.__module__]
        product, self.products = module.hessian_vector_product, 0

        def counting(*arguments):
            self.products += 1
            return product(*arguments)

        module.hessian_vector_product = counting
        self.hessian = hessian(network.model, loss, data=(network.X, network.y), cuda=False)

    @staticmethod
    def _eig(T, eigenvectors):
        values, vectors = torch.linalg.eigh(T)
        return torch.stack([values, torch.zeros_like(values)], 1), vectors

    def density(self, samples, steps, seed):
        torch.manual_seed(seed)
        nodes, weights = self.hessian.density(iter=steps, n_v=samples)
        yield "its quadrature", staircase(np.concatenate(nodes), np.concatenate(weights))

    def trace(self, method, products, seed):
        torch.manual_seed(seed)
        values = self.hessian.trace(maxIter=products, tol=-np.inf)
        return np.mean(values), half(np.std(values, ddof=1) / np.sqrt(len(values)), len(values))

    def top(self, products):
        torch.manual_seed(0)
        yield "power iteration", self.hessian.eigenvalues(maxIter=products // 10, tol=0.0, top_n=10)[0]
        yield "power iteration, as it comes", self.hessian.eigenvalues(top_n=10)[0]

    def nodes(self, steps):
        torch.manual_seed(0)
        return np.array(self.hessian.density(iter=steps, n_v=1)[0][0]), None


def half(error, samples):
    """Return half the width of error bars of a mean."""
    return float(error * student.ppf((1 + LEVEL) / 2, samples - 1))


CONTENDERS = {
    "sparsehess": Ours,
    "curvlinops": Curvlinops,
    "eigenthings": Eigenthings,
    "PyHessian": PyHessian,
}


# --- tasks ---


class Watch:
    """Seconds, products of a contender, and seconds of this rank's processor, since the last look."""

    def __init__(self, contender):
        self.contender = contender
        self.look()

    def look(self):
        before = getattr(self, "_now", (0.0, 0, 0.0))
        self._now = time.perf_counter(), self.contender.products, time.process_time()
        return [now - then for now, then in zip(self._now, before, strict=True)]


def density(contender, exact, samples, steps, seeds):
    watch, work, found = Watch(contender), [], {}
    for seed in range(seeds):
        answers = list(contender.density(samples, steps, seed))
        work.append(watch.look())
        for name, limits in answers:
            found.setdefault(name, []).append(distances(limits, exact["all"]) if len(exact["all"]) else [])
        watch.look()
    medians = {name: np.median(rows, axis=0).tolist() for name, rows in found.items()}
    return {"errors": medians, "work": np.median(work, axis=0).tolist()}


def trace(contender, exact, products, seeds):
    total, watch, results = float(exact["trace"]), Watch(contender), {}
    for method in contender.methods:
        errors, bars, work = [], [], []
        watch.look()
        for seed in range(seeds):
            value, bar = contender.trace(method, products, seed)
            work.append(watch.look())
            errors.append(value - total)
            bars.append(np.nan if bar is None else bar)
        errors, bars = np.array(errors), np.array(bars)
        results[method] = {
            "error": float(np.sqrt(np.mean(errors**2)) / abs(total)),
            "bar": float(np.mean(bars) / abs(total)),
            "covered": int(np.sum(np.abs(errors) <= bars)),
            "work": np.median(work, axis=0).tolist(),
        }
    return results


def top(contender, exact, products):
    wanted, watch, results = exact["top"], Watch(contender), {}
    for name, found in contender.top(products):
        work = watch.look()
        values = np.array(sorted(found, key=abs, reverse=True))
        error = np.abs(values - wanted).max() / abs(wanted[0])
        wrong = int(np.sum(np.abs(values - wanted) > 1e-6 * abs(wanted[0])))
        results[name] = {"error": float(error), "wrong": wrong, "work": work}
        watch.look()
    return results


def copies(contender, exact, steps):
    nodes, flags = contender.nodes(steps)
    near = [np.abs(nodes - value) <= SAME * abs(exact["top"][0]) for value in exact["top"]]
    nearest = max(np.abs(nodes - value).min() for value in exact["top"]) / abs(exact["top"][0])
    return {
        "copies": [int(where.sum()) for where in near],
        "flagged": None if flags is None else [int(flags[where].sum()) for where in near],
        "nearest": float(nearest),
    }


TASKS = {task.__name__: task for task in (density, trace, top, copies)}


def main():
    folder, who, *rest = sys.argv[1:]
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    if who == "exact":
        given = json.loads(rest[0])
        result = store(Path(folder), given["widths"], given["data"], given["dense"])
    else:
        try:
            here = Network(Path(folder))
            contender = CONTENDERS[who](here)
            list(contender.density(2, 4, 0))  # loads everything
            result = TASKS[rest[0]](contender, here.exact, **json.loads(rest[1]))
        except Absent as absent:
            result = {"absent": str(absent)}
    if int(os.environ.get("OMPI_COMM_WORLD_RANK", os.environ.get("PMI_RANK", "0"))) == 0:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
