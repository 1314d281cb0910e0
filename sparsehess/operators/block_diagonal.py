"""`BlockDiagonal`: independent blocks, each worked on by one rank, all side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse

from sparsehess.errors import InputError
from sparsehess.operators.connected_components import TooLarge, balance_loads, labels_of, members
from sparsehess.operators.eigen_corrected import SYMMETRY
from sparsehess.operators.eigenvalues import Eigenvalues, apply_to_eigenvalues
from sparsehess.operators.matrix_like import is_sparse, stored
from sparsehess.operators.operator import Operator
from sparsehess.operators.solutions import inverses
from sparsehess.operators.wanted import Wanted, choose
from sparsehess.runtime import PETSc, agreement, aij, communicator, destroy
from sparsehess.runtime.petsc_matrices import is_assembled
from sparsehess.runtime.row_layout import Layout, offsets, send_to_owners
from sparsehess.runtime.validation import reals

if TYPE_CHECKING:
    from typing import Self

    from mpi4py import MPI

    from sparsehess.operators.matrix_like import HasMat, LocalMatrix

_EPS = float(np.finfo(float).eps)

# Beyond this a block takes half a gigabyte, and LAPACK minutes.
LIMIT = 8000


class BlockDiagonal(Operator):
    """H = diag(H_1, H_2, ...), or such a matrix with its rows in another order.

    *Collective* to make and to use. `mat` is assembled. Eigenvalues, solves and functions come from the
    eigendecompositions of the blocks, made when they are first asked for, each on one rank; blocks are dealt so
    that ranks have as much to do as each other, by the cubes of their sizes.

    Parameters
    ----------
    blocks
        Symmetric matrices, dense or SciPy sparse, in the order of their rows; the same list on every rank.
    comm
        Communicator; default this process alone.

    Attributes
    ----------
    blocks
        Dense blocks that this rank works on.
    rows
        Their rows, ascending within a block, one after another.

    Raises
    ------
    InputError
        A block is not square, not symmetric, not finite, or has more than 8000 rows.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsehess as sh
    >>> with sh.BlockDiagonal([np.eye(2), np.array([[2.0, 1.0], [1.0, 2.0]])]) as H:
    ...     print(H.spectrum(4), H.solve(np.array([1.0, 1.0, 3.0, 3.0])))
    [1. 1. 1. 3.] [1. 1. 1. 1.]
    """

    def __init__(self, blocks: Sequence[LocalMatrix], *, comm: MPI.Comm | None = None):
        comm = communicator(comm)
        with agreement(comm):
            blocks = [_block(block, number) for number, block in enumerate(blocks)]
            if not blocks:
                raise InputError("a block-diagonal matrix needs a block")
        sizes = np.array([block.shape[0] for block in blocks], np.int64)
        layout, begins = Layout.from_size(int(sizes.sum()), comm), offsets(sizes)
        target, _ = balance_loads(sizes.astype(np.float64) ** 3, comm.size)
        mine = np.flatnonzero(target == comm.rank)
        rows = [np.arange(begins[i], begins[i] + sizes[i]) for i in mine]
        # Only blocks that reach into this rank's rows are looked at for them.
        first, last = np.searchsorted(begins, [layout.start, layout.stop - 1], side="right") - 1
        there = range(first, last + 1) if layout.n_local else range(0)
        near = [scipy.sparse.coo_matrix(blocks[i]) for i in there] or [scipy.sparse.coo_matrix((0, 0))]
        local = scipy.sparse.block_diag(near, format="csr")
        skip = layout.start - begins[first] if layout.n_local else 0
        local = local[skip : skip + layout.n_local]
        shift = begins[first] if layout.n_local else 0
        self._take_matrix(aij(layout, local.indptr, local.indices.astype(np.int64) + shift, local.data))
        self._take([_dense(blocks[i]) for i in mine], rows)

    @classmethod
    def from_components(cls, matrix: PETSc.Mat | HasMat) -> Self:
        """Return a matrix as the blocks that its connected components are.

        Collective. Nothing but a component is ever whole on a rank.

        Parameters
        ----------
        matrix
            Assembled symmetric PETSc Mat, or an object that has one as `mat`; it is copied.

        Raises
        ------
        InputError
            Not assembled, or a component has more than 8000 rows.
        """
        mat = stored(matrix, "the matrix")
        if not is_assembled(mat):
            raise InputError("components are found in stored entries: the matrix must be assembled")
        layout = Layout.from_local(mat.getLocalSize()[0], communicator(mat.comm))
        try:
            labels, rows = members(labels_of(mat, layout), layout, LIMIT)
        except TooLarge as error:
            raise InputError(
                f"a connected component has {error.args[0]} rows, more than {LIMIT}: eigs is for such a matrix"
            ) from None
        heads = np.flatnonzero(np.diff(labels, prepend=-1))
        parts = np.split(rows, heads[1:]) if len(rows) else []
        return cls._made(mat.duplicate(copy=True), _cut_out(mat, parts), parts)

    @classmethod
    def _made(cls, mat: PETSc.Mat, blocks: list[np.ndarray], parts: list[np.ndarray]) -> Self:
        self = cls.__new__(cls)
        self._take_matrix(mat)
        self._take(blocks, parts)
        return self

    def _take(self, blocks: list[np.ndarray], parts: list[np.ndarray]) -> None:
        self.blocks = blocks
        self.rows = np.concatenate(parts) if parts else np.empty(0, np.int64)
        self._ends = np.cumsum([len(block) for block in blocks])[:-1].astype(np.int64)
        self._eigen: list[tuple[np.ndarray, np.ndarray]] | None = None
        template = self.mat.createVecRight()
        self._here = PETSc.Vec().createSeq(len(self.rows), comm=PETSc.COMM_SELF)
        index = PETSc.IS().createGeneral(self.rows.astype(PETSc.IntType), comm=PETSc.COMM_SELF)
        self._scatter = PETSc.Scatter().create(template, index, self._here, None)
        destroy(index, template)

    # --- the blocks' own answers ---

    @property
    def _eigenpairs(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Eigenvalues and eigenvectors of this rank's blocks. Collective the first time."""
        if self._eigen is None:
            with agreement(self.comm):
                self._eigen = [_decomposed(block) for block in self.blocks]
        return self._eigen

    @property
    def knows_eigenvalues(self) -> bool:
        """True: they are those of the blocks. Not collective."""
        return True

    def eigenvalues(self) -> Eigenvalues:
        """Return all eigenvalues: the union of those of the blocks.

        Collective.
        """
        own = [values for values, _ in self._eigenpairs]
        errors = [np.full(len(values), _EPS * np.abs(values).max(initial=0.0)) for values in own]
        empty = np.empty(0)
        return Eigenvalues.single(self.comm, *(np.concatenate([empty, *parts]) for parts in (own, errors)))

    def _size_for(self, values: np.ndarray, largest: float) -> float:
        return float(np.abs(values).max(initial=0.0))  # those of one block

    @property
    def knows_pairs(self) -> bool:
        """True: they are those of the blocks. Not collective."""
        return True

    def pairs(self, wanted: Wanted) -> tuple[np.ndarray, np.ndarray]:
        """Return (eigenvalues (m,), orthonormal eigenvectors (n_local, m)) that are wanted, ascending.

        Collective. Of equal ones those of the first blocks.
        """
        chosen = choose(self.eigenvalues(), self.rows, wanted)
        columns = np.empty((self.layout.n_local, len(chosen.values)), order="F")
        begins = np.concatenate([[0], self._ends]).astype(np.int64)
        order = np.argsort(self.rows, kind="stable")
        places = np.searchsorted(self.rows, chosen.labels, sorter=order)
        vector = self.mat.createVecRight()
        for j, (label, place) in enumerate(zip(chosen.labels, places, strict=True)):
            own = np.zeros(len(self.rows))
            at = order[place] if place < len(order) else -1
            if at >= 0 and self.rows[at] == label:
                block = int(np.searchsorted(begins, at, side="right")) - 1
                Q = self._eigenpairs[block][1]
                own[begins[block] : begins[block] + len(Q)] = Q[:, at - begins[block]]
            self._here.setArray(own)
            self._scatter.scatter(self._here, vector, mode=PETSc.ScatterMode.REVERSE)
            columns[:, j] = vector.getArray(readonly=True)
        destroy(vector)
        return chosen.values, columns

    def _solve(self, b: np.ndarray, shift: float) -> np.ndarray:
        return self._multiplied(b, [1 / (lam + shift) for lam, _ in self._eigenpairs])

    def _least_squares(self, b: np.ndarray, shift: float) -> np.ndarray:
        shifted = [lam + shift for lam, _ in self._eigenpairs]
        return self._multiplied(b, [inverses(values, np.abs(values).max(initial=0.0)) for values in shifted])

    @property
    def solves_directly(self) -> bool:
        """True: solutions are by eigenvalues. Not collective."""
        return True

    def _multiplied(self, b: np.ndarray, factors: list[np.ndarray]) -> np.ndarray:
        """Return the columns of b multiplied by the matrix that has these eigenvalues, block by block."""
        out = np.empty_like(b)
        for j in range(b.shape[1]):
            vector = self._vec(b[:, j])
            self._scatter.scatter(vector, self._here, mode=PETSc.ScatterMode.FORWARD)
            pieces = np.split(self._here.getArray().copy(), self._ends)
            solved = [
                Q @ (factor * (Q.T @ y))
                for (_, Q), factor, y in zip(self._eigenpairs, factors, pieces, strict=False)
            ]
            self._here.setArray(np.concatenate(solved) if solved else np.empty(0))
            self._scatter.scatter(self._here, vector, mode=PETSc.ScatterMode.REVERSE)
            out[:, j] = vector.getArray()
            destroy(vector)
        return out

    def function(self, f: Callable[[np.ndarray], np.ndarray]) -> BlockDiagonal:
        """Return f(H), of the same kind: f of the eigenvalues of each block.

        Collective.
        """
        with agreement(self.comm):
            blocks = [
                (Q * apply_to_eigenvalues(f, lam)) @ Q.T for lam, Q in self._eigen or map(_decomposed, self.blocks)
            ]
        return self._of_blocks(blocks)

    @classmethod
    def weighted(cls, items: Sequence[tuple[float, Self]], shift: float) -> Self | None:
        """Return a H + shift I; None for more than one of them, whose blocks need not be the same.

        Collective.
        """
        if len(items) > 1:
            return None
        ((a, H),) = items
        return H.map(lambda block: a * block + shift * np.eye(len(block)))

    def map(self, function: Callable[[np.ndarray], np.ndarray]) -> Self:
        """Return the matrix that has function(block) for each block, symmetric and of its size.

        Collective; the function is called where the blocks are, and must not be.
        """
        with agreement(self.comm):
            blocks = [np.asarray(function(block), np.float64) for block in self.blocks]
            for old, new in zip(self.blocks, blocks, strict=True):
                if new.shape != old.shape or not np.isfinite(new).all():
                    raise InputError(f"a block of {old.shape} became {new.shape}, or not finite")
        return self._of_blocks([(block + block.T) / 2 for block in blocks])

    def _of_blocks(self, blocks: list[np.ndarray]) -> Self:
        """Return the matrix that has other blocks in the places of these."""
        parts = np.split(self.rows, self._ends) if blocks else []
        rows = [np.repeat(part, len(part)) for part in parts]
        columns = [np.tile(part, len(part)) for part in parts]
        entries = [np.concatenate(items) if items else np.empty(0, np.int64) for items in (rows, columns)]
        data = np.concatenate([block.ravel() for block in blocks]) if blocks else np.empty(0)
        row, col, data = send_to_owners(self.layout, *entries, data)
        local = scipy.sparse.csr_matrix((data, (row - self.layout.start, col)), (self.layout.n_local, self.n))
        local.sort_indices()
        return self._made(aij(self.layout, local.indptr, local.indices, local.data), blocks, parts)

    def close(self) -> None:
        """Destroy the matrix and what was made of it.

        Collective.
        """
        destroy(self._scatter, self._here)
        self._scatter = self._here = None
        super().close()


