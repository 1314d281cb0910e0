"""Curvature of networks on scikit-learn's digits: ours beside curvlinops and pytorch-hessian-eigenthings.

    python benchmarks/network_curvature_vs_peers.py [--quick] [--sizes 6e3 5e4 1e6]
        [--tasks top trace density ranks] [--rounds 3] [--keep FOLDER]

Each contender works in a process of its own (`contenders/estimates.py`), in float64 on one thread, all of them
once in every round. Seconds are those of the processor, the least of all rounds; what a contender has to do once
for a network, such as checks, is not in them.

top
    The ten eigenvalues of largest magnitude: the greatest error in parts of the largest, and products.
trace
    From 96 products each, by every method that a contender has: root mean square of the relative error over seeds.
density
    From 10 starts of 80 steps each: Wasserstein's distance over the range, where all eigenvalues are known.
ranks
    Ours on two ranks, each with half of the data: seconds of the clock over those on one rank.

Ratio: seconds of the better of the peers over ours, above 1 we are faster; of traces between the method of each
that errs least. `pip install torch curvlinops-for-pytorch hessian-eigenthings scikit-learn`; what is missing is
told and left out.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from estimates_vs_peers import asked

OURS, *PEERS = CONTENDERS = ("sparsehess", "curvlinops", "eigenthings")

# Of so many digits that the exact trace of the largest takes minutes.
NETWORKS = {
    "6e3": {"widths": [64, 64, 32, 10], "data": 1797, "dense": True},
    "5e4": {"widths": [64, 200, 170, 10], "data": 1797, "dense": False},
    "1e6": {"widths": [64, 1000, 924, 10], "data": 500, "dense": False},
}
QUICK = {"6e3": {"widths": [64, 24, 16, 10], "data": 200, "dense": True}}

WORK = {
    "trace": {"products": 96, "seeds": 3},
    "density": {"samples": 10, "steps": 80, "seeds": 1},
    "top": {"products": 60},
}
CPU, PRODUCTS, CLOCK = 2, 1, 0  # in what a task says about its work


def answers_of(task, found):
    """Return {method: (error, work)} of what a contender answered."""
    if task == "density":
        return {name: (errors[2] if errors else np.nan, found["work"]) for name, errors in found["errors"].items()}
    return {name: (answer["error"], answer["work"]) for name, answer in found.items()}


class Least:
    """The least seconds of every answer over rounds, and its error."""

    def __init__(self):
        self.found = {}

    def add(self, who, answers):
        for name, (error, work) in answers.items():
            old = self.found.get((who, name))
            if old is None or work[CPU] < old[1][CPU]:
                self.found[who, name] = error, work

    def best(self, who):
        """Return the seconds of a contender's answer that errs least, None where it has none."""
        own = [answer for (whose, _), answer in self.found.items() if whose == who]
        return min(own, key=lambda answer: (np.nan_to_num(answer[0]), answer[1][CPU]))[1] if own else None


def compared(folder, task, rounds):
    least, given = Least(), json.dumps(WORK[task])
    absent = set()
    for _ in range(rounds):
        for who in CONTENDERS:
            if who in absent:
                continue
            found = asked(folder, who, task, given)
            if "absent" in found:
                absent.add(who)
                print(f"  {who:12s} left out: {found['absent']}", flush=True)
            else:
                least.add(who, answers_of(task, found))
    for (who, name), (error, work) in least.found.items():
        print(
            f"  {task:8s} {who:12s} {name:32s} {work[PRODUCTS]:6.0f} products {work[CPU]:9.3f} s   "
            f"error {error:.1e}",
            flush=True,
        )
    ours, theirs = least.best(OURS), [one for one in map(least.best, PEERS) if one is not None]
    if ours is not None and theirs:
        ratio = min(work[CPU] for work in theirs) / ours[CPU]
        print(f"  {task:8s} ratio {ratio:.2f}", flush=True)


def over_ranks(folder, rounds):
    """Print what two ranks take of the time of one."""
    for task, given in WORK.items():
        clocks = {1: [], 2: []}
        for _ in range(rounds):
            for ranks, seconds in clocks.items():
                launcher = () if ranks == 1 else ("mpiexec", "--oversubscribe", "-n", str(ranks))
                found = asked(folder, OURS, task, json.dumps(given), launcher=launcher)
                if "absent" in found:
                    print(f"  ranks    left out: {found['absent']}", flush=True)
                    return
                works = [work for _, work in answers_of(task, found).values()]
                seconds.append(min(work[CLOCK] for work in works))
        one, two = (min(seconds) for seconds in clocks.values())
        print(
            f"  ranks    {task:8s} {one:9.3f} s on one, {two:9.3f} s on two: {100 * two / one:.0f} %", flush=True
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=NETWORKS, default=[*NETWORKS], help="parameters, about")
    parser.add_argument("--tasks", nargs="+", choices=[*WORK, "ranks"], default=[*WORK, "ranks"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one round on a network of 2,000 parameters")
    parser.add_argument("--keep", type=Path, help="where networks and exact answers are kept for another run")
    given = parser.parse_args()
    networks = QUICK if given.quick else {name: NETWORKS[name] for name in given.sizes}
    rounds = 1 if given.quick else given.rounds
    with tempfile.TemporaryDirectory() as temporary:
        for name, facts in networks.items():
            folder = (given.keep or Path(temporary)) / ("quick" if given.quick else name)
            if not (folder / "facts.json").exists():
                folder.mkdir(parents=True, exist_ok=True)
                made = asked(folder, "exact", json.dumps(facts))
                if "absent" in made:
                    print(f"network {name}: {made['absent']}")
                    return
                (folder / "facts.json").write_text(json.dumps(made))
            made = json.loads((folder / "facts.json").read_text())
            print(
                f"\n{made['n']:,} parameters {facts['widths']}, {facts['data']} digits, trace {made['trace']:.6g}"
            )
            for task in given.tasks:
                if task == "ranks":
                    over_ranks(folder, rounds)
                else:
                    compared(folder, task, rounds)


if __name__ == "__main__":
    main()
