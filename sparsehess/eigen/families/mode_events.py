"""Crossings and veerings of curves, told apart by how far vectors turn in the plane of two modes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from sparsehess.eigen.families.followed_path import Path, Step, angle_between
from sparsehess.runtime.short_repr import ShortRepr

# Two modes veer where they turn into each other by this much in all, in degrees; a quarter turn exchanges them.
_TURN = 30.0

# Turns of less than this in a step are those of any mode that changes.
_LITTLE = 0.5


@dataclass(frozen=True, eq=False, repr=False)
class ModeEvent(ShortRepr):
    """Where two curves cross or veer, or a mode could not be followed.

    *Not collective.* Made by `follow`; the same on every rank.

    Attributes
    ----------
    kind
        `crossing`: the eigenvalues come within the resolution, and the vectors go on as they were. `veering`: they
        stay farther apart, and the vectors turn into each other. `unresolved`: neither is known, within the limit.
        `lost`: a mode has no other one that it goes on as. `split`: other vectors of a cluster's space go on than
        led to it, and which curve is which is free there.
    modes
        Which curves, columns of `FollowedModes.curves`.
    value
        Of the parameter: where the gap was least, or between the values of the step.
    gap
        The least one seen, in units of the eigenvalues; NaN where there are not two.
    angle
        Largest principal angle between the spaces of the modes before and after, in degrees: how far both leave
        their plane; NaN where there are not as many on both sides.
    turn
        By how much the vectors have turned within it, in degrees: near 0 at a crossing, 90 where they exchange.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> found = sh.follow(lambda p: np.diag([1.0, p, 5.0]), [0.0, 2.0], k=2)
    >>> (event,) = found.events
    >>> print(event.kind, event.modes, round(event.value, 5))
    crossing (0, 1) 1.0
    """

    kind: str
    modes: tuple[int, ...]
    value: float
    gap: float = np.nan
    angle: float = np.nan
    turn: float = np.nan

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        yield f"{self.kind} of {' and '.join(map(str, self.modes))} at {self.value:.6g}"

    def facts(self) -> dict[str, Any]:
        """Return the event as JSON. Not collective."""
        told = {
            key: None if isinstance(one, float) and not np.isfinite(one) else one
            for key, one in asdict(self).items()
        }
        return {**told, "modes": list(self.modes)}


def events_of(path: Path, columns: dict[int, int]) -> list[ModeEvent]:
    """Return what happens along a path, by the parameter. Not collective.

    Parameters
    ----------
    columns
        For each label that is told the column of its curve.
    """
    found: list[ModeEvent] = []
    labels = sorted(columns)
    for n, i in enumerate(labels):
        for j in labels[n + 1 :]:
            found += _of_pair(path, i, j, columns)
    for number, step in enumerate(path.steps):
        where = 0.5 * (path.places[number].value + path.places[number + 1].value)
        for kind, those in (("lost", step.lost), ("split", step.split)):
            modes = tuple(sorted({columns[one] for one in those if one in columns}))
            if modes:
                found.append(ModeEvent(kind, modes, where))
    rising = path.places[-1].value >= path.places[0].value
    return sorted(found, key=lambda one: (one.value if rising else -one.value, one.modes))


def _of_pair(path: Path, i: int, j: int, columns: dict[int, int]) -> list[ModeEvent]:
    """Return where two curves cross, veer, or could not be told apart."""
    modes = (columns[i], columns[j])
    run = [n for n, place in enumerate(path.places) if i in place.labels and j in place.labels]
    gaps, sides = {}, {}
    for n in run:
        place = path.places[n]
        p, q = (int(np.flatnonzero(place.labels == one)[0]) for one in (i, j))
        gaps[n] = float(place.eigenvalues[q] - place.eigenvalues[p])
        together = any(first <= p < stop and first <= q < stop for first, stop in place.groups)
        sides[n] = 0 if together else (1 if gaps[n] > 0 else -1)
    found = []
    told = [n for n in run if sides[n]]
    for a, b in pairwise(told):
        if sides[a] == sides[b] or any(n not in gaps for n in range(a, b)) or not _is_wanted(path, a, b, i, j):
            continue
        least = min(range(a, b + 1), key=lambda n: abs(gaps[n]))
        unresolved = b == a + 1
        value = path.places[least].value
        if unresolved:
            part = gaps[a] / (gaps[a] - gaps[b])
            value = path.places[a].value + part * (path.places[b].value - path.places[a].value)
        steps = path.steps[a:b]
        found.append(
            ModeEvent(
                "unresolved" if unresolved or any(i in one.unresolved for one in steps) else "crossing",
                modes,
                value,
                abs(gaps[least]),
                max(angle_between(one, [i, j]) for one in steps),
                abs(sum(_turn(one, i, j) for one in steps)),
            )
        )
    return found + _veerings(path, i, j, modes, gaps, sides)


def _veerings(
    path: Path, i: int, j: int, modes: tuple[int, int], gaps: dict[int, float], sides: dict[int, int]
) -> list[ModeEvent]:
    """Return where two curves that stay apart turn into each other; or might, within the limit."""
    found, turns = [], {}
    for n, step in enumerate(path.steps):
        if n in gaps and n + 1 in gaps:
            if i in step.unresolved and j in step.unresolved and sides[n] == sides[n + 1] != 0:
                least = n if abs(gaps[n]) < abs(gaps[n + 1]) else n + 1
                bent = angle_between(step, [i, j])
                found.append(ModeEvent("unresolved", modes, path.places[least].value, abs(gaps[least]), bent))
            else:
                turns[n] = _turn(step, i, j)
    run: list[int] = []
    for n in [*sorted(turns), -1]:
        goes_on = n >= 0 and abs(turns[n]) > _LITTLE and sides[n] == sides[n + 1] != 0
        if run and not (goes_on and n == run[-1] + 1 and turns[n] * turns[run[-1]] > 0):
            total = abs(sum(turns[one] for one in run))
            if total >= _TURN and _is_wanted(path, run[0], run[-1] + 1, i, j):
                least = min(range(run[0], run[-1] + 2), key=lambda one: abs(gaps[one]))
                bent = max(angle_between(path.steps[one], [i, j]) for one in run)
                where = _least_between(path, gaps, least)
                found.append(ModeEvent("veering", modes, where, abs(gaps[least]), bent, total))
            run = []
        if goes_on:
            run.append(n)
    return found


def _is_wanted(path: Path, a: int, b: int, i: int, j: int) -> bool:
    """Return whether one of two modes is asked for somewhere from a place to another; others are only beside."""
    return any(bool({i, j} & set(one.labels[one.wanted].tolist())) for one in path.places[a : b + 1])


def _least_between(path: Path, gaps: dict[int, float], least: int) -> float:
    """Return where the square of a gap is least: of a veering it is a parabola."""
    around = [least - 1, least, least + 1]
    x = path.places[least].value
    if not all(one in gaps for one in around):
        return x
    xs = np.array([path.places[one].value - x for one in around])
    a, b, _ = np.polyfit(xs, [gaps[one] ** 2 for one in around], 2)
    inside = a > 0 and xs.min() <= -b / (2 * a) <= xs.max()
    return float(x - b / (2 * a)) if inside else x


def _turn(step: Step, i: int, j: int) -> float:
    """Return by how much two modes turn into each other in a step, in degrees."""
    if not all(one in labels for one in (i, j) for labels in (step.labels_left, step.labels_right)):
        return 0.0
    rows = [int(np.flatnonzero(step.labels_left == one)[0]) for one in (i, j)]
    columns = [int(np.flatnonzero(step.labels_right == one)[0]) for one in (i, j)]
    sizes = np.sqrt(np.outer(np.diag(step.link.left).real[rows], np.diag(step.link.right).real[columns]))
    C = step.link.table[np.ix_(rows, columns)].real / sizes
    return float(np.degrees(np.arctan2(C[0, 1] - C[1, 0], C[0, 0] + C[1, 1])))
