"""What an objective gives twice: products, gradient and energy, two of them that say the same."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from sparsehess.derivatives.comparison_line import ComparisonLine
from sparsehess.derivatives.step_series import (
    TOLERANCE,
    Look,
)

# A factor between two functions holds in a row to this part, and in all rows if in this share of those refused.
_LIKE, _MOST = 0.05, 0.95

_EPS = float(np.finfo(np.float64).eps)

_SKIP = "without this check: verify=False, --no-verify"


class Door(ABC):
    """Two functions of an objective that say the same."""

    name: str
    distributed = True  # whether rows are those of the variables

    @abstractmethod
    def look(self, line: ComparisonLine, h: float) -> Look:
        """Return what the two say at a step. Collective."""

    @abstractmethod
    def refusal(self, line: ComparisonLine, look: Look, rows: np.ndarray) -> str:
        """Return what is said of rows that contradict each other. Collective."""

    def noise(self, line: ComparisonLine, h: float) -> np.ndarray:
        """Return (m,) the noise of what has no step, from points no farther than h up. Collective."""
        return np.zeros(line.evaluations.layout.n_local if self.distributed else 1)

    def after(self, first: Look | None) -> list[Door]:
        """Return what else is compared, after the look at the first step. Not collective."""
        return []


@dataclass(frozen=True)
class Products(Door):
    """Products beside differences of the gradient."""

    name: str

    def look(self, line: ComparisonLine, h: float) -> Look:
        """See `Door`."""
        gradients = line.gradients(h)
        product = line.product(self.name, line.taken(h) / h)
        change = gradients[0] - gradients[1]
        size = np.abs(gradients).sum(axis=0)
        return Look(
            product,
            change / h,
            np.maximum(np.abs(product), np.abs(change / h)),
            4 * _EPS * size / h,
            change,
            4 * line.digits(gradients) * size,
            h,
        )

    def noise(self, line: ComparisonLine, h: float) -> np.ndarray:
        """See `Door`."""
        return line.product_noise(self.name, h)

    def refusal(self, line: ComparisonLine, look: Look, rows: np.ndarray) -> str:
        """See `Door`."""
        name, layout = line.evaluations.objective.name, line.evaluations.layout
        count = int(line.comm.allreduce(int(rows.sum())))
        # The row that tells most, as an energy.
        told = np.where(rows, np.abs(look.difference) * line.scales.length, -1.0)
        own = (-1.0, 0, 0.0, 0.0)
        if rows.any():
            i = int(told.argmax())
            own = (float(told[i]), -(layout.start + i), float(look.one[i]), float(look.other[i]))
        _, variable, one, other = max(line.comm.allgather(own))
        factor = one / other if other else np.inf
        like = np.abs(look.one - factor * look.other) <= _LIKE * look.size if other else look.other == 0
        alike = int(line.comm.allreduce(int((rows & like).sum()))) >= _MOST * count
        what = f"{_number(factor)} times what" if alike and other else "not what"
        return (
            f"the products ({self.name}) of {name} contradict its gradient: they are {what} its differences say, "
            f"in {count} of {layout.n} rows at least (variable {-variable}: {one:.4g}, the gradient {other:.4g}), "
            f"the same at several steps: {self._reason(one, other, alike)}; mend it, or leave {self.name} out "
            f"(differences of the gradient are taken), or go on {_SKIP}"
        )

    def _reason(self, one: float, other: float, alike: bool) -> str:
        if other == 0:
            return "the gradient does not change there (it is constant, stored from before, or rounded)"
        if abs(one / other + 1) <= _LIKE:
            return "one of the two has the wrong sign (forces are minus the gradient)"
        if abs(one) <= _LIKE * abs(other):
            return "something cuts the second derivative off (detach, stop_gradient, a backward pass of one's own)"
        if alike:
            return "one of the two lacks a factor, or terms"
        return "terms are lost in one of the two (detach, stop_gradient, a backward pass of one's own)"


@dataclass(frozen=True)
class Slope(Door):
    """The gradient beside differences of the energy."""

    name: str = "gradient"
    distributed = False

    def look(self, line: ComparisonLine, h: float) -> Look:
        """See `Door`."""
        energies, gradients, taken = line.energies(h), line.gradients(h), line.taken(h) / h
        slope = 0.5 * line.dot(gradients[0] + gradients[1], taken)
        change = energies[0] - energies[1]
        # A minimum has no slope: what matters is then by how much of a typical length it is displaced.
        bent = line.dot(gradients[0] - gradients[1], taken) / h / np.sqrt(max(line.evaluations.layout.n, 1))
        rounded = line.printed(gradients) * line.total(taken)
        return _look(line, slope, change, change / h, abs(bent), energies, h, rounded)

    def after(self, first: Look | None) -> list[Door]:
        """See `Door`."""
        if first is not None:
            visible = np.maximum(np.abs(first.one), np.abs(first.other))
            if (visible > first.rounding).all() and (np.abs(first.difference) <= TOLERANCE * visible).all():
                return []
        return [Curvature("gradient")]

    def refusal(self, line: ComparisonLine, look: Look, rows: np.ndarray) -> str:
        """See `Door`."""
        return _energy_refusal(line, look, "slope")


@dataclass(frozen=True)
class Curvature(Door):
    """Differences of the gradient, or products, beside second differences of the energy."""

    name: str
    distributed = False

    def look(self, line: ComparisonLine, h: float) -> Look:
        """See `Door`."""
        line = line.symmetric  # variables that have room to one side alone stay
        half, rounded = 0.5 * line.taken(h) / h, 0.0
        if self.name == "gradient":
            gradients = line.gradients(h)
            rounded = line.printed(gradients) * line.total(half) / h
            bent = line.dot(0.5 * (gradients[0] - gradients[1]) / h, half)
        else:
            bent = line.dot(line.product(self.name, half), half)
        here, energies = line.energy_here(), line.energies(h)
        change = (energies[0] - here) - (here - energies[1])
        return _look(line, bent, change, change / h**2, 0.0, np.append(energies, 2 * here) / h, h, rounded)

    def refusal(self, line: ComparisonLine, look: Look, rows: np.ndarray) -> str:
        """See `Door`."""
        if self.name == "gradient":
            return _energy_refusal(line, look, "curvature")
        name = line.evaluations.objective.name
        return (
            f"the products ({self.name}) of {name} contradict its energy: along a random direction they say "
            f"{look.one[0]:.4g}, second differences of the energy {look.other[0]:.4g}, the same at several steps; "
            f"mend it, leave the energy out if it is another function's, or go on {_SKIP}"
        )


def _look(
    line: ComparisonLine,
    one: float,
    change: float,
    other: float,
    least: float,
    energies: np.ndarray,
    h: float,
    rounded: float,
) -> Look:
    """Return a look at a single number, the same on every rank. Collective.

    `rounded` is what a gradient of few decimals makes of it: that is the same at all steps.
    """
    total = float(np.abs(energies).sum())
    return Look(
        np.array([one]),
        np.array([other]),
        np.array([max(abs(one), abs(other), least)]),
        np.array([4 * _EPS * total / h + rounded]),
        np.array([change]),
        np.array([4 * line.digits(energies) * total]),
        h,
    )


def _energy_refusal(line: ComparisonLine, look: Look, what: str) -> str:
    name, one, other = line.evaluations.objective.name, float(look.one[0]), float(look.other[0])
    ratio = "" if other == 0 else f", {_number(one / other)} times that"
    if other != 0 and abs(one / other + 1) <= _LIKE:
        reason = "the gradient has the sign of forces: give minus the forces"
    elif other == 0:
        reason = "the energy does not change there (it is constant, stored from before, or rounded)"
    else:
        reason = "the gradient lacks something, or the energy is another function's"
    return (
        f"the gradient of {name} contradicts its energy: along a random direction differences of the energy give "
        f"a {what} of {other:.4g}, the gradient {one:.4g}{ratio}, the same at several steps: {reason}; mend it, "
        f"or leave the energy out if it is another function's, or go on {_SKIP}"
    )


def _number(value: float) -> str:
    return f"{value:.3g}"
