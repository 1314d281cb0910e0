"""Help: grouped flags, examples that run, words that nothing takes, and what it loads."""

import os
import re
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec

import numpy as np
import pytest
import scipy.io as sio
import scipy.sparse as sp

from sparsehess import cli
from sparsehess.commands.arguments import Help
from support import ROOT
from support.cases import laplacian
from support.command_line import batch
from support.lattices import fcc
from support.phonopy_files import write as write_force_constants

LINE = cli.command_line()

# The service makes the spool, then takes what was submitted; the others ask for it.
JOBS = ["serve", "submit", "serve", "status", "result", "cancel"]

JOB = 'command = "eigs"\ninput = "K.mtx"\nk = 3\n'

# Packages that commands need beside those that are always there.
NEEDS = {"modes": "ase", "phonons": "ase"}

# Four copper atoms, near where effective medium theory has them at rest.
CLUSTER = """4

Cu 0.0 0.0 0.0
Cu 2.4 0.0 0.0
Cu 1.2 2.08 0.0
Cu 1.2 0.69 1.96
"""

COPPER = """1
Lattice="0 1.8 1.8 1.8 0 1.8 1.8 1.8 0" Properties=species:S:1:pos:R:3 pbc="T T T"
Cu 0 0 0
"""


def examples(name):
    """Return the commands at the end of a command's help, as they stand there."""
    ending = LINE.parsers[name].format_help().partition("\nexamples:\n")[2]
    return re.findall(r"^    (\S.*)$", ending, re.MULTILINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with what the examples read: drivers, stiffness and mass, a job file."""
    place = tmp_path_factory.mktemp("examples")
    (place / "drivers").symlink_to(ROOT / "drivers")
    sio.mmwrite(place / "K.mtx", laplacian(7, 8)[0], symmetry="symmetric")
    sio.mmwrite(place / "M.mtx", sp.diags(np.linspace(1, 2, 56)), symmetry="symmetric")
    sio.mmwrite(place / "KG.mtx", -laplacian(7, 8)[0] + 0.5 * sp.identity(56), symmetry="symmetric")
    sio.mmwrite(place / "C.mtx", 0.1 * sp.identity(56), symmetry="symmetric")
    sio.mmwrite(place / "G.mtx", sp.diags([np.ones(55), -np.ones(55)], [1, -1]), symmetry="skew-symmetric")
    (place / "job.toml").write_text(JOB)
    (place / "cluster.xyz").write_text(CLUSTER)
    (place / "copper.xyz").write_text(COPPER)
    springs = fcc([2, 2, 2], a=3.6)
    write_force_constants(place, springs, springs.dense(), springs.images.first)
    nodes, cells = (f"{i}, {i}, 0, 0" for i in range(1, 58)), (f"{i}, {i}, {i + 1}" for i in range(1, 57))
    bars = ["*NODE", *nodes, "*ELEMENT, TYPE=T3D2", *cells, "*NSET, NSET=BASE", "1", ""]
    (place / "bars.inp").write_text("\n".join(bars))
    return place


@pytest.mark.parametrize("name", LINE.commands)
def test_three_examples_end_each_help(name):
    text = LINE.parsers[name].format_help()
    assert len(examples(name)) == 3 and text.rstrip().endswith(examples(name)[-1])
    assert all(re.search(rf"\bsparsehess {name}\b", command) for command in examples(name))
    assert max(map(len, text.splitlines())) <= 120


def test_examples_on_one_rank_run(folder):
    """In one start of MPI, in the order of the commands: the later ones read what the earlier ones write."""
    missing = {command for command, package in NEEDS.items() if find_spec(package) is None}
    there = {name: command for name, command in LINE.commands.items() if name not in missing}
    told = [name for name, command in there.items() if command.section not in ("jobs", "shell")]
    commands = [one for name in told for one in examples(name) if one.startswith("sparsehess ")]
    assert len(commands) > 2 * len(told)
    for (codes, out, err, _), command in zip(
        batch(folder, [one.removeprefix("sparsehess ") for one in commands], 1), commands, strict=True
    ):
        assert codes == [0] and not err and (out or "quiet" in command), (command, err)


@pytest.mark.thorough
def test_examples_on_several_ranks_run(folder):
    commands = [one for name in LINE.commands for one in examples(name) if one.startswith("mpiexec -n")]
    assert len(commands) >= 4
    for command in commands:
        whole = command.replace("--idle 3600", "--once")
        done = shell(whole, folder)
        assert done.returncode == 0 and (done.stdout or " serve " in command), (command, done.stderr)


def test_examples_of_jobs_run(folder):
    """Those of a scheduler end when their job has: it is asked until then."""
    assert {*JOBS} == {name for name, command in LINE.commands.items() if command.section == "jobs"}
    identity = None
    for name in JOBS:
        for command in examples(name):
            if command.startswith("mpiexec"):
                continue
            done = shell(adapted(command, identity), folder)
            until = time.monotonic() + 120
            while name == "result" and "no result yet" in done.stderr and time.monotonic() < until:
                time.sleep(0.2)
                done = shell(adapted(command, identity), folder)
            assert done.returncode == 0 and not done.stderr, (command, done.stdout, done.stderr)
            identity = (re.findall(r"\d{8}-\d{6}-\d{6}-([0-9a-f]{6})", done.stdout) or [identity])[0]
    assert identity is not None


def adapted(command, identity):
    """Return an example with the id of the job that there is, and a service that leaves when it has no more."""
    return command.replace("4f2a9c", str(identity)).replace("--idle 3600", "--once")


def shell(command, folder, **more):
    """Run a command as a user's shell does, at home in the folder."""
    home = folder / "home"
    for place in (".local/share/bash-completion/completions", ".local/share/man/man1", ".zsh/completions"):
        (home / place).mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "HOME": str(home), "SPARSEHESS_JOBS": str(folder / "jobs")}
    return subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment | more, capture_output=True, text=True, check=False
    )


