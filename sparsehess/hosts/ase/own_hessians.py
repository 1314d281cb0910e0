"""Second derivatives that a calculator has itself, by the names under which calculators have them.

`get_hessian(atoms)` is that of MACE and of matscipy: the whole matrix in eV/Å², dense or sparse.
`hessian_vector_product(atoms, v)` is a product with (atoms, 3) displacements in Å, in eV/Å.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mpi4py import MPI

import numpy as np
import scipy.sparse

from sparsehess.derivatives.evaluations import Evaluations
from sparsehess.errors import InputError
from sparsehess.hessian.hessian import Hessian
from sparsehess.runtime.random_numbers import draw_signed

if TYPE_CHECKING:
    from ase import Atoms

# Å: the longer step of the differences of forces that products are measured by; how many lines, the seed of them.
_LONG, _LINES, _SEED = 2e-3, 4, 25

# Of a Hessian: what single precision may leave of it.
_SINGLE = 1e-6

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


def error_beside_forces(hessian: Hessian) -> float:
    """Return by how much a Hessian of products is apart from differences of forces, as an eigenvalue may feel it.

    Collective; four gradients for each of `_LINES`. What products say twice alike may be wrong alike: forces are a
    measure of it. Along s over the roots of masses, s of random signs, ‖M^-1/2 E M^-1/2 s‖² is on average the sum
    of squares of that error E, no less than the square of what it may do to an eigenvalue. Twice its root is told:
    an estimate. Of what is within what halving the step of the differences changes, single precision is told.
    """
    objective = hessian.objective
    comm, root = objective.comm, np.sqrt(objective.local(objective.mass))
    lightest = comm.allreduce(float(root.min(initial=np.inf)), op=MPI.MIN)
    evaluations, steps = Evaluations(objective, objective.x), (_LONG, -_LONG, _LONG / 2, -_LONG / 2)
    v, image = hessian.mat.createVecs()
    sums = np.zeros(3)
    for line in range(_LINES):
        way = lightest / root * draw_signed(objective.layout, _SEED + line)
        g = evaluations.gradients([hessian.point + step * way for step in steps])
        long, short = (g[0] - g[1]) / (2 * _LONG), (g[2] - g[3]) / _LONG
        v.setArray(way)
        hessian.mat.mult(v, image)
        product = image.getArray(readonly=True)
        apart = product - (4 * short - long) / 3
        sums += [((one / root) ** 2).sum() for one in (apart, short - long, product)]
    v.destroy()
    image.destroy()
    seen, unsure, size = np.sqrt(comm.allreduce(sums) / _LINES) / lightest
    return 2 * float(min(seen, _SINGLE * size) if seen <= unsure else seen)
