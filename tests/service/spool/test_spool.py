"""The spool where the disk, another user or a moment of death is against it; and services of two ranks there."""

import errno
import json
import os
import subprocess
import sys

import pytest

from sparsehess.cli import command_line
from sparsehess.errors import InputError
from sparsehess.service.resident.admission import Allowance, admit
from sparsehess.service.spool import job_outcomes
from sparsehess.service.spool import lock as spool_lock
from sparsehess.service.spool.access import EVERYBODY
from sparsehess.service.spool.clients import WholeSpool
from sparsehess.service.spool.recovery import ATTEMPTS, MANY, recover_jobs
from sparsehess.service.spool.spool import Spool
from support import ROOT, answers

JOB = 'command = "eigs"\ninput = "matrix.npz"\nk = 2\n'


@pytest.fixture
def spool(tmp_path):
    return Spool.open_or_create(tmp_path / "spool")


def put(spool, text=JOB, priority=0):
    client = WholeSpool(spool)
    folder = client.make_draft()
    (folder / "job.toml").write_text(text)
    return client.enqueue([folder], priority)[0]


def names(spool, state):
    return sorted(os.listdir(spool.path / state))


def test_a_torn_answer_is_made_anew(spool):
    job = put(spool)
    folder = spool.claim()
    (folder / "result.json").write_text("{}")
    job_outcomes.write_outcome(folder, {"id": job, "state": "done", "exit": 0, "error": None})
    (folder / "result.json").write_text("")  # as after a power failure
    recover_jobs(spool)
    assert spool.claim() == folder and not names(spool, "failed")


def test_what_is_printed_after_the_end_makes_no_failure(spool):
    job = put(spool)
    folder = spool.claim()
    (folder / "log").write_text("first\n")
    job_outcomes.write_outcome(folder, {"id": job, "state": "done", "exit": 0, "error": None})
    with open(folder / "log", "a") as stream:
        stream.write("a process that the job has left behind\n")
    spool.settle(folder)
    assert names(spool, "done") == [job] and job_outcomes.read_outcome(spool.path / "done" / job)["exit"] == 0


def test_a_job_killed_before_its_note_keeps_its_priority(spool, monkeypatch):
    job = put(spool, JOB + "[submit]\npriority = 40\n", 40)

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(job_outcomes, "append_line", killed)
    with pytest.raises(KeyboardInterrupt):
        spool.claim()
    monkeypatch.undo()
    assert names(spool, "running") == [job]
    recover_jobs(spool)
    assert names(spool, "queued") == [f"0960.{job}"]


def test_a_job_that_gets_further_outlives_many_services(spool):
    job, kept = put(spool), 0
    for attempt in range(12):
        folder = spool.claim()
        (folder / "kept").mkdir(exist_ok=True)
        kept += attempt not in (0, 3, 4, 5, 6, 9)  # never five times in a row nothing
        (folder / "kept" / "saved").write_bytes(bytes(1000 * kept))
        recover_jobs(spool)
        assert names(spool, "queued") == [f"1000.{job}"], attempt
    for attempt in range(ATTEMPTS):
        folder = spool.claim()
        (folder / "kept" / "saved").write_bytes(bytes(1000 * kept - attempt))  # less, then no more than before
        recover_jobs(spool)
    assert "ended 17 times" in job_outcomes.read_outcome(spool.path / "failed" / job)["error"]


def test_no_job_outlives_services_for_ever(spool):
    job = put(spool)
    for attempt in range(MANY):
        folder = spool.claim()
        (folder / "saved").write_bytes(bytes(attempt))
        recover_jobs(spool)
    assert "ended 50 times" in job_outcomes.read_outcome(spool.path / "failed" / job)["error"]


def test_a_full_disk_leaves_a_job_in_the_queue(spool, monkeypatch):
    job = put(spool)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(job_outcomes, "append_line", full)
    with pytest.raises(OSError, match="No space"):
        spool.claim()
    assert names(spool, "queued") == [f"1000.{job}"] and not names(spool, "running")


