"""Locks of checkpoint folders."""

import errno
import os
import signal
import socket

import pytest

from sparsehess.errors import InputError
from sparsehess.storage import folder_lock
from sparsehess.storage.checkpoint import Checkpoint
from support import faults
from support.interrupted import ASKED, PROBLEM, contents, the_same, undisturbed

pytestmark = pytest.mark.parallel([1, 2])


@pytest.mark.parallel([1])
@pytest.mark.parametrize("error", [errno.ENOLCK, errno.EIO])
def test_missing_locks_are_told_and_failing_ones_refused(folder, comm, error, monkeypatch, caplog):
    def fails(*_):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(folder_lock.fcntl, "lockf", fails)
    if error == errno.EIO:
        with pytest.raises(InputError, match="cannot be written there: Input/output error"):
            Checkpoint(folder, comm)
        return
    Checkpoint(folder, comm).save("stage", PROBLEM, {}, contents(comm)[1])
    assert "no locks there (No locks available)" in caplog.text
    Checkpoint(folder, comm, resume=True).clear()
    assert not list(folder.iterdir())


@pytest.mark.parallel([1])
def test_a_lock_removed_while_waited_for_is_taken_anew(folder, comm, monkeypatch):
    taken, lockf = [], folder_lock.fcntl.lockf

    def removed(*arguments):
        lockf(*arguments)
        taken.append(arguments)
        if len(taken) == 1:  # by who held it until now
            (folder / "lock").unlink()

    monkeypatch.setattr(folder_lock.fcntl, "lockf", removed)
    held = Checkpoint(folder, comm)
    assert len(taken) == 2 and (folder / "lock").read_text() == f"process {os.getpid()} on {socket.gethostname()}"
    held.clear()


@pytest.mark.parallel([1])
def test_two_runs_do_not_share_a_folder(folder):
    command = f"eigs problem.py:chain --set wait=0.03 {ASKED}"
    first = faults.start(folder, command, 2)
    faults.wait_for_evaluations(first, 4)
    ranks = first.pids()
    first.send(signal.SIGSTOP)
    other = faults.start(folder, command)
    status, said = other.end()
    for rank in ranks:
        os.kill(rank, signal.SIGCONT)
    assert status == 2 and said.count("\n") == 1, said
    assert f"kept is in use by process {ranks[0]} on " in said
    status, said = first.end()
    assert status == 0, said
    assert the_same(folder, undisturbed("chain")[0])
