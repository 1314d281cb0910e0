"""Job files of a spool: each is admitted or refused in one line."""

import os

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparsehess.cli import command_line
from sparsehess.commands import job_files
from sparsehess.errors import SparseHessError
from sparsehess.service.resident.admission import Allowance, admit
from sparsehess.service.resident.limits import Limits
from support.cases import second_difference


def mutations():
    edits = st.tuples(st.integers(0, 400), st.integers(0, 40), st.binary(max_size=12))
    words = st.sampled_from(
        [
            b"k = -1",
            b"[petsc]\n",
            b'= "../../x"',
            b"9" * 30,
            b"inf",
            b'"\\u0000"',
            b"[[submit]]",
            b'json = "x"',
            b"\n",
        ]
    )
    return st.lists(st.one_of(edits, st.tuples(st.integers(0, 400), st.just(0), words)), min_size=1, max_size=5)


def admitted(folder, edits, line):
    """Admit a job mutated so; anything but a refusal in one line is an error."""
    text = bytearray(
        b'command = "eigs"\ninput = "good.npz"\nk = 3\ntol = 1e-9\nout = "modes.npz"\ninterval = [0.0, 1.0]\n'
        b'set = { n = 4 }\n[petsc]\neps_ncv = 40\n[submit]\ntime = "01:00"\nmemory = "1G"\npriority = 3\n'
    )
    for at, length, new in edits:
        text[at : at + length] = new
    (folder / "job.toml").write_bytes(text)
    try:
        task = admit(folder, Allowance(most=Limits(memory=2**30)), line)
    except SparseHessError as error:
        assert error.status == 2 and "\n" not in str(error) and len(str(error)) < 4000
        return
    for path in job_files.path_arguments([task.arguments.command], task.arguments, line).values():
        # As seen from the folder, where the job runs.
        assert os.path.realpath(os.path.join(folder, path)).startswith(f"{folder}{os.sep}")


@pytest.mark.parametrize("examples", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_mutated_job_files_are_admitted_or_refused_in_one_line(tmp_path, examples):
    sp.save_npz(tmp_path / "good.npz", second_difference(60))
    line = command_line()

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(mutations())
    def one(edits):
        admitted(tmp_path, edits, line)

    one()


def test_job_files_that_are_written_are_read_back(tmp_path):
    choices = {"input": 'a \\ " b.npz', "k": 3, "tol": 1e-9, "interval": [float("-inf"), 2.0], "set": {"n": True}}
    (tmp_path / "job.toml").write_text(
        job_files.compose_job_file("eigs", choices, {"eps_ncv": 4}, {"name": "ä\x7f\n"})
    )
    job = job_files.read_job_file(tmp_path / "job.toml")
    assert (job.choices, job.petsc, job.submit) == (choices, {"eps_ncv": 4}, {"name": "ä\x7f\n"})


def test_no_command_reads_numbers_from_outside(tmp_path):
    (tmp_path / "job").mkdir()
    sp.save_npz(tmp_path / "job" / "K.npz", second_difference(9))
    np.save(tmp_path / "secret.npy", np.array([[3, 3]]))
    np.save(tmp_path / "job" / "own.npy", np.array([[3, 3]]))
    line = command_line()
    for command, key in (
        ("inverse", "at"),
        ("reduced", "fixed"),
        ("reduced", "covariance"),
        ("reduced", "jacobian"),
    ):
        for path, within in (("own.npy", True), ("../secret.npy", False), (str(tmp_path / "secret.npy"), False)):
            text = f'command = "{command}"\ninput = "K.npz"\n{key} = "{path}"\n'
            (tmp_path / "job" / "job.toml").write_text(text)
            if within:
                admit(tmp_path / "job", Allowance(), line)
                continue
            with pytest.raises(SparseHessError, match="secret"):
                admit(tmp_path / "job", Allowance(), line)