def test_what_cannot_be_moved_stays_and_keeps_nobody_waiting(spool, monkeypatch, caplog):
    stubborn, good = put(spool, priority=5), put(spool)
    rename = os.rename

    def of_another_user(source, target):
        if stubborn in str(source):
            raise PermissionError(errno.EACCES, "Permission denied")
        rename(source, target)

    monkeypatch.setattr(os, "rename", of_another_user)
    assert spool.claim().name == good
    assert spool.claim() is None
    assert spool.count_jobs("queued") == 0 and names(spool, "queued") == [f"0995.{stubborn}"]
    assert caplog.text.count("cannot be taken") == 1


@pytest.mark.parametrize("name", ["log", "attempts", "watchdog"])
def test_hard_links_are_not_written_through(spool, tmp_path, name):
    (tmp_path / "precious").write_text("of somebody")
    folder = WholeSpool(spool).make_draft()
    (folder / "job.toml").write_text(JOB)
    os.link(tmp_path / "precious", folder / name)
    WholeSpool(spool).enqueue([folder])
    assert spool.claim() is None and len(names(spool, "failed")) == 1
    assert (tmp_path / "precious").read_text() == "of somebody"


def test_names_of_unfinished_files_cannot_be_foreseen(spool, tmp_path):
    """A link under the name of a file that is being written would lead it elsewhere."""
    from sparsehess.storage import atomic_files

    path = spool.path / "service.json"
    assert atomic_files.make_unfinished_name(path) != atomic_files.make_unfinished_name(path)


def test_garbage_among_jobs_keeps_no_service_from_starting(spool):
    job = put(spool)
    assert spool.claim() is not None
    (spool.path / "running" / "a file").write_text("")
    os.symlink("/", spool.path / "running" / "a link")
    taken = spool.path / "failed" / "20260101-000000-000000-abcdef"
    taken.mkdir()
    (taken / "file").write_text("")
    (spool.path / "new" / f"{taken.name}.cancelled").mkdir()
    recover_jobs(spool)
    assert names(spool, "queued") == [f"1000.{job}"] and not names(spool, "running") and not names(spool, "new")
    assert len(names(spool, "failed")) == 4


def test_a_lock_that_changed_hands_is_noticed(spool, monkeypatch):
    mine = spool.lock("process 1 on here")
    # As if it had taken the lock while nobody held it.
    monkeypatch.setattr(spool_lock.fcntl, "flock", lambda *_: os.pwrite(mine, b"process 2 on here", 0))
    with pytest.raises(InputError, match="process 2"):
        spool.share(mine)
    monkeypatch.undo()
    assert not spool.is_served


def test_links_and_files_of_others_are_not_read(spool, tmp_path, monkeypatch):
    folder = WholeSpool(spool).make_draft()
    (tmp_path / "elsewhere.toml").write_text(JOB)
    os.symlink(tmp_path / "elsewhere.toml", folder / "job.toml")
    with pytest.raises(InputError, match=r"job\.toml: no regular file"):
        admit(folder, Allowance(), command_line())
    (folder / "job.toml").unlink()
    (folder / "job.toml").write_text(JOB)
    (folder / "matrix.npz").write_text("")
    if os.geteuid() == 0:
        os.chown(folder / "matrix.npz", 12345, -1)
        with pytest.raises(InputError, match="another user"):
            admit(folder, Allowance(), command_line())


@pytest.mark.parametrize(
    "progress", ['{"stage": "eigen', "[1, 2]", '{"stage": 3}', '{"done": 1, "total": null}', "\x00\xff"]
)
def test_status_of_what_is_half_written(spool, progress, capsys):
    from sparsehess.service import spool_commands

    job = put(spool, JOB + "[submit]\nname = 1979-05-27\npriority = [1]\n")
    (spool.claim() / "status.json").write_text(progress)
    assert spool_commands.print_spool_status(command_line().parse(["status", "--spool", str(spool.path)])) == 0
    assert (
        spool_commands.print_spool_status(
            command_line().parse(["status", "--spool", str(spool.path), "--json", "-"])
        )
        == 0
    )
    said = capsys.readouterr().out
    assert job in said.splitlines()[1]
    assert answers.parse(said[said.index("{") :])["jobs"][0]["name"] is None


