"""Pictures of patterns, colourings, spectra and densities. Rank 0 draws them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsehess.coloring import Coloring
from sparsehess.commands.reports.bitmaps import hue_colors
from sparsehess.commands.reports.charts import density_floor, spans_decades
from sparsehess.commands.reports.unit_names import unit_name
from sparsehess.derivatives.units import Units
from sparsehess.eigen.problem.spectrum import Spectrum
from sparsehess.runtime import optional
from sparsehess.storage.atomic_files import write_file

if TYPE_CHECKING:
    from sparsehess.eigen.estimates import Density

SUFFIXES = (".png", ".pdf", ".svg")

# Rows and columns of which a picture shows the colours.
CORNER = 300

# Level of the error bands.
_LEVEL = 0.9


def plot_coloring(
    path: str | os.PathLike[str], picture: np.ndarray | None, n: int, coloring: Coloring, title: str
) -> None:
    """Draw the coloured matrix, its first rows and columns, into a picture file.

    Not collective: rank 0 calls it.

    Raises
    ------
    StackError
        matplotlib is missing.
    """
    matplotlib, plt = _matplotlib()
    figure, axis = plt.subplots(figsize=(7.2, 6))
    many = max(coloring.count, 1)
    colors = matplotlib.colors.ListedColormap(hue_colors(np.arange(many)) / 255)
    shown = np.ma.masked_less(np.zeros((1, 1)) if picture is None else picture, 0)
    size = len(shown)
    image = axis.imshow(
        shown, cmap=colors, vmin=-0.5, vmax=many - 0.5, extent=(0, size, size, 0), interpolation="nearest"
    )
    bar = figure.colorbar(image, ax=axis, fraction=0.046, pad=0.03)
    bar.set_label("colour of the column")
    bar.ax.yaxis.get_major_locator().set_params(integer=True)
    part = "" if size == n else f", the first {size} of {n:,} rows"
    axis.set(xlabel="column", ylabel="row", title=f"{title}\n{coloring.count} colours, {coloring.kind}{part}")
    _save(figure, path)


def plot_spectrum(
    path: str | os.PathLike[str],
    spectrum: Spectrum,
    units: Units | None,
    picture: np.ndarray | None,
    n: int,
    title: str,
) -> None:
    """Draw spectrum and pattern into a picture file.

    Not collective: rank 0 calls it.

    Raises
    ------
    StackError
        matplotlib is missing.
    """
    _, plt = _matplotlib()
    figure, axes = plt.subplots(
        1, 2 if picture is not None else 1, figsize=(11 if picture is not None else 6, 4.6)
    )
    axis = np.atleast_1d(axes)[0]
    _draw_eigenvalues(axis, spectrum, units)
    if picture is not None:
        axis = axes[1]
        shown = np.ma.masked_equal(picture, 0)
        image = axis.imshow(shown, cmap="viridis_r", norm="log", extent=(0, n, n, 0), interpolation="nearest")
        if picture.max(initial=0) > 1:
            figure.colorbar(image, ax=axis, fraction=0.046, pad=0.03).set_label("entries in a square")
        axis.set(xlabel="column", ylabel="row", title=f"pattern, {picture.sum():,} entries")
    figure.suptitle(title)
    _save(figure, path)


def _draw_eigenvalues(axis: Any, spectrum: Spectrum, units: Units | None) -> None:
    """Draw eigenvalues, or frequencies, in their order, with error bars."""
    values, bars = spectrum.eigenvalues, spectrum.bars
    if units is not None:
        bars = None if bars is None else units.of_errors(values, bars)
        values = units.of_eigenvalues(values)
    number = np.arange(1, len(values) + 1)
    zeros = spectrum.zero if len(spectrum.zero) == len(values) else np.zeros(len(values), bool)
    if spans_decades(values) and not zeros.any():
        axis.set_yscale("log")
    else:
        axis.vlines(number, 0, values, color="0.75", lw=2)
        axis.axhline(0, color="0.3", lw=0.8)
    if bars is not None:
        axis.errorbar(number, values, np.nan_to_num(bars, posinf=0.0), fmt="none", color="0.2", capsize=2)
    negative = (values < 0) & ~zeros
    kinds = (
        (~(zeros | negative), "positive", {"color": "C0"}),
        (negative, "imaginary, drawn below 0" if units else "negative", {"color": "C3"}),
        (zeros, "zero to its accuracy", {"color": "C0", "mfc": "white"}),
    )
    for which, name, how in kinds:
        if which.any():
            axis.plot(number[which], values[which], "o", label=name, **how)
    if negative.any() or zeros.any():
        axis.legend()
    what = f"frequency [{unit_name(units.frequency)}]" if units else "eigenvalue λ"
    axis.set(xlabel="mode", ylabel=what, title="spectrum")
    axis.xaxis.get_major_locator().set_params(integer=True)


def plot_density(path: str | os.PathLike[str], found: Density, title: str) -> None:
    """Draw a density with its error band and atoms, and the cumulative count, into a picture file.

    Not collective: rank 0 calls it. The scale is logarithmic where a spike would hide the rest.

    Raises
    ------
    StackError
        matplotlib is missing.
    """
    _, plt = _matplotlib()
    figure, (above, below) = plt.subplots(2, 1, figsize=(7.5, 6.5), sharex=True)
    exact, bars = found.method == "dense", found.bars(_LEVEL)
    cell = max(found.width, float(np.ptp(found.grid)) / max(len(found.grid) - 1, 1))
    floor = density_floor(found.density, found.n, cell)
    least = floor or 0.0
    if floor is not None:
        above.set_yscale("log")
    if not exact:
        low, high = (np.maximum(found.density + side * bars, least) for side in (-1, 1))
        above.fill_between(found.grid, low, high, color="C0", alpha=0.3, lw=0, label=f"{_LEVEL:.0%} within")
    above.plot(found.grid, np.maximum(found.density, least), color="C0", label="density")
    made = "all eigenvalues" if exact else f"{found.samples} samples of {found.steps} steps"
    above.set(ylabel="share per unit of λ", title=f"{title}: {made}")
    above.set_ylim(bottom=least)
    for number, (place, times) in enumerate(found.atoms):
        above.axvline(place, color="C3", lw=1, ls=":", label="" if number else "known apart")
        below.annotate(f"{times}", (place, 0), color="C3", ha="center", va="bottom")
    above.legend()
    total, spread = found.n * found.cumulative, found.n * found.cumulative_stderr
    if not exact:
        below.fill_between(
            found.grid, total - 2 * spread, total + 2 * spread, color="C0", alpha=0.3, lw=0, step="mid",
            label="two standard errors",
        )  # fmt: skip
        below.legend(loc="upper left")
    below.plot(found.grid, total, color="C0", drawstyle="steps-mid")
    below.set(xlabel="eigenvalue λ", ylabel="eigenvalues up to λ", ylim=(0, 1.02 * found.n))
    _save(figure, path)


def plot_phonons(path: str | os.PathLike[str], facts: dict[str, Any], title: str) -> None:
    """Draw bands, and beside them the density of states, into a picture file.

    Not collective: rank 0 calls it. Imaginary frequencies lie below zero.

    Parameters
    ----------
    facts
        The answer of `phonons`.

    Raises
    ------
    StackError
        matplotlib is missing.
    """
    _, plt = _matplotlib()
    bands, density = facts["bands"], facts["density"]
    widths = [one for one, there in ((3, bands), (1, density)) if there is not None]
    figure, axes = plt.subplots(
        1, len(widths), figsize=(8.0, 5.0), sharey=True, squeeze=False, width_ratios=widths
    )
    left = axes[0]
    left[0].set(ylabel=f"frequency ({unit_name(facts['unit'])})", title=title)
    for axis in left:
        axis.axhline(0.0, color="0.6", lw=0.8)
    if bands is not None:
        axis, values = left[0], np.array(bands["frequencies"])
        axis.plot(bands["distances"], values, color="C0", lw=1)
        places = [label["distance"] for label in bands["labels"]]
        axis.set_xticks(places, [label["name"].replace("G", "\u0393") for label in bands["labels"]])
        for place in places:
            axis.axvline(place, color="0.8", lw=0.8, zorder=0)
        axis.set_xlim(0, places[-1])
    if density is not None:
        left[-1].plot(density["states"], density["grid"], color="C0", lw=1)
        left[-1].set(xlabel=f"states per {unit_name(facts['unit'])}", xlim=(0, None))
    _save(figure, path)


def _matplotlib() -> tuple[Any, Any]:
    matplotlib = optional("matplotlib", "--plot", "plot")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return matplotlib, plt


def _save(figure: Any, path: str | os.PathLike[str]) -> None:
    import matplotlib.pyplot as plt

    figure.tight_layout()
    with write_file(Path(path)) as beside:
        figure.savefig(beside, dpi=130, format=Path(path).suffix.lstrip(".") or "png")
    plt.close(figure)
