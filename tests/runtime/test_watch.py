"""Ranks that are stuck, and ranks that are interrupted: all end, with one status, and one line that says why."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from sparsehess.errors import InputError
from sparsehess.runtime import JobEnd
from support import ROOT

START = 40  # seconds to start ranks on a busy machine
PATIENCE = 3
SECONDS = START + 5 * PATIENCE

PROBLEM = """
import asyncio
import atexit
import ctypes
import os
import threading
import time

import numpy as np

import sparsehess as sh
from sparsehess.runtime import PETSc


def loop(comm):
    while True:
        pass


def sleep(comm):
    time.sleep(1e6)


def barrier(comm):
    for _ in range(3):
        comm.Barrier()


def fifo(comm):
    os.mkfifo("pipe")
    open("pipe").read()


def library(comm):
    ctypes.PyDLL(None).getchar()  # holds the interpreter


def stray(comm):
    PETSc.Vec().createMPI(30, comm=comm).norm()


def interrupt(comm):
    raise KeyboardInterrupt


def leave(comm):
    raise SystemExit(3)


def end(comm):
    raise GeneratorExit("now")


def memory(comm):
    raise MemoryError("none left")


def cancelled(comm):
    raise asyncio.CancelledError


class Mute(BaseException):
    def __str__(self):
        return self.text


def mute(comm):
    raise Mute


def thread(comm):
    threading.Thread(target=time.sleep, args=(1e6,)).start()
    raise ValueError("a thread is left")


def at_exit(comm):
    atexit.register(time.sleep, 1e6)
    raise ValueError("a function is left")


def chain(comm, how="", door="gradient", n=60, wait=0.0):
    calls = []

    def stick():
        calls.append(1)
        if how and comm.rank == comm.size - 1 and len(calls) == 3:
            globals()[how](comm)

    def gradient(x):
        stick()
        time.sleep(wait)
        return 3 * x + x**3

    def product(x, v):
        stick()
        return np.linspace(1, 2, n) * v

    with open(f"pids.{comm.rank}", "w") as note:
        note.write(str(os.getpid()))
    if door == "product":
        return sh.Objective(x=np.ones(n), hvp=product, comm=comm)
    pattern = sh.Pattern.from_edges([[i, i + k] for k in (1, 2, 3) for i in range(n - k)], n, comm=comm)
    return sh.Objective(x=np.ones(n), gradient=gradient, pattern=pattern, comm=comm)
"""


def started(folder, ranks, *words):
    (folder / "problem.py").write_text(PROBLEM)
    env = {key: value for key, value in os.environ.items() if not key.startswith(("OMPI_COMM", "PMIX", "PRTE"))}
    env["PYTHONPATH"] = os.pathsep.join([str(folder), str(ROOT), env.get("PYTHONPATH", "")])
    launcher = ["mpiexec", "--oversubscribe", "-n", str(ranks)] if ranks > 1 else []
    return subprocess.Popen(
        [*launcher, sys.executable, *words],
        cwd=folder,
        env={**env, "OMPI_MCA_mpi_yield_when_idle": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process):
    """Return (status, lines that are ours, all that was said); a process that does not end fails the test."""
    try:
        said = process.communicate(timeout=SECONDS)[1]
    finally:
        process.kill()
    return process.returncode, [line for line in said.splitlines() if line.startswith("sparsehess: ")], said


@pytest.mark.parametrize(
    "how, ranks",
    [("loop", 1), ("loop", 2), ("sleep", 3), ("barrier", 2), ("fifo", 2), ("stray", 3)],
)
def test_a_rank_that_is_stuck_is_told_and_ends_all(how, ranks, tmp_path):
    words = f"eigs problem.py:chain -k 2 -q --set how={how} --patience {PATIENCE}"
    status, ours, said = ended(started(tmp_path, ranks, "-m", "sparsehess", *words.split()))
    assert status == 2, said
    assert re.search(r'problem.py", line \d+ in ' + how, said), said
    whom = "process" if ranks == 1 else f"rank {ranks - 1} "
    assert re.search(rf"{whom}.* has been in the gradient of .* for {PATIENCE} s.*ending all", ours[-1]), said
    places = [line for line in ours if line.endswith(" is at")]
    assert len(places) == ranks, said
    assert "Traceback" not in said


# One rank has left, the other waits for it: no function of the user's has a part in it.
LOST = """
from mpi4py import MPI

