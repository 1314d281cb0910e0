"""Command lines in processes of their own, and the problems and matrices that they read."""

import itertools
import json
import os
import subprocess
import sys
import time

import numpy as np
import scipy.sparse as sp

from support import answers
from support.cases import laplacian

PROBLEMS = '''
import numpy as np
import sparsehess as sh
from petsc4py import PETSc
from sparsehess.derivatives.units import Units

N = 30

def chain(comm, gradient, n=N, reach=1):
    edges = [[i, i + k] for k in range(1, reach + 1) for i in range(n - k)]
    pattern = sh.Pattern.from_edges(edges, n, comm=comm)
    return sh.Objective(x=np.ones(n), gradient=gradient, pattern=pattern, comm=comm)

def springs(x):
    g = 2 * x
    g[1:] -= x[:-1]
    g[:-1] -= x[1:]
    return g

def good(comm, n=N):
    return chain(comm, springs, n)

def leaning(comm):
    """What it resists is projected out: a step of all together."""
    together = (np.ones((1, N)), ["all together"])
    pattern = sh.Pattern.from_edges([[i, i + 1] for i in range(N - 1)], N, comm=comm)
    return sh.Objective(
        x=np.ones(N), gradient=springs, pattern=pattern, projected=lambda x: together,
        units=Units.of("eV", "angstrom", "amu"), comm=comm,
    )

def last_rank_raises(comm):
    def gradient(x):
        if comm.rank == comm.size - 1:
            raise ValueError("bad luck")
        return x
    return chain(comm, gradient, reach=3)  # colours enough for four ranks

def nan(comm):
    return chain(comm, lambda x: np.where(np.arange(N) == 7, np.nan, x))

def short(comm):
    return chain(comm, lambda x: x[:-1])

def no_gradient(comm):
    return chain(comm, lambda x: x + np.r_[0.5 * x[1], np.zeros(N - 1)])

def missing(comm):
    return chain(comm, lambda x: x + np.r_[0.5 * x[9], np.zeros(8), 0.5 * x[0], np.zeros(N - 10)])

def empty_pattern(comm):
    pattern = sh.Pattern.from_pairs([], [], N, comm=comm)
    return sh.Objective(x=np.ones(N), gradient=springs, pattern=pattern, comm=comm)

def summed(comm):
    bonds = np.array([[i, i + 1] for i in range(comm.rank, N - 1, comm.size)])
    return sh.Objective.from_elements(np.ones(N), sh.Elements(bonds, lambda X: X), comm=comm)

def raising(comm):
    raise RuntimeError("cannot be made")

def last_rank_cannot(comm):
    if comm.rank == comm.size - 1:
        raise RuntimeError("cannot be made")
    return good(comm)

def no_objective(comm):
    return 3

number = 3

def collective(comm):
    """Distributed, and the last rank raises where the others go on to a collective call."""
    x = PETSc.Vec().createMPI(N, comm=comm)
    def gradient(x, g):
        if comm.rank == comm.size - 1:
            raise ValueError("bad luck")
        comm.Barrier()
        x.copy(g)
    pattern = sh.Pattern.from_edges([[i, i + 1] for i in range(N - 1)], N, comm=comm)
    return sh.Objective(x=x, gradient=gradient, pattern=pattern)
'''


def free_truss(side):
    """A plane of nodes, each held by bars to those around it: its matrix, free, and their positions."""
    nodes = np.stack(np.meshgrid(np.arange(side), 1.3 * np.arange(side), indexing="ij"), axis=-1).reshape(-1, 2)
    matrix = np.zeros((2 * len(nodes),) * 2)
    for i, j in itertools.combinations(range(len(nodes)), 2):
        bar = nodes[i] - nodes[j]
        if np.linalg.norm(bar) < 1.7:
            push = np.zeros(2 * len(nodes))
            push[2 * i : 2 * i + 2], push[2 * j : 2 * j + 2] = bar, -bar
            matrix += np.outer(push, push) / np.linalg.norm(bar) ** 3
    return sp.csr_matrix(matrix), nodes


def write_problems(folder):
    """Write problems, and matrices good and bad, that command lines read; return the folder."""
    (folder / "problems.py").write_text(PROBLEMS)
    good = laplacian(7, 8)[0]
    sp.save_npz(folder / "good.npz", good)
    truss, nodes = free_truss(5)
    sp.save_npz(folder / "truss.npz", truss)
    np.save(folder / "nodes.npy", nodes)
    exact = laplacian(7, 8)[1]
    sp.save_npz(folder / "negative.npz", good - (exact[3] + exact[4]) / 2 * sp.identity(56, format="csr"))
    sp.save_npz(folder / "mass.npz", sp.identity(56, format="csr") * 2.0)
    sp.save_npz(folder / "rectangular.npz", sp.csr_matrix(np.ones((5, 4))))
    sp.save_npz(folder / "unsymmetric.npz", sp.csr_matrix(np.triu(np.ones((5, 5)))))
    sp.save_npz(folder / "empty.npz", sp.csr_matrix((0, 0)))
    nan = good.copy()
    nan.data[5] = np.nan
    sp.save_npz(folder / "nan.npz", nan)
    (folder / "truncated.npz").write_bytes((folder / "good.npz").read_bytes()[:500])
    (folder / "lying.mtx").write_text(
        "%%MatrixMarket matrix coordinate real symmetric\n9 9 99999999999\n1 1 2.0\n"
    )
    return folder


def run(problems, command, ranks=1, within=60):
    """Return (status, standard output, standard error, seconds)."""
    words = [sys.executable, "-m", "sparsehess", *command.split()]
    if ranks > 1:
        words = ["mpiexec", "-n", str(ranks), *words]
    began = time.monotonic()
    # Python's copy of the environment: this process's MPI has written its own marks into the other one.
    done = subprocess.run(
        words, cwd=problems, capture_output=True, text=True, timeout=within, env=dict(os.environ), check=False
    )
    return done.returncode, done.stdout, done.stderr, time.monotonic() - began


# Runs the commands of its arguments one after another in one start of MPI, and prints what became of each.
RUNNER = """
import contextlib, io, json, sys, time
from mpi4py import MPI
from sparsehess.cli import main

told = []
for command in sys.argv[1:]:
    out, err, began = io.StringIO(), io.StringIO(), time.monotonic()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(command.split())
        except SystemExit as end:
            code = end.code
    every = MPI.COMM_WORLD.gather((code, out.getvalue(), err.getvalue()))
    if every:
        codes, outs, errs = zip(*every)
        told.append([sorted(set(codes)), "".join(outs), "".join(errs), time.monotonic() - began])
if told:
    json.dump(told, sys.stdout)
"""


def batch(problems, commands, ranks):
    """Return (statuses, standard output, standard error, seconds) of commands run in one start of MPI."""
    words = ["mpiexec", "-n", str(ranks), sys.executable, "-c", RUNNER, *commands]
    done = subprocess.run(
        words, cwd=problems, capture_output=True, text=True, timeout=300, env=dict(os.environ), check=True
    )
    return json.loads(done.stdout)


def several(problems, commands, ranks):
    """Return the facts that commands tell, which are run in one start of MPI and must be done."""
    told = batch(problems, [f"{command} --json -" for command in commands], ranks)
    assert all(codes == [0] for codes, *_ in told), [err for _, _, err, _ in told]
    return [answers.parse(out) for _, out, _, _ in told]


def facts(problems, command, ranks=1):
    code, out, err, _ = run(problems, f"{command} --json -", ranks)
    assert code == 0, err
    return answers.parse(out)
