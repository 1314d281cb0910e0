"""Progress of a long stage, told on a terminal by rank 0 alone."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from sparsehess.runtime.guards import guard_of

if TYPE_CHECKING:
    from mpi4py import MPI


class Progress:
    """A line on a terminal for a stage that takes longer than two seconds; nothing elsewhere.

    Called as progress(done, total) on every rank, by all together; what the communicator's guard raises it
    raises on all of them. `finish` clears the line.
    """

    together = True

    def __init__(self, stage: str, comm: MPI.Comm, quiet: bool) -> None:
        self.stage = stage
        self._guard = guard_of(comm)
        self.shows = comm.rank == 0 and not quiet and sys.stderr.isatty()
        self.began = self.last = time.monotonic()
        self.wrote = False

    def __call__(self, done: int, total: int) -> None:
        """Tell that so many of all are done."""
        self._guard.check_progress(self.stage, done, total, self.together)
        now = time.monotonic()
        if not self.shows or now - self.began < 2 or now - self.last < 0.2:
            return
        self.last, self.wrote = now, True
        left = f", {(now - self.began) / done * (total - done):.0f} s left" if done else ""
        sys.stderr.write(f"\r{self.stage}: {done} of {total}{left}\x1b[K")
        sys.stderr.flush()

    def finish(self) -> None:
        """Clear the line."""
        if self.wrote:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


class SharedProgress(Progress):
    """That of a stage whose pieces are shared out: a rank calls when through with one, and may raise alone."""

    together = False
