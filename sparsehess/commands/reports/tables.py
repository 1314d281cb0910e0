"""Tables of text: columns of words, columns of numbers, eigenpairs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sparsehess.derivatives.units import Units
    from sparsehess.eigen.problem.spectrum import Spectrum
    from sparsehess.storage.matrix_files import Origin


def format_columns(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of words as a table, all columns to the left. Not collective."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def format_table(heads: list[str], rows: list[list[str]]) -> str:
    """Return a table, numbers to the right."""
    widths = [
        max(len(head), *(len(row[i]) for row in rows)) if rows else len(head) for i, head in enumerate(heads)
    ]

    def line(cells: Sequence[str]) -> str:
        return "  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()

    return "\n".join([line(heads), line(["-" * width for width in widths]), *(line(row) for row in rows)])


def spectrum_table(spectrum: Spectrum, units: Units | None, zero: float) -> str:
    """Return the eigenpairs as a table; zero modes and imaginary frequencies are named."""
    heads = ["mode", "eigenvalue", *([units.frequency] if units else []), "backward error", ""]
    rows = []
    frequencies = units.of_eigenvalues(spectrum.eigenvalues) if units else spectrum.eigenvalues
    for i, value in enumerate(spectrum.eigenvalues):
        note = "zero" if abs(value) <= zero else "negative curvature" if value < 0 else ""
        row = [str(i + 1), f"{value:.10g}"]
        if units:
            row.append(f"{abs(frequencies[i]):.4f}" + ("i" if frequencies[i] < 0 and abs(value) > zero else ""))
        rows.append([*row, f"{spectrum.residuals[i]:.1e}", note])
    return format_table(heads, rows)


def reading_notes(origins: Sequence[Origin]) -> list[str]:
    """Return what is to be said of how files were read, a sentence each. Not collective."""
    return [f"{origin.path}: {sentence}" for origin in origins for sentence in origin.said]


def notes_told(origins: Sequence[Origin]) -> str:
    """Return what is to be said of how files were read, lines that follow others. Not collective."""
    return "".join(f"\nnote         {sentence}" for sentence in reading_notes(origins))


def count_line(spectrum: Spectrum) -> str:
    """Return what the inertia count says, in a sentence."""
    count = spectrum.count
    if count is None:
        return f"not counted: {spectrum.uncounted}"
    low, high = (f"{end:.6g}" if math.isfinite(end) else ("-inf" if end < 0 else "inf") for end in count.interval)
    verdict = "certified" if count.certified else "NOT certified: eigenvalues are missing"
    repaired = f" after {count.repairs} repair{'s' if count.repairs > 1 else ''}" if count.repairs else ""
    return f"inertia in ({low}, {high}): {count.inertia}, found {count.found}: {verdict}{repaired}"
