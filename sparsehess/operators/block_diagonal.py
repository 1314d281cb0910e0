"""`BlockDiagonal`: independent blocks, each worked on by one rank, all side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse

from sparsehess.errors import InputError
from sparsehess.operators.connected_components import TooLarge, balance_loads, labels_of, members
from sparsehess.operators.eigen_corrected import SYMMETRY
from sparsehess.operators.eigenvalues import Eigenvalues, Inertia, apply_to_eigenvalues, total_inertia
from sparsehess.operators.matrix_like import is_sparse, stored
from sparsehess.operators.operator import Operator
from sparsehess.operators.scaled_blocks import ScaledBlock, is_graded
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
        self._kept_graded: bool | None = None
        self._kept_scaled: tuple[float, list[ScaledBlock]] | None = None
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
        """Whether no block has rows 10¹² times smaller than others, whose digits its eigenvectors lose.

        Collective the first time.
        """
        if self._kept_graded is None:
            own = any(is_graded(block) for block in self.blocks)
            self._kept_graded = self.comm.allreduce(int(own)) > 0
        return not self._kept_graded

    @property
    def knows_counts(self) -> bool:
        """As `knows_pairs`. Collective the first time."""
        return self.knows_pairs

    @property
    def knows_signs(self) -> bool:
        """True: blocks are judged beside their own rows. Not collective."""
        return True

    def counts(self, below: np.ndarray) -> np.ndarray:
        """Return how many eigenvalues are below each of some numbers (m,).

        Collective. Of blocks with rows of very different sizes by their signs beside a shift.
        """
        if self.knows_pairs:
            return super().counts(below)
        return np.array([self.negative(-shift) for shift in below], np.int64)

    def count(self, below: float) -> int:
        """Return how many eigenvalues are below a number; see `counts`.

        Collective.
        """
        return int(self.counts(np.array([below]))[0])

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

    def _scaled(self, shift: float) -> list[ScaledBlock]:
        """Return this rank's blocks with a shift, beside their own rows. Collective."""
        if self._kept_scaled is None or self._kept_scaled[0] != shift:
            pairs = self._eigenpairs
            with agreement(self.comm):
                blocks = [ScaledBlock.of(B, shift, own) for B, own in zip(self.blocks, pairs, strict=True)]
            self._kept_scaled = shift, blocks
        return self._kept_scaled[1]

    def inertia(self, zero: float | None = None) -> Inertia:
        """Return the inertia, the sum of those of the blocks; see `Operator.inertia`.

        Collective. Each is judged beside its own rows, unless `zero` is given; `threshold` is the largest.
        """
        if zero is not None:
            return super().inertia(zero)
        own = total_inertia(block.inertia() for block in self._scaled(0.0))
        return total_inertia(self.comm.allgather(own))

    def negative(self, shift: float = 0.0) -> int:
        """Return how many eigenvalues of H + shift I are negative.

        Collective.
        """
        return self.comm.allreduce(sum(block.negative() for block in self._scaled(shift)))

    def logdet(self, shift: float = 0.0) -> float:
        """Return log |det (H + shift I)|, -inf where it is singular; `inertia` tells the sign.

        Collective.
        """
        return self.comm.allreduce(float(sum(block.logdet() for block in self._scaled(shift))))

    def inverse_diagonal(self, shift: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the diagonal (n_local,) of (H + shift I)⁻¹ and how far rounding may have moved it.

        Collective.
        """
        found = [block.inverse_diagonal() for block in self._scaled(shift)]
        values, rounding = (self._spread([one[side] for one in found]) for side in (0, 1))
        return values, rounding

    def _row_sizes(self) -> np.ndarray:
        return self._spread([block.size / block.S**2 for block in self._scaled(0.0)])

    def _spread(self, pieces: list[np.ndarray]) -> np.ndarray:
        """Return local rows (n_local,) of what this rank has for the rows of its blocks. Collective."""
        vector = self.mat.createVecRight()
        self._here.setArray(np.concatenate([np.empty(0), *pieces]))
        self._scatter.scatter(self._here, vector, mode=PETSc.ScatterMode.REVERSE)
        out = vector.getArray().copy()
        destroy(vector)
        return out

    def _solve(self, b: np.ndarray, shift: float) -> np.ndarray:
        return self._by_blocks(b, [block.solve for block in self._scaled(shift)])

    def inverse_root(self, z: np.ndarray, shift: float = 0.0) -> np.ndarray:
        """Return R z (n_local, m) with R Rᵀ = (H + shift I)⁻¹, block by block.

        Collective. See `Operator.inverse_root`.
        """
        self._refuse_indefinite(shift)
        return self._by_blocks(z, [block.inverse_root for block in self._scaled(shift)])

    def _least_squares(self, b: np.ndarray, shift: float) -> np.ndarray:
        found = [values for values, _ in self._eigenpairs]
        sizes = [max(float(np.abs(values).max(initial=0.0)), abs(shift)) for values in found]
        return self._multiplied(
            b, [inverses(values + shift, size) for values, size in zip(found, sizes, strict=True)]
        )

    @property
    def solves_directly(self) -> bool:
        """True: solutions are by eigenvalues. Not collective."""
        return True

    def _multiplied(self, b: np.ndarray, factors: list[np.ndarray]) -> np.ndarray:
        """Return the columns of b multiplied by the matrix that has these eigenvalues, block by block."""

        def of_block(Q: np.ndarray, factor: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
            return lambda y: Q @ (factor * (Q.T @ y))

        pairs = zip(self._eigenpairs, factors, strict=True)
        return self._by_blocks(b, [of_block(Q, factor) for (_, Q), factor in pairs])

    def _by_blocks(self, b: np.ndarray, functions: list[Callable[[np.ndarray], np.ndarray]]) -> np.ndarray:
        """Return what functions make of the rows of each block, column by column. Collective."""
        out = np.empty_like(b)
        for j in range(b.shape[1]):
            vector = self._vec(b[:, j])
            self._scatter.scatter(vector, self._here, mode=PETSc.ScatterMode.FORWARD)
            pieces = np.split(self._here.getArray().copy(), self._ends) if functions else []
            destroy(vector)
            out[:, j] = self._spread([f(y) for f, y in zip(functions, pieces, strict=True)])
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
