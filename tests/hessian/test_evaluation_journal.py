"""Assemblies that are stopped and continued evaluate nothing twice."""

from dataclasses import replace
from types import SimpleNamespace

from mpi4py import MPI

import numpy as np
import pytest

import sparsehess as sh
from sparsehess.coloring import verify_coloring
from sparsehess.errors import InputError, Stopped
from sparsehess.hessian.evaluation_journal import Journal
from sparsehess.pattern import Layout
from sparsehess.storage import checkpoint_writing, saving_clock
from sparsehess.storage.checkpoint import Checkpoint
from sparsehess.storage.saving_clock import SavingClock
from sparsehess.storage.stage_log import StageLog
from support.interrupted import PROBLEM, Interrupted

pytestmark = pytest.mark.parallel([1, 2])


def test_a_coloring_of_another_pattern_is_not_taken(comm, folder):
    patterns = [sh.Pattern.from_edges(edges, 8, comm=comm) for edges in ([[0, 1], [2, 3]], [[0, 2], [1, 3]])]
    journal = Journal(Checkpoint(folder, comm, resume=True), PROBLEM, patterns[0].layout)
    made = [journal.coloring(pattern, lambda pattern=pattern: sh.color(pattern)) for pattern in patterns]
    again = journal.coloring(patterns[1], lambda: pytest.fail("it was saved"))
    assert np.array_equal(again.colors, made[1].colors)
    assert verify_coloring(patterns[1], made[1]) is None


def test_gradients_are_kept_until_what_they_were_for_is_saved(comm, folder, monkeypatch):
    calls, write = [], checkpoint_writing.write_stage

    def full(path, comm, *rest):
        return (0, "No space left on device") if "hessian" in path.name else write(path, comm, *rest)

    monkeypatch.setattr(checkpoint_writing, "write_stage", full)
    sh.assemble(objective(comm, calls), checkpoint=Checkpoint(folder, comm, interval=0)).close()
    monkeypatch.undo()
    spent = len(calls)
    sh.assemble(objective(comm, calls), checkpoint=Checkpoint(folder, comm, interval=0, resume=True)).close()
    assert (
        comm.allreduce(len(calls) - spent) <= 3 * comm.size
    )  # those of the check, but none for a colour or noise


def asked(journal, kind, layout, fill=None):
    """Ask for two rows; return which units were there, and the rows, after those that lacked were filled in."""
    record = journal.begin({"kind": kind}, 2, 1, layout.n_local)
    there = record.done[:, 0].tolist()
    if len(missing := record.missing):
        record.add(missing, np.full((len(missing), layout.n_local), fill))
        journal.save_due()
    return there, journal.finish(record)


def test_requests_after_one_that_has_become_another_are_made_anew_for_good(comm, folder, caplog):
    layout = Layout.from_size(8, comm)

    def run(*kinds):
        journal = Journal(Checkpoint(folder, comm, interval=0, resume=True), PROBLEM, layout)
        return [asked(journal, kind, layout, fill=len(caplog.messages) + 1.0)[0] for kind in kinds]

    new, saved = [False, False], [True, True]
    assert run("a", "b", "c") == [new, new, new]
    assert run("a", "b", "c") == [saved, saved, saved]
    assert run("a", "x", "c") == [saved, new, new]  # what went before c is no longer what it was
    assert comm.rank or "another request than now" in caplog.text
    caplog.clear()
    assert run("a", "x", "c", "d") == [saved, saved, saved, new]
    assert run("a", "x", "c", "d") == [saved] * 4 and not caplog.text
    assert run("y", "x") == [new, new]
    caplog.clear()
    assert run("y", "x", "c") == [saved, saved, new] and not caplog.text


def test_each_group_saves_when_it_pleases_and_the_rest_is_saved_together(comm, folder, monkeypatch):
    layout = Layout.from_size(8, comm)
    calls = []
    append = StageLog.append
    monkeypatch.setattr(
        StageLog,
        "append",
        lambda log, group, meta, arrays: (
            calls.append((group.size, sorted(meta["units"]))) or append(log, group, meta, arrays)
        ),
    )
    checkpoint = Checkpoint(folder, comm, interval=1e9, resume=True)
    journal = Journal(checkpoint, PROBLEM, layout)
    count = 3 * comm.size
    record = journal.begin({"kind": "a"}, count, 1, layout.n_local)
    own = np.arange(comm.rank, count, comm.size)  # as each group would be dealt them
    whole = np.arange(count)[:, None] * np.ones(8)
    for turn, unit in enumerate(own):
        checkpoint.clock = SavingClock(0.0 if turn == 1 and comm.rank == 0 else 1e9)
        assert not record.keep(np.array([unit]), whole[unit : unit + 1], MPI.COMM_SELF)
    assert calls == ([(1, own[:2].tolist())] if comm.rank == 0 else [])  # what it had till then
    calls.clear()
    record.add(np.arange(count), whole[:, layout.start : layout.stop])
    checkpoint.clock = SavingClock(0.0 if comm.rank == comm.size - 1 else 1e9)
    journal.save_due()
    left = sorted(set(range(count)) - {0, comm.size})
    assert calls == [(comm.size, left)]
    again = Journal(Checkpoint(folder, comm, resume=True), PROBLEM, layout)
    record = again.begin({"kind": "a"}, count, 1, layout.n_local)
    assert record.done.all() and np.array_equal(record.rows, whole[:, layout.start : layout.stop])


