"""Kills at random moments: in assembly, factorization and solve, and while a checkpoint is written.

    python benchmarks/faults.py [kills of each kind, default 100] [seed]

Each run is killed once, one rank or all of them, and then run to its end. Counted: wrong answers, gradients that
were evaluated more often than once a rank beyond an undisturbed run's, and runs that took over 30 seconds to end.
"""

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import faults
import numpy as np

RANKS = 2

# What is killed, and how long after its processes have begun that is at most.
KINDS = {
    "assembly": ("problem.py:chain --set wait=0.02 -k 4 --checkpoint-interval 0", 1.0),
    "factorization": ("problem.py:chain --set n=6000 -k 4 --checkpoint-interval 2", 8.0),
    "solve": ("problem.py:chain --set n=3000 --interval 0 3.2 --checkpoint-interval 0", 4.0),
    "writing": ("problem.py:chain --set n=5000 -k 4 --checkpoint-interval 0", 4.0),
}


def run(kind: str, times: int, seed: int) -> None:
    """Kill runs of a kind, and print what became of them."""
    asked, span = KINDS[kind]
    command = f"eigs {asked} --set log=log --set pids=pids --checkpoint kept --resume -q --json answer.json"
    with tempfile.TemporaryDirectory() as folder:
        status, said = faults.start(Path(folder), command, RANKS).end(600)
        assert status == 0, said
        wanted = np.array(faults.answer(Path(folder))["eigenvalues"])
        evaluations = sum(faults.evaluated(Path(folder)).values())
    wrong = repeated = hung = kills = 0
    for number in range(times):
        with tempfile.TemporaryDirectory() as folder:
            killed = faults.kill_and_resume(Path(folder), command, RANKS, seed + number, span=span)
            found = np.array(faults.answer(Path(folder))["eigenvalues"]) if killed.status == 0 else np.empty(0)
        kills += killed.kills
        hung += killed.longest > 30
        repeated += asked.endswith(" 0") and killed.evaluated > evaluations + RANKS * killed.kills
        if len(found) != len(wanted) or not np.allclose(found, wanted, rtol=1e-10, atol=0):
            wrong += 1
            print(f"  seed {seed + number}: status {killed.status}: {killed.said.splitlines()[:1]}")
    print(
        f"{kind:14} {kills} kills in {times} runs: {wrong} wrong, {repeated} repeated too much, {hung} over 30 s"
    )


if __name__ == "__main__":
    for kind in KINDS:
        run(kind, int(sys.argv[1]) if len(sys.argv) > 1 else 100, int(sys.argv[2]) if len(sys.argv) > 2 else 0)
