"""Kills at random moments, of any process: what becomes of runs with a checkpoint, and of a service's jobs.

    python benchmarks/faults.py [KIND ...] [--kills 100] [--seed 0] [--ranks 2]

Kinds, each named for what takes most of the time of its runs: assembly, factorization, solve, writing (of
checkpoints after every gradient, and of results), shell (nothing assembled), resume (killed in assembly, and
once to three times more as it goes on), service (jobs that wait in a spool). The moments are spread evenly over
the time of an undisturbed run, from the start of its processes to their end. Who is killed is drawn too: one
process, all ranks, the launcher alone, or all; of a service its own ranks and launcher, the keeper, launcher and
ranks of a job.

Counted are answers that are wrong; runs and jobs that are lost (their last part ends with an error); jobs done
twice; what takes over a minute to end after a kill; and gradients that one rank had begun and that were begun
again, the most for one rank and kill. Settings are the default ones, but for `writing`. Gradients that take
milliseconds are not worth saving each: there the last count is not judged. A launcher that waits for ever though
all of its ranks are gone, as that of Open MPI 4.1 does of any program where one is killed at a certain moment of
its start, is ended and counted apart. The exit status is 1 if anything else is bad.
"""

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import numpy as np

from sparsehess.service.batch import local_scheduler
from sparsehess.service.spool import job_outcomes
from sparsehess.service.spool.clients import open_client
from sparsehess.service.spool.spool import Spool
from support import faults

# Seconds after a kill, or for a whole part of a run, after which it is taken to hang.
LIMIT = 60.0

COUNTS = ("wrong", "lost", "doubled", "hung", "deserted")


@dataclass(frozen=True)
class Kind:
    """What is run and killed.

    Attributes
    ----------
    words
        Of the command.
    in_a_row
        How often a run is killed before it may go on to its end, at least and at most.
    judged
        Whether no rank may begin more than one gradient again for each kill.
    accuracy
        To which the eigenvalues of all runs agree.
    """

    words: str
    in_a_row: tuple[int, int] = (1, 3)
    judged: bool = False
    accuracy: float = 1e-10


KINDS = {
    "assembly": Kind("problem.py:chain --set reach=1 --set wait=0.25 -k 4", judged=True),
    "factorization": Kind("problem.py:solid --set m=22 -k 2"),
    "solve": Kind("problem.py:chain --set n=3000 --interval 0 3.2"),
    "writing": Kind("problem.py:chain --set n=6000 -k 4 --checkpoint-interval 0 -o modes.npz"),
    "shell": Kind("problem.py:chain --set n=2500 --shell -k 2", accuracy=1e-6),
    "resume": Kind("problem.py:chain --set reach=1 --set wait=0.25 -k 4", in_a_row=(2, 4), judged=True),
}

BESIDE = "--set log=log --checkpoint kept --resume -q --json answer.json"


class Table:
    """What came of the kills of one kind."""

    def __init__(self, kind: str) -> None:
        self.kind, self.kills, self.runs, self.repeated = kind, 0, 0, 0
        self.judged = True
        self.bad = dict.fromkeys(COUNTS, 0)

    def note(self, what: str, words: str) -> None:
        """Count something bad, and say what it was."""
        self.bad[what] += 1
        print(f"  {self.kind}: {what}: {words}", flush=True)

    @property
    def is_bad(self) -> bool:
        """Whether anything was."""
        faults = sum(count for word, count in self.bad.items() if word != "deserted")
        return faults > 0 or (self.judged and self.repeated > 1)

    def row(self) -> str:
        """Return the line of the table."""
        numbers = [self.kills, self.runs, *self.bad.values()]
        repeated = f"{self.repeated}" + ("" if self.judged else " (not judged)")
        return f"{self.kind:14}" + "".join(f"{number:9}" for number in numbers) + f"   {repeated}"


def head() -> str:
    """Return the heads of the columns."""
    return f"{'killed in':14}" + "".join(f"{word:>9}" for word in ("kills", "runs", *COUNTS)) + "   repeated"


def begun_again(folder: Path, log: str = "log") -> int:
    """Return how many gradients that one process had begun were begun again later, the most of all processes."""
    place = folder / log
    lines = [line.split() for line in place.read_text().splitlines()] if place.exists() else []
    later: set[str] = set()
    again: dict[str, int] = {}
    for process, point in reversed(lines):
        again[process] = again.get(process, 0) + (point in later)
        later.add(point)
    return max(again.values(), default=0)


def kill(tree: list[int], moments: random.Random) -> str:
    """Kill some of these processes, of which the first is the launcher; return whom."""
    whom = moments.choice(["one", "one", "ranks", "launcher", "all"])
    chosen = {"one": [moments.choice(tree)], "ranks": tree[1:] or tree, "launcher": tree[:1], "all": tree}[whom]
    words = f"{whom}: {', '.join(map(command_line, chosen))}"
    for process in chosen:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    return words


def command_line(process: int) -> str:
    """Return the number of a process, and what it was started as."""
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace").split("\0")
        return f"{process} {' '.join(' '.join(Path(word).name for word in words).split())[:60]}"
    return f"{process}"


