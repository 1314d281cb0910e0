"""The command line as outsiders use it: exit statuses, one line on failure, help, options; 1 to 4 ranks."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from support.command_line import RUNNER, batch, run, write_problems


@pytest.fixture(scope="module")
def problems(tmp_path_factory):
    return write_problems(tmp_path_factory.mktemp("cli"))


FAILURES = [
    ("eigs nowhere.npz", 2, "nowhere.npz: no such file"),
    ("eigs rectangular.npz", 2, "5 x 4"),
    ("eigs unsymmetric.npz", 2, r"entry (0, 1) is 1, entry (1, 0) is 0"),
    ("eigs nan.npz", 2, "is nan"),
    ("eigs truncated.npz", 2, "damaged"),
    ("eigs lying.mtx", 2, "claims 99999999999 entries"),
    ("eigs empty.npz", 2, "no rows"),
    ("eigs good.npz -k 57", 2, "k=57"),
    ("eigs good.npz -k many", 2, "invalid int value"),
    ("eigs good.npz --unknown", 2, "unrecognized arguments: --unknown"),
    ("eigs good.npz -- -eps_nonsense 3", 2, "-eps_nonsense"),
    ("eigs good.npz --mass truncated.npz", 2, "damaged"),
    ("eigs good.npz --mass rectangular.npz", 2, "5 x 4"),
    ("eigs good.npz --nullspace mass.npz", 2, "expected one two-dimensional array"),
    ("eigs good.npz -o /nowhere/result.h5", 2, "there is no folder"),
    ("eigs good.npz -o result.txt", 2, ".h5, .npz"),
    ("eigs good.npz --derivative central", 2, "--derivative: good.npz is a matrix file"),
    ("eigs good.npz --order natural", 2, "--order: good.npz is a matrix file"),
    ("inertia good.npz --coloring star", 2, "--coloring: good.npz is a matrix file"),
    ("eigs good.npz --set a=3", 2, "--set: good.npz is a matrix file"),
    ("eigs problems.py:nothing", 2, "has nothing called 'nothing'"),
    ("eigs problems.py:number", 2, "neither an Objective nor a callable"),
    ("eigs problems.py:no_objective", 2, "must return an Objective"),
    ("eigs problems.py:good --set zeal=3", 2, "it takes n"),
    ("eigs nowhere.py:good", 2, "no such file"),
    ("eigs problems.py:good --derivative ad", 2, "needs a Hessian-vector product"),
    ("eigs problems.py:good --pattern good.npz", 2, "56 variables"),
    ("eigs problems.py:raising", 2, "RuntimeError: cannot be made"),
    ("eigs problems.py:short", 2, "must return (30,) real numbers"),
    ("eigs problems.py:nan", 4, "variable 7 "),
    ("eigs problems.py:no_gradient", 4, "are not symmetric: entries (0, 1) and (1, 0)"),
    ("eigs problems.py:good --points 2", 2, "only --pattern detect probes points"),
    ("eigs good.npz --interval 2 1", 2, "must not be above the second"),
    ("eigs good.npz --interval 1 2 -k 3", 2, "leave out k and target"),
    ("eigs good.npz --method slicing", 2, "is for an interval"),
    ("eigs good.npz --shell", 2, "--shell is for problems"),
    ("eigs good.npz --interval 1 2 --count no", 2, "leave out count='no'"),
    ("eigs problems.py:good --shell --coloring star", 2, "--coloring: --shell assembles nothing"),
    ("eigs problems.py:good --shell --budget 1", 2, "--budget: --shell assembles nothing"),
    ("eigs good.npz --precision single", 2, "is for the products of --shell"),
    ("eigs problems.py:good --shell --precision single", 2, "single precision is for products"),
    ("eigs problems.py:good --set n=9000 --shell --which negative", 2, "cannot be told"),
    ("eigs problems.py:good --pattern detect --blocks 2", 2, "--blocks: a pattern that is detected"),
    ("eigs problems.py:summed --order natural", 2, "--order: the Hessians of the elements"),
    ("eigs good.npz --backend cuda", 2, "built without cuda"),
    ("eigs good.npz --nullspace rigid", 2, "with --coordinates"),
    ("eigs good.npz --coordinates nodes.npy", 2, "as many of the 56 dofs"),
    ("eigs good.npz --guess nodes.npy", 2, "do not fit 56 variables"),
    ("eigs good.npz --method feast --interval 0 1 --groups 9", 2, "groups=9"),
    ("eigs good.npz --interval 0 1 --groups 9", 2, "groups=9"),
    ("eigs good.npz -- -eps_type feast", 2, "SLEPc's FEAST passes only the real parts"),
    ("density good.npz --samples 1", 2, "samples=1: at least 2"),
    ("density good.npz -- -eps_ncv 30", 2, "solves no eigenproblem"),
    ("density good.npz --shell", 2, "--shell is for problems"),
    ("trace good.npz --function heat", 2, "time is for function 'heat'"),
    ("trace negative.npz --function logdet", 2, "positive definite"),
    ("rank good.npz --threshold big", 2, "neither a number nor gap"),
    ("rank good.npz --threshold 1e-3 --absolute 1", 2, "leave one out"),
    ("check good.npz good.npz", 2, "no result of sparsehess eigs"),
    ("inertia good.npz --zero -1", 2, "must be positive"),
    ("eigs good.npz --points 2", 2, "--points: good.npz is a matrix file"),
    ("eigs problems.py:missing --no-repair", 4, "is coupled with"),
    ("eigs problems.py:empty_pattern --no-repair", 4, "is coupled with"),
    ("assemble good.npz -o h.npz", 2, "assemble needs a problem"),
    ("assemble problems.py:good", 2, "required: -o/--out"),
    ("color empty.npz", 2, "no rows"),
    ("color good.npz --coloring plaid", 2, "kind 'plaid' is none of star"),
    ("color good.npz --order chaotic", 2, "order 'chaotic' is none of best"),
    ("color good.npz --rule golden", 2, "rule 'golden' is none of 2007"),
    ("color good.npz --blocks 7", 2, "blocks of 7"),
    ("color good.npz --coloring good.npz", 2, "is no stored colouring"),
    ("color good.npz --lattice good.npz", 2, "no .npy array"),
    ("color good.npz -- -eps_ncv 3", 2, "solves no eigenproblem"),
    ("fly good.npz", 2, "invalid choice: 'fly'"),
]

# Flags that nothing would heed beside others.
IDLE = [
    ("eigs good.npz --target 1 --which largest", 2, "--which: --target says"),
    ("eigs good.npz --interval 0 1 --which magnitude", 2, "--which: --interval says"),
    ("eigs good.npz --explain -o x.npz", 2, "--out: --explain solves nothing"),
    ("eigs good.npz --blocks 0", 2, "--blocks: good.npz is a matrix file"),
    ("eigs good.npz --checkpoint-interval 0", 2, "give the folder with --checkpoint"),
    ("eigs good.npz --method krylovschur --coordinates nodes.npy", 2, "--coordinates: for --nullspace rigid"),
    ("eigs good.npz --interval 0 1 --preconditioner good.npz", 2, "a preconditioner is for the smallest"),
    ("eigs problems.py:good --shell --interval 0 1 --groups 1", 2, "a matrix-free Hessian has none"),
    ("eigs problems.py:good --shell --drop 1", 2, "nothing can be dropped"),
    ("eigs good.npz --json /nowhere/x.json", 2, "there is no folder /nowhere"),
    ("check good.npz good.npz --coordinates nodes.npy", 2, "--coordinates: only --nullspace rigid"),
    ("density good.npz --coordinates nodes.npy", 2, "--coordinates: only --nullspace rigid"),
    ("trace good.npz --method exact --samples 9", 2, "--samples: --method exact"),
    ("trace good.npz --steps 9", 2, "--steps: the trace itself"),
    ("rank good.npz --method inertia --samples 9", 2, "--samples: --method inertia"),
    ("color good.npz --order natural --budget 1", 2, "--budget: only --order best searches"),
    ("serve spool --json x.json", 2, "--json: each job has"),
    ("serve spool --launcher srun", 2, "--launcher: it is for --ranks"),
    ("serve spool --cache much", 2, "--cache much: write a size"),
]

ON_ONE_RANK = [
    ("eigs problems.py:last_rank_raises", 2, "ValueError on rank {last}: bad luck"),
    ("eigs problems.py:last_rank_cannot", 2, "cannot be made"),
    ("eigs problems.py:collective", 2, "ValueError on rank {last}: bad luck"),
]


def assert_clean_failure(codes, out, err, seconds, status, says, ranks):
    lines = [line for line in err.splitlines() if line.startswith("sparsehess:")]
    assert codes == [status], err
    assert len(lines) == 1 and says.format(last=ranks - 1) in lines[0], err
    assert "Traceback" not in err and out == ""
    assert seconds < 30  # no hang, on a busy machine either


@pytest.mark.parametrize(
    "ranks", [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow), 4]
)
def test_failures_end_all_ranks_with_one_line(problems, ranks):
    failures = [*FAILURES, *(IDLE if ranks == 1 else [])]
    every = batch(problems, [command for command, _, _ in failures], ranks)
    for told, (command, status, says) in zip(every, failures, strict=True):
        print(command)  # shown where it fails
        assert_clean_failure(*told, status, says, ranks)


@pytest.mark.parametrize(("number", "case"), list(enumerate(FAILURES[::8])))
def test_failures_of_whole_processes(problems, number, case):
    command, status, says = case
    ranks = 1 + number % 4
    code, *told = run(problems, command, ranks)
    assert_clean_failure([code], *told, status, says, ranks)


@pytest.mark.parametrize("ranks", [2, *(pytest.param(many, marks=pytest.mark.slow) for many in (1, 3, 4))])
@pytest.mark.parametrize(("command", "status", "says"), ON_ONE_RANK)
def test_failures_of_one_rank(problems, command, status, says, ranks):
    code, *told = run(problems, command, ranks)
    assert_clean_failure([code], *told, status, says, ranks)


@pytest.mark.parametrize("command", ["eigs --help", "submit --help", "eigs good.npz -k 2"])
def test_a_locale_without_our_letters_has_its_answer(problems, command):
    """As sys.stdout is under LC_ALL=de_DE.ISO-8859-1, which a machine need not have."""
    told = {**os.environ, "PYTHONIOENCODING": "ascii:strict"}
    words = [sys.executable, "-m", "sparsehess", *command.split()]
    done = subprocess.run(words, cwd=problems, capture_output=True, env=told, check=False)
    assert done.returncode == 0 and not done.stderr, done.stderr.decode()
    assert len(done.stdout.decode("ascii").splitlines()) > 3


def test_petsc_options_reach_petsc(problems):
    code, out, err, _ = run(problems, "eigs good.npz -k 2 -- -eps_monitor -eps_ncv 20 -log_view")
    assert code == 0, err
    assert "nconv" in out and "EPSSolve" in out


def test_petsc_options_that_nothing_uses_are_an_error(problems):
    code, _, err, _ = run(problems, "eigs good.npz -- -nonsense 3", 2)
    assert code == 2 and "PETSc options that nothing has used: -nonsense" in err


def test_a_reader_that_stops_reading_is_no_bug(problems):
    command = f"{sys.executable} -m sparsehess eigs good.npz -k 5 | true"
    done = subprocess.run(
        command, shell=True, cwd=problems, capture_output=True, text=True, env=dict(os.environ), check=False
    )
    assert "sparsehess:" not in done.stderr and "Traceback" not in done.stderr


def test_a_numpy_that_petsc4py_was_not_built_for_is_named(problems):
    """A petsc4py that fails to load as the distribution's does beside another numpy."""
    broken = problems / "broken" / "petsc4py"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text(
        "__version__ = '0'\ndef init(*a):\n    raise ValueError('numpy.dtype size changed')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(broken.parent)}
    words = ["mpiexec", "-n", "2", sys.executable, "-m", "sparsehess", "info"]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 2 and "pip install 'numpy" in done.stderr and "Traceback" not in done.stderr
    assert done.stderr.count("sparsehess:") == 1  # of two that cannot go on the first says so


def test_a_full_disk_is_one_line_and_leaves_nothing(problems):
    sp.save_npz(problems / "wide.npz", sp.diags([np.arange(1.0, 500.0)], [0]))
    program = (
        "import resource, sys; from sparsehess import runtime; runtime.initialize()\n"
        "sys.dont_write_bytecode = True  # half of it would stay for others\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1024, resource.RLIM_INFINITY))\n" + RUNNER
    )
    answers = ("full.h5", "full.npz", "full.petsc", "full.mtx")
    commands = [f"eigs wide.npz -k 3 -q -o {name}" for name in answers[:2]]
    commands += ["eigs wide.npz -k 3 -q --json full.json", "color wide.npz -q -o full.h5"]
    commands += [f"assemble problems.py:good --set n=300 -q -o {name}" for name in answers]
    done = subprocess.run(
        [sys.executable, "-c", program, *commands],
        cwd=problems,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    for (codes, out, err, _), command in zip(json.loads(done.stdout), commands, strict=True):
        assert (codes, out, err.count("\n")) == ([2], "", 1), (command, err)
        assert "cannot be written" in err, (command, err)
    assert not list(problems.glob("full.*")) + list(problems.glob(".*full*"))


def test_help_and_version_come_from_rank_0_alone(problems):
    for words, says in (
        ("--help", "usage: sparsehess"),
        ("eigs --help", "usage: sparsehess eigs"),
        ("--version", "sparsehess 0"),
    ):
        code, out, _, _ = run(problems, words, 2)
        assert code == 0 and out.count(says) == 1


def test_the_table_names_what_it_shows(problems):
    code, out, _, _ = run(problems, "eigs problems.py:good -k 3", 2)
    assert code == 0
    for words in (
        "coloring     3 colors",
        "6 gradients",
        "verified     random product",
        "certified",
        "eigenvalue",
    ):
        assert words in out


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs /proc")
@pytest.mark.parametrize("times", [200, pytest.param(1000, marks=pytest.mark.slow)])
def test_solves_leak_nothing(times):
    code = f"""
import numpy as np, scipy.sparse as sp, sparsehess as sh
pattern = sh.Pattern.from_edges([[i, i + 1] for i in range(59)], 60)
objective = sh.Objective(x=np.ones(60), gradient=lambda x: 3 * x**3, pattern=pattern)
def pages():
    return int(open('/proc/self/statm').read().split()[1])
def solve():
    with sh.assemble(objective) as hessian, sh.eigs(hessian, 3) as spectrum:
        assert spectrum.converged == 3
for _ in range({3 * times // 5}):
    solve()
before = pages()
for _ in range({times}):
    solve()
print((pages() - before) * 4096)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 2**18 + 2**11 * times


# What people do, and what the message tells them to do instead.
MISTAKES = [
    ("egis good.npz", "did you mean eigs?"),
    ("good.npz -k 3", "a command stands before it, such as sparsehess eigs good.npz"),
    ("eigs good.npz --intervall 0 1", "did you mean --interval?"),
    ("eigs good.npz --int 0 1", "did you mean --interval?"),
    ("eigs good.npz -K 3", "did you mean -k?"),
    ("density good.npz --interval 0 1", "it is a flag of eigs, damped, plan"),
    ("eigs good.npz --which smalest", "did you mean smallest?"),
    ("eigs good.npz --method krylovshur", "did you mean krylovschur?"),
    ("color good.npz --coloring acylic", "did you mean acyclic?"),
    ("eigs good.npz -eps_monitor", "options of PETSc stand behind the others: … -- -eps_monitor"),
    ("eigs", "write sparsehess eigs INPUT"),
    ("assemble problems.py:good", "write sparsehess assemble PROBLEM -o FILE"),
    ("eigs good.npz --interval 1", "write --interval A B"),
    ("eigs good.npz -k many", "write a whole number, such as 6"),
    ("eigs good.npz --tol tiny", "write a number, such as 1e-3"),
    ("eigs good.npz mass.npz", "unrecognized arguments: mass.npz; write sparsehess eigs INPUT [flags]"),
    ("eigs god.npz", "did you mean good.npz?"),
    ("eigs elsewhere.npz", "mend the name, or give the path"),
    ("eigs problems.py:goood", "did you mean good?"),
    ("eigs problems.py:number", "a problem is a function that returns one"),
    ("eigs rectangular.npz", "of a Jacobian J give JᵀJ"),
    ("eigs unsymmetric.npz", "--one-triangle takes"),
    ("eigs good.npz --shell", "leave it out"),
    ("eigs good.npz --coloring star", "leave it out"),
    ("eigs good.npz -o /nowhere/x.h5", "make it first"),
    ("check good.npz good.npz", "eigs -o writes one"),
    ("rank good.npz --threshold big", "write --threshold 1e-6, or --threshold gap"),
    ("submit good.npz", "submit takes a job file, .toml"),
]


def test_messages_name_a_remedy(problems):
    every = batch(problems, [command for command, _ in MISTAKES], 1)
    for told, (command, says) in zip(every, MISTAKES, strict=True):
        print(command)  # shown where it fails
        assert_clean_failure(*told, 2, says.replace("{", "{{"), 1)


def is_ours():
    """Return whether mpiexec is the one that docker/environment.sh has written."""
    path = shutil.which("mpiexec")
    return path is not None and Path(path).read_bytes().startswith(b"#!") and "sed -u" in Path(path).read_text()


ours = pytest.mark.skipif(not is_ours(), reason="needs the mpiexec of make env")


@ours
@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("eigs nowhere.npz", 2),
        ("eigs good.npz --intervall 0 1", 2),
        ("eigs problems.py:nan", 4),
        pytest.param("eigs problems.py:last_rank_raises", 2, marks=pytest.mark.thorough),
        ("eigs problems.py:collective", 2),  # which ends by MPI_Abort
    ],
)
def test_the_launcher_adds_nothing_to_what_was_said(problems, command, status):
    code, out, err, _ = run(problems, command, 3)
    assert (code, out) == (status, "")
    assert err.startswith("sparsehess: ") and len(err.strip().splitlines()) == 1, err


@ours
def test_the_launcher_speaks_where_nobody_has(problems, tmp_path):
    """Of a rank that was killed, of a program that is not there, and of other programs."""
    for words, says in (
        (["sh", "-c", "kill -9 $$", "sparsehess"], r"non-zero exit code|signal 9"),
        (["no-such-program", "sparsehess"], "unable to find the specified executable"),
        (["sh", "-c", "echo sparsehess: no >&2; exit 3"], r"non-zero"),
    ):
        done = subprocess.run(
            ["mpiexec", "-n", "2", *words], capture_output=True, text=True, env=dict(os.environ), check=False
        )
        assert done.returncode and re.search(says, done.stderr), (words, done.stderr)


@ours
def test_lines_of_dashes_of_the_program_itself_stay(tmp_path):
    program = tmp_path / "sparsehess"
    rule = "-" * 74
    told = ["sparsehess: said", rule, "a table", rule, "between", rule, "", rule, "the end"]
    body = "\n".join(f"echo '{line}' >&2" for line in told)
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    words = ["mpiexec", "-n", "1", str(program)]
    done = subprocess.run(words, capture_output=True, text=True, env=dict(os.environ), check=True)
    assert done.stderr.splitlines() == told


@ours
def test_signals_reach_the_launcher_and_its_status_comes_back(tmp_path):
    """To the launcher alone, as a scheduler sends them, and to all of its group, as a terminal does."""
    program = tmp_path / "sparsehess"
    program.write_text(
        "#!/bin/sh\ntrap 'echo sparsehess: saved >&2; exit 75' USR1 TERM INT\necho begun\nsleep 60 & wait\n"
    )
    program.chmod(0o755)
    for number, whole_group in ((signal.SIGUSR1, False), (signal.SIGTERM, False), (signal.SIGINT, True)):
        with subprocess.Popen(
            ["mpiexec", "-n", "1", str(program)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=dict(os.environ),
            start_new_session=True,
        ) as child:
            assert child.stdout.readline() == "begun\n"
            (os.killpg if whole_group else os.kill)(child.pid, number)
            _, err = child.communicate(timeout=30)
        assert child.returncode != 0 and "sparsehess: saved" in err, (number, child.returncode, err)


@pytest.mark.parametrize(
    "marks",
    [
        {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "0"},
        {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "2"},
        {"PMI_SIZE": "4", "PMI_RANK": "0"},
        {"PMI_SIZE": "4", "PMI_RANK": "3"},
        {"SLURM_NTASKS": "4", "SLURM_PROCID": "0"},  # of a batch script, which runs one process
    ],
)
def test_processes_that_are_no_ranks_of_one_mpi_are_told_of_once(marks, problems, monkeypatch):
    for name, value in marks.items():
        monkeypatch.setenv(name, value)
    status, _, err, _ = run(problems, "eigs good.npz -k 2 -q")
    first = "0" in (marks.get("SLURM_PROCID"), marks.get("PMI_RANK")) and "SLURM_NTASKS" not in marks
    assert status == 0 and ("has started 4 processes, and MPI has 1 rank in each" in err) == first


def test_ranks_of_one_mpi_are_not_warned_of(problems, monkeypatch):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")  # of the step of a launcher's daemons
    assert "processes" not in run(problems, "eigs good.npz -k 2 -q", ranks=2)[2]
