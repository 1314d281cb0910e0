"""Density, trace and largest eigenvalues: ours beside curvlinops, pytorch-hessian-eigenthings and PyHessian.

    python benchmarks/estimates_vs_peers.py [peers] [overhead] [--networks 'small|large']
        [--tasks density trace top copies] [--keep FOLDER]

peers
    All of them on the same networks and data, for equal numbers of Hessian products, each in a process of its own
    (`contenders/estimates.py`). Of the small network all eigenvalues are known, of the large one the trace and the
    largest. Density: Kolmogorov's, Lévy's and Wasserstein's distance from the exact cumulative density, medians
    over seeds. Trace: root mean square of the relative error over seeds, 90 % bars, and how many of them cover.
    Largest: greatest error over the largest eigenvalue, and how many of ten are off by 1e-6 of it. Copies: how
    often 150 Lanczos steps find each of the ten largest, which are simple. Ratios: theirs over ours, above 1 we
    are better. `pip install torch curvlinops-for-pytorch hessian-eigenthings pyhessian scikit-learn`; what is
    missing is told and left out.
overhead
    What our estimators take at a million variables beside the products: their seconds without the products', over
    those of bare products; and the same for what an unassembled Hessian adds to each product. The products of a
    chain cost next to nothing, those of the stencil little, those of the network what real ones do.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "drivers")]

CONTENDERS = ("sparsehess", "curvlinops", "eigenthings", "PyHessian")
NETWORKS = {
    "small": {"widths": [64, 64, 32, 10], "data": 300, "dense": True},
    "large": {"widths": [64, 200, 170, 10], "data": 200, "dense": False},
}
SEEDS = {"small": {"density": 3, "trace": 20}, "large": {"trace": 5}}


def asked(folder, who, *arguments, launcher=()):
    command = [*launcher, sys.executable, HERE / "contenders" / "estimates.py", folder, who, *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        return {"absent": "failed: " + (done.stderr.strip().splitlines() or ["no message"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def of_all(folder, task, **given):
    """Yield (who, results) of a task, ours first; who is not there says so."""
    for who in CONTENDERS:
        results = asked(folder, who, task, json.dumps(given))
        if "absent" in results:
            print(f"  {who:12s} left out: {results['absent']}", flush=True)
        else:
            yield who, results


def per_product(work):
    seconds, products, _ = work
    return f"{products:7.0f} {seconds:8.2f} {1e3 * seconds / products:9.2f}"


def densities(folder, seeds):
    print(f"\n density, 10 starts of 80 steps{'products':>23s} {'seconds':>8s} {'ms each':>9s}   ", end="")
    print("Kolmogorov (ratio)  Lévy (ratio)  Wasserstein (ratio)")
    ours = None
    for who, found in of_all(folder, "density", samples=10, steps=80, seeds=seeds):
        ours = ours or found["errors"]["cumulative"]
        for name, errors in found["errors"].items():
            ratios = "  ".join(f"{one:.2e} ({one / own:5.2f})" for one, own in zip(errors, ours, strict=True))
            print(f"  {who:12s} {name:32s} {per_product(found['work'])}   {ratios}", flush=True)


def traces(folder, seeds):
    print(f"\n trace, 96 products{'products':>35s} {'seconds':>8s} {'ms each':>9s}   ", end="")
    print(f"error (ratio to our best)   90 % bars   cover, of {seeds}")
    best = None
    for who, found in of_all(folder, "trace", products=96, seeds=seeds):
        best = best or min(answer["error"] for answer in found.values())
        for method, answer in found.items():
            line = f"  {who:12s} {method:32s} {per_product(answer['work'])}   {answer['error']:.2e} "
            line += f"({answer['error'] / best:6.2f})"
            if np.isfinite(answer["bar"]):
                line += f"          {answer['bar']:.2e}   {answer['covered']}"
            print(line, flush=True)


def largest(folder, seeds):
    print(f"\n ten largest{'products':>42s} {'seconds':>8s} {'ms each':>9s}   error     wrong, of 10")
    products = 0
    ours = asked(folder, "sparsehess", "top", json.dumps({"products": 0}))
    if "absent" not in ours:
        products = int(next(iter(ours.values()))["work"][1])
    for who, found in of_all(folder, "top", products=max(products, 20)):
        for name, answer in found.items():
            line = (
                f"  {who:12s} {name:32s} {per_product(answer['work'])}   {answer['error']:.1e}   {answer['wrong']}"
            )
            print(line, flush=True)


def copied(folder, seeds):
    print("\n how often 150 Lanczos steps find each of the ten largest, to 1e-7; they are simple")
    for who, found in of_all(folder, "copies", steps=150):
        flagged = "" if found["flagged"] is None else f"   called converged: {found['flagged']}"
        print(f"  {who:12s} {found['copies']}   farthest off: {found['nearest']:.0e}{flagged}", flush=True)


TASKS = {"density": densities, "trace": traces, "top": largest, "copies": copied}


def peers(given):
    with tempfile.TemporaryDirectory() as temporary:
        for name, facts in NETWORKS.items():
            if not given.networks.search(name):
                continue
            folder = (given.keep or Path(temporary)) / name
            if not (folder / "network.npz").exists():
                folder.mkdir(parents=True, exist_ok=True)
                made = asked(folder, "exact", json.dumps(facts))
                if "absent" in made:
                    print(f"{name} network: {made['absent']}")
                    return
                (folder / "facts.json").write_text(json.dumps(made))
            made = json.loads((folder / "facts.json").read_text())
            print(
                f"\n{name} network {facts['widths']}, {made['n']:,} parameters, {facts['data']} data, loss "
                f"{made['loss']:.1e}, trace {made['trace']:.6g}"
                + (f" (of all eigenvalues: {made['error']:.0e} off)" if facts["dense"] else "")
                + (f", {100 * made['near zero']:.1f} % below 1e-6 of the largest" if facts["dense"] else "")
            )
            for task in given.tasks:
                if task != "density" or facts["dense"]:
                    TASKS[task](folder, SEEDS[name].get(task))


# --- overhead ---


class Timed:
    """A function, and the seconds in it so far."""

    def __init__(self, function):
        self.function, self.seconds, self.calls = function, 0.0, 0

    def __call__(self, *arguments):
        began = time.perf_counter()
        try:
            return self.function(*arguments)
        finally:
            self.seconds += time.perf_counter() - began
            self.calls += 1


def spring_chain(sh):
    """A product that is next to nothing: a chain of a million springs."""
    stiffness = 1 + np.random.default_rng(0).random(1_000_000)

    def hvp(x, v):
        y = stiffness * v
        y[1:] -= 0.5 * v[:-1]
        y[:-1] -= 0.5 * v[1:]
        return y

    return sh.Objective(x=np.zeros(len(stiffness)), hvp=hvp)


def stencil(sh):
    from stencil_energy import field

    return field(side=100, coupled=False)


def perceptron(sh):
    """A network of 999,174 parameters on 1,797 data, as many as scikit-learn's digits."""
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(1)
    layers = torch.nn.Linear(64, 1000), torch.nn.Tanh(), torch.nn.Linear(1000, 924), torch.nn.Tanh()
    model = torch.nn.Sequential(*layers, torch.nn.Linear(924, 10))
    X, y = torch.randn(1797, 64), torch.randint(10, (1797,))
    loss = torch.nn.CrossEntropyLoss()
    return sh.from_torch(lambda model, X, y: loss(model(X), y), model, X, y)


