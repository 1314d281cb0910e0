"""Frequencies over a speed, and where excitations of a rotation meet them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sparsehess.eigen.families.mode_events import ModeEvent
from sparsehess.runtime import optional
from sparsehess.storage.atomic_files import write_file

# How events are marked.
_MARKS = {"crossing": "o", "veering": "D", "unresolved": "x"}


class Excited(NamedTuple):
    """Where an excitation meets a mode.

    Attributes
    ----------
    order
        Excitations per revolution.
    mode
        Which curve.
    value, frequency
        Speed and frequency there.
    """

    order: float
    mode: int
    value: float
    frequency: float


def excited(values: np.ndarray, frequencies: np.ndarray, orders: Sequence[float], per: float) -> list[Excited]:
    """Return where the lines order x per x value meet curves (m, c), straight between values. Not collective."""
    found = []
    for order in orders:
        for mode, curve in enumerate(frequencies.T):
            above = curve - order * per * values
            for n in range(len(values) - 1):
                a, b = above[n], above[n + 1]
                if not np.isfinite(a + b) or not (a * b < 0 or (a == 0) != (b == 0 and n == len(values) - 2)):
                    continue
                part = a / (a - b)
                value = values[n] + part * (values[n + 1] - values[n])
                found.append(Excited(float(order), mode, float(value), float(order * per * value)))
    return sorted(found, key=lambda one: (one.value, one.order))


def save(path: str | os.PathLike[str], draw_on: Callable[[Any], None]) -> None:
    """Have a function draw on the axis of a picture file.

    Not collective: rank 0 calls it.

    Raises
    ------
    StackError
        matplotlib is missing.
    """
    matplotlib = optional("matplotlib", "a Campbell diagram", "plot")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7.2, 4.8))
    draw_on(axis)
    figure.tight_layout()
    with write_file(Path(path)) as beside:
        figure.savefig(beside, dpi=130, format=Path(path).suffix.lstrip(".") or "png")
    plt.close(figure)


def draw(
    axis: Any,
    values: np.ndarray,
    frequencies: np.ndarray,
    events: Sequence[ModeEvent],
    orders: Sequence[float],
    per: float,
) -> None:
    """Draw a Campbell diagram on an axis of matplotlib. Not collective: rank 0 calls it."""
    for mode, curve in enumerate(frequencies.T):
        there = np.flatnonzero(np.isfinite(curve))
        axis.plot(values, curve, color=f"C{mode % 10}", lw=1.6)
        axis.annotate(f" {mode}", (values[there[-1]], curve[there[-1]]), color=f"C{mode % 10}", va="center")
    low, top = min(0.0, float(np.nanmin(frequencies))), 1.05 * float(np.nanmax(frequencies))
    for order in orders:
        axis.plot(values, order * per * values, color="0.55", lw=1.0, ls="--", zorder=1)
        at = min(float(values.max()), top / (order * per) if order * per else np.inf)
        axis.annotate(f" {order:g}x", (0.55 * at, 0.55 * order * per * at), color="0.35", ha="left", va="top")
    met = excited(values, frequencies, orders, per)
    if met:
        places = [one.value for one in met], [one.frequency for one in met]
        axis.plot(*places, "s", ms=5, mfc="none", color="0.2", label="excited", zorder=4)
    for kind, mark in _MARKS.items():
        those = [one for one in events if one.kind == kind]
        if those:
            heights = [_height(one, values, frequencies) for one in those]
            places = [one.value for one in those], heights
            axis.plot(*places, mark, ms=8, mfc="none", color="k", label=kind, ls="none", zorder=5)
    axis.set(ylim=(low, top))
    if axis.get_legend_handles_labels()[0]:
        axis.legend(loc="best", fontsize=8)


def _height(event: ModeEvent, values: np.ndarray, frequencies: np.ndarray) -> float:
    """Return the mean of the curves of an event where it is. Not collective."""
    heights = [np.interp(event.value, *_rising(values, frequencies[:, mode])) for mode in event.modes]
    return float(np.mean(heights))


def _rising(values: np.ndarray, curve: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where a curve is there, by rising values."""
    there = np.isfinite(curve)
    order = np.argsort(values[there], kind="stable")
    return values[there][order], curve[there][order]
