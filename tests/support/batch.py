"""Batch jobs of a small chain: their files, commands on them in this process and in others, and their ends."""

import os
import socket
import subprocess
import sys
import time

from mpi4py import MPI

import scipy.sparse as sp

from sparsehess.cli import command_line
from sparsehess.commands import job_files
from sparsehess.commands.petsc_words import split_petsc
from sparsehess.service.batch import jobs as batch_jobs
from sparsehess.service.batch import schedulers
from sparsehess.service.batch import scripts as batch_scripts
from support import answers
from support.cases import laplacian

PROBLEMS = """
import time
import numpy as np
import sparsehess as sh

def chain(comm, n=30, wait=0.0, pattern=True):
    def gradient(x):
        time.sleep(wait)
        g = 2 * x
        g[1:] -= x[:-1]
        g[:-1] -= x[1:]
        return g
    known = sh.Pattern.from_edges([[i, i + 1] for i in range(n - 1)], n, comm=comm) if pattern else None
    return sh.Objective(x=np.ones(n), gradient=gradient, pattern=known, comm=comm)
"""

JOB = """
command = "eigs"
input = "problems.py:chain"
k = 3
set = { n = 24 }
"""

# Saves on SIGUSR1 and ends with status 75; goes on where it is told to.
WORKER = """
import pathlib, signal, sys, time
saved = pathlib.Path(sys.argv[sys.argv.index("--checkpoint") + 1]) / "saved"
def save(*_):
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    saved.write_text("half")
    sys.exit(75)
signal.signal(signal.SIGUSR1, save)
if "--resume" in sys.argv:
    print("went on from", saved.read_text())
    sys.exit(0)
print("begun", flush=True)
time.sleep(200)
"""


def run(place, command, ranks=1, **more):
    """Return (status, standard output, standard error)."""
    words = [sys.executable, "-m", "sparsehess", *command.split()]
    if ranks > 1:
        words = ["mpiexec", "-n", str(ranks), *words]
    environment = {**os.environ, batch_jobs.HOME: str(place / "jobs"), **more}
    done = subprocess.run(
        words, cwd=place, capture_output=True, text=True, timeout=90, env=environment, check=False
    )
    return done.returncode, done.stdout, done.stderr


def facts(place, command, ranks=1, status=0, **more):
    ours, dashes, theirs = command.partition(" -- ")
    code, out, err = run(place, f"{ours} --json -{dashes}{theirs}", ranks, **more)
    assert code == status, err
    return answers.parse(out)


def here(place, command):
    """Return the facts of a command that runs in this process: no start of Python, MPI and PETSc."""
    ours, _, theirs = command.partition(" -- ")
    line = command_line()
    words, more = job_files.expand_job_file([*ours.split(), "-q", "--json", str(place / "facts.json")], line)
    options, _, _ = split_petsc([*more, *theirs.split()])
    assert line.run(line.parse(words), options, MPI.COMM_SELF) == 0
    return answers.parse((place / "facts.json").read_text())


def ended(place, job, within=60):
    """Return how a job stands once it has ended."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        (found,) = facts(place, f"status {job}")["jobs"]
        if found["state"] not in ("pending", "running"):
            return found
        time.sleep(0.2)
    raise AssertionError(f"job {job} is still {found['state']}")


def made(place, scheduler="local", **more):
    """Return a job that is written, but not queued."""
    folder = batch_jobs.new_folder()
    given = {
        "id": int(folder.name),
        "name": "made",
        "scheduler": scheduler,
        "launcher": ["mpiexec"],
        "program": ["sparsehess"],
        "command": ["eigs", "good.npz", "--interval", "-1.5", "2.0", "-k", "3"],
        "ranks": 1,
        "time": None,
        "memory": None,
        "account": None,
        "queue": None,
        "setup": [],
        "workdir": str(place),
        "folder": str(folder),
        "result": str(folder / "result.json"),
        "resumable": False,
        "submitted": "2026-01-02T03:04:05+00:00",
        "host": socket.gethostname(),
    }
    job = batch_jobs.Job(**(given | more))
    batch_jobs.save_job(job)
    batch_jobs.write_small_file(job.file("script"), batch_scripts.compose_script(job))
    return job


def state(job):
    return schedulers.ask_states([job])[job.id]


def write_jobs(folder, monkeypatch):
    """Write a problem, a job file and a matrix, and go there; jobs are kept there too. Return the folder."""
    (folder / "problems.py").write_text(PROBLEMS)
    (folder / "job.toml").write_text(JOB)
    sp.save_npz(folder / "good.npz", laplacian(7, 8)[0])
    monkeypatch.setenv(batch_jobs.HOME, str(folder / "jobs"))
    monkeypatch.chdir(folder)
    return folder
