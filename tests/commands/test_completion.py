"""Completion: what bash really offers, and the names that stand in it."""

import os
import shutil
import subprocess
import sys

import pytest

from sparsehess import cli
from sparsehess.coloring.color_pattern import BEST
from sparsehess.coloring.kinds import KINDS
from sparsehess.coloring.vertex_orders import ORDERS
from sparsehess.commands import completion
from sparsehess.eigen.problem.solve_spec import METHODS

pytest.importorskip("shtab")


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("completion") / "sparsehess.bash"
    words = [sys.executable, "-m", "sparsehess", "completion", "bash"]
    path.write_text(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    return path


def offered(script, folder, *words):
    """Return what bash offers for the last of these words, by the function that `complete` names for them."""
    program = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
registered=$(complete -p sparsehess); registered=${registered##*-F }
"${registered%% *}" sparsehess "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""
    words = ["bash", "-c", program, "bash", str(script), "sparsehess", *words]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True)
    return sorted(word.strip() for word in done.stdout.splitlines() if word.strip())


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["ei"], ["eigs"]),
        (["eigs", "--inter"], ["--interval"]),
        (["eigs", "--which", "ma"], ["magnitude"]),
        (["eigs", "K.mtx", "--method", "krylov"], ["krylovschur"]),
        (["color", "--coloring", "a"], ["acyclic"]),
        (["eigs", "--mass", "M"], ["M.mtx", "Masses/"]),
        (["eigs", "K"], ["K.mtx"]),
        (["eigs", "--checkpoint", "M"], ["Masses/"]),
        (["completion", "z"], ["zsh"]),
    ],
)
def test_bash_completes(script, tmp_path, words, expected):
    for name in ("K.mtx", "M.mtx"):
        (tmp_path / name).touch()
    (tmp_path / "Masses").mkdir()
    # With and without the slash that bash sets behind a folder itself.
    assert [one.rstrip("/") for one in offered(script, tmp_path, *words)] == [one.rstrip("/") for one in expected]


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_other_shells_have_all_commands(shell):
    words = [sys.executable, "-m", "sparsehess", "completion", shell]
    text = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert all(name in text for name in (*cli.command_line().commands, "interval", "negative"))
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=text, text=True, check=True)


def test_names_are_those_that_the_library_knows():
    assert completion.OFTEN["method"] == METHODS
    assert completion.OFTEN["coloring"] == tuple(KINDS)
    assert completion.OFTEN["order"] == (BEST, *ORDERS)


def test_what_is_missing_is_named(tmp_path):
    (tmp_path / "shtab.py").write_text("raise ImportError('not there')\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    words = [sys.executable, "-m", "sparsehess", "completion", "bash"]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 2 and "pip install shtab" in done.stderr and done.stderr.count("\n") == 1
