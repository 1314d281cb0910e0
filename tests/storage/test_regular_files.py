"""What is no file among the files of a checkpoint ends a run at once."""

import os
import socket
import time

import pytest

from sparsehess.errors import InputError
from sparsehess.storage.checkpoint import Checkpoint
from sparsehess.storage.regular_files import open_regular
from support import faults
from support.interrupted import ASKED, PROBLEM, contents

pytestmark = pytest.mark.parallel([1, 2, 3])

KINDS = {
    "pipe": "a pipe",
    "socket": "a socket",
    "folder": "a folder",
    "link": "a link",
    "dangling": "a link",
    "device": "a device",
}
NAMES = ("lock", "hessian.ckpt", "search.ckpt.1", "pattern.ckpt.new", "evaluations-00001.ckpt", "step-00000.ckpt")


def make(kind, path):
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        place = os.getcwd()
        os.chdir(path.parent)  # its name may not be long
        try:
            with socket.socket(socket.AF_UNIX) as made:
                made.bind(path.name)
        finally:
            os.chdir(place)
    elif kind == "folder":
        path.mkdir()
    elif kind == "link":
        (path.parent / "of somebody").write_text("precious")
        path.symlink_to("of somebody")
    elif kind == "dangling":
        path.symlink_to("nowhere")
    else:
        try:
            os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5))  # endless zeros
        except PermissionError:
            pytest.skip("makes no devices")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_ends_a_run_before_it_begins(comm, folder, kind, name):
    if comm.rank == 0:
        make(kind, folder / name)
    comm.Barrier()
    for resume in (False, True):
        with pytest.raises(InputError, match=rf"{name} is {KINDS[kind]}, not a file: remove it"):
            Checkpoint(folder, comm, resume=resume)
    comm.Barrier()
    if comm.rank == 0 and kind == "link":
        assert (folder / "of somebody").read_text() == "precious"


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_is_not_waited_for_while_a_run_goes_on(comm, folder, kind):
    arrays = contents(comm)[1]
    checkpoint = Checkpoint(folder, comm, resume=True)
    log = checkpoint.open_log("steps", PROBLEM)
    comm.Barrier()
    if comm.rank == 0:
        for name in ("stage.ckpt", "steps-00000.ckpt", "other.ckpt.1"):
            if not (folder / name).is_symlink():
                make(kind, folder / name)
    comm.Barrier()
    for stage in ("stage", "other")[: 1 if kind == "dangling" else 2]:
        if kind == "dangling":
            assert checkpoint.load(stage, PROBLEM) is None
        else:
            with pytest.raises(InputError, match=rf"{KINDS[kind]}, not a file"):
                checkpoint.load(stage, PROBLEM)
    assert KINDS[kind] in log.append(comm, {}, arrays)
    with pytest.raises(InputError, match=KINDS[kind]):
        checkpoint.open_log("steps", PROBLEM)
    for flags in (os.O_RDONLY, os.O_WRONLY | os.O_CREAT, os.O_RDWR):
        with pytest.raises(InputError, match="not a file"):
            open_regular(folder / "steps-00000.ckpt", flags)


@pytest.mark.parallel([1])
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_a_pipe_ends_a_run_of_the_command_line(folder, ranks):
    (folder / "kept").mkdir()
    os.mkfifo(folder / "kept/lock")
    began = time.monotonic()
    status, said = faults.start(folder, f"eigs problem.py:chain {ASKED}", ranks).end(60)
    assert status == 2 and time.monotonic() - began < 60
    assert said.count("\n") == 1 and "lock is a pipe, not a file: remove it" in said