ALONE = """
import contextlib, errno, json, os, signal, sys
from pathlib import Path
from mpi4py import MPI
import numpy as np
import scipy.sparse as sp
from sparsehess import runtime
runtime.initialize()
from sparsehess.cli import command_line
from sparsehess.errors import SparseHessError
from sparsehess.service.spool import job_outcomes, spool as spools
from sparsehess.service.resident import job_run, limits, service as serve
from sparsehess.service.resident.admission import Allowance
from sparsehess.service.resident.service import ServiceSettings
from sparsehess.service.spool.clients import WholeSpool

world, place = runtime.communicator(MPI.COMM_WORLD), Path(sys.argv[1])

class Ends(runtime.Guard):
    patience = 2.0

    def end_stuck(self, comm, error):
        print("STUCK", error, flush=True)
        comm.Abort(9)

runtime.set_guard(world, Ends())

def fails(rank, code=errno.EIO):
    def failing(*_, **__):
        if world.rank == rank:
            raise OSError(code, os.strerror(code), "a file")
        return kept(*_, **__)
    return failing

def job(spool, submit):
    folder = WholeSpool(spool).make_draft()
    (folder / "job.toml").write_text('command = "eigs"\\ninput = "matrix.npz"\\nk = 2\\n' + submit)
    sp.save_npz(folder / "matrix.npz", sp.diags([np.arange(1.0, 30.0)], [0]))
    return WholeSpool(spool).enqueue([folder])[0]

SCENES = {
    "share": (spools.Spool, "share", 1, ""),
    "look": (spools.Spool, "claim", 0, ""),
    "outcome": (job_outcomes, "write_outcome", 0, ""),
    "end": (Path, "glob", 0, ""),
    "record": (job_run, "record_output", 1, ""),
    "folder": (os, "chdir", 1, ""),
    "limit": (os, "open", 1, '[submit]\\ntime = "10:00"\\n'),
}
found = {}
for name in sys.argv[2:]:
    room, called, rank, submit = SCENES[name]
    spool = runtime.on_root(world, spools.Spool.open_or_create, place / name)
    identity = runtime.on_root(world, job, spool, submit)
    kept = getattr(room, called)
    broken = fails(rank)
    if name == "limit":
        whole = kept
        broken = lambda path, *rest, **more: (fails(1) if "watchdog" in str(path) else whole)(path, *rest, **more)
    setattr(room, called, broken)
    try:
        settings = ServiceSettings(Allowance(), 1, 0, 1.0, True, None, ())
        status = serve.serve_spool(spool, settings, command_line(), world)
    except SparseHessError as error:
        status = [type(error).__name__, str(error)]
    except Exception as error:
        status = ["raw", repr(error)]
    setattr(room, called, kept)
    world.Barrier()
    state = WholeSpool(spool).find_job(identity).state
    outcome = job_outcomes.read_outcome(spool.path / state / identity) or {}
    world.Barrier()
    found[name] = world.allgather(status), state, outcome.get("error"), (spool.path / "service.json").exists()
if world.rank == 0:
    print("FOUND", json.dumps(found), flush=True)
"""


def test_a_failure_on_one_rank_ends_both(tmp_path):
    (tmp_path / "alone.py").write_text(ALONE)
    scenes = ["share", "look", "outcome", "end", "record", "folder", "limit"]
    done = subprocess.run(
        ["mpiexec", "-n", "2", "--oversubscribe", sys.executable, "alone.py", str(tmp_path), *scenes],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "STUCK" not in done.stdout and done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.partition("FOUND ")[2].splitlines()[0])
    for scene, state in (("share", "queued"), ("look", "queued"), ("outcome", "running"), ("end", "done")):
        statuses, where, _, served = found[scene]
        assert [kind for kind, _ in statuses] == ["InputError"] * 2, (scene, statuses)
        assert where == state and not served, (scene, where, served)
        assert all("error" in said or "cannot be" in said for _, said in statuses)
    for scene in ("record", "folder", "limit"):
        statuses, where, error, served = found[scene]
        assert statuses == [0, 0] and where == "failed" and not served, (scene, statuses, where)
        assert "Input/output error" in error


def test_spools_that_others_can_write_to_are_refused(tmp_path):
    Spool.open_or_create(tmp_path / "mine")
    assert (tmp_path / "mine").stat().st_mode & 0o777 == 0o700
    (tmp_path / "mine" / "queued").chmod(0o777)
    with pytest.raises(InputError, match="others can write"):
        Spool.open_or_create(tmp_path / "mine")
    Spool.open_or_create(tmp_path / "mine", EVERYBODY)
    with pytest.raises(InputError, match="no spool"):
        Spool.open_existing(tmp_path)
