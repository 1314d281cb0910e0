"""Batch scripts: what a person reads, and what is submitted to go on."""

import os
import signal
import subprocess
import sys
import time

import pytest

from sparsehess.cli import command_line
from sparsehess.service.batch import scripts as batch_scripts
from sparsehess.service.batch.choices import SCHEDULER_NAMES
from support.batch import JOB, made


def test_the_script_that_a_person_reads(place):
    made_of = dict(time=5400, memory="4G", account="phys", queue="long", ranks=64, resumable=True)
    slurm = batch_scripts.compose_script(made(place, "slurm", **made_of, setup=["module load openmpi"]))
    for line in (
        "#SBATCH --ntasks=64",
        "#SBATCH --time=01:30:00",
        "#SBATCH --mem-per-cpu=4G",
        "#SBATCH --partition=long",
        "#SBATCH --signal=B:USR1@120",
        "#SBATCH --requeue",
        "module load openmpi",
        "    mpiexec -n 64",
        "    sparsehess eigs good.npz",
        "    --interval -1.5 2.0",
        "    -k 3",
        '    (trap "" TERM; exec scontrol requeue "$SLURM_JOB_ID") && exit "$status"',
    ):
        assert line in slurm.splitlines()
    assert "export OMP_NUM_THREADS=1" in slurm
    flux = batch_scripts.compose_script(made(place, "flux", **made_of | {"memory": None})).splitlines()
    told = ("--nslots=64", "--time-limit=5400s", "--bank=phys", "--queue=long", "--signal=USR1@120s")
    assert {f"# flux: {line}" for line in told} <= set(flux)
    assert '    flux --parent batch "$job/script" > "$job/number.new" && ' in "\n".join(flux)
    lsf = batch_scripts.compose_script(made(place, "lsf", **made_of, directives=["-x"])).splitlines()
    told = ("-n 64", "-W 1:30", '-R "rusage[mem=4GB/task]"', "-P phys", "-wa USR1", "-wt 2", "-Q 75", "-r", "-x")
    assert {f"#BSUB {line}" for line in told} <= set(lsf)
    short = batch_scripts.compose_script(made(place, "lsf", **made_of | {"time": 59})).splitlines()
    assert "#BSUB -W 0:01" in short and not any("-wa" in line for line in short)  # no minute is left to warn in
    pbs = batch_scripts.compose_script(made(place, "pbs", **made_of)).splitlines()
    assert {"#PBS -l select=64:ncpus=1:mpiprocs=1:mem=4gb", "#PBS -l walltime=01:30:00", "#PBS -q long"} <= set(
        pbs
    )
    assert any("--signal=USR1 --kill-after=120 5280" in line for line in pbs)
    for name in SCHEDULER_NAMES:
        job = made(place, name, **made_of)
        assert subprocess.run(["bash", "-n", job.file("script")], check=False).returncode == 0


def test_a_command_that_saves_is_submitted_to_go_on(place, capsys):
    line = command_line()
    asked = "submit job.toml --scheduler slurm --time 02:00:00 --dry-run"
    for more, folder in (("", place / "jobs/1/checkpoint"), ('checkpoint = "mine"', place / "mine")):
        (place / "job.toml").write_text(JOB + more)
        line.run(line.parse(asked.split()), {}, None)
        script = capsys.readouterr().out
        assert "#SBATCH --signal=B:USR1@120\n#SBATCH --requeue\n" in script
        assert f"    --checkpoint {folder}\n" in script and f'"$(ls {folder} 2>' in script
        assert script.count("--checkpoint") == script.count("--json") == 1


@pytest.mark.parametrize("scheduler, queues", [("slurm", "scontrol"), ("pbs", "qsub")])
@pytest.mark.parametrize("what", ["damaged", "pipe"])
def test_a_job_whose_checkpoint_is_of_no_use_ends_and_is_not_queued_again(place, scheduler, queues, what):
    saved = place / "kept"
    command = ["eigs", "problems.py:chain", "--checkpoint", str(saved), "-q"]
    program = [sys.executable, "-m", "sparsehess"]
    job = made(place, scheduler, resumable=True, ranks=2, command=command, checkpoint=str(saved), program=program)
    saved.mkdir()
    if what == "damaged":
        (saved / "coloring.ckpt").write_bytes(os.urandom(500))
    else:
        os.mkfifo(saved / "search.ckpt")
    job.file("starts").write_text("once\n")
    (place / "bin").mkdir()
    (place / "bin" / queues).write_text(f"#!/bin/sh\necho asked >> {place}/asked\n")
    (place / "bin" / queues).chmod(0o755)
    found = {**os.environ, "PATH": f"{place}/bin:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}
    done = subprocess.run(
        ["bash", job.file("script")], env=found, capture_output=True, text=True, timeout=120, check=False
    )
    told = job.file("err").read_text()
    assert done.returncode == 2 == job.exit_status and not (place / "asked").exists(), told
    assert ("coloring.ckpt is damaged" if what == "damaged" else "search.ckpt is a pipe") in told
    assert told.count("sparsehess: ") == 1


def test_a_signal_to_all_of_its_processes_leaves_the_status_of_the_ranks(place):
    launcher, begun = place / "launch", place / "begun"
    # It ends in the moment in which the script is told, too, which LSF does to each job at its limit.
    launcher.write_text(f"#!/bin/sh\ntrap 'exit 75' USR1\necho yes > {begun}\nsleep 60 & wait\n")
    launcher.chmod(0o755)
    job = made(place, "lsf", resumable=True, time=3600, launcher=[str(launcher)], command=["check"])
    script = job.file("script")
    script.write_text(script.read_text().replace("sleep 1)", "sleep 0.01)"))
    for _ in range(20):
        begun.unlink(missing_ok=True)
        job.file("starts").unlink(missing_ok=True)
        running = subprocess.Popen(["bash", script], start_new_session=True)
        while not begun.exists():
            time.sleep(0.01)
        os.killpg(running.pid, signal.SIGUSR1)
        assert running.wait(60) == 75
    assert job.exit_status is None
