"""Dipoles in a polar crystal: their dynamical matrix by a sum over reciprocal vectors, as Gonze and Lee have it.

An atom i that moves is a dipole Z_i u in the dielectric ε. With wave vectors K = q + G, G of the reciprocal
lattice,

    D_ij(q) = 4π e²/V Σ_K (K·Z_i)(K·Z_j) / (K·ε·K) exp(−K·ε·K/η + iG·(τ_i − τ_j)).

The factor exp(−K·ε·K/η) spreads each dipole. What it takes from point dipoles falls off within a cell or so; it
stays with what is left of the force constants: D of spread dipoles is subtracted at the wave vectors that fit the
supercell, and added at all others. A term of each atom with itself, by which the forces of dipoles obey the sum
rule, would be subtracted and added alike, and is left out.
"""

from __future__ import annotations

import numpy as np

from sparsehess.crystals.cells import Crystal, Images, in_first_zone, reduced
from sparsehess.crystals.polar import Polar

# η is such that the factor is this small at the radius of a sphere of so many reciprocal vectors: as phonopy's.
_VECTORS, _SMALL = 300, 1e-10

# No K whose factor is larger is left out.
_LEFT_OUT = 1e-15

# 1/Å: shorter wave vectors are none.
_NONE = 1e-8

# Bytes of a part of the wave vectors that fit a supercell.
_PART = 2**27


