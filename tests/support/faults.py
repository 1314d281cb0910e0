"""Runs of the command line that are stopped or killed on the way, and what they evaluated."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from support import answers

PROBLEM = '''
import hashlib, os, time
import numpy as np
import sparsehess as sh
from petsc4py import PETSc

REACH = 3

def note(log, x):
    """Tell, before it is evaluated, which process evaluates the gradient where."""
    line = f"{os.getpid()} {hashlib.sha1(x.tobytes()).hexdigest()[:12]}\\n".encode()
    handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, line)
    os.close(handle)

def force(x, reach=REACH):
    g = 3 * np.linspace(1, 2, len(x)) * x + x**3
    for k in range(1, reach + 1):
        d = x[k:] - x[:-k]
        g[k:] += d
        g[:-k] -= d
    return g

def told(comm, pids):
    """Write the number of this process, for those who want to end it."""
    if pids:
        with open(f"{pids}.{comm.rank}", "w") as stream:
            stream.write(str(os.getpid()))

def chain(comm, n=60, wait=0.0, log="", pids="", reach=REACH):
    told(comm, pids)
    pattern = sh.Pattern.from_edges([[i, i + k] for k in range(1, reach + 1) for i in range(n - k)], n, comm=comm)
    def gradient(x):
        if log:
            note(log, x)
        time.sleep(wait)
        return force(x, reach)
    return sh.Objective(x=np.cos(np.arange(n)), gradient=gradient, pattern=pattern, comm=comm)

def solid(comm, m=10, log=""):
    """Springs between the neighbours of a cube: factors of its Hessian fill in."""
    number = np.arange(m**3).reshape(m, m, m)
    pairs = [(number[1:], number[:-1]), (number[:, 1:], number[:, :-1]), (number[:, :, 1:], number[:, :, :-1])]
    ends = np.concatenate([np.stack([a.ravel(), b.ravel()], axis=1) for a, b in pairs])
    def gradient(x):
        if log:
            note(log, x)
        d = x[ends[:, 0]] - x[ends[:, 1]]
        g = np.linspace(1, 2, len(x)) * x + x**3
        np.add.at(g, ends[:, 0], d)
        np.add.at(g, ends[:, 1], -d)
        return g
    pattern = sh.Pattern.from_edges(ends, m**3, comm=comm)
    return sh.Objective(x=np.cos(np.arange(m**3)), gradient=gradient, pattern=pattern, comm=comm)

def together(comm, n=60, wait=0.0, log="", pids=""):
    told(comm, pids)
    x = PETSc.Vec().createMPI(n, comm=comm)
    x.setArray(np.cos(np.arange(*x.getOwnershipRange())))
    pattern = sh.Pattern.from_edges([[i, i + k] for k in range(1, REACH + 1) for i in range(n - k)], n, comm=comm)
    def gradient(x, g):
        whole = np.concatenate(comm.allgather(x.getArray(readonly=True)))
        if log and comm.rank == 0:
            note(log, whole)
        time.sleep(wait)
        g.setArray(force(whole)[slice(*x.getOwnershipRange())])
    return sh.Objective(x=x, gradient=gradient, pattern=pattern)

def summed(comm, n=60, wait=0.0, log="", pids=""):
    told(comm, pids)
    whole = chain(comm, n)
    def gradient(x):
        if log and comm.rank == 0:
            note(log, x)
        time.sleep(wait)
        return force(x) / comm.size
    return sh.Objective(x=whole.x, gradient=gradient, pattern=whole.pattern, summed=True, comm=comm)

def grouped(comm, n=60, wait=0.0, log="", pids=""):
    told(comm, pids)
    return sh.Objective.in_groups(lambda inner: together(inner, n, wait, log), max(1, comm.size // 2), comm)

def elements(comm, n=60, wait=0.0, log="", pids=""):
    told(comm, pids)
    members = np.array([[i, i + 1, i + 2] for i in range(comm.rank, n - 2, comm.size)])
    def gradient(X):
        if log and comm.rank == 0:
            note(log, X)
        time.sleep(wait)
        return 3 * X + X**3 + X.sum(axis=1, keepdims=True)
    return sh.Objective.from_elements(np.cos(np.arange(n)), sh.Elements(members, gradient), comm=comm)
'''


@dataclass
class Running:
    """A run of the command line in a folder of its own."""

    process: subprocess.Popen
    folder: Path
    ranks: int
    began: float = field(default_factory=time.monotonic)

    def pids(self, within=30.0) -> list[int]:
        """Return the numbers of the processes of the ranks, once all have told them."""
        deadline = time.monotonic() + within
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                found = [int((self.folder / f"pids.{rank}").read_text()) for rank in range(self.ranks)]
            except (FileNotFoundError, ValueError):
                time.sleep(0.005)
                continue
            return found
        return []

    def send(self, number, ranks=None) -> None:
        """Send a signal to these ranks, or to all."""
        for rank, pid in enumerate(self.pids()):
            if ranks is None or rank in ranks:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)

    def end(self, within=30.0):
        """Return (status, standard error); a run that does not end in time is killed, and its status is None."""
        try:
            _, said = self.process.communicate(timeout=within)
            return self.process.returncode, said
        except subprocess.TimeoutExpired:
            self.send(signal.SIGKILL)
            self.process.kill()
            return None, self.process.communicate()[1]


def start(folder: Path, command: str, ranks: int = 1) -> Running:
    """Start `sparsehess COMMAND` in a folder, on so many ranks."""
    (folder / "problem.py").write_text(PROBLEM)
    for old in folder.glob("pids.*"):
        old.unlink()
    words = [sys.executable, "-m", "sparsehess", *command.split()]
    if ranks > 1:
        words = ["mpiexec", "-n", str(ranks), "--oversubscribe", *words]
    process = subprocess.Popen(
        words, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    return Running(process, folder, ranks)


def processes(words: str) -> list[int]:
    """Return the numbers of the processes whose command line has these words, but for mpiexec's."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            said = (place / "cmdline").read_bytes()
            if words.encode() in said and not said.startswith(b"mpiexec"):
                found.append(int(place.name))
    return sorted(found)