def test_what_waits_from_before_makes_all_meet_before_more_is_saved(comm, folder):
    layout = Layout.from_size(8, comm)
    checkpoint = Checkpoint(folder, comm, interval=1e9, resume=True)
    journal = Journal(checkpoint, PROBLEM, layout)
    first = journal.begin({"kind": "a"}, 1, 1, layout.n_local)
    first.keep(np.zeros(1, int), np.ones((1, 8)), MPI.COMM_SELF)
    first.add(np.zeros(1, int), np.ones((1, layout.n_local)))
    journal.save_due()
    second = journal.begin({"kind": "b"}, 2, 1, layout.n_local)
    assert not second.keep(np.zeros(1, int), np.ones((1, 8)), MPI.COMM_SELF)
    checkpoint.clock = SavingClock(0.0)
    assert second.keep(np.ones(1, int), np.ones((1, 8)), MPI.COMM_SELF)  # stop, and save together
    second.add(np.arange(2), np.ones((2, layout.n_local)))
    journal.save_due()
    third = journal.begin({"kind": "c"}, 2, 1, layout.n_local)
    assert not third.keep(np.zeros(1, int), np.ones((1, 8)), MPI.COMM_SELF)  # saved by itself
    again = Journal(Checkpoint(folder, comm, resume=True), PROBLEM, layout)
    found = [
        again.begin({"kind": kind}, count, 1, layout.n_local).done
        for kind, count in (("a", 1), ("b", 2), ("c", 2))
    ]
    assert [done.sum() for done in found] == [1, 2, 1]


@pytest.mark.parallel([1])
def test_a_run_of_default_settings_repeats_no_gradient_that_had_ended(comm, folder, monkeypatch):
    """Gradients of half a second on a clock of our own, in which a save takes three milliseconds."""
    now, calls, plain = [0.0], [], []
    monkeypatch.setattr(saving_clock, "time", SimpleNamespace(monotonic=lambda: now[0]))
    append = StageLog.append

    def slow(*arguments):
        now[0] += 0.003
        return append(*arguments)

    monkeypatch.setattr(StageLog, "append", slow)

    class Killed(KeyboardInterrupt):
        pass

    def dying(after):
        made = objective(comm, calls)
        gradient, begun = made.gradient, []

        def counted(x):
            begun.append(x)
            if len(begun) > after:
                raise Killed
            now[0] += 0.5
            return gradient(x)

        return replace(made, gradient=counted)

    sh.assemble(objective(comm, plain)).close()
    kills, hessian = 0, None
    while hessian is None:
        try:
            hessian = sh.assemble(dying(3), checkpoint=Checkpoint(folder, comm, resume=True))
        except Killed:
            kills += 1
    hessian.close()
    assert kills >= 4 and len(calls) == len(plain)  # none that had ended was made again


def objective(comm, calls):
    n, w = 50, np.linspace(1, 2, 50)

    def gradient(x):
        calls.append(x.tobytes())
        g = 3 * w * x + x**3
        g[1:] += x[1:] - x[:-1]
        g[:-1] -= x[1:] - x[:-1]
        return g

    pattern = sh.Pattern.from_edges([[i, i + 1] for i in range(n - 1)], n, comm=comm)
    return sh.Objective(x=np.cos(np.arange(n)), gradient=gradient, pattern=pattern, comm=comm)


def entries(hessian):
    return hessian.mat.getValuesCSR()[2]


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"pattern": "detect"},
        pytest.param({"derivative": "forward"}, marks=pytest.mark.thorough),
        {"derivative": "extrapolated", "coloring": "acyclic"},  # whose recovery works in place
        pytest.param({"columns": 1}, marks=pytest.mark.thorough),
    ],
)
def test_a_repeatedly_stopped_assembly_evaluates_nothing_twice(comm, folder, how):
    calls, plain = [], []
    with sh.assemble(objective(comm, plain), **how) as hessian:
        wanted, evaluations = entries(hessian), hessian.evaluations
    stops, hessian = 0, None
    while hessian is None:
        checkpoint = Interrupted(folder, comm, interval=0, resume=True, after=4)
        try:
            hessian = sh.assemble(objective(comm, calls), checkpoint=checkpoint, **how)
        except Stopped as stopped:
            assert stopped.status == 75 and "SIGUSR1" in str(stopped) and "--resume" in str(stopped)
            stops += 1
    with hessian:
        assert np.abs(entries(hessian) - wanted).max(initial=0) < 1e-9 * np.abs(wanted).max(initial=1)
        assert hessian.evaluations == evaluations
        assert hessian.verification.passed
    assert stops >= 1
    # Each evaluation of an undisturbed run was made once.
    assert comm.allreduce(len(calls)) == comm.allreduce(len(plain))
    made = comm.allreduce(len(calls))
    with sh.assemble(objective(comm, calls), checkpoint=Checkpoint(folder, comm, resume=True), **how) as again:
        assert np.abs(entries(again) - wanted).max(initial=0) < 1e-9 * np.abs(wanted).max(initial=1)
        assert again.verification.passed and again.evaluations == evaluations
        assert comm.allreduce(len(calls)) == made  # the Hessian itself was there
        again.update()
        assert np.abs(entries(again) - wanted).max(initial=0) < 1e-9 * np.abs(wanted).max(initial=1)
    with pytest.raises(InputError, match="another problem"):
        sh.assemble(objective(comm, calls), checkpoint=Checkpoint(folder, comm, resume=True), seed=5, **how)
