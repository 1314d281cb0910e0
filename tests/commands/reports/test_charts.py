"""Charts and bitmaps: ticks that are where they say, pictures that other programs read."""

import io
import re

import numpy as np
import pytest
from matplotlib import image

from sparsehess.commands.reports.bitmaps import hue_colors, png, shade_counts
from sparsehess.commands.reports.charts import Chart, Scale, density_floor, spans_decades


@pytest.mark.parametrize(
    ("scale", "labels"),
    [
        (Scale(0.0, 10.0), ["0", "2", "4", "6", "8", "10"]),
        (Scale(-0.1, 0.35), ["−0.1", "0.0", "0.1", "0.2", "0.3"]),
        (Scale(1e-4, 1e3, True), ["10⁻⁴", "10⁻²", "1", "10²"]),
        (Scale(0.4, 5.6, whole=True), ["1", "2", "3", "4", "5"]),
        (Scale(0.0, 3e7), ["0", "5×10⁶", "1×10⁷", "1.5×10⁷", "2×10⁷", "2.5×10⁷", "3×10⁷"]),
    ],
)
def test_ticks(scale, labels):
    ticks = scale.ticks()
    assert [label for _, label in ticks] == labels
    assert all(scale.low <= value <= scale.high for value, _ in ticks)


def test_ticks_say_what_they_are():
    """Labels, read again, are the values, for scales of all sizes."""
    random = np.random.default_rng(0)
    digits = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹−", "-0123456789-")
    for _ in range(300):
        low = random.normal() * 10.0 ** random.integers(-8, 8)
        scale = Scale(low, low + 10.0 ** random.uniform(-6, 8))
        ticks = scale.ticks()
        assert 2 <= len(ticks) <= 9
        for value, label in ticks:
            mantissa, _, power = label.partition("×10")
            read = float(mantissa.translate(digits)) * 10.0 ** int(power.translate(digits) or 0)
            assert abs(read - value) <= 0.01 * (scale.high - scale.low), (scale, label)


def test_charts_hold_odd_numbers():
    for values in ([np.nan, 1.0], [np.inf, 2.0], [0.0, 0.0], [-1e-300, 1e300], [5.0]):
        y = np.array(values)
        for log in (False, True):
            chart = Chart(Scale(0, len(y)), Scale.around(y, log=log), "x", "y", "numbers")
            chart.line(np.arange(len(y)), np.nan_to_num(y, posinf=0.0), "")
            text = chart.svg()
            assert "nan" not in text and "inf" not in re.sub("infinite", "", text)


def test_png_is_read_by_others():
    random = np.random.default_rng(1)
    rgb = random.integers(0, 256, (37, 23, 3), dtype=np.uint8)
    read = image.imread(io.BytesIO(png(rgb)), format="png")
    assert np.array_equal(np.rint(255 * read[..., :3]).astype(np.uint8), rgb)


def test_shades_and_hues():
    shaded = shade_counts(np.array([[0, 1], [10, 1000]]))
    assert (shaded[0, 0] == 255).all() and shaded[0, 1].sum() > shaded[1, 0].sum() > shaded[1, 1].sum()
    assert np.array_equal(shade_counts(np.array([[0, 1]])), shade_counts(np.array([[0, 1]], np.uint16)))
    colors = hue_colors(np.arange(-1, 12))
    assert (colors[0] == 255).all() and len(np.unique(colors, axis=0)) == 13


def test_scales_on_which_a_spike_hides_nothing():
    assert spans_decades(np.geomspace(1e-6, 1e6, 9)) and not spans_decades(np.linspace(1, 9, 9))
    assert not spans_decades(np.array([-1.0, 1.0, 1e9]))
    bulk = np.full(500, 0.01)
    assert density_floor(bulk, 1000, 0.1) is None
    bulk[3] = 50.0
    assert density_floor(bulk, 1000, 0.1) == pytest.approx(1e-3)
