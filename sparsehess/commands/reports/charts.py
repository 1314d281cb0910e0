"""Charts as SVG: axes with ticks, lines, bands, points with error bars, pictures of matrices."""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass, field
from html import escape

import numpy as np

from sparsehess.commands.reports.bitmaps import png

_LEFT, _RIGHT, _TOP, _BOTTOM = 78, 18, 14, 50

# A range of this ratio is shown on a logarithmic scale where all values are positive.
_DECADES = 1e3


@dataclass(frozen=True)
class Scale:
    """A scale from low to high, `log` where it is logarithmic, `whole` where it counts."""

    low: float
    high: float
    log: bool = False
    whole: bool = False

    @classmethod
    def around(cls, values: np.ndarray, *, log: bool = False, zero: bool = False, whole: bool = False) -> Scale:
        """Return the scale that shows all finite values, and zero where that is asked for. Not collective."""
        values = np.asarray(values, np.float64)
        values = values[np.isfinite(values) & (values > 0 if log else True)]
        if whole:
            return cls(float(values.min(initial=1)) - 0.6, float(values.max(initial=1)) + 0.6, whole=True)
        if not len(values):
            return cls(0.1, 1.0, True) if log else cls(0.0, 1.0)
        low, high = float(values.min()), float(values.max())
        if log:
            low, high = math.log10(low), math.log10(high)
            room = max(0.06 * (high - low), 0.15)
            return cls(10 ** max(low - room, -300), 10 ** min(high + room, 300), True)
        if zero:
            low, high = min(low, 0.0), max(high, 0.0)
        room = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
        return cls(low if zero and low == 0 else low - room, high if zero and high == 0 else high + room)

    def places(self, values: np.ndarray) -> np.ndarray:
        """Return where values are, from 0 to 1; what is beyond the ends is at them. Not collective."""
        values, low, high = np.asarray(values, np.float64), self.low, self.high
        if self.log:
            with np.errstate(divide="ignore", invalid="ignore"):
                values = np.log10(np.where(values > 0, values, self.low))
            low, high = math.log10(low), math.log10(high)
        return np.clip((values - low) / (high - low), 0.0, 1.0)

    def ticks(self, about: int = 6) -> list[tuple[float, str]]:
        """Return ticks and their labels. Not collective."""
        if self.log:
            first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
            every = max(1, -(-(last - first + 1) // about))
            if last > first:
                return [(10.0**power, _power(power)) for power in range(first, last + 1, every)]
        rough = max((self.high - self.low) / about, float(self.whole))
        size = 10.0 ** math.floor(math.log10(rough))
        nice = (1, 2, 5, 10) if self.whole else (1, 2, 2.5, 5, 10)
        step = next(size * one for one in nice if size * one >= rough * 0.999)
        numbers = step * np.arange(math.ceil(self.low / step), math.floor(self.high / step) + 1)
        digits = max(0, -math.floor(math.log10(step) + 1e-9) + (f"{step:e}"[:3] == "2.5"))
        large = max(abs(self.low), abs(self.high))
        if large >= 1e6 or large < 1e-3:
            told = max(0, min(15, math.ceil(math.log10(large / step)) + 1))
            return [(float(one), _scientific(float(one), told)) for one in numbers]
        return [(float(one), f"{one + 0.0:.{digits}f}".replace("-", "−")) for one in numbers]


def spans_decades(values: np.ndarray) -> bool:
    """Return whether values are positive and so unlike that a linear scale hides most of them. Not collective."""
    values = np.asarray(values)
    return len(values) > 1 and bool((values > 0).all()) and bool(values.max() > _DECADES * np.median(values))


def density_floor(values: np.ndarray, n: int, width: float) -> float | None:
    """Return the lower end of a logarithmic scale for a density that has a spike, None where it has none.

    Not collective. A tenth of one eigenvalue within the width that is resolved is nothing that is to be seen.
    """
    positive = values[values > 0]
    if not len(positive) or not values.max() > 30 * np.median(values):
        return None
    least = 0.1 / (max(n, 1) * width) if width > 0 else positive.min()
    return float(min(least, 0.01 * values.max()))


def _power(power: int) -> str:
    digits = str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return {0: "1", 1: "10"}.get(power, f"10{digits}")


def _scientific(value: float, told: int) -> str:
    if value == 0:
        return "0"
    mantissa, _, power = f"{value:.{told}e}".partition("e")
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    return f"{mantissa}×{_power(int(power))}".replace("-", "−")


@dataclass
class Chart:
    """A chart that is built up: `line`, `band`, `points` and so on add to it, and `svg` returns it.

    *Not collective.*

    Attributes
    ----------
    x, y
        Scales.
    xlabel, ylabel
        With units.
    alt
        What it shows, for those who do not see it.
    """

    x: Scale
    y: Scale
    xlabel: str
    ylabel: str
    alt: str
    width: int = 720
    height: int = 320
    down: bool = False
    _drawn: list[str] = field(default_factory=list)
    _legend: list[tuple[str, str, str]] = field(default_factory=list)

    def _at(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        across, up = self.x.places(x), self.y.places(y)
        wide, high = self.width - _LEFT - _RIGHT, self.height - _TOP - _BOTTOM
        return _LEFT + wide * across, _TOP + high * (up if self.down else 1 - up)

    def line(self, x: np.ndarray, y: np.ndarray, kind: str, name: str = "") -> None:
        """Add a line through points. Not collective."""
        self._drawn.append(f'<path class="line {kind}" d="{_path(*self._at(x, y))}"/>')
        self._named("line", kind, name)

    def band(self, x: np.ndarray, low: np.ndarray, high: np.ndarray, kind: str, name: str = "") -> None:
        """Add the band between two lines. Not collective."""
        (across, up), (_, below) = self._at(x, high), self._at(x, low)
        path = _path(np.concatenate([across, across[::-1]]), np.concatenate([up, below[::-1]]))
        self._drawn.append(f'<path class="band {kind}" d="{path}Z"/>')
        self._named("band", kind, name)

    def stems(self, x: np.ndarray, y: np.ndarray) -> None:
        """Add lines from zero, or the lower end, to points. Not collective."""
        floor = self.y.low if self.y.log else min(max(0.0, self.y.low), self.y.high)
        self.bars(x, np.full(len(x), floor), y, "stem", caps=0)

    def bars(
        self, x: np.ndarray, low: np.ndarray, high: np.ndarray, kind: str, name: str = "", caps: float = 3.0
    ) -> None:
        """Add upright bars, with caps such as error bars have. Not collective."""
        (across, first), (_, last) = self._at(x, low), self._at(x, high)
        pieces = [
            f"M{a:.1f} {b:.1f}V{c:.1f}"
            + (f"M{a - caps:.1f} {b:.1f}h{2 * caps:.0f}M{a - caps:.1f} {c:.1f}h{2 * caps:.0f}" if caps else "")
            for a, b, c in zip(across, first, last, strict=True)
        ]
        self._drawn.append(f'<path class="bar {kind}" d="{"".join(pieces)}"/>')
        self._named("bar", kind, name)

    def points(
        self, x: np.ndarray, y: np.ndarray, kind: str, name: str = "", titles: list[str] | None = None
    ) -> None:
        """Add points, with words that are shown where a mouse rests on one. Not collective."""
        radius = 4.0 if len(x) <= 60 else 2.5
        words = [f"<title>{escape(title)}</title>" for title in titles or []] or [""] * len(x)
        self._drawn += [
            f'<circle class="point {kind}" cx="{a:.1f}" cy="{b:.1f}" r="{radius}">{title}</circle>'
            for a, b, title in zip(*self._at(x, y), words, strict=True)
        ]
        self._named("point", kind, name)

    def level(self, y: float, kind: str, name: str = "") -> None:
        """Add a line across. Not collective."""
        self.line(np.array([self.x.low, self.x.high]), np.array([y, y]), kind, name)

    def upright(self, x: float, kind: str, name: str = "") -> None:
        """Add a line from the lower to the upper end. Not collective."""
        self.line(np.array([x, x]), np.array([self.y.low, self.y.high]), kind, name)

    def image(self, rgb: np.ndarray) -> None:
        """Fill the chart with a picture, (rows, columns, 3) bytes. Not collective."""
        (left, right), (top, bottom) = self._at(
            np.array([self.x.low, self.x.high]), np.array([self.y.low, self.y.high])
        )
        data = base64.b64encode(png(rgb)).decode()
        self._drawn.append(
            f'<image x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{bottom - top:.1f}" '
            f'preserveAspectRatio="none" href="data:image/png;base64,{data}"/>'
        )

    def _named(self, shape: str, kind: str, name: str) -> None:
        if name:
            self._legend.append((shape, kind, name))

    def svg(self) -> str:
        """Return the chart. Not collective."""
        right, bottom = self.width - _RIGHT, self.height - _BOTTOM
        size = f"0 0 {self.width} {self.height}"
        style = f"max-width: {self.width}px"
        parts = [
            f'<svg class="chart" viewBox="{size}" style="{style}" role="img" aria-label="{escape(self.alt)}">'
        ]
        for value, label in self.x.ticks():
            at = self._at(np.array([value]), np.array([self.y.low]))[0][0]
            parts.append(f'<path class="grid" d="M{at:.1f} {_TOP}V{bottom}"/>')
            parts.append(f'<text class="tick" x="{at:.1f}" y="{bottom + 18}">{label}</text>')
        for value, label in self.y.ticks(5):
            at = self._at(np.array([self.x.low]), np.array([value]))[1][0]
            parts.append(f'<path class="grid" d="M{_LEFT} {at:.1f}H{right}"/>')
            parts.append(f'<text class="tick end" x="{_LEFT - 8}" y="{at + 4:.1f}">{label}</text>')
        parts += self._drawn
        wide, high, middle, centre = right - _LEFT, bottom - _TOP, (_TOP + bottom) / 2, (_LEFT + right) / 2
        parts += [
            f'<rect class="frame" x="{_LEFT}" y="{_TOP}" width="{wide}" height="{high}"/>',
            f'<text class="label" x="{centre}" y="{bottom + 40}">{escape(self.xlabel)}</text>',
            f'<text class="label" x="16" y="{middle}" transform="rotate(-90 16 {middle})">'
            f"{escape(self.ylabel)}</text>",
        ]
        return "".join([*parts, "</svg>", _legend(self._legend)])


def _path(x: np.ndarray, y: np.ndarray) -> str:
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x, y, strict=True)) if len(x) else ""


def _legend(entries: list[tuple[str, str, str]]) -> str:
    """Return what the marks of a chart mean, as a line below it."""
    marks = {
        "line": '<path class="line {}" d="M0 7H22"/>',
        "band": '<rect class="band {}" y="2" width="22" height="10"/>',
        "bar": '<path class="bar {}" d="M11 1V13M8 1H14M8 13H14"/>',
        "point": '<circle class="point {}" cx="11" cy="7" r="4"/>',
    }
    items = [
        '<li><svg viewBox="0 0 22 14" width="22" height="14" aria-hidden="true">'
        f"{marks[shape].format(kind)}</svg> {escape(name)}</li>"
        for shape, kind, name in entries
    ]
    return f'<ul class="legend">{"".join(items)}</ul>' if items else ""


def bar_rows(rows: list[tuple[str, float, str]], alt: str) -> str:
    """Return sideways bars as a table: (name, size, label) each. Not collective."""
    most = max((size for _, size, _ in rows), default=0.0) or 1.0
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td class="room">'
        '<svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="bar-fill" width="{100 * size / most:.2f}" height="10"/></svg></td>'
        f'<td class="number">{escape(label)}</td></tr>'
        for name, size, label in rows
    )
    return f'<table class="bars"><caption>{escape(alt)}</caption><tbody>{body}</tbody></table>'
