"""Progress on a terminal."""

import io

from sparsehess.runtime import progress as report


def test_progress_shows_on_a_terminal_after_two_seconds(monkeypatch, comm):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    clock = [0.0]
    monkeypatch.setattr("sparsehess.runtime.progress.time.monotonic", lambda: clock[0])
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
