"""Draw the figures of the explanations, beside their pages: python docs/figures/explanation_figures.py"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("svg")

import matplotlib.pyplot as plt
import numpy as np
import scipy.sparse as sp
from matplotlib.patches import Rectangle

import sparsehess as sh

PAGES = Path(__file__).resolve().parent.parent / "explanation"
FIRST = ("#4c78a8", "#e8833a", "#54a24b", "#d64f7f", "#8c6bb1", "#c8a415", "#72b7b2", "#9d755d")
COLORS = np.array([*FIRST, "#555555", "#1b4965", "#7f3b08", "#0b6e4f", "#b30059"])
INK, MIXED = "#333333", "#d9d9d9"


def grid(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (nodes, 2) places and (edges, 2) neighbours of a plane grid."""
    number = np.arange(rows * columns).reshape(rows, columns)
    edges = np.concatenate(
        [
            np.stack([number[:, :-1], number[:, 1:]], -1).reshape(-1, 2),
            np.stack([number[:-1], number[1:]], -1).reshape(-1, 2),
        ]
    )
    places = np.stack(np.meshgrid(np.arange(columns), -np.arange(rows)), -1).reshape(-1, 2)
    return places, edges


def hub(leaves: int) -> tuple[np.ndarray, np.ndarray]:
    """Return places and neighbours of a closed chain around a variable that is coupled with all."""
    angle = 2 * np.pi * np.arange(leaves) / leaves
    places = np.concatenate([[[0.0, 0.0]], np.stack([np.sin(angle), np.cos(angle)], 1)]) * leaves / 5
    ring = 1 + np.arange(leaves)
    edges = [np.stack([np.zeros(leaves, int), ring], 1), np.stack([ring, np.roll(ring, -1)], 1)]
    return places, np.concatenate(edges)


def draw_graph(axes: plt.Axes, places: np.ndarray, edges: np.ndarray, colors: np.ndarray, title: str) -> None:
    """Draw a graph with its vertices coloured and numbered."""
    for i, j in edges:
        axes.plot(*places[[i, j]].T, color="0.6", linewidth=1.0, zorder=1)
    axes.scatter(*places.T, s=170, c=COLORS[colors % len(COLORS)], zorder=2)
    for number, place in enumerate(places):
        axes.annotate(str(number), place, ha="center", va="center", color="white", fontsize=7, zorder=3)
    axes.set_title(title, fontsize=9)
    axes.set_aspect("equal")
    axes.margins(0.15)
    axes.set_axis_off()


def draw_cells(axes: plt.Axes, colors: list[list[str | None]], title: str) -> None:
    """Draw a matrix of cells, each in its colour, None for an empty one."""
    rows, columns = len(colors), len(colors[0])
    for i, row in enumerate(colors):
        for j, color in enumerate(row):
            if color is not None:
                axes.add_patch(Rectangle((j + 0.06, i + 0.06), 0.88, 0.88, color=color, linewidth=0))
    axes.add_patch(Rectangle((0, 0), columns, rows, fill=False, color="0.5", linewidth=0.8))
    axes.set(xlim=(-0.3, columns + 0.3), ylim=(rows + 0.3, -0.3))
    axes.set_title(title, fontsize=9)
    axes.set_aspect("equal")
    axes.set_axis_off()


def compression(file: Path) -> None:
    """Draw a graph, its matrix, the seed matrix, and the compressed matrix with what can be read directly."""
    places, edges = hub(12)
    n = len(places)
    pattern = sh.Pattern.from_edges(edges, n)
    coloring = sh.color(pattern)
    color, structure = coloring.colors, pattern.to_scipy().toarray() != 0
    matrix = [[COLORS[color[j]] if structure[i, j] else None for j in range(n)] for i in range(n)]
    seed = [[COLORS[c] if color[i] == c else None for c in range(coloring.count)] for i in range(n)]
    product = []
    for i in range(n):
        row: list[str | None] = []
        for c in range(coloring.count):
            members = np.flatnonzero(structure[i] & (color == c))
            row.append(COLORS[c] if len(members) == 1 else MIXED if len(members) else None)
        product.append(row)
    figure = plt.figure(figsize=(8.6, 3.1), layout="constrained")
    widths = (12, 13, coloring.count + 2, coloring.count + 2)
    graph, whole, seeds, compressed = figure.subplots(1, 4, width_ratios=widths)
    draw_graph(graph, places, edges, color, "variables and couplings")
    draw_cells(whole, matrix, "Hessian, columns by colour")
    draw_cells(seeds, seed, "steps")
    draw_cells(compressed, product, "Hessian × steps")
    figure.savefig(file, metadata={"Date": None})


