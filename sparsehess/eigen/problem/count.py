"""An inertia count beside what was found."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sparsehess.runtime.short_repr import ShortRepr


def finite_or_none(value: float) -> float | None:
    """Return a number as JSON has it: null for what is infinite. Not collective."""
    return float(value) if math.isfinite(value) else None


def place_in_words(low: float, high: float) -> str:
    """Return where a count counts, in words. Not collective."""
    if low > high:
        return f"below {high:.6g} and above {low:.6g}"
    if np.isfinite(low) and np.isfinite(high):
        return f"in ({low:.6g}, {high:.6g})"
    if np.isfinite(high):
        return f"below {high:.6g}"
    return f"above {low:.6g}" if np.isfinite(low) else "in all"


@dataclass(frozen=True, repr=False)
class Count(ShortRepr):
    """An inertia count of an interval against the eigenvalues found in it.

    Attributes
    ----------
    interval
        (low, high); an end is infinite where nothing lies beyond. Where low > high, what lies above low and what
        lies below high: the largest in magnitude.
    inertia
        Eigenvalues in it by Sylvester's law, from LDLᵀ factorizations at its ends.
    found
        Those that the solver has, deflated null vectors included.
    certified
        Whether the two agree.
    repairs
        Further solves it took until they did.
    unresolved
        (low, high, inertia, found) of the subintervals in which they do not, where there are subintervals.
    margin
        Distance of the ends to the nearest eigenvalue, over how far the measured backward error of the
        factorization there can move it; None where it was not measured.
    group
        Eigenvalues inside that were not asked for, none of them before the last one that was (to a millionth of
        it).
    across
        How much of the pairs found may belong to eigenvalues beyond the ends: a bound of the sine of the angle
        between them and the eigenvectors inside, from their residuals; below 0.5 where the count is certified.
        None where it was not measured.
    """

    interval: tuple[float, float]
    inertia: int
    found: int
    certified: bool
    repairs: int = 0
    unresolved: tuple[tuple[float, float, int, int], ...] = ()
    margin: float | None = None
    group: int = 0
    across: float | None = None

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        yield self.in_short
        if self.margin is not None:
            yield f"margin {self.margin:.2g}"

    @property
    def in_short(self) -> str:
        """The verdict in words."""
        if self.certified:
            return f"certified {self.place}"
        return f"NOT certified: {self.found} of {self.inertia} {self.place}"

    @property
    def place(self) -> str:
        """The interval in words."""
        return place_in_words(*self.interval)

    @property
    def places_unresolved(self) -> list[str]:
        """What was found of each subinterval in which the two do not agree, in words."""
        return [f"{found} of {many} {place_in_words(low, high)}" for low, high, many, found in self.unresolved]

    @property
    def blurred(self) -> bool:
        """Whether the count is not certified for the residuals of the pairs, which may lie across an end."""
        agree = not self.certified and self.found + self.group == self.inertia
        rounded = self.margin is not None and not self.margin > 10
        return agree and not rounded and self.across is not None and not self.across < 0.5

    @property
    def holds_zero(self) -> bool:
        """Whether zero is in the interval."""
        return bool(self.holds(np.zeros(1))[0])

    def holds(self, values: np.ndarray) -> np.ndarray:
        """Return (m,) whether values are in the interval. Not collective."""
        low, high = self.interval
        return (values > low) & (values < high) if low <= high else (values > low) | (values < high)

    def scaled(self, power: int) -> Count:
        """Return the count with its eigenvalues times two to a power. Not collective."""
        low, high = np.ldexp(self.interval, power).tolist()
        pieces = tuple((*np.ldexp(piece[:2], power).tolist(), *piece[2:]) for piece in self.unresolved)
        return replace(self, interval=(low, high), unresolved=pieces)

    def facts(self) -> dict[str, Any]:
        """Return the count as JSON. Not collective."""
        return {
            "interval": [finite_or_none(end) for end in self.interval],
            "inertia": self.inertia,
            "found": self.found,
            "certified": self.certified,
            "repairs": self.repairs,
            "unresolved": [list(piece) for piece in self.unresolved],
            "margin": self.margin,
            "group": self.group,
            "across": self.across,
        }

    @classmethod
    def read(cls, facts: dict[str, Any]) -> Count:
        """Return the count that JSON tells. Not collective."""
        low, high = facts["interval"]
        ends = (-np.inf if low is None else float(low), np.inf if high is None else float(high))
        pieces = [(float(a), float(b), int(many), int(found)) for a, b, many, found in facts["unresolved"]]
        return cls(
            ends,
            int(facts["inertia"]),
            int(facts["found"]),
            facts["certified"] is True,
            int(facts["repairs"]),
            tuple(pieces),
            None if facts["margin"] is None else float(facts["margin"]),
            int(facts["group"]),
            None if facts.get("across") is None else float(facts["across"]),
        )

    @classmethod
    def beside(
        cls,
        known: int,
        interval: tuple[float, float],
        inertia: int,
        found: int,
        certified: bool,
        **facts: Any,
    ) -> Count:
        """Return the count of an interval that holds so many known eigenvalues beside those counted and found.

        Not collective. Factorizations count on what is orthogonal to known null vectors: their zeros are neither
        in `inertia` nor in `found` as given, and in both as told.
        """
        return cls(interval, inertia + known, found + known, certified, **facts)
