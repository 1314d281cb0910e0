"""What pages tell of each task: eigenpairs, densities, colourings, Hessians."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from html import escape
from typing import Any

import numpy as np

from sparsehess.commands.reports.bitmaps import hue_colors, shade_counts
from sparsehess.commands.reports.charts import Chart, Scale, density_floor, spans_decades
from sparsehess.commands.reports.error_words import error_words
from sparsehess.commands.reports.html import details, figure, figures, paragraph, section, table
from sparsehess.commands.reports.records import Record
from sparsehess.commands.reports.tables import eigenpair_rows
from sparsehess.commands.reports.unit_names import unit_told
from sparsehess.commands.reports.verdicts import not_proven, points_of, verdict_of
from sparsehess.eigen.certificates.statement import STATEMENT

# Rows of a table of eigenpairs, and points of a chart; of more the first and the last are shown.
_ROWS, _POINTS = 120, 4000

# What the checks of a Hessian are called.
_CHECKS = {"hvp_error": "product along a random direction, relative error", "passed": "passed"}

# In the name of an attempt that did not reach its number of colours.
_GIVEN_UP = "given up"

# Standard errors that a band reaches to either side.
_BAND = 2.0


def _eigs(record: Record, structure: str) -> list[str]:
    facts = record.facts
    return [
        _verdict(facts),
        asked_section(record, _asked(facts)),
        section("Spectrum", _spectrum(facts)),
        structure,
        section("Eigenpairs", *_eigenpairs(facts)),
        section("How far it can be trusted", *_trust(facts)),
        _pattern(record),
    ]


def _verdict(facts: dict[str, Any]) -> str:
    kind, headline, sentences = verdict_of(facts)
    told = "".join(paragraph(one) for one in sentences)
    return f'<div class="verdict {kind}"><strong>{escape(headline)}</strong>{told}</div>'


def _asked(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what was asked, and the sizes."""
    which = str(facts["which"])
    if facts.get("interval") is not None:
        low, high = (
            ("−∞", "∞")[side] if end is None else f"{end:g}" for side, end in enumerate(facts["interval"])
        )
        asked = f"all from {low} to {high}"
    elif facts.get("target") is not None:
        asked = f"{facts['k']} nearest to {facts['target']:g}"
    else:
        asked = f"{facts['k']} {'largest in magnitude' if which == 'magnitude' else which}"
    found = [
        ("eigenvalues", asked),
        ("found", str(len(facts["eigenvalues"]))),
        *_sizes(facts),
        ("method", str(facts["method"])),
    ]
    if facts.get("tol") is not None:
        found.append(("tolerance", f"{facts['tol']:.0e}"))
    if facts.get("deflated"):
        found.append(("null vectors", str(facts["deflated"])))
    mass = (facts.get("inputs") or {"mass": None}).get("mass")
    return [*found, ("mass matrix", "none" if mass is None else "yes")]


def _sizes(facts: dict[str, Any]) -> list[tuple[str, str]]:
    n, nnz = facts["n"], facts.get("nnz")
    entries = "never assembled" if nnz is None else f"{nnz:,}" + (f", {nnz / n:.1f} a row" if n else "")
    return [("variables", f"{n:,}"), ("entries", entries)]


def _spectrum(facts: dict[str, Any]) -> str:
    if not facts["eigenvalues"]:
        return paragraph("No eigenpair was found.")
    values, errors, zeros = _pairs(facts)
    told = facts.get("frequencies") or {}
    frequencies, spread = _numbers(told.get("values")), _numbers(told.get("errors"))
    return _spectrum_chart(values, errors, zeros, unit_told(facts), frequencies, spread)


