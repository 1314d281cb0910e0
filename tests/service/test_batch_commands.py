"""Batch commands: what they refuse, numbers that are given once, and processes that start them together."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from sparsehess.service import batch_jobs
from support import ROOT
from support.batch import facts, made, run


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
    code, out, err = run(place, command)
    assert (code, out) == (2, "") and says in err and err.count("\n") == 1
    assert not any((place / "jobs").glob("*"))


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
