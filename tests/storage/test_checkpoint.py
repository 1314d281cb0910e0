"""Checkpoint files: whole ones or none, whatever the disk does."""

import errno
import itertools
import json
import os
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest

from sparsehess.errors import InputError
from sparsehess.pattern import Layout
from sparsehess.runtime.random_numbers import draw_uniform
from sparsehess.storage import checkpoint_writing
from sparsehess.storage.checkpoint import Checkpoint, remove_checkpoint
from sparsehess.storage.checkpoint_format import sum_elements
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

    monkeypatch.setattr(checkpoint_writing.os, "fsync", fails)
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


def test_a_link_where_a_file_goes_is_not_followed(comm, folder, caplog):
    _, arrays = contents(comm)
    (place := folder / "checkpoint").mkdir(exist_ok=True)
    checkpoint = Checkpoint(place, comm, resume=True)
    log = checkpoint.open_log("steps", PROBLEM)
    comm.Barrier()
    if comm.rank == 0:
        (folder / "precious").write_text("of somebody")
        for name in ("stage.ckpt.new", "stage.ckpt", "steps-00000.ckpt"):
            (place / name).symlink_to(folder / "precious")
    comm.Barrier()
    assert checkpoint.save("stage", PROBLEM, {}, arrays)
    assert "is a link" in log.append(comm, {}, arrays)
    assert (folder / "precious").read_text() == "of somebody"
    assert (place / "stage.ckpt").is_file() and not (place / "stage.ckpt").is_symlink()


@pytest.mark.parallel([1])
def test_what_nobody_uses_any_more_is_removed_and_nothing_else(comm, folder):
    (place := folder / "kept").mkdir()
    checkpoint = Checkpoint(place, comm, resume=True)
    for _ in range(2):
        checkpoint.save("stage", PROBLEM, {}, contents(comm)[1])
    checkpoint.open_log("steps", PROBLEM).append(comm, {}, contents(comm)[1])
    (place / "of somebody").write_text("precious")
    (place / "folder.ckpt").mkdir()
    (folder / "link").symlink_to("kept")
    remove_checkpoint(folder / "link")
    remove_checkpoint(folder / "nowhere")
    names = {"of somebody", "folder.ckpt"}
    there = {path.name for path in place.iterdir()}
    assert there == names | {"lock", "stage.ckpt", "stage.ckpt.1", "steps-00000.ckpt"}
    remove_checkpoint(place)
    assert {path.name for path in place.iterdir()} == names


PREFIX = struct.Struct("<16sQI")


def headed(length, text):
    """Return the beginning of a file with a header that claims this length, its checksum right."""
    checksum = zlib.crc32(text, zlib.crc32(length.to_bytes(8, "little")))
    return PREFIX.pack(b"sparsehess-ckpt2", length, checksum) + text


def facts(**other):
    block = {"name": "rows", "dtype": "<f8", "shape": [2**60], "offset": 0, "sum": 0} | other
    return {"version": 2, "at": 0, "fingerprint": PROBLEM, "meta": {}, "blocks": [block], "bytes": 2**63}


CLAIMS = {
    "a header longer than the file": headed(2**62, b"{}"),
    "a header of gigabytes in a file of holes": headed(2**33, b"{}"),
    "a block of exabytes": json.dumps(facts()).encode(),
    "a block whose size overflows": json.dumps(facts(shape=[2**40, 2**40])).encode(),
    "a block before the file": json.dumps(facts(offset=-8, shape=[1])).encode(),
    "a block of fractions": json.dumps(facts(shape=[1.5])).encode(),
    "ten thousand brackets": b"[" * 10_000,
    "a list": b"[2]",
    "no number": b"2",
}


@pytest.mark.parallel([1])
@pytest.mark.parametrize("claim", CLAIMS)
def test_what_a_damaged_file_claims_takes_no_memory(comm, folder, claim, caplog):
    text = CLAIMS[claim]
    data = text if text.startswith(b"sparsehess") else headed(len(text), text)
    for name in ("stage.ckpt", "steps-00000.ckpt"):
        (folder / name).write_bytes(data)
        os.truncate(folder / name, max(len(data), 2**34 if "holes" in claim else 0))
    checkpoint = Checkpoint(folder, comm, resume=True)
    tracemalloc.start()
    with pytest.raises(InputError, match=r"damaged|no checkpoint"):
        checkpoint.load("stage", PROBLEM)
    if "holes" not in claim:  # which are looked through, all 16 GiB of them
        assert checkpoint.open_log("steps", PROBLEM).stages == [] and "done again" in caplog.text
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


@pytest.mark.parallel([1])
def test_a_checkpoint_of_the_version_before_is_refused_in_a_sentence(comm, folder):
    for name in ("stage.ckpt", "steps-00000.ckpt"):
        (folder / name).write_bytes(PREFIX.pack(b"sparsehess-ckpt\n", 2, zlib.crc32(b"{}")) + b"{}")
    checkpoint = Checkpoint(folder, comm, resume=True)
    with pytest.raises(InputError, match="a checkpoint of version 1, this sparsehess has 2: end its run"):
        checkpoint.load("stage", PROBLEM)
    with pytest.raises(InputError, match="a checkpoint of version 1"):
        checkpoint.open_log("steps", PROBLEM)


@pytest.mark.parallel([1])
def test_checksums_of_parts_add_up_and_every_change_shows():
    values = np.random.default_rng(1).standard_normal(40_000)
    whole = sum_elements(values, 0)
    cuts = [0, 1, 16_383, 16_384, 16_385, 30_000, 40_000]
    assert sum(sum_elements(values[a:b], a) for a, b in itertools.pairwise(cuts)) % 2**64 == whole
    seen = {whole}
    for a, b in [(0, 1), (3, 20_000), (16_383, 16_384), (39_000, 39_999)]:
        swapped = values.copy()
        swapped[[a, b]] = values[[b, a]]
        signs = values.copy()
        signs[[a, b]] *= -1.0
        moved = np.concatenate([values[:a], values[b:], values[a:b]])
        seen |= {sum_elements(changed, 0) for changed in (swapped, signs, moved)}
    for bit in range(64):  # one bit each of two elements
        bits = values.view(np.uint64).copy()
        bits[[7, 8]] ^= np.uint64(1 << bit)
        seen.add(sum_elements(bits.view(np.float64), 0))
    assert len(seen) == 1 + 12 + 64 and sum_elements(np.zeros(5), 0) != sum_elements(np.zeros(5), 1)
