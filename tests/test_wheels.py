"""The wheel and the source archive: each installs into an empty environment, beside the PETSc that is there."""

import os
import subprocess
import sys
from pathlib import Path

import petsc4py
import slepc4py

import numpy as np
import pytest

from sparsehess.commands.answer_schema import schema_text
from support import ROOT, answers

pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with both."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(["sh", ROOT / "docker" / "wheels.sh", folder], check=True, capture_output=True)
    return folder


@pytest.mark.parametrize("kind", ["*.whl", "*.tar.gz"])
def test_it_installs_and_runs(built, kind, tmp_path):
    (archive,) = built.glob(kind)
    python = tmp_path / "environment" / "bin" / "python"
    base = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"
    subprocess.run([base, "-m", "venv", "--system-site-packages", python.parents[1]], check=True)
    (tmp_path / "constraints.txt").write_text(f"numpy=={np.__version__}\n")
    stack = {str(Path(module.__file__).parents[1]) for module in (petsc4py, slepc4py)}
    told = {key: value for key, value in os.environ.items() if not key.startswith(("OMPI_COMM", "PMIX", "PRTE_L"))}
    told |= {"PYTHONPATH": os.pathsep.join(stack), "PIP_CONSTRAINT": str(tmp_path / "constraints.txt")}
    told |= {"PATH": f"{python.parent}:{told['PATH']}", "PIP_USER": "0", "PYTHONNOUSERSITE": "1"}

    def run(*words):
        done = subprocess.run(words, cwd=tmp_path, env=told, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(python, "-m", "pip", "install", "-q", archive)
    assert run(python, "-c", "import sparsehess; print(sparsehess.__file__)").startswith(str(python.parents[1]))
    problem = ROOT / "drivers" / "lennard_jones.py"
    command = f"sparsehess eigs {problem}:cluster -k 8 --json - --report page.html"
    answer = answers.parse(run(*command.split()))
    assert "canvas" in (tmp_path / "page.html").read_text()  # with the script and the style sheet of the package
    assert run("sparsehess", "info", "--schema") == schema_text()
    assert answer["converged"] == 8 and answer["count"]["certified"] and answer["coloring"]["valid"]


def test_the_wheel_is_for_every_linux_of_its_processor(built):
    (wheel,) = built.glob("*.whl")
    assert f"-cp3{sys.version_info.minor}-manylinux" in wheel.name
