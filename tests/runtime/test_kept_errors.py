"""Garbage is collected on one rank alone, and errors are kept on one alone: no collective destructor waits."""

import gc
import os
import subprocess
import sys

import numpy as np
import pytest

from sparsehess.runtime import forget_frames
from support import ROOT

SECONDS = 400

PROGRAM = """
import faulthandler
import gc
import itertools
import os
import resource
import signal
import sys

from mpi4py import MPI

import numpy as np

import sparsehess as sh
from sparsehess.runtime import error_agreement
from sparsehess.storage.checkpoint import Checkpoint

faulthandler.dump_traceback_later(int(sys.argv[2]), exit=True)
world, collects = MPI.COMM_WORLD, int(sys.argv[1])
N = 400
agree = error_agreement.raise_together
kept, moments = [], itertools.count()


def and_collect(comm, error):
    try:
        agree(comm, error)
    finally:
        if world.rank == collects and next(moments) % 7 == 0:
            gc.collect()


def gradient_that_fails(at):
    calls = itertools.count()

    def gradient(x):
        if next(calls) == at and world.rank == world.size - 1:
            raise ZeroDivisionError("only here")
        g = 3 * x + x**3
        g[1:] -= x[:-1]
        g[:-1] -= x[1:]
        return g

    return gradient


def objective(at=-1, products=-1):
    edges = np.stack([np.arange(N - 1), np.arange(1, N)], axis=1)
    calls = itertools.count()

    def product(x, v):
        if next(calls) == products:
            raise ZeroDivisionError("only here")
        return np.linspace(1, 2, N) * v

    pattern = sh.Pattern.from_edges(edges, N, comm=world)
    more = {"hvp": product} if products >= 0 else {}
    gradient = {} if more else {"gradient": gradient_that_fails(at)}
    return sh.Objective(x=np.ones(N), pattern=None if more else pattern, comm=world, **gradient, **more)


def assembled(at):
    with sh.assemble(objective(at)) as H, sh.eigs(H, 3):
        pass


def with_products(method, at):
    with sh.MatrixFree(objective(products=at), verify=False) as H, sh.eigs(H, 3, which="largest", method=method):
        pass


def without_disk(method):
    folder = f"{method}-{next(moments)}"
    with sh.assemble(objective()) as H:
        checkpoint = Checkpoint(world.bcast(folder), world, interval=0.0)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
        try:
            asked = {"interval": (2.9, 3.0)} if method == "slicing" else {"k": 4}
            with sh.eigs(H, method=method, checkpoint=checkpoint, **asked):
                pass
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)


def unwritable():
    with sh.assemble(objective()) as H, sh.eigs(H, 3) as found:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
        try:
            found.save(f"found-{world.size}.h5")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)


def monitored(at):
    calls = itertools.count()

    def progress(converged, wanted):
        if next(calls) == at:
            raise ZeroDivisionError("everywhere")

    with sh.assemble(objective()) as H, sh.eigs(H, 20, progress=progress):
        pass


SCENES = [
    *((assembled, at) for at in (0, 1)),  # calls that every rank makes
    *((with_products, method, at) for method in ("krylovschur", "gd", "jd", "lobpcg") for at in (3, 30)),
    *((without_disk, method) for method in ("krylovschur", "lobpcg", "gd", "slicing")),
    (unwritable,),
    (monitored, 0),
]
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
gc.collect()
gc.freeze()
gc.disable()  # but where and when it is asked for
error_agreement.raise_together = and_collect
for scene in SCENES:
    said = "nothing"
    try:
        scene[0](*scene[1:])
    except Exception as error:
        said = type(error).__name__
        if world.rank == 0:
            kept.append(error)  # with its frames
    told = world.allgather(said)
    if world.rank == 0:
        print(*(getattr(part, "__name__", part) for part in scene), *sorted(set(told)), flush=True)
    if len(kept) % 3 == 2:
        kept.clear()
"""


@pytest.mark.parametrize("ranks, collects", [(2, 0), (3, 1)])
def test_garbage_of_one_rank_makes_no_other_wait(ranks, collects, tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    words = ["mpiexec", "--oversubscribe", "-n", str(ranks), sys.executable, "program.py", str(collects)]
    env = {key: value for key, value in os.environ.items() if not key.startswith(("OMPI_COMM", "PMIX", "PRTE"))}
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT), env.get("PYTHONPATH", "")])
    done = subprocess.run(
        [*words, str(SECONDS - 20)],
        cwd=tmp_path,
        env={**env, "OMPI_MCA_mpi_yield_when_idle": "1"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert len(lines) == 16
    said = {" ".join(line[:-1]): line[-1] for line in lines}
    assert {said[name] for name in said if name.startswith("assembled")} == {"EvaluationError"}
    assert {said[name] for name in said if name.startswith("without_disk")} == {"nothing"}
    assert said["unwritable"] == "InputError"


def test_errors_forget_what_their_frames_hold():
    class Held:
        alive = 0

        def __init__(self):
            Held.alive += 1

        def __del__(self):
            Held.alive -= 1

    def inner():
        held = Held()
        raise KeyError(np.size(held))

    def outer():
        also = Held()
        try:
            inner()
        except KeyError as error:
            raise ValueError(np.size(also)) from error

    gc.disable()
    try:
        outer()
    except ValueError as error:
        kept = forget_frames(error)
    finally:
        gc.enable()
    assert Held.alive == 0
    assert kept.__traceback__ is not None and kept.__cause__.__traceback__ is not None