import sparsehess as sh
from problem import chain
from sparsehess import runtime

world = MPI.COMM_WORLD
with runtime.use_guard(world, runtime.JobEnd(longest=1.0)):
    with sh.assemble(chain(world)):
        pass
    if world.rank:
        world.Barrier()
    with runtime.agreement(runtime.communicator(world)):
        pass
"""


def test_a_rank_that_waits_for_one_that_never_comes_ends_all(tmp_path):
    (tmp_path / "host.py").write_text(LOST)
    status, ours, said = ended(started(tmp_path, 2, "host.py"))
    assert status == 2, said
    assert "rank 0 " in ours[-1] and "waiting for the other ranks" in ours[-1]
    assert re.search(r'host.py", line \d+ in <module>', said), said


def test_a_long_run_of_short_calls_is_none_of_its_business(tmp_path):
    words = "eigs problem.py:chain -k 2 -q --set wait=0.6 --patience 5"
    status, _, said = ended(started(tmp_path, 2, "-m", "sparsehess", *words.split()))
    assert status == 0, said


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_a_patience_is_a_positive_number(seconds):
    with pytest.raises(InputError, match="must be a positive number"):
        JobEnd(longest=seconds)


@pytest.mark.parametrize("door", ["gradient", "product"])
@pytest.mark.parametrize(
    "how, status, words",
    [
        ("interrupt", 130, "interrupted$"),
        ("leave", 2, "raised SystemExit on rank 1: 3"),
        ("end", 2, "raised GeneratorExit on rank 1: now"),
        ("memory", 2, "raised MemoryError on rank 1: none left"),
        ("cancelled", 2, "raised CancelledError on rank 1$"),
        ("mute", 2, r"raised Mute on rank 1: \(AttributeError where it was to say why\)$"),
    ],
)
def test_whatever_one_rank_raises_ends_all_with_one_line(how, status, words, door, tmp_path):
    shell = ["--shell"] if door == "product" else []
    asked = f"eigs problem.py:chain -k 2 -q --set how={how} --set door={door}"
    found, ours, said = ended(started(tmp_path, 2, "-m", "sparsehess", *asked.split(), *shell))
    assert found == status and len(ours) == 1 and re.search(words, ours[0]), said
    assert "Traceback" not in said


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("how", ["thread", "at_exit"])
def test_what_a_problem_leaves_running_keeps_no_run_that_has_failed(how, ranks, tmp_path):
    words = f"eigs problem.py:chain -k 2 -q --set how={how}"
    status, ours, said = ended(started(tmp_path, ranks, "-m", "sparsehess", *words.split()))
    assert status == 2 and len(ours) == 2, said
    assert "is left" in ours[0] and f"rank {ranks - 1}, which is done, has not ended in 10 s" in ours[1], said


def test_what_has_failed_is_told_before_others_are_found_waiting():
    assert JobEnd(longest=4.0).patience == 2.0 and JobEnd(1.0, longest=4.0).patience == 1.0


@pytest.mark.parametrize("ranks, whom", [(1, 0), (2, 0), (2, 1)])
def test_an_interrupt_of_one_rank_ends_all_at_once(ranks, whom, tmp_path):
    process = started(
        tmp_path, ranks, "-m", "sparsehess", *["eigs", "problem.py:chain", "-k", "2", "-q", "--set", "wait=0.5"]
    )
    deadline = time.monotonic() + START
    while len(list(tmp_path.glob("pids.*"))) < ranks and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    os.kill(int((tmp_path / f"pids.{whom}").read_text()), signal.SIGINT)
    status, ours, said = ended(process)
    assert status in (130, -signal.SIGINT), said
    assert len(ours) == 1 and "interrupted" in ours[0] and "Traceback" not in said


# A program of somebody else's: on the rank that was interrupted it stays an interrupt.
EMBEDDED = """
from mpi4py import MPI

import sparsehess as sh
from problem import chain

world = MPI.COMM_WORLD
try:
    sh.assemble(chain(world, "interrupt"))
except KeyboardInterrupt:
    told = "KeyboardInterrupt"
except sh.SparseHessError as error:
    told = type(error).__name__
assert world.allgather(told) == ["Interrupted", "KeyboardInterrupt"], told
"""


def test_an_interrupt_stays_one_where_it_came(tmp_path):
    (tmp_path / "host.py").write_text(EMBEDDED)
    status, _, said = ended(started(tmp_path, 2, "host.py"))
    assert status == 0, said