def end(process: subprocess.Popen, tree: list[int]) -> tuple[str, str]:
    """Wait until these processes have ended; kill those that do not in time.

    Returns
    -------
    str, str
        What that is a case of, and which they were; empty where there were none.
    """
    deadline = time.monotonic() + LIMIT
    while process.poll() is None or any(map(faults.lives, tree)):
        if time.monotonic() > deadline:
            alive = [one for one in tree if faults.lives(one)]
            ranks = [one for one in alive if os.path.samefile(f"/proc/{one}/exe", "/proc/self/exe")]
            late = "hung" if ranks else "deserted", ", ".join(map(command_line, alive))
            for one in [process.pid, *tree]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(one, signal.SIGKILL)
            process.wait()
            return late
        time.sleep(0.01)
    return "", ""


def run_once(folder: Path, words: str, ranks: int) -> tuple[float, int | None, str]:
    """Return (seconds, status, standard error) of a run to its end; the status of one that hangs is None."""
    began = time.monotonic()
    status, said = faults.start(folder, words, ranks).end(LIMIT + 60)
    return time.monotonic() - began, status, said


def eigenvalues(folder: Path) -> np.ndarray:
    """Return the answer of a run."""
    return np.array(faults.answer(folder)["eigenvalues"])


def kill_runs(name: str, kills: int, seed: int, ranks: int) -> Table:
    """Kill runs of a kind, and let them go on."""
    kind, table = KINDS[name], Table(name)
    table.judged = kind.judged
    command = f"eigs {kind.words} {BESIDE}"
    with tempfile.TemporaryDirectory() as folder:
        span, status, said = run_once(Path(folder), command, ranks)
        assert status == 0, said
        wanted = eigenvalues(Path(folder))
    while table.kills < kills:
        moments = random.Random(f"{name} {seed} {table.runs}")
        folder = Path(tempfile.mkdtemp(prefix=f"faults-{name}-"))
        bad = table.is_bad
        judge_run(table, folder, command, ranks, kind, wanted, span, moments)
        table.runs += 1
        if table.is_bad and not bad:
            print(f"  the first bad one's folder: {folder}", flush=True)
        else:
            shutil.rmtree(folder)
    return table


def judge_run(
    table: Table,
    folder: Path,
    command: str,
    ranks: int,
    kind: Kind,
    wanted: np.ndarray,
    span: float,
    moments: random.Random,
) -> None:
    """Kill one run, let it go on to its end, and judge what it says."""
    status, said = None, ""
    for _ in range(moments.randint(*kind.in_a_row)):
        part = faults.start(folder, command, ranks)
        with contextlib.suppress(subprocess.TimeoutExpired):
            part.process.wait(moments.uniform(0.0, span))
        if part.process.poll() is not None:  # it was through
            status, said = part.end()
            break
        tree = [part.process.pid, *faults.descendants(part.process.pid)]
        whom = kill(tree, moments)
        table.kills += 1
        case, late = end(part.process, tree)
        if case:
            table.note(case, f"{late} after {whom}")
        status, said = part.end()
        if (folder / "answer.json").exists() and not any((folder / "kept").iterdir()):
            status = 0  # it was through but for the end of its processes
            break
    else:
        _, status, said = run_once(folder, command, ranks)
    if status is None:
        table.note("hung", said[-300:])
    elif status:
        table.note("lost", f"status {status}: {said[-300:]}")
    else:
        found = eigenvalues(folder)
        if len(found) != len(wanted) or not np.allclose(found, wanted, rtol=kind.accuracy, atol=0):
            table.note("wrong", f"{found[:4]} for {wanted[:4]}")
        left = [path.name for path in (*folder.iterdir(), *(folder / "kept").iterdir()) if _is_rest(path)]
        if left:
            table.note("wrong", f"left behind: {left}")
    table.repeated = max(table.repeated, begun_again(folder))


def _is_rest(path: Path) -> bool:
    """Return whether a file is one that only runs that are not through may have."""
    return path.parent.name == "kept" or (path.name.endswith(".ckpt") or path.name.startswith(".sparsehess"))


# Jobs that wait for the service while it is killed, and kills after which one job may come to its end: five at a
# stretch are taken for its own fault.
WAITING, STRETCH = 4, 3

JOB = """command = "eigs"
input = "{}:chain"
k = 4
checkpoint = "kept"
set = {{ reach = 1, wait = 0.3, log = "seen" }}
"""


