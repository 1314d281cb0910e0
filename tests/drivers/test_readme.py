"""Every command of drivers/README.md is run, as it stands there, and every driver has one."""

import re

import pytest

from support import ROOT
from support.user_copy import run, write_copy

ROWS = [
    [cell.strip().strip("`") for cell in line.strip("|\n").split("|")]
    for line in (ROOT / "drivers" / "README.md").read_text().splitlines()
    if line.startswith("| `")
]


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    return write_copy(tmp_path_factory.mktemp("drivers") / "sparsehess")


def test_every_driver_has_a_row():
    files = [path.name for path in (ROOT / "drivers").iterdir() if path.suffix in (".py", ".toml")]
    assert {driver for driver, *_ in ROWS} == {*files, "capi/"}


@pytest.mark.thorough
@pytest.mark.parametrize("row", ROWS, ids=[row[4] for row in ROWS])
def test_commands(row, copy):
    driver, _, _, needed, command = row
    if needed:
        pytest.importorskip(needed)
    assert f"drivers/{driver.rstrip('/')}" in command
    done = run(["bash", "-c", command], copy)
    assert done.returncode == 0, done.stdout + done.stderr
    if re.search(r"sparsehess (eigs|inertia) ", command):
        assert re.search(r"\(certified[,)]|certified$|^certified", done.stdout, re.MULTILINE), done.stdout
