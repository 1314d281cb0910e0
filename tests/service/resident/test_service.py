"""The resident service: real ones under mpiexec, fed with good jobs and garbage, killed and started again."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import scipy.sparse as sp

from sparsehess.cli import command_line
from sparsehess.commands import job_files
from sparsehess.errors import InputError
from sparsehess.service.batch import local_scheduler
from sparsehess.service.spool import job_outcomes
from sparsehess.service.spool.clients import open_client
from sparsehess.service.spool.layout import STATES
from sparsehess.service.spool.recovery import ATTEMPTS, recover_jobs
from sparsehess.service.spool.spool import Spool
from support import ROOT, answers, faults
from support.cases import laplacian, second_difference

N = 60

PROBLEMS = """
import os, shutil, sys, time
import numpy as np
import sparsehess as sh

def chain(comm, n=30, wait=0.0, how="", seen=None):
    if seen:
        with open(seen, "a") as stream:
            stream.write(how + "\\n")

    def gradient(x):
        time.sleep(wait)
        if how == "raise":
            raise ValueError("no energy here")
        if how == "exit":
            sys.exit(3)
        if how == "nan":
            return np.nan * x
        if how == "close":
            sys.stdout.close()
        if how == "remove":
            shutil.rmtree(os.getcwd(), ignore_errors=True)
        if how == "die":
            os._exit(9)
        if how == "memory":
            return np.ones(10**9)[: len(x)]
        while how == "hang":
            pass
        g = 2 * x
        g[1:] -= x[:-1]
        g[:-1] -= x[1:]
        return g
    known = sh.Pattern.from_edges([[i, i + 1] for i in range(n - 1)], n, comm=comm)
    return sh.Objective(x=np.ones(n), gradient=gradient, pattern=known, comm=comm)

def stuck(comm):
    from petsc4py import PETSc
    x = PETSc.Vec().createMPI(20, comm=comm)
    x.set(1.0)
    def gradient(x, g):
        if comm.rank == 1:
            raise ValueError("I give up")
        comm.barrier()
    known = sh.Pattern.from_edges([[i, i + 1] for i in range(19)], 20, comm=comm)
    return sh.Objective(x=x, gradient=gradient, pattern=known, comm=comm)
