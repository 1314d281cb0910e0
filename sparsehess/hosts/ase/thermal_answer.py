"""Energies and entropies with what the error of a Hessian makes of them: one of them, and all of some atoms."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sparsehess.runtime.short_repr import ShortRepr, number_of

_QUANTITIES = {
    "zero_point": "zero point",
    "internal_energy": "energy",
    "enthalpy": "enthalpy",
    "entropy": "entropy",
    "helmholtz": "Helmholtz",
    "gibbs": "Gibbs",
}


@dataclass(frozen=True, eq=False, repr=False)
class Bounded(ShortRepr):
    """A quantity and how far the error of the Hessian may move it.

    Attributes
    ----------
    value
        In eV, an entropy in eV/K; NaN where it has no bound.
    low, high
        The least and the most where each frequency is within its error bar; infinite where nothing bounds it.
    widths
        (k,) what each of the modes adds to `high` less `low`.
    """

    value: float
    low: float
    high: float
    widths: np.ndarray

    @property
    def error(self) -> float:
        """The larger of the distances to `low` and `high`; infinite where one of them is."""
        if not np.isfinite([self.value, self.low, self.high]).all():
            return np.inf
        return max(self.high - self.value, self.value - self.low)

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        yield f"{self.value:.9g} in [{self.low:.9g}, {self.high:.9g}]"


@dataclass(frozen=True, eq=False, repr=False)
class Thermochemistry(ShortRepr):
    """Energies and entropies of some atoms at a temperature, made by `thermochemistry`.

    Attributes
    ----------
    formula
        Of the atoms.
    model
        `ideal-gas` or `harmonic`.
    temperature, pressure
        In K and Pa; no pressure where the model is harmonic.
    low_modes, cutoff
        How low modes are taken, and below how many cm⁻¹; none where they are harmonic as the others.
    geometry
        `linear`, `nonlinear` or `monatomic`, and None where the model is harmonic.
    shape
        What has decided it.
    symmetry_number, spin
        Of the ideal gas.
    energy
        Potential energy in eV, which all but zero-point energy and entropy contain.
    zero_point, internal_energy, enthalpy, entropy, helmholtz, gibbs
        As `Bounded`; enthalpy and Gibbs energy are None where the model is harmonic.
    used
        (k,) bool: which modes are in them.
    frequencies, ends
        (k,) and (k, 2) in cm⁻¹: of the modes, and of the ends of their error bars; imaginary ones are negative.
    unbounded
        Numbers of the modes, from 0, that make the entropy unbounded, since their error bars reach zero.
    notes
        What was assumed, and where the model is in doubt, a sentence each.
    """

    formula: str
    model: str
    temperature: float
    pressure: float | None
    low_modes: str
    cutoff: float | None
    geometry: str | None
    shape: str
    symmetry_number: int | None
    spin: float | None
    energy: float
    zero_point: Bounded
    internal_energy: Bounded
    enthalpy: Bounded | None
    entropy: Bounded
    helmholtz: Bounded
    gibbs: Bounded | None
    used: np.ndarray
    frequencies: np.ndarray
    ends: np.ndarray
    unbounded: tuple[int, ...]
    notes: tuple[str, ...]

    @property
    def dominant(self) -> int | None:
        """Which mode, from 0, adds most to the error bar of the free energy; None where there are no bars."""
        widths = self.helmholtz.widths
        return int(np.argmax(widths)) if widths.max(initial=0.0) > 0 else None

    @property
    def share(self) -> float:
        """Which part of that error bar it adds; 0 where there are no bars, 1 over their number if unbounded."""
        if self.dominant is None:
            return 0.0
        if self.unbounded:
            return 1.0 / len(self.unbounded)
        return float(self.helmholtz.widths[self.dominant] / self.helmholtz.widths.sum())

    def quantities(self) -> dict[str, Bounded]:
        """Return the quantities of the model by name.

        Not collective.
        """
        found = {name: getattr(self, name) for name in _QUANTITIES}
        return {name: one for name, one in found.items() if one is not None}

    def __str__(self) -> str:
        """Return the quantities and what they rest on, for people."""
        return "\n".join([*self.quantity_lines(), f"shape        {self.shape}", *self.state_lines()])

    def quantity_lines(self) -> list[str]:
        """Return the quantities with their bars in eV and kJ/mol, for people, in lines.

        Not collective.
        """
        from ase import units

        per, shown = units.mol / units.kJ, []
        for name, one in self.quantities().items():
            if name == "entropy":
                shown.append((name, one, 1e3, "meV/K", 1e3 * per, "J/K/mol"))
            else:
                shown.append((name, one, 1.0, "eV", per, "kJ/mol"))
        return [
            f"{_QUANTITIES[name]:<11}  {_told(one, first)} {unit:<6} {_told(one, second)} {other}"
            for name, one, first, unit, second, other in shown
        ]

    def state_lines(self) -> list[str]:
        """Return what the quantities rest on, for people, in lines.

        Not collective.
        """
        model = f"{self.model} at {self.temperature:g} K"
        if self.pressure is not None:
            model += f" and {self.pressure:g} Pa, {self.geometry}, symmetry number {self.symmetry_number}"
            model += f", spin {self.spin:g}"
        if self.cutoff is not None:
            model += f"; modes below about {self.cutoff:g} cm^-1 {self.low_modes}"
        lines = [f"model        {model}", f"bars         {self._basis()}"]
        if self.dominant is not None:
            part = f"{100 * self.share:.0f} % of the bar of the free energy"
            lines.append(f"mostly of    {self._mode(self.dominant)}: {part}")
        return lines + [f"note         {note}" for note in self.notes]

    def _basis(self) -> str:
        if not self.used.any():
            return "none: nothing vibrates"
        told = "bounds, where each frequency is within its own bar, which is an estimate"
        if self.unbounded:
            named = ", ".join(self._mode(number) for number in self.unbounded[:3])
            more = f" and {len(self.unbounded) - 3} more" if len(self.unbounded) > 3 else ""
            told += f"; entropy and free energies have none: zero is within the bar of {named}{more}"
        return told

    def _mode(self, number: int) -> str:
        value, (low, high) = self.frequencies[number], self.ends[number]
        shown = f"{abs(value):.4g}{'i' if value < 0 else ''}"
        return f"the mode of {shown} ± {max(high - value, value - low):.2g} cm^-1"

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        yield f"{self.formula}, {self.model} at {self.temperature:g} K"
        name, one = ("F", self.helmholtz) if self.gibbs is None else ("G", self.gibbs)
        yield f"{name} unbounded" if self.unbounded else f"{name} {one.value:.6f} ± {one.error:.1g} eV"
        yield number_of(int(self.used.sum()), "mode")


def _told(one: Bounded, per: float) -> str:
    """Return a quantity with its bar, in a unit of which one is so many."""
    if np.isfinite(one.error):
        return f"{per * one.value:14.6f} ± {per * one.error:<8.2g}"
    side = f"≥ {per * one.low:.6g}" if np.isfinite(one.low) else f"≤ {per * one.high:.6g}"
    return f"{'unbounded, ' + side:<25}"
