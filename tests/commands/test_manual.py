"""The manual page: made from the parser, clean roff, all of it there."""

import re
import shutil
import subprocess

import pytest

from sparsehess import cli
from sparsehess.commands.manual import compose_manual


@pytest.fixture(scope="module")
def line():
    return cli.command_line()


@pytest.fixture(scope="module")
def page(line):
    return compose_manual(line)


@pytest.mark.skipif(shutil.which("groff") is None, reason="needs groff")
def test_groff_warns_of_nothing(page):
    done = subprocess.run(
        ["groff", "-man", "-ww", "-z", "-Tutf8"], input=page, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""


@pytest.mark.skipif(shutil.which("man") is None, reason="needs man")
def test_man_shows_every_flag_and_example_as_typed(line, page, tmp_path):
    (tmp_path / "sparsehess.1").write_text(page)
    done = subprocess.run(
        ["man", "--warnings", "-E", "UTF-8", "-l", "sparsehess.1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "MANWIDTH": "200", "LC_ALL": "C.UTF-8"},
        check=True,
    )
    shown = re.sub(r".\x08|\x1b\[[\d;]*m", "", done.stdout)
    assert not done.stderr and "sparsehess - sparse Hessians from gradients" in shown
    for name, parser in line.parsers.items():
        begin = shown.index(f"   sparsehess {name}\n")
        part = shown[begin : begin + 30_000]
        for action in parser._actions:
            assert all(flag in part for flag in action.option_strings), (name, action)
        for example in line.commands[name].examples:
            assert f" {example.command}\n" in part
    assert "λ" in shown


def test_the_page_is_ascii_and_no_line_is_taken_for_a_request(page):
    assert page.isascii()
    requests = {row.split()[0] for row in page.splitlines() if row.startswith((".", "'"))}
    assert requests <= {".TH", ".SH", ".SS", ".PP", ".TP", ".B", ".I", ".br", ".RS", ".RE", ".nf", ".fi"}