def _decomposed(block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values, Q = np.linalg.eigh(block)
    return values, Q


def _cut_out(mat: PETSc.Mat, parts: list[np.ndarray]) -> list[np.ndarray]:
    """Return the dense blocks of these rows, from whichever ranks have them."""
    rows = np.concatenate(parts) if parts else np.empty(0, np.int64)
    order = np.sort(rows)
    index = PETSc.IS().createGeneral(order.astype(PETSc.IntType), comm=PETSc.COMM_SELF)
    (own,) = mat.createSubMatrices(index)
    indptr, indices, values = own.getValuesCSR()
    whole = scipy.sparse.csr_matrix((values, indices, indptr), (len(rows),) * 2)
    destroy(own, index)
    out = []
    for part in parts:
        at = np.searchsorted(order, part)
        block = whole[at][:, at].toarray()
        out.append((block + block.T) / 2)
    return out


def _block(block: LocalMatrix, number: int) -> LocalMatrix:
    """Return a block that the caller has given as an array or CSR matrix of floats, checked."""
    name = f"block {number}"
    if is_sparse(block):
        block = block.tocsr()
        block = block.astype(reals(block.data, name).dtype)
    else:
        block = np.array(reals(block, name))
    if block.ndim != 2 or block.shape[0] != block.shape[1] or not block.shape[0]:
        raise InputError(f"block {number} must be a square matrix, not {block.shape}")
    if block.shape[0] > LIMIT:
        raise InputError(f"block {number} has {block.shape[0]} rows, more than {LIMIT}")
    if not np.isfinite(block.data if is_sparse(block) else block).all():
        raise InputError(f"block {number} must be finite")
    if abs(block - block.T).max() > SYMMETRY * abs(block).max():
        raise InputError(f"block {number} is not symmetric")
    return block


def _dense(block: LocalMatrix) -> np.ndarray:
    block = block.toarray() if is_sparse(block) else block
    return (block + block.T) / 2
