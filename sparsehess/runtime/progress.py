"""What a person reads: progress and tables. Rank 0 alone shows anything."""

from __future__ import annotations

import math
import sys
import time

from sparsehess.derivatives.units import Units
from sparsehess.eigen.problem.spectrum import Spectrum
from sparsehess.runtime.guards import guard_of


class Progress:
    """A line on a terminal for a stage that takes longer than two seconds; nothing elsewhere.

    Called as progress(done, total) on every rank, by all together; what the communicator's guard raises it
    raises on all of them.
    `finish` clears the line.
    """

    together = True

    def __init__(self, stage: str, comm, quiet: bool):
        self.stage = stage
        self._guard = guard_of(comm)
        self.shows = comm.rank == 0 and not quiet and sys.stderr.isatty()
        self.began = self.last = time.monotonic()
        self.wrote = False

    def __call__(self, done: int, total: int) -> None:
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


def table(heads: list[str], rows: list[list[str]]) -> str:
    """Return a table, numbers to the right."""
    widths = [
        max(len(head), *(len(row[i]) for row in rows)) if rows else len(head) for i, head in enumerate(heads)
    ]

    def line(cells):
        return "  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()

    return "\n".join([line(heads), line(["-" * width for width in widths]), *(line(row) for row in rows)])


def spectrum_table(spectrum: Spectrum, units: Units | None, zero: float) -> str:
    """Return the eigenpairs as a table; zero modes and imaginary frequencies are named."""
    heads = ["mode", "eigenvalue", *([units.frequency] if units else []), "backward error", ""]
    rows = []
    frequencies = units.of_eigenvalues(spectrum.eigenvalues) if units else None
    for i, value in enumerate(spectrum.eigenvalues):
        note = "zero" if abs(value) <= zero else "negative curvature" if value < 0 else ""
        row = [str(i + 1), f"{value:.10g}"]
        if units:
            row.append(f"{abs(frequencies[i]):.4f}" + ("i" if frequencies[i] < 0 and abs(value) > zero else ""))
        rows.append([*row, f"{spectrum.residuals[i]:.1e}", note])
    return table(heads, rows)


def count_line(spectrum: Spectrum) -> str:
    """Return what the inertia count says, in a sentence."""
    count = spectrum.count
    if count is None:
        return f"not counted: {spectrum.uncounted}"
    low, high = (f"{end:.6g}" if math.isfinite(end) else ("-inf" if end < 0 else "inf") for end in count.interval)
    verdict = "certified" if count.certified else "NOT certified: eigenvalues are missing"
    repaired = f" after {count.repairs} repair{'s' if count.repairs > 1 else ''}" if count.repairs else ""
    return f"inertia in ({low}, {high}): {count.inertia}, found {count.found}: {verdict}{repaired}"