def children(process: int) -> list[int]:
    """Return the numbers of the processes that a process, as mpiexec, has started."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int((place / "stat").read_text().rpartition(")")[2].split()[1]) == process:
                found.append(int(place.name))
    return sorted(found)


def descendants(process: int) -> list[int]:
    """Return the numbers of all processes that have come of a process, from above."""
    found = children(process)
    for child in found:
        found += children(child)
    return found


def lives(process: int) -> bool:
    """Return whether there is a process of this number that has not ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def evaluated(folder: Path, log: str = "log") -> Counter:
    """Return how often the gradient was evaluated at each point."""
    log = folder / log
    return Counter(line.split()[1] for line in log.read_text().splitlines()) if log.exists() else Counter()


def wait_for_evaluations(running: Running, count: int, within=30.0) -> None:
    """Wait until so many gradients were begun, or the run has ended."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline and running.process.poll() is None:
        if sum(evaluated(running.folder).values()) >= count:
            return
        time.sleep(0.005)


def answer(folder: Path) -> dict:
    """Return the JSON of the run."""
    return answers.parse((folder / "answer.json").read_text())


@dataclass(frozen=True)
class Killed:
    """What became of a run that was killed again and again.

    Attributes
    ----------
    status, said
        Of its last part.
    kills
        How often it was.
    evaluated
        Gradients that were begun in all.
    longest
        Seconds that the longest part took to end after it was killed, or to end by itself.
    """

    status: int | None
    said: str
    kills: int
    evaluated: int
    longest: float


def kill_and_resume(
    folder: Path, command: str, ranks: int, seed: int, kills: int = 1, span: float = 1.5
) -> Killed:
    """Run a command with --resume, kill one rank or all at random moments of a seed, and run it to its end."""
    moments = random.Random(seed)
    done, longest = 0, 0.0
    for _ in range(kills):
        running = start(folder, command, ranks)
        if not running.pids():
            break
        time.sleep(moments.uniform(0, span))
        whom = [moments.randrange(ranks)] if moments.random() < 0.5 else None
        if running.process.poll() is None:
            done += 1
        running.send(signal.SIGKILL, whom)
        began = time.monotonic()
        running.end()
        longest = max(longest, time.monotonic() - began)
        if (folder / "answer.json").exists():  # it was through, or as good as
            return Killed(0, "", done, sum(evaluated(folder).values()), longest)
    began = time.monotonic()
    status, said = start(folder, command, ranks).end()
    longest = max(longest, time.monotonic() - began)
    return Killed(status, said, done, sum(evaluated(folder).values()), longest)
