"""Products of matrices with panels (m, n_local): m vectors, of each this rank's part.

A matrix is read once for all vectors. Of an AIJ matrix the product is our own: entries meet whole rows of vectors,
which lie side by side. That takes less than half of the time of PETSc's product with a dense matrix
(`benchmarks/panel_products.py`), whose vectors lie one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from mpi4py import MPI

import numpy as np

from sparsehess.eigen.problem.panel_kernels import multiply_rows
from sparsehess.runtime import PETSc, complex_scalars, destroy
from sparsehess.runtime.petsc_matrices import is_assembled
from sparsehess.runtime.stored_rows import StoredMatrix, stored_matrix, stores_rows


class RowProduct:
    """X -> A X of a real AIJ matrix, in double precision.

    Collective to make, to use and to `close()`. What a call returns is valid until the next one. Panels whose
    vectors lie side by side, columns of one array (n_local, m) in C's order, need no copy, and images are such.

    Parameters
    ----------
    matrix
        Its values may change between products, its places may not.

    Attributes
    ----------
    dtype
        Of what is multiplied, and of images.
    """

    dtype: np.dtype = np.dtype(np.float64)
    _number = MPI.DOUBLE

    def __init__(self, matrix: PETSc.Mat):
        self.matrix = matrix
        self._ghosts, self._halo = 0, None
        self._units: dict[int, MPI.Datatype] = {}  # by how many vectors there are; the halo remembers them
        self._room = [np.empty(0, self.dtype) for _ in range(3)]
        if matrix.comm.size > 1:
            with stored_matrix(matrix) as stored:
                starts = np.asarray(matrix.getOwnershipRangesColumn())
                owners = np.searchsorted(starts, stored.ghosts, side="right") - 1
                remote = np.stack([owners, stored.ghosts - starts[owners]], axis=1).astype(PETSc.IntType)
            self._ghosts, self._halo = len(remote), PETSc.SF().create(matrix.comm)
            self._halo.setGraph(matrix.getLocalSize()[1], None, remote.ravel())
            self._halo.setUp()

    def __call__(self, panel: np.ndarray) -> np.ndarray:
        """Return the image of a panel (m, n_local); the next call overwrites it. Collective."""
        vectors = len(panel)
        rows, columns = self.matrix.getLocalSize()
        image = self._place(0, rows, vectors)
        given = panel.T
        if not given.flags.c_contiguous or given.dtype != self.dtype or np.may_share_memory(given, image):
            given = self._place(1, columns, vectors)
            given[:] = panel.T
        with self._stored() as stored:
            if self._halo is None or not vectors:
                multiply_rows(*stored.own, given, image, False)
                return image.T
            ghosts = self._place(2, self._ghosts, vectors)
            if vectors not in self._units:
                self._units[vectors] = self._number.Create_contiguous(vectors).Commit()
            exchange = self._units[vectors], given, ghosts, MPI.REPLACE
            self._halo.bcastBegin(*exchange)
            multiply_rows(*stored.own, given, image, False)
            self._halo.bcastEnd(*exchange)
            multiply_rows(*stored.others, ghosts, image, True)
        return image.T

    def _stored(self) -> AbstractContextManager[StoredMatrix]:
        return stored_matrix(self.matrix)

    def _place(self, number: int, length: int, vectors: int) -> np.ndarray:
        """Return (length, vectors) of the memory that is kept."""
        if self._room[number].size < length * vectors:
            self._room[number] = np.empty(length * vectors, self.dtype)
        return self._room[number][: length * vectors].reshape(length, vectors)

    def close(self) -> None:
        """Free what is kept between products. Collective."""
        self._room = [np.empty(0, self.dtype) for _ in range(3)]
        destroy(self._halo)
        self._halo = None
        for unit in self._units.values():
            unit.Free()
        self._units.clear()


class SingleProduct(RowProduct):
    """X -> A X of a real AIJ matrix in single precision, for preconditioners.

    Half as much is read, and twice as many sums fit in a register. The values are those that the matrix had first;
    what is too large is infinite.
    """

    dtype: np.dtype = np.dtype(np.float32)
    _number = MPI.FLOAT

    def __init__(self, matrix: PETSc.Mat):
        super().__init__(matrix)
        with stored_matrix(matrix) as stored, np.errstate(over="ignore", under="ignore"):
            self._values = [rows.values.astype(self.dtype) for rows in (stored.own, stored.others)]

    @contextmanager
    def _stored(self) -> Iterator[StoredMatrix]:
        with stored_matrix(self.matrix) as stored:
            own, others = (
                rows._replace(values=values)
                for rows, values in zip((stored.own, stored.others), self._values, strict=True)
            )
            yield stored._replace(own=own, others=others)


class DenseProduct:
    """X -> A X of an assembled matrix of any kind, by PETSc's product with dense matrices.

    Collective to use and to `close()`. What a call returns is valid until the next one.
    """

    def __init__(self, matrix: PETSc.Mat):
        self.matrix = matrix
        self.dtype = np.dtype(PETSc.ScalarType)
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


class Preconditioning(DenseProduct):
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
        self.dtype = np.dtype(PETSc.ScalarType)

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


PanelProduct = RowProduct | DenseProduct | OneByOne


def product(matrix: PETSc.Mat) -> PanelProduct:
    """Return what multiplies panels by a matrix; the caller closes it. Collective."""
    if stores_real_rows(matrix):
        return RowProduct(matrix)
    return DenseProduct(matrix) if is_assembled(matrix) else OneByOne(matrix)


def stores_real_rows(matrix: PETSc.Mat) -> bool:
    """Return whether `RowProduct` and `SingleProduct` serve a matrix. Not collective."""
    return stores_rows(matrix) and not complex_scalars()


def dense(rows: tuple[int, int], vectors: int, comm: MPI.Comm) -> PETSc.Mat:
    """Return a dense matrix of so many vectors with the layout `rows`, (local, global). Collective."""
    matrix = PETSc.Mat().createDense((rows, (PETSc.DECIDE, vectors)), comm=comm)
    matrix.setUp()
    matrix.assemble()
    return matrix
