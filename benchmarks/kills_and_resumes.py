"""Kills at random moments: in assembly, factorization and solve, while a checkpoint is written, and of a service.

    python benchmarks/kills_and_resumes.py [kills of each kind, default 100] [seed [kinds]]

Each run is killed once, one rank or all of them, at any moment of an undisturbed run's time, and then run to its
end. Counted: wrong answers, gradients that were evaluated more often than once a rank beyond an undisturbed run's,
and runs that took over 30 seconds to end. A service is killed again and again, and started again, with jobs that
wait; each must be done once.
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import numpy as np

from sparsehess.service import job_outcomes, local_scheduler
from sparsehess.service.spool import Spool
from sparsehess.service.spool_clients import WholeSpool
from support import faults

RANKS = 2

KINDS = {
    "assembly": "problem.py:chain --set wait=0.02 -k 4 --checkpoint-interval 0",
    "factorization": "problem.py:chain --set n=6000 -k 4 --checkpoint-interval 2",
    "solve": "problem.py:chain --set n=3000 --interval 0 3.2 --checkpoint-interval 0",
    "writing": "problem.py:chain --set n=5000 -k 4 --checkpoint-interval 0",
}


def run(kind: str, times: int, seed: int) -> None:
    """Kill runs of a kind, and print what became of them."""
    asked = KINDS[kind]
    command = f"eigs {asked} --set log=log --set pids=pids --checkpoint kept --resume -q --json answer.json"
    with tempfile.TemporaryDirectory() as folder:
        running = faults.start(Path(folder), command, RANKS)
        assert running.pids(), running.end()
        began = time.monotonic()
        status, said = running.end(600)
        assert status == 0, said
        span = time.monotonic() - began
        wanted = np.array(faults.answer(Path(folder))["eigenvalues"])
        evaluations = sum(faults.evaluated(Path(folder)).values())
    wrong = repeated = hung = kills = 0
    number = -1
    while kills < times and number < 3 * times:  # some are through before they are killed
        number += 1
        with tempfile.TemporaryDirectory() as folder:
            killed = faults.kill_and_resume(Path(folder), command, RANKS, seed + number, span=span)
            found = np.array(faults.answer(Path(folder))["eigenvalues"]) if killed.status == 0 else np.empty(0)
        kills += killed.kills
        hung += killed.longest > 30
        repeated += asked.endswith(" 0") and killed.evaluated > evaluations + RANKS * killed.kills
        if len(found) != len(wanted) or not np.allclose(found, wanted, rtol=1e-10, atol=0):
            wrong += 1
            print(f"  seed {seed + number}: status {killed.status}: {killed.said.splitlines()[:1]}")
    runs = f"{kind:14} {kills} kills in {number + 1} runs"
    print(f"{runs}: {wrong} wrong, {repeated} repeated too much, {hung} over 30 s")


# Jobs that wait for the service while it is killed.
WAITING = 6

JOB = """command = "eigs"
input = "{}:chain"
k = 4
checkpoint = "kept"
checkpoint-interval = 0
set = {{ n = 200, wait = 0.01, log = "seen" }}
"""


def serve(times: int, seed: int) -> None:
    """Kill a service, and print what became of its jobs."""
    moments = random.Random(seed)
    place = Path(tempfile.mkdtemp())
    (place / "problem.py").write_text(faults.PROBLEM)
    queue = Spool.open_or_create(place / "spool")
    ids, hung, kills = [], 0, 0

    def put():
        folder = WholeSpool(queue).make_draft()
        (folder / "job.toml").write_text(JOB.format(place / "problem.py"))
        ids.extend(WholeSpool(queue).enqueue([folder]))

    def started(*flags):
        words = ["mpiexec", "-n", str(RANKS), sys.executable, "-m", "sparsehess", "serve", str(queue.path)]
        with open(place / "said", "ab") as said:
            return subprocess.Popen(
                [*words, "--allow-code", str(place), *flags],
                env=local_scheduler.job_environment(),
                stdout=said,
                stderr=said,
            )

    def ended(service) -> bool:
        """Say whether it ended in time."""
        try:
            service.wait(30)
        except subprocess.TimeoutExpired:
            service.kill()
            return False
        return True

    put()
    assert started("--once").wait(600) == 0, (place / "said").read_text()
    first = queue.path / "done" / ids[0]
    wanted = np.array(job_outcomes.read_json(first / "result.json")["eigenvalues"])
    plain = sum(faults.evaluated(first, "seen").values())
    while kills < times:
        while queue.count_jobs("queued") < WAITING:
            put()
        groups = moments.choice([[], ["--groups", "2"]])
        service = started(*groups)
        while len(ranks := faults.children(service.pid)) < RANKS:
            assert service.poll() is None, (place / "said").read_text()
            time.sleep(0.01)
        time.sleep(moments.uniform(0.0, 3.0))
        for process in ranks if moments.random() < 0.5 else [moments.choice(ranks)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        kills += 1
        hung += not ended(service)
    hung += 0 if started("--once").wait(600) == 0 else 1
    done, failed = os.listdir(queue.path / "done"), os.listdir(queue.path / "failed")
    lost = set(ids) - set(done) - set(failed)
    doubled = len(done) + len(failed) - (len(ids) - len(lost))  # a second end of a job has another name
    wrong = repeated = 0
    for identity in done:
        folder = queue.path / "done" / identity
        found = np.array(job_outcomes.read_json(folder / "result.json")["eigenvalues"])
        wrong += not (found.shape == wanted.shape and np.allclose(found, wanted, rtol=1e-10, atol=0))
        attempts = job_outcomes.read_outcome(folder)["attempts"]
        again = sum(faults.evaluated(folder, "seen").values()) - plain
        repeated += again > RANKS * (attempts - 1)
    for identity in failed:
        print(f"  {identity}: {job_outcomes.read_outcome(queue.path / 'failed' / identity)['error']}")
    print(
        f"service        {kills} kills among {len(ids)} jobs: {wrong} wrong, {len(failed)} failed, "
        f"{len(lost)} lost, {doubled} done twice, {repeated} repeated too much, {hung} over 30 s"
    )
    shutil.rmtree(place)


def main() -> None:
    times = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    for kind in sys.argv[3:] or [*KINDS, "service"]:
        if kind == "service":
            serve(times, seed)
        else:
            run(kind, times, seed)


if __name__ == "__main__":
    main()
