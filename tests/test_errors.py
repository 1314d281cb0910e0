"""Which mistakes are the user's."""

import os

import pytest

from sparsehess import errors
from sparsehess.errors import InputError, StackError


@pytest.mark.parametrize("error, kind", [(OSError(28, "No space left"), InputError), (MemoryError(), StackError)])
def test_a_full_disk_or_memory_is_no_bug(error, kind):
    told = errors.rebuild(*errors.describe(error, 3))
    assert isinstance(told, kind) and told.status == 2 and str(told).startswith(f"rank 3: {type(error).__name__}")


@pytest.mark.parametrize(
    ("word", "known", "meant"),
    [
        ("--intervall", ["--interval", "--int", "-i"], "--interval"),
        ("--int", ["--points", "--interval"], "--interval"),  # what begins so, before what is alike
        ("-K", ["-k", "--keep"], "-k"),
        ("KrylovSchur", ["lobpcg", "krylovschur"], "krylovschur"),
        ("plaid", ["star", "acyclic"], None),
        ("", ["star"], None),
        ("x" * 10**6, ["star", "x" * 20], None),
    ],
)
def test_the_nearest_name(word, known, meant):
    assert errors.nearest(word, known) == meant
    assert errors.did_you_mean(word, known) == ("" if meant is None else f"did you mean {meant}?")


def test_a_value_that_is_none_of_those_known():
    error = errors.none_of("kind 'sta'", "sta", ("star", "acyclic"), ", the kinds there are")
    assert isinstance(error, errors.InputError)
    assert str(error) == "kind 'sta' is none of star, acyclic, the kinds there are; did you mean star?"
    assert str(errors.none_of("k 3", 3, ["star"])) == "k 3 is none of star"


def test_a_file_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stiffness.mtx").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mass.npz").touch()
    for path, says in (
        ("stifness.mtx", "no such file; did you mean stiffness.mtx?"),
        ("stiffness.npz", "no such file; did you mean stiffness.mtx?"),
        ("folder/mas.npz", "no such file; did you mean folder/mass.npz?"),
        ("load.npz", "no such file in the folder that the command runs in"),
        ("folder/load.npz", "no such file in the folder folder"),
        ("nowhere/load.npz", "no such file: there is no folder nowhere either"),
        ("folder", "a folder: give the path of a file in it"),
        ("folder/", "a folder: give the path of a file in it"),
    ):
        told = str(errors.no_such_file(path))
        assert told.startswith(f"{path}: no such file") and says in told, told


def test_what_is_there_and_no_file_is_not_called_missing(tmp_path):
    os.mkfifo(tmp_path / "matrix.npz")
    (tmp_path / "load.npz").symlink_to("gone.npz")
    (tmp_path / "round.npz").symlink_to("round.npz")
    for name, says in (("matrix", "a pipe, a device or a socket"), ("load", "a link to"), ("round", "a link to")):
        told = str(errors.no_such_file(tmp_path / f"{name}.npz"))
        assert f"{name}.npz: no file, but {says}" in told and "mean" not in told
