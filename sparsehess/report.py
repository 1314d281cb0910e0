"""What a person reads: progress, tables, pictures. Rank 0 alone shows anything."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path

from mpi4py import MPI

import numpy as np

from sparsehess.coloring import Coloring
from sparsehess.files import replaced
from sparsehess.pattern import Pattern
from sparsehess.runtime import optional
from sparsehess.solvers import Spectrum
from sparsehess.units import Units


class Progress:
    """A line on a terminal for a stage that takes longer than two seconds; nothing elsewhere.

    Called as progress(done, total) on every rank; `finish` clears the line.
    """

    def __init__(self, stage: str, comm, quiet: bool):
        self.stage = stage
        self.shows = comm.rank == 0 and not quiet and sys.stderr.isatty()
        self.began = self.last = time.monotonic()
        self.wrote = False

    def __call__(self, done: int, total: int) -> None:
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


def pattern_picture(pattern: Pattern, bins: int = 300) -> np.ndarray | None:
    """Return how many entries fall into each of bins x bins squares, on rank 0; None elsewhere.

    Collective. No rank holds more than its own rows.
    """
    bins = max(1, min(bins, pattern.n))
    rows = np.repeat(np.arange(pattern.layout.start, pattern.layout.stop), np.diff(pattern.indptr))
    square = (rows * bins // pattern.n) * bins + pattern.indices.astype(np.int64) * bins // pattern.n
    own = np.bincount(square, minlength=bins * bins).astype(np.int64)
    total = np.zeros_like(own) if pattern.comm.rank == 0 else None
    pattern.comm.Reduce(own, total)
    return total.reshape(bins, bins) if total is not None else None


def colored_picture(pattern: Pattern, coloring: Coloring, bins: int = 600) -> np.ndarray | None:
    """Return the colour of an entry's column in each of bins x bins squares (-1: none), on rank 0; None elsewhere.

    Collective. Of several entries in a square the highest colour is shown.
    """
    bins = max(1, min(bins, pattern.n))
    rows = np.repeat(np.arange(pattern.layout.start, pattern.layout.stop), np.diff(pattern.indptr))
    square = (rows * bins // pattern.n) * bins + pattern.indices.astype(np.int64) * bins // pattern.n
    own = np.full(bins * bins, -1, np.int32)
    np.maximum.at(own, square, coloring.with_ghosts[pattern.columns])
    highest = np.empty_like(own) if pattern.comm.rank == 0 else None
    pattern.comm.Reduce(own, highest, op=MPI.MAX)
    return highest.reshape(bins, bins) if highest is not None else None


def plot_coloring(path, picture: np.ndarray, n: int, coloring: Coloring, title: str) -> None:
    """Draw the coloured matrix into a picture file.

    Not collective: rank 0 calls it.

    Raises
    ------
    StackError
        matplotlib is missing.
    """
    matplotlib = optional("matplotlib", "--plot", "plot")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(6.4, 6))
    # Neighbouring numbers get unlike hues.
    hue = (np.arange(max(coloring.count, 1)) * 0.618034) % 1.0
    colors = matplotlib.colors.ListedColormap(matplotlib.colormaps["hsv"](hue))
    shown = np.ma.masked_less(picture, 0)
    axis.imshow(
        shown, cmap=colors, vmin=0, vmax=max(coloring.count, 1), extent=(0, n, n, 0), interpolation="nearest"
    )
    axis.set(xlabel="column", ylabel="row", title=f"{title}: {coloring.count} colors, {coloring.kind}")
    figure.tight_layout()
    with replaced(Path(path)) as beside:
        figure.savefig(beside, dpi=130, format=Path(path).suffix.lstrip(".") or "png")
    plt.close(figure)


def plot(path, spectrum: Spectrum, units: Units | None, picture: np.ndarray | None, n: int, title: str) -> None:
    """Draw spectrum and pattern into a picture file.

    Not collective: rank 0 calls it.

    Raises
    ------
    StackError
        matplotlib is missing.
    """
    matplotlib = optional("matplotlib", "--plot", "plot")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1, 2 if picture is not None else 1, figsize=(11 if picture is not None else 6, 4.6)
    )
    axis = np.atleast_1d(axes)[0]
    values = units.of_eigenvalues(spectrum.eigenvalues) if units else spectrum.eigenvalues
    number = np.arange(1, len(values) + 1)
    axis.vlines(number, 0, values, color="0.75", lw=2)
    axis.plot(number, values, "o", color="C0")
    axis.axhline(0, color="0.3", lw=0.8)
    axis.set(xlabel="mode", ylabel=f"frequency [{units.frequency}]" if units else "eigenvalue", title="spectrum")
    axis.xaxis.get_major_locator().set_params(integer=True)
    if picture is not None:
        axis = axes[1]
        shown = np.ma.masked_equal(picture, 0)
        axis.imshow(np.log1p(shown), cmap="viridis", extent=(0, n, n, 0), interpolation="nearest")
        axis.set(xlabel="column", ylabel="row", title=f"pattern, {picture.sum():,} entries")
    figure.suptitle(title)
    figure.tight_layout()
    with replaced(Path(path)) as beside:
        figure.savefig(beside, dpi=130, format=Path(path).suffix.lstrip(".") or "png")
    plt.close(figure)
