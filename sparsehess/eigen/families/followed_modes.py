"""What following modes finds: curves, events, tables, a picture."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsehess.eigen.families.campbell_diagram import Excited, draw, excited, save
from sparsehess.eigen.families.followed_path import Path
from sparsehess.eigen.families.mode_events import ModeEvent, events_of
from sparsehess.runtime.short_repr import ShortRepr, number_of

if TYPE_CHECKING:
    from sparsehess.derivatives.units import Units


@dataclass(frozen=True, eq=False, repr=False)
class FollowedModes(ShortRepr):
    """Eigenvalue curves over a parameter.

    *Not collective.* Made by `follow`; the same on every rank.

    Attributes
    ----------
    values
        (m,) of the parameter: those given, and those between them where more were needed.
    given
        (m,) which of them were given.
    curves
        (m, c) eigenvalues; column j is one mode, NaN where it is not among those that were computed. There is a
        curve for each mode that is among the k asked for somewhere; columns are in the order of the first value.
    counted
        (m,) whether an inertia count has certified at a value that no mode was missed.
    mac
        m - 1 tables (c, c): the modal assurance criterion of each mode at a value with each at the next one, in
        the mass of one of the two; NaN where one is not there.
    events
        Of `ModeEvent`, by the parameter, of modes one of which is among the k there.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> found = sh.follow(lambda p: np.diag([1.0, p, 5.0]), [0.0, 2.0], k=2)
    >>> print(np.round(found.curves[[0, -1]], 8) + 0.0)
    [[0. 1.]
     [2. 1.]]
    >>> print(found.table())
        parameter       mode 0       mode 1  counted
                0            0            1      yes
                2            2            1      yes
    <BLANKLINE>
    crossing of 0 and 1 at 1
    """

    values: np.ndarray
    given: np.ndarray
    curves: np.ndarray
    counted: np.ndarray
    mac: tuple[np.ndarray, ...]
    events: tuple[ModeEvent, ...]

    @classmethod
    def of(cls, path: Path) -> FollowedModes:
        """Return what a path has found. Not collective."""
        told: list[int] = []
        for place in path.places:
            told += [int(one) for one in place.labels[place.wanted] if one not in told]
        columns = {label: column for column, label in enumerate(told)}
        curves = np.full((len(path.places), len(told)), np.nan)
        for row, place in zip(curves, path.places, strict=True):
            for label, value in zip(place.labels, place.eigenvalues, strict=True):
                if label in columns:
                    row[columns[label]] = value
        tables = []
        for step in path.steps:
            table = np.full((len(told), len(told)), np.nan)
            mac = step.link.mac
            for p, one in enumerate(step.labels_left):
                for q, other in enumerate(step.labels_right):
                    if one in columns and other in columns:
                        table[columns[one], columns[other]] = mac[p, q]
            tables.append(table)
        return cls(
            np.array([place.value for place in path.places]),
            np.array([place.given for place in path.places]),
            curves,
            np.array([place.counted for place in path.places]),
            tuple(tables),
            tuple(events_of(path, columns)),
        )

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        yield number_of(self.curves.shape[1], "curve")
        yield f"{number_of(len(self.values), 'value')} from {self.values[0]:.6g} to {self.values[-1]:.6g}"
        yield number_of(len(self.events), "event")
        yield "all counted" if self.counted.all() else f"{np.count_nonzero(self.counted)} counted"

    def frequencies(self, units: Units | None = None) -> np.ndarray:
        """Return (m, c) frequencies: in the units given, else √λ; of negative eigenvalues negative.

        Not collective.
        """
        if units is None:
            return np.asarray(np.sign(self.curves) * np.sqrt(np.abs(self.curves)))
        return np.asarray(units.of_eigenvalues(self.curves))

    def facts(self) -> dict[str, Any]:
        """Return all of it as JSON: numbers, lists and dictionaries; null for what is not there.

        Not collective.
        """
        return {
            "values": self.values.tolist(),
            "given": self.given.tolist(),
            "curves": _listed(self.curves),
            "counted": self.counted.tolist(),
            "mac": [_listed(one) for one in self.mac],
            "events": [one.facts() for one in self.events],
        }

    def table(self, units: Units | None = None, all_values: bool = False) -> str:
        """Return the curves as text, a line a value, and the events below.

        Not collective.

        Parameters
        ----------
        units
            Of frequencies; default eigenvalues.
        all_values
            With the values that were put between those given.
        """
        shown = self.curves if units is None else self.frequencies(units)
        many = self.curves.shape[1]
        lines = [f"{'parameter':>13}" + "".join(f"{f'mode {j}':>13}" for j in range(many)) + "  counted"]
        for n in range(len(self.values)):
            if self.given[n] or all_values:
                row = "".join(f"{_shown(one):>13}" for one in shown[n])
                lines.append(f"{_shown(self.values[n]):>13}{row}  {'yes' if self.counted[n] else 'no':>7}")
        if self.events:
            lines.append("")
        for one in self.events:
            line = f"{one.kind} of {' and '.join(map(str, one.modes))} at {one.value:.6g}"
            if one.kind != "crossing" and np.isfinite(one.gap):
                line += f": gap {_shown(one.gap)}"
                line += f", turn {one.turn:.0f} degrees" if np.isfinite(one.turn) else ""
            lines.append(line)
        return "\n".join(lines)

    def excited(
        self, orders: Sequence[float] = (1, 2), *, per: float = 1.0, units: Units | None = None
    ) -> list[Excited]:
        """Return where modes meet multiples of a speed of rotation: critical speeds.

        Not collective. Between values curves are taken for straight: give values as close as digits are wanted.

        Parameters
        ----------
        orders
            Excitations per revolution.
        per
            Frequency of one excitation per revolution, for a parameter of 1: 1/60 for a speed in rpm and Hz.
        units
            Of frequencies; default √λ, for a speed in rad per unit of time.
        """
        return excited(self.values, self.frequencies(units), orders, per)

    def draw(
        self, axis: Any, *, units: Units | None = None, orders: Sequence[float] = (1, 2), per: float = 1.0
    ) -> None:
        """Draw the curves on an axis of matplotlib, with the lines of excitations: a Campbell diagram.

        Not collective: rank 0 calls it.

        Parameters
        ----------
        axis
            Of matplotlib.
        units, orders, per
            As of `excited`; without orders no lines are drawn.
        """
        draw(axis, self.values, self.frequencies(units), self.events, tuple(orders), per)
        axis.set_ylabel("√λ" if units is None else f"frequency ({units.frequency})")

    def plot(
        self,
        path: str | os.PathLike[str],
        *,
        units: Units | None = None,
        orders: Sequence[float] = (1, 2),
        per: float = 1.0,
        label: str = "parameter",
        title: str = "",
    ) -> None:
        """Draw the curves into a picture file, as `draw` does.

        Not collective: rank 0 calls it.

        Parameters
        ----------
        path
            Its name ends with .png, .pdf or .svg.
        units, orders, per
            As of `draw`.
        label, title
            Of the parameter, and of the picture.

        Raises
        ------
        StackError
            matplotlib is missing.
        """

        def on(axis: Any) -> None:
            self.draw(axis, units=units, orders=orders, per=per)
            axis.set(xlabel=label, title=title)

        save(path, on)


def _listed(array: np.ndarray) -> list[list[float | None]]:
    """Return a table as JSON has it."""
    return [[float(one) if np.isfinite(one) else None for one in row] for row in array]


def _shown(number: float) -> str:
    """Return a number in few characters."""
    return f"{number:.6g}" if np.isfinite(number) else "-"