def _pairs(facts: dict[str, Any]) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Return eigenvalues, their bars, and which are zero."""
    values = np.array(facts["eigenvalues"], np.float64)
    zeros = np.array(facts.get("zero") or np.zeros(len(values)), bool)
    return values, _numbers(facts.get("bars", facts.get("errors"))), zeros


def _eigenpairs(facts: dict[str, Any]) -> list[str]:
    values, errors, zeros = _pairs(facts)
    told, unit, residuals = facts.get("frequencies") or {}, unit_told(facts), _numbers(facts["residuals"])
    if residuals is None or not len(values):
        return [paragraph("There are none.")]
    frequencies, spread = _numbers(told.get("values")), _numbers(told.get("errors"))
    heads, rows = eigenpair_rows(values, errors, residuals, zeros, unit, frequencies, spread)
    heads = [f"frequency [{unit}]" if unit and head == unit else head for head in heads]
    left = len(rows) - _ROWS
    shown = rows if left <= 0 else [*rows[: _ROWS - 20], ["…"] + [""] * (len(heads) - 1), *rows[-20:]]
    caption = "In the order of the eigenvalues"
    if left > 0:
        caption += f"; {left} rows between the first and the last are left out"
    notes = [] if not any(row[-1] for row in rows) else ["note"]
    heads = [*heads[:-1], *notes]
    return [
        table(heads, [row[: len(heads)] for row in shown], caption, range(1, len(heads) - len(notes))),
        *_error_words(facts),
    ]


def _error_words(facts: dict[str, Any]) -> list[str]:
    """Return what the error bars are."""
    bound, exact = facts.get("error_bound"), ""
    if facts.get("errors") is None and facts.get("bars") is None:
        exact = (
            "The matrix is taken as it was given: there is no error of a Hessian, and eigenvalues have no bars."
        )
    told = "two standard deviations of what the error of the Hessian does, to first order"
    told += "" if bound is None else f"; no eigenvalue moves by more than {bound:.2g} (Weyl)"
    said = [f"{sentence[0].upper()}{sentence[1:]}." for sentence in error_words(facts, told)]
    return [paragraph(" ".join([exact, *said] if exact else said))]


def asked_section(record: Record, sizes: list[tuple[str, str]]) -> str:
    """Return what was asked: the command, and sizes. Not collective."""
    words = (record.facts.get("run") or {}).get("command")
    line = "" if not words else shlex.join(["sparsehess", *map(str, words)])
    command = f'<pre class="command">{escape(line)}</pre>' if line else ""
    return section("What was asked", command, figures(sizes))


def _numbers(values: Any) -> np.ndarray | None:
    return None if values is None else np.array([np.nan if one is None else one for one in values], np.float64)


def _spectrum_chart(
    values: np.ndarray,
    errors: np.ndarray | None,
    zeros: np.ndarray,
    unit: str,
    frequencies: np.ndarray | None,
    spread: np.ndarray | None,
) -> str:
    shown, bars = (values, errors) if frequencies is None else (frequencies, spread)
    step = -(-len(shown) // _POINTS)
    number = np.arange(1, len(shown) + 1)[::step]
    shown, zeros = shown[::step], zeros[::step]
    bars = np.zeros(len(shown)) if bars is None else np.nan_to_num(bars[::step], posinf=0.0)
    log = spans_decades(shown) and not zeros.any()
    what = f"frequency [{unit}]" if unit else "eigenvalue λ"
    if unit and (shown < 0).any():
        what = f"frequency [{unit}], imaginary ones below 0"
    ends = np.concatenate([shown - bars, shown + bars])
    chart = Chart(
        Scale.around(number, whole=True),
        Scale.around(shown if log else ends, log=log, zero=not log and bool(shown.min() <= 0.6 * shown.max())),
        "mode",
        what,
        f"{what} of {len(values)} modes, from {shown[0]:.6g} to {shown[-1]:.6g}",
    )
    chart.stems(number, shown)
    if not log and chart.y.low < 0 < chart.y.high:
        chart.level(0.0, "zero")
    seen = bars > 0.004 * (chart.y.high - chart.y.low)
    if seen.any() and not log:
        chart.bars(number[seen], (shown - bars)[seen], (shown + bars)[seen], "error", "error bar, two deviations")
    negative = (shown < 0) & ~zeros
    kinds = (
        ("", "imaginary frequency" if unit else "negative", negative, "negative"),
        ("", "zero to its accuracy", zeros, "zero"),
        ("", "positive" if negative.any() or zeros.any() else "", ~(negative | zeros), "plain"),
    )
    for _, name, which, kind in kinds:
        if which.any():
            pairs = zip(number[which], shown[which], strict=True)
            titles = [f"mode {i}: {value:.8g} {unit}".strip() for i, value in pairs]
            chart.points(number[which], shown[which], kind, name, titles)
    caption = "The eigenvalues in their order" if not unit else "Frequencies in their order"
    if bars.any() and not (seen.any() and not log):
        caption += f"; error bars are smaller than the points, {bars.max():.1g} at most"
    if step > 1:
        caption += f"; of {len(values)} every {step}. is drawn"
    return figure(chart.svg(), caption + ".")


def _trust(facts: dict[str, Any]) -> list[str]:
    """Return residuals, and the statement point by point."""
    residuals, held = _numbers(facts["residuals"]), facts.get("held_to") or facts.get("tol")
    parts = []
    if residuals is not None and len(residuals):
        number = np.arange(1, len(residuals) + 1)
        step = -(-len(number) // _POINTS)
        drawn = np.maximum(residuals, 1e-18)
        ends = drawn if held is None else np.append(drawn, held)
        chart = Chart(
            Scale.around(number, whole=True),
            Scale.around(ends, log=True),
            "mode",
            "backward error",
            f"Backward errors of {len(number)} pairs, {residuals.max():.1e} at most",
            height=220,
        )
        if held is not None:
            chart.level(held, "rule", f"allowed, {held:.0e}")
        chart.points(number[::step], drawn[::step], "plain", "computed anew from matrix and vector")
        parts.append(figure(chart.svg(), "How near a matrix is of which a pair is exact."))
    points = points_of(facts)
    parts.append(
        table(
            ["point", "here"], [[f"{i}. {one.name}", one.here] for i, one in enumerate(points, 1)],
            "What a certificate rests on, point by point",
        )
    )  # fmt: skip
    rest = "".join(f"<li>{escape(one)}</li>" for one in not_proven())
    parts.append(paragraph("Not proven by any certificate:") + f"<ul>{rest}</ul>")
    parts.append(details("The whole statement", f"<pre>{escape(STATEMENT)}</pre>"))
    verification = facts.get("verification")
    if verification:
        parts.append(_verification(verification))
    return parts


def _verification(found: dict[str, Any]) -> str:
    rows = [
        [_CHECKS.get(name, name.replace("_", " ")), _shown(value)]
        for name, value in found.items()
        if not isinstance(value, (list, dict))
    ]
    return table(["check", "found"], rows, "The Hessian against fresh products, along other steps than its own")


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _pattern(record: Record) -> str:
    """Return pattern and colouring, in words and pictures."""
    facts, pictures = record.facts, []
    if record.picture is not None:
        n = facts["n"]
        pictures.append(
            _spy(
                shade_counts(record.picture),
                n,
                "Entries of the matrix",
                "The pattern: the darker, the more entries in a square.",
            )
        )
    coloring = _coloring_facts(facts)
    if record.colors is not None:
        size = len(record.colors)
        part = "The colouring" if size == facts["n"] else f"The colouring of the first {size} rows and columns"
        caption = f"{part}: columns of one colour are stepped together."
        pictures.append(_spy(hue_colors(record.colors), size, "Colours of columns", caption))
    parts = [figures(_coloring_words(coloring))] if coloring else []
    if pictures:
        parts.append(f'<div class="pair">{"".join(pictures)}</div>')
    return section("Pattern and colouring" if coloring else "Pattern", *parts) if parts else ""


def _spy(rgb: np.ndarray, n: int, alt: str, caption: str) -> str:
    whole = Scale(0.0, float(max(n, 1)))
    chart = Chart(whole, whole, "column", "row", f"{alt}, {n} rows", width=420, height=388, down=True)
    chart.image(rgb)
    return figure(chart.svg(), caption)


def _coloring_facts(facts: dict[str, Any]) -> dict[str, Any]:
    return facts if facts["task"] == "color" else facts.get("coloring") or {}


def _coloring_words(told: dict[str, Any]) -> list[tuple[str, str]]:
    colors, bound = told["colors"], told["lower_bound"]
    least = "proven least" if told["optimal"] else f"at least {bound} are needed"
    rows = [
        ("colours", f"{colors}, {least}"),
        ("kind", str(told["kind"])),
        ("order", str(told["order"])),
        ("rule", str(told["rule"])),
        ("definition", "holds, checked entry by entry" if told["valid"] else "BROKEN"),
    ]
    if (told.get("amplification") or 1) > 1:
        rows.append(("errors of recovery", f"up to {told['amplification']:.0f} times those of differences"))
    return rows


def _color(record: Record, structure: str) -> list[str]:
    facts = record.facts
    good, colors, bound = facts["valid"], facts["colors"], facts["lower_bound"]
    if not good:
        kind, headline = "bad", "The colouring breaks its definition"
        told = "Entries of the Hessian cannot be told apart with it."
    elif facts["optimal"]:
        kind, headline = "good", f"{colors} colours: proven least"
        told = f"No colouring of this kind has fewer: {bound} are needed for a part of the pattern alone."
    else:
        kind, headline = "open", f"{colors} colours, at least {bound} are needed"
        told = f"Whether {colors} is the least is open: the lower bound is {bound}."
    n = facts["n"]
    gain = f" One Hessian takes {colors} compressed columns in place of {n:,}." if good else ""
    parts = [
        f'<div class="verdict {kind}"><strong>{escape(headline)}</strong>{paragraph(told + gain)}</div>',
        asked_section(record, _sizes(facts)),
        _pattern(record),
    ]
    attempts = facts.get("attempts") or []
    if len(attempts) > 1:
        shown = sorted(attempts, key=lambda one: (_GIVEN_UP in one["name"], one["count"]))[:40]
        rows = [
            [one["name"], str(one["count"]), f"{one['seconds']:.3f}", _attempt_note(one, colors)] for one in shown
        ]
        caption = "Orders and rules that were tried"
        if len(shown) < len(attempts):
            caption += f", the best {len(shown)} of {len(attempts)}"
        heads = ["order", "colours", "seconds", "note"]
        parts.append(section("Attempts", table(heads, rows, caption, (1, 2))))
    return parts


def _attempt_note(attempt: dict[str, Any], colors: int) -> str:
    if _GIVEN_UP in attempt["name"]:
        return "aimed at, not reached"
    return "as few as were taken" if attempt["count"] == colors else ""


def _assemble(record: Record, structure: str) -> list[str]:
    facts = record.facts
    found = facts.get("verification")
    if found is None:
        kind, headline, told = "open", "Not verified", "The check by a fresh product was left out (--no-verify)."
    else:
        kind, headline = "good", "Verified"
        told = (
            f"A fresh product along a random direction agrees to {found['hvp_error']:.1e}, by steps that are none "
            f"of the assembly's; the matrix is symmetric to {found['asymmetry']:.1e}."
        )
    error = f" The error is about {facts['error']:.1e} of the matrix."
    repaired = facts.get("repaired")
    if repaired:
        error += f" The pattern missed {repaired} entries, which were found and added."
    return [
        f'<div class="verdict {kind}"><strong>{escape(headline)}</strong>{paragraph(told + error)}</div>',
        asked_section(record, _sizes(facts)),
        _pattern(record),
        section("Checks", _verification(found)) if found else "",
    ]


def _density(record: Record, structure: str) -> list[str]:
    facts = record.facts
    exact = facts["method"] == "dense"
    asked = [
        *_sizes(facts),
        ("method", str(facts["method"])),
        ("spectrum", f"from {'' if exact else 'about '}{facts['range'][0]:.6g} to {facts['range'][1]:.6g}"),
        ("resolution", f"{facts['width']:.2g}"),
    ]
    if not exact:
        asked += [
            ("samples", f"{facts['samples']} of {facts['steps']} steps"),
            ("products", str(facts["products"])),
        ]
    return [
        asked_section(record, asked),
        section("Density of states", *_density_charts(facts)),
        _moments(facts, exact),
        _pattern(record),
    ]


def _density_charts(facts: dict[str, Any]) -> list[str]:
    grid, values, error = (np.array(facts[name], np.float64) for name in ("grid", "density", "stderr"))
    n, atoms, exact = facts["n"], facts.get("atoms") or [], facts["method"] == "dense"
    floor = density_floor(values, n, max(facts["width"], (grid[-1] - grid[0]) / max(len(grid) - 1, 1)))
    log = floor is not None
    low, high = np.maximum(values - _BAND * error, 0.0), values + _BAND * error
    least = floor or 0.0
    ends = np.concatenate([np.maximum(values, least), high])
    across = Scale(float(grid[0]), float(grid[-1]))
    chart = Chart(
        across,
        Scale.around(ends, log=log, zero=True),
        "eigenvalue λ",
        "share per unit of λ",
        f"Spectral density of {n} eigenvalues",
    )
    if not exact and error.any():
        chart.band(grid, np.maximum(low, least), np.maximum(high, least), "", "two standard errors")
    chart.line(grid, np.maximum(values, least), "", "density")
    for place, _ in atoms:
        chart.upright(place, "apart")
    caption = "Share of all eigenvalues per unit of λ" + (
        ", without those that are known apart." if atoms else "."
    )
    if log:
        caption += (
            " The scale is logarithmic, for a spike would hide the rest; it ends at a tenth of an eigenvalue."
        )
    cumulative, spread = (n * np.array(facts[name], np.float64) for name in ("cumulative", "cumulative_stderr"))
    steps = Chart(
        across,
        Scale(0.0, 1.04 * max(n, 1)),
        "eigenvalue λ",
        "eigenvalues up to λ",
        f"Number of eigenvalues up to λ, of {n}",
    )
    if not exact and spread.any():
        steps.band(
            grid,
            np.maximum(cumulative - _BAND * spread, 0),
            np.minimum(cumulative + _BAND * spread, n),
            "",
            "two standard errors",
        )
    steps.line(grid, cumulative, "", "count")
    for place, _ in atoms:
        steps.upright(place, "apart")
    parts = [
        figure(chart.svg(), caption),
        figure(
            steps.svg(), "Number of eigenvalues up to λ" + (", those known apart among them." if atoms else ".")
        ),
    ]
    if atoms:
        rows = [[f"{place:.10g}", str(times)] for place, times in atoms]
        parts.append(table(["eigenvalue", "times"], rows, "Eigenvalues known apart, dotted in the charts", (0, 1)))
    return parts


def _moments(facts: dict[str, Any], exact: bool) -> str:
    values, errors = _numbers(facts["moments"]), _numbers(facts["moments_stderr"])
    if values is None or errors is None:
        return ""
    rows = [
        [f"mean of λ{'²³⁴'[power - 2] if power > 1 else ''}", f"{values[power]:.8g}", f"{errors[power]:.1g}"][
            : 3 - exact
        ]
        for power in range(1, len(values))
    ]
    heads = ["moment", "value", "±"][: 3 - exact]
    return section("Moments", table(heads, rows, "Means over all eigenvalues", (1, 2)))


TASKS: dict[str, Callable[[Record, str], list[str]]] = {
    "eigs": _eigs,
    "spectrum": _eigs,
    "density": _density,
    "color": _color,
    "assemble": _assemble,
}
