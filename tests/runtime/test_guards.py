"""A guard watches over a communicator and all that is made from it, for as long as it is set."""

import numpy as np
import pytest

import sparsehess as sh
from sparsehess.errors import OverLimit
from sparsehess.runtime import Guard, PETSc, child, communicator, guard_of, set_guard, use_guard
from sparsehess.runtime.guards import NO_GUARD
from sparsehess.runtime.process_groups import Teams
from sparsehess.runtime.progress import GuardedProgress, SharedProgress

pytestmark = pytest.mark.parallel([1, 2])


class Counting(Guard):
    """Lets so many calls of the user's functions pass, and notes what it is asked."""

    def __init__(self, calls=np.inf):
        self.left, self.stages = calls, []

    def check_call(self):
        self.left -= 1
        if self.left < 0:
            raise OverLimit("no more calls")

    def check_progress(self, stage, done, total, together):
        self.stages.append((stage, done, total, together))


@pytest.fixture
def ours(comm):
    """A communicator of this test alone, so that no other test meets its guard."""
    theirs = comm.Split(0, comm.rank)
    yield communicator(theirs)
    theirs.Free()


def family(comm):
    """Return communicators that are made from one, the way the package makes them."""
    derived = child(comm, "test of guards", lambda: comm.Split(comm.rank % 2, comm.rank))
    return [comm, communicator(comm), comm.Dup(), derived, communicator(derived)]


def test_a_guard_is_that_of_the_whole_family(ours):
    before, guard = family(ours), Counting()
    assert [guard_of(one) for one in before] == [NO_GUARD] * 5
    with use_guard(ours, guard):
        assert all(guard_of(one) is guard for one in (*before, *family(ours)))
        teams = Teams(sh.Layout.from_size(8, ours), ours.size)
        assert guard_of(teams.comm) is guard and guard_of(teams.layout.comm) is guard
        teams.close()
        inner = Counting()
        with pytest.raises(ValueError, match="within"), use_guard(before[3], inner):
            assert guard_of(ours) is inner
            raise ValueError("within")
        assert guard_of(ours) is guard
    assert [guard_of(one) for one in before] == [NO_GUARD] * 5


def test_what_petsc_makes_of_it_has_the_same_guard(ours):
    guard = Counting()
    with use_guard(ours, guard):
        layout = sh.Layout.from_size(4, ours)
        vector = PETSc.Vec().createMPI((layout.n_local, 4), comm=ours)
        assert guard_of(vector.comm.tompi4py()) is guard
        vector.destroy()


def test_another_family_has_a_guard_of_its_own(ours, comm):
    other = communicator(comm.Split(0, comm.rank))
    assert set_guard(ours, Counting()) is NO_GUARD
    assert guard_of(other) is NO_GUARD


def test_the_callers_communicator_has_no_part_in_the_guard_of_ours(comm):
    theirs = comm.Split(0, comm.rank)
    with use_guard(communicator(theirs), Counting()):
        assert guard_of(theirs) is NO_GUARD and guard_of(communicator(theirs.Dup())) is NO_GUARD
    inherited = Counting()
    theirs = comm.Split(0, comm.rank)
    with use_guard(theirs, inherited):
        assert guard_of(communicator(theirs)) is inherited


def test_progress_and_calls_ask_the_guard(ours):
    guard = Counting()
    with use_guard(ours, guard):
        lines = GuardedProgress("together", ours, True), SharedProgress("apart", ours, True)
    for line in lines:
        line(1, 2)
    assert guard.stages == [("together", 1, 2, True), ("apart", 1, 2, False)]


def test_what_a_guard_raises_ends_an_assembly_on_all_ranks(ours):
    pattern = sh.Pattern.from_edges([[i, i + 1] for i in range(19)], 20, comm=ours)
    objective = sh.Objective(x=np.ones(20), gradient=lambda x: x**3, pattern=pattern, comm=ours)
    with (
        use_guard(ours, Counting(calls=6 if ours.rank == 0 else np.inf)),
        pytest.raises(OverLimit, match="no more"),
    ):
        sh.assemble(objective)
    sh.assemble(objective).close()
