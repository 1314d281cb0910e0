"""Tables of text: columns of words, columns of numbers, eigenpairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sparsehess.runtime.printable import printable

if TYPE_CHECKING:
    import numpy as np

    from sparsehess.derivatives.units import Units
    from sparsehess.eigen.problem.count import Count
    from sparsehess.eigen.problem.spectrum import Spectrum
    from sparsehess.storage.matrix_files import Origin


def format_columns(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of words as a table, all columns to the left, each row in one line. Not collective."""
    rows = [[printable(cell, "") for cell in row] for row in rows]
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


def spectrum_table(spectrum: Spectrum, units: Units | None) -> str:
    """Return the eigenpairs as a table, with their error bars; zero modes and imaginary frequencies are named."""
    values, errors = spectrum.eigenvalues, spectrum.bars
    frequencies = None if units is None else units.of_eigenvalues(values)
    spread = None if units is None or errors is None else units.of_errors(values, errors)
    unit = "" if units is None else units.frequency
    return format_table(
        *eigenpair_rows(values, errors, spectrum.residuals, spectrum.zero, unit, frequencies, spread)
    )


def eigenpair_rows(
    values: Sequence[float] | np.ndarray,
    errors: Sequence[float] | np.ndarray | None,
    residuals: Sequence[float] | np.ndarray,
    zeros: Sequence[bool] | np.ndarray,
    unit: str,
    frequencies: Sequence[float] | np.ndarray | None,
    spread: Sequence[float] | np.ndarray | None,
) -> tuple[list[str], list[list[str]]]:
    """Return heads and rows of a table of eigenpairs. Not collective.

    Parameters
    ----------
    errors, spread
        Error bars of eigenvalues and frequencies, None for none.
    unit, frequencies
        Of an eigenvalue as a frequency, negative where it is imaginary; None for none.
    """
    bar = [] if errors is None else ["±"]
    heads = ["mode", "eigenvalue", *bar, *([unit, *bar] if frequencies is not None else []), "backward error", ""]
    rows = []
    for i, (value, zero) in enumerate(zip(values, zeros, strict=True)):
        note = "zero" if zero else "negative curvature" if value < 0 else ""
        if errors is not None and not zero and not abs(value) > errors[i]:
            note = "sign open"
        row = [str(i + 1), f"{value:.10g}"]
        if errors is not None:
            row.append(f"{errors[i]:.1e}")
        if frequencies is not None:
            row.append(f"{abs(frequencies[i]):.4f}" + ("i" if frequencies[i] < 0 and not zero else ""))
        if spread is not None:
            row.append(f"{spread[i]:.2g}")
        rows.append([*row, f"{residuals[i]:.1e}", note])
    return heads, rows


def reading_notes(origins: Sequence[Origin]) -> list[str]:
    """Return what is to be said of how files were read, a sentence each. Not collective."""
    return [f"{origin.path}: {sentence}" for origin in origins for sentence in origin.said]


def notes_told(origins: Sequence[Origin]) -> str:
    """Return what is to be said of how files were read, lines that follow others. Not collective."""
    return "".join(f"\nnote         {sentence}" for sentence in reading_notes(origins))


def count_line(
    count: Count,
    nulls: int = 0,
    names: Sequence[str] = (),
    zeros: int = 0,
    listed: int | None = None,
    place: str | None = None,
) -> str:
    """Return what an inertia count says: how many there are, what they are, and whether one was missed.

    Not collective.

    Parameters
    ----------
    nulls, names
        How many null vectors were deflated, and their names, if they have any.
    zeros
        How many of the eigenvalues found are zero to their accuracy.
    listed
        How many pairs the answer has, where the count may hold more: its end moves up to a gap. Default all.
    place
        Where it counts, in words. Default the interval of λ.
    """
    deflated = nulls if count.holds_zero else 0
    found = count.found - deflated - zeros
    parts = [f"{deflated} {_name_null_vectors(names, deflated)}"] if deflated else []
    parts += [f"{zeros} zero"] if zeros else []
    more = 0 if listed is None else max(0, found + zeros - listed)
    beyond = f" ({more} beyond those asked for)" if more else ""
    parts += [f"{found} found{beyond}"] if found or not parts else []
    parts += [f"{count.group} more from the last one on, not asked for"] if count.group else []
    unsure = not count.certified and count.found == count.inertia  # what was repaired is not what is missing
    repaired = (
        f" after {count.repairs} repair{'s' if count.repairs > 1 else ''}" if count.repairs and not unsure else ""
    )
    notes = ["certified"] if count.certified else []
    notes += [] if count.margin is None else [f"margin {count.margin:.1g}"]
    told = f" ({', '.join(notes)})" if notes else ""
    return f"{count.inertia} {place or count.place}: {', '.join(parts)}; {_verdict(count)}{repaired}{told}"


def _name_null_vectors(names: Sequence[str], number: int) -> str:
    """Return what null vectors are called together."""
    if names and all(name.startswith(("translation", "rotation")) for name in names):
        return "rigid"
    return names[0] if len(names) == 1 else "null vector" + ("s" if number > 1 else "")


def _verdict(count: Count) -> str:
    """Return whether eigenvalues were missed, and where."""
    if count.certified:
        return "none missed"
    missing = count.inertia - count.found - count.group
    if count.blurred:
        return "NOT certified: residuals do not tell on which side of an end pairs lie"
    if missing == 0:
        return "NOT certified: rounding can move one across an end"
    told = f"{missing} MISSED" if missing > 0 else f"{-missing} more found than there are"
    pieces = ", ".join(count.places_unresolved)
    return f"NOT certified: {told}" + (f" ({pieces})" if pieces else "")
