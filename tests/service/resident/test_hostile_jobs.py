"""Jobs that do what no job should: all others answer as if they had not been there, and the service lives."""

import json
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

import pytest

from sparsehess.service.spool.recovery import ATTEMPTS
from support import hostile

# Nobody's: a job of this user kills all that it can.
USER = 43_211

# One of each way: patched, limited, crashed, stopped, left behind, lied.
FEW = (
    "patch-sine",
    "limit-file-size",
    "close-descriptors",
    "leave-hidden-child",
    "segmentation-fault",
    "exit-quietly",
    "stop-itself",
    "move-folder",
    "folders",
    "false-outcome",
)


def judged(report):
    assert not report.wrong, hostile.dump(report)
    return {kind: (state, said) for kind, state, said, _ in report.rows}


def test_hostile_jobs_spoil_no_other(tmp_path):
    judged(hostile.run_between(tmp_path, FEW, 1))


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_all_hostile_jobs_spoil_no_other(tmp_path, ranks):
    kinds = [*hostile.KINDS, *(hostile.TOGETHER if ranks > 1 else ())]
    judged(hostile.run_between(tmp_path, kinds, ranks, patience=1800.0))


@pytest.mark.slow
def test_jobs_that_kill_or_stop_their_own_processes(tmp_path):
    judged(hostile.run_between(tmp_path, hostile.SLOW, 2, patience=1200.0))


@pytest.mark.slow
def test_two_groups_have_ranks_for_a_job_each(tmp_path):
    kinds = ("exit-loudly", "leave-hidden-child", "patch-sine", "kill-launcher", "pipes")
    found = judged(hostile.run_between(tmp_path, kinds, 4, "--groups", "2"))
    assert found["exit-loudly"][0] == "failed"


@pytest.mark.slow
def test_a_job_that_kills_or_stops_the_service_is_given_up(tmp_path):
    judged(hostile.run_between(tmp_path, hostile.FATAL, 1, "--ranks", "1", patience=900.0))


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs to be another user")
def test_a_job_that_kills_all_that_it_can_is_counted_and_given_up():
    """The service is gone with all that belongs to its user; who starts it again finds the job counted."""
    place, mark = Path(tempfile.mkdtemp()), "SPARSEHESS_MARK=kills-all"
    try:
        place.chmod(0o755)
        spool = hostile.Folders(place)
        job = spool.put(spool.hostile("kill-all", 20))
        good = spool.put(spool.honest()[0])
        spool.give(USER)
        for number in range(1, ATTEMPTS + 1):
            assert hostile.serve(place, 1, ("--ranks", "1"), mark, 300.0, USER) == -signal.SIGKILL
            deadline = time.monotonic() + 30
            while hostile.processes(mark):  # the job itself is spared by its own signal
                assert time.monotonic() < deadline, "left behind"
                time.sleep(0.1)
            assert len((place / "spool" / "running" / job / "attempts").read_text().splitlines()) == number
        assert hostile.serve(place, 1, ("--ranks", "1"), mark, 300.0, USER) == 0
        assert "given up" in hostile.outcome_of(place, job)["error"]
        assert hostile.outcome_of(place, good)["state"] == "done"
    finally:
        shutil.rmtree(place)


@pytest.mark.slow
def test_a_rank_that_is_stopped_ends_the_service_and_it_starts_again(tmp_path):
    """Ranks of the service itself, with jobs of matrices: nothing within them can notice."""
    spool, mark = hostile.Folders(tmp_path), "SPARSEHESS_MARK=stopped"
    with hostile.serving(tmp_path, 2, ("--ranks", "2"), mark) as service:
        told = tmp_path / "spool" / "service.json"
        hostile.until(told.exists)
        first = json.loads(told.read_text())["process"]
        os.kill(first, signal.SIGSTOP)
        job = spool.put(spool.honest()[0])
        hostile.until(lambda: hostile.outcome_of(tmp_path, job) is not None)
        assert hostile.outcome_of(tmp_path, job)["state"] == "done"
        assert json.loads(told.read_text())["process"] != first
        (tmp_path / "spool" / "stop").touch()
        assert service.wait(120) == 0
    assert "is stopped" in (tmp_path / "service.log").read_text()


@pytest.mark.slow
def test_jobs_with_code_leave_no_descriptors_processes_or_folders(tmp_path):
    spool, mark = hostile.Folders(tmp_path), "SPARSEHESS_MARK=leaves"
    kinds = ("exit-loudly", "leave-child", "kill-itself", "patch-sine")
    with hostile.serving(tmp_path, 1, (), mark) as service:
        seen = []
        for _ in range(3):
            jobs = [spool.put(spool.hostile(kind, 30)) for kind in kinds] + [spool.put(spool.honest()[1])]
            for job in jobs:
                hostile.until(lambda job=job: hostile.outcome_of(tmp_path, job) is not None)
            time.sleep(1.0)
            process = json.loads((tmp_path / "spool" / "service.json").read_text())["process"]
            children = (Path("/proc") / str(process) / "task" / str(process) / "children").read_text()
            scratch = list((tmp_path / "scratch").glob("sparsehess-*"))
            seen.append((len(os.listdir(f"/proc/{process}/fd")), children.split(), scratch))
        (tmp_path / "spool" / "stop").touch()
        assert service.wait(120) == 0
    assert all(children == [] and scratch == [] for _, children, scratch in seen), seen
    assert seen[2][0] <= seen[0][0], seen
    assert not [
        place for place in Path("/dev/shm").glob("sparsehess-*") if place.owner() == Path("/proc/self").owner()
    ]
