"""Modes followed from value to value, with values between them where they cannot be matched or change places."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from sparsehess.eigen.families.followed_points import PointSolver, reversed_link
from sparsehess.eigen.families.mode_links import Link, Match, Point, angle, match, same_space


@dataclass(eq=False)
class Step:
    """From one value to the next, as it was accepted.

    Attributes
    ----------
    labels_left, labels_right
        Which curve each mode is on.
    link
        Products of the aligned modes.
    unresolved
        Labels that could not be told apart within the limit, matched in ascending order.
    lost
        Labels that end here, or begin here, though they are of wanted modes.
    split
        Labels that other vectors of the space of a cluster follow than led to it.
    """

    labels_left: np.ndarray
    labels_right: np.ndarray
    link: Link
    unresolved: list[int] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    split: list[int] = field(default_factory=list)


@dataclass(eq=False)
class Place:
    """What is kept of a value: eigenvalues, curves, clusters; no vectors."""

    value: float
    given: bool
    eigenvalues: np.ndarray
    labels: np.ndarray
    groups: list[tuple[int, int]]
    wanted: np.ndarray
    counted: bool


@dataclass(eq=False)
class _Ahead:
    """A value that is still to be reached: its modes, products with those before it, how often it was divided.

    Where two modes cross, differences at both ends are weighted: those of an end that the search keeps count less.
    """

    point: Point
    link: Link
    depth: int
    given: bool
    weights: tuple[float, float] = (1.0, 1.0)
    kept: str = ""

    @property
    def kept_left(self) -> tuple[float, float]:
        """Weights of the left part, which keeps the left end."""
        return (0.5 if self.kept == "left" else 1.0) * self.weights[0], 1.0

    @property
    def kept_right(self) -> tuple[float, float]:
        """Weights of the right part, which keeps the right end."""
        return 1.0, (0.5 if self.kept == "right" else 1.0) * self.weights[1]


@dataclass(eq=False)
class Path:
    """Modes followed along a parameter.

    Attributes
    ----------
    solver
        What solves at a value.
    limit
        How often the way between two given values may be divided, one part after another.
    places, steps
        What was found.
    """

    solver: PointSolver
    limit: int
    places: list[Place] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    _labels: int = 0

    def follow(self, values: np.ndarray) -> None:
        """Follow the modes through all values. Collective.

        Vectors of the last value and of those that are still ahead are kept, and no others.
        """
        here, _ = self.solver.take(float(values[0]), [])
        here.free = True
        here.labels = self._new(len(here.eigenvalues))
        self._keep(here, True)
        for value in values[1:]:
            point, (link,) = self.solver.take(float(value), [here])
            ahead = [_Ahead(point, link, 0, True)]
            while ahead:
                here = self._advance(here, ahead)

    def _advance(self, here: Point, ahead: list[_Ahead]) -> Point:
        """Go on to the next value ahead, or put another before it; return where the path has come to."""
        there = ahead[-1]
        found = match(here, there.point, there.link)
        between = None if there.depth >= self.limit else self._between(here, there, found)
        if between is not None:
            value, weights_left, weights_right = between
            point, (before, after) = self.solver.take(value, [here, there.point])
            ahead.pop()
            depth = there.depth + 1
            ahead.append(_Ahead(there.point, reversed_link(after), depth, there.given, weights_right, "right"))
            ahead.append(_Ahead(point, before, depth, False, weights_left, "left"))
            return here
        ahead.pop()
        there.point.turn(found.turn_right)
        if ahead:  # its products were with the vectors as they were
            ahead[-1].link = ahead[-1].link.turned(found.turn_right, np.eye(len(ahead[-1].link.right)))
        self._accept(here, there, found)
        return there.point

    def _between(
        self, here: Point, there: _Ahead, found: Match
    ) -> tuple[float, tuple[float, float], tuple[float, float]] | None:
        """Return a value between two to look at, None where all is clear: in the middle, or where two cross."""
        a, b = here.value, there.point.value
        middle = 0.5 * (a + b)
        if not min(a, b) < middle < max(a, b):
            return None
        fresh = (1.0, 1.0)
        if len(found.open_left) or len(found.open_right):
            return middle, fresh, fresh
        pair = self._changed(here, there.point, found)
        if pair is None:
            return None
        i, j = pair
        p, q = found.partner[i], found.partner[j]
        before = (here.eigenvalues[i] - here.eigenvalues[j]) * there.weights[0]
        after = (there.point.eigenvalues[p] - there.point.eigenvalues[q]) * there.weights[1]
        part = before / (before - after)
        value = a + part * (b - a)
        if not min(a, b) < value < max(a, b):
            return middle, fresh, fresh
        # An end that is kept again counts half (Dowell and Jarratt 1971): else one end would never move.
        return value, there.kept_left, there.kept_right

    def _changed(self, here: Point, there: Point, found: Match) -> tuple[int, int] | None:
        """Return two modes, one of them wanted, that change places between two values; None where none do."""
        known = np.flatnonzero(found.partner >= 0)
        for n, i in enumerate(known):
            for j in known[n + 1 :]:
                p, q = found.partner[i], found.partner[j]
                wanted = here.wanted[[i, j]].any() or there.wanted[[p, q]].any()
                if (
                    wanted
                    and p > q
                    and here.group_of(i) != here.group_of(j)
                    and there.group_of(p) != there.group_of(q)
                ):
                    return int(i), int(j)
        return None

    def _accept(self, here: Point, there: _Ahead, found: Match) -> None:
        """Give the modes at the next value their labels, and keep what was found of it."""
        here.turn(found.turn_left)
        point, labels = there.point, np.full(len(there.point.eigenvalues), -1)
        known = found.partner >= 0
        labels[found.partner[known]] = here.labels[known]
        step = Step(here.labels.copy(), labels, found.link)
        step.split = here.labels[found.split].tolist()
        left, right = found.open_left, found.open_right
        if len(left) == len(right) and same_space(found.link, left, right):
            labels[right] = here.labels[left]
            step.unresolved += here.labels[left].tolist()
        else:
            step.lost += here.labels[left].tolist()
        changed = self._changed(here, point, found)
        if changed is not None:
            step.unresolved += here.labels[list(changed)].tolist()
        unknown = labels < 0
        labels[unknown] = self._new(int(np.count_nonzero(unknown)))
        if len(left) != len(right):
            step.lost += labels[right].tolist()
        point.labels = labels
        self.steps.append(step)
        self._keep(point, there.given)

    def _keep(self, point: Point, given: bool) -> None:
        self.places.append(
            Place(
                point.value,
                given,
                point.eigenvalues,
                point.labels,
                point.groups,
                point.wanted,
                point.counted,
            )
        )

    def _new(self, many: int) -> np.ndarray:
        """Return numbers of new curves."""
        self._labels += many
        return np.arange(self._labels - many, self._labels)


def angle_between(step: Step, labels: list[int]) -> float:
    """Return the largest principal angle between the spaces of curves at both ends of a step, in degrees."""
    rows = np.array([int(np.flatnonzero(step.labels_left == one)[0]) for one in labels])
    columns = np.array([int(np.flatnonzero(step.labels_right == one)[0]) for one in labels])
    return angle(step.link, rows, columns)
