"""What is refused before a job is queued, and what is let pass."""

import os
import re

import pytest

from sparsehess.cli import command_line
from sparsehess.commands import job_files
from sparsehess.commands.job_checks import check_job
from sparsehess.errors import InputError

PROBLEMS = """
import nowhere_at_all

raise SystemExit("this file was run")

def chain(comm, n=30, wait=0.0): ...
def grid(comm, rows, columns=3): ...
"""

LINE = command_line()


@pytest.fixture
def place(tmp_path, monkeypatch):
    (tmp_path / "problems.py").write_text(PROBLEMS)
    (tmp_path / "matrix.npz").write_bytes(b"looked at by the job")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(place, *lines, command="eigs", petsc=""):
    (place / "job.toml").write_text(f'command = "{command}"\n' + "\n".join(lines) + f"\n[petsc]\n{petsc}\n")
    return place / "job.toml"


GOOD = [
    ['input = "matrix.npz"', 'mass = "matrix.npz"'],
    ['input = "problems.py:chain"'],
    ['input = "problems.py:chain"', "set = { n = 3, wait = 1.0 }"],
    ['input = "problems.py:grid"', "set = { rows = 3 }"],
    ['input = "matrix.npz"', 'out = "modes.h5"', 'checkpoint = "new/folders/saved"', 'json = "-"'],
    ['input = "matrix.npz"', 'nullspace = "rigid"', 'coordinates = "matrix.npz"'],
    ['input = "sparsehess.cli:command_line"'],
]


@pytest.mark.parametrize("lines", GOOD)
def test_what_is_there_passes(place, lines):
    check_job(written(place, *lines, petsc="eps_ncv = 40\nksp_type = 'cg'\nuse_gpu_aware_mpi = 0"), LINE)
    os.chdir("/")
    check_job(place / "job.toml", LINE)


BAD = [
    (['input = "matrx.npz"'], "line 2: input: matrx.npz: no such file; did you mean matrix.npz"),
    (['input = "matrix.npz"', 'mass = "m/M.npz"'], "line 3: mass: m/M.npz: no such file: there is no folder m"),
    (['input = "."'], "no such file, but a folder"),
    (['input = "pipe"'], "pipe: no regular file"),
    (['input = "problem.py:chain"'], "problem.py: no such file; did you mean problems.py"),
    (
        ['input = "problems.py:chian"'],
        "line 2: input: problems.py: nothing is called 'chian' there; did you mean chain",
    ),
    (['input = "problems.py"'], "name a function in it that returns an Objective: problems.py:chain"),
    (
        ['input = "problems.py:chain"', "set = { m = 3 }"],
        "3: set: chain has no argument 'm'; it takes n, wait",
    ),
    (['input = "problems.py:chain"', "set = { wiat = 3 }"], "did you mean wait"),
    (['input = "problems.py:grid"'], "set: grid needs 'rows' too"),
    (['input = "no_such_module.deeper:chain"'], "no module 'no_such_module'"),
    (['input = "sparsehess.cli:command_lin"'], "did you mean command_line"),
    (['input = "matrix.npz"', 'out = "results/modes.h5"'], "line 3: out: results/modes.h5: there is no folder"),
    (['input = "matrix.npz"', 'json = "."'], "json: .: cannot be written: it is a folder"),
    (['input = "matrix.npz"', 'checkpoint = "matrix.npz"'], "is no folder"),
    (['input = "matrix.npz"', 'checkpoint = "matrix.npz/saved"'], "is no folder"),
]


@pytest.mark.parametrize("lines, says", BAD)
def test_what_is_not_there_is_refused(place, lines, says):
    os.mkfifo(place / "pipe")
    with pytest.raises(InputError) as error:
        check_job(written(place, *lines).relative_to(place), LINE)
    assert says in str(error.value) and "--no-check" in str(error.value) and "\n" not in str(error.value)


def test_options_of_petsc_whose_family_is_misspelt(place):
    for key, meant in (
        ("esp_ncv", "eps_ncv"),
        ("kps_type", "ksp_type"),
        ("mg_levels_ksp_type", None),
        ("info", None),
    ):
        job = written(place, 'input = "matrix.npz"', petsc=f"{key} = 4")
        if meant is None:
            check_job(job, LINE)
        else:
            with pytest.raises(InputError, match=f"{key}: no option of PETSc begins so; did you mean {meant}"):
                check_job(job, LINE)


def test_outputs_of_a_spooled_job_lie_elsewhere(place):
    check_job(written(place, 'input = "matrix.npz"', 'out = "results/modes.h5"'), LINE, outputs=False)


READ = {
    "free",
    "mesh",
    "mass",
    "pattern",
    "nullspace",
    "coordinates",
    "lattice",
    "guess",
    "preconditioner",
    "jacobian",
}
READ |= {"at", "fixed", "covariance", "participation", "damping", "gyroscopic", "circulatory", "cell", "born"}


def test_of_every_file_it_is_known_whether_it_is_read_or_written():
    named = {
        action.dest
        for name, parser in LINE.parsers.items()
        if job_files.is_for_jobs(name)
        for action in parser._actions
        if action.option_strings and re.search(r"FILE|DIR\b", str(action.metavar))
    }
    assert named == READ | set(job_files.OUTPUTS)


@pytest.mark.parametrize(
    "asked, paths",
    [
        ("inverse K.npz --at places.npy", {"at": "places.npy"}),
        ("inverse K.npz --at pattern", {}),
        ("inverse K.npz", {}),
        ("reduced K.npz --fixed 0,1 --covariance 12", {}),
        ("reduced K.npz --fixed held.npy --covariance 0x1", {"fixed": "held.npy", "covariance": "0x1"}),
        ("reduced K.npz --jacobian rows.npz", {"jacobian": "rows.npz"}),
        ("eigs K.npz --participation rigid --fixed held.npy", {"fixed": "held.npy"}),
        ("eigs K.npz --participation r.npy", {"participation": "r.npy"}),
    ],
)
def test_files_of_numbers_are_paths_and_numbers_are_none(asked, paths):
    words = asked.split()
    found = job_files.path_arguments(words, LINE.parse(words), LINE)
    assert {name: path for name, path in found.items() if name != "input"} == paths
