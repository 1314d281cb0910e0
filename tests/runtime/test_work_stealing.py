"""Work shared out between groups: every task once, whoever is slow, and an early end after a failure."""

import time

import pytest

from sparsehess.runtime import communicator
from sparsehess.runtime.work_stealing import Work

pytestmark = pytest.mark.parallel([1, 2, 3])


def shared(ours, group, tasks, do, all_of_all=False):
    """Return the tasks that this rank did, and what it raised."""
    work, done, error = Work(ours, group, tasks, all_of_all), [], None
    try:
        for task in work:
            do(task)
            done.append(task)
    except ValueError as caught:
        error = caught
    work.finish(error)
    return done, error


@pytest.mark.parametrize("members", [1, 2, 3])
@pytest.mark.parametrize("tasks", [0, 1, 2, 3, 7, 50])
def test_every_task_is_done_once(tasks, members, comm):
    ours = communicator(comm)
    group = ours.Split(ours.rank // members, ours.rank)
    for slow in range(ours.size):
        done, _ = shared(ours, group, tasks, lambda _, slow=slow: time.sleep(0.002 * (ours.rank == slow)))
        assert group.allgather(done) == [done] * group.size
        leaders = ours.allgather(done if group.rank == 0 else [])
        assert sorted(task for theirs in leaders for task in theirs) == list(range(tasks))
    done, _ = shared(ours, group, tasks, lambda _: None, all_of_all=True)
    assert done == list(range(tasks))
    group.Free()
    ours.Barrier()
    assert not ours.Iprobe()


def test_a_failure_stops_all_soon(comm):
    ours = communicator(comm)
    alone = ours.Split(ours.rank, 0)
    for failing in range(ours.size):

        def do(task, failing=failing):
            time.sleep(0.01)
            if ours.rank == failing:
                raise ValueError("only here")

        done, error = shared(ours, alone, 100 * ours.size, do)
        assert (error is not None) == (ours.rank == failing)
        assert len(done) < 20
        ours.Barrier()
        assert not ours.Iprobe()
    alone.Free()


def test_work_left_to_a_slow_rank_is_halved_repeatedly(comm):
    ours = communicator(comm)
    alone = ours.Split(ours.rank, 0)
    done, _ = shared(ours, alone, 64, lambda _: time.sleep(0.05 * (ours.rank == 0)))
    each = ours.allgather(len(done))
    assert ours.size == 1 or each[0] <= 12
    alone.Free()
