"""What a count and a certificate say of a run, in plain words, point by point of the statement."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from sparsehess.commands.frequency_units import count_place
from sparsehess.commands.reports.tables import count_line
from sparsehess.eigen.certificates.statement import STATEMENT
from sparsehess.eigen.problem.count import Count


class Verdict(NamedTuple):
    """Whether eigenvalues are missing: `good`, `open` or `bad`, a headline, and sentences."""

    kind: str
    headline: str
    sentences: list[str]


class Point(NamedTuple):
    """A point of the statement: its name and text, and what it is in a run."""

    name: str
    text: str
    here: str


def count_of(facts: dict[str, Any]) -> Count | None:
    """Return the count of a stored run, None where none was made. Not collective."""
    return None if facts["count"] is None else Count.read(facts["count"])


def verdict_of(facts: dict[str, Any]) -> Verdict:
    """Return what is to be said first of eigenpairs. Not collective."""
    count, names = count_of(facts), tuple(facts.get("null_names") or ())
    short = facts.get("shortfall")
    failed = [f"The run failed: {short}."] if short else []
    if count is None:
        why = facts.get("uncounted") or "no count was made"
        told = [f"Whether one was missed was not counted: {why}."]
        if facts["eigenvalues"]:
            told.insert(0, "Each pair was checked by itself: near each value stands an eigenvalue of the matrix.")
        return Verdict("bad" if short else "open", "Not complete" if short else "Not counted", failed + told)
    units = facts.get("units") or {}
    place = count_place(count, units.get("frequency"), units.get("factor") or 1.0)
    line = count_line(count, facts.get("deflated", 0), names, facts["zeros"], len(facts["eigenvalues"]), place)
    told = [*failed, f"Count: {line}."]
    if not count.certified:
        told.append(
            "The number of eigenvalues in the interval, from factorizations at its ends (Sylvester's law of "
            "inertia), is not shown to be the number found: do not take the list for complete."
        )
        return Verdict("bad", "Not certified", told)
    counted = f"Factorizations at the ends of the interval count {count.inertia} eigenvalues {place} by"
    if count.group:
        told.append(
            f"{counted} Sylvester's law of inertia. {count.found} of them were found, and none is missing before "
            f"the last one. {count.group} more lie from there on, most often equal to it: they were not asked for."
        )
    else:
        told.append(f"{counted} Sylvester's law of inertia, and as many were found: none is missing.")
    if count.margin is not None:
        told.append(
            f"Rounding in the factorizations would have to be {count.margin:.1g} times as large as it was "
            "measured to carry an eigenvalue across an end; ten times is asked for."
        )
    crossing = (facts.get("rounding") or {}).get("crossing")
    if crossing:
        told.append(
            "The digits of the entries are too few to say on which side of an end "
            f"{', '.join(f'λ{number + 1}' for number in crossing[:6])} lies."
        )
    return Verdict("bad" if short else "good", "Not complete" if short else "Certified: none missed", told)


def points_of(facts: dict[str, Any]) -> list[Point]:
    """Return the points of the statement, and what each of them is in a run. Not collective."""
    count, masses = count_of(facts), (facts.get("inputs") or {}).get("mass") is not None
    largest, held = max(facts["residuals"], default=0.0), facts.get("held_to") or facts.get("tol")
    names = ", ".join(facts.get("null_names") or ())
    allowed = "" if held is None else f"; {held:.0e} is allowed"
    pairs = f"largest backward error {largest:.1e}{allowed}; orthogonal to {facts['orthogonality']:.1e}"
    deflated = facts.get("deflated", 0)
    nulls = f"{deflated} projected out" + (f": {names}" if names else "")
    margin = None if count is None else count.margin
    group = 0 if count is None else count.group
    beside = f", {group} more from the last one on" if group else ""
    here = {
        "Scaling": "done for every problem",
        "Each pair": pairs if facts["eigenvalues"] else "there are none",
        "None missed": "not counted" if count is None else f"counted {count.inertia}, found {count.found}{beside}",
        "Margin": "not measured" if margin is None else f"{margin:.1g}; 10 is asked for",
        "Null vectors": nulls if deflated else "none given",
        "Infinite eigenvalues": "looked for, as there is a mass matrix" if masses else "none: no mass matrix",
        "More eigenvalues": f"{group} more from the last one on" if group else "none",
    }
    return [Point(name, text, _told_here(here, name)) for name, text in statement_points()]


def _told_here(here: dict[str, str], name: str) -> str:
    return next((told for head, told in here.items() if name.startswith(head)), "")


def statement_points() -> list[tuple[str, str]]:
    """Return (name, text) of the numbered points of the statement. Not collective."""
    numbered = STATEMENT.partition("\nNot proven:")[0]
    found = re.findall(r"^\d+\. ([^.:,]+)([.:,].*?)(?=^\d+\. |\Z)", numbered, re.M | re.S)
    return [(name, " ".join((name + rest).split())) for name, rest in found]


def not_proven() -> list[str]:
    """Return what the statement says is not proven, a sentence or two each. Not collective."""
    rest = STATEMENT.partition("\nNot proven:")[2]
    items = re.findall(r"^- (.*?)(?=^- |\Z)", rest.replace("`", ""), re.M | re.S)
    return [" ".join(item.split()) for item in items]
