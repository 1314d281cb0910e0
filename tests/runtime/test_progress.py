"""Progress on a terminal, and in a notebook."""

import io
import subprocess
import sys
import types

import numpy as np
import pytest

import sparsehess as sh
from sparsehess.runtime import progress as report


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("sparsehess.runtime.progress.time.monotonic", lambda: now[0])
    return now


def test_progress_shows_on_a_terminal_after_two_seconds(monkeypatch, comm, clock):
    for stream, quiet, shows in (
        (Terminal(), False, True),
        (Terminal(), True, False),
        (io.StringIO(), False, False),
    ):
        monkeypatch.setattr("sys.stderr", stream)
        clock[0] = 0.0
        progress = report.Progress("colours", comm, quiet)
        progress(1, 10)
        assert stream.getvalue() == ""  # too early
        clock[0] = 4.0
        progress(4, 10)
        progress.finish()
        assert ("colours: 4 of 10, 6 s left" in stream.getvalue()) == shows
        assert stream.getvalue().endswith("\x1b[K\r" if shows else "")
        assert repr(progress) == "<Progress: colours, 4 of 10>"


class Display:
    """IPython's, as far as it is used: one output, and what it has shown."""

    def __init__(self, kernel=True):
        self.made, self.shown = 0, []
        self.module = types.ModuleType("IPython")
        self.module.get_ipython = lambda: types.SimpleNamespace(kernel=object()) if kernel else None
        self.display = types.ModuleType("IPython.display")
        self.display.display = self.make

    def make(self, shown, raw, display_id):
        assert raw and display_id is True
        self.made += 1
        self.shown.append(shown["text/plain"])
        return self

    def update(self, shown, raw):
        assert raw
        self.shown.append(shown["text/plain"])


@pytest.mark.parametrize("kernel", [True, False])
def test_progress_in_a_notebook_is_one_output_that_is_updated(kernel, monkeypatch, comm, clock):
    display, stream = Display(kernel), io.StringIO()
    monkeypatch.setitem(sys.modules, "IPython", display.module)
    monkeypatch.setitem(sys.modules, "IPython.display", display.display)
    monkeypatch.setattr("sys.stderr", stream)
    with sh.Progress("colours", comm) as progress:
        for step in range(1000):
            clock[0] = 0.01 * step
            progress(step, 1000)
    assert stream.getvalue() == ""
    if not kernel:
        assert not display.made
        return
    assert display.made == 1 and 10 < len(display.shown) < 20  # ten seconds, two a second, but for the first two
    assert display.shown[0] == "colours: 200 of 1000, 8 s left" and display.shown[-1] == ""


@pytest.mark.parallel([2, 3])
def test_rank_0_alone_tells(monkeypatch, comm, clock):
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    progress = sh.Progress("colours", comm)
    clock[0] = 4.0
    progress(4, 10)
    assert ("4 of 10" in stream.getvalue()) == (comm.rank == 0)


def test_it_is_called_by_what_takes_it(comm):
    calls = []

    class Kept(sh.Progress):
        def __call__(self, done, total):
            calls.append((done, total))
            super().__call__(done, total)

    pattern = sh.Pattern.from_pairs(range(9), range(1, 10), 10)
    objective = sh.Objective(x=np.ones(10), gradient=lambda x: x**3, pattern=pattern)
    with Kept("colours") as progress, sh.assemble(objective, progress=progress) as H:
        assert calls and calls[-1][1] == H.coloring.count
        calls.clear()
        sh.eigs(H, 2, progress=progress).close()
    assert calls


def test_ipython_is_not_imported_by_it():
    code = "import sys, sparsehess as sh; sh.Progress('a')(1, 2); sys.exit('IPython' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
