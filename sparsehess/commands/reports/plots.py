"""Pictures of patterns, colourings, spectra and densities. Rank 0 draws them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsehess.coloring import Coloring
from sparsehess.derivatives.units import Units
from sparsehess.eigen.problem.spectrum import Spectrum
from sparsehess.runtime import optional
from sparsehess.storage.atomic_files import write_file

if TYPE_CHECKING:
    from sparsehess.eigen.estimates import Density

SUFFIXES = (".png", ".pdf", ".svg")

# Level of the error bands.
_LEVEL = 0.9


def plot_coloring(
    path: str | os.PathLike[str], picture: np.ndarray | None, n: int, coloring: Coloring, title: str
) -> None:
    """Draw the coloured matrix into a picture file.

    Not collective: rank 0 calls it.

    Raises
    ------
    StackError
        matplotlib is missing.
    """
    matplotlib, plt = _matplotlib()
    figure, axis = plt.subplots(figsize=(6.4, 6))
    # Neighbouring numbers get unlike hues.
    hue = (np.arange(max(coloring.count, 1)) * 0.618034) % 1.0
    colors = matplotlib.colors.ListedColormap(matplotlib.colormaps["hsv"](hue))
    shown = np.ma.masked_less(picture, 0)
    axis.imshow(
        shown, cmap=colors, vmin=0, vmax=max(coloring.count, 1), extent=(0, n, n, 0), interpolation="nearest"
    )
    axis.set(xlabel="column", ylabel="row", title=f"{title}: {coloring.count} colors, {coloring.kind}")
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
    _save(figure, path)


def plot_density(path: str | os.PathLike[str], found: Density, title: str) -> None:
    """Draw a density with its error band and atoms, and the cumulative count, into a picture file.

    Not collective: rank 0 calls it.

    Raises
    ------
    StackError
        matplotlib is missing.
    """
    _, plt = _matplotlib()
    figure, (above, below) = plt.subplots(2, 1, figsize=(7.5, 6.5), sharex=True)
    bars = found.bars(_LEVEL)
    above.fill_between(
        found.grid, np.maximum(found.density - bars, 0), found.density + bars, color="C0", alpha=0.3
    )
    above.plot(found.grid, found.density, color="C0")
    above.set(
        ylabel="share per unit of λ", title=f"{title}: {found.samples} x {found.steps} products", ylim=(0, None)
    )
    for place, times in found.atoms:
        above.axvline(place, color="C3", lw=1, ls=":")
        below.annotate(f"{times}", (place, 0), color="C3", ha="center", va="bottom")
    total, spread = found.n * found.cumulative, found.n * found.cumulative_stderr
    below.fill_between(found.grid, total - 2 * spread, total + 2 * spread, color="C0", alpha=0.3, step="mid")
    below.plot(found.grid, total, color="C0", drawstyle="steps-mid")
    below.set(xlabel="λ", ylabel="eigenvalues up to λ", ylim=(0, 1.02 * found.n))
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
