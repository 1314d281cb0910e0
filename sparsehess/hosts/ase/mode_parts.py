"""What single vibrations add to energies and entropies, by ASE's classes, where their frequencies are intervals.

The zero-point energy, the energy and the free energy of an oscillator grow with its frequency, the entropy falls:
of an interval the ends say it. Where Grimme's interpolation stands in, the entropy is not monotone, and is
enclosed piece by piece. As a frequency goes to zero, the energy goes to kT, and the entropy grows like the
logarithm of its inverse.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sparsehess.errors import StackError

if TYPE_CHECKING:
    from ase import Atoms

LOW_MODES = ("harmonic", "quasi-harmonic", "msrrho")

# In cm⁻¹, as ASE has them: what lower frequencies are raised to; where half of a mode is a rotor.
CUTOFFS = {"quasi-harmonic": 100.0, "msrrho": 35.0}

# Of an interval, in which an entropy is enclosed; and below which frequency, in cm⁻¹, a rotor's no longer changes.
_PIECES, _FREE = 16, 1e-6

# Digits that a few operations lose.
_ROUNDINGS = 8 * float(np.finfo(float).eps)

# Of kT: a quantum that is no more is none, and exp(quantum / kT) - 1 has lost its digits.
_NONE = 1e-9


class Part(NamedTuple):
    """What modes add to a quantity.

    Attributes
    ----------
    value
        (k,) of the frequencies themselves; NaN where there is no bound.
    low, high
        (k,) the least and the most of what the intervals allow, infinite where nothing bounds it.
    """

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


class Parts(NamedTuple):
    """What modes add at a temperature: `zero_point`, `energy` (with it) and `free` in eV, `entropy` in eV/K."""

    zero_point: Part
    energy: Part
    entropy: Part
    free: Part


class LowModes:
    """How modes are taken: as oscillators, or the low ones otherwise.

    Not collective.

    Parameters
    ----------
    kind
        A name of `LOW_MODES`.
    cutoff
        In cm⁻¹.
    atoms
        For the moments of inertia.
    temperature
        In K.

    Raises
    ------
    StackError
        The ASE that is installed has no class for it.
    """

    def __init__(self, kind: str, cutoff: float, atoms: Atoms, temperature: float):
        from ase import thermochemistry, units

        self.kind, self.cutoff, self.temperature = kind, cutoff, temperature
        self.thermal = units.kB * temperature
        self._harmonic, self._per_cm = thermochemistry.HarmonicThermo, units.invcm
        wanted = {"quasi-harmonic": "QuasiHarmonicThermo", "msrrho": "RRHOMode"}.get(kind, "HarmonicThermo")
        self._low: Any = getattr(thermochemistry, wanted, None)
        if self._low is None:
            raise StackError(f"low modes by {kind!r} take an ASE that has {wanted}: update it, pip install -U ase")
        self._inertia = float(np.mean(atoms.get_moments_of_inertia())) if kind == "msrrho" else 0.0

    @property
    def bounded(self) -> bool:
        """Whether the entropy of a mode stays finite as its frequency goes to zero."""
        return self.kind != "harmonic"

    def parts(self, low: np.ndarray, middle: np.ndarray, high: np.ndarray) -> Parts:
        """Return what modes add whose quanta are between `low` and `high` (k,), in eV; negative is imaginary."""
        found = np.empty((4, 3, len(middle)))
        with np.errstate(over="ignore"):  # of exp, far below the quanta: it goes to 0 as it should
            for number, one in enumerate(zip(low.tolist(), middle.tolist(), high.tolist(), strict=True)):
                found[:, :, number] = self._of(*one)
        rounding = self._rounding(low)
        found[:, 1] -= rounding
        found[:, 2] += rounding
        return Parts(*(Part(*one) for one in found))

    def _rounding(self, low: np.ndarray) -> np.ndarray:
        """Return (4, k) what rounding may be of each part: 1 - exp(-quantum / kT) loses digits as it goes to 0."""
        least = self.cutoff * self._per_cm if self.kind == "quasi-harmonic" else _NONE * self.thermal
        quanta = np.maximum(low, least)
        energy = quanta + self.thermal * (1.0 + self.thermal / quanta)
        return _ROUNDINGS * np.array([quanta, energy, energy / self.temperature, energy])

    def _of(self, low: float, middle: float, high: float) -> np.ndarray:
        """Return (4, 3): zero point, energy, entropy, free energy of a mode; each value, least and most."""
        points, energies = np.array([self._energies(one) for one in (middle, low, high)]).T
        if self.kind == "msrrho":
            entropy = self._enclosed(low, middle, high)
            free = energies - self.temperature * entropy[[0, 2, 1]]
        else:
            at = [self._entropy(one) for one in (middle, low, high)]
            if not np.isfinite(at[1]):
                at[0] = np.nan
            entropy = np.array([at[0], at[2], at[1]])
            free = energies - self.temperature * np.array(at)
        return np.array([points, energies, entropy, free])

    def _vanishes(self, quantum: float) -> bool:
        return self.kind != "quasi-harmonic" and not quantum > _NONE * self.thermal

    def _thermo(self, quantum: float) -> Any:
        if self.kind == "quasi-harmonic":
            return self._low([max(quantum, 0.0)], raise_to=self.cutoff * self._per_cm)
        return self._harmonic([quantum])

    def _energies(self, quantum: float) -> tuple[float, float]:
        """Return zero-point energy and energy."""
        if self._vanishes(quantum):
            return 0.0, self.thermal
        thermo = self._thermo(quantum)
        return float(thermo.get_ZPE_correction()), float(
            thermo.get_internal_energy(self.temperature, verbose=False)
        )

    def _entropy(self, quantum: float) -> float:
        if self._vanishes(quantum):
            return np.inf
        return float(self._thermo(quantum).get_entropy(self.temperature, verbose=False))

    def _enclosed(self, low: float, middle: float, high: float) -> np.ndarray:
        """Return (3,) the entropy between an oscillator's and a rotor's: value, least and most.

        Both fall with the frequency, and the share of the oscillator grows: over a piece of the interval what is
        between them is no more than at one of the shares, and the values at the lower end, and no less than at one
        of them and those at the upper end.
        """
        least = _FREE * self._per_cm
        low, middle, high = (max(one, least) for one in (low, middle, high))
        ends = np.geomspace(low, high, _PIECES + 1)
        ends[[0, -1]] = low, high
        both = np.array([self._oscillator_and_rotor(one) for one in ends])
        share = 1.0 / (1.0 + (self.cutoff * self._per_cm / ends) ** 4)  # Head-Gordon's, as in Grimme 2012, eq. 8
        shares = np.stack([share[:-1], share[1:]])
        most = shares * both[:-1, 0] + (1.0 - shares) * both[:-1, 1]
        fewest = shares * both[1:, 0] + (1.0 - shares) * both[1:, 1]
        mode = self._low(middle, self._inertia, tau=self.cutoff)
        value = float(mode.get_entropy(self.temperature, contributions=False))
        return np.array([value, min(value, fewest.min()), max(value, most.max())])

    def _oscillator_and_rotor(self, quantum: float) -> tuple[float, float]:
        mode = self._low(quantum, self._inertia, tau=self.cutoff)
        oscillator = float(mode.get_vib_entropy_contribution(self.temperature))
        return oscillator, float(mode.get_RRHO_entropy_r(self.temperature))