@pytest.mark.skipif(shutil.which("man") is None, reason="needs man")
def test_examples_of_the_shell_run(folder):
    pytest.importorskip("shtab")
    for name in (one for one in LINE.commands if LINE.commands[one].section == "shell"):
        for command in examples(name):
            done = shell(f"set -o pipefail; {command}", folder, MANPAGER="cat")
            assert done.returncode == 0 and not done.stderr, (command, done.stderr)
    written = ["home/.local/share/man/man1/sparsehess.1", "home/.zsh/completions/_sparsehess", "sparsehess.txt"]
    assert all((folder / name).stat().st_size > 1000 for name in written)


# `python -m sparsehess`, and what it has loaded when it ends.
HEAVY = """
import runpy, sys
try:
    runpy.run_module("sparsehess", run_name="__main__", alter_sys=True)
except SystemExit as end:
    heavy = {"numpy", "scipy", "mpi4py", "petsc4py", "slepc4py", "h5py", "networkx"} & {*sys.modules}
    sys.exit(f"loaded {heavy}" if heavy else end.code)
"""


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("--help", 0),
        ("--version", 0),
        *((f"{name} --help", 0) for name in LINE.commands),
        ("check --explain", 0),
        ("eigs K.mtx --intervall 0 1", 2),
        ("manual", 0),
        ("completion bash", 0),
    ],
)
def test_help_loads_nothing_heavy(command, status):
    began = time.monotonic()
    # A launcher's marks would have what is refused told through MPI.
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("OMPI_", "PMI"))}
    words = [sys.executable, "-c", HEAVY, *command.split()]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == status, done.stderr
    assert time.monotonic() - began < 5  # a twentieth of that where nothing else runs


def test_help_is_a_word_too():
    for words, says in (("help eigs", "usage: sparsehess eigs"), ("help", "usage: sparsehess COMMAND")):
        with pytest.raises(Help, match=says):
            LINE.parse(words.split())


def test_pages_show_commands_as_they_are_typed():
    ends = [cli.parser().epilog, *(one.epilog for one in LINE.parsers.values())]
    assert ends[0].startswith("next::\n\n  sparsehess COMMAND --help")
    assert all(end.startswith("examples:\n  ") for end in ends[1:])


def test_help_starts_as_a_module_and_as_a_script():
    for words in (
        [sys.executable, "-m", "sparsehess"],
        [shutil.which("sparsehess") or sys.executable, "--version"],
    ):
        done = subprocess.run([*words, "--version"], capture_output=True, text=True, check=True)
        assert done.stdout


def test_every_flag_stands_in_a_group_and_none_twice():
    for name, parser in LINE.parsers.items():
        titles = [group.title for group in parser._action_groups if group._group_actions]
        assert len(titles) == len(set(titles)) and not {"options", "positional arguments"} & set(titles), name
        largest = max(len(group._group_actions) for group in parser._action_groups)
        assert largest <= 11, name
    assert "usage: sparsehess eigs INPUT [flags] [-- options of PETSc]" in LINE.parsers["eigs"].format_help()


def test_the_list_of_commands_is_in_sections_with_one_line_of_each():
    text = LINE.parser.format_help()
    places = [text.index(f"\n{command.section}:\n") for command in LINE.commands.values()]
    for command, begin in zip(LINE.commands.values(), places, strict=True):
        part = text[begin:].split("\n\n")[0]
        assert f"\n  {command.name} " in part and command.summary.split()[0] in part
    assert "sparsehess COMMAND --help" in text