def kinds(file: Path) -> None:
    """Draw colourings of two graphs by three kinds."""
    figure, panels = plt.subplots(2, 3, figsize=(8.6, 4.8), layout="constrained", height_ratios=(1, 1.2))
    for row, (places, edges) in zip(panels, (grid(4, 6), hub(12)), strict=True):
        pattern = sh.Pattern.from_edges(edges, len(places))
        for axes, kind in zip(row, ("cpr", "star", "acyclic"), strict=True):
            coloring = sh.color(pattern, kind=kind)
            draw_graph(axes, places, edges, coloring.colors, f"{kind}: {coloring.count} colours")
    figure.savefig(file, metadata={"Date": None})


def substitution(file: Path) -> None:
    """Draw a chain in two colours, and how its entries are read one after another."""
    n = 7
    places = np.stack([np.arange(n), np.zeros(n)], 1)
    edges = np.stack([np.arange(n - 1), np.arange(1, n)], 1)
    figure, axes = plt.subplots(figsize=(7.0, 0.8), layout="constrained")
    draw_graph(axes, places, edges, np.arange(n) % 2, "")
    for step, (i, j) in enumerate(edges):
        axes.annotate(f"{step + 1}", (i + 0.5, 0.12), ha="center", color=INK, fontsize=9, annotation_clip=False)
        axes.annotate(
            "", (j - 0.2, 0.08), (i + 0.2, 0.08), arrowprops={"arrowstyle": "->", "color": INK, "lw": 0.8}
        )
    axes.set_ylim(-0.25, 0.35)
    figure.savefig(file, metadata={"Date": None})


def steps_taken(kind: type) -> tuple[float, float]:
    """Return (step, relative error) of central differences by sparsehess, of a gradient in this precision."""
    points: list[np.ndarray] = []

    def gradient(x: np.ndarray) -> np.ndarray:
        points.append(x)
        return slope(x.astype(kind)).astype(float)

    x = np.linspace(0.5, 1.5, SIZE)
    edges = np.stack([np.arange(SIZE - 1), np.arange(1, SIZE)], 1)
    objective = sh.Objective(x=x, gradient=gradient, pattern=sh.Pattern.from_edges(edges, SIZE), typical_x=1.0)
    with sh.assemble(objective, verify=False) as hessian:
        found = sp.csr_matrix(hessian.mat.getValuesCSR()[::-1], (SIZE, SIZE)).toarray()
    step = np.abs(points[-1] - x).max()
    return float(step), float(np.linalg.norm(found - exact(x)) / np.linalg.norm(exact(x)))


SIZE = 60


def slope(u: np.ndarray) -> np.ndarray:
    """Return the gradient of the sum of exp(u_i) + (u_{i+1} - u_i)⁴ / 4, in the precision of u."""
    d = np.diff(u) ** 3
    g = np.exp(u)
    g[1:] += d
    g[:-1] -= d
    return g


def exact(u: np.ndarray) -> np.ndarray:
    """Return its Hessian."""
    d = 3 * np.diff(u) ** 2
    diagonal = np.exp(u)
    diagonal[1:] += d
    diagonal[:-1] += d
    matrix: np.ndarray = np.diag(diagonal) - np.diag(d, 1) - np.diag(d, -1)
    return matrix


