"""Checkpoint files: whole ones or none, whatever the disk does."""

import errno
from pathlib import Path

import numpy as np
import pytest

from sparsehess.errors import InputError
from sparsehess.pattern import Layout
from sparsehess.runtime.random_numbers import draw_uniform
from sparsehess.storage import checkpoint_format
from sparsehess.storage.checkpoint import Checkpoint
from support.interrupted import PROBLEM, contents

pytestmark = pytest.mark.parallel([1, 2])


def test_a_stage_comes_back_as_it_was(comm, folder):
    layout, arrays = contents(comm)
    Checkpoint(folder, comm).save("stage", PROBLEM, {"k": 3, "end": np.inf}, arrays)
    saved = Checkpoint(folder, comm, resume=True).load("stage", {**PROBLEM, "norm": 2.0 + 1e-12})
    assert saved.meta == {"k": 3, "end": np.inf}
    for name, array in arrays.items():
        again = saved.read_rows(name, layout.n_local)
        assert again.dtype == array.dtype and np.array_equal(again, array)
    backwards = Layout(layout.comm, 40 - layout.starts[::-1])  # another share of the rows
    rows = saved.read_rows("vectors", backwards.n_local)
    assert np.array_equal(rows[:, 1], draw_uniform(backwards, 2))
    assert Checkpoint(folder, comm, resume=True).load("other", PROBLEM) is None
    with pytest.raises(InputError, match="40 rows"):
        saved.read_rows("vectors", layout.n_local + 1)


def test_any_damaged_byte_shows_and_the_one_before_is_used(comm, folder, caplog):
    layout, arrays = contents(comm)
    checkpoint = Checkpoint(folder, comm, resume=True)
    checkpoint.save("stage", PROBLEM, {"version": "first"}, arrays)
    path, before = folder / "stage.ckpt", folder / "stage.ckpt.1"
    whole = comm.bcast(path.read_bytes() if comm.rank == 0 else None)
    places = np.random.default_rng(0).choice(len(whole), 40, replace=False)

    def put(data):
        comm.Barrier()
        if comm.rank == 0:
            path.write_bytes(data)
        comm.Barrier()

    for place in (*places.tolist(), 0, 20, len(whole) - 1):
        put(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        with pytest.raises(InputError, match=r"damaged|version"):
            checkpoint.load("stage", PROBLEM)
    for cut in (0, 10, 27, 100, len(whole) - 1):
        put(whole[:cut])
        with pytest.raises(InputError, match="damaged"):
            checkpoint.load("stage", PROBLEM)
    put(whole)
    _, later = contents(comm, scale=2.0)
    checkpoint.save("stage", PROBLEM, {"version": "second"}, later)
    assert checkpoint.load("stage", PROBLEM).meta == {"version": "second"}
    data = comm.bcast(path.read_bytes() if comm.rank == 0 else None)
    put(data[:200] + b"?" + data[201:])
    found = checkpoint.load("stage", PROBLEM)
    assert found.path == before and np.array_equal(found.read_rows("vectors", layout.n_local), arrays["vectors"])
    assert comm.rank or "the one before it is used" in caplog.text
    comm.Barrier()
    if comm.rank == 0:
        path.unlink()  # killed between the two renames
    comm.Barrier()
    assert checkpoint.load("stage", PROBLEM).meta == {"version": "first"}


def test_a_damaged_file_does_not_replace_a_good_one(comm, folder):
    _, arrays = contents(comm)
    checkpoint = Checkpoint(folder, comm, resume=True)
    for version in ("first", "second"):
        checkpoint.save("stage", PROBLEM, {"version": version}, arrays)
    comm.Barrier()
    if comm.rank == 0:
        (folder / "stage.ckpt").write_bytes(b"torn")
    comm.Barrier()
    assert checkpoint.load("stage", PROBLEM).meta == {"version": "first"}
    checkpoint.save("stage", PROBLEM, {"version": "third"}, arrays)
    comm.Barrier()
    if comm.rank == 0:
        (folder / "stage.ckpt").write_bytes(b"torn")
    comm.Barrier()
    assert checkpoint.load("stage", PROBLEM).meta == {"version": "first"}


@pytest.mark.parametrize("how", ["full", "memory"])
def test_a_full_disk_keeps_what_was_saved_before(comm, folder, how, monkeypatch, caplog):
    _, arrays = contents(comm)
    checkpoint = Checkpoint(folder, comm, resume=True)
    checkpoint.save("stage", PROBLEM, {"version": "first"}, arrays)

    def fails(*_):
        raise MemoryError if how == "memory" else OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint_format.os, "fsync", fails)
    checkpoint.save("stage", PROBLEM, {"version": "second"}, arrays)
    monkeypatch.undo()
    comm.Barrier()
    assert sorted(path.name for path in folder.iterdir()) == ["lock", "stage.ckpt"]
    assert comm.rank or "the run goes on" in caplog.text
    assert checkpoint.load("stage", PROBLEM).meta == {"version": "first"}

    def stays(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "unlink", stays)
    checkpoint.drop(["stage"])
    assert comm.rank or "cannot be removed" in caplog.text


def test_a_link_where_a_file_goes_is_not_followed(comm, folder):
    _, arrays = contents(comm)
    (place := folder / "checkpoint").mkdir(exist_ok=True)
    if comm.rank == 0:
        (folder / "precious").write_text("of somebody")
        (place / "stage.ckpt.new").symlink_to(folder / "precious")
    comm.Barrier()
    Checkpoint(place, comm, resume=True).save("stage", PROBLEM, {}, arrays)
    comm.Barrier()
    assert (folder / "precious").read_text() == "of somebody"
