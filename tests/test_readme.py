"""Every command and every program of the README is run, as it stands there."""

import importlib.util
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


def test_commands(copy, monkeypatch):
    """One after another: they read what those before them have written."""
    monkeypatch.syspath_prepend(ROOT / "drivers")
    from scipy.io import mmwrite

    from cantilever import matrices

    for name, matrix in zip(("K.mtx", "M.mtx"), matrices(cells=6), strict=True):  # the reader's own
        mmwrite(copy / name, matrix, symmetry="symmetric")
    for command in COMMANDS:
        if command == "make test":
            continue
        done = run(["bash", "-c", command], copy)
        assert done.returncode == 0, command + "\n" + done.stdout + done.stderr
        if command == "make demo":
            assert "certified" in done.stdout and "336 gradients" in done.stdout
            assert (copy / "demo.png").stat().st_size > 10_000


def test_make_test_is_what_runs_these_tests():
    assert "make test" in COMMANDS
    assert "make test" in (ROOT / ".ci" / "run").read_text()
    assert "tests/run.sh" in (ROOT / "Makefile").read_text()


@pytest.mark.parametrize("program", PROGRAMS, ids=["atoms", "function", "own code"])
@pytest.mark.parametrize("ranks", [1, 2])
def test_programs(program, ranks, copy):
    for host in ("ase", "jax"):
        if re.search(rf"^(from|import) {host}\b", program, re.MULTILINE) and not importlib.util.find_spec(host):
            pytest.skip(f"{host} is not installed")
    (copy / "program.py").write_text(program)
    done = run(["mpiexec", "-n", str(ranks), sys.executable, "program.py"], copy)
    assert done.returncode == 0, done.stderr
    assert re.search(r"\bcertified\b", done.stdout) or "cm^-1" in done.stdout, done.stdout


def test_the_demo_says_what_the_readme_says():
    assert "336 gradients" in TEXT


def test_it_is_short_and_its_links_lead_somewhere():
    assert len(TEXT.split()) <= 500
    for place in re.findall(r"\]\(([^)#]+)", TEXT):
        assert (ROOT / place).exists(), place
