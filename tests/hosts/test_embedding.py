"""Inside somebody else's program: their communicators, their PETSc, their messages; any number of ranks."""

from petsc4py import PETSc

import numpy as np
import pytest
from cases import laplacian

import sparsehess as sh
from sparsehess.errors import EvaluationError
from sparsehess.runtime import communicator


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