class Service:
    """A spool with jobs, and the service that is killed."""

    def __init__(self, place: Path, ranks: int) -> None:
        self.place, self.ranks = place, ranks
        (place / "problem.py").write_text(faults.PROBLEM)
        self.queue = Spool.open_or_create(place / "spool")
        self.client = open_client(self.queue)
        self.ids: list[str] = []
        self.process: subprocess.Popen | None = None

    def put(self) -> None:
        """Put a job into the spool."""
        folder = self.client.make_draft()
        (folder / "job.toml").write_text(JOB.format(self.place / "problem.py"))
        self.ids.extend(self.client.enqueue([folder]))

    def start(self, *flags: str) -> subprocess.Popen:
        """Start the service."""
        words = ["mpiexec", "-n", str(self.ranks), "--oversubscribe", sys.executable, "-m", "sparsehess", "serve"]
        with open(self.place / "said", "ab") as said:
            self.process = subprocess.Popen(
                [*words, str(self.queue.path), "--allow-code", str(self.place), *flags],
                env=local_scheduler.job_environment(),
                stdout=said,
                stderr=said,
            )
        return self.process

    def ended(self) -> list[str]:
        """Return the jobs that are through."""
        return [name for state in ("done", "failed") for name in os.listdir(self.queue.path / state)]

    def end(self, within: float) -> bool:
        """Serve what waits; return whether that came to an end in time."""
        try:
            return self.start("--once").wait(within) == 0
        except subprocess.TimeoutExpired:
            self.process.kill()
            return False


def kill_service(kills: int, seed: int, ranks: int) -> Table:
    """Kill the processes of a service and of its jobs."""
    moments, table = random.Random(f"service {seed}"), Table("service")
    place = Path(tempfile.mkdtemp(prefix="faults-service-"))
    service = Service(place, ranks)
    service.put()
    began = time.monotonic()
    assert service.end(600), (place / "said").read_text()
    span = time.monotonic() - began
    wanted = np.array(
        job_outcomes.read_json(service.queue.path / "done" / service.ids[0] / "result.json")["eigenvalues"]
    )
    stretch = 0
    while table.kills < kills:
        while len(service.ids) - len(service.ended()) < WAITING:
            service.put()
        process = service.process if service.process.poll() is None else service.start()
        if stretch == STRETCH:
            before, deadline = len(service.ended()), time.monotonic() + 10 * span + LIMIT
            while len(service.ended()) == before and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
            if len(service.ended()) == before:
                table.note("hung", f"no job came to its end: {(place / 'said').read_text()[-300:]}")
            stretch = 0
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(moments.uniform(0.0, 1.2 * span))
        if process.poll() is not None:
            table.note("hung", f"it ended by itself, with status {process.returncode}")
            continue
        tree = [process.pid, *faults.descendants(process.pid)]
        # Without its launcher or a rank of its own it ends; without others, of jobs or output, it goes on.
        own = [process.pid, *(one for one in faults.children(process.pid) if " serve " in command_line(one))]
        whom = kill(tree, moments)
        table.kills, stretch = table.kills + 1, stretch + 1
        time.sleep(0.5)
        if not all(map(faults.lives, own)):
            case, late = end(process, tree)
            if case:
                table.note(case, f"{late} after {whom}")
    process = service.process
    if process.poll() is None:
        tree = [process.pid, *faults.descendants(process.pid)]
        kill(tree[:1], moments)
        end(process, tree)
    if not service.end(LIMIT + 20 * WAITING * span):
        table.note("hung", "in the end")
    judge_jobs(table, service, wanted)
    if not table.is_bad:
        shutil.rmtree(place)
    return table


def judge_jobs(table: Table, service: Service, wanted: np.ndarray) -> None:
    """Judge what the jobs of a service have come to."""
    path = service.queue.path
    done, failed = os.listdir(path / "done"), os.listdir(path / "failed")
    for identity in set(service.ids) - set(done):
        told = (job_outcomes.read_outcome(path / "failed" / identity) or {}).get("error", "nowhere")
        table.note("lost", f"{identity}: {told}")
    doubled = len(done) + len(failed) - len({*done, *failed} & set(service.ids))
    if doubled:
        table.note("doubled", f"{doubled} of {len(service.ids)}")
    for identity in done:
        folder = path / "done" / identity
        found = np.array(job_outcomes.read_json(folder / "result.json")["eigenvalues"])
        if found.shape != wanted.shape or not np.allclose(found, wanted, rtol=1e-10, atol=0):
            table.note("wrong", f"{identity}: {found} for {wanted}")
        table.repeated = max(table.repeated, begun_again(folder, "seen"))
    table.runs = len(service.ids)


def main() -> int:
    """Return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    every = [*KINDS, "service"]
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=", ".join(every))
    parser.add_argument("--kills", type=int, default=100, help="of each kind (default 100)")
    parser.add_argument("--seed", type=int, default=0, help="of moments and processes")
    parser.add_argument("--ranks", type=int, default=2)
    given = parser.parse_args()
    if unknown := set(given.kinds) - set(every):
        parser.error(f"no kind: {', '.join(sorted(unknown))}; there are {', '.join(every)}")
    tables = []
    for name in given.kinds or every:
        began = time.monotonic()
        if name == "service":
            tables.append(kill_service(given.kills, given.seed, given.ranks))
        else:
            tables.append(kill_runs(name, given.kills, given.seed, given.ranks))
        print(f"  {name}: {time.monotonic() - began:.0f} s", flush=True)
    print("\n".join([head(), *(table.row() for table in tables)]))
    return int(any(table.is_bad for table in tables))


if __name__ == "__main__":
    sys.exit(main())
