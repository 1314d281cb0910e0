"""Second derivatives that a calculator has itself, by the names under which calculators have them.

`get_hessian(atoms)` is that of MACE and of matscipy: the whole matrix in eV/Å², dense or sparse.
`hessian_vector_product(atoms, v)` is a product with (atoms, 3) displacements in Å, in eV/Å.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse

from sparsehess.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms

PRODUCT, MATRIX = "hessian_vector_product", "get_hessian"


def find_own(calculator: Any) -> str | None:
    """Return by which of its methods a calculator tells second derivatives; None where it has none.

    Not collective. Products are taken before a matrix, which would be made whole.
    """
    return next((name for name in (PRODUCT, MATRIX) if callable(getattr(calculator, name, None))), None)


class OwnHessian:
    """Products with the Hessian of a calculator, of the coordinates that are free.

    Not collective: each rank has its own.

    Parameters
    ----------
    calculator
        That has the method.
    method
        See `find_own`.
    free
        (3 atoms,) bool: the coordinates that are variables.
    """

    def __init__(self, calculator: Any, method: str, free: np.ndarray):
        self._calculator, self._free = calculator, free
        self.method = method
        self._at: np.ndarray | None = None
        self._kept: Any = None

    @property
    def name(self) -> str:
        """The method, as messages name it."""
        return f"{type(self._calculator).__name__}.{self.method}"

    def product(self, atoms: Atoms, v: np.ndarray) -> np.ndarray:
        """Return (n,) the product with a direction of the free coordinates, where the atoms are."""
        if self.method == MATRIX:
            return np.asarray(self.matrix(atoms) @ v)
        whole = np.zeros(len(self._free))
        whole[self._free] = v
        image = np.asarray(getattr(self._calculator, PRODUCT)(atoms, whole.reshape(-1, 3)))
        if image.size != len(self._free) or image.dtype.kind not in "fiu":
            raise InputError(f"{self.name} gives an array {image.shape}, not ({len(atoms)}, 3) numbers")
        return image.ravel()[self._free].astype(np.float64)

    def matrix(self, atoms: Atoms) -> Any:
        """Return (n, n) the Hessian of the free coordinates where the atoms are, dense or sparse; it is kept.

        Raises
        ------
        InputError
            The method gives something else.
        """
        positions = atoms.get_positions()
        if self._at is None or not np.array_equal(positions, self._at):
            self._kept = self._shaped(getattr(self._calculator, MATRIX)(atoms))
            self._at = positions
        return self._kept

    def _shaped(self, found: Any) -> Any:
        many = len(self._free)
        if scipy.sparse.issparse(found):
            found = found.tocsr()
            if found.shape == (many, many):
                return found[self._free][:, self._free]
        else:
            found = np.asarray(found)
            if found.size == many**2 and found.dtype.kind in "fiu":
                return found.reshape(many, many)[np.ix_(self._free, self._free)].astype(np.float64)
        raise InputError(
            f"{self.name} gives an array {found.shape}, not a Hessian of {many} coordinates: from_atoms(…, "
            "own=False) takes differences of forces instead"
        )

    def coupled(self, atoms: Atoms) -> tuple[np.ndarray, np.ndarray]:
        """Return rows and columns of the entries that are not zero, where `method` tells the matrix."""
        entries = scipy.sparse.coo_matrix(self.matrix(atoms))
        there = entries.data != 0
        return entries.row[there].astype(np.int64), entries.col[there].astype(np.int64)
