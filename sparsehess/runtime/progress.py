"""Progress of a long stage, told by rank 0 alone: a line on a terminal, or in the output of a notebook's cell."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

from sparsehess.runtime.guards import guard_of
from sparsehess.runtime.short_repr import ShortRepr

if TYPE_CHECKING:
    from typing import Self

    from mpi4py import MPI

# Seconds before anything is told.
_PATIENCE = 2.0


class Line(Protocol):
    """Where progress is told.

    Attributes
    ----------
    pause
        Seconds between two texts.
    """

    pause: float

    def show(self, text: str) -> None:
        """Show a text in the place of the last one."""
        ...

    def clear(self) -> None:
        """Take the text away."""
        ...


class NoLine:
    """Shows nothing: on other ranks, in files, where quiet is wanted."""

    pause = float("inf")

    def show(self, text: str) -> None:
        """Show nothing. Not collective."""

    def clear(self) -> None:
        """Do nothing. Not collective."""


class TerminalLine:
    """The last line of a terminal, written over again and again."""

    pause = 0.2

    def show(self, text: str) -> None:
        """Write over the line. Not collective."""
        sys.stderr.write(f"\r{text}\x1b[K")
        sys.stderr.flush()

    def clear(self) -> None:
        """Empty the line. Not collective."""
        self.show("")
        sys.stderr.write("\r")
        sys.stderr.flush()


class NotebookLine:
    """One output of a notebook's cell, which is updated in its place."""

    pause = 0.5

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, text: str) -> None:
        """Update the output, which is made the first time. Not collective."""
        from IPython.display import display

        shown = {"text/plain": text}
        if self._handle is None:
            self._handle = display(shown, raw=True, display_id=True)
        else:
            self._handle.update(shown, raw=True)

    def clear(self) -> None:
        """Empty the output. Not collective."""
        self.show("")


def line_here() -> Line:
    """Return where this process can tell progress: its notebook, its terminal, or nowhere.

    Not collective. IPython is not imported: where it runs a kernel it is there already.
    """
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if getattr(shell, "kernel", None) is not None:
        return NotebookLine()
    return TerminalLine() if sys.stderr.isatty() else NoLine()


class Progress(ShortRepr):
    """A line that tells how far a stage is that takes longer than two seconds.

    *Not collective.* For `progress=` of `eigs`, `assemble` and `Hessian.update`, on every rank. Rank 0 shows it,
    on its terminal or in the notebook whose kernel it is, in one place that is updated; nothing is written into
    files and pipes. A context manager; `finish()` clears the line.

    Parameters
    ----------
    stage
        What the line says.
    comm
        The ranks; default this process alone.
    quiet
        Whether nothing is to be shown.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> with sh.Progress("eigenpairs converged") as progress:
    ...     found = sh.eigs(np.diag(np.arange(1.0, 100.0)), 3, progress=progress)
    >>> print(np.round(found.eigenvalues, 8), progress)
    [1. 2. 3.] <Progress: eigenpairs converged, 3 of 3>
    >>> found.close()
    """

    def __init__(self, stage: str, comm: MPI.Comm | None = None, quiet: bool = False) -> None:
        self.stage = stage
        first = comm is None or comm.rank == 0
        self._line: Line = line_here() if first and not quiet else NoLine()
        self._began = self._last = time.monotonic()
        self._wrote = False
        self._told = (0, 0)

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        yield self.stage
        yield f"{self._told[0]} of {self._told[1]}"

    def __call__(self, done: int, total: int) -> None:
        """Tell that so many of all are done."""
        self._told = done, total
        now = time.monotonic()
        if now - self._began < _PATIENCE or now - self._last < self._line.pause:
            return
        self._last, self._wrote = now, True
        left = f", {(now - self._began) / done * (total - done):.0f} s left" if done else ""
        self._line.show(f"{self.stage}: {done} of {total}{left}")

    def finish(self) -> None:
        """Clear the line."""
        if self._wrote:
            self._line.clear()
            self._wrote = False

    def __enter__(self) -> Self:
        """Return the object itself."""
        return self

    def __exit__(self, *reason: object) -> None:
        """Clear the line."""
        self.finish()


class GuardedProgress(Progress):
    """That of a command: what the guard of the communicator raises it raises.

    Called as progress(done, total) on every rank, by all together; raises on all of them.
    """

    together = True

    def __init__(self, stage: str, comm: MPI.Comm, quiet: bool) -> None:
        super().__init__(stage, comm, quiet)
        self._guard = guard_of(comm)

    def __call__(self, done: int, total: int) -> None:
        """Tell that so many of all are done."""
        self._guard.check_progress(self.stage, done, total, self.together)
        super().__call__(done, total)


class SharedProgress(GuardedProgress):
    """That of a stage whose pieces are shared out: a rank calls when through with one, and may raise alone."""

    together = False
