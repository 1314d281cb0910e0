"""Dynamical matrices at any wave vector, and their derivatives: Bloch sums of force constants.

D_ij(q) = Σ_l Φ_{i0,jl} exp(iq·R) / sqrt(m_i m_j), R the shortest ways from atom i to the images of atom j that
repeat with the supercell; over ways that are equally short the phase is averaged (Parlinski, Li and Kawazoe 1997).
"""

from __future__ import annotations

import numpy as np
import scipy.sparse

from sparsehess.crystals.cells import in_first_zone, shortest_ways
from sparsehess.crystals.dipole_sums import DipoleSums
from sparsehess.crystals.force_constants import ForceConstants
from sparsehess.crystals.polar import Polar
from sparsehess.runtime.citations import cite

# What polar crystals add: dipoles in all of space (Gonze and Lee 1997), or constants of pairs (Wang et al. 2010).
GONZE, WANG = "gonze", "wang"


class BlochSums:
    """The dynamical matrices of force constants, at batches of wave vectors.

    Not collective.

    Attributes
    ----------
    rows
        Of a matrix: three for each atom of the primitive cell.
    scale
        A bound of the size of all eigenvalues at all q, without the field of long waves of polar crystals: the
        largest sum of a row of sizes. In eV/Å²/amu.
    rounding
        How far rounding in sums may move an eigenvalue, in eV/Å²/amu; see `turning` for that in phases.
    """

    def __init__(self, constants: ForceConstants, nac: str = GONZE) -> None:
        cite("dynamical matrices")
        primitive, supercell, images = constants.primitive, constants.supercell, constants.images
        self._polar, self._volume = constants.polar, primitive.volume
        self._reciprocal = primitive.reciprocal
        self._masses = np.repeat(primitive.masses, 3)
        self.rows = 3 * len(primitive)
        first, second, blocks = constants.first, constants.second, constants.blocks
        self._dipoles: DipoleSums | None = None
        if self._polar is not None:  # its field reaches all pairs
            first, second = (one.ravel() for one in np.indices((len(primitive), len(supercell))))
            blocks = constants.dense()[first, second]
            if nac == GONZE:
                cite("dipoles in crystals")
                self._dipoles = DipoleSums(primitive, self._polar)
                blocks = blocks - self._dipoles.force_constants(images)[first, second]
            else:
                cite("polar crystals")
        away = supercell.positions[second] - supercell.positions[images.first[first]]
        pair, self._ways, shares = shortest_ways(supercell.periods, away, None)
        of = images.of[second]
        root = np.sqrt(primitive.masses)
        weighted = (blocks / (root[first] * root[of])[:, None, None])[pair] * shares[:, None, None]
        keys, number = np.unique(first[pair] * len(primitive) + of[pair], return_inverse=True)
        number = number.ravel()
        self._places = np.divmod(keys, len(primitive))
        # A row for each entry of each block, a column for each way.
        entries = (9 * number[:, None] + np.arange(9)).ravel()
        ways = np.repeat(np.arange(len(pair)), 9)
        shape = (9 * len(keys), len(pair))
        self._spread = scipy.sparse.csr_matrix((weighted.reshape(-1), (entries, ways)), shape)
        self._share = scipy.sparse.csr_matrix(
            (shares / images.count, (number, np.arange(len(pair)))), (len(keys), len(pair))
        )
        across = np.arange(9)
        self._down = (3 * self._places[0][:, None] + across // 3).ravel()
        self._right = (3 * self._places[1][:, None] + across % 3).ravel()
        sizes = np.zeros(self.rows)
        np.add.at(sizes, self._down, abs(self._spread).sum(axis=1).A1)
        most = int(np.bincount(number).max(initial=0))
        if self._dipoles is not None:
            sizes += (self._dipoles.size / np.sqrt(np.outer(self._masses, self._masses))).sum(axis=1)
            most = max(most, self._dipoles.terms)
        self.scale = float(sizes.max(initial=0.0))
        self.rounding = float((most + 16) * np.finfo(float).eps * self.scale)
        self._farthest = float(np.linalg.norm(self._ways, axis=1).max(initial=0.0))

    def turning(self, q: np.ndarray) -> np.ndarray:
        """Return (m,) how far rounding of q·R may move an eigenvalue, in eV/Å²/amu, of q (m, 3) Cartesian."""
        angles = np.linalg.norm(q, axis=1) * self._farthest
        return np.minimum(8 * np.finfo(float).eps * angles, 2.0) * self.scale

    def batch(self, most: int) -> int:
        """Return how many wave vectors to take together for so many bytes. Not collective."""
        each = 16 * (8 * self.rows**2 + 4 * len(self._ways) + 4 * len(self._down))
        each += 0 if self._dipoles is None else self._dipoles.bytes_each()
        return int(np.clip(most // each, 1, 64))

    def matrices(self, q: np.ndarray, directions: np.ndarray | None = None) -> np.ndarray:
        """Return (m, rows, rows) the Hermitian D at wave vectors, in eV/Å²/amu.

        Not collective.

        Parameters
        ----------
        q
            (m, 3) Cartesian, in 1/Å, 2π included.
        directions
            (m, 3) from where q = 0 is reached, in a polar crystal; not used where q is not 0.
        """
        phases = self._phases(q)
        values = self._placed(self._entries(phases))
        if self._dipoles is not None:
            values += self._dipoles.matrices(q, directions) / np.sqrt(np.outer(self._masses, self._masses))
        elif self._polar is not None:
            values += self._field(self._polar, q, phases, directions)
        return _hermitian(values)

    def sparse(self, q: np.ndarray) -> scipy.sparse.csr_matrix:
        """Return D at one wave vector (3,), without what polar crystals add. Not collective."""
        return self._sparse(self._phases(q[None]))

    def sparse_slope(self, q: np.ndarray, axis: int) -> scipy.sparse.csr_matrix:
        """Return the derivative of `sparse` by a component of q. Not collective."""
        return self._sparse(1j * self._ways[:, axis, None] * self._phases(q[None]))

    def _sparse(self, phases: np.ndarray) -> scipy.sparse.csr_matrix:
        """Return the sparse Hermitian sum with these phases (ways, 1)."""
        values = self._entries(phases)[:, 0]
        one = scipy.sparse.csr_matrix((values, (self._down, self._right)), (self.rows, self.rows))
        return (0.5 * one + 0.5 * one.getH()).tocsr()

    def slopes(self, q: np.ndarray, directions: np.ndarray | None = None) -> np.ndarray:
        """Return (3, m, rows, rows) the derivatives of D by the components of q, in eV/Å²/amu Å.

        Not collective. Arguments are those of `matrices`.
        """
        phases = self._phases(q)
        found = []
        for axis in range(3):
            turned = 1j * self._ways[:, axis, None] * phases
            values = self._placed(self._entries(turned))
            if self._dipoles is not None:
                values += self._dipoles.slopes(q, axis) / np.sqrt(np.outer(self._masses, self._masses))
            elif self._polar is not None:
                values += self._field_slopes(self._polar, q, phases, turned, axis)
            found.append(_hermitian(values))
        return np.stack(found)

    def _phases(self, q: np.ndarray) -> np.ndarray:
        """Return (ways, m) exp(iq·R), each sum of three products in one order, whatever the batch."""
        ways = self._ways
        angles = ways[:, 0, None] * q[:, 0] + ways[:, 1, None] * q[:, 1] + ways[:, 2, None] * q[:, 2]
        return np.exp(1j * angles)

    def _entries(self, phases: np.ndarray) -> np.ndarray:
        """Return (entries, m) of blocks."""
        return (self._spread @ phases.view(np.float64)).view(np.complex128)

    def _placed(self, entries: np.ndarray) -> np.ndarray:
        """Return (m, rows, rows) with the entries of blocks in their places."""
        values = np.zeros((entries.shape[1], self.rows, self.rows), complex)
        values[:, self._down, self._right] = entries.T
        return values

    def _mean_phases(self, phases: np.ndarray) -> np.ndarray:
        """Return (m, rows, rows) the mean of phases over all cells, over the root of masses."""
        mean = (self._share @ np.ascontiguousarray(phases).view(np.float64)).view(np.complex128)
        return self._placed(np.repeat(mean, 9, axis=0)) / np.sqrt(np.outer(self._masses, self._masses))

    def _field(self, polar: Polar, q: np.ndarray, phases: np.ndarray, directions: np.ndarray | None) -> np.ndarray:
        """Return (m, rows, rows) what the field of a polar crystal adds (Wang et al. 2010)."""
        towards = in_first_zone(self._reciprocal, q)
        zero = _at_zero(towards)
        towards[zero] = 0.0 if directions is None else directions[zero]
        return polar.field_terms(towards, self._volume) * self._mean_phases(phases)

    def _field_slopes(
        self, polar: Polar, q: np.ndarray, phases: np.ndarray, turned: np.ndarray, axis: int
    ) -> np.ndarray:
        """Return (m, rows, rows) the derivative of that; zero where q is 0, where there is none."""
        near = in_first_zone(self._reciprocal, q)
        found = polar.slopes(near, axis, self._volume) * self._mean_phases(phases)
        found += polar.field_terms(near, self._volume) * self._mean_phases(turned)
        found[_at_zero(near)] = 0.0
        return found


def _at_zero(q: np.ndarray) -> np.ndarray:
    """Return (m,) bool: wave vectors at which a direction decides."""
    return np.linalg.norm(q, axis=1) < 1e-8


def _hermitian(values: np.ndarray) -> np.ndarray:
    """Return the Hermitian part of each of some matrices."""
    return 0.5 * (values + values.conj().transpose(0, 2, 1))
