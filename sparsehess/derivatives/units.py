"""What an eigenvalue means: frequencies from curvature over mass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sparsehess.errors import InputError, none_of

# SI values (CODATA 2018; pounds, inches and standard gravity by their definitions).
_ENERGY = {
    "J": 1.0,
    "mJ": 1e-3,  # N mm
    "eV": 1.602176634e-19,
    "meV": 1.602176634e-22,
    "hartree": 4.3597447222071e-18,
    "Ry": 4.3597447222071e-18 / 2,
    "kcal/mol": 4184 / 6.02214076e23,
    "kJ/mol": 1000 / 6.02214076e23,
}
_FORCE = {
    "N": 1.0,
    "mN": 1e-3,
    "kN": 1e3,
    "MN": 1e6,
    "dyn": 1e-5,
    "mdyn": 1e-8,
    "kgf": 9.80665,
    "lbf": 0.45359237 * 9.80665,
    "kip": 453.59237 * 9.80665,
}
_LENGTH = {
    "m": 1.0,
    "cm": 1e-2,
    "mm": 1e-3,
    "um": 1e-6,
    "nm": 1e-9,
    "angstrom": 1e-10,
    "A": 1e-10,
    "bohr": 5.29177210903e-11,
    "in": 0.0254,
    "ft": 0.3048,
}
_MASS = {
    "kg": 1.0,
    "g": 1e-3,
    "t": 1e3,
    "lb": 0.45359237,
    "slug": 0.45359237 * 9.80665 / 0.3048,
    "slinch": 0.45359237 * 9.80665 / 0.0254,  # lbf s²/in
    "amu": 1.66053906660e-27,
    "u": 1.66053906660e-27,
    "me": 9.1093837015e-31,
}
_HZ = {
    "Hz": 1.0,
    "rad/s": 2 * math.pi,
    "THz": 1e-12,
    "cm^-1": 1 / (100 * 299792458.0),
    "meV": 6.62607015e-34 / 1.602176634e-22,
}
FREQUENCIES = tuple(_HZ)

# Those that say nothing of lengths and masses: λ in 1/s² is all that they need.
CONSISTENT = ("Hz", "rad/s")


@dataclass(frozen=True)
class Units:
    """A frequency unit for eigenvalues λ = ω²: frequency = factor · sqrt(λ).

    Not collective.

    Parameters
    ----------
    frequency
        Name of the unit: Hz, rad/s, THz, cm^-1 or meV (energy of a quantum).
    factor
        Frequency of λ = 1.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> units = sh.Units.of("eV", "angstrom", "amu")
    >>> print(np.round(units.of_eigenvalues(np.array([25 / 7.0, -1.0])), 1))
    [ 985.5 -521.5]
    >>> hertz = sh.Units.of_matrices("N/mm", "kg", "Hz")
    >>> print(np.round(hertz.of_eigenvalues(np.array([39.4784176])), 3))
    [31.623]
    """

    frequency: str
    factor: float

    @classmethod
    def of(cls, energy: str, length: str, mass: str, frequency: str = "cm^-1") -> Units:
        """Return the units for H in energy/length² and M in mass.

        Not collective.

        Raises
        ------
        InputError
            A unit is not known; the message lists those that are.
        """
        per_length = _value("unit", length, _LENGTH)
        return cls._of_si(_value("unit", energy, _ENERGY) / per_length**2, _value("unit", mass, _MASS), frequency)

    @classmethod
    def of_matrices(cls, stiffness: str, mass: str, frequency: str = "Hz") -> Units:
        """Return the units for entries of K and M in the words of an engineer.

        Not collective.

        Parameters
        ----------
        stiffness
            A force over a length or an energy over a length squared: "N/m", "N/mm", "lbf/in", "eV/A^2",
            "hartree/bohr^2", "kcal/mol/A^2".
        mass
            "kg", "t", "slinch" (lbf s²/in), "u" and others.
        frequency
            As of the class.

        Raises
        ------
        InputError
            A unit is not known, or no stiffness; the message lists those that are known.
        """
        above, _, length = stiffness.rpartition("/")
        squared = length.endswith("^2")
        table = _ENERGY if squared else _FORCE
        if not above or (above not in table and above in (_FORCE if squared else _ENERGY)):
            raise InputError(
                f"unit {stiffness!r} is no stiffness: write a force over a length, such as N/mm, or an energy "
                "over a length squared, such as eV/A^2"
            )
        per_length = _value(f"length of {stiffness!r}", length.removesuffix("^2"), _LENGTH)
        force = _value(f"{'energy' if squared else 'force'} of {stiffness!r}", above, table)
        return cls._of_si(force / per_length ** (1 + squared), _value("mass", mass, _MASS), frequency)

    @classmethod
    def consistent(cls, frequency: str = "Hz") -> Units:
        """Return the units for matrices of consistent units: λ is ω² in 1/s², whatever lengths and masses are.

        Not collective.

        Raises
        ------
        InputError
            It is no unit of which that is enough: those are Hz and rad/s.
        """
        if frequency not in CONSISTENT:
            raise none_of(f"unit {frequency!r} of consistent units", frequency, CONSISTENT)
        return cls(frequency, _HZ[frequency] / (2 * math.pi))

    @classmethod
    def _of_si(cls, stiffness: float, mass: float, frequency: str) -> Units:
        """Return the units of entries that are so many N/m and kg."""
        per_hertz = _value("unit", frequency, _HZ)
        return cls(frequency, math.sqrt(stiffness / mass) / (2 * math.pi) * per_hertz)

    def to(self, frequency: str) -> Units:
        """Return the same frequencies in another unit.

        Not collective.

        Raises
        ------
        InputError
            The unit, or that of this object, is not known.
        """
        return Units(frequency, self.factor * _value("unit", frequency, _HZ) / _value("unit", self.frequency, _HZ))

    def of_errors(self, eigenvalues: np.ndarray, errors: np.ndarray) -> np.ndarray:
        """Return (k,) how far frequencies may be where eigenvalues may be so far. Not collective."""
        here = self.of_eigenvalues(eigenvalues)
        ends = self.of_eigenvalues(eigenvalues - errors), self.of_eigenvalues(eigenvalues + errors)
        return np.maximum(here - ends[0], ends[1] - here)

    def of_eigenvalues(self, eigenvalues: np.ndarray) -> np.ndarray:
        """Return frequencies (k,); those of negative eigenvalues are imaginary and given as negative."""
        return self.factor * np.sign(eigenvalues) * np.sqrt(np.abs(eigenvalues))

    def to_eigenvalues(self, frequencies: np.ndarray | Sequence[float] | float) -> np.ndarray:
        """Return λ of frequencies, of whichever shape; negative ones stand for imaginary ones. Not collective.

        It goes up where frequencies go up, so that ends of an interval stay in their order.
        """
        root = np.asarray(frequencies, np.float64) / self.factor
        return np.sign(root) * root**2


def _value(what: str, name: str, table: dict[str, float]) -> float:
    """Return what a unit is in SI."""
    if name not in table:
        raise none_of(f"{what} {name!r}" if what in ("unit", "mass") else f"{what}: {name!r}", name, table)
    return table[name]
