"""Assemblies that are stopped and continued evaluate nothing twice."""

import errno

import numpy as np
import pytest

import sparsehess as sh
from sparsehess.coloring import verify_coloring
from sparsehess.errors import InputError, Stopped
from sparsehess.hessian.evaluation_journal import Journal
from sparsehess.storage import checkpoint_format
from sparsehess.storage.checkpoint import Checkpoint
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
    calls, write = [], checkpoint_format.write_stage

    def full(path, comm, *rest):
        if "hessian" in path.name:
            if comm.rank == 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return
        write(path, comm, *rest)

    monkeypatch.setattr(checkpoint_format, "write_stage", full)
    sh.assemble(objective(comm, calls), checkpoint=Checkpoint(folder, comm, interval=0)).close()
    monkeypatch.undo()
    spent = len(calls)
    sh.assemble(objective(comm, calls), checkpoint=Checkpoint(folder, comm, interval=0, resume=True)).close()
    assert (
        comm.allreduce(len(calls) - spent) <= 3 * comm.size
    )  # those of the check, but none for a colour or noise


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
