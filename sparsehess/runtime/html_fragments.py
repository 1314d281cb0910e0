"""Small tables and pictures for notebooks: HTML and SVG as text, without a drawing library.

Everything that is text is escaped. Axes have the colour of the text around them, so that dark pages show them too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

import numpy as np

# Size of a picture, and the margin that its numbers take, in pixels.
_WIDTH, _HEIGHT, _MARGIN = 420, 140, 16

_BLUE = "#1f77b4"


def fragment(title: str, *parts: str) -> str:
    """Return a block with a title and parts, which are HTML already.

    Not collective.
    """
    return f"<div><strong>{escape(title)}</strong>{''.join(parts)}</div>"


def table(rows: Iterable[Sequence[object]], heads: Sequence[str] = ()) -> str:
    """Return a table of texts and numbers.

    Not collective.
    """
    head = f"<tr>{''.join(f'<th>{escape(one)}</th>' for one in heads)}</tr>" if heads else ""
    body = "".join(f"<tr>{''.join(f'<td>{escape(str(one))}</td>' for one in row)}</tr>" for row in rows)
    return f"<table>{head}{body}</table>"


def note(text: str) -> str:
    """Return a line of small text.

    Not collective.
    """
    return f"<div><small>{escape(text)}</small></div>"


def squares(counts: np.ndarray, label: str) -> str:
    """Return a picture of a matrix (rows, columns) of counts: the more in a square, the darker it is.

    Not collective.
    """
    height, width = counts.shape
    top = float(counts.max(initial=0)) or 1.0
    scale = 240.0 / max(height, width, 1)
    cells = "".join(
        f'<rect x="{column}" y="{row}" width="1" height="1" '
        f'fill-opacity="{0.3 + 0.7 * float(counts[row, column]) / top:.2f}"/>'
        for row, column in zip(*np.nonzero(counts), strict=True)
    )
    return (
        f'<svg role="img" aria-label="{escape(label)}" width="{width * scale:.0f}" height="{height * scale:.0f}" '
        f'viewBox="0 0 {width} {height}" shape-rendering="crispEdges" style="border:1px solid currentColor">'
        f'<g fill="{_BLUE}">{cells}</g></svg>'
    )


def bars(heights: np.ndarray, label: str) -> str:
    """Return a picture of bars, one a number.

    Not collective.
    """
    top = float(heights.max(initial=0)) or 1.0
    step = _WIDTH / max(len(heights), 1)
    rects = "".join(
        f'<rect x="{number * step:.2f}" y="{_HEIGHT * (1 - float(one) / top):.2f}" width="{0.9 * step:.2f}" '
        f'height="{_HEIGHT * float(one) / top:.2f}"/>'
        for number, one in enumerate(heights)
    )
    return _picture(f'<g fill="{_BLUE}">{rects}</g>', label, _HEIGHT)


def curve(x: np.ndarray, y: np.ndarray, bar: np.ndarray, label: str) -> str:
    """Return a picture of a curve with a band of error bars; what is not finite is left out.

    Not collective.
    """
    good = np.isfinite(x) & np.isfinite(y)
    x, y, bar = x[good], y[good], np.nan_to_num(bar[good], nan=0.0, posinf=0.0, neginf=0.0)
    if not len(x):
        return ""
    low, high = float(x[0]), float(x[-1])
    top = float((y + bar).max(initial=0.0)) or 1.0
    across = (x - low) / (high - low or 1.0) * _WIDTH
    up, down, middle = (_HEIGHT * (1 - np.clip(one, 0.0, top) / top) for one in (y + bar, y - bar, y))
    there, back = np.stack([across, up], axis=1), np.stack([across, down], axis=1)[::-1]
    band, line = _points(np.concatenate([there, back])), _points(np.stack([across, middle], axis=1))
    return _picture(
        f'<polygon points="{band}" fill="{_BLUE}" fill-opacity="0.25"/>'
        f'<polyline points="{line}" fill="none" stroke="{_BLUE}"/>{_axis(low, high)}',
        label,
        _HEIGHT + _MARGIN,
    )


def ticks(values: np.ndarray, label: str) -> str:
    """Return a picture of numbers as marks on a line.

    Not collective.
    """
    values = values[np.isfinite(values)]
    if not len(values):
        return ""
    low, high = float(values.min()), float(values.max())
    across = (values - low) / (high - low or 1.0) * (_WIDTH - 2) + 1
    marks = "".join(f'<line x1="{a:.1f}" x2="{a:.1f}" y1="0" y2="24"/>' for a in across)
    return _picture(f'<g stroke="{_BLUE}">{marks}</g>{_axis(low, high, 24)}', label, 24 + _MARGIN)


def _points(places: np.ndarray) -> str:
    """Return places (m, 2) as SVG has them. Not collective."""
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in places.tolist())


def _axis(low: float, high: float, height: int = _HEIGHT) -> str:
    """Return a line with the numbers at its ends. Not collective."""
    at = height + _MARGIN - 4
    return (
        f'<line x1="0" x2="{_WIDTH}" y1="{height}" y2="{height}" stroke="currentColor"/>'
        f'<g fill="currentColor" font-size="11"><text x="0" y="{at}">{low:.4g}</text>'
        f'<text x="{_WIDTH}" y="{at}" text-anchor="end">{high:.4g}</text></g>'
    )


def _picture(inside: str, label: str, height: int) -> str:
    """Return a picture of the usual width. Not collective."""
    return (
        f'<div><svg role="img" aria-label="{escape(label)}" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}">{inside}</svg></div>'
    )