class DipoleSums:
    """Dynamical matrices of dipoles, without masses, at batches of wave vectors.

    Not collective.

    Attributes
    ----------
    terms
        Reciprocal vectors that are summed over.
    size
        (3 atoms, 3 atoms) sums of sizes of terms at q = 0, in eV/Å².

    References
    ----------
    .. [1] X. Gonze, C. Lee, Dynamical matrices, Born effective charges, dielectric permittivity tensors, and
       interatomic force constants from density-functional perturbation theory, Physical Review B 55 (1997),
       10355-10368, section VI, equations 71 to 78: of the sums the one over reciprocal vectors.
    """

    def __init__(self, primitive: Crystal, polar: Polar) -> None:
        self._polar, self._volume = polar, primitive.volume
        self._lattice, self._reciprocal, self._places = (
            primitive.lattice,
            primitive.reciprocal,
            primitive.positions,
        )
        radius = 2 * np.pi * (3 * _VECTORS / (4 * np.pi * self._volume)) ** (1 / 3)
        self._eta = float(radius**2 * np.trace(polar.dielectric) / 3 / -np.log(_SMALL))
        self._vectors = self._reached()
        self.terms = len(self._vectors)
        self._turned = np.exp(1j * self._vectors @ self._places.T).repeat(3, axis=1)
        charged, weights, _ = self._terms(np.zeros((1, 3)))
        sizes = np.abs(charged[0])
        self.size = (sizes * weights[0, :, None]).T @ sizes

    def _reached(self) -> np.ndarray:
        """Return (g, 3) all G of which, with some q of the first zone, the factor counts."""
        low, high = np.sqrt(np.linalg.eigvalsh(self._polar.dielectric)[[0, -1]])
        # No point is farther from a lattice than half of the root of the squares of its vectors (Babai 1986).
        zone = 0.5 * np.linalg.norm(reduced(self._reciprocal))
        reach = np.sqrt(-np.log(_LEFT_OUT) * self._eta) + zone * high
        most = np.floor(reach / low * np.linalg.norm(self._lattice, axis=1) / (2 * np.pi)).astype(int)
        numbers = np.stack(np.meshgrid(*(np.arange(-one, one + 1) for one in most), indexing="ij"), axis=-1)
        vectors = numbers.reshape(-1, 3) @ self._reciprocal
        return vectors[np.einsum("ga,ab,gb->g", vectors, self._polar.dielectric, vectors) <= reach**2]

    def _terms(self, q: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (m, g, 3 atoms) K·Z exp(iG·τ), (m, g) the rest of the terms, (m, g, 3) K; q in the first zone."""
        waves = q[:, None, :] + self._vectors
        screened = ((waves @ self._polar.dielectric) * waves).sum(axis=2)
        some = np.linalg.norm(waves, axis=2) > _NONE
        weights = np.divide(np.exp(-screened / self._eta), screened, out=np.zeros_like(screened), where=some)
        weights *= 4 * np.pi * self._polar.coulomb / self._volume
        return self._polar.charged(waves) * self._turned, weights, waves

    def matrices(self, q: np.ndarray, directions: np.ndarray | None = None) -> np.ndarray:
        """Return (m, 3 atoms, 3 atoms) D of dipoles at wave vectors, in eV/Å².

        Not collective.

        Parameters
        ----------
        q
            (m, 3) Cartesian, in 1/Å, 2π included.
        directions
            (m, 3) from where q = 0 is reached.
        """
        near = in_first_zone(self._reciprocal, q)
        charged, weights, _ = self._terms(near)
        found = (charged * weights[:, :, None]).transpose(0, 2, 1) @ charged.conj()
        if directions is not None:
            zero = np.linalg.norm(near, axis=1) <= _NONE
            found[zero] += self._polar.field_terms(directions[zero], self._volume)
        return found * self._moved(q - near)

    def slopes(self, q: np.ndarray, axis: int) -> np.ndarray:
        """Return (m, 3 atoms, 3 atoms) the derivative by a component of q, without K = 0. Not collective."""
        near = in_first_zone(self._reciprocal, q)
        charged, weights, waves = self._terms(near)
        dielectric = self._polar.dielectric
        screened = ((waves @ dielectric) * waves).sum(axis=2)
        some = weights > 0
        each = np.divide(1.0, screened, out=np.zeros_like(screened), where=some) + 1 / self._eta
        falling = -2 * (waves @ dielectric[axis]) * each * weights
        own = self._polar.charges[:, axis, :].reshape(-1) * self._turned
        half = (own[None] * weights[:, :, None]).transpose(0, 2, 1) @ charged.conj()
        found = (charged * falling[:, :, None]).transpose(0, 2, 1) @ charged.conj()
        return (found + half + half.conj().transpose(0, 2, 1)) * self._moved(q - near)

    def _moved(self, apart: np.ndarray) -> np.ndarray:
        """Return (m, 3 atoms, 3 atoms) phases of D at q that was moved into the first zone by these vectors."""
        phases = np.exp(-1j * apart @ self._places.T).repeat(3, axis=1)
        return phases[:, :, None] * phases[:, None, :].conj()

    def bytes_each(self) -> int:
        """Return about how many bytes a wave vector takes. Not collective."""
        return 16 * (4 * self._turned.size + 6 * self.terms + 4 * self._turned.shape[1] ** 2)

    def force_constants(self, images: Images) -> np.ndarray:
        """Return (primitive atoms, supercell atoms, 3, 3) those of dipoles, repeated with the supercell, in eV/Å².

        Not collective. By the wave vectors that fit the supercell, at which D of these is that of `matrices`.
        """
        waves = in_first_zone(self._reciprocal, images.fitting() @ self._reciprocal)
        cells = images.points @ self._lattice
        atoms, many = len(self._places), max(_PART // self.bytes_each(), 1)
        summed = np.zeros((images.count, 9 * atoms**2))
        for begin in range(0, len(waves), many):
            q = waves[begin : begin + many]
            phases = np.exp(1j * q @ self._places.T).repeat(3, axis=1)
            found = self.matrices(q) * phases[:, :, None] * phases[:, None, :].conj()
            summed += (np.exp(-1j * cells @ q.T) @ found.reshape(len(q), -1)).real
        blocks = summed.reshape(images.count, atoms, 3, atoms, 3) / len(waves)
        return blocks.transpose(1, 3, 0, 2, 4).reshape(atoms, -1, 3, 3)[:, images.order]
