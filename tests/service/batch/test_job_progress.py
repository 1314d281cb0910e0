"""How far a batch job is: what its command writes, and what of it `status` believes."""

import json
import os
import time

from mpi4py import MPI

import pytest

from sparsehess import runtime
from sparsehess.errors import EvaluationError
from sparsehess.service.batch import job_progress
from sparsehess.service.batch.job_progress import (
    ProgressFile,
    TellingGuard,
    progress_text,
    read_progress,
    tell_progress,
)
from support.batch import facts, run


def test_a_file_is_written_at_most_a_few_times_a_second(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(job_progress.time, "monotonic", lambda: clock[0])
    file = ProgressFile(tmp_path / "progress.json")
    seen = []
    for step in range(1000):  # ten seconds
        clock[0] = step / 100
        file.tell("colours evaluated", step, 1000)
        seen.append(read_progress(tmp_path / "progress.json")["done"])
    assert len(set(seen)) <= 40 and seen[-1] >= 960
    assert not [name for name in tmp_path.iterdir() if name.name.startswith(".")]


def test_what_cannot_be_written_ends_nothing(tmp_path):
    file = ProgressFile(tmp_path / "no such folder" / "progress.json")
    file.tell("colours evaluated", 1, 2)
    assert read_progress(tmp_path / "no such folder" / "progress.json") is None


class Refusing(runtime.Guard):
    patience = 7.0

    def check_progress(self, stage, done, total, together):
        raise EvaluationError("over the limit")


def test_a_guard_tells_and_leaves_the_rest_to_the_one_before(tmp_path, monkeypatch):
    monkeypatch.setattr(job_progress, "_PAUSE", 0.0)
    path = tmp_path / "progress.json"
    guard = TellingGuard(Refusing(), ProgressFile(path))
    assert guard.patience == 7.0
    with pytest.raises(EvaluationError, match="over the limit"):
        guard.check_progress("colours evaluated", 1, 2, together=False)
    assert not path.exists()
    guard = TellingGuard(runtime.Guard(), ProgressFile(path))
    guard.check_call()
    time.sleep(0.01)
    guard.check_call()
    assert read_progress(path)["stage"] == "functions called"
    time.sleep(0.05)
    guard.check_progress("colours evaluated", 1, 2, together=False)
    told = read_progress(path)
    assert (told["stage"], told["done"], told["total"]) == ("colours evaluated", 1, 2)
    guard.check_call()  # a stage has told more
    assert read_progress(path)["stage"] == "colours evaluated"


def test_a_job_has_a_guard_that_tells(tmp_path, monkeypatch):
    comm = MPI.COMM_SELF.Dup()
    monkeypatch.delenv("SPARSEHESS_JOB", raising=False)
    tell_progress(comm)
    assert runtime.guard_of(comm) is runtime.guard_of(MPI.COMM_SELF)
    monkeypatch.setenv("SPARSEHESS_JOB", str(tmp_path))
    tell_progress(comm)
    assert isinstance(runtime.guard_of(comm), TellingGuard)
    assert read_progress(tmp_path / "progress.json")["stage"] == "started"
    comm.Free()


GOOD = {"stage": "eigenpairs converged", "done": 2, "total": 10, "seconds": 3.5}
BAD = [
    [],
    {},
    GOOD | {"done": True},
    GOOD | {"done": -1},
    GOOD | {"total": 2.0},
    GOOD | {"seconds": float("nan")},
    GOOD | {"seconds": "3"},
    GOOD | {"stage": None},
    GOOD | {"more": "x" * 5000},
]


def test_only_what_is_progress_is_believed(tmp_path):
    path = tmp_path / "progress.json"
    path.write_text(json.dumps(GOOD | {"more": 1}))
    assert read_progress(path) == GOOD | {"seconds": pytest.approx(3.5, abs=20)}
    os.utime(path, (time.time() - 3600,) * 2)  # a factorization tells nothing for an hour
    assert read_progress(path)["seconds"] == pytest.approx(3603.5, abs=20)
    os.utime(path, (time.time() + 3600,) * 2)  # a clock that is ahead
    assert read_progress(path)["seconds"] == 3.5
    os.utime(path)
    for told in BAD:
        path.write_text(json.dumps(told))
        assert read_progress(path) is None, told
    path.write_text("[" * 4000)
    assert read_progress(path) is None
    path.write_bytes(b"\xff")
    assert read_progress(path) is None
    path.unlink()
    path.mkdir()
    assert read_progress(path) is None


def test_progress_in_words():
    assert progress_text(None) == ""
    assert progress_text(GOOD) == "eigenpairs converged: 2 of 10, 4 s"
    assert progress_text(GOOD | {"total": 0}) == "eigenpairs converged: 2, 4 s"
    assert progress_text(GOOD | {"done": 0, "total": 0, "stage": "started"}) == "started, 4 s"


def test_status_shows_how_far_a_job_is(place):
    (place / "job.toml").write_text('command = "eigs"\ninput = "problems.py:chain"\nset = { wait = 0.7 }\n')
    facts(place, "submit job.toml --scheduler local --ranks 2")
    seen, deadline = {}, time.monotonic() + 80
    while "colours evaluated" not in seen and time.monotonic() < deadline:
        (found,) = facts(place, "status")["jobs"]
        if found["progress"]:
            seen[found["progress"]["stage"]] = found["progress"]
    code, out, _ = run(place, "status")
    facts(place, "cancel 1")
    assert {"started", "functions called"} & set(seen)
    assert 0 < seen["colours evaluated"]["total"] <= 6
    assert code == 0 and "colours evaluated: " in out.splitlines()[1]
    assert facts(place, "status")["jobs"][0]["progress"] is None
