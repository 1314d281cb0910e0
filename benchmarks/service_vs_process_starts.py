"""Small jobs through the resident service against a start of mpiexec for each.

Each job has a matrix of its own (n = 1,000, the 5 lowest pairs). The service's time counts from its start to its
end, submissions included; the starts are a sample, told for as many jobs. Memory is that of the service's first
rank after a tenth of the jobs and at the end.

    python benchmarks/service_vs_process_starts.py [JOBS [RANKS]]
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from sparsehess.service.batch import local_scheduler
from sparsehess.service.spool import job_outcomes
from sparsehess.service.spool.clients import WholeSpool
from sparsehess.service.spool.spool import Spool

N, K, SAMPLE = 1_000, 5, 5
JOB = f'command = "eigs"\ninput = "h.npz"\nk = {K}\n'


def matrix(number: int):
    """A grid of springs in space, its nodes held by others of random stiffness."""
    ends, one = np.ones(10), sp.identity(10)
    chain = sp.diags([-ends[1:], 2 * ends, -ends[1:]], [-1, 0, 1])
    grid = (
        sp.kron(sp.kron(chain, one), one) + sp.kron(sp.kron(one, chain), one) + sp.kron(sp.kron(one, one), chain)
    )
    return (grid + sp.diags(np.random.default_rng(number).uniform(0.0, 0.1, N))).tocsr()


def resident(process: int) -> int:
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def main():
    jobs = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000
    ranks = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    start = ["mpiexec", "-n", str(ranks), sys.executable, "-m", "sparsehess"]
    with tempfile.TemporaryDirectory() as place:
        alone = []
        for number in range(SAMPLE):
            sp.save_npz(f"{place}/h.npz", matrix(number))
            began = time.perf_counter()
            subprocess.run(
                [*start, "eigs", f"{place}/h.npz", "-k", str(K), "-q", "--json", f"{place}/{number}.json"],
                check=True,
                env=local_scheduler.job_environment(),
            )
            alone.append(time.perf_counter() - began)
        queue = Spool.open_or_create(f"{place}/spool")
        began = time.perf_counter()
        service = subprocess.Popen(
            [*start, "serve", str(queue.path), "--cache", "16M"], env=local_scheduler.job_environment()
        )
        client, ids = WholeSpool(queue), []
        for first in range(0, jobs, 100):
            drafts = []
            for number in range(first, min(first + 100, jobs)):
                drafts.append(client.make_draft())
                sp.save_npz(drafts[-1] / "h.npz", matrix(number), compressed=False)
                (drafts[-1] / "job.toml").write_text(JOB)
            ids += client.enqueue(drafts)
        early, leader = 0, None
        while (ended := queue.count_jobs("done") + queue.count_jobs("failed")) < jobs:
            leader = leader or job_outcomes.read_json(queue.path / "service.json").get("process")
            if not early and leader and ended >= jobs // 10:
                early = resident(leader)
            time.sleep(0.2)
        late = resident(leader)
        queue.stop()
        if service.wait(60):
            raise SystemExit("the service has left jobs behind")
        spent = time.perf_counter() - began
        if queue.count_jobs("failed"):
            raise SystemExit(f"{queue.count_jobs('failed')} jobs have failed")
        for number in range(SAMPLE):  # the same answers
            ours = json.loads((queue.path / "done" / ids[number] / "result.json").read_text())["eigenvalues"]
            theirs = json.loads(Path(f"{place}/{number}.json").read_text())["eigenvalues"]
            np.testing.assert_allclose(ours, theirs, rtol=1e-9)
        inside = [job_outcomes.read_outcome(queue.path / "done" / one)["seconds"] for one in ids]
    each = statistics.median(alone)
    print(f"{jobs} jobs, {ranks} rank(s): service {spent:.2f} s, {1e3 * spent / jobs:.1f} ms a job,")
    print(f"    of which {1e3 * statistics.median(inside):.1f} ms (median) from its beginning to its outcome")
    print(f"mpiexec for each: {each:.2f} s a job, {each * jobs:.0f} s for all (median of {SAMPLE})")
    print(f"ratio {each * jobs / spent:.1f} (wanted: at least 20)")
    print(f"memory of the first rank: {early / 2**20:.1f} MiB after a tenth, {late / 2**20:.1f} MiB at the end")


if __name__ == "__main__":
    main()
