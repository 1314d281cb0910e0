"""Force constants of a crystal: of each atom of a primitive cell with all atoms of a supercell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse
import scipy.sparse.linalg

from sparsehess.crystals.cells import Crystal, Images
from sparsehess.crystals.polar import Polar
from sparsehess.errors import InputError
from sparsehess.runtime.short_repr import ShortRepr
from sparsehess.runtime.validation import reals

# To this part of the sums that are to vanish the correction is solved for.
_SOLVED = 1e-14


@dataclass(frozen=True, eq=False, repr=False)
class ForceConstants(ShortRepr):
    """Second derivatives of the energy of a crystal, made by `of`, `read_force_constants` or `force_constants`.

    Not collective: every rank has them all, those pairs of atoms alone that are not zero throughout.

    Attributes
    ----------
    primitive, supercell
        The two cells.
    images
        Which atom of the supercell is which of the primitive cell.
    first, second
        (pairs,) an atom of the primitive cell, and one of the supercell.
    blocks
        (pairs, 3, 3) in eV/Å²: by how much the force on the first falls as the second moves.
    polar
        Born charges and dielectric constant; None where the crystal has none that are known.
    error
        How far the blocks may be off, as a part of their norm, by a fresh product; None where that is not known.
    name
        Where they come from.
    evaluations
        How many calls of a calculator they took, with their checks; 0 where they were given.

    Examples
    --------
    A chain of atoms along x, with springs to the next ones, and a weaker one to hold each across:

    >>> import numpy as np
    >>> import sparsehess as sh
    >>> from sparsehess.crystals import Crystal
    >>> cell = Crystal(np.diag([2.0, 9.0, 9.0]), [[0, 0, 0]], [1.0], ["H"])
    >>> three = Crystal(np.diag([6.0, 9.0, 9.0]), [[0, 0, 0], [2, 0, 0], [4, 0, 0]], [1.0] * 3, ["H"] * 3)
    >>> springs = np.diag([1.0, 0.1, 0.1])
    >>> constants = sh.ForceConstants.of([[2 * springs, -springs, -springs]], cell, three)
    >>> constants.drift, constants.asymmetry
    (0.0, 0.0)
    """

    primitive: Crystal
    supercell: Crystal
    images: Images
    first: np.ndarray
    second: np.ndarray
    blocks: np.ndarray
    polar: Polar | None = None
    error: float | None = None
    name: str = "arrays"
    evaluations: int = 0

    @classmethod
    def of(
        cls,
        values: np.ndarray,
        primitive: Crystal,
        supercell: Crystal,
        *,
        polar: Polar | None = None,
        name: str = "arrays",
    ) -> ForceConstants:
        """Return the force constants of an array.

        Not collective.

        Parameters
        ----------
        values
            (atoms of the primitive cell, or of the supercell, atoms of the supercell, 3, 3) in eV/Å². Of a square
            array of the supercell the rows of the atoms of the primitive cell are taken.
        primitive, supercell
            The cells, in the order of the array.
        polar, name
            As of the class.

        Raises
        ------
        InputError
            The shape does not fit the cells, numbers are not finite, or the supercell does not repeat the cell.
        """
        images = Images.found(primitive, supercell)
        array = np.asarray(values)
        whole = (len(supercell), len(supercell), 3, 3)
        if array.shape == whole and len(primitive) < len(supercell):
            array = array[images.first]
        if array.shape != (len(primitive), *whole[1:]):
            raise InputError(
                f"force constants {array.shape} of {len(primitive)} atoms in a supercell of {len(supercell)}: "
                f"give ({len(primitive)}, {len(supercell)}, 3, 3), or {whole}"
            )
        first, second = np.nonzero((array != 0).any(axis=(2, 3)))
        return cls(primitive, supercell, images, first, second, _finite(array[first, second]), polar, None, name)

    @classmethod
    def of_pairs(
        cls,
        first: np.ndarray,
        second: np.ndarray,
        blocks: np.ndarray,
        primitive: Crystal,
        supercell: Crystal,
        *,
        error: float | None = None,
        name: str = "pairs",
        evaluations: int = 0,
    ) -> ForceConstants:
        """Return the force constants of pairs of atoms; those that are not named are zero.

        Not collective. Attributes of the class are the arguments; of pairs that are named twice blocks are added.
        """
        images = Images.found(primitive, supercell)
        keys, number = np.unique(np.asarray(first) * len(supercell) + np.asarray(second), return_inverse=True)
        summed = np.zeros((len(keys), 3, 3))
        np.add.at(summed, number.ravel(), _finite(blocks))
        rows, columns = np.divmod(keys, len(supercell))
        return cls(primitive, supercell, images, rows, columns, summed, None, error, name, evaluations)

    def _repr_facts(self) -> Iterator[str]:
        """Yield what the line says. Not collective."""
        yield f"{self.primitive.formula}"
        yield f"{self.images.count} cells"
        yield f"{len(self.first)} pairs"

    @property
    def sums(self) -> np.ndarray:
        """(primitive atoms, 3, 3) the force on an atom as all move together: zero but for errors, in eV/Å²."""
        total = np.zeros((len(self.primitive), 3, 3))
        np.add.at(total, self.first, self.blocks)
        return total

    @property
    def drift(self) -> float:
        """The largest entry of `sums`: by how much the acoustic sum rule is violated, in eV/Å²."""
        return float(np.abs(self.sums).max(initial=0.0))

    @property
    def asymmetry(self) -> float:
        """By how much Φ_ij and the transpose of Φ_ji differ at most, in eV/Å²."""
        blocks, mirrored = self._both()[2:]
        return float(np.abs(blocks - mirrored).max(initial=0.0))

    def dense(self) -> np.ndarray:
        """Return (primitive atoms, supercell atoms, 3, 3), as phonopy's compact ones. Not collective."""
        values = np.zeros((len(self.primitive), len(self.supercell), 3, 3))
        values[self.first, self.second] = self.blocks
        return values

    def symmetrized(self) -> ForceConstants:
        """Return the nearest force constants that are symmetric and do not resist translations.

        Not collective. Pairs that are zero, and whose mirror images are, stay so: of all such blocks these are
        those with Σ_j Φ_ij = 0 and Φ_ij = Φ_jiᵀ that are nearest to (Φ_ij + Φ_jiᵀ)/2 in the sum of squares. They
        differ from it by A_i + A_jᵀ, A_i (3, 3) for each atom of the primitive cell: a sparse system.
        """
        first, second, blocks, mirrored = self._both()
        even = 0.5 * (blocks + mirrored)
        even = even - self._correction(first, self.images.of[second], even)
        return replace(self, first=first, second=second, blocks=even)

    def _both(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return all pairs that are there one way or the other, and their blocks each way."""
        size = len(self.supercell)
        here = self.first * size + self.second
        other_first, other_second = self.images.partner(self.first, self.second)
        there = other_first * size + other_second
        keys = np.union1d(here, there)
        blocks, mirrored = np.zeros((len(keys), 3, 3)), np.zeros((len(keys), 3, 3))
        blocks[np.searchsorted(keys, here)] = self.blocks
        mirrored[np.searchsorted(keys, there)] = self.blocks.transpose(0, 2, 1)
        return *divmod(keys, size), blocks, mirrored

    def _correction(self, first: np.ndarray, second: np.ndarray, blocks: np.ndarray) -> np.ndarray:
        """Return (pairs, 3, 3) A_i + A_jᵀ whose sums over j are those of symmetric blocks."""
        atoms = len(self.primitive)
        sums = np.zeros((atoms, 3, 3))
        np.add.at(sums, first, blocks)
        if not np.abs(sums).max(initial=0.0) > 0:
            return np.zeros_like(blocks)
        number = np.arange(9 * atoms).reshape(atoms, 3, 3)
        here, there = number[first].ravel(), number[second].transpose(0, 2, 1).ravel()
        ones = np.ones(len(here))
        rows = np.concatenate([here, here])
        system = scipy.sparse.coo_matrix((np.r_[ones, ones], (rows, np.r_[here, there])), (9 * atoms, 9 * atoms))
        found = scipy.sparse.linalg.lsqr(system.tocsr(), sums.ravel(), atol=_SOLVED, btol=_SOLVED, conlim=0)[0]
        correction = found.reshape(atoms, 3, 3)
        return correction[first] + correction[second].transpose(0, 2, 1)


def _finite(blocks: np.ndarray) -> np.ndarray:
    found = reals(blocks, "force constants")
    if not np.isfinite(found).all():
        raise InputError("force constants must be finite")
    return found