def overhead(given):
    from dataclasses import replace

    import sparsehess as sh

    estimators = {
        "density, 2 x 30 steps": lambda free: sh.density(free, samples=2, steps=30, method="lanczos"),
        "density, 2 x 15, chebyshev": lambda free: sh.density(free, samples=2, steps=15, method="chebyshev"),
        "trace, 18 by hutchinson": lambda free: sh.trace(free, method="hutchinson", samples=18),
        "trace, 18 by hutch++": lambda free: sh.trace(free, method="hutch++", samples=18),
        "trace, 18 by xtrace": lambda free: sh.trace(free, method="xtrace", samples=18),
    }
    print("\noverhead at a million variables, in % of the seconds of bare products")
    print(
        f"  {'':12s} {'':28s} {'products':>8s} {'ms each':>8s} {'seconds':>8s} {'all':>8s} {'unassembled':>12s} ",
        end="",
    )
    print("estimator")
    for make in (spring_chain, stencil, perceptron):
        try:
            objective = make(sh)
        except ImportError as error:
            print(f"  {make.__name__:12s} left out: {error}")
            continue
        name = "hvps" if objective.hvps is not None else "hvp"
        bare = Timed(getattr(objective, name))
        with sh.MatrixFree(replace(objective, **{name: bare})) as free:
            shell = free.product = Timed(free.product)
            sh.density(free, samples=2, steps=2)  # loads everything
            for what, estimate in estimators.items():
                bare.seconds = shell.seconds = bare.calls = 0
                began = time.perf_counter()
                estimate(free)
                seconds = time.perf_counter() - began
                print(
                    f"  {make.__name__:12s} {what:28s} {bare.calls:8d} {1e3 * bare.seconds / bare.calls:8.2f} "
                    f"{seconds:8.2f} {100 * (seconds / bare.seconds - 1):8.1f} "
                    f"{100 * (shell.seconds / bare.seconds - 1):12.1f} "
                    f"{100 * (seconds - shell.seconds) / bare.seconds:9.1f}",
                    flush=True,
                )


PARTS = {"peers": peers, "overhead": overhead}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=[])
    parser.add_argument("--networks", type=re.compile, default=re.compile(""), help="regular expression")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=[*TASKS])
    parser.add_argument("--keep", type=Path, help="where networks and exact spectra are kept for another run")
    given = parser.parse_args()
    for part in given.parts or PARTS:
        PARTS[part](given)


if __name__ == "__main__":
    main()
