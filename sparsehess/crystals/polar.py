"""Polar crystals: what the electric field of long waves adds to a dynamical matrix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsehess.errors import InputError
from sparsehess.runtime.short_repr import ShortRepr
from sparsehess.runtime.validation import reals

# e²/(4π ε0) in eV Å (CODATA 2018).
COULOMB = 14.399645478


@dataclass(frozen=True, eq=False, repr=False)
class Polar(ShortRepr):
    """Born charges and the dielectric constant of a crystal.

    Not collective.

    Attributes
    ----------
    charges
        (primitive atoms, 3, 3) Born effective charges, in units of e; the first index is that of the field.
    dielectric
        (3, 3) the electronic (high-frequency) dielectric constant.
    coulomb
        e²/(4π ε0), in eV Å.

    Raises
    ------
    InputError
        Shapes that do not fit, or a dielectric constant that is not symmetric and positive.
    """

    charges: np.ndarray
    dielectric: np.ndarray
    coulomb: float = COULOMB

    def __post_init__(self) -> None:
        """Check the arrays."""
        charges, dielectric = reals(self.charges, "Born charges"), reals(self.dielectric, "dielectric constant")
        if charges.ndim != 3 or charges.shape[1:] != (3, 3) or dielectric.shape != (3, 3):
            raise InputError(
                f"Born charges (atoms, 3, 3) and a dielectric constant (3, 3), not {charges.shape} and "
                f"{dielectric.shape}"
            )
        if not (np.isfinite(charges).all() and np.isfinite(dielectric).all()):
            raise InputError("Born charges and dielectric constant must be finite")
        even = 0.5 * (dielectric + dielectric.T)
        if not np.abs(dielectric - even).max() <= 1e-2 * np.abs(even).max() or not np.linalg.eigvalsh(even)[0] > 0:
            raise InputError("the dielectric constant must be symmetric, with eigenvalues above 0")
        object.__setattr__(self, "charges", charges)
        object.__setattr__(self, "dielectric", even)

    @property
    def excess(self) -> float:
        """The largest entry of the sum of charges, which is zero in a neutral crystal."""
        return float(np.abs(self.charges.sum(axis=0)).max())

    def neutral(self) -> Polar:
        """Return the same with charges that sum to zero, the excess taken from all alike. Not collective."""
        return Polar(self.charges - self.charges.mean(axis=0), self.dielectric, self.coulomb)

    def charged(self, directions: np.ndarray) -> np.ndarray:
        """Return (…, 3 atoms) q·Z of directions (…, 3). Not collective."""
        return directions @ self.charges.transpose(1, 0, 2).reshape(3, -1)

    def field_terms(self, directions: np.ndarray, volume: float) -> np.ndarray:
        """Return (m, 3 atoms, 3 atoms) 4π e² (q·Z_i)(q·Z_j) / (q·ε·q V), in eV/Å², of directions (m, 3).

        Not collective. Zero where the direction is.

        References
        ----------
        .. [1] R. M. Pick, M. H. Cohen, R. M. Martin, Microscopic theory of force constants in the adiabatic
           approximation, Physical Review B 1 (1970), 910-920, equation 4.7.
        """
        charged = self.charged(directions)
        screened = np.einsum("ma,ab,mb->m", directions, self.dielectric, directions)
        factor = np.divide(
            4 * np.pi * self.coulomb / volume, screened, out=np.zeros_like(screened), where=screened > 0
        )
        return factor[:, None, None] * charged[:, :, None] * charged[:, None, :]

    def slopes(self, directions: np.ndarray, axis: int, volume: float) -> np.ndarray:
        """Return (m, 3 atoms, 3 atoms) the derivative of `field_terms` by a component of q. Not collective."""
        charged = self.charged(directions)
        screened = np.einsum("ma,ab,mb->m", directions, self.dielectric, directions)
        there = screened > 0
        one = np.divide(1.0, screened, out=np.zeros_like(screened), where=there)
        scale = 4 * np.pi * self.coulomb / volume * one
        own = np.broadcast_to(self.charges[:, axis, :].reshape(-1), charged.shape)
        turn = 2 * np.divide(
            directions @ self.dielectric[axis], screened, out=np.zeros_like(screened), where=there
        )
        outer = own[:, :, None] * charged[:, None, :] + charged[:, :, None] * own[:, None, :]
        return scale[:, None, None] * (outer - turn[:, None, None] * charged[:, :, None] * charged[:, None, :])
