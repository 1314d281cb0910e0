"""What an eigenvalue means: frequencies from curvature over mass."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sparsehess.errors import none_of

# SI values (CODATA 2018).
_ENERGY = {
    "J": 1.0,
    "mJ": 1e-3,  # N mm
    "eV": 1.602176634e-19,
    "hartree": 4.3597447222071e-18,
    "kcal/mol": 4184 / 6.02214076e23,
    "kJ/mol": 1000 / 6.02214076e23,
}
_LENGTH = {"m": 1.0, "mm": 1e-3, "angstrom": 1e-10, "nm": 1e-9, "bohr": 5.29177210903e-11}
_MASS = {"kg": 1.0, "t": 1e3, "amu": 1.66053906660e-27, "me": 9.1093837015e-31}
_HZ = {
    "Hz": 1.0,
    "THz": 1e-12,
    "cm^-1": 1 / (100 * 299792458.0),
    "meV": 6.62607015e-34 / 1.602176634e-22,
}


@dataclass(frozen=True)
class Units:
    """A frequency unit for eigenvalues λ = ω²: frequency = factor · sqrt(λ).

    Not collective.

    Parameters
    ----------
    frequency
        Name of the unit: Hz, THz, cm^-1 or meV (energy of a quantum).
    factor
        Frequency of λ = 1.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> units = sh.Units.of("eV", "angstrom", "amu")
    >>> print(np.round(units.of_eigenvalues(np.array([25 / 7.0, -1.0])), 1))
    [ 985.5 -521.5]
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
        for name, table in ((energy, _ENERGY), (length, _LENGTH), (mass, _MASS), (frequency, _HZ)):
            if name not in table:
                raise none_of(f"unit {name!r}", name, table)
        omega = math.sqrt(_ENERGY[energy] / _MASS[mass]) / _LENGTH[length]
        return cls(frequency, omega / (2 * math.pi) * _HZ[frequency])

    def of_errors(self, eigenvalues: np.ndarray, errors: np.ndarray) -> np.ndarray:
        """Return (k,) how far frequencies may be where eigenvalues may be so far. Not collective."""
        here = self.of_eigenvalues(eigenvalues)
        ends = self.of_eigenvalues(eigenvalues - errors), self.of_eigenvalues(eigenvalues + errors)
        return np.maximum(here - ends[0], ends[1] - here)

    def of_eigenvalues(self, eigenvalues: np.ndarray) -> np.ndarray:
        """Return frequencies (k,); those of negative eigenvalues are imaginary and given as negative."""
        return self.factor * np.sign(eigenvalues) * np.sqrt(np.abs(eigenvalues))
