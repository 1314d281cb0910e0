"""The project as a user has it, and commands that are run in it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from support import ROOT


def write_copy(folder):
    """Write the project into a folder, with this environment in the place of its own; return the folder."""
    folder.mkdir()
    for name in ("Makefile", "setup.cfg", "pyproject.toml", "README.md"):
        shutil.copy2(ROOT / name, folder)  # with its time: make compares them
    for name in ("drivers", "docker"):
        shutil.copytree(ROOT / name, folder / name)
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


def run(words, folder):
    """Return what became of a command in the environment of the tests."""
    path = f"{Path(sys.prefix) / 'bin'}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, text=True, timeout=170, check=False
    )