def error_by_step(file: Path) -> None:
    """Draw the error of a Hessian against the step, for three schemes and two precisions."""
    x, steps = np.linspace(0.5, 1.5, SIZE), np.logspace(-12, 0, 97)
    true = exact(x)
    schemes = {
        "forward": (((1, 1.0), (0, -1.0)), 1.0),
        "central": (((1, 0.5), (-1, -0.5)), 1.0),
        "extrapolated": (((1, 2 / 3), (-1, -2 / 3), (2, -1 / 12), (-2, 1 / 12)), 1.0),
    }
    figure, panels = plt.subplots(1, 2, figsize=(8.6, 3.3), sharey=True, layout="constrained")
    for axes, kind, name in zip(
        panels, (np.float64, np.float32), ("double precision", "single precision"), strict=True
    ):
        for color, (scheme, (nodes, _)) in zip(COLORS, schemes.items(), strict=False):
            errors = []
            for h in steps:
                columns = [
                    sum(weight * slope((x + node * h * unit).astype(kind)).astype(float) for node, weight in nodes)
                    / h
                    for unit in np.eye(SIZE)
                ]
                errors.append(np.linalg.norm(np.array(columns).T - true) / np.linalg.norm(true))
            axes.loglog(steps, errors, color=color, linewidth=1.2, label=scheme)
        step, error = steps_taken(kind)
        axes.plot(step, error, "o", color=INK, markersize=7, label="taken by itself, central")
        axes.set(title=f"gradient in {name}", xlabel="step", ylim=(1e-14, 10))
        axes.title.set_fontsize(10)
        axes.grid(color="0.9")
    panels[0].set_ylabel("relative error of the Hessian")
    panels[0].legend(frameon=False, fontsize=8)
    figure.savefig(file, metadata={"Date": None})


def staircase(file: Path) -> None:
    """Draw the number of eigenvalues below a place, and pairs of which one is missing."""
    term = 4 * np.sin(np.pi * np.arange(1, 11) / 22) ** 2
    values = np.sort(np.add.outer(np.add.outer(term, term), term).ravel())[:11]
    figure, axes = plt.subplots(figsize=(7.2, 3.2), layout="constrained")
    axes.step([0.1, *values, 1.05], [0, *range(1, len(values) + 1), len(values)], where="post", color=COLORS[0])
    height = np.arange(len(values)) + 0.5
    there = np.arange(len(values)) != 2
    axes.plot(values[there], height[there], "o", color=INK, markersize=5, label="found")
    axes.plot(values[~there], height[~there], "o", color=INK, markersize=5, fillstyle="none", label="missed")
    end = 0.6
    axes.axvline(end, color=COLORS[1], linewidth=1.0)
    axes.annotate("σ: 4 negative pivots, 3 pairs found below", (end, 4), (0.615, 2.2), color=COLORS[1], fontsize=9)
    axes.legend(frameon=False, fontsize=9)
    axes.set(xlabel="eigenvalue", ylabel="eigenvalues below", xlim=(0.1, 1.0), ylim=(-0.5, 11.5))
    figure.savefig(file, metadata={"Date": None})


def layouts(file: Path) -> None:
    """Draw which rank works on which gradient, in the three layouts of work."""
    figure, panels = plt.subplots(1, 3, figsize=(8.6, 2.5), layout="constrained")
    titles = ("replicated: each rank its colours", "distributed: all ranks together", "two groups of two")
    for axes, title in zip(panels, titles, strict=True):
        axes.set(title=title, xlim=(0, 6), ylim=(-0.2, 4), yticks=np.arange(4) + 0.4, xlabel="time", xticks=[])
        axes.set_yticklabels([f"rank {rank}" for rank in range(3, -1, -1)], fontsize=8)
        axes.title.set_fontsize(9)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.tick_params(left=False)

    def bar(axes: plt.Axes, rank: int, start: float, length: float, color: int) -> None:
        axes.add_patch(Rectangle((start, 3 - rank), length - 0.06, 0.8, color=COLORS[color]))
        axes.annotate(
            str(color + 1), (start + length / 2 - 0.03, 3.4 - rank), ha="center", va="center", color="white"
        )

    for color in range(8):
        bar(panels[0], color % 4, 2.6 * (color // 4), 2.6, color)
        for rank in range(4):
            bar(panels[1], rank, 0.72 * color, 0.72, color)
        for rank in (0, 1):
            bar(panels[2], 2 * (color % 2) + rank, 1.36 * (color // 2), 1.36, color)
    figure.savefig(file, metadata={"Date": None})


if __name__ == "__main__":
    plt.rcParams["svg.hashsalt"] = "sparsehess"
    compression(PAGES / "compression.svg")
    kinds(PAGES / "kinds.svg")
    substitution(PAGES / "substitution.svg")
    error_by_step(PAGES / "error-by-step.svg")
    staircase(PAGES / "staircase.svg")
    layouts(PAGES / "layouts.svg")
