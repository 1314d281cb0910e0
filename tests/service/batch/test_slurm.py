"""Batch jobs under a Slurm of our own: munge, slurmctld and slurmd on this machine, in a temporary folder."""

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sparsehess.service.batch import jobs as batch_jobs
from sparsehess.service.batch import schedulers
from support.batch import JOB, PROBLEMS, WORKER, ended, facts, made, run

pytestmark = pytest.mark.slow

# A gradient of 1.5 s that leaves a line in a file each time: on two ranks a minute and more.
COSTLY = """
import os, time
import numpy as np
import sparsehess as sh

def band(comm, n=60, reach=10, wait=1.5):
    def gradient(x):
        time.sleep(wait)
        with open("calls", "a") as file:
            file.write(f"{comm.rank}\\n")
        g = 40 * x + x**3
        for step in range(1, reach + 1):
            g[step:] -= x[:-step] / step
            g[:-step] -= x[step:] / step
        return g
    edges = [[i, i + step] for step in range(1, reach + 1) for i in range(n - step)]
    pattern = sh.Pattern.from_edges(edges, n, comm=comm)
    return sh.Objective(x=np.linspace(0, 1, n), gradient=gradient, pattern=pattern, comm=comm)
"""

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "sinfo")

CONFIGURATION = """
ClusterName=ours
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
SlurmctldPort={control}
SlurmdPort={daemon}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _until(true, within, what):
    deadline = time.monotonic() + within
    while not true():
        if time.monotonic() > deadline:
            return f"{what} within {within} s"
        time.sleep(0.2)
    return None


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """A cluster of one node; ends with the tests."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        pytest.skip(f"no {', '.join(missing)}: apt-get install slurm-wlm munge")
    if os.geteuid() != 0:
        pytest.skip("a Slurm of our own runs its jobs as root")
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o600)
    configuration = folder / "slurm.conf"
    host = socket.gethostname().split(".")[0]
    configuration.write_text(
        CONFIGURATION.format(folder=folder, host=host, control=_free_port(), daemon=_free_port())
    )
    environment = {**os.environ, "SLURM_CONF": str(configuration)}
    munge = [f"--{name}-file={folder / name}" for name in ("pid", "log", "seed")]
    munge += [f"--key-file={folder / 'munge.key'}", f"--socket={folder / 'munge.socket'}", "--force"]
    commands = (
        ["munged", "--foreground", *munge],
        ["slurmctld", "-D", "-f", str(configuration)],
        ["slurmd", "-D", "-f", str(configuration), "-N", host],
    )
    daemons = []
    try:
        for command in commands:
            log = open(folder / f"{command[0]}.out", "w")  # noqa: SIM115 - the daemon's, as long as it lives
            daemons.append(
                subprocess.Popen(command, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
            )
            log.close()
            if command[0] == "munged":
                _until((folder / "munge.socket").exists, 10, "no socket")

        def idle():
            asked = subprocess.run(
                ["sinfo", "-h", "-o", "%T"], env=environment, capture_output=True, text=True, check=False
            )
            return asked.stdout.strip() == "idle"

        trouble = _until(idle, 30, "no idle node")
        if trouble:
            said = " ".join((folder / "slurmctld.out").read_text().split())[-300:]
            pytest.skip(f"Slurm does not start here: {trouble}; {said}")
        yield str(configuration)
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in reversed(daemons):
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


@pytest.fixture
def place(tmp_path, monkeypatch, slurm):
    (tmp_path / "problems.py").write_text(PROBLEMS)
    (tmp_path / "job.toml").write_text(JOB)
    monkeypatch.setenv(batch_jobs.HOME, str(tmp_path / "jobs"))
    monkeypatch.setenv("SLURM_CONF", slurm)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(params=["mpiexec", "srun"])
def launcher(request):
    """What starts the ranks of a job: Open MPI's own, or a step of Slurm that speaks PMIx."""
    if request.param == "srun":
        spoken = subprocess.run(["srun", "--mpi=list"], capture_output=True, text=True, check=False)
        if "pmix" not in spoken.stdout + spoken.stderr:
            pytest.skip("this srun does not speak PMIx: apt-get install libpmix2")
        return "srun --mpi=pmix"
    return "mpiexec"


def test_a_job_from_submission_to_result(place, launcher):
    (place / "job.toml").write_text(f'{JOB}[submit]\nlauncher = "{launcher}"\n')
    found = facts(place, "submit job.toml --scheduler slurm --ranks 2 --time 00:10:00")
    assert found["scheduler"] == "slurm" and found["number"].isdigit()
    assert (ended(place, 1)["state"], batch_jobs.find_job("1").exit_status) == ("done", 0), _told(
        batch_jobs.find_job("1")
    )
    answer = facts(place, "result 1")
    direct = facts(place, "eigs problems.py:chain -k 3 --set n=24")
    assert answer["mpi"]["size"] == 2
    assert answer["eigenvalues"] == pytest.approx(direct["eigenvalues"], abs=1e-8)


def _told(job):
    return [job.read_word(name) for name in ("out", "err", "scheduler")]


def test_what_no_partition_takes_is_refused_and_forgotten(place):
    code, _, err = run(place, "submit job.toml --scheduler slurm --queue nowhere")
    assert code == 2 and "sbatch has refused" in err and "partition" in err
    assert not list((place / "jobs").iterdir())


def test_cancel(place):
    (place / "job.toml").write_text('command = "eigs"\ninput = "problems.py:chain"\nset = { wait = 30 }\n')
    facts(place, "submit job.toml --scheduler slurm")
    job = batch_jobs.find_job("1")
    assert not _until(lambda: schedulers.ask_states([job])[1].word == "running", 60, "not running")
    # Beyond the four processors there are: it waits.
    facts(place, "submit job.toml --scheduler slurm --ranks 4")
    assert facts(place, "status 2")["jobs"][0]["state"] == "pending"
    assert all(one["cancelled"] for one in facts(place, "cancel 1 2")["jobs"])

    def gone():
        left = subprocess.run(["squeue", "-h"], capture_output=True, text=True, check=True)
        return left.stdout.strip() == ""

    assert not _until(gone, 60, "still queued")
    job.file("cancelled").unlink()  # then Slurm is asked, and says the same
    assert schedulers.ask_states([job])[1].word == "cancelled"


def working(place, launcher, seconds):
    """Return a submitted job whose worker saves half of its work when it is told to stop, and its checkpoint."""
    (place / "worker.py").write_text(WORKER)
    checkpoint = place / "jobs/1/checkpoint"
    job = made(
        place,
        "slurm",
        resumable=True,
        time=seconds,
        launcher=launcher.split(),
        program=[sys.executable, "worker.py"],
        command=["eigs", "--checkpoint", str(checkpoint)],
    )
    checkpoint.mkdir()
    schedulers.SCHEDULERS["slurm"].submit(job)
    return job, checkpoint


def test_a_job_stopped_by_its_time_limit_is_queued_again(place, launcher):
    job, _ = working(place, launcher, 60)
    seen = set()

    def over():
        state = schedulers.ask_states([job])[1]
        seen.add(state.word)
        return state.is_over

    assert not _until(over, 180, "not over"), _told(job)
    assert schedulers.ask_states([job])[1].word == "done", _told(job)
    assert (job.read_word("out") or "").splitlines() == ["begun", "went on from half"]
    assert len(Path(job.folder, "starts").read_text().splitlines()) == 2 and "running" in seen


def test_a_run_stopped_by_its_limit_goes_on(place, launcher):
    (place / "problems.py").write_text(COSTLY)
    (place / "job.toml").write_text(
        f'command = "eigs"\ninput = "problems.py:band"\nk = 3\n[submit]\nlauncher = "{launcher}"\n'
    )
    undisturbed = facts(place, "eigs problems.py:band -k 3 --set wait=0", 2)
    needed = len((place / "calls").read_text().splitlines())
    (place / "calls").unlink()
    facts(place, "submit job.toml --scheduler slurm --ranks 2 --time 00:01:00")
    job = batch_jobs.find_job("1")
    assert ended(place, 1, 400)["state"] == "done", _told(job)
    starts = len(Path(job.folder, "starts").read_text().splitlines())
    assert starts > 1, "never stopped"
    answer = facts(place, "result 1")
    assert answer["eigenvalues"] == pytest.approx(undisturbed["eigenvalues"], rel=1e-8)
    # What was being evaluated when it was stopped is evaluated again: one gradient on each rank.
    called = len((place / "calls").read_text().splitlines())
    assert needed <= called <= needed + 2 * (starts - 1)


def test_requeue_from_outside(place, launcher):
    """What an operator or a dead node does: killed without a word, begun again by Slurm."""
    job, checkpoint = working(place, launcher, 600)
    assert not _until(lambda: (job.read_word("out") or "").startswith("begun"), 60, "not begun"), _told(job)
    (checkpoint / "saved").write_text("an hour ago")
    subprocess.run(["scontrol", "requeue", job.read_word("number")], check=True)
    subprocess.run(["scontrol", "update", f"JobId={job.read_word('number')}", "StartTime=now"], check=False)
    assert not _until(lambda: schedulers.ask_states([job])[1].is_over, 240, "not over"), _told(job)
    assert job.exit_status == 0 and (job.read_word("out") or "").splitlines()[-1] == "went on from an hour ago"
