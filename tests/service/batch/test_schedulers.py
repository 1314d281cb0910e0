"""Slurm and PBS, by what they print."""

import os
import re
import stat
import subprocess

import pytest

from sparsehess.service.batch import jobs as batch_jobs
from sparsehess.service.batch import scheduler_commands, schedulers
from sparsehess.service.batch.schedulers import State
from support.batch import facts, made, run, state


def test_the_flag_to_resume_stands_before_options_of_petsc(place, programs):
    fake(programs, "mpiexec", "exit 75")
    saved = place / "saved"
    saved.mkdir()
    command = ["eigs", "good.npz", "--checkpoint", str(saved), "--", "-eps_max_it", "7"]
    job = made(place, resumable=True, command=command, checkpoint=str(saved))
    (saved / "of-another-run").write_text("")  # the first start of a job begins anew
    calls = []
    for name in (None, ".half-written", "whole"):
        if name:
            (saved / name).write_text("")
        assert subprocess.run(["bash", job.file("script")], check=False).returncode == 75
        calls.append((programs / "calls").read_text().splitlines()[-1])
        (saved / "of-another-run").unlink(missing_ok=True)
    start = f"mpiexec -n 1 sparsehess eigs good.npz --checkpoint {saved}"
    assert calls == [f"{start} -- -eps_max_it 7"] * 2 + [f"{start} --resume -- -eps_max_it 7"]


