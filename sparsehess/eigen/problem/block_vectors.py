"""Panels: blocks of vectors as rows of one local array, with products and combinations that take all rows at once.

A panel is an array (m, n_local): m vectors, of each this rank's part. A matrix is read once for all of them, which
makes its product with a panel some three times as fast as with one vector after the other.
"""

from __future__ import annotations

from mpi4py import MPI

import numpy as np

from sparsehess.eigen.problem.slepc_blocks import require_finite
from sparsehess.runtime import PETSc, destroy, on_root
from sparsehess.runtime.petsc_matrices import is_assembled

# Columns of a panel that are combined at a time: they stay in the cache.
_CHUNK = 2048

# Directions of a panel whose rows have norm 1 that are weaker than this hold rounding alone.
_DEPENDENT = 1e-13


class Product:
    """X -> A X of an assembled matrix, by PETSc's product with dense matrices.

    Collective to use and to `close()`. What a call returns is valid until the next one.
    """

    def __init__(self, matrix: PETSc.Mat):
        self.matrix = matrix
        self._blocks: tuple[PETSc.Mat, ...] = ()  # what is multiplied, and its image
        self._given = self._image = np.empty((0, 0))

    def __call__(self, panel: np.ndarray) -> np.ndarray:
        """Return the image of a panel (m, n_local); the next call overwrites it. Collective."""
        if not self._blocks or len(self._given) != len(panel):  # on all ranks alike, those without rows too
            self._make_room(len(panel))
        self._given[:] = panel
        given, image = self._blocks
        given.stateIncrease()
        self._multiply(given, image)
        return self._image

    def _make_room(self, vectors: int) -> None:
        self.close()
        into, out = self.matrix.getSizes()
        given = dense(out, vectors, self.matrix.comm)
        image = self._first(given, into, vectors)
        self._blocks = given, image
        self._given, self._image = given.getDenseArray().T, image.getDenseArray().T

    def _first(self, given: PETSc.Mat, rows: tuple[int, int], vectors: int) -> PETSc.Mat:
        return self.matrix.matMult(given)

    def _multiply(self, given: PETSc.Mat, image: PETSc.Mat) -> None:
        self.matrix.matMult(given, image)

    def close(self) -> None:
        """Free what is kept between products. Collective."""
        self._given = self._image = np.empty((0, 0))
        destroy(*self._blocks)
        self._blocks = ()


class Preconditioning(Product):
    """X -> T X of PETSc's preconditioner that is set up for a matrix."""

    def __init__(self, pc: PETSc.PC):
        super().__init__(pc.getOperators()[1])
        self._pc = pc

    def _first(self, given: PETSc.Mat, rows: tuple[int, int], vectors: int) -> PETSc.Mat:
        return dense(rows, vectors, self.matrix.comm)

    def _multiply(self, given: PETSc.Mat, image: PETSc.Mat) -> None:
        self._pc.matApply(given, image)


class OneByOne:
    """X -> A X of a shell. Collective to use."""

    def __init__(self, matrix: PETSc.Mat):
        self.matrix = matrix

    def __call__(self, panel: np.ndarray) -> np.ndarray:
        """Return the image of a panel (m, n_local). Collective."""
        given, image = self.matrix.createVecs()
        out = np.empty((len(panel), image.getLocalSize()), panel.dtype)
        for row, here in zip(panel, out, strict=True):
            given.setArray(row)
            self.matrix.mult(given, image)
            here[:] = image.getArray(readonly=True)
        destroy(given, image)
        return out

    def close(self) -> None:
        """Do nothing: nothing is kept."""


def product(matrix: PETSc.Mat) -> Product | OneByOne:
    """Return what multiplies panels by a matrix; the caller closes it. Not collective."""
    return Product(matrix) if is_assembled(matrix) else OneByOne(matrix)


def dense(rows: tuple[int, int], vectors: int, comm: MPI.Comm) -> PETSc.Mat:
    """Return a dense matrix of so many vectors with the layout `rows`, (local, global). Collective."""
    matrix = PETSc.Mat().createDense((rows, (PETSc.DECIDE, vectors)), comm=comm)
    matrix.setUp()
    matrix.assemble()
    return matrix


def dots(comm: MPI.Comm, left: np.ndarray, *others: np.ndarray) -> np.ndarray:
    """Return conj(left) otherᵀ (m, k) of all others side by side, the same on every rank. Collective."""
    out = np.concatenate([left.conj() @ other.T for other in others], axis=1)
    comm.Allreduce(MPI.IN_PLACE, out)
    return out


def norms(comm: MPI.Comm, panel: np.ndarray) -> np.ndarray:
    """Return the 2-norms (m,) of the vectors. Collective."""
    out = np.einsum("ij,ij->i", panel.conj(), panel).real.copy()
    comm.Allreduce(MPI.IN_PLACE, out)
    return np.sqrt(out)


def combine(panel: np.ndarray, C: np.ndarray) -> None:
    """Have the first k rows of a panel (m, n_local) be its combinations Cᵀ panel, C (m, k). Not collective."""
    m, k = C.shape
    for first in range(0, panel.shape[1], _CHUNK):
        part = panel[:, first : first + _CHUNK]
        part[:k] = C.T @ part[:m]


def orthonormalize(
    comm: MPI.Comm, panel: np.ndarray, images: np.ndarray, also: tuple[np.ndarray, ...] = ()
) -> int:
    """Make a panel orthonormal in the mass, in its first rows, and return how many are independent.

    Collective. SVQB (Stathopoulos and Wu 2002, algorithm 2), which drops what is dependent.

    Parameters
    ----------
    panel, images
        (m, n_local) X and M X; for a standard problem the same array.
    also
        Panels that are combined alike.
    """
    C = on_root(comm, _independent, dots(comm, panel, images))
    for one in {id(each): each for each in (panel, images, *also)}.values():
        combine(one, C)
    return C.shape[1]


def _independent(gram: np.ndarray) -> np.ndarray:
    """Return coefficients of orthonormal combinations, one for each independent direction."""
    require_finite(gram)
    size = np.sqrt(np.maximum(gram.diagonal().real, 0.0))
    scale = np.divide(1.0, size, out=np.zeros_like(size), where=size > 0)
    weights, V = np.linalg.eigh(scale[:, None] * (gram + gram.conj().T) / 2 * scale)
    strong = weights > _DEPENDENT
    return scale[:, None] * V[:, strong] / np.sqrt(weights[strong])
