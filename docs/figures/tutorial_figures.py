"""Draw the figures of the tutorial, beside its pages: python docs/figures/tutorial_figures.py"""

from __future__ import annotations

import re
import subprocess
import sys
import types
from pathlib import Path

import matplotlib

matplotlib.use("svg")

import matplotlib.pyplot as plt
import numpy as np

import sparsehess as sh

DOCS = Path(__file__).resolve().parent.parent
INK, SECOND, THIRD = "#1f4e79", "#c0562a", "#5c7f3b"


def written_in(page: Path, name: str) -> types.SimpleNamespace:
    """Return what a page writes into the file `name` by cat, as a module."""
    body = re.search(rf"cat > {re.escape(name)} <<'END'\n(.*?)^END$", page.read_text(), re.DOTALL | re.MULTILINE)
    if body is None:
        raise ValueError(f"{page} writes no {name}")
    names: dict[str, object] = {"__name__": name}
    exec(compile(body.group(1), name, "exec"), names)
    return types.SimpleNamespace(**names)


def tower_of(mode: np.ndarray, height: int, squeeze: float, size: float) -> np.ndarray:
    """Return the places (3, 3, height, 3) of a tower that has moved along a mode."""
    axes = np.meshgrid(np.arange(3), np.arange(3), np.arange(height), indexing="ij")
    places = np.stack(axes, axis=-1) * [1.0, 1.0, squeeze]
    places[:, :, 1:-1] += size * mode.reshape(3, 3, height - 2, 3) / np.abs(mode).max()
    return places


def draw_tower(axes: plt.Axes, places: np.ndarray, color: str, title: str) -> None:
    """Draw the edges of a tower, seen from a corner."""
    x, y, z = np.moveaxis(places, -1, 0)
    seen = np.stack([0.9 * x - 0.5 * y, z + 0.12 * x + 0.2 * y], axis=-1)
    for axis in range(3):
        first, second = (np.moveaxis(seen, axis, 0)[part] for part in (slice(None, -1), slice(1, None)))
        for a, b in zip(first.reshape(-1, 2), second.reshape(-1, 2), strict=True):
            axes.plot(*np.stack([a, b], axis=1), color=color, linewidth=0.9)
    axes.set_title(title, fontsize=10)
    axes.set_aspect("equal")
    axes.set_axis_off()


def buckling(file: Path) -> None:
    """Draw the lowest eigenvalues of the tower against its height, and two of its modes."""
    tower = written_in(DOCS / "tutorial" / "negative-curvature.md", "tower.py").tower
    heights, found = np.linspace(0.9, 1.0, 21), []
    for squeeze in heights:
        with sh.assemble(tower(squeeze=squeeze)) as hessian, sh.eigs(hessian, 5) as spectrum:
            modes = np.stack([vector.getArray().copy() for vector in spectrum.vectors])
            turned = np.abs(twist(modes)) > 0.1
            found.append((spectrum.eigenvalues[turned][0], spectrum.eigenvalues[~turned][0]))
            if squeeze == heights[0]:
                twisted, bent = modes[turned][0], modes[~turned][0]
    figure = plt.figure(figsize=(8.4, 3.6), layout="constrained")
    grid = figure.add_gridspec(1, 3, width_ratios=(2.6, 1, 1))
    axes = figure.add_subplot(grid[0])
    axes.axhline(0.0, color="0.6", linewidth=0.8)
    for values, color, name in zip(np.array(found).T, (SECOND, INK), ("twist", "bulge (a pair)"), strict=True):
        axes.plot(heights, values, "o-", color=color, markersize=3, label=name)
    axes.set_xlabel("height, of that at rest")
    axes.set_ylabel("eigenvalue")
    axes.invert_xaxis()
    axes.legend(frameon=False)
    for place, mode, color, name in ((1, twisted, SECOND, "twist"), (2, bent, INK, "bulge")):
        draw_tower(figure.add_subplot(grid[place]), tower_of(mode, 12, 0.9, 1.0), color, name)
    figure.savefig(file, metadata={"Date": None})


def twist(modes: np.ndarray) -> np.ndarray:
    """Return (k,) how much the middle layer of each mode (k, 270) turns about the axis."""
    middle, across = modes.reshape(len(modes), 3, 3, 10, 3)[:, :, :, 5], np.array([-1.0, 0.0, 1.0])
    turned: np.ndarray = np.einsum("x,kxy->k", across, middle[..., 1]) - np.einsum(
        "y,kxy->k", across, middle[..., 0]
    )
    return turned


def stored(file: Path) -> None:
    """Draw the spectrum and the pattern of the cluster as the command of the page on results does."""
    cluster = f"{DOCS.parent / 'drivers' / 'lennard_jones.py'}:cluster"
    program = [sys.executable, "-m", "sparsehess", "eigs", cluster, "-k", "12", "--plot", file, "-q"]
    subprocess.run(program, check=True)


if __name__ == "__main__":
    plt.rcParams["svg.hashsalt"] = "sparsehess"
    buckling(DOCS / "tutorial" / "buckling.svg")
    stored(DOCS / "tutorial" / "modes.png")
