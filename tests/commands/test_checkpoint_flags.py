"""Checkpoints named by flags: of which run they are, and what leaves them alone."""

import signal

import pytest
import scipy.sparse as sp

from sparsehess import cli
from sparsehess.errors import InputError
from sparsehess.storage.checkpoint import Checkpoint
from support.cases import laplacian
from support.interrupted import PROBLEM, contents

pytestmark = pytest.mark.parallel([1, 2])


@pytest.mark.parallel([1])
@pytest.mark.parametrize("command", ["plan --products 0", "eigs --explain"])
def test_a_look_at_a_run_leaves_its_checkpoint(comm, tmp_path, command, monkeypatch):
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    sp.save_npz(tmp_path / "matrix.npz", laplacian(4, 4)[0])
    (tmp_path / "ck").mkdir()
    (tmp_path / "ck" / "search.ckpt").write_text("of a long run")
    line = cli.command_line()
    words = [
        *command.split(),
        str(tmp_path / "matrix.npz"),
        "--checkpoint",
        str(tmp_path / "ck"),
        "--resume",
        "-q",
    ]
    assert cli._run(line, line.parse(words), {}, [], comm) == 0
    assert (tmp_path / "ck" / "search.ckpt").read_text() == "of a long run"


def test_another_problem_is_refused_and_an_unfinished_run_not_overwritten(comm, folder):
    _, arrays = contents(comm)
    Checkpoint(folder, comm).save("stage", PROBLEM, {}, arrays)
    for other in ({"n": 41}, {"norm": 2.001}, {"more": 1}):
        with pytest.raises(InputError, match=r"another problem.*" + next(iter(other))):
            Checkpoint(folder, comm, resume=True).load("stage", PROBLEM | other)
    with pytest.raises(InputError, match="--resume"):
        Checkpoint(folder, comm)
    with pytest.raises(InputError, match="negative"):
        Checkpoint(folder, comm, interval=-1)
    Checkpoint(folder, comm, resume=True).clear()
    comm.Barrier()
    assert not list(folder.iterdir())
    comm.Barrier()
    if comm.rank == 0:
        (folder / "file").write_text("")
    comm.Barrier()
    with pytest.raises(InputError, match="no folder for checkpoints"):
        Checkpoint(folder / "file", comm)
