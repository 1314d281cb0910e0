"""Batch commands: what they refuse, numbers that are given once, and processes that start them together."""

import json
import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import pytest

from sparsehess.service.batch import jobs as batch_jobs
from sparsehess.service.spool.spool import Spool
from support import ROOT
from support.batch import JOB, facts, made, run


def test_a_dry_run_leaves_nothing(place):
    code, out, err = run(place, "submit job.toml --scheduler slurm --ranks 3 --time 00:10:00 --dry-run")
    assert code == 0, err
    assert out.startswith("#!/bin/bash\n#SBATCH --job-name=job\n#SBATCH --ntasks=3\n")
    assert f"eigs {place}/problems.py:chain" in out and "    --set n=24" in out
    assert not (place / "jobs").exists()
    shipped = facts(place, f"submit {ROOT}/drivers/job.toml --scheduler pbs --dry-run")
    assert shipped["ranks"] == 2 and "#PBS -N argon" in shipped["script"]
    assert shipped["command"][-3:] == ["--", "-eps_max_it", "200"]
    assert "\npetsc=(-- -eps_max_it 200)\n" in shipped["script"]


SUBMIT_REFUSED = [
    ("submit good.npz", "submit takes a job file"),
    ("submit nowhere.toml", "nowhere.toml: no such file"),
    ("submit job.toml --scheduler local --memory 4G", "--memory: jobs of this machine have none"),
    ("submit job.toml --scheduler local --launcher nosuchprogram", "there is no such program"),
    (
        "submit job.toml --scheduler flux --memory 4G",
        "jobs of flux have none; it is for slurm, pbs, lsf",
    ),
    ("submit job.toml --scheduler local --directive=-x", "--directive: jobs of this machine have none"),
    (
        "submit job.toml --scheduler slurm --directive #SBATCH",
        "#SBATCH is put before it",
    ),
    ("submit job.toml --scheduler slurm --directive=--array=1-9", "a job is one, and an array is many"),
    ("submit job.toml --scheduler pbs --directive=-x\x1b[2J", "one line, without control characters"),
    ("submit job.toml --launcher mpiexec'", "no closing quotation"),
    ("submit job.toml --time 90", "--time 90: minutes or seconds? write 90m"),
    ("submit job.toml --priority 3", "--wait and --priority are for the jobs of a service"),
    ("submit lost.toml", "lost.toml, line 3: input: lost.npz: no such file"),
    ("submit lost.toml --dry-run", "(--no-check leaves that to the job)"),
    ("submit job.toml --ranks 0", "--ranks 0: at least 1"),
    ("submit job.toml --time soon", "--time soon: write HH:MM:SS"),
    ("submit job.toml --scheduler slurm --memory 4", "--memory 4: write a size with its unit"),
    ("submit job.toml --scheduler slurm --name a;b", "--name 'a;b'"),
    ("submit job.toml -- -eps_ncv 3", "-eps_ncv: submit solves nothing"),
    ("result 7", "no job 7 in"),
    ("status ../../etc", "no job '../../etc' in"),
    ("cancel", "the following arguments are required: JOB"),
]


@pytest.mark.parametrize("command, says", SUBMIT_REFUSED)
def test_refusals(place, command, says):
    (place / "lost.toml").write_text('\ncommand = "eigs"\ninput = "lost.npz"\n')
    code, out, err = run(place, command)
    assert (code, out) == (2, "") and says in err and err.count("\n") == 1
    assert not any((place / "jobs").glob("*"))


def test_what_is_not_there_yet_is_queued_where_one_says_so(place):
    (place / "lost.toml").write_text('command = "eigs"\ninput = "lost.npz"\n')
    found = facts(place, "submit lost.toml --scheduler slurm --no-check --dry-run")
    assert found["command"][1] == f"{place}/lost.npz"
    Spool.open_or_create(str(place / "spool"))
    assert run(place, "submit lost.toml --spool spool --dry-run")[0] == 2
    found = facts(place, "submit lost.toml --spool spool --dry-run --no-check")
    assert f'"input" = "{place}/lost.npz"' in found["job"]


