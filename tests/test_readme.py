"""Every command of the README is run, as it stands there."""

import re
import sys

import pytest

from support import ROOT
from support.user_copy import run, write_copy

TEXT = (ROOT / "README.md").read_text()
COMMANDS = [
    line
    for block in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
    for line in block.splitlines()
    if line.strip()
]
PROGRAMS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    return write_copy(tmp_path_factory.mktemp("readme") / "sparsehess")


def test_commands(copy):
    """One after another: they read what those before them have written."""
    for command in COMMANDS:
        if command == "make test":
            continue
        done = run(["bash", "-c", command], copy)
        assert done.returncode == 0, command + "\n" + done.stdout + done.stderr
        if command == "make demo":
            assert "certified" in done.stdout and "354 gradients" in done.stdout
            assert (copy / "demo.png").stat().st_size > 10_000


def test_make_test_is_what_runs_these_tests():
    assert "make test" in COMMANDS
    assert "make test" in (ROOT / ".ci" / "run").read_text()
    assert "tests/run.sh" in (ROOT / "Makefile").read_text()


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("ranks", [1, 2])
def test_programs(program, ranks, tmp_path):
    (tmp_path / "program.py").write_text(program)
    done = run(["mpiexec", "-n", str(ranks), sys.executable, "program.py"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert (
        done.stdout.count("'gradient': 6, 'hvp': 0, 'energy': 0, 'noise': 7, 'pattern': 0, 'verification': 2")
        == ranks
    )
    assert done.stdout.count("True") == 2 * ranks


def test_the_demo_says_what_the_readme_says():
    assert "354 gradients" in TEXT.replace("354 gradients\n", "354 gradients ")
