"""Job files and batch jobs: words and refusals, local jobs for real, Slurm and PBS by recorded answers, plans."""

import dataclasses
import json
import os
import signal
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mpi4py import MPI

import pytest
import scipy.sparse as sp

from sparsehess import commands
from sparsehess.commands import arguments, job_files
from sparsehess.commands.arguments import parser
from sparsehess.errors import InputError
from sparsehess.service import batch_commands, batch_jobs, batch_scripts, local_scheduler, schedulers
from sparsehess.service.schedulers import State
from support import ROOT
from support.batch import JOB, PROBLEMS, WORKER, ended, facts, here, made, run, state
from support.cases import laplacian


@pytest.fixture
def place(tmp_path, monkeypatch):
    (tmp_path / "problems.py").write_text(PROBLEMS)
    (tmp_path / "job.toml").write_text(JOB)
    sp.save_npz(tmp_path / "good.npz", laplacian(7, 8)[0])
    monkeypatch.setenv(batch_jobs.HOME, str(tmp_path / "jobs"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- job files ---------------------------------------------------------------------------


def words(place, text, line="eigs job.toml"):
    (place / "job.toml").write_text(text)
    ours, petsc = job_files.expanded(line.split(), parser())
    return " ".join(ours), " ".join(petsc)


def test_a_job_file_is_a_command_line(place):
    text = """
    command = "eigs"
    input = "problems.py:chain"
    mass = "/data/mass.npz"
    interval = [-1.5, 2]
    target = -3.0
    pattern = "detect"
    coloring = "colors.npz"
    shell = true
    no-verify = false
    json = "-"
    set = { n = 24, name = "argon", three = "3", ends = [1, 2.5], far = inf, on = true }
    [petsc]
    eps_ncv = 40
    log_view = true
    st_type = "sinvert"
    """
    ours, petsc = words(place, text, "eigs job.toml -k 4")
    assert ours == (
        "eigs --mass /data/mass.npz --interval -1.5 2 --target=-3.0 --pattern detect --coloring colors.npz "
        "--shell --json - --set n=24 --set name=argon --set three='3' --set ends=[1, 2.5] --set far=1e999 "
        "--set on=True problems.py:chain -k 4"
    )
    assert petsc == "-eps_ncv 40 -log_view -st_type sinvert"
    (place / "inner").mkdir()
    (place / "inner/job.toml").write_text('command="check"\nresult="r.h5"\ninput="p.py:f"\nnullspace="constant"')
    ours, _ = job_files.expanded(["check", "-q", "inner/job.toml", "--tol", "1"], parser())
    assert " ".join(ours) == "check --nullspace constant -q inner/r.h5 inner/p.py:f --tol 1"
    parsed = parser().parse_args(job_files.guarded(ours))
    assert (parsed.result, parsed.input, parsed.tol, parsed.quiet) == ("inner/r.h5", "inner/p.py:f", 1.0, True)
    text = 'command = "eigs"\ninput = "package.module:name"\n[submit]\nranks = 4\nsetup = ["module load a"]'
    assert words(place, text)[0] == "eigs package.module:name"
    line = "submit -q job.toml --ranks 2"
    assert words(place, text, line)[0] == "submit --ranks 4 --setup module load a -q job.toml --ranks 2"
    # For a plan, what only another command takes is checked, but plays no part.
    text = 'command = "assemble"\ninput = "problems.py:chain"\nout = "h.npz"\nderivative = "forward"'
    assert words(place, text, "plan job.toml")[0] == "plan --out h.npz --derivative forward problems.py:chain"
    text = 'command = "density"\ninput = "good.npz"\ngrid = 100'
    assert words(place, text, "plan job.toml")[0] == "plan good.npz"
    for line in ("eigs good.npz --json job.toml", "result job.toml", "nothing job.toml", "-q"):
        assert job_files.expanded(line.split(), parser()) == (line.split(), [])


REFUSED = [
    ("whihc = 3", "line 3: whihc: nothing that eigs takes; did you mean which?"),
    ("zzz = 3", "line 3: zzz: nothing that eigs takes; it takes backend, "),
    ("k = 3.5", "line 3: k: a whole number, not 3.5"),
    ("k = true", "line 3: k: a whole number, not True"),
    ('tol = "small"', "line 3: tol: a number, not 'small'"),
    ("interval = [1]", "line 3: interval: 2 values are written [a, b], not [1]"),
    ('which = "best"', "line 3: which: 'best' is none of smallest, largest, magnitude, negative"),
    ("which = 3", "line 3: which: text, not 3"),
    ("mass = 3", "line 3: mass: text, not 3"),
    ("shell = 1", "line 3: shell: true or false, not 1"),
    ('set = "n=3"', "line 3: set: a table is written { name = value }"),
    ('set = { "n-1" = 3 }', "line 3: set: 'n-1' is no name of an argument"),
    ("set = { n = 1979-05-27 }", "line 3: set: numbers, truth values, texts and lists of them"),
    ("set = { n = nan }", "line 3: set: nan is no number"),
    ('json = "a\\u0000b"', "line 3: json: no control characters"),
    ('"a\\nb" = 3', "'a\\nb': nothing that eigs takes"),
    ("k = 99999999999999999999", "a whole number of more than 64 bits"),
    ("k = ", "no job file: Invalid value"),
    ("petsc = 3", "petsc must be a table"),
    ("[petsc]\neps_ncv = [1]", "line 4: eps_ncv: a number, a truth value or a text, not [1]"),
    ("a = " + "[" * 5000, "no job file: "),
]


@pytest.mark.parametrize("line, says", REFUSED)
def test_what_a_job_file_may_not_say(place, line, says):
    with pytest.raises(InputError, match=r"^job\.toml") as caught:
        words(place, f'command = "eigs"\ninput = "good.npz"\n{line}\n')
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_a_job_file_that_is_none_or_for_another_command(place):
    for text, line, says in (
        ('input = "good.npz"', "eigs job.toml", "says no command"),
        ('command = "cancel"', "eigs job.toml", "is a job of cancel, not of eigs"),
        ('command = "cancel"', "plan job.toml", "'cancel' is none of eigs, "),
        ('command = "trace"', "eigs job.toml", "is a job of trace, not of eigs"),
        ('command = "eigs"\n[submit]\njob = "x"', "submit job.toml", "nothing that submit takes"),
        ("#" * (2**20 + 1), "eigs job.toml", "at most 1048576 bytes"),
    ):
        with pytest.raises(InputError, match=says):
            words(place, text, line)
    (place / "job.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="no job file"):
        job_files.read("job.toml")
    with pytest.raises(InputError, match="no such file"):
        job_files.read("nowhere.toml")


def test_eigs_of_a_job_file_and_flags_that_override_it(place):
    (place / "job.toml").write_text(JOB + "[petsc]\neps_ncv = 20\n")
    found = here(place, "eigs job.toml")
    plain = here(place, "eigs problems.py:chain -k 3 --set n=24")
    assert found["eigenvalues"] == pytest.approx(plain["eigenvalues"], abs=1e-8)
    assert str(found["options"]["eps_ncv"]) == "20"
    other = here(place, "eigs job.toml -k 2 --set n=12 -- -eps_ncv 10")
    assert (other["n"], other["k"], str(other["options"]["eps_ncv"])) == (12, 2, "10")
    (place / "job.toml").write_text(JOB + "tols = 3\n")
    code, out, err = run(place, "eigs job.toml")
    assert code == 2 and not out and "job.toml, line 6: tols: nothing that eigs takes; did you mean tol?" in err


@pytest.mark.slow
def test_eigs_of_a_job_file_on_two_ranks(place):
    other = facts(place, "eigs job.toml -k 2 --set n=12 -- -eps_ncv 10", 2)
    assert (other["n"], other["k"], str(other["options"]["eps_ncv"])) == (12, 2, "10")
    (place / "job.toml").write_text(JOB + "tols = 3\n")
    code, out, err = run(place, "eigs job.toml", 2)
    assert code == 2 and not out and err.count("\n") == 1


# --- scripts -----------------------------------------------------------------------------


def test_the_script_that_a_person_reads(place):
    made_of = dict(time=5400, memory="4G", account="phys", queue="long", ranks=64, resumable=True)
    slurm = batch_scripts.script(made(place, "slurm", **made_of, setup=["module load openmpi"]))
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
        '    scontrol requeue "$SLURM_JOB_ID" && exit "$status"',
    ):
        assert line in slurm.splitlines()
    assert "export OMP_NUM_THREADS=1" in slurm
    pbs = batch_scripts.script(made(place, "pbs", **made_of)).splitlines()
    assert {"#PBS -l select=64:ncpus=1:mpiprocs=1:mem=4G", "#PBS -l walltime=01:30:00", "#PBS -q long"} <= set(pbs)
    assert any("--signal=USR1 --kill-after=120 5280" in line for line in pbs)
    for name in ("slurm", "pbs", "local"):
        job = made(place, name, **made_of)
        assert subprocess.run(["bash", "-n", job.file("script")], check=False).returncode == 0


def test_a_command_that_saves_is_submitted_to_go_on(place, monkeypatch, capsys):
    def saving():
        top = parser()
        eigs = job_files._subparsers(top)["eigs"]
        if "--checkpoint" not in eigs._option_string_actions:
            eigs.add_argument("--checkpoint", metavar="DIR")
            eigs.add_argument("--resume", action="store_true")
        return top

    monkeypatch.setattr(arguments, "parser", saving)
    asked = "submit job.toml --scheduler slurm --time 02:00:00 --dry-run"
    for more, folder in (("", place / "jobs/1/checkpoint"), ('checkpoint = "mine"', place / "mine")):
        (place / "job.toml").write_text(JOB + more)
        batch_commands.run_submit(parser().parse_args(asked.split()), {}, None)
        script = capsys.readouterr().out
        assert "#SBATCH --signal=B:USR1@120\n#SBATCH --requeue\n" in script
        assert f"    --checkpoint {folder}\n" in script and f'"$(ls {folder} 2>' in script
        assert script.count("--checkpoint") == script.count("--json") == 1


def test_times(place):
    for text, total in (("01:30:00", 5400), ("2-00:00:01", 172801), ("05:30", 330)):
        assert batch_scripts.seconds(text) == total
    assert batch_scripts.clock(172801) == "48:00:01"
    for text in ("", "90", "1:2:3:4", "00:00:00", "-01:00:00", "1-30:00", "99999999:00:00"):
        with pytest.raises(InputError, match="HH:MM:SS"):
            batch_scripts.seconds(text)


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


# --- jobs of this machine, for real --------------------------------------------------------


def test_a_local_job_from_submission_to_result(place):
    (place / "job.toml").write_text(JOB + 'json = "mine.json"\n[submit]\nranks = 2\nname = "chain"\n')
    job = facts(place, "submit job.toml --scheduler local")
    assert job["id"] == 1 and job["name"] == "chain" and job["number"].isdigit() and job["ranks"] == 2
    found = ended(place, 1)
    assert (found["state"], found["exit"]) == ("done", 0)
    answer = facts(place, "result chain")
    assert answer == json.loads((place / "mine.json").read_text()) and answer["mpi"]["size"] == 2
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
    job = batch_jobs.find("1")
    deadline = time.monotonic() + 60
    while len(local_scheduler.members(job)) < 4 and time.monotonic() < deadline:  # script, launcher, two ranks
        time.sleep(0.1)
    assert len(local_scheduler.members(job)) >= 4 and facts(place, "status")["jobs"][0]["state"] == "running"
    code, _, err = run(place, "result 1")
    assert code == 2 and "job 1 is running: no result yet" in err
    assert facts(place, "cancel 1")["jobs"][0]["cancelled"]
    assert not local_scheduler.members(job)
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
    local_scheduler.start(job)
    return job


def waited(job, within=30):
    deadline = time.monotonic() + within
    while not state(job).over and time.monotonic() < deadline:
        time.sleep(0.05)
    return state(job)


def test_a_job_that_fails_tells_why_and_its_status(place):
    body = "import os, sys\nos.write(1, b'\\xff')\nsys.stderr.write('sparsehess: k=99 of 56 rows\\n')\nsys.exit(2)"
    job = started(place, body)
    fields = local_scheduler._stat(int(job.word("pid").split()[0]))
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


def test_a_script_that_is_killed_has_failed_and_its_number_is_not_trusted(place):
    job = started(place, "import time; time.sleep(60)")
    assert state(job) == State("running")
    deadline = time.monotonic() + 30
    while len(local_scheduler.members(job)) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    pid, began = job.word("pid").split()
    job.file("pid").write_text(f"{pid} {int(began) + 1}\n")  # another process that has got the number since
    assert state(job) == State("failed", None, "killed, without a status")
    job.file("pid").write_text(f"{pid} {began}\n")
    os.kill(int(pid), signal.SIGKILL)
    assert waited(job).why == "killed, without a status"
    assert local_scheduler.members(job)
    local_scheduler.end(job)
    assert not local_scheduler.members(job) and state(job).over
    elsewhere = dataclasses.replace(job, host="elsewhere")
    assert state(elsewhere) == State("unknown", None, "on elsewhere")
    with pytest.raises(InputError, match="cancel it there"):
        local_scheduler.end(elsewhere)


def test_a_time_limit_stops_a_job_that_saves_and_it_goes_on(place):
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
    assert job.word("out") == "begun"
    assert subprocess.run(["bash", job.file("script")], check=False).returncode == 0
    assert state(job) == State("done", 0)
    assert job.word("out").splitlines() == ["begun", "went on from half"]
    assert len(job.word("starts").splitlines()) == 2


def test_what_goes_on_is_told_so_before_what_is_for_petsc(place, programs):
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


def test_a_time_limit_ends_a_job_that_cannot_save(place):
    job = started(place, "import time; time.sleep(60)", time=1)
    assert waited(job).word == "failed" and job.exit == 128 + signal.SIGTERM


def test_twenty_submissions_at_a_time_get_twenty_numbers(place):
    with ThreadPoolExecutor(20) as pool:
        folders = list(pool.map(lambda _: batch_jobs.new_folder(), range(20)))
    assert sorted(int(folder.name) for folder in folders) == list(range(1, 21))


def test_of_several_processes_the_first_submits(place):
    run(place, "submit job.toml --scheduler local -q", OMPI_COMM_WORLD_RANK="1")
    assert not (place / "jobs").exists()
    code, out, err = run(place, "submit job.toml --scheduler slurm --dry-run", 2)
    assert code == 0 and out.count("#!/bin/bash") == 1, err


def test_a_job_takes_over_settings_of_mpi_and_no_marks_of_a_run(monkeypatch):
    settings = {"OMPI_MCA_btl", "PRTE_MCA_rmaps_default_mapping_policy"}
    marks = {"OMPI_COMM_WORLD_RANK", "OMPI_MCA_ess_base_vpid", "PMIX_RANK", "PRTE_LAUNCHED"}
    with monkeypatch.context() as told:
        for name in settings | marks:
            told.setenv(name, "1")
        kept = set(local_scheduler.environment())
    assert settings <= kept and not kept & marks
    alone = "import sys; from mpi4py import MPI; sys.exit(MPI.COMM_WORLD.size)"
    code = (
        "import subprocess, sys\nfrom mpi4py import MPI\nfrom sparsehess.service import local_scheduler\n"
        "assert MPI.COMM_WORLD.size == 2\n"
        f"command = [sys.executable, '-c', {alone!r}]\n"
        "sys.exit(subprocess.run(command, env=local_scheduler.environment()).returncode - 1)"
    )
    done = subprocess.run(
        ["mpiexec", "-n", "2", sys.executable, "-c", code],
        capture_output=True, text=True, timeout=60, check=False, env=local_scheduler.environment(), cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_batch_commands_start_neither_mpi_nor_numpy(place):
    made(place)
    code = (
        "import sys\nsys.argv = ['sparsehess', 'status']\nfrom sparsehess.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print([name for name in ('mpi4py', 'petsc4py', 'numpy', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


# --- Slurm and PBS, by what they print ---------------------------------------------------------


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
    assert (found["scheduler"], found["number"]) == ("slurm", "4242")
    every = [batch_jobs.find("1")]
    for number in range(4243, 4251):
        every.append(made(place, "slurm"))
        every[-1].file("number").write_text(f"{number}\n")
    states = [one for _, one in sorted(schedulers.states(every).items())]
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
    assert calls.endswith("scancel 4242\n") and calls.count("squeue") == 2
    # What the script has written counts, whatever the scheduler says or no longer knows.
    every[1].file("exit").write_text("3\n")
    assert state(every[1]) == State("failed", 3)


def test_slurm_that_refuses_or_is_not_there(place, programs):
    fake(programs, "sbatch", 'echo "sbatch: error: invalid partition specified: long" >&2; exit 1')
    code, out, err = run(place, "submit job.toml --scheduler slurm --queue long")
    assert (code, out) == (2, "") and "sbatch has refused: sbatch: error: invalid partition" in err
    assert not list((place / "jobs").iterdir())
    fake(programs, "sbatch", "echo hello")
    assert "printed no number but 'hello'" in run(place, "submit job.toml --scheduler slurm")[2]
    (programs / "sbatch").unlink()
    code, _, err = run(place, "submit job.toml --scheduler slurm", PATH=str(programs))
    assert code == 2 and "there is no sbatch here" in err


def test_a_slurm_script_that_was_stopped_is_queued_again(place, programs):
    fake(programs, "scontrol", "")
    fake(programs, "mpiexec", "exit 75")
    job = made(place, "slurm", resumable=True)
    environment = {**os.environ, "SLURM_JOB_ID": "4242"}
    done = subprocess.run(["bash", job.file("script")], env=environment, check=False)
    assert done.returncode == 75 and job.exit is None
    assert (programs / "calls").read_text().splitlines()[-1] == "scontrol requeue 4242"
    batch_jobs.write(job.file("cancelled"), "")
    subprocess.run(["bash", job.file("script")], env=environment, check=False)
    assert job.exit == 75 and (programs / "calls").read_text().count("requeue") == 1


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
    every = [batch_jobs.find("1")]
    for number in range(1285, 1289):
        every.append(made(place, "pbs"))
        every[-1].file("number").write_text(f"{number}.head\n")
    assert [one for _, one in sorted(schedulers.states(every).items())] == [
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
    assert job.word("number") == "1290.head" and job.exit is None


# --- plans ---------------------------------------------------------------------------------


@pytest.mark.parametrize("more", ["--derivative forward", "--no-verify --coloring distance2"])
def test_a_plan_counts_what_a_run_then_takes(place, more):
    planned = here(place, f"plan problems.py:chain --set n=40 {more}")
    spent = here(place, f"eigs problems.py:chain --set n=40 {more}")["evaluations"]
    counts_are_those(planned, spent)


@pytest.mark.slow
def test_a_plan_counts_what_a_run_on_two_ranks_takes(place):
    planned = facts(place, "plan problems.py:chain --set n=40", 2)
    counts_are_those(planned, facts(place, "eigs problems.py:chain --set n=40", 2)["evaluations"])


def counts_are_those(planned, spent):
    told = planned["evaluations"]
    assert (planned["n"], planned["nnz"], planned["estimated"]) == (40, 118, False)
    assert told["derivatives"] == spent["gradient"] and told["noise"] == spent["noise"]
    assert told["verification"] == spent["verification"]
    assert told["total"] == sum(spent.values())


def test_a_plan_for_a_pattern_that_is_not_known(place):
    problem = "problems.py:chain --set n=500 --set pattern=False --pattern detect"
    planned = here(place, f"plan {problem} --row 3 --measure")
    spent = here(place, f"assemble {problem} -o h.npz")["evaluations"]
    told = planned["evaluations"]
    assert planned["estimated"] and planned["seconds"]["one"] > 0
    assert spent["pattern"] / 4 < told["pattern"] < 4 * spent["pattern"]
    with pytest.raises(InputError, match="has no pattern"):
        here(place, "plan problems.py:chain --set pattern=False")


def test_a_plan_of_a_matrix_and_of_a_job_file(place, capsys):
    sp.save_npz(place / "large.npz", sp.csr_matrix(laplacian(30, 30)[0]))
    check_memory(here(place, "plan large.npz --ranks 4"))
    top = parser()
    words, _ = job_files.expanded(["plan", "job.toml"], top)
    assert commands.run(top.parse_args(words), {}, MPI.COMM_SELF) == 0
    out = capsys.readouterr().out
    assert "derivatives  central, 3 colors: 15 gradients" in out and "ranks        1 worth having" in out
    shell = here(place, f"plan {ROOT}/drivers/job.toml --shell")
    assert shell["evaluations"] is None and shell["problem"]
    refused = {
        "job.toml -k 0": "-k 0: at least 1",
        "large.npz --measure": "--measure: large.npz is a matrix file",
        "large.npz --derivative forward": "--derivative: large.npz is a matrix file",
        "job.toml --row 9": "--row: only --pattern detect",
        "job.toml --explain": "--explain: the advice of a plan",
    }
    for words, says in refused.items():
        with pytest.raises(InputError, match=says):
            here(place, f"plan {words}")


@pytest.mark.slow
def test_a_plan_on_two_ranks(place):
    sp.save_npz(place / "large.npz", sp.csr_matrix(laplacian(30, 30)[0]))
    check_memory(facts(place, "plan large.npz --ranks 4", 2))


def check_memory(found):
    memory = found["memory"]
    assert found["evaluations"] is None and found["n"] == 900 and found["nnz"] == 4380
    assert memory["analysed"] and 0 < memory["factor"] < 2**25 and memory["ranks"] == 4
    assert memory["per_rank"] > memory["process"]
    assert found["ranks"]["best"] == 1