def test_a_job_file_for_many_machines(place):
    """What [submit] says for another door is passed over with a line; what the command line says is not."""
    submit = """
    [submit]
    ranks = 2
    memory = "4G"
    account = "phys"
    partition = "long"
    directive = ["--exclusive"]
    priority = 7
    """
    (place / "job.toml").write_text(JOB + textwrap.dedent(submit))
    known = {
        "slurm": {"priority"},
        "flux": {"priority", "memory"},
        "local": {"priority", "memory", "account", "queue", "directive"},
    }
    for scheduler, passed in known.items():
        code, out, err = run(place, f"submit job.toml --scheduler {scheduler} --dry-run")
        assert code == 0 and err.startswith("sparsehess: job.toml: ") and err.count("\n") == 1, err
        assert set(err.split(": ")[2].removesuffix(" in [submit]").split(", ")) == passed
        assert f"nothing that {scheduler} has, passed over" in err
        assert ("--exclusive" in out) == ("directive" not in passed) and "mpiexec -n 2" in out.replace(
            "flux run", "mpiexec"
        )
        assert run(place, f"submit job.toml --scheduler {scheduler} --dry-run -q")[2] == ""
    code, _, err = run(place, "submit job.toml --scheduler local --memory 8G")
    assert code == 2 and "--memory: jobs of this machine have none" in err
    # A spool in the file is the door, unless the command line names a scheduler.
    (place / "job.toml").write_text(f'{JOB}[submit]\nspool = "nowhere"\nwait = true\n')
    assert "nowhere" in run(place, "submit job.toml")[2]
    code, out, err = run(place, "submit job.toml --scheduler slurm --dry-run")
    assert code == 0 and "#SBATCH" in out and "spool, wait in [submit]" in err


def test_a_submission_starts_neither_mpi_nor_numpy(place):
    code = (
        "import sys\nsys.argv = 'sparsehess submit job.toml --scheduler slurm --dry-run'.split()\n"
        "from sparsehess.cli import main\ntry:\n    main()\nexcept SystemExit:\n    pass\n"
        "print([name for name in ('mpi4py', 'petsc4py', 'numpy', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_names_are_printed_without_escape_codes(place):
    job = made(place, name="red\x1b[31m\nrow")
    code, out, _ = run(place, "status")
    assert code == 0 and "red\\x1b[31m\\nrow" in out and len(out.splitlines()) == 2
    job.file("exit").write_text("2\n")
    job.file("out").write_text("told \x1b[2Jtwice\n")
    job.file("err").write_text("sparsehess: \x07\n")
    code, out, err = run(place, "result 1")
    assert code == 2 and "told \\x1b[2Jtwice" in out and err == "sparsehess: \\x07\n"
    code, _, err = run(place, "status \x1b[31mred")
    assert code == 2 and "\x1b" not in err
    job.file("job.json").write_text("{}")
    odd = place / "red\x1b[31m"
    (place / "jobs").rename(odd)
    code, _, err = run(place, "status", SPARSEHESS_JOBS=str(odd))
    assert code == 0 and "red\\x1b[31m" in err and "\x1b" not in err


def test_a_damaged_record_hides_no_other(place):
    for name in ("first", "second", "third"):
        made(place, name=name)
    (place / "jobs/2/job.json").write_text("{half")
    newer = json.loads((place / "jobs/3/job.json").read_text()) | {"of_a_newer_version": 1}
    (place / "jobs/3/job.json").write_text(json.dumps(newer))
    code, out, err = run(place, "status")
    assert code == 0 and "first" in out and "third" in out and "jobs/2/job.json: damaged" in err
    code, _, err = run(place, "status frist")
    assert code == 2 and "did you mean first?" in err
    assert run(place, "status 2")[0] == 2


def test_an_answer_of_an_earlier_run_is_not_told(place):
    job = made(place, result=str(place / "mine.json"))
    (place / "mine.json").write_text('{"of": "an earlier run"}')
    os.utime(place / "mine.json", (1, 1))
    for status in (1, 2, 4):
        job.file("exit").write_text(f"{status}\n")
        code, out, _ = run(place, "result 1 --json -")
        assert (code, out) == (status, "")
    job.file("exit").write_text("0\n")
    (place / "mine.json").unlink()
    code, _, err = run(place, "result 1 --json -")
    assert code == 2 and "job 1 is done, and" in err and "is no longer there" in err


def test_one_that_cannot_be_cancelled_keeps_no_other_running(place):
    elsewhere, here = made(place, host="elsewhere"), made(place)
    here.file("pid").write_text("999999999 1\n")
    code, out, err = run(place, "cancel 1 2")
    assert code == 2 and "job 2 (made) had ended before: failed" in out and "cancel it there" in err
    assert not elsewhere.is_cancelled


def test_twenty_submissions_at_a_time_get_twenty_numbers(place):
    with ThreadPoolExecutor(20) as pool:
        folders = list(pool.map(lambda _: batch_jobs.new_folder(), range(20)))
    assert sorted(int(folder.name) for folder in folders) == list(range(1, 21))


def test_of_several_processes_the_first_submits(place):
    run(place, "submit job.toml --scheduler local -q", OMPI_COMM_WORLD_RANK="1")
    assert not (place / "jobs").exists()
    code, out, err = run(place, "submit job.toml --scheduler slurm --dry-run", 2)
    assert code == 0 and out.count("#!/bin/bash") == 1, err


def test_batch_commands_start_neither_mpi_nor_numpy(place):
    made(place)
    code = (
        "import sys\nsys.argv = ['sparsehess', 'status']\nfrom sparsehess.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print([name for name in ('mpi4py', 'petsc4py', 'numpy', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
