"""Inside somebody else's program: their communicators, their PETSc, their messages; any number of ranks."""

import os
import subprocess
import sys

from petsc4py import PETSc

import numpy as np
import pytest

import sparsehess as sh
from sparsehess.errors import EvaluationError
from sparsehess.runtime import communicator
from support import ROOT
from support.cases import free_chain, laplacian

pytestmark = [pytest.mark.parallel([1, 2, 4]), pytest.mark.essential]


def chain(comm, n, gradient=None):
    edges = np.stack([np.arange(n - 1), np.arange(1, n)], axis=1)
    matrix = laplacian(n)[0]
    pattern = sh.Pattern.from_edges(edges, n, comm=comm)
    return sh.Objective(x=np.ones(n), gradient=gradient or (lambda u: matrix @ u), pattern=pattern, comm=comm)


def test_groups_of_ranks_work_on_different_problems(comm):
    group = comm.Split(color=comm.rank % 2, key=comm.rank)
    n = 40 if comm.rank % 2 else 75
    with sh.assemble(chain(group, n)) as hessian, sh.eigs(hessian, 4) as spectrum:
        assert spectrum.eigenvalues == pytest.approx(laplacian(n)[1][:4], abs=1e-9)
        assert spectrum.count.certified
        assert hessian.mat.comm.size == group.size
    group.Free()


def test_an_error_in_one_group_leaves_the_other_alone(comm):
    group = comm.Split(color=comm.rank % 2, key=comm.rank)

    def gradient(u):
        raise ValueError("only here")

    if comm.rank % 2:
        with pytest.raises(EvaluationError, match="only here"):
            sh.assemble(chain(group, 30, gradient))
    else:
        with sh.assemble(chain(group, 30)) as hessian:
            assert hessian.verification.passed
    group.Free()


