"""The scripts that draw the figures of the pages draw them, and every figure of a page has its file."""

import re
import shutil
import sys

import pytest

from support import ROOT
from support.user_copy import run, write_copy

DOCS = ROOT / "docs"
FIGURES = [
    (page, name)
    for page in sorted(DOCS.rglob("*.md"))
    for name in re.findall(r"^```\{figure\} (\S+)", page.read_text(), re.MULTILINE)
]


@pytest.mark.thorough
@pytest.mark.parametrize("script", sorted(path.name for path in (DOCS / "figures").glob("*.py")))
def test_scripts_draw_all_that_they_name(script, tmp_path):
    pytest.importorskip("matplotlib")
    copy = write_copy(tmp_path / "sparsehess")
    shutil.copytree(DOCS, copy / "docs", ignore=shutil.ignore_patterns("gallery", "generated"))
    names = set(re.findall(r'"([\w-]+\.(?:svg|png))"', (DOCS / "figures" / script).read_text()))
    drawn = [path for path in (copy / "docs").rglob("*") if path.name in names]
    assert {path.name for path in drawn} == names
    for path in drawn:
        path.unlink()
    done = run([sys.executable, f"docs/figures/{script}"], copy)
    assert done.returncode == 0, done.stderr
    assert all(path.stat().st_size > 5000 for path in drawn)


def test_every_figure_of_a_page_is_there():
    assert FIGURES and all((page.parent / name).is_file() for page, name in FIGURES)