def fake(folder, name, body):
    path = folder / name
    path.write_text(f'#!/bin/bash\necho "{name} $*" >> {folder}/calls\n{body}\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def programs(place, monkeypatch):
    folder = place / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


SQUEUE = """4242|RUNNING|None
4243|PENDING|Priority
4244_7|RUNNING|None
"""

SACCT = """4245|CANCELLED by 1000|0:15
4246|TIMEOUT|0:0
4247|OUT_OF_MEMORY|0:125
4248|COMPLETED|0:0
4249|NODE_FAIL|1:0
"""


def test_slurm_by_what_it_prints(place, programs):
    fake(programs, "sbatch", 'grep -q "^#SBATCH --ntasks=2" "$2" && echo "4242;cluster"')
    fake(programs, "squeue", f"cat << 'END'\n{SQUEUE}END")
    fake(programs, "sacct", f"cat << 'END'\n{SACCT}END")
    fake(programs, "scancel", "")
    found = facts(place, "submit job.toml --ranks 2 --scheduler auto")
    assert (found["scheduler"], found["number"]) == ("slurm", "4242;cluster")
    every = [batch_jobs.find_job("1")]
    for number in range(4243, 4251):
        every.append(made(place, "slurm"))
        every[-1].file("number").write_text(f"{number}\n")
    states = [one for _, one in sorted(schedulers.ask_states(every).items())]
    assert states == [
        State("running"),
        State("pending", None, "Priority"),
        State("unknown", None, "slurm does not know it"),  # 4244 is an array
        State("cancelled", None, "cancelled by 1000"),
        State("failed", None, "timeout"),
        State("failed", None, "out of memory"),
        State("done", 0),
        State("failed", 1, "node fail"),
        State("unknown", None, "slurm does not know it"),
    ]
    assert facts(place, "cancel 1")["jobs"][0]["cancelled"]
    calls = (programs / "calls").read_text()
    assert calls.endswith("scancel -M cluster 4242\n") and "squeue -M cluster -h -t all -j 4242 -o" in calls
    assert calls.count("squeue") == 3 and "sacct -n -P -X -S 2026-01-01 -j 4244,4245" in calls
    # What the script has written counts, whatever the scheduler says or no longer knows.
    every[1].file("exit").write_text("3\n")
    assert state(every[1]) == State("failed", 3)


def test_slurm_that_refuses_or_is_not_there(place, programs):
    fake(programs, "sbatch", 'echo "sbatch: error: invalid partition specified: long" >&2; exit 1')
    code, out, err = run(place, "submit job.toml --scheduler slurm --queue long")
    assert (code, out) == (2, "") and "sbatch has refused: sbatch: error: invalid partition" in err
    assert not list((place / "jobs").iterdir())
    fake(programs, "sbatch", "echo hello")
    told = run(place, "submit job.toml --scheduler slurm")[2]
    assert "printed no number but 'hello': job 1 may be queued all the same, and is kept" in told
    assert facts(place, "status")["jobs"][0]["state"] == "unknown"
    batch_jobs.remove_job(place / "jobs/1")
    (programs / "sbatch").unlink()
    code, _, err = run(place, "submit job.toml --scheduler slurm", PATH=str(programs))
    assert code == 2 and "there is no sbatch here" in err


def test_a_submission_that_nobody_has_heard_of_is_found_by_its_script(place, programs, monkeypatch):
    """Slurm has taken the job, and sbatch was killed, or has hung, before it could say so."""
    fake(programs, "sbatch", "sleep 60")
    fake(programs, "squeue", 'case "$*" in *4250*) echo "4250|RUNNING|None";; *) exit 1;; esac')
    fake(programs, "mpiexec", "exit 0")
    monkeypatch.setattr(scheduler_commands, "_PATIENCE", 0.5)
    job = made(place, "slurm")
    with pytest.raises(scheduler_commands.Unanswered, match="has not answered within"):
        schedulers.SCHEDULERS["slurm"].submit(job)
    assert state(job) == State("unknown", None, "slurm does not know it")
    subprocess.run(["bash", job.file("script")], env={**os.environ, "SLURM_JOB_ID": "4250"}, check=True)
    assert job.read_word("number") == "4250" and state(job) == State("done", 0)
    job.file("exit").unlink()
    assert state(job) == State("running")


def test_a_job_that_slurm_itself_queues_again_has_not_failed(place, programs):
    fake(programs, "squeue", 'echo "1|PREEMPTED|None"; echo "2|NODE_FAIL|None"; echo "3|PREEMPTED|None"')
    some = [made(place, "slurm", resumable=resumable) for resumable in (True, True, False)]
    for number, job in enumerate(some, 1):
        job.file("number").write_text(f"{number}\n")
    states = schedulers.ask_states(some)
    assert [states[job.id] for job in some] == [
        State("pending", None, "preempted"),
        State("pending", None, "node fail"),
        State("failed", None, "preempted"),
    ]


def test_a_controller_that_does_not_answer_has_lost_no_job(place, programs):
    error = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"
    fake(programs, "squeue", f'echo "{error}" >&2; exit 1')
    slurm, local = made(place, "slurm"), made(place)
    slurm.file("number").write_text("7\n")
    local.file("exit").write_text("0\n")
    states = schedulers.ask_states([slurm, local])
    assert states[local.id] == State("done", 0) and not states[slurm.id].is_over
    assert states[slurm.id] == State("unknown", None, f"squeue does not answer: {error}")
    fake(programs, "squeue", 'echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1')
    assert state(slurm) == State("unknown", None, "slurm does not know it")


def test_commands_inherit_neither_filters_nor_the_allocation_around(place, programs, monkeypatch):
    fake(programs, "sbatch", f"env > {place}/inherited; echo 4242")
    outer = {"SLURM_JOB_ID": "1", "SLURM_MEM_PER_NODE": "4000", "SLURM_CONF": "/etc/slurm.conf"}
    own = {"SQUEUE_PARTITION": "debug", "SACCT_FORMAT": "jobid", "SBATCH_QOS": "high"}
    for name, value in (outer | own).items():
        monkeypatch.setenv(name, value)
    schedulers.SCHEDULERS["slurm"].submit(made(place, "slurm"))
    inherited = (place / "inherited").read_text()
    assert "SLURM_CONF=/etc/slurm.conf" in inherited and "SBATCH_QOS=high" in inherited
    assert not re.search("^(SLURM_JOB_ID|SLURM_MEM|SQUEUE|SACCT)", inherited, re.MULTILINE)


def test_blanks_and_quotes_in_every_path_and_word(place, programs):
    """What other programs' scripts break on: folders, programs, settings and launchers with blanks and quotes."""
    odd = place / 'it\'s a "folder" of $HOME; (1)'
    odd.mkdir()
    job = made(
        place,
        workdir=str(odd),
        program=[str(odd / "sparse hess")],
        launcher=[str(odd / "mpi exec"), "--map by"],
        command=["eigs", f"{odd}/K.npz", "--set", "name='a b'", "--out", f"{odd}/$(touch x)`touch y`.h5"],
    )
    for name in ("mpi exec", "sparse hess"):
        (odd / name).write_text('#!/bin/bash\nprintf "%s\\n" "$@" > "$PWD/words"\n')
        (odd / name).chmod(0o755)
    assert subprocess.run(["bash", job.file("script")], check=False).returncode == 0, job.read_word("err")
    expected = ["--map by", "-n", "1", *job.program, *job.command]
    assert (odd / "words").read_text().splitlines() == expected
    assert sorted(path.name for path in odd.iterdir()) == ["mpi exec", "sparse hess", "words"]


def test_a_slurm_script_that_was_stopped_is_queued_again(place, programs):
    fake(programs, "scontrol", "")
    fake(programs, "mpiexec", "exit 75")
    job = made(place, "slurm", resumable=True)
    environment = {**os.environ, "SLURM_JOB_ID": "4242"}
    done = subprocess.run(["bash", job.file("script")], env=environment, check=False)
    assert done.returncode == 75 and job.exit_status is None
    assert (programs / "calls").read_text().splitlines()[-1] == "scontrol requeue 4242"
    batch_jobs.write_small_file(job.file("cancelled"), "")
    subprocess.run(["bash", job.file("script")], env=environment, check=False)
    assert job.exit_status == 75 and (programs / "calls").read_text().count("requeue") == 1


def test_the_requeue_of_a_slurm_job_ends_its_own_script_and_that_is_no_end(place, programs):
    """Slurm ends all processes of a job that is queued again, scontrol among them, which has not answered yet."""
    fake(programs, "scontrol", "kill -TERM 0; sleep 0.3")
    fake(programs, "mpiexec", "exit 75")
    job = made(place, "slurm", resumable=True)
    environment = {**os.environ, "SLURM_JOB_ID": "4242"}
    done = subprocess.run(["bash", job.file("script")], env=environment, check=False, start_new_session=True)
    assert done.returncode == 75 and job.exit_status is None and not job.read_word("err")


QSTAT = """Job id            Name             User              Time Use S Queue
----------------  ---------------- ----------------  -------- - -----
1284.head         made             person            00:10:01 R workq
1285.head         made             person                   0 Q workq
1286.head         made             person                   0 H workq
1287.head         made             person            00:00:10 F workq
"""


def test_pbs_by_what_it_prints(place, programs):
    fake(programs, "qsub", "echo 1284.head")
    fake(programs, "qstat", f"cat << 'END'\n{QSTAT}END\necho 'qstat: Unknown Job Id 1288.head' >&2; exit 153")
    fake(programs, "qdel", "")
    found = facts(place, "submit job.toml --scheduler pbs")
    assert found["number"] == "1284.head"
    every = [batch_jobs.find_job("1")]
    for number in range(1285, 1289):
        every.append(made(place, "pbs"))
        every[-1].file("number").write_text(f"{number}.head\n")
    assert [one for _, one in sorted(schedulers.ask_states(every).items())] == [
        State("running"),
        State("pending"),
        State("pending", None, "held"),
        State("failed", None, "ended without a status"),
        State("unknown", None, "pbs does not know it"),
    ]
    assert facts(place, "cancel 1")["jobs"][0]["cancelled"]
    assert (programs / "calls").read_text().endswith("qdel 1284.head\n")


def test_a_pbs_script_that_was_stopped_queues_itself_again(place, programs):
    fake(programs, "qsub", "echo 1290.head")
    fake(programs, "mpiexec", "exit 75")
    job = made(place, "pbs", resumable=True)
    job.file("number").write_text("1289.head\n")
    assert subprocess.run(["bash", job.file("script")], check=False).returncode == 75
    assert job.read_word("number") == "1290.head" and job.exit_status is None
