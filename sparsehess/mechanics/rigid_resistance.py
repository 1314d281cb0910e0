"""How far motions that count as rigid may be from it: what K and its last digits make of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# Rounding that what K makes of a motion must exceed not to be zero.
_ROUNDINGS = 8.0

# Motions are known to so much of themselves; K makes of the rest its square times a row of K.
_KNOWN = 1e-10

# A motion is lost that the last digits give more than this |λ|, of a middle one.
_LOST = 1e-4

# Halvings of the exponent of the bound.
_HALVINGS = 60

_EPS = float(np.finfo(float).eps)


class Resistance(NamedTuple):
    """What is known of motions that K does not resist to the accuracy of its rows.

    Attributes
    ----------
    bound
        |λ| that they may have, to first order, by what K makes of them and by its last digits.
    told
        How many of them K resists, or drives, by more than its last digits.
    lost
        How many the last digits give a |λ| that is not small beside a middle one.
    """

    bound: float
    told: int
    lost: int

    @property
    def doubtful(self) -> bool:
        """Whether λ = 0 is not known of all of them. Not collective."""
        return bool(self.told or self.lost)

    def warning(self, unit: float) -> str:
        """Return what is to be done, empty where nothing is. Not collective.

        Parameters
        ----------
        unit
            What the bound is in, in rad per unit of time.
        """
        if not self.doubtful:
            return ""
        return (
            f"the entries of K have lost {max(self.told, self.lost)} of the modes: beside its large entries they "
            f"do not tell whether it resists motions that count as rigid, of |λ| up to {unit * self.bound:.2g}; "
            "take smaller penalties, or multipliers, or give K with more digits"
        )


NOTHING = Resistance(0.0, 0, 0)


def find_resistance(
    stiffness: np.ndarray, rows: np.ndarray, mass: np.ndarray, damping: np.ndarray, most: float
) -> Resistance:
    """Return what is known of p motions R, orthonormal and scaled.

    Not collective. A change of each entry of K by its last digit changes rᵀKr by no more than ε rᵀWr.

    Parameters
    ----------
    stiffness, rows, mass, damping
        (p, p) RᵀKR, RᵀWR with W the sums of the rows of |K|, RᵀMR, RᵀCR.
    most
        The largest of W. Motions of rows without entries have but what is not known of them elsewhere.
    """
    if not len(stiffness):
        return NOTHING
    digits, unknown = _EPS * rows, _KNOWN**2 * most * np.eye(len(rows))
    own, turns = np.linalg.eigh(stiffness)
    size = (turns * np.abs(own)) @ turns.T
    damps, turns = np.linalg.eigh(0.5 * (damping + damping.T))
    drag = (turns * np.abs(damps)) @ turns.T

    def above(value: float, k: np.ndarray) -> int:
        """Return how many of the motions k can give a larger |λ|: no root of λ²m + λc + k is larger."""
        return int(np.count_nonzero(np.linalg.eigvalsh(k - value**2 * mass - value * drag) > 0))

    told = int(np.count_nonzero(np.linalg.eigvalsh(size - _ROUNDINGS * digits - unknown) > 0))
    low, high = -150.0, 50.0
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if above(10.0**middle, size + digits) else (low, middle)
    return Resistance(10.0**high, told, above(_LOST, digits))
