"""What of PETSc belongs to one block, one communicator, one build."""

import os
import subprocess
import sys

from mpi4py import MPI

import numpy as np
import pytest

import sparsehess as sh
from sparsehess.runtime import (
    PETSc,
    aij,
    child,
    communicator,
    destroy,
    has_package,
    inserted_options,
    option_was_used,
)
from support import ROOT


def test_options_are_there_for_the_block_only():
    ends = np.array([-1e-3, 1 / 3])
    with inserted_options("t_", {"alpha": 3, "beta": 0.25, "flag": None, "end": ends[1], "ends": tuple(ends)}):
        assert PETSc.Options().getInt("t_alpha") == 3
        assert PETSc.Options().getReal("t_beta") == 0.25
        assert PETSc.Options().getReal("t_end") == ends[1]
        assert np.array_equal(np.fromstring(PETSc.Options().getString("t_ends"), sep=","), ends)
        assert option_was_used("t_alpha") and not option_was_used("t_flag")
    assert not PETSc.Options().hasName("t_alpha")


@pytest.mark.parametrize(
    ("package", "solver"), [("mumps", "mumps"), ("suitesparse", "cholmod"), ("superlu_dist", "superlu_dist")]
)
def test_a_package_is_there_where_it_factorizes(package, solver):
    matrix = aij(sh.Layout.from_size(3, MPI.COMM_SELF), np.arange(4), np.arange(3), np.full(3, 2.0))
    there = True
    pc = PETSc.PC().create(MPI.COMM_SELF)
    pc.setType("lu" if solver == "superlu_dist" else "cholesky")
    pc.setOperators(matrix)
    pc.setFactorSolverType(solver)
    try:
        pc.setUp()
    except PETSc.Error as error:
        assert error.ierr == 92  # no such factorization
        there = False
    assert has_package(package) == there
    pc.destroy()
    matrix.destroy()


def test_what_is_derived_from_a_communicator_is_freed_with_it(comm):
    theirs = comm.Dup()
    ours = communicator(theirs)
    inner = child(ours, "half", lambda: ours.Split(0, ours.rank))
    assert child(ours, "half", lambda: pytest.fail("it is there")) is inner and communicator(inner) != inner
    theirs.Free()
    assert inner == MPI.COMM_NULL


class Lent:
    """What cannot be destroyed, like a PETSc object that is lent out."""

    def __init__(self):
        self.references = 1

    def destroy(self):
        raise RuntimeError("in use")

    def incRef(self):
        self.references += 1


def test_what_cannot_be_destroyed_hides_no_error(comm):
    vector, lent = PETSc.Vec().createMPI(3, comm=comm), Lent()
    destroy(lent, None, vector)  # whatever went before is told, wherever it is by now
    assert vector.handle == 0  # though it came after the one that failed
    assert lent.references == 3  # so that nobody destroys it a second time

    def fail():
        try:
            raise KeyError("first")
        finally:
            destroy(lent)

    with pytest.raises(KeyError, match="first"):
        fail()


# Ranks 0 and 1 differentiate while rank 2 waits: starting PETSc then would wait for rank 2.
A_PART = """
from mpi4py import MPI

import sparsehess as sh
from sparsehess import runtime

world = MPI.COMM_WORLD
runtime.initialize()
part = world.Split(world.rank < 2)
if world.rank < 2:
    pattern = sh.Pattern.from_edges([[0, 1], [1, 2]], 3, comm=part)
    objective = sh.Objective(gradient=lambda x: 2 * x, x=[1.0, 2.0, 3.0], pattern=pattern, comm=part)
    with sh.assemble(objective):
        pass
world.Barrier()
"""


def test_a_part_of_the_ranks_works_alone_once_petsc_is_up(tmp_path):
    (tmp_path / "host.py").write_text(A_PART)
    words = ["mpiexec", "--oversubscribe", "-n", "3", sys.executable, "host.py"]
    env = {key: value for key, value in os.environ.items() if not key.startswith(("OMPI_COMM", "PMIX", "PRTE"))}
    env |= {"PYTHONPATH": str(ROOT), "OMPI_MCA_mpi_yield_when_idle": "1"}
    done = subprocess.run(words, check=False, cwd=tmp_path, env=env, timeout=60, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