"""


@pytest.fixture
def place(tmp_path):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "problems.py").write_text(PROBLEMS)
    (tmp_path / "data").mkdir()
    sp.save_npz(tmp_path / "data" / "good.npz", second_difference(N))
    bad = second_difference(N)
    bad.data[7] = np.nan
    sp.save_npz(tmp_path / "data" / "nan.npz", bad)
    Spool.open_or_create(tmp_path / "spool")
    return tmp_path


def put(place, text, priority=0, files=()):
    """Put a job of this text into the spool; return its id."""
    client = open_client(Spool.open_existing(place / "spool"))
    folder = client.make_draft()
    (folder / "job.toml").write_text(text)
    for name, source in files:
        os.symlink(source, folder / name)
    return client.enqueue([folder], priority)[0]


def matrix_job(place, k=3, more="", matrix="good.npz"):
    return f'command = "eigs"\ninput = "{place}/data/{matrix}"\nk = {k}\n{more}'


def problem_job(place, more="", submit="", **settings):
    pairs = ", ".join(f"{key} = {json.dumps(value)}" for key, value in settings.items())
    table = f"[submit]\n{submit}" if submit else ""
    return (
        f'command = "eigs"\ninput = "{place}/code/problems.py:chain"\nk = 2\nset = {{ {pairs} }}\n{more}\n{table}'
    )


def start(place, ranks=1, *flags, allowed=True):
    words = ["mpiexec", "-n", str(ranks), sys.executable, "-m", "sparsehess", "serve", str(place / "spool")]
    allow = ["--allow-code", str(place / "code"), "--allow-data", str(place / "data")] if allowed else []
    if "--ranks" in flags:
        words = words[3:]
    with open(place / "service.log", "ab") as record:
        return subprocess.Popen(
            [*words, *allow, *flags],
            cwd=place,
            env={**local_scheduler.job_environment(), "PYTHONPATH": str(ROOT)},
            stdout=record,
            stderr=record,
            start_new_session=True,
        )


def until(true, within=60):
    deadline = time.monotonic() + within
    while not (found := true()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
    return found


def outcome(place, identity):
    for state in ("done", "failed"):
        found = job_outcomes.read_outcome(place / "spool" / state / identity)
        if found is not None:
            return found
    return None


def served(place, ranks=1, *flags, status=0, **more):
    """Serve until no job is left."""
    service = start(place, ranks, "--once", *flags, **more)
    assert service.wait(90) == status, (place / "service.log").read_text()


def states(place):
    return {state: sorted(os.listdir(place / "spool" / state)) for state in STATES}


def eigenvalues(place, identity):
    return answers.parse((place / "spool" / "done" / identity / "result.json").read_text())["eigenvalues"]


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.thorough)])
def test_garbage_between_good_jobs_delays_and_ends_nothing(place, ranks):
    os.symlink("/etc/hostname", place / "data" / "away.npz")
    good = [put(place, matrix_job(place, 3))]
    bad = {
        put(place, "\x00garbage = ["): "no job file",
        put(place, 'command = "sing"'): "none of",
        put(place, matrix_job(place, 3, "colour = 2")): "nothing that eigs takes",
        put(place, matrix_job(place, matrix="nan.npz")): "entry (2, 3) is nan",
        put(place, matrix_job(place, matrix="none.npz")): "cannot be read",
        put(place, matrix_job(place, matrix="../../../../etc/hostname")): "outside the job",
        put(place, matrix_job(place, matrix="away.npz")): "outside the job",
        put(place, 'command = "eigs"\ninput = "in.npz"', files=[("in.npz", "/etc/hostname")]): "outside the job",
        put(place, matrix_job(place, 3, 'out = "/tmp/x.npz"')): "writes into its own folder",
        put(place, matrix_job(place, 3, 'out = "../x.npz"')): "writes into its own folder",
        put(place, matrix_job(place, 3, "[petsc]\nst_pc_python_type = 'os.system'")): "no option for a job",
        put(place, matrix_job(place, 3, "[petsc]\neps_view = 'ascii:/tmp/x'")): "no option for a job",
        put(place, 'command = "eigs"\ninput = "os.path:join"'): "not of modules",
        put(place, f'command = "eigs"\ninput = "{ROOT}/drivers/copper_cluster.py:x"'): "no folder whose code",
        put(place, problem_job(place, how="raise")): ": no energy here",
        put(place, problem_job(place, how="exit")): "raised SystemExit on rank ",
        put(place, problem_job(place, how="nan")): "not finite",
        put(place, problem_job(place, how="memory", submit='memory = "200M"')): "Unable to allocate",
        put(place, matrix_job(place, 3, '[submit]\nmemory = "1K"')): "to read its files",
        put(place, matrix_job(place, 3, '[submit]\ntime = "soon"')): "HH:MM:SS",
    }
    (place / "spool" / "queued" / "0000.nonsense").write_text("x")
    put(place, "", files=[])
    (pipe,) = [put(place, "")]
    os.unlink(place / "spool" / "queued" / f"1000.{pipe}" / "job.toml")
    os.mkfifo(place / "spool" / "queued" / f"1000.{pipe}" / "job.toml")
    closes, removes = (put(place, problem_job(place, how=how)) for how in ("close", "remove"))
    good += [put(place, problem_job(place)), put(place, matrix_job(place, 2, 'out = "modes.npz"'))]
    good.append(put(place, problem_job(place, 'checkpoint = "ck"\ncheckpoint-interval = 0')))
    served(place, ranks, "--cache", "0")
    assert outcome(place, closes)["state"] == "failed"
    assert outcome(place, removes)["error"] == "its folder was removed while it ran"
    assert not list((place / "spool" / "done" / good[-1] / "ck").iterdir())  # its answer is out
    for identity, reason in bad.items():
        found = outcome(place, identity)
        assert found["state"] == "failed", (identity, reason)
        assert reason in found["error"] and "\n" not in found["error"], (reason, found)
        assert "running/" not in found["error"]  # the folder has moved by the time that somebody reads it
        assert found["exit"] in (2, 4), found
    assert "no regular file" in outcome(place, pipe)["error"]
    assert states(place)["queued"] == states(place)["running"] == []
    assert states(place)["done"] == sorted(good)
    assert eigenvalues(place, good[0]) == pytest.approx(laplacian(N)[1][:3], rel=1e-9)
    assert eigenvalues(place, good[1]) == pytest.approx(laplacian(30)[1][:2], rel=1e-6)
    with np.load(place / "spool" / "done" / good[2] / "modes.npz", allow_pickle=False) as file:
        assert file["vectors"].shape == (2, N)
    assert "mode" in (place / "spool" / "done" / good[0] / "log").read_text()
    refused = [name for name in states(place)["failed"] if (place / "spool/failed" / name / "refused").exists()]
    assert len(refused) == 1 and "is no job" in outcome(place, refused[0])["error"]


def test_a_job_says_how_long_a_call_of_its_functions_may_take(place):
    stuck = put(place, problem_job(place, "patience = 2", how="hang"))
    quick = put(place, problem_job(place, "patience = 60"))
    of_matrix = put(place, matrix_job(place, 2, "patience = 0.0001"))  # it calls none
    served(place)
    found = outcome(place, stuck)
    assert found["state"] == "failed" and found["exit"] == 2
    assert "has been in the gradient of" in found["error"] and found["error"].endswith(": ending all"), found
    assert states(place)["done"] == sorted([quick, of_matrix])


def test_priorities_cancel_limits_and_leaving(place):
    client = open_client(Spool.open_existing(place / "spool"))
    slow = put(place, problem_job(place, wait=0.1), priority=9)
    low, high = put(place, matrix_job(place), priority=-5), put(place, matrix_job(place), priority=5)
    queued = put(place, matrix_job(place))
    late = put(place, problem_job(place, wait=0.1, submit='time = "00:01"'), priority=-6)
    service = start(place)
    until((place / "spool" / "running" / slow / "status.json").exists)
    assert client.cancel(queued[-12:]).state == "queued"
    assert outcome(place, queued)["state"] == "cancelled"
    assert client.cancel(slow).state == "running"
    other = subprocess.run(
        [sys.executable, "-m", "sparsehess", "serve", str(place / "spool")],
        capture_output=True, text=True, timeout=60, check=False, env=local_scheduler.job_environment(), cwd=ROOT,
    )  # fmt: skip
    assert other.returncode == 2
    assert other.stderr.count("\n") == 1 and "is served already, by process" in other.stderr
    until(lambda: outcome(place, late))
    assert outcome(place, late)["error"] == "over its time limit of 1 s"
    assert outcome(place, late)["seconds"] < 20  # the start of its ranks among them
    assert outcome(place, slow)["ended"] < outcome(place, high)["ended"] < outcome(place, low)["ended"]
    running = put(place, problem_job(place, wait=0.1))
    until((place / "spool" / "running" / running / "status.json").exists)
    assert client.cancel(running).state == "running"
    assert until(lambda: outcome(place, running))["state"] == "cancelled"
    left = put(place, problem_job(place, 'checkpoint = "ck"', wait=0.1))
    until((place / "spool" / "running" / left / "status.json").exists)
    leader = job_outcomes.read_json(place / "spool" / "service.json")["process"]
    os.kill(leader, signal.SIGTERM)
    assert service.wait(30) == 75
    assert client.find_job(left).state == "queued"
    assert (client.find_job(left).folder / "attempts").read_text() == ""
    assert list((client.find_job(left).folder / "ck").glob("evaluations-*.ckpt"))  # it goes on from there
    client.cancel(left)
    served(place)


def test_jobs_whose_checkpoint_is_of_no_use_fail_once(place):
    queued = {what: put(place, problem_job(place, 'checkpoint = "ck"')) for what in ("damaged", "pipe", "lock")}
    for what, identity in queued.items():
        (folder,) = (place / "spool/queued").glob(f"*{identity}")
        (saved := folder / "ck").mkdir()
        if what == "damaged":
            (saved / "coloring.ckpt").write_bytes(os.urandom(500))
        else:
            os.mkfifo(saved / ("lock" if what == "lock" else "coloring.ckpt"))
    good = put(place, problem_job(place, 'checkpoint = "ck"'))
    served(place, 2)
    assert states(place)["done"] == [good] and states(place)["failed"] == sorted(queued.values())
    assert not list((place / "spool/done" / good / "ck").iterdir())
    for what, identity in queued.items():
        found = outcome(place, identity)
        assert found["exit"] == 2 and found["attempts"] == 1
        assert "damaged" in found["error"] if what == "damaged" else "is a pipe" in found["error"]
        assert (place / "spool/failed" / identity / "log").read_text().count("sparsehess: ") == 1


def test_killed_services_lose_nothing_and_do_nothing_twice(place):
    seen = str(place / "seen")
    jobs = [put(place, problem_job(place, wait=0.004, how=str(number), seen=seen)) for number in range(14)]
    for done in (3, 8):
        service = start(place, 2, "--groups", "2")
        until(lambda done=done: len(states(place)["done"]) >= done)
        os.killpg(service.pid, signal.SIGKILL)
        for process in faults.processes(str(place / "spool")):  # ranks have sessions of their own
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        service.wait(10)
        before = {
            name: (place / "spool/done" / name / "outcome.json").stat().st_ino for name in states(place)["done"]
        }
    served(place, 2, "--groups", "2")
    assert states(place) == {"queued": [], "running": [], "done": sorted(jobs), "failed": []}
    for name, node in before.items():
        assert (place / "spool/done" / name / "outcome.json").stat().st_ino == node
    groups = set()
    for number, identity in enumerate(jobs):
        assert eigenvalues(place, identity) == pytest.approx(laplacian(30)[1][:2], rel=1e-6)
        found = outcome(place, identity)
        runs = (place / "seen").read_text().splitlines().count(str(number))
        assert found["attempts"] >= runs >= 1 and found["ranks"] == 1
        groups.add(found["group"])
    again = [identity for identity in jobs if outcome(place, identity)["attempts"] > 1]
    assert len(again) <= 4  # at most those of two groups, twice
    assert groups == {0, 1}


def test_a_job_that_ignores_interrupts_is_killed_alone(place):
    hangs = put(place, problem_job(place, how="hang", submit='time = "00:05"'), priority=3)
    good = put(place, matrix_job(place))
    service = start(place, 1, "--ranks", "1", "--once", "--grace", "0.2")
    assert service.wait(90) == 0, (place / "service.log").read_text()
    assert "killed: over its time limit" in outcome(place, hangs)["error"]
    assert "gradient" in (place / "spool" / "failed" / hangs / "watchdog").read_text()
    assert outcome(place, hangs)["attempts"] == 1
    assert eigenvalues(place, good) == pytest.approx(laplacian(N)[1][:3], rel=1e-9)


@pytest.mark.parametrize(
    "ranks", [pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)]
)
def test_a_job_that_ends_each_service_is_given_up(place, ranks):
    dies, good = put(place, problem_job(place, how="die"), priority=2), put(place, matrix_job(place))
    service = start(place, 1, "--ranks", str(ranks), "--once")
    assert service.wait(90) == 0, (place / "service.log").read_text()
    assert outcome(place, dies)["error"] == f"given up: the service has ended {ATTEMPTS} times while it ran"
    assert eigenvalues(place, good) == pytest.approx(laplacian(N)[1][:3], rel=1e-9)


def test_a_supervisor_passes_on_that_its_service_shall_leave(place):
    left, behind = put(place, problem_job(place, wait=0.1), 5), put(place, matrix_job(place))
    service = start(place, 1, "--ranks", "1")
    until((place / "spool" / "running" / left / "status.json").exists)
    service.send_signal(signal.SIGTERM)
    assert service.wait(30) == 75
    assert states(place)["queued"] == [f"0995.{left}", f"1000.{behind}"]


@pytest.mark.slow
def test_a_rank_that_leaves_others_waiting_ends_its_job(place):
    job = put(place, f'command = "eigs"\ninput = "{place}/code/problems.py:stuck"\nk = 2\n', 9)
    good = put(place, matrix_job(place))
    service = start(place, 1, "--ranks", "2", "--once")
    assert service.wait(90) == 0
    assert "ValueError on rank 1: I give up" in outcome(place, job)["error"]
    assert outcome(place, job)["attempts"] == 1
    assert outcome(place, good)["state"] == "done"


def test_code_runs_nowhere_unless_allowed(place):
    job = put(place, problem_job(place, seen=str(place / "seen")))
    served(place, allowed=False)
    assert "--allow-code" in outcome(place, job)["error"] and not (place / "seen").exists()


def test_submit_status_result_and_cancel_speak_to_a_spool(place, capsys):
    (place / "job.toml").write_text(
        'command = "eigs"\ninput = "data/good.npz"\nk = 3\nout = "far/modes.npz"\njson = "answer.json"\n'
        '[submit]\npriority = 4\nname = "path"\n'
    )
    spool = str(place / "spool")

    def run(*words, status=0):
        line = command_line()
        ours, _ = job_files.expand_job_file(list(words), line)
        arguments = line.parse([*ours, "--spool", spool, "--json", "-"])
        assert line.run(arguments, {}, None) == status
        return answers.parse(capsys.readouterr().out)

    job = str(place / "job.toml")
    first, second = run("submit", job)["id"], run("submit", job, "--priority", "-7")["id"]
    assert "inputs/0-good.npz" in run("submit", job, "--dry-run")["job"]
    assert states(place)["queued"] == [f"0996.{first}", f"1007.{second}"]
    found = {one["id"]: one for one in run("status")["jobs"]}
    assert not run("status")["service"]
    assert found[first]["priority"] == 4 and found[first]["name"] == "path" and len(found) == 2
    with pytest.raises(InputError, match="no result yet"):
        run("result", first)
    run("cancel", second)
    served(place, allowed=False)
    assert run("result", first)["eigenvalues"] == pytest.approx(laplacian(N)[1][:3], rel=1e-9)
    assert (place / "spool" / "done" / first / "modes.npz").exists()
    with pytest.raises(InputError, match="was cancelled"):
        run("result", second)
    with pytest.raises(InputError, match="no job"):
        run("result", "20000101")
    with pytest.raises(InputError, match="--ranks"):
        run("submit", job, "--ranks", "4")


def test_jobs_with_an_outcome_are_settled_and_others_queued_again(place):
    spool = Spool.open_existing(place / "spool")
    ended, poison = put(place, matrix_job(place), 2), put(place, matrix_job(place), 1)
    folder = spool.claim()
    assert folder.name == ended
    job_outcomes.write_outcome(folder, {"id": ended, "state": "done", "exit": 0, "error": None})
    for _ in range(ATTEMPTS):
        assert spool.claim().name == poison
        assert spool.claim() is None
        recover_jobs(spool)
    assert states(place) == {"queued": [], "running": [], "done": [ended], "failed": [poison]}
    assert f"{ATTEMPTS} times" in outcome(place, poison)["error"]


def test_torn_answers_are_not_taken_for_answers(place):
    spool = Spool.open_existing(place / "spool")
    job = put(place, matrix_job(place), 7)
    folder = spool.claim()
    (folder / "result.json").write_text("{}")
    job_outcomes.write_outcome(folder, {"id": job, "state": "done", "exit": 0, "error": None})
    (folder / "result.json").write_text("")  # as after a power failure
    recover_jobs(spool)
    assert states(place)["queued"] == [f"0993.{job}"]
