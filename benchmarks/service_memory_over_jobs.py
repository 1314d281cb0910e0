"""Memory and open files of a resident service over thousands of small jobs.

Jobs of plain matrices of many kinds: one pattern with other values, new patterns, with a mass, answers in files,
and some that fail. Told are the resident memory and the descriptors of every rank after each tenth of the jobs,
and what a thousand jobs have added from the first tenth on.

    python benchmarks/service_memory_over_jobs.py [JOBS [RANKS [CACHE]]]
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from sparsehess.service.batch import local_scheduler
from sparsehess.service.spool.clients import WholeSpool
from sparsehess.service.spool.spool import Spool

N, LOOKS, TOGETHER = 120, 10, 100

# Files that a job may have open while it is looked at.
FEW = 6

# Bytes that a rank may gain over a thousand jobs, where there are so many that what is kept has found its size.
MOST, MANY = 2**18, 5_000


def matrix(number: int):
    """A chain of springs of random stiffness, with bonds that some jobs alone have."""
    random = np.random.default_rng(number)
    springs = random.uniform(1.0, 2.0, N + 1)
    chain = sp.diags([-springs[1:-1], springs[:-1] + springs[1:], -springs[1:-1]], [-1, 0, 1], format="lil")
    if number % 5 == 0:
        i, j = random.integers(0, N, (2, 8))
        for one, other in zip(i, j, strict=True):
            if one != other:
                chain[one, other] = chain[other, one] = -0.01
    if number % 50 == 49:
        chain[3, 4] = np.nan
    return chain.tocsr()


def job(number: int) -> str:
    """Return a job file: what is asked for goes round."""
    asked = (
        'command = "eigs"\nk = 3\n',
        'command = "eigs"\nk = 3\nmass = "m.npz"\n',
        'command = "eigs"\nk = 2\nout = "modes.npz"\n',
        'command = "inertia"\n',
        'command = "eigs"\ninterval = [0.0, 0.02]\n',
        'command = "color"\n',
        'command = "density"\n',
    )
    return asked[number % len(asked)] + 'input = "h.npz"\n'


def measured(words: str) -> dict[int, tuple[int, int]]:
    """Return {process: (resident bytes, descriptors)} of the ranks that serve a spool."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            said = (place / "cmdline").read_bytes().split(b"\0")
            if words.encode() in said and not said[0].endswith(b"mpiexec"):
                resident = int((place / "statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
                found[int(place.name)] = (resident, len(os.listdir(place / "fd")))
        except OSError:  # it has ended
            continue
    return found


def main():
    jobs = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    ranks = int(sys.argv[2]) if len(sys.argv) > 2 else 2
    cache = sys.argv[3] if len(sys.argv) > 3 else "16M"
    with tempfile.TemporaryDirectory() as place:
        queue = Spool.open_or_create(f"{place}/spool")
        mass = sp.diags(np.linspace(1.0, 2.0, N)).tocsr()
        start = ["mpiexec", "-n", str(ranks), sys.executable, "-m", "sparsehess"]
        service = subprocess.Popen(
            [*start, "serve", str(queue.path), "--cache", cache, "-q"],
            env=local_scheduler.job_environment(),
        )
        client = WholeSpool(queue)
        began, put, seen = time.perf_counter(), 0, []
        while (ended := queue.count_jobs("done") + queue.count_jobs("failed")) < jobs:
            if service.poll() is not None:
                raise SystemExit(f"the service has ended with status {service.returncode}")
            if put < jobs and put - ended < 2 * TOGETHER:
                drafts = []
                for number in range(put, min(put + TOGETHER, jobs)):
                    drafts.append(client.make_draft())
                    sp.save_npz(drafts[-1] / "h.npz", matrix(number), compressed=False)
                    sp.save_npz(drafts[-1] / "m.npz", mass, compressed=False)
                    (drafts[-1] / "job.toml").write_text(job(number))
                client.enqueue(drafts)
                put += len(drafts)
            if ended >= (len(seen) + 1) * jobs // LOOKS:
                seen.append((ended, measured(str(queue.path))))
                tell(*seen[-1])
            time.sleep(0.1)
        seen.append((ended, measured(str(queue.path))))
        tell(*seen[-1])
        spent = time.perf_counter() - began
        failed = queue.count_jobs("failed")
        queue.stop()
        if service.wait(60):
            raise SystemExit("the service has left jobs behind")
    print(f"{jobs} jobs, {failed} of them refused, on {ranks} rank(s): {1e3 * spent / jobs:.1f} ms a job")
    (first, before), (last, after) = seen[0], seen[-1]
    grown = False
    for process, (resident, files) in after.items():
        slope = (resident - before[process][0]) / (last - first) * 1000
        grown |= slope > MOST or files > before[process][1] + FEW
        print(
            f"process {process}: {slope / 2**10:+.0f} KiB for each thousand jobs, "
            f"{files - before[process][1]:+d} descriptors"
        )
    if grown and jobs >= MANY:
        raise SystemExit(f"not flat: more than {MOST / 2**10:g} KiB for each thousand jobs, or descriptors")


def tell(ended: int, facts: dict[int, tuple[int, int]]) -> None:
    each = ", ".join(f"{resident / 2**20:.1f} MiB and {files} files" for resident, files in facts.values())
    print(f"after {ended:6} jobs: {each}", flush=True)


if __name__ == "__main__":
    main()
