"""Products of a matrix, assembled or not, with blocks of vectors, in memory that stays."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sparsehess.eigen.problem.pencil import dense_block
from sparsehess.pattern import Layout
from sparsehess.runtime import PETSc, destroy
from sparsehess.runtime.petsc_matrices import is_assembled


class BlockProduct:
    """A matrix to be multiplied with blocks again and again; `close()` destroys what it made, not the matrix.

    Collective to make and to use. PETSc plans a product of two matrices once for each pair of them: for every
    number of columns that is asked for, a block and its image are kept.
    """

    def __init__(self, matrix: PETSc.Mat, layout: Layout):
        self.matrix, self.layout = matrix, layout
        self._assembled = is_assembled(matrix)
        self._blocks: dict[int, tuple[PETSc.Mat, PETSc.Mat]] = {}

    def __call__(self, X: np.ndarray, fill: Callable[[np.ndarray, np.ndarray], None] | None = None) -> np.ndarray:
        """Return the image of a block (n_local, k); it has contiguous columns, and the next call overwrites it.

        Parameters
        ----------
        fill
            Called as fill(source, target): puts what is to be multiplied, made of X, into (k, n_local); default
            X itself.
        """
        k = X.shape[1]
        if not k:
            return np.empty(X.shape, order="F")
        if k not in self._blocks:
            B = dense_block(self.layout, np.zeros((self.layout.n_local, k), order="F"))
            self._blocks[k] = (B, self.matrix.matMult(B) if self._assembled else B.duplicate())
        B, C = self._blocks[k]
        source, target = B.getDenseArray(), C.getDenseArray()
        if fill is None:
            np.copyto(source.T, X.T)
        else:
            fill(X.T, source.T)
        if self._assembled:
            self.matrix.matMult(B, C)
        else:
            self._by_vector(source, target)
        return target

    def _by_vector(self, source: np.ndarray, target: np.ndarray) -> None:
        """Multiply a shell with the columns of a block; all at once where its context has `matmat`."""
        matrix = self.matrix
        context = matrix.getPythonContext() if matrix.getType() == "python" else None
        matmat = getattr(context, "matmat", None)
        if matmat is not None:
            target[:] = matmat(source)
            return
        x, y = matrix.createVecs()
        for column in range(source.shape[1]):
            x.setArray(source[:, column])
            matrix.mult(x, y)
            target[:, column] = y.getArray(readonly=True)
        destroy(y, x)

    def close(self) -> None:
        """Destroy the blocks.

        Collective.
        """
        for block, image in self._blocks.values():
            destroy(image, block)
        self._blocks.clear()
