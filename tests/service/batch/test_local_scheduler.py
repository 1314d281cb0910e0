"""Batch jobs of this machine, for real: results, failures, time limits, ends."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sparsehess.errors import InputError
from sparsehess.service.batch import jobs as batch_jobs
from sparsehess.service.batch import local_scheduler
from sparsehess.service.batch.schedulers import State
from support import ROOT, answers
from support.batch import JOB, WORKER, ended, facts, here, made, run, state


def test_a_local_job_from_submission_to_result(place):
    (place / "job.toml").write_text(JOB + 'json = "mine.json"\n[submit]\nranks = 2\nname = "chain"\n')
    job = facts(place, "submit job.toml --scheduler local")
    assert job["id"] == 1 and job["name"] == "chain" and job["number"].isdigit() and job["ranks"] == 2
    found = ended(place, 1)
    assert (found["state"], found["exit"]) == ("done", 0)
    answer = facts(place, "result chain")
    assert answer == answers.parse((place / "mine.json").read_text()) and answer["mpi"]["size"] == 2
    direct = here(place, "eigs problems.py:chain -k 3 --set n=24")
    assert answer["eigenvalues"] == pytest.approx(direct["eigenvalues"], abs=1e-8)
    code, out, _ = run(place, "result 1")
    assert code == 0 and "verified     random product" in out
    code, out, _ = run(place, "status")
    assert code == 0 and out.splitlines()[1].split()[:3] == ["1", "chain", "local"]
    assert facts(place, "cancel 1")["jobs"] == [{"id": 1, "name": "chain", "state": "done", "cancelled": False}]
    assert facts(place, "status 1")["jobs"][0]["state"] == "done"


def test_cancel_ends_every_process(place):
    (place / "job.toml").write_text('command = "eigs"\ninput = "problems.py:chain"\nset = { wait = 30 }\n')
    facts(place, "submit job.toml --scheduler local --ranks 2")
    job = batch_jobs.find_job("1")
    deadline = time.monotonic() + 60
    while (
        len(local_scheduler.list_processes(job)) < 4 and time.monotonic() < deadline
    ):  # script, launcher, two ranks
        time.sleep(0.1)
    assert (
        len(local_scheduler.list_processes(job)) >= 4 and facts(place, "status")["jobs"][0]["state"] == "running"
    )
    code, _, err = run(place, "result 1")
    assert code == 2 and "job 1 is running: no result yet" in err
    assert facts(place, "cancel 1")["jobs"][0]["cancelled"]
    assert not local_scheduler.list_processes(job)
    assert facts(place, "status 1")["jobs"][0]["state"] == "cancelled"
    code, _, err = run(place, "result 1")
    assert code == 2 and "job 1 was cancelled" in err


def started(place, body, **more):
    """Return a job of this machine whose launcher runs a program of ours, once it has begun."""
    (place / "worker.py").write_text(body)
    launcher = place / "launch"
    launcher.write_text('#!/bin/sh\nshift 2\nexec "$@"\n')
    launcher.chmod(0o755)
    job = made(place, launcher=[str(launcher)], program=[sys.executable, "worker.py"], **more)
    local_scheduler.start_script(job)
    return job


def waited(job, within=30):
    deadline = time.monotonic() + within
    while not state(job).is_over and time.monotonic() < deadline:
        time.sleep(0.05)
    return state(job)


def test_a_job_that_fails_tells_why_and_its_status(place):
    body = "import os, sys\nos.write(1, b'\\xff')\nsys.stderr.write('sparsehess: k=99 of 56 rows\\n')\nsys.exit(2)"
    job = started(place, body)
    fields = local_scheduler._stat(int(job.read_word("pid").split()[0]))
    assert fields is None or int(fields[1]) != os.getpid()  # it is the system's: nobody here has to wait for it
    assert waited(job) == State("failed", 2)
    code, out, err = run(place, "result made")
    assert code == 2 and "k=99" in err and "\ufffd" in out


@pytest.mark.slow
def test_a_run_that_fails_tells_why_and_its_status(place):
    (place / "job.toml").write_text('command = "eigs"\ninput = "good.npz"\nk = 99\n')
    facts(place, "submit job.toml --scheduler local")
    found = ended(place, 1)
    assert (found["state"], found["exit"]) == ("failed", 2)
    code, _, err = run(place, "result 1")
    assert code == 2 and "k=99" in err


def test_a_killed_script_has_failed_whatever_has_its_number(place):
    job = started(place, "import time; time.sleep(60)")
    assert state(job) == State("running")
    deadline = time.monotonic() + 30
    while len(local_scheduler.list_processes(job)) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    pid, began = job.read_word("pid").split()
    job.file("pid").write_text(f"{pid} {int(began) + 1}\n")  # another process that has got the number since
    assert state(job) == State("failed", None, "killed, without a status")
    job.file("pid").write_text(f"{pid} {began}\n")
    os.kill(int(pid), signal.SIGKILL)
    assert waited(job).why == "killed, without a status"
    assert local_scheduler.list_processes(job)
    local_scheduler.end_processes(job)
    assert not local_scheduler.list_processes(job) and state(job).is_over
    elsewhere = dataclasses.replace(job, host="elsewhere")
    assert state(elsewhere) == State("unknown", None, "on elsewhere")
    with pytest.raises(InputError, match="cancel it there"):
        local_scheduler.end_processes(elsewhere)


def test_a_job_stopped_by_its_time_limit_goes_on(place):
    job = made(place)
    folder = Path(job.folder)
    job = started(
        place,
        WORKER,
        resumable=True,
        time=3,
        command=["eigs", "--checkpoint", str(folder.parent / "2/checkpoint")],
    )
    assert job.id == 2
    job.file("checkpoint").mkdir()
    assert waited(job) == State("stopped", 75)
    assert job.read_word("out") == "begun"
    assert subprocess.run(["bash", job.file("script")], check=False).returncode == 0
    assert state(job) == State("done", 0)
    assert job.read_word("out").splitlines() == ["begun", "went on from half"]
    assert len(job.read_word("starts").splitlines()) == 2


def test_a_time_limit_ends_a_job_that_cannot_save(place):
    job = started(place, "import time; time.sleep(60)", time=1)
    assert waited(job).word == "failed" and job.exit_status == 128 + signal.SIGTERM


def test_a_job_inherits_settings_of_mpi_but_no_marks(monkeypatch):
    settings = {"OMPI_MCA_btl", "PRTE_MCA_rmaps_default_mapping_policy"}
    marks = {"OMPI_COMM_WORLD_RANK", "OMPI_MCA_ess_base_vpid", "PMIX_RANK", "PRTE_LAUNCHED"}
    with monkeypatch.context() as told:
        for name in settings | marks:
            told.setenv(name, "1")
        kept = set(local_scheduler.job_environment())
    assert settings <= kept and not kept & marks
    alone = "import sys; from mpi4py import MPI; sys.exit(MPI.COMM_WORLD.size)"
    code = (
        "import subprocess, sys\nfrom mpi4py import MPI\nfrom sparsehess.service.batch import local_scheduler\n"
        "assert MPI.COMM_WORLD.size == 2\n"
        f"command = [sys.executable, '-c', {alone!r}]\n"
        "sys.exit(subprocess.run(command, env=local_scheduler.job_environment()).returncode - 1)"
    )
    done = subprocess.run(
        ["mpiexec", "-n", "2", sys.executable, "-c", code],
        capture_output=True, text=True, timeout=60, check=False, env=local_scheduler.job_environment(), cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
