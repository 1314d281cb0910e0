"""Stages kept one after another: what is whole is taken, whatever has become of the rest."""

import errno
import itertools
import os

from mpi4py import MPI

import numpy as np
import pytest

from sparsehess.errors import InputError
from sparsehess.pattern import Layout
from sparsehess.runtime.random_numbers import draw_uniform
from sparsehess.storage import checkpoint_format, checkpoint_writing
from sparsehess.storage.checkpoint import Checkpoint
from sparsehess.storage.stage_log import StageLog
from support.interrupted import PROBLEM, contents

pytestmark = pytest.mark.parallel([1, 2, 3])


def opened(folder, comm):
    return Checkpoint(folder, comm, resume=True).open_log("steps", PROBLEM)


def numbers(log):
    return sorted(stage.meta["number"] for stage in log.stages)


def filled(folder, comm, count):
    """Return the bytes of a file of several stages, and where each begins."""
    log = opened(folder, comm)
    for number in range(count):
        assert log.append(comm, {"number": number}, contents(comm, scale=number + 1.0)[1]) == ""
    comm.Barrier()
    path = folder / "steps-00000.ckpt"
    data = comm.bcast(path.read_bytes() if comm.rank == 0 else None)
    ends = [header.end for header in checkpoint_format.list_stages(path)[0]]
    return data, [0, *ends]


def put(folder, comm, data):
    comm.Barrier()
    if comm.rank == 0:
        (folder / "steps-00000.ckpt").write_bytes(data)
    comm.Barrier()


def test_every_rank_adds_and_any_number_reads(comm, folder):
    layout = Layout.from_size(40, comm)
    whole = np.stack([draw_uniform(Layout.from_size(40, MPI.COMM_SELF), seed) for seed in range(3)])
    log = opened(folder, comm)
    for turn in range(3):
        for own in range(comm.rank + 1):  # some more than others, each when it pleases
            assert (
                log.append(MPI.COMM_SELF, {"number": [comm.rank, turn, own]}, {"rows": whole[turn][:, None]}) == ""
            )
    assert log.append(comm, {"number": [99, 0, 0]}, {"rows": draw_uniform(layout, 2)[:, None]}) == ""
    comm.Barrier()
    again = opened(folder, comm)
    wanted = [[rank, turn, own] for rank in range(comm.size) for turn in range(3) for own in range(rank + 1)]
    assert numbers(again) == [*wanted, [99, 0, 0]]
    for stage in again.stages:
        rows = stage.read_rows("rows", layout.n_local)[:, 0]
        turn = min(stage.meta["number"][1], 2) if stage.meta["number"][0] < 99 else 2
        assert np.array_equal(rows, whole[turn][layout.start : layout.stop])
    alone = StageLog(folder, "steps", MPI.COMM_SELF, PROBLEM, True, None)
    assert numbers(alone) == numbers(again)
    assert np.array_equal(alone.stages[0].read_rows("rows", 40)[:, 0], whole[0])


def test_half_a_stage_is_dropped_and_written_over(comm, folder, caplog):
    data, ends = filled(folder, comm, 3)
    for cut in (*range(ends[2] + 1, ends[3], 97), ends[2] + 27, ends[3] - 1):
        caplog.clear()
        put(folder, comm, data[:cut])
        log = opened(folder, comm)
        assert numbers(log) == [0, 1]
        assert comm.rank or f"bytes {ends[2]} to {cut}: what it held is done again" in caplog.text
    assert log.append(comm, {"number": 7}, contents(comm)[1]) == ""
    comm.Barrier()
    caplog.clear()
    assert numbers(opened(folder, comm)) == [0, 1, 7] and not caplog.text
    comm.Barrier()
    for cut in ends[:3]:  # as if the last ones had never been
        put(folder, comm, data[:cut])
        assert numbers(opened(folder, comm)) == list(range(ends.index(cut))) and not caplog.text


def test_any_damaged_byte_of_a_stage_shows_and_the_others_are_taken(comm, folder, caplog):
    data, ends = filled(folder, comm, 3)
    layout, first = contents(comm)
    places = np.random.default_rng(0).choice(len(data), 40, replace=False)
    for place in (*places.tolist(), 0, 20, ends[1], ends[1] + 17, ends[2] + 17, len(data) - 1):
        caplog.clear()
        put(folder, comm, data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :])
        log = opened(folder, comm)
        hurt = int(np.searchsorted(ends, place, side="right")) - 1
        assert numbers(log) == [number for number in range(3) if number != hurt]
        assert comm.rank or "what it held is done again" in caplog.text
        for stage in log.stages:
            rows = stage.read_rows("vectors", layout.n_local)
            assert np.array_equal(rows, (stage.meta["number"] + 1.0) * first["vectors"])
    put(folder, comm, data[: ends[1]] + os.urandom(3000) + data[ends[1] :])
    assert numbers(opened(folder, comm)) == [0]  # a stage knows where it stood
    put(folder, comm, data[: ends[1]] + bytes(ends[2] - ends[1]) + data[ends[2] :])
    assert numbers(opened(folder, comm)) == [0, 2]


def test_another_problem_is_refused(comm, folder):
    filled(folder, comm, 1)
    with pytest.raises(
        InputError, match=r"steps-00000.ckpt is the checkpoint of another problem \(n 40, here 41\)"
    ):
        Checkpoint(folder, comm, resume=True).open_log("steps", PROBLEM | {"n": 41})


@pytest.mark.parametrize("rank", [0, 1])
def test_a_full_disk_leaves_what_was_there(comm, folder, rank, monkeypatch):
    log = opened(folder, comm)
    assert log.append(MPI.COMM_SELF, {"number": comm.rank}, contents(MPI.COMM_SELF)[1]) == ""
    sizes = []

    class Full(checkpoint_writing._Target):
        def write(self, array):
            super().write(array)
            self._stream.flush()
            sizes.append(os.fstat(self._stream.fileno()).st_size)
            self._try(self._fail)

        def _fail(self):
            raise OSError(errno.ENOSPC, "No space left on device")

    if comm.rank == rank:
        monkeypatch.setattr(checkpoint_writing, "_Target", Full)
    told = log.append(MPI.COMM_SELF, {"number": -1}, contents(MPI.COMM_SELF)[1])
    assert told == ("No space left on device" if comm.rank == rank else "")
    assert comm.rank != rank or sizes[0] > log.path.stat().st_size > 0
    monkeypatch.undo()
    assert log.append(MPI.COMM_SELF, {"number": comm.rank + 10}, contents(MPI.COMM_SELF)[1]) == ""
    comm.Barrier()
    each = [[own, own + 10] if own == rank else [own, -1, own + 10] for own in range(comm.size)]
    assert numbers(opened(folder, comm)) == sorted(itertools.chain(*each))


@pytest.mark.parallel([1])
def test_a_save_takes_as_long_with_a_thousand_before_it(comm, folder, monkeypatch):
    log = opened(folder, comm)
    written = []
    put_stage = checkpoint_writing._put

    def counted(*arguments):
        size, told = put_stage(*arguments)
        written.append(size)
        return size, told

    monkeypatch.setattr(checkpoint_writing, "_put", counted)
    for number in range(1000):
        assert log.append(comm, {"number": number}, {"rows": np.full((200, 1), number, float)}) == ""
    assert max(written) - min(written) < 16  # digits of numbers
    assert log.path.stat().st_size == sum(written)
    again = opened(folder, comm)
    assert [stage.read_rows("rows", 200)[0, 0] for stage in again.stages[::100]] == list(range(0, 1000, 100))