def test_messages_of_the_host_are_not_touched(comm):
    """A host's pending message with any tag on its own communicator arrives after our work."""
    to, source = (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size
    request = comm.isend(("host", comm.rank), dest=to, tag=0)
    with sh.assemble(chain(comm, 50)) as hessian, sh.eigs(hessian, 3):
        pass
    assert comm.recv(source=source, tag=0) == ("host", source)
    request.wait()


def test_nothing_stays_in_the_options(comm):
    before = PETSc.Options().getAll()
    with sh.eigs(laplacian(8, 9)[0], 3, options={"eps_ncv": 20}, comm=comm):
        pass
    assert PETSc.Options().getAll() == before


def test_one_process_alone_needs_no_communicator():
    with sh.assemble(chain(None, 20)) as hessian, sh.eigs(hessian, 2) as spectrum:
        assert hessian.mat.comm.size == 1
        assert spectrum.eigenvalues == pytest.approx(laplacian(20)[1][:2], abs=1e-9)


def test_objects_of_the_host_survive_ours(comm):
    x = PETSc.Vec().createMPI(30, comm=comm)
    x.set(1.0)
    layout = sh.Layout.from_local(x.getLocalSize(), comm)
    edges = np.stack([np.arange(29), np.arange(1, 30)], axis=1)
    pattern = sh.Pattern.from_pairs(edges[:, 0], edges[:, 1], 30, layout=layout)
    calls = []

    def gradient(u, g):
        calls.append(1)
        u.copy(g)
        g.scale(3.0)

    with sh.assemble(sh.Objective(x=x, gradient=gradient, pattern=pattern)) as hessian:
        assert len(calls) == 2 * hessian.coloring.count + 7 + 2
        vector = hessian.mat.createVecRight()
        hessian.mat.mult(x, vector)
        assert vector.norm() == pytest.approx(3.0 * x.norm())
        vector.destroy()
    assert x.sum() == 30.0
    x.destroy()


def test_communicators_of_the_host_come_and_go(comm):
    """Ours are freed with theirs: a host that splits for every step does not run out of them."""
    matrix, exact = laplacian(30)
    for _ in range(100):
        group = comm.Split(color=comm.rank % 2, key=comm.rank)
        ours = communicator(group)
        assert ours != group and communicator(group) == ours and communicator(ours) == ours
        group.Free()
    group = comm.Split(color=0, key=-comm.rank)
    with sh.eigs(matrix, 2, comm=group) as spectrum:
        assert spectrum.eigenvalues == pytest.approx(exact[:2], abs=1e-12)
    group.Free()


def test_matrices_and_vectors_of_the_host(comm):
    """A host's stiffness, mass and null vector are solved as they are, and stay as they are."""
    chain_, exact = free_chain(60)
    layout = sh.Layout.from_size(60, comm)
    rows = chain_[layout.start : layout.stop]
    stiff = PETSc.Mat().createAIJ(
        ((layout.n_local, 60),) * 2, csr=(rows.indptr, rows.indices, rows.data), comm=comm
    )
    stiff.setOptionsPrefix("host_")
    heavy, still = stiff.duplicate(), stiff.createVecRight()
    heavy.zeroEntries()
    heavy.shift(2.0)
    still.set(1.0)
    state, references = stiff.stateGet(), (stiff.getRefCount(), still.getRefCount())
    for _ in range(2):
        with sh.eigs(stiff, 4, mass=heavy, nullspace=[still]) as spectrum:
            assert spectrum.eigenvalues == pytest.approx(exact[1:5] / 2, abs=1e-12)
            assert spectrum.count.certified and spectrum.vectors[0].comm.size == comm.size
    assert (stiff.stateGet(), stiff.getRefCount(), still.getRefCount()) == (state, *references)
    assert stiff.getOptionsPrefix() == "host_" and still.sum() == 60
    for item in (stiff, heavy, still):
        item.destroy()


HOST = """
import sys

import petsc4py

ruinous = "-eps_max_it 1 -eps_type power -st_type cayley -st_ksp_type cg -bv_type mat"
petsc4py.init(["host", *ruinous.split(), "-ksp_type", "cg", "-host_only", "3"])
from petsc4py import PETSc  # the host's own, before anything of ours

from mpi4py import MPI

import numpy as np
import scipy.sparse as sp

before = PETSc.Options().getAll()
import sparsehess as sh

world = MPI.COMM_WORLD
groups = [world.Split(world.rank % 2, world.rank), world.Split(0 if world.rank < 1 else MPI.UNDEFINED, 0)]
n = 50 + 10 * (world.rank % 2)
line = sp.diags([-np.ones(n - 1), 2 * np.ones(n), -np.ones(n - 1)], [-1, 0, 1], format="csr")
for group in groups:
    if group == MPI.COMM_NULL:
        continue
    for _ in range(3):
        edges = np.stack([np.arange(n - 1), np.arange(1, n)], axis=1)
        pattern = sh.Pattern.from_edges(edges, n, comm=group)
        objective = sh.Objective(x=np.zeros(n), gradient=lambda x: line @ x, pattern=pattern, comm=group)
        with sh.assemble(objective) as hessian, sh.eigs(hessian, 3, options={"eps_ncv": 17}) as spectrum:
            exact = 4 * np.sin(np.pi * np.arange(1, 4) / (2 * (n + 1))) ** 2
            assert np.abs(spectrum.eigenvalues - exact).max() < 1e-9 and spectrum.count.certified
            assert spectrum.options["eps_type"] == "krylovschur"
assert PETSc.Options().getAll() == before, PETSc.Options().getAll()
theirs = PETSc.KSP().create(world)
theirs.setFromOptions()
assert theirs.getType() == "cg"  # still theirs
theirs.destroy()
for group in reversed(groups):
    if group != MPI.COMM_NULL:
        group.Free()
print("well")
"""


@pytest.mark.parallel([1])
def test_hosts_that_have_started_petsc_with_options_of_their_own(tmp_path):
    """Global options of the host, some of them ruinous for a solve, hold for its own solvers alone."""
    (tmp_path / "host.py").write_text(HOST)
    env = {key: value for key, value in os.environ.items() if not key.startswith(("OMPI_COMM", "PMIX", "PRTE"))}
    path = os.pathsep.join([str(ROOT), env.get("PYTHONPATH", "")])
    done = subprocess.run(
        ["mpiexec", "--oversubscribe", "-n", "3", sys.executable, "host.py"],
        cwd=tmp_path,
        env={**env, "PYTHONPATH": path, "OMPI_MCA_mpi_yield_when_idle": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("well") == 3
